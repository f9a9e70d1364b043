"""What is written down about a delivery?

Scripts only, fenced by claim numbers as polls are. The row itself is written by the transaction
that crosses the threshold.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from gateway.alerts.message import Crossing
from gateway.billing.balances import KEY, PROJECT
from gateway.db.leases import renew_lease
from gateway.db.script import SKIP_LOCKED, Row, Script, Sql

_CLAIMED: Final = (
    "SELECT id, alert_id, level, level_id, name, period, period_start, threshold_micros,"
    " spent_micros, limit_micros, created_at, channel, claim_number, attempts, failure"
    " FROM alert_deliveries WHERE id IN "
)


@dataclass(frozen=True, slots=True)
class DeliveryClaim:
    """A delivery that is ours to make until the lease ends.

    Attributes:
        channel: JSON, as the row has it: one that cannot be read spoils its own turn only.
        attempts: this one counted.
        failure: why the last one failed, if it was written down.
    """

    crossing: Crossing
    channel: str
    claim_number: int
    attempts: int
    failure: str | None

    @property
    def log_facts(self) -> Mapping[str, Any]:
        """What the log says it is about."""
        crossing = self.crossing
        # project_id or key_id; the organization is the only one.
        whose = {f"{crossing.level}_id": crossing.level_id}
        return {
            "delivery_id": crossing.id,
            "alert_id": crossing.alert_id,
            **(whose if crossing.level in {PROJECT, KEY} else {}),
            "threshold_micros": crossing.threshold_micros,
            "spent_micros": crossing.spent_micros,
        }

    @property
    def traceparent(self) -> None:
        """No video is what it is about: many together have made the spend cross."""
        return


def read_pending() -> Script[tuple[int, int | None]]:
    """Return how many alerts are not delivered yet, and when the oldest rang (Unix seconds)."""
    ((alerts, oldest_at),) = yield Sql(
        "SELECT COUNT(*), MIN(created_at) FROM alert_deliveries WHERE due_at IS NOT NULL"
    )
    return alerts, oldest_at


def claim_due(*, limit: int, lease_ends_at: int, now: int) -> Script[list[DeliveryClaim]]:
    """Take up to `limit` deliveries that are due, those least often tried first.

    Never the longest due first: those that fail again and again would stand before a new one.
    """
    rows = yield Sql(
        "UPDATE alert_deliveries SET due_at = $1, claim_number = claim_number + 1,"
        " attempts = attempts + 1 WHERE id IN"
        " (SELECT id FROM alert_deliveries WHERE due_at <= $2"
        f" ORDER BY attempts, due_at LIMIT $3{SKIP_LOCKED}) RETURNING id",
        (lease_ends_at, now, limit),
    )
    if not rows:
        return []
    marks = ", ".join(f"${number}" for number in range(1, len(rows) + 1))
    claimed = yield Sql(
        f"{_CLAIMED}({marks}) ORDER BY attempts, id", tuple(row["id"] for row in rows)
    )
    return [_claim(row) for row in claimed]


def renew(claim: DeliveryClaim, *, lease_ends_at: int) -> Script[bool]:
    """Keep a claim for longer; tell whether it was still ours."""
    row = (claim.crossing.id, claim.claim_number)
    return (yield from renew_lease("alert_deliveries", *row, lease_ends_at=lease_ends_at))


def give_back(claims: Sequence[DeliveryClaim], *, now: int) -> Script[None]:
    """Make claimed deliveries due again at once, but those whose outcome was written."""
    for claim in claims:
        yield Sql(
            "UPDATE alert_deliveries SET due_at = $3"
            " WHERE id = $1 AND claim_number = $2 AND due_at > $3",
            (claim.crossing.id, claim.claim_number, now),
        )


def write_delivered(claim: DeliveryClaim, *, note: str | None, now: int) -> Script[bool]:
    """Write down that it was received, and who refused it; tell whether the claim still held."""
    rows = yield Sql(
        "UPDATE alert_deliveries SET delivered_at = $3, failure = $4, due_at = NULL"
        " WHERE id = $1 AND claim_number = $2 RETURNING id",
        (claim.crossing.id, claim.claim_number, now, note),
    )
    return bool(rows)


def write_failed(claim: DeliveryClaim, *, failure: str, due_at: int) -> Script[bool]:
    """Write down why it failed and when it is tried again; tell whether the claim still held."""
    rows = yield Sql(
        "UPDATE alert_deliveries SET failure = $3, due_at = $4"
        " WHERE id = $1 AND claim_number = $2 RETURNING id",
        (claim.crossing.id, claim.claim_number, failure, due_at),
    )
    return bool(rows)


def write_given_up(claim: DeliveryClaim, *, failure: str, now: int) -> Script[bool]:
    """Write down that it is not tried again; tell whether the claim still held."""
    rows = yield Sql(
        "UPDATE alert_deliveries SET failure = $3, given_up_at = $4, due_at = NULL"
        " WHERE id = $1 AND claim_number = $2 RETURNING id",
        (claim.crossing.id, claim.claim_number, failure, now),
    )
    return bool(rows)


def _claim(row: Row) -> DeliveryClaim:
    return DeliveryClaim(
        crossing=Crossing(
            id=row["id"],
            alert_id=row["alert_id"],
            level=row["level"],
            level_id=row["level_id"],
            name=row["name"],
            period=row["period"],
            period_start=row["period_start"],
            threshold_micros=row["threshold_micros"],
            spent_micros=row["spent_micros"],
            limit_micros=row["limit_micros"],
            created_at=row["created_at"],
        ),
        channel=row["channel"],
        claim_number=row["claim_number"],
        attempts=row["attempts"],
        failure=row["failure"],
    )
