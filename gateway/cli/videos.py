"""`video-gateway videos`: what has been asked for, and where is it?"""

from dataclasses import asdict
from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.billing.money import format_usd
from gateway.cli.common import database_command, moment, read_settings, run_script, show
from gateway.cli.pins import pin, unpin
from gateway.db.script import Row
from gateway.videos.reading import list_videos, shown_by


@click.group()
def videos() -> None:
    """Videos of all projects."""


videos.add_command(pin)
videos.add_command(unpin)


@videos.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1, max=10_000))
@database_command
def list_(*, limit: int, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """List the newest videos."""
    settings = read_settings(config, database_url=database_url)
    found = run_script(settings, partial(list_videos, limit=limit))
    rows = [_facts(row, as_json=as_json) for row in found]
    columns = (
        "created_at",
        "video",
        "upstream_id",
        "project",
        "model",
        "size",
        "clip_seconds",
        "status",
        "hold",
        "cost_usd",
        "mirrored_at",
    )
    show(rows, columns=columns, as_json=as_json, empty="There are no videos yet.")


def _facts(row: Row, *, as_json: bool) -> dict[str, Any]:
    cost = row["amount_micros"] if row["hold_state"] == "held" else row["spent_micros"]
    made = row if row["adopted_object"] is None else asdict(shown_by(row["adopted_object"]))
    status = row["status"]
    if row["orphaned_at"] is not None:
        status = "orphan"
    elif row["refused_at"] is not None:
        status = "refused"
    elif row["deleted_at"] is not None:
        status = "deleted"
    return {
        "video": row["id"],
        "upstream_id": row["upstream_id"],
        "project": row["project"],
        "key_id": row["key_id"],
        "model": made["model"],
        "size": made["size"],
        "clip_seconds": made["clip_seconds"],
        "status": status,
        "hold": row["hold_state"],
        "cost_usd": None if cost is None else format_usd(cost),
        "created_at": row["created_at"] if as_json else moment(row["created_at"]),
        "mirrored_at": row["mirrored_at"] if as_json else moment(row["mirrored_at"]),
    }
