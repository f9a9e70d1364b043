"""Which videos are kept whatever retention says? Scripts only.

A pin keeps a video from retention, never from its client: a DELETE removes it all the same.
"""

from typing import Final

from gateway.billing.audit_log import Change, already_made, write_line
from gateway.db.script import Row, Script, Sql
from gateway.mirror.keeping import IS_KEPT

# Of an asset; what it says is looked at again in the transaction that removes.
IS_PINNED: Final = (
    "EXISTS (SELECT 1 FROM videos WHERE videos.id = assets.video_id"
    " AND videos.pinned_at IS NOT NULL)"
)


def get_pin(video_id: str) -> Script[Row]:
    """Return how a video stands; there must be one.

    Columns: project_id, deleted_at, pinned_at, kept_assets, kept_bytes, removed_assets.
    """
    rows = yield Sql(
        "SELECT videos.project_id, videos.deleted_at, videos.pinned_at,"
        f" COUNT(CASE WHEN {IS_KEPT} THEN 1 END) AS kept_assets,"
        f" CAST(COALESCE(SUM(CASE WHEN {IS_KEPT} THEN assets.size_bytes END), 0) AS BIGINT)"
        " AS kept_bytes,"
        " COUNT(CASE WHEN assets.removed_at IS NOT NULL THEN 1 END) AS removed_assets"
        " FROM videos LEFT JOIN assets ON assets.video_id = videos.id WHERE videos.id = $1"
        " GROUP BY videos.id, videos.project_id, videos.deleted_at, videos.pinned_at",
        (video_id,),
    )
    return rows[0]


def pin_video(change: Change, video_id: str) -> Script[int]:
    """Keep what there is of a video, and what will be; return since when it is pinned."""
    before = yield from get_pin(video_id)
    if before["pinned_at"] is not None:
        return int(before["pinned_at"])
    yield from _write(change, video_id, before, pinned_at=change.now)
    return change.now


def unpin_video(change: Change, video_id: str) -> Script[bool]:
    """Let retention have a video again; tell whether it was pinned."""
    if (yield from already_made(change)) is not None:
        return True
    before = yield from get_pin(video_id)
    if before["pinned_at"] is None:
        return False
    yield from _write(change, video_id, before, pinned_at=None)
    return True


def _write(change: Change, video_id: str, before: Row, *, pinned_at: int | None) -> Script[None]:
    yield Sql("UPDATE videos SET pinned_at = $2 WHERE id = $1", (video_id, pinned_at))
    yield from write_line(
        change,
        "project.updated",
        resource="video",
        resource_id=video_id,
        project_id=before["project_id"],
        before={"pinned_at": before["pinned_at"]},
        after={"pinned_at": pinned_at},
    )
