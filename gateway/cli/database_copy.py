"""`video-gateway database copy`: how do all records move to another database?

Exits with 0 if both sides have the same rows and both add up, 1 if not, 2 on wrong usage or
settings. It may be stopped at any time and be run again: it goes on where it was.
"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import click

from gateway.billing.audit import differences_of, read_books
from gateway.cli.common import EXIT_FAILED, WrongSettings, fail, read_settings, show_facts
from gateway.cli.progress import progress
from gateway.clock import system_clock
from gateway.config import Settings, SettingsError
from gateway.db.copy import (
    Copied,
    CopyRefused,
    Difference,
    Sides,
    compare,
    count,
    finish,
    prepare,
)
from gateway.db.copy import (
    copy as copy_rows,
)
from gateway.db.database import Database, in_words
from gateway.db.migrate import SchemaError
from gateway.db.opening import open_database_url
from gateway.db.url import DatabaseUrlError, parse_database_url, shown
from gateway.errors import DatabaseUnavailable

# One look at all rows is one transaction, however long it takes.
ANSWER_SECONDS: Final = 24 * 3600.0


@click.command("copy")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings.")
@click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a text.")
def copy(*, source: str, target: str, config: Path | None, as_json: bool) -> None:
    """Copy all records, such as from sqlite:///data/gateway.db to postgresql://user@host/name.

    TO must be empty, or a copy of FROM that was broken off. Both sides are compared at the end, row
    by row, and audited. Where a URL of a server has no password, the one of the settings is used.

    Exits with 1 if the two differ: stop the gateway, and run it again.
    """
    settings = read_settings(config)
    _insist_on_two(source, target)
    try:
        summary = asyncio.run(_run(settings, source, target, as_json=as_json))
    except SettingsError as error:
        raise WrongSettings(error) from error
    except (CopyRefused, SchemaError, DatabaseUnavailable) as error:
        raise fail(in_words(error)) from error
    show_facts(_facts(summary), text=_text(summary, target), as_json=as_json)
    if not summary.whole:
        raise SystemExit(EXIT_FAILED)


def _insist_on_two(source: str, target: str) -> None:
    try:
        one, other = parse_database_url(source), parse_database_url(target)
    except DatabaseUrlError as error:
        raise click.UsageError(f"a database {error}") from error
    if isinstance(one, Path) and isinstance(other, Path):
        one, other = one.resolve(), other.resolve()
    if one == other:
        raise click.UsageError("FROM and TO are the same database")
    if isinstance(one, Path) and not one.exists():
        raise fail(f"there is no database at {one}")


@dataclass(frozen=True, slots=True)
class _Summary:
    """What was done, and how the two sides stand to each other now.

    Attributes:
        rows: how many FROM has.
        unsound: sides whose balances are not the sums of their entries.
    """

    copied: Copied
    rows: int
    differences: list[Difference]
    unsound: list[str]

    @property
    def whole(self) -> bool:
        return not self.differences and not self.unsound


async def _run(settings: Settings, source: str, target: str, *, as_json: bool) -> _Summary:
    clock = system_clock()
    async with _open("FROM", source, settings) as here, _open("TO", target, settings) as there:
        sides = await prepare(here, there, clock=clock)
        rows = await count(sides)
        with progress("copying", as_json=as_json, items=rows) as bar:
            copied = await copy_rows(sides, clock=clock, told=lambda n: bar.moved(items=n))
        with progress("comparing", as_json=as_json):
            summary = _Summary(copied, rows, await compare(sides), await _unsound(sides))
        if summary.whole:
            await finish(sides, copied, clock=clock)
        return summary


@asynccontextmanager
async def _open(side: str, url: str, settings: Settings) -> AsyncIterator[Database]:
    async with AsyncExitStack() as stack:
        opening = open_database_url(
            url, password=settings.database_password, answer_seconds=ANSWER_SECONDS
        )
        try:
            database = await stack.enter_async_context(opening)
        except DatabaseUrlError as error:
            raise SettingsError([f"{side} {error}"]) from error
        except DatabaseUnavailable as error:
            raise fail(f"{side}, {shown(url)}: {in_words(error)}") from error
        yield database


async def _unsound(sides: Sides) -> list[str]:
    databases = {"FROM": sides.source, "TO": sides.target}
    return [
        side
        for side, database in databases.items()
        if differences_of(await database.read(read_books))
    ]


def _facts(summary: _Summary) -> dict[str, Any]:
    return {
        "whole": summary.whole,
        "rows": summary.rows,
        "copied": summary.copied.rows,
        "repaired": summary.copied.repaired,
        "left_out": summary.copied.left_out,
        "differences": [one._asdict() for one in summary.differences],
        "unsound": summary.unsound,
    }


def _text(summary: _Summary, target: str) -> str:
    copied = summary.copied
    lines = [f"copied {copied.rows} rows, repaired {copied.repaired}; FROM had {summary.rows}"]
    lines += [
        f"{one.table} differs: {one.source_rows} rows in FROM, {one.target_rows} in TO"
        for one in summary.differences
    ]
    lines += [f"the books of {side} do not add up: see `ledger audit`" for side in summary.unsound]
    if summary.differences and copied.copy.finished:
        lines.append(
            "TO was whole once, and the two have gone different ways since: nothing was changed."
            " Copy to an empty database"
        )
    elif summary.differences:
        lines.append(
            "FROM was written to meanwhile, and nothing is served from TO as it is: stop the"
            " gateway and run this again, which copies what is missing"
        )
    if summary.whole:
        lines.append(
            "Both sides are equal, and both add up. To switch: start the gateway with"
            f" GATEWAY_DATABASE_URL='{shown(target)}'"
        )
    return "\n".join(lines)
