"""`video-gateway spend`: who has spent what, and on what?"""

from collections.abc import Mapping, Sequence
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gateway.billing.balances import PERIODS, accounting_day
from gateway.billing.costs import (
    DAY,
    KEY,
    MODEL,
    OPERATION,
    PROJECT,
    SIZE,
    SUMS,
    Asked,
    read_costs,
)
from gateway.billing.money import format_usd
from gateway.billing.spend import spend_by_level
from gateway.cli.common import (
    database_command,
    read_script,
    read_settings,
    show,
    show_json,
)
from gateway.cli.csv_text import csv_header, csv_rows
from gateway.cli.values import Day, Words
from gateway.clock import system_clock
from gateway.config import Settings
from gateway.db.script import Row

_TABLE: Final = "table"
_JSON: Final = "json"
_CSV: Final = "csv"
_SUMS: Final = ("videos", "seconds", "spent_usd", "list_usd", "cost_usd")
_LEVELS: Final = (
    *("level", "name", "id", "period_start"),
    *("spent_usd", "held_usd", "budget_usd", "available_usd"),
)
# A name need not be unique, so an id stands beside it.
_COLUMNS: Final[Mapping[str, tuple[str, ...]]] = {
    DAY: ("day",),
    PROJECT: ("project", "project_id"),
    KEY: ("key", "key_id"),
    MODEL: ("model",),
    SIZE: ("size",),
    OPERATION: ("operation",),
}
_RUNNING: Final = {"day": "{:%Y-%m-%d}", "month": "{:%Y-%m}", "total": "in total until {:%Y-%m-%d}"}


@click.group()
def spend() -> None:
    """What was settled and what is held."""


@spend.command("report")
@click.option("--from", "first", type=Day(), help="First day; by default that of this month.")
@click.option("--to", "last", type=Day(), help="Last day, included; by default today.")
@click.option(
    "--group-by",
    type=Words(tuple(_COLUMNS)),
    help=f"What is told apart, with commas between: {', '.join(_COLUMNS)}.",
)
@click.option("--period", type=click.Choice(PERIODS), help="Running period.  [default: month]")
@click.option(
    "--format", "shape", type=click.Choice((_TABLE, _JSON, _CSV)), default=_TABLE, show_default=True
)
@database_command
def report(
    *,
    first: date | None,
    last: date | None,
    group_by: tuple[str, ...] | None,
    period: str | None,
    shape: str,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Show what was spent, by whatever is to be told apart, with --from, --to or --group-by.

    Days are UTC accounting days: a video counts on the day on which it was bought, whenever it was
    settled or corrected.

    Without those options: spend, held and budget of the organization, of projects and keys in the
    running --period.
    """
    shape = _JSON if as_json else shape
    if first is None and last is None and group_by is None:
        settings = read_settings(config, database_url=database_url)
        _show_levels(settings, period=period or "month", shape=shape)
        return
    if period is not None:
        raise click.UsageError(
            "--period is about a running period: leave it out beside --from, --to and --group-by"
        )
    today = date.fromisoformat(accounting_day(system_clock().now()))
    asked = Asked(
        first_day=first or today.replace(day=1),
        last_day=last or today,
        group_by=group_by or (),
    )
    if asked.first_day > asked.last_day:
        raise click.UsageError(
            f"--from {asked.first_day} is after --to {asked.last_day}: nothing lies between"
        )
    settings = read_settings(config, database_url=database_url)
    found = read_script(settings, partial(read_costs, asked))
    _show_costs(asked, found, shape=shape)


def _show_levels(settings: Settings, *, period: str, shape: str) -> None:
    day = date.fromisoformat(accounting_day(system_clock().now()))
    rows = []
    for row in read_script(settings, partial(spend_by_level, period=period, day=day)):
        limit = row["limit_micros"]
        left = None if limit is None else limit - row["spent_micros"] - row["held_micros"]
        rows.append(
            {
                "level": row["level"],
                "id": row["level_id"],
                "name": row["name"],
                "period_start": row["period_start"],
                "spent_usd": format_usd(row["spent_micros"]),
                "held_usd": format_usd(row["held_micros"]),
                "budget_usd": None if limit is None else format_usd(limit),
                "available_usd": None if left is None else format_usd(left),
            }
        )
    if shape == _CSV:
        _show_csv(rows, columns=_LEVELS)
        return
    if shape == _TABLE:
        click.echo(f"{_RUNNING[period].format(day)}, UTC\n")
    columns = ("level", "name", "id", "spent_usd", "held_usd", "budget_usd", "available_usd")
    show(rows, columns=columns, as_json=shape == _JSON, empty="Nothing was held or spent yet.")


def _show_costs(asked: Asked, found: Sequence[Row], *, shape: str) -> None:
    groups = [column for group in asked.group_by for column in _COLUMNS[group]]
    rows = [{**_groups(asked, row), **_sums([row])} for row in found]
    columns = (*groups, *_SUMS)
    if shape == _JSON:
        show_json(
            {
                "from": asked.first_day.isoformat(),
                "to": asked.last_day.isoformat(),
                "rows": rows,
                "total": _sums(found),
            }
        )
    elif shape == _CSV:
        _show_csv(rows, columns=columns)
    else:
        click.echo(f"{asked.first_day} to {asked.last_day}, UTC accounting days\n")
        if groups and rows:
            rows.append({**dict.fromkeys(groups), groups[0]: "total", **_sums(found)})
        show(rows, columns=columns, as_json=False, empty="Nothing was spent.")


def _show_csv(rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str]) -> None:
    click.echo(csv_header(columns) + csv_rows(rows, columns=columns), nl=False)


def _groups(asked: Asked, row: Row) -> dict[str, Any]:
    told: dict[str, Any] = {}
    for group in asked.group_by:
        if group in {PROJECT, KEY}:
            told[group] = row[f"{group}_name"]
            told[f"{group}_id"] = row[group]
        else:
            told[group] = row[group]
    return told


def _sums(rows: Sequence[Row]) -> dict[str, Any]:
    spent, listed, cost, videos, seconds = (sum(row[name] for row in rows) for name in SUMS)
    return {
        "videos": videos,
        "seconds": seconds,
        "spent_usd": format_usd(spent),
        "list_usd": format_usd(listed),
        "cost_usd": format_usd(cost),
    }
