"""`video-gateway budgets`: set, list and remove limits on spend."""

from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gateway.billing.audit_log import Change
from gateway.billing.balances import PERIODS, Level, Standing
from gateway.billing.budgets import list_budgets, remove_budget, set_budget
from gateway.billing.money import format_usd
from gateway.cli.common import (
    a_change,
    database_command,
    fail,
    read_script,
    read_settings,
    run_script,
    show,
    show_facts,
)
from gateway.cli.levels import existing_level, level_options, named_level, whose
from gateway.cli.values import Usd
from gateway.clock import system_clock
from gateway.db.script import Script

_PERIODS: Final = {"day": "daily", "month": "monthly", "total": "total"}


@click.group()
def budgets() -> None:
    """Limits per day, month or total, for the organization, a project or a key."""


@budgets.command("set")
@level_options
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
    name, named = named_level(organization=organization, project=project, key=key)
    settings = read_settings(config, database_url=database_url)
    change = a_change(system_clock())
    level, standing = run_script(
        settings, partial(_set, change, name, named, period=period, limit_micros=amount)
    )
    facts = _facts(level=level.name, level_id=level.id, period=period, standing=standing)
    text = (
        f"the {_PERIODS[period]} budget of {whose(name, named)} is ${facts['budget_usd']}:"
        f" spent ${facts['spent_usd']}, held ${facts['held_usd']},"
        f" available ${facts['available_usd']}"
    )
    show_facts(facts, text=text, as_json=as_json)


def _set(
    change: Change, name: str, named: str, *, period: str, limit_micros: int
) -> Script[tuple[Level, Standing]]:
    level = yield from existing_level(name, named)
    standing = yield from set_budget(change, level, period=period, limit_micros=limit_micros)
    return level, standing


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
    rows = [
        {
            "level": row["level"],
            "id": row["level_id"],
            "name": row["name"],
            "period": row["period"],
            "budget_usd": format_usd(row["limit_micros"]),
            "spent_usd": format_usd(row["spent_micros"]),
            "held_usd": format_usd(row["held_micros"]),
            "available_usd": format_usd(
                row["limit_micros"] - row["spent_micros"] - row["held_micros"]
            ),
        }
        for row in read_script(settings, partial(list_budgets, now=system_clock().now()))
    ]
    columns = (
        *("level", "name", "id", "period"),
        *("budget_usd", "spent_usd", "held_usd", "available_usd"),
    )
    show(rows, columns=columns, as_json=as_json, empty="There are no budgets.")


@budgets.command("remove")
@level_options
@click.option("--period", type=click.Choice(PERIODS), required=True)
@database_command
def remove(
    *,
    organization: bool,
    project: str | None,
    key: str | None,
    period: str,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Take a limit away, at once. What was spent and held is counted as before."""
    name, named = named_level(organization=organization, project=project, key=key)
    settings = read_settings(config, database_url=database_url)
    change = a_change(system_clock())
    level = run_script(settings, partial(_remove, change, name, named, period=period))
    show_facts(
        {"level": level.name, "id": level.id, "period": period, "removed": True},
        text=f"{whose(name, named)} has no {_PERIODS[period]} budget any more",
        as_json=as_json,
    )


def _remove(change: Change, name: str, named: str, *, period: str) -> Script[Level]:
    level = yield from existing_level(name, named)
    if not (yield from remove_budget(change, level, period=period)):
        raise fail(
            f"{whose(name, named)} has no {_PERIODS[period]} budget; `budgets list` shows them"
        )
    return level
