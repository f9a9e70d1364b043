"""How does a person end what no evidence has ended?

An orphan is a hold whose upstream outcome is unknown. A person who has looked at the upstream's
account says what happened: `settle_orphan` (it was billed), `attach_orphan` (this is its id: follow
it) or `release_orphan` (it was not billed). A release is refused while the submit that the orphan
came from may still be under way, since what it sends would then be free.
"""

import json
from functools import partial
from typing import Final

from gateway.billing import ledger
from gateway.billing.audit_log import Change, Facts, already_made, write_line
from gateway.db.paging import Cursor, Listed, Page, read_page
from gateway.db.script import Row, Script, Sql
from gateway.upstream.envelopes import RequestIds
from gateway.upstream.replies import Accepted
from gateway.videos.attempts import free_key
from gateway.videos.records import Recorded, record_accepted

# A process that was stopped past its lease may take this long to notice and to stop.
RELEASE_MARGIN_SECONDS: Final = 300
_COLUMNS: Final = (
    "videos.id, videos.upstream, videos.upstream_id, videos.project_id, projects.name AS project,"
    " videos.key_id, holds.operation, holds.model, holds.size, holds.clip_seconds,"
    " holds.amount_micros, holds.list_micros, videos.orphan_reason, videos.created_at,"
    " videos.orphaned_at, videos.provider_request_id, videos.relay_request_id"
)
_SOURCE: Final = (
    "videos JOIN holds ON holds.id = videos.hold_id"
    " JOIN projects ON projects.id = videos.project_id"
)


class NoOrphan(Exception):
    """There is no orphan with that id."""


class TooEarly(Exception):
    """The submit may still be under way; `seconds` is how long to wait."""

    def __init__(self, seconds: int) -> None:
        super().__init__(f"wait {seconds} seconds")
        self.seconds = seconds


def list_orphans() -> Script[list[Row]]:
    """Return all orphans, oldest first."""
    rows = yield Sql(
        f"SELECT {_COLUMNS} FROM {_SOURCE} WHERE videos.orphaned_at IS NOT NULL"
        " ORDER BY videos.orphaned_at, videos.id"
    )
    return list(rows)


def page_of_orphans(cursor: Cursor) -> Script[Page]:
    """Return a page of orphans by when they were asked for, with the columns of list_orphans."""
    listed = Listed(
        columns=_COLUMNS,
        source=_SOURCE,
        table="videos",
        where="videos.orphaned_at IS NOT NULL",
    )
    return (yield from read_page(listed, cursor))


def settle_orphan(change: Change, video_id: str, *, list_micros: int | None = None) -> Script[int]:
    """Charge what the upstream's bill says, or the price held; return it, at list price.

    Where the upstream's id is known the video is polled on, so that its client gets what it paid
    for: its end has the last word on the amount, as for any hold that has ended before. If there is
    no end within the poller's patience the video is given up, and stays settled.
    """
    made = yield from already_made(change)
    if made is not None:
        return int(json.loads(made["facts_after"])["settled_list_micros"])
    orphan = yield from _take(video_id)
    amount = orphan["list_micros"] if list_micros is None else list_micros
    reason = "orphan_settled"
    hold_id = orphan["hold_id"]
    if not (yield from ledger.settle(hold_id, list_micros=amount, reason=reason, now=change.now)):
        yield from _correct(hold_id, list_micros=amount, reason=reason, now=change.now)
    # A hold that was released first, and charged again, is over: were it polled, and lost, it would
    # be an orphan again.
    yield Sql(
        "UPDATE videos SET due_at = $2, missing_polls = 0 WHERE id = $1"
        " AND upstream_id IS NOT NULL"
        " AND hold_id IN (SELECT id FROM holds WHERE state = 'settled')",
        (video_id, change.now),
    )
    yield from _write(change, orphan, after={"settled_list_micros": amount})
    return int(amount)


def release_orphan(change: Change, video_id: str) -> Script[int]:
    """Charge nothing; return what was held, at list price. The video is not polled any more.

    Raises:
        TooEarly: the lease of its submit has not lapsed, with a margin.
    """
    if (yield from already_made(change)) is not None:
        return int((yield from _facts(video_id))["list_micros"])
    rows = yield Sql(
        "SELECT submit_lease_ends_at FROM videos WHERE id = $1 AND orphaned_at IS NOT NULL",
        (video_id,),
    )
    for (lease_ends_at,) in rows:
        wait_seconds = lease_ends_at + RELEASE_MARGIN_SECONDS - change.now
        if wait_seconds > 0:
            raise TooEarly(wait_seconds)
    orphan = yield from _take(video_id)
    yield from free_key(video_id)
    hold_id, reason = orphan["hold_id"], "orphan_released"
    if not (yield from ledger.release(hold_id, reason=reason, now=change.now)):
        yield from _correct(hold_id, list_micros=0, reason=reason, now=change.now)
    yield from _write(change, orphan, after={"released": True})
    return int(orphan["list_micros"])


def attach_orphan(change: Change, video_id: str, *, upstream_id: str) -> Script[Recorded]:
    """Say which of the upstream's videos an orphan is: it is polled, settled and mirrored as any.

    Raises:
        NoOrphan: there is no orphan with that id, or its upstream id is known already.
    """
    accepted = Accepted(
        upstream_id=upstream_id, object={}, request_ids=RequestIds(provider=None, relay=None)
    )
    follow = partial(record_accepted, video_id, accepted, first_poll_at=change.now, now=change.now)
    if (yield from already_made(change)) is not None:
        return (yield from follow())
    rows = yield Sql(
        "SELECT id, project_id, hold_id FROM videos"
        " WHERE id = $1 AND orphaned_at IS NOT NULL AND upstream_id IS NULL",
        (video_id,),
    )
    if not rows:
        raise NoOrphan(video_id)
    recorded = yield from follow()
    yield from _write(change, rows[0], after={"upstream_id": upstream_id})
    return recorded


def _correct(hold_id: str, *, list_micros: int, reason: str, now: int) -> Script[None]:
    # A person ended the hold before; a late answer was followed, and lost again.
    yield from ledger.correct(
        hold_id,
        entry_id=f"{hold_id}/orphan",
        list_micros=list_micros,
        reason=reason,
        now=now,
    )


def _take(video_id: str) -> Script[Row]:
    rows = yield Sql(
        "UPDATE videos SET orphaned_at = NULL, due_at = NULL, claim_number = claim_number + 1"
        " WHERE id = $1 AND orphaned_at IS NOT NULL RETURNING id",
        (video_id,),
    )
    if not rows:
        raise NoOrphan(video_id)
    return (yield from _facts(video_id))


def _facts(video_id: str) -> Script[Row]:
    (row,) = yield Sql(
        "SELECT videos.id, videos.project_id, videos.hold_id, holds.list_micros FROM videos"
        " JOIN holds ON holds.id = videos.hold_id WHERE videos.id = $1",
        (video_id,),
    )
    return row


def _write(change: Change, orphan: Row, *, after: Facts) -> Script[None]:
    yield from write_line(
        change,
        "tenant.billing.info.updated",
        resource="orphan",
        resource_id=orphan["id"],
        project_id=orphan["project_id"],
        before={"hold_id": orphan["hold_id"]},
        after=after,
    )
