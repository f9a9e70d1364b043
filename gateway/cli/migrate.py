"""`video-gateway migrate`: how does a database come by the tables of this program?

Exits with 0 if it has them all, 1 if with `--check` some are missing or if the database is too new,
2 on wrong usage or settings.
"""

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import click

from gateway.cli.common import (
    EXIT_FAILED,
    WrongSettings,
    database_command,
    fail,
    look_for,
    read_settings,
    show_facts,
)
from gateway.clock import system_clock
from gateway.config import Settings, SettingsError
from gateway.db.database import in_words
from gateway.db.migrate import Named, SchemaError, Standing, standing
from gateway.db.migrate import migrate as apply_missing
from gateway.errors import DatabaseUnavailable
from gateway.setup import open_as_it_is

# A large table may take long; one that is being served from should not: see gateway/README.md.
ANSWER_SECONDS: Final = 3600.0


@click.command("migrate")
@click.option("--check", is_flag=True, help="Only tell whether something is missing.")
@database_command
def migrate(*, check: bool, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Bring the database to the tables of this program, which `serve` also does at its start.

    Several may run at once, also while gateways run. Exits with 1 if with --check something is
    missing, or if the database is too new for this program.
    """
    settings = read_settings(config, database_url=database_url)
    if settings.database_path is not None:
        look_for(settings.database_path.absolute(), make=not check)
    try:
        found, applied = asyncio.run(_run(settings, check=check))
    except SettingsError as error:
        raise WrongSettings(error) from error
    except (SchemaError, DatabaseUnavailable) as error:
        raise fail(in_words(error)) from error
    missing = found.missing if check else []
    facts: dict[str, Any] = {
        "applied": [one._asdict() for one in applied],
        "missing": [one._asdict() for one in missing],
        "newer": [one._asdict() for one in found.newer],
    }
    show_facts(facts, text=_text(found, applied, missing), as_json=as_json)
    if missing:
        raise SystemExit(EXIT_FAILED)


async def _run(settings: Settings, *, check: bool) -> tuple[Standing, list[Named]]:
    async with open_as_it_is(settings, answer_seconds=ANSWER_SECONDS) as database:
        found = await standing(database)
        if check:
            return found, []
        return found, await apply_missing(database, now=system_clock().now())


def _text(found: Standing, applied: Sequence[Named], missing: Sequence[Named]) -> str:
    lines = [f"applied {one.number} {one.name}" for one in applied]
    lines += [f"missing: {one.number} {one.name}" for one in missing]
    if not lines:
        lines.append("Nothing is missing.")
    lines += [
        f"newer than this program, which may run with it: {one.number} {one.name}"
        for one in found.newer
    ]
    return "\n".join(lines)
