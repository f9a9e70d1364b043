"""`video-gateway orphans`: holds whose upstream outcome is unknown, and what a person does."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.billing import ledger
from gateway.billing.audit_log import Change, already_made, write_line
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
    when,
)
from gateway.cli.values import Usd
from gateway.cli.video_ids import named_video
from gateway.clock import system_clock
from gateway.db.script import Row, Script
from gateway.upstream.replies import is_usable_id
from gateway.videos.orphans import (
    NoOrphan,
    TooEarly,
    attach_orphan,
    list_orphans,
    release_orphan,
    settle_orphan,
)
from gateway.videos.records import Recorded


@click.group()
def orphans() -> None:
    """Holds that only evidence or a person ends: look at the upstream's account first.

    VIDEO is our id, vid_…, or the upstream's, video_…, where only one video has it.
    """


@orphans.command("list")
@database_command
def list_(*, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """List all orphans, oldest first."""
    settings = read_settings(config, database_url=database_url)
    rows = [
        {
            "video": row["id"],
            "upstream": row["upstream"],
            "upstream_id": row["upstream_id"],
            "project": row["project"],
            "key_id": row["key_id"],
            "model": row["model"],
            "size": row["size"],
            "clip_seconds": row["clip_seconds"],
            "held_usd": format_usd(row["amount_micros"]),
            "list_usd": format_usd(row["list_micros"]),
            "reason": row["orphan_reason"],
            "upstream_request_id": row["relay_request_id"] or row["provider_request_id"],
            "created_at": when(row["created_at"], as_json=as_json),
        }
        for row in read_script(settings, list_orphans)
    ]
    columns = (
        *("video", "project", "model", "size", "clip_seconds", "held_usd", "reason"),
        *("upstream_id", "upstream_request_id", "created_at"),
    )
    show(rows, columns=columns, as_json=as_json, empty="There are no orphans.")


@orphans.command("settle")
@click.argument("video")
@click.option(
    "--amount",
    type=Usd(),
    help="What the upstream's bill says, at list price; by default the price held. With"
    " --upstream-id it is charged at once, and the video's own end has the last word.",
)
@click.option("--upstream-id", help="Which of the upstream's videos it is: follow that one.")
@database_command
def settle(
    *,
    video: str,
    amount: int | None,
    upstream_id: str | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Say that the upstream made VIDEO: charge it, or follow it by the upstream's id."""
    if upstream_id is not None and not is_usable_id(upstream_id):
        raise click.UsageError("--upstream-id must be 1 to 256 bytes without control characters")
    settings = read_settings(config, database_url=database_url)
    change = a_change(system_clock())
    if upstream_id is None:
        facts = run_script(settings, partial(_settle, change, video, list_micros=amount))
        text = f"settled {facts['video']}: ${facts['settled_usd']}"
    else:
        script = partial(_attach, change, video, upstream_id=upstream_id, list_micros=amount)
        facts = run_script(settings, script)
        text = f"{facts['video']} is {upstream_id}: {facts['outcome']}"
        if amount is not None:
            text += f", settled ${facts['settled_usd']}"
    show_facts(facts, text=text, as_json=as_json)


def _settle(change: Change, named: str, *, list_micros: int | None) -> Script[dict[str, Any]]:
    orphan = yield from _orphan(change, named)
    amount = yield from settle_orphan(change, orphan["id"], list_micros=list_micros)
    return {"video": orphan["id"], "settled_usd": format_usd(amount)}


def _attach(
    change: Change, named: str, *, upstream_id: str, list_micros: int | None
) -> Script[dict[str, Any]]:
    orphan = yield from _orphan(change, named)
    video_id = orphan["id"]
    try:
        recorded = yield from attach_orphan(change, video_id, upstream_id=upstream_id)
    except NoOrphan as error:
        raise fail(
            f"{video_id} has an upstream id: {orphan['upstream_id']}; settle or release it without"
            " another"
        ) from error
    if recorded == Recorded.DUPLICATE:
        raise fail(f"{upstream_id} is another video here already: `videos list` shows which")
    facts = {"video": video_id, "upstream_id": upstream_id, "outcome": recorded.value}
    if list_micros is None:
        return facts
    yield from _charge(change.part(1), orphan, list_micros=list_micros)
    return {**facts, "settled_usd": format_usd(list_micros)}


def _charge(change: Change, orphan: Row, *, list_micros: int) -> Script[None]:
    hold_id, reason = orphan["hold_id"], "orphan_settled"
    ended = yield from ledger.settle(
        hold_id, list_micros=list_micros, reason=reason, now=change.now
    )
    if not ended:
        entry_id = f"{hold_id}/orphan/{change.id}"
        yield from ledger.correct(
            hold_id, entry_id=entry_id, list_micros=list_micros, reason=reason, now=change.now
        )
    yield from write_line(
        change,
        "tenant.billing.info.updated",
        resource="orphan",
        resource_id=orphan["id"],
        project_id=orphan["project_id"],
        before={"hold_id": hold_id},
        after={"settled_list_micros": list_micros},
    )


@orphans.command("release")
@click.argument("video")
@database_command
def release(*, video: str, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Say that the upstream made and billed nothing for VIDEO: charge nothing."""
    settings = read_settings(config, database_url=database_url)
    change = a_change(system_clock())
    try:
        facts = run_script(settings, partial(_release, change, video))
    except TooEarly as error:
        raise fail(
            f"{video} may still be under way: wait {error.seconds} seconds, then look again at the"
            " upstream's account"
        ) from error
    text = f"released {facts['video']}: ${facts['released_usd']}"
    show_facts(facts, text=text, as_json=as_json)


def _release(change: Change, named: str) -> Script[dict[str, Any]]:
    orphan = yield from _orphan(change, named)
    amount = yield from release_orphan(change, orphan["id"])
    return {"video": orphan["id"], "released_usd": format_usd(amount)}


def _orphan(change: Change, named: str) -> Script[Row]:
    made = yield from already_made(change)
    if made is not None:  # by this very command: it is no orphan any more
        orphan = yield from named_video(made["resource_id"])
    else:
        orphan = yield from named_video(named, orphan=True)
    if orphan is None:
        raise fail(f"there is no orphan {named!r}; `orphans list` shows them, vid_…")
    return orphan
