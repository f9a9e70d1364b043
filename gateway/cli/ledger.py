"""`video-gateway ledger`: does the money add up?"""

from pathlib import Path

import click

from gateway.billing.ledger import audit
from gateway.billing.money import format_usd
from gateway.cli.common import EXIT_FAILED, database_command, read_settings, run_script, show


@click.group()
def ledger() -> None:
    """The append-only entries from which every figure is derived."""


@ledger.command("audit")
@database_command
def audit_(*, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Recompute every balance from the entries; exit with 1 if one differs."""
    settings = read_settings(config, database_url=database_url)
    differences = run_script(settings, audit)
    rows = [
        {
            "balance": one.balance_id,
            "spent_usd": format_usd(one.spent_micros),
            "entries_spent_usd": format_usd(one.entries_spent_micros),
            "held_usd": format_usd(one.held_micros),
            "entries_held_usd": format_usd(one.entries_held_micros),
        }
        for one in differences
    ]
    columns = ("balance", "spent_usd", "entries_spent_usd", "held_usd", "entries_held_usd")
    show(rows, columns=columns, as_json=as_json, empty="Every balance is the sum of its entries.")
    if differences:
        raise SystemExit(EXIT_FAILED)
