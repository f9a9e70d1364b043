"""What does the ledger say of the purchases at one upstream? Scripts only."""

from gateway.db.script import Script, Sql
from gateway.videos.matching import OurHold


def holds_of_upstream(upstream: str, *, start: int, end: int) -> Script[list[OurHold]]:
    """Return the holds made from `start` to `end`, both included, at list price; oldest first.

    The time is when they happened, not the accounting day. What was spent is the sum of the
    entries, so that corrections count, whenever they were made.
    """
    rows = yield Sql(
        "SELECT holds.id, videos.id AS video_id, videos.upstream_id, holds.model, holds.operation,"
        " holds.created_at, holds.ended_at, holds.state, holds.list_micros,"
        " (SELECT CAST(COALESCE(SUM(entries.list_micros), 0) AS BIGINT) FROM entries"
        "  WHERE entries.hold_id = holds.id) AS settled_micros,"
        " videos.orphaned_at, videos.refused_at, videos.relay_request_id,"
        " videos.provider_request_id"
        " FROM videos JOIN holds ON holds.id = videos.hold_id"
        " WHERE videos.upstream = $1 AND videos.created_at >= $2 AND videos.created_at <= $3"
        " ORDER BY videos.created_at, videos.id",
        (upstream, start, end),
    )
    return [
        OurHold(
            hold_id=row["id"],
            video_id=row["video_id"],
            upstream_id=row["upstream_id"],
            model=row["model"],
            operation=row["operation"],
            created_at=row["created_at"],
            ended_at=row["ended_at"],
            state=row["state"],
            held_micros=row["list_micros"],
            settled_micros=row["settled_micros"],
            orphaned=row["orphaned_at"] is not None,
            refused=row["refused_at"] is not None,
            relay_request_id=row["relay_request_id"],
            provider_request_id=row["provider_request_id"],
        )
        for row in rows
    ]
