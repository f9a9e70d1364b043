"""Whose turn is it to poll a video?

Scripts only. A claim takes due videos for the length of a lease and increments their claim number.
Whoever dies leaves rows that are due again when the lease ends; whoever was only stopped holds a
number that is no longer the row's.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.billing.money import Basis
from gateway.db.leases import renew_lease
from gateway.db.script import SKIP_LOCKED, Row, Script, Sql
from gateway.telemetry.traces import about_trace
from gateway.videos.lifecycle import Terms
from gateway.videos.objects import Facts

_CLAIMED: Final = (
    "SELECT videos.id, videos.claim_number, videos.upstream, videos.upstream_id, videos.status,"
    " videos.fields, videos.object, videos.created_at, videos.recorded_at, videos.completed_at,"
    " videos.missing_polls, videos.orphaned_at, videos.hold_id, holds.model, holds.operation,"
    " holds.unit, holds.rate_micros, holds.images_micros, holds.moderated_is_billed,"
    " holds.list_micros, holds.amount_micros, holds.basis, holds.cost_multiplier_ppm,"
    " videos.project_id, holds.key_id, videos.traceparent,"
    " CASE WHEN holds.state = 'settled' THEN holds.ended_at END AS settled_at FROM videos"
    " JOIN holds ON holds.id = videos.hold_id WHERE videos.id IN "
)


@dataclass(frozen=True, slots=True)
class Claim:
    """A video that is ours to poll until the lease ends.

    Attributes:
        held_micros: what was put on hold for it, on the basis that budgets act on.
        settled_at: when a person settled it; only its end, which may correct the amount, is open.
        traceparent: of the span that bought it.
    """

    video_id: str
    claim_number: int
    upstream: str
    upstream_id: str
    status: str
    shown: Mapping[str, Any]
    facts: Facts
    recorded_at: int
    missing_polls: int
    orphaned: bool
    settled_at: int | None
    model: str
    hold_id: str
    terms: Terms
    project_id: str
    key_id: str
    held_micros: int
    basis: Basis
    traceparent: str | None

    @property
    def log_facts(self) -> Mapping[str, Any]:
        """What the log says it is about."""
        return {
            "video_id": self.video_id,
            "upstream": self.upstream,
            "upstream_id": self.upstream_id,
            "project_id": self.project_id,
            "key_id": self.key_id,
            **about_trace(self.traceparent),
        }


def claim_due(*, limit: int, lease_ends_at: int, now: int) -> Script[list[Claim]]:
    """Take up to `limit` videos whose poll is due, the longest due first."""
    rows = yield Sql(
        "UPDATE videos SET due_at = $1, claim_number = claim_number + 1 WHERE id IN"
        " (SELECT id FROM videos WHERE due_at <= $2 AND upstream_id IS NOT NULL"
        f" ORDER BY due_at LIMIT $3{SKIP_LOCKED}) RETURNING id",
        (lease_ends_at, now, limit),
    )
    if not rows:
        return []
    marks = ", ".join(f"${number}" for number in range(1, len(rows) + 1))
    claimed = yield Sql(f"{_CLAIMED}({marks})", tuple(row["id"] for row in rows))
    return [_claim(row) for row in claimed]


def renew(claim: Claim, *, lease_ends_at: int) -> Script[bool]:
    """Keep a claim for longer; tell whether it was still ours."""
    row = (claim.video_id, claim.claim_number)
    return (yield from renew_lease("videos", *row, lease_ends_at=lease_ends_at))


def give_back(claims: Sequence[Claim], *, now: int) -> Script[None]:
    """Make claimed videos due again at once, but those whose outcome was written."""
    for claim in claims:
        yield Sql(
            "UPDATE videos SET due_at = $3 WHERE id = $1 AND claim_number = $2 AND due_at > $3",
            (claim.video_id, claim.claim_number, now),
        )


def _claim(row: Row) -> Claim:
    return Claim(
        video_id=row["id"],
        claim_number=row["claim_number"],
        upstream=row["upstream"],
        upstream_id=row["upstream_id"],
        status=row["status"],
        shown=json.loads(row["object"]),
        facts=Facts(
            upstream_id=row["upstream_id"],
            created_at=row["created_at"],
            completed_at=row["completed_at"],
            fields=json.loads(row["fields"]),
        ),
        recorded_at=row["recorded_at"],
        missing_polls=row["missing_polls"],
        orphaned=row["orphaned_at"] is not None,
        settled_at=row["settled_at"],
        model=row["model"],
        hold_id=row["hold_id"],
        terms=Terms(
            operation=row["operation"],
            unit=row["unit"],
            rate_micros=row["rate_micros"],
            images_micros=row["images_micros"],
            moderated_is_billed=bool(row["moderated_is_billed"]),
            list_micros=row["list_micros"],
        ),
        project_id=row["project_id"],
        key_id=row["key_id"],
        held_micros=row["amount_micros"],
        basis=Basis(row["basis"], row["cost_multiplier_ppm"]),
        traceparent=row["traceparent"],
    )
