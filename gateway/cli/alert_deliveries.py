"""`video-gateway alerts deliveries`: what have alerts rung for, and who was told?"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.billing.alerts import list_deliveries
from gateway.billing.money import format_usd
from gateway.cli.common import (
    LIST_ROWS,
    database_command,
    read_script,
    read_settings,
    show,
    when,
)
from gateway.db.paging import Cursor
from gateway.db.script import Row


@click.command("deliveries")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1, max=LIST_ROWS))
@database_command
def deliveries(*, limit: int, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """List what alerts have rung for, the newest first, and whether it was delivered."""
    settings = read_settings(config, database_url=database_url)
    page = read_script(settings, partial(list_deliveries, Cursor(limit=limit)))
    rows = [_delivery(row, as_json=as_json) for row in page.rows]
    columns = (
        *("created_at", "alert_id", "level", "name", "period", "period_start", "threshold_usd"),
        *("spent_usd", "channel", "state", "attempts", "delivered_at", "failure"),
    )
    show(rows, columns=columns, as_json=as_json, empty="No alert has rung yet.")


def _delivery(row: Row, *, as_json: bool) -> dict[str, Any]:
    state = "delivered" if row["delivered_at"] is not None else "due"
    if row["given_up_at"] is not None:
        state = "given up"
    limit = row["limit_micros"]
    return {
        "id": row["id"],
        "created_at": when(row["created_at"], as_json=as_json),
        "alert_id": row["alert_id"],
        "level": row["level"],
        "level_id": row["level_id"],
        "name": row["name"],
        "period": row["period"],
        "period_start": row["period_start"],
        "threshold_usd": format_usd(row["threshold_micros"]),
        "spent_usd": format_usd(row["spent_micros"]),
        "budget_usd": None if limit is None else format_usd(limit),
        "channel": shown_channel(row["channel"], as_json=as_json),
        "state": state,
        "attempts": row["attempts"],
        "delivered_at": when(row["delivered_at"], as_json=as_json),
        "given_up_at": when(row["given_up_at"], as_json=as_json),
        "failure": row["failure"],
    }


def shown_channel(channel: str, *, as_json: bool) -> Any:
    """Return where an alert is sent to, from its JSON: whole, or as a few words."""
    facts = json.loads(channel)
    if as_json:
        return facts
    return facts.get("url") or " ".join(facts.get("recipients", ()))
