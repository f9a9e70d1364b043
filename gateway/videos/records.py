"""How is the outcome of a submit written down, once, however late it comes?

Scripts only (gateway/db/script.py). The row is there before anything is forwarded (opening.py):

    open_submit ──> record_accepted     the upstream gave an id: polled from now on
                ├─> record_refused      it said no, or nothing was sent: the hold is released
                └─> record_orphan       nobody knows: the hold stays until evidence settles it

An answer that comes late is evidence like any other, so `record_accepted` and `record_refused` take
effect on an orphan too; they are not fenced by a claim.
"""

import json
from collections.abc import Mapping
from enum import Enum
from typing import Any, NamedTuple

from gateway.billing import ledger
from gateway.db.script import Script, Sql
from gateway.telemetry.traces import about_trace
from gateway.upstream.envelopes import RequestIds
from gateway.upstream.replies import Accepted
from gateway.videos.attempts import free_key, write_answer
from gateway.videos.lifecycle import COMPLETED, FAILED, QUEUED, normalise
from gateway.videos.objects import Facts, visible


class Recorded(Enum):
    """What recording an accepted submit found."""

    FOLLOWED = "followed"
    DUPLICATE = "duplicate"
    AFTER_RELEASE = "after_release"


class Lapsed(NamedTuple):
    """A submit that has become an orphan, because nobody wrote down its outcome in time."""

    video_id: str
    project_id: str
    key_id: str
    upstream: str
    traceparent: str | None
    model: str
    held_micros: int

    @property
    def log_facts(self) -> Mapping[str, Any]:
        """What the log says it is about."""
        facts = self._asdict()
        trace = about_trace(facts.pop("traceparent"))
        return {**facts, **trace}


def record_accepted(
    video_id: str, accepted: Accepted, *, first_poll_at: int, now: int
) -> Script[Recorded]:
    """Write down the upstream's id, whenever it comes; the video is polled from then on.

    An id that another video owns makes this one an orphan and leaves the first owner untouched; a
    second id for a video that has one is reported as DUPLICATE and changes nothing.
    An id that comes after a release charges the price again by an `adjust`.
    """
    ((upstream, known_id, kind, fields, created_at, hold_id),) = yield Sql(
        "SELECT upstream, upstream_id, kind, fields, created_at, hold_id FROM videos WHERE id = $1",
        (video_id,),
    )
    late_id = f"{hold_id}/late"
    if known_id == accepted.upstream_id:
        # Written down before: what was polled since then is newer than this answer.
        late = yield Sql("SELECT id FROM entries WHERE id = $1", (late_id,))
        return Recorded.AFTER_RELEASE if late else Recorded.FOLLOWED
    if known_id is not None:
        return Recorded.DUPLICATE
    owned = yield from _own(upstream, accepted.upstream_id, video_id)
    if not owned:
        yield from record_orphan(
            video_id,
            reason="duplicate_upstream_id",
            request_ids=accepted.request_ids,
            now=now,
        )
        return Recorded.DUPLICATE
    shown = first_answer(accepted, kind=kind, fields=json.loads(fields), created_at=created_at)
    yield from write_answer(video_id, shown)
    yield from _follow(video_id, accepted, shown, first_poll_at=first_poll_at, now=now)
    ((state, list_micros),) = yield Sql(
        "SELECT state, list_micros FROM holds WHERE id = $1", (hold_id,)
    )
    if kind == "character":
        yield from _end_character(video_id, hold_id, list_micros=list_micros, now=now)
    if state != "released":
        return Recorded.FOLLOWED
    yield from ledger.correct(
        hold_id, entry_id=late_id, list_micros=list_micros, reason="late", now=now
    )
    return Recorded.AFTER_RELEASE


def first_answer(
    accepted: Accepted, *, kind: str, fields: Mapping[str, str], created_at: int
) -> str:
    """Return what a client gets for an accepted submit, JSON; a character is passed as it came.

    An upstream may answer that the video is over already. That is shown once a poll has found it
    so, which is due at once: until the money has moved, no verb takes the video for finished.
    """
    facts = Facts(
        upstream_id=accepted.upstream_id,
        created_at=created_at,
        completed_at=None,
        fields=fields,
    )
    video = accepted.object
    if kind == "character":
        # A person who attaches an orphan knows the id alone.
        known = {"id": accepted.upstream_id, "created_at": created_at}
        video = {**fields, **known, **video}
    else:
        begun = {**video, "status": QUEUED} if says_over(accepted) else video
        video = visible(begun, facts)
    return json.dumps(video, ensure_ascii=False)


def says_over(accepted: Accepted) -> bool:
    """Tell whether the upstream's answer to a submit says that the video is over already."""
    word = accepted.object.get("status")
    return isinstance(word, str) and normalise(word) in {COMPLETED, FAILED}


def record_refused(video_id: str, *, reason: str, now: int) -> Script[bool]:
    """Release the hold because nothing was bought; tell whether this was its end.

    What a person settled in the meantime is given back by an `adjust`.
    """
    rows = yield Sql(
        "UPDATE videos SET refused_at = $2, due_at = NULL, claim_number = claim_number + 1,"
        " orphaned_at = NULL, orphan_reason = NULL"
        " WHERE id = $1 AND upstream_id IS NULL AND refused_at IS NULL RETURNING hold_id",
        (video_id, now),
    )
    if not rows:
        return False
    yield from free_key(video_id)
    hold_id = str(rows[0]["hold_id"])
    if (yield from ledger.release(hold_id, reason=reason, now=now)):
        return True
    yield from ledger.correct(
        hold_id, entry_id=f"{hold_id}/late", list_micros=0, reason=reason, now=now
    )
    return False


def record_orphan(video_id: str, *, reason: str, request_ids: RequestIds, now: int) -> Script[bool]:
    """Keep the hold because nobody knows; tell whether the video became an orphan now."""
    rows = yield Sql(
        "UPDATE videos SET orphaned_at = $2, orphan_reason = $3, due_at = NULL,"
        " claim_number = claim_number + 1, provider_request_id = $4, relay_request_id = $5"
        " WHERE id = $1 AND upstream_id IS NULL AND refused_at IS NULL"
        " AND (orphaned_at IS NULL OR orphan_reason = 'lease_lapsed')"
        " AND hold_id IN (SELECT id FROM holds WHERE state = 'held') RETURNING id",
        (video_id, now, reason, request_ids.provider, request_ids.relay),
    )
    return bool(rows)


def orphan_lapsed(*, now: int) -> Script[list[Lapsed]]:
    """Make an orphan of every submit whose lease has lapsed without an outcome; return them."""
    rows = yield Sql(
        "UPDATE videos SET orphaned_at = $1, orphan_reason = 'lease_lapsed', due_at = NULL,"
        " claim_number = claim_number + 1"
        " WHERE due_at <= $1 AND upstream_id IS NULL AND refused_at IS NULL"
        " AND orphaned_at IS NULL RETURNING id, project_id, key_id, upstream, traceparent,"
        " hold_id",
        (now,),
    )
    orphans = []
    for *whose, hold_id in rows:
        (bought,) = yield Sql("SELECT model, amount_micros FROM holds WHERE id = $1", (hold_id,))
        orphans.append(Lapsed(*whose, *bought))
    return orphans


def _own(upstream: str, upstream_id: str, video_id: str) -> Script[bool]:
    yield Sql(
        "INSERT INTO upstream_ids (upstream, upstream_id, video_id) VALUES ($1, $2, $3)"
        " ON CONFLICT DO NOTHING",
        (upstream, upstream_id, video_id),
    )
    ((owner,),) = yield Sql(
        "SELECT video_id FROM upstream_ids WHERE upstream = $1 AND upstream_id = $2",
        (upstream, upstream_id),
    )
    return str(owner) == video_id


def _follow(
    video_id: str, accepted: Accepted, shown: str, *, first_poll_at: int, now: int
) -> Script[None]:
    yield Sql(
        "UPDATE videos SET upstream_id = $2, object = $3, recorded_at = $4, due_at = $5,"
        " provider_request_id = COALESCE(CAST($6 AS TEXT), provider_request_id),"
        " relay_request_id = COALESCE(CAST($7 AS TEXT), relay_request_id),"
        " claim_number = claim_number + 1,"
        " orphaned_at = NULL, orphan_reason = NULL, refused_at = NULL"
        " WHERE id = $1",
        (
            video_id,
            accepted.upstream_id,
            shown,
            now,
            first_poll_at,
            accepted.request_ids.provider,
            accepted.request_ids.relay,
        ),
    )


def _end_character(video_id: str, hold_id: str, *, list_micros: int, now: int) -> Script[None]:
    # A character is there at once: nothing is left to be polled.
    yield Sql(
        "UPDATE videos SET status = 'completed', completed_at = $2, due_at = NULL WHERE id = $1",
        (video_id, now),
    )
    yield from ledger.settle(hold_id, list_micros=list_micros, reason="character", now=now)
