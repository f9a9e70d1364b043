"""`video-gateway budgets`: set and list limits."""

from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.billing.budgets import (
    KEY,
    ORGANIZATION,
    PERIODS,
    PROJECT,
    Standing,
    find_level,
    list_budgets,
    set_budget,
)
from gateway.billing.money import format_usd
from gateway.cli.common import (
    Usd,
    database_command,
    fail,
    read_settings,
    run_script,
    show,
    show_json,
)
from gateway.clock import system_clock
from gateway.db.script import Row, Script


@click.group()
def budgets() -> None:
    """Limits per day, month or total, for the organization, a project or a key."""


@budgets.command("set")
@click.option("--organization", is_flag=True, help="The limit of the whole organization.")
@click.option("--project", help="The limit of the project of this name.")
@click.option("--key", help="The limit of the key with this id.")
@click.option("--amount", type=Usd(), required=True, help="US dollars, such as 2.50.")
@click.option("--period", type=click.Choice(PERIODS), required=True)
@database_command
def set_(
    *,
    organization: bool,
    project: str | None,
    key: str | None,
    amount: int,
    period: str,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Set a limit, in force at once. What is on hold already counts against it."""
    levels = {
        ORGANIZATION: organization or None,
        PROJECT: project,
        KEY: key,
    }
    named = [(level, name) for level, name in levels.items() if name is not None]
    if len(named) != 1:
        raise click.UsageError("say exactly one of --organization, --project and --key")
    ((level, name),) = named
    settings = read_settings(config, database_url=database_url)
    script = partial(
        _set,
        level=level,
        named=str(name),
        period=period,
        amount_micros=amount,
        now=system_clock().now(),
    )
    found = run_script(settings, script)
    if found is None:
        raise fail(f"there is no {level} {name!r}")
    level_id, standing = found
    facts = _facts(level=level, level_id=level_id, period=period, standing=standing)
    if as_json:
        show_json(facts)
    else:
        click.echo(
            f"the {level}'s {period} budget is ${facts['budget_usd']}:"
            f" spent ${facts['spent_usd']}, held ${facts['held_usd']},"
            f" available ${facts['available_usd']}"
        )


def _set(
    *, level: str, named: str, period: str, amount_micros: int, now: int
) -> Script[tuple[str, Standing] | None]:
    level_id = yield from find_level(level=level, named=named)
    if level_id is None:
        return None
    standing = yield from set_budget(
        level=level, level_id=level_id, period=period, limit_micros=amount_micros, now=now
    )
    return level_id, standing


def _facts(*, level: str, level_id: str, period: str, standing: Standing) -> dict[str, Any]:
    return {
        "level": level,
        "id": level_id,
        "period": period,
        "budget_usd": format_usd(standing.limit_micros),
        "spent_usd": format_usd(standing.spent_micros),
        "held_usd": format_usd(standing.held_micros),
        "available_usd": format_usd(standing.available_micros),
    }


@budgets.command("list")
@database_command
def list_(*, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """List the limits of the running periods and what is left of them."""
    settings = read_settings(config, database_url=database_url)
    day = datetime.fromtimestamp(system_clock().now(), UTC).date()
    rows = [
        {
            "level": row["level"],
            "id": row["level_id"],
            "period": row["period"],
            "budget_usd": format_usd(row["limit_micros"]),
            "spent_usd": format_usd(row["spent_micros"]),
            "held_usd": format_usd(row["held_micros"]),
            "available_usd": format_usd(
                row["limit_micros"] - row["spent_micros"] - row["held_micros"]
            ),
        }
        for row in run_script(settings, partial(_all_limits, day=day))
    ]
    columns = ("level", "id", "period", "budget_usd", "spent_usd", "held_usd", "available_usd")
    show(rows, columns=columns, as_json=as_json, empty="There are no budgets yet.")


def _all_limits(*, day: date) -> Script[list[Row]]:
    found: list[Row] = []
    for period in PERIODS:
        found += yield from list_budgets(period=period, day=day)
    return found
