"""What is written down about a poll?

Scripts only. Every write says which claim it belongs to (claims.py), so that a poller that was
stopped past its lease changes nothing. Status and money change in one transaction.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.billing import ledger
from gateway.db.script import Script, Sql
from gateway.videos.claims import Claim
from gateway.videos.lifecycle import COMPLETED, FAILED, Completed, Failed, Pending
from gateway.videos.objects import Facts, outcome_unknown, visible

# From 2020 to 9999: a relay's 0 for "none", a duration, or milliseconds are no moment in Unix
# seconds.
_LEAST_UNIX_SECONDS: Final = 1_577_836_800
_MAX_UNIX_SECONDS: Final = 253_402_300_799


@dataclass(frozen=True, slots=True)
class Ended:
    """What the end of a video changed.

    Attributes:
        written: False where the claim had been lost: nothing changed.
        settled_micros: what was charged, where that ended the hold; None: it did not.
        released_micros: what is held no more, where nothing was charged; None as above.
        correction_micros: what had to be adjusted because the hold had been ended before.
    """

    written: bool
    settled_micros: int | None = None
    released_micros: int | None = None
    correction_micros: int = 0

    @property
    def money(self) -> Mapping[str, int]:
        """What of it the log says: what has moved."""
        moved = {
            "settled_micros": self.settled_micros,
            "released_micros": self.released_micros,
            "correction_micros": self.correction_micros or None,
        }
        return {name: micros for name, micros in moved.items() if micros is not None}


def write_pending(
    claim: Claim, pending: Pending, video: Mapping[str, Any], *, due_at: int, now: int
) -> Script[bool]:
    """Write down that a video is not over yet; tell whether the claim still held."""
    shown = visible(video, claim.facts)
    rows = yield Sql(
        "UPDATE videos SET status = $3, object = $4, polled_at = $5, due_at = $6,"
        " missing_polls = 0, orphaned_at = NULL, orphan_reason = NULL"
        " WHERE id = $1 AND claim_number = $2 RETURNING id",
        (claim.video_id, claim.claim_number, pending.status, _json(shown), now, due_at),
    )
    return bool(rows)


def write_nothing(claim: Claim, *, missing: bool, due_at: int, now: int) -> Script[bool]:
    """Write down that an answer said nothing about the video: only the next poll moves."""
    rows = yield Sql(
        "UPDATE videos SET polled_at = $3, due_at = $4,"
        " missing_polls = $5 WHERE id = $1 AND claim_number = $2 RETURNING id",
        (claim.video_id, claim.claim_number, now, due_at, claim.missing_polls + missing),
    )
    return bool(rows)


def write_orphan(claim: Claim, *, reason: str, due_at: int, now: int) -> Script[bool]:
    """Make an orphan of a video that the upstream no longer tells about. The hold stays."""
    rows = yield Sql(
        "UPDATE videos SET status = $3, object = $4, orphaned_at = $5, orphan_reason = $6,"
        " polled_at = $5, due_at = $7 WHERE id = $1 AND claim_number = $2 RETURNING id",
        (
            claim.video_id,
            claim.claim_number,
            FAILED,
            _json(outcome_unknown(claim.shown)),
            now,
            reason,
            due_at,
        ),
    )
    return bool(rows)


def write_given_up(claim: Claim, *, now: int) -> Script[bool]:
    """Look no more for the end of a video that a person has settled. What it cost stays."""
    rows = yield Sql(
        "UPDATE videos SET status = $3, object = $4, polled_at = $5, due_at = NULL,"
        " orphaned_at = NULL, orphan_reason = NULL"
        " WHERE id = $1 AND claim_number = $2 RETURNING id",
        (claim.video_id, claim.claim_number, FAILED, _json(outcome_unknown(claim.shown)), now),
    )
    return bool(rows)


def write_completed(
    claim: Claim,
    completed: Completed,
    video: Mapping[str, Any],
    *,
    assets: Mapping[str, str],
    retention_seconds: int,
    now: int,
) -> Script[Ended]:
    """Settle a completed video and hand its content to the mirror.

    Args:
        claim: the video.
        completed: what it costs.
        video: the upstream's object.
        assets: for each variant that the upstream offers, the id that its asset will have.
        retention_seconds: how long the upstream keeps content, where the object does not say.
        now: Unix seconds.
    """
    completed_at = claim.facts.completed_at or now
    facts = Facts(
        upstream_id=claim.facts.upstream_id,
        created_at=claim.facts.created_at,
        completed_at=completed_at,
        fields=claim.facts.fields,
    )
    expires_at = expires_at_of(video, otherwise=completed_at + retention_seconds)
    rows = yield Sql(
        "UPDATE videos SET status = $3, object = $4, polled_at = $5, completed_at = $6,"
        " expires_at = $7, due_at = NULL, missing_polls = 0, orphaned_at = NULL,"
        " orphan_reason = NULL WHERE id = $1 AND claim_number = $2 RETURNING deleted_at",
        (
            claim.video_id,
            claim.claim_number,
            COMPLETED,
            _json(visible(video, facts)),
            now,
            completed_at,
            expires_at,
        ),
    )
    if not rows:
        return Ended(written=False)
    if completed.has_content and rows[0]["deleted_at"] is None:
        yield from write_assets(claim.video_id, assets, expires_at=expires_at, now=now)
    amount = completed.list_micros
    if (yield from ledger.settle(claim.hold_id, list_micros=amount, reason="completed", now=now)):
        return Ended(written=True, settled_micros=claim.basis.amount(amount))
    return (yield from _correct(claim, list_micros=amount, now=now))


def write_assets(
    video_id: str, assets: Mapping[str, str], *, expires_at: int, now: int
) -> Script[None]:
    """Hand the content of a video to the mirror, at once: for each variant the id of its asset."""
    for variant, asset_id in assets.items():
        yield Sql(
            "INSERT INTO assets (id, video_id, project_id, variant, created_at, expires_at,"
            " attempts, due_at, claim_number) SELECT $1, id, project_id, $3, $4, $5, 0, $4, 0"
            " FROM videos WHERE id = $2 ON CONFLICT DO NOTHING",
            (asset_id, video_id, variant, now, expires_at),
        )


def write_failed(
    claim: Claim, failed: Failed, video: Mapping[str, Any], *, now: int
) -> Script[Ended]:
    """Release the hold of a failed video, or settle it where its failure is billed."""
    rows = yield Sql(
        "UPDATE videos SET status = $3, object = $4, polled_at = $5, failed_at = $5,"
        " due_at = NULL, missing_polls = 0, orphaned_at = NULL, orphan_reason = NULL"
        " WHERE id = $1 AND claim_number = $2 RETURNING id",
        (claim.video_id, claim.claim_number, FAILED, _json(visible(video, claim.facts)), now),
    )
    if not rows:
        return Ended(written=False)
    amount = failed.list_micros
    if amount:
        settle = ledger.settle(claim.hold_id, list_micros=amount, reason=failed.reason, now=now)
        if (yield from settle):
            return Ended(written=True, settled_micros=claim.basis.amount(amount))
    elif (yield from ledger.release(claim.hold_id, reason=failed.reason, now=now)):
        return Ended(written=True, released_micros=claim.held_micros)
    return (yield from _correct(claim, list_micros=amount, now=now))


def _correct(claim: Claim, *, list_micros: int, now: int) -> Script[Ended]:
    # The hold had ended already: released before a late answer came, or settled by a person.
    change = yield from ledger.correct(
        claim.hold_id,
        entry_id=f"{claim.hold_id}/final",
        list_micros=list_micros,
        reason="ended_before",
        now=now,
    )
    return Ended(written=True, correction_micros=change)


def expires_at_of(video: Mapping[str, Any], *, otherwise: int) -> int:
    """Return when the upstream's copy of a video goes, where its object says it."""
    moment = moment_of(video, "expires_at")
    return otherwise if moment is None else moment


def moment_of(video: Mapping[str, Any], name: str) -> int | None:
    """Return the Unix seconds that a video object has under a name; None: none that can be."""
    value = video.get(name)
    if isinstance(value, bool) or not isinstance(value, int):
        return None
    return value if _LEAST_UNIX_SECONDS <= value <= _MAX_UNIX_SECONDS else None


def _json(value: Mapping[str, Any]) -> str:
    return json.dumps(value, ensure_ascii=False)
