"""`video-gateway ledger`: does the money add up, and how is it put right?"""

from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.billing.audit import differences_of, read_books
from gateway.billing.audit_log import Change, write_line
from gateway.billing.audit_turns import result_of
from gateway.billing.ledger import HELD, correct, list_entries
from gateway.billing.money import format_usd
from gateway.cli.common import (
    EXIT_FAILED,
    a_change,
    database_command,
    fail,
    keep_comparison,
    read_script,
    read_settings,
    run_script,
    show,
    show_facts,
)
from gateway.cli.export import export
from gateway.cli.values import Text, Usd
from gateway.cli.video_ids import named_video
from gateway.clock import system_clock
from gateway.db.script import Script


@click.group()
def ledger() -> None:
    """The append-only entries from which every figure is derived."""


ledger.add_command(export)


@ledger.command("audit")
@database_command
def audit_(*, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Recompute every balance and cost from the entries; exit with 1 if one differs."""
    settings = read_settings(config, database_url=database_url)
    now = system_clock().now()
    differences = differences_of(read_script(settings, read_books))
    keep_comparison(settings, result_of(differences, now=now))
    rows = [
        {
            "what": one.what,
            "figure": figure.removesuffix("_micros"),
            "kept_usd": format_usd(kept),
            "entries_usd": format_usd(one.entries[figure]),
        }
        for one in differences
        for figure, kept in one.kept.items()
        if kept != one.entries[figure]
    ]
    columns = ("what", "figure", "kept_usd", "entries_usd")
    show(rows, columns=columns, as_json=as_json, empty="Every balance is the sum of its entries.")
    if differences:
        raise SystemExit(EXIT_FAILED)


@ledger.command("adjust")
@click.argument("video")
@click.option(
    "--to", "amount", type=Usd(), required=True, help="What it cost in all, at list price."
)
@click.option("--reason", type=Text(), required=True, help="Stands in the entry.")
@database_command
def adjust(
    *,
    video: str,
    amount: int,
    reason: str,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Correct what VIDEO (vid_… or video_…) cost, by one more entry. Its hold must have ended."""
    settings = read_settings(config, database_url=database_url)
    change = a_change(system_clock())
    script = partial(_adjust, change, video, list_micros=amount, reason=reason)
    facts = run_script(settings, script)
    text = (
        f"{facts['video']} cost ${facts['before_list_usd']} and costs ${facts['list_usd']} now, at"
        f" list price; spend changed by ${facts['spent_change_usd']}"
    )
    show_facts(facts, text=text, as_json=as_json)


def _adjust(change: Change, named: str, *, list_micros: int, reason: str) -> Script[dict[str, Any]]:
    video = yield from named_video(named)
    if video is None:
        raise fail(f"there is no video {named!r}; `videos list` shows them")
    if video["hold_id"] is None:
        raise fail(f"{video['id']} was adopted: nothing of it is in the ledger")
    if video["state"] == HELD:
        raise fail(
            f"the hold of {video['id']} has not ended: an orphan is ended by `orphans settle` or"
            " `orphans release`, any other video by its own end"
        )
    hold_id = video["hold_id"]
    entries = yield from list_entries(hold_id=hold_id)
    before = sum(entry["list_micros"] for entry in entries)
    entry_id = f"{hold_id}/adjust/{change.id}"
    spent = yield from correct(
        hold_id, entry_id=entry_id, list_micros=list_micros, reason=reason, now=change.now
    )
    if before != list_micros:
        yield from write_line(
            change,
            "tenant.billing.info.updated",
            resource="hold",
            resource_id=hold_id,
            project_id=video["project_id"],
            before={"list_micros": before},
            after={"list_micros": list_micros, "entry_id": entry_id, "reason": reason},
        )
    return {
        "video": video["id"],
        "hold_id": hold_id,
        "entry_id": None if before == list_micros else entry_id,
        "before_list_usd": format_usd(before),
        "list_usd": format_usd(list_micros),
        "spent_change_usd": format_usd(spent),
    }
