"""`video-gateway spend`: who has spent what?"""

from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from gateway.billing.budgets import PERIODS
from gateway.billing.money import format_usd
from gateway.billing.spend import spend_by_level
from gateway.cli.common import database_command, read_settings, run_script, show
from gateway.clock import system_clock


@click.group()
def spend() -> None:
    """What was settled and what is held."""


@spend.command("report")
@click.option("--period", type=click.Choice(PERIODS), default="month", show_default=True)
@database_command
def report(*, period: str, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Show spend, held and budget of organization, projects and keys in the running period."""
    settings = read_settings(config, database_url=database_url)
    day = datetime.fromtimestamp(system_clock().now(), UTC).date()
    rows = []
    for row in run_script(settings, partial(spend_by_level, period=period, day=day)):
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
    columns = ("level", "name", "id", "spent_usd", "held_usd", "budget_usd", "available_usd")
    show(rows, columns=columns, as_json=as_json, empty="Nothing was held or spent yet.")
