"""What is under way, what is late, and what does nobody know? Scripts only, on partial indexes."""

from collections.abc import Mapping
from dataclasses import dataclass

from gateway.db.script import Script, Sql


@dataclass(frozen=True, slots=True)
class Progress:
    """How it stands with everything that is not over.

    Attributes:
        in_flight: how many videos, by model and status; an adopted one has no model.
        overdue_seconds: how late the poll is that is due longest; 0: none is late.
        orphans: holds whose outcome is unknown, or ended by a person and still looked for.
        orphans_held_micros: what of them is still held.
        oldest_orphan_at: Unix seconds, None where there is none.
    """

    in_flight: Mapping[tuple[str, str], int]
    overdue_seconds: int
    orphans: int
    orphans_held_micros: int
    oldest_orphan_at: int | None


def read_progress(*, now: int) -> Script[Progress]:
    """Return how it stands."""
    under_way = yield Sql(
        "SELECT COALESCE(holds.model, '') AS model, videos.status, COUNT(*) AS videos FROM videos"
        " LEFT JOIN holds ON holds.id = videos.hold_id"
        " WHERE videos.status IN ('queued', 'in_progress') AND videos.orphaned_at IS NULL"
        " AND videos.refused_at IS NULL AND videos.due_at IS NOT NULL"
        " GROUP BY holds.model, videos.status"
    )
    # What was claimed is due again when its lease ends: it is late only if nobody came.
    due = yield Sql(
        "SELECT due_at FROM videos WHERE due_at IS NOT NULL AND upstream_id IS NOT NULL"
        " ORDER BY due_at LIMIT 1"
    )
    ((orphans, held_micros, oldest_at),) = yield Sql(
        "SELECT COUNT(*), CAST(COALESCE(SUM(CASE WHEN holds.state = 'held'"
        " THEN holds.amount_micros END), 0) AS BIGINT), MIN(videos.orphaned_at) FROM videos"
        " JOIN holds ON holds.id = videos.hold_id WHERE videos.orphaned_at IS NOT NULL"
    )
    return Progress(
        in_flight={(model, status): videos for model, status, videos in under_way},
        overdue_seconds=max(0, now - due[0]["due_at"]) if due else 0,
        orphans=orphans,
        orphans_held_micros=held_micros,
        oldest_orphan_at=oldest_at,
    )
