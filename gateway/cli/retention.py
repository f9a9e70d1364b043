"""`video-gateway retention`: how long, and how much, of the content is kept?"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gateway.billing.audit_log import Change
from gateway.billing.balances import PROJECT, Level
from gateway.cli.common import (
    LIST_ROWS,
    a_change,
    database_command,
    read_script,
    read_settings,
    run_script,
    show,
    show_facts,
)
from gateway.cli.levels import existing_level
from gateway.clock import system_clock
from gateway.config import Settings
from gateway.db.script import Row, Script
from gateway.mirror.keeping import (
    FOREVER,
    Retention,
    get_retention,
    list_retentions,
    set_retention,
)

DAY_SECONDS: Final = 86_400
_FOREVER: Final = "forever"
_DEFAULT: Final = "default"
_NONE: Final = "none"
_MAX_DAYS: Final = 100_000
# The largest whole number that every JSON reader keeps exactly.
_MAX_BYTES: Final = (1 << 53) - 1
_MAX_DIGITS: Final = 16


class _Number(click.ParamType[int | str]):
    """A whole number of at least 1, or one of some words."""

    def __init__(self, *words: str, most: int) -> None:
        self.name = "|".join(("number", *words))
        self.words = words
        self.most = most

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the number, or the word."""
        text = str(value)
        if text in self.words:
            return text
        # Not int() alone: it also reads 1_000 and the digits of other scripts.
        digits = text.isascii() and text.isdecimal() and len(text) <= _MAX_DIGITS
        if not digits or not 0 < int(text) <= self.most:
            words = " or ".join(f"`{word}`" for word in self.words)
            self.fail(f"{text!r} is no whole number from 1 to {self.most}, nor {words}", param, ctx)
        return int(text)


@click.group()
def retention() -> None:
    """How long content is kept, and how much of it; pinned videos always are."""


@retention.command("set")
@click.option("--project", required=True, help="The project with this id or name.")
@click.option(
    "--keep-days",
    type=_Number(_FOREVER, _DEFAULT, most=_MAX_DAYS),
    help="Since content was mirrored; `default`: as the setting keep_days says.",
)
@click.option(
    "--keep-bytes",
    type=_Number(_NONE, most=_MAX_BYTES),
    help="Of the project at most; the oldest content goes first.",
)
@database_command
def set_(
    *,
    project: str,
    keep_days: int | str | None,
    keep_bytes: int | str | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Set what is kept of a project; what is too old or too much goes within a minute, for good."""
    wanted: dict[str, int | None] = {}
    if keep_days is not None:
        wanted["keep_seconds"] = _seconds(keep_days)
    if keep_bytes is not None:
        wanted["keep_bytes"] = None if isinstance(keep_bytes, str) else keep_bytes
    if not wanted:
        raise click.UsageError("say --keep-days or --keep-bytes")
    settings = read_settings(config, database_url=database_url)
    script = partial(_set, a_change(system_clock()), project, wanted)
    level, kept = run_script(settings, script)
    facts = {"project_id": level.id, **_figures(settings, kept)}
    show_facts(facts, text=f"the project {level.id} keeps {_in_words(facts)}", as_json=as_json)


def _seconds(keep_days: int | str) -> int | None:
    if isinstance(keep_days, int):
        return keep_days * DAY_SECONDS
    return FOREVER if keep_days == _FOREVER else None


def _set(
    change: Change, named: str, wanted: Mapping[str, int | None]
) -> Script[tuple[Level, Retention]]:
    level = yield from existing_level(PROJECT, named)
    kept = replace((yield from get_retention(level.id)), **wanted)
    yield from set_retention(change, project_id=level.id, retention=kept)
    return level, kept


@retention.command("show")
@click.option("--project", help="The project with this id or name.")
@database_command
def show_(
    *, project: str | None, config: Path | None, database_url: str | None, as_json: bool
) -> None:
    """Show what is kept, by the settings of all together, then by project."""
    settings = read_settings(config, database_url=database_url)
    found = read_script(settings, partial(_listed, project))
    rows = [_of_project(settings, row) for row in found]
    if project is None:
        rows.insert(0, _of_all(settings, rows))
    columns = (
        *("level", "id", "name", "keep_days", "says", "keep_bytes"),
        *("kept_assets", "kept_bytes", "pinned_bytes"),
    )
    show(rows, columns=columns, as_json=as_json, empty="There are no projects yet.")


def _listed(named: str | None) -> Script[list[Row]]:
    level = None if named is None else (yield from existing_level(PROJECT, named))
    found = yield from list_retentions(
        project_id=None if level is None else level.id, limit=LIST_ROWS
    )
    return list(found)


def _of_project(settings: Settings, row: Row) -> dict[str, Any]:
    return {
        "level": PROJECT,
        "id": row["id"],
        "name": row["name"],
        **_figures(settings, Retention(row["keep_seconds"], row["keep_bytes"])),
        **{name: row[name] for name in ("kept_assets", "kept_bytes", "pinned_bytes")},
    }


def _of_all(settings: Settings, projects: list[dict[str, Any]]) -> dict[str, Any]:
    return {
        "level": "organization",
        "id": None,
        "name": None,
        "keep_days": settings.keep_days or _FOREVER,
        "says": "settings",
        "keep_bytes": settings.keep_bytes or None,
        **{
            name: sum(row[name] for row in projects)
            for name in ("kept_assets", "kept_bytes", "pinned_bytes")
        },
    }


def _figures(settings: Settings, kept: Retention) -> dict[str, Any]:
    own = kept.keep_seconds is not None
    keep_days = (kept.keep_seconds or 0) // DAY_SECONDS if own else settings.keep_days
    return {
        "keep_days": keep_days or _FOREVER,
        "says": PROJECT if own else "settings",
        "keep_bytes": kept.keep_bytes,
    }


def _in_words(facts: Mapping[str, Any]) -> str:
    days, most = facts["keep_days"], facts["keep_bytes"]
    time = "for ever" if days == _FOREVER else f"for {days} days"
    source = " (as the settings say)" if facts["says"] == "settings" else ""
    return f"content {time}{source}, {'however much' if most is None else f'{most} bytes at most'}"
