"""How does a person end what no evidence has ended?

An orphan is a hold whose upstream outcome is unknown. A person who has looked at the upstream's
account says what happened: `settle_orphan` (it was billed), `attach_orphan` (this is its id: follow
it) or `release_orphan` (it was not billed). A release is refused while the submit that the orphan
came from may still be under way, since what it sends would then be free.
"""

from typing import Final

from gateway.billing import ledger
from gateway.db.script import Row, Script, Sql
from gateway.upstream.envelopes import RequestIds
from gateway.upstream.replies import Accepted
from gateway.videos.attempts import free_key
from gateway.videos.records import Recorded, record_accepted

# A process that was stopped past its lease may take this long to notice and to stop.
RELEASE_MARGIN_SECONDS: Final = 300


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
        "SELECT videos.id, videos.upstream, videos.upstream_id, projects.name AS project,"
        " videos.key_id, holds.model, holds.size, holds.clip_seconds, holds.amount_micros,"
        " videos.orphan_reason, videos.created_at, videos.orphaned_at,"
        " videos.provider_request_id, videos.relay_request_id FROM videos"
        " JOIN holds ON holds.id = videos.hold_id JOIN projects ON projects.id = videos.project_id"
        " WHERE videos.orphaned_at IS NOT NULL ORDER BY videos.orphaned_at, videos.id"
    )
    return list(rows)


def settle_orphan(video_id: str, *, now: int) -> Script[int]:
    """Charge the held amount; return it. The video is not polled any more."""
    hold_id, amount_micros = yield from _take(video_id)
    reason = "orphan_settled"
    if not (yield from ledger.settle(hold_id, amount_micros=amount_micros, reason=reason, now=now)):
        yield from _correct(hold_id, amount_micros=amount_micros, reason=reason, now=now)
    return amount_micros


def release_orphan(video_id: str, *, now: int) -> Script[int]:
    """Charge nothing; return what was held. The video is not polled any more.

    Raises:
        TooEarly: the lease of its submit has not lapsed, with a margin.
    """
    rows = yield Sql(
        "SELECT submit_lease_ends_at FROM videos WHERE id = $1 AND orphaned_at IS NOT NULL",
        (video_id,),
    )
    for (lease_ends_at,) in rows:
        wait_seconds = lease_ends_at + RELEASE_MARGIN_SECONDS - now
        if wait_seconds > 0:
            raise TooEarly(wait_seconds)
    hold_id, amount_micros = yield from _take(video_id)
    yield from free_key(video_id)
    if not (yield from ledger.release(hold_id, reason="orphan_released", now=now)):
        yield from _correct(hold_id, amount_micros=0, reason="orphan_released", now=now)
    return amount_micros


def attach_orphan(video_id: str, *, upstream_id: str, now: int) -> Script[Recorded]:
    """Say which of the upstream's videos an orphan is: it is polled, settled and mirrored as any.

    Raises:
        NoOrphan: there is no orphan with that id, or its upstream id is known already.
    """
    rows = yield Sql(
        "SELECT id FROM videos WHERE id = $1 AND orphaned_at IS NOT NULL AND upstream_id IS NULL",
        (video_id,),
    )
    if not rows:
        raise NoOrphan(video_id)
    accepted = Accepted(
        upstream_id=upstream_id, object={}, request_ids=RequestIds(provider=None, relay=None)
    )
    return (yield from record_accepted(video_id, accepted, first_poll_at=now, now=now))


def _correct(hold_id: str, *, amount_micros: int, reason: str, now: int) -> Script[None]:
    # A person ended the hold before; a late answer was followed, and lost again.
    yield from ledger.correct(
        hold_id,
        entry_id=f"{hold_id}/orphan",
        amount_micros=amount_micros,
        reason=reason,
        now=now,
    )


def _take(video_id: str) -> Script[tuple[str, int]]:
    rows = yield Sql(
        "UPDATE videos SET orphaned_at = NULL, due_at = NULL, claim_number = claim_number + 1"
        " WHERE id = $1 AND orphaned_at IS NOT NULL RETURNING hold_id",
        (video_id,),
    )
    if not rows:
        raise NoOrphan(video_id)
    hold_id = str(rows[0]["hold_id"])
    ((amount_micros,),) = yield Sql("SELECT amount_micros FROM holds WHERE id = $1", (hold_id,))
    return hold_id, int(amount_micros)
