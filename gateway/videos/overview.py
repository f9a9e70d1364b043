"""Which videos are there, of all projects? Scripts only."""

from collections.abc import Sequence
from typing import Final

from gateway.db.paging import Cursor, Listed, Page, read_page
from gateway.db.script import Script

# What was refused never was a video, and an orphan is shown as failed to its client, too.
_STATUS: Final = (
    "CASE WHEN videos.refused_at IS NOT NULL OR videos.orphaned_at IS NOT NULL THEN 'failed'"
    " ELSE videos.status END"
)
_COLUMNS: Final = (
    "videos.id, videos.upstream_id, videos.upstream, videos.kind, videos.project_id,"
    " projects.name AS project_name, videos.key_id, keys.name AS key_name, holds.operation,"
    f" holds.model, holds.size, holds.clip_seconds, {_STATUS} AS status, videos.hold_id,"
    " CASE WHEN videos.hold_id IS NULL THEN videos.object END AS adopted_object,"
    " holds.state AS hold_state, holds.amount_micros, holds.list_micros, holds.settled_micros,"
    " videos.created_at, videos.recorded_at, videos.completed_at, videos.failed_at,"
    " videos.expires_at, videos.deleted_at, videos.refused_at, videos.orphaned_at,"
    " videos.orphan_reason, videos.provider_request_id, videos.relay_request_id,"
    " assets.mirrored_at, assets.gone_at, assets.size_bytes"
)
_SOURCE: Final = (
    "videos LEFT JOIN holds ON holds.id = videos.hold_id"
    " LEFT JOIN projects ON projects.id = videos.project_id"
    " LEFT JOIN keys ON keys.id = videos.key_id"
    " LEFT JOIN assets ON assets.video_id = videos.id AND assets.variant = 'video'"
)


def list_all_videos(
    cursor: Cursor, *, project_ids: Sequence[str] = (), statuses: Sequence[str] = ()
) -> Script[Page]:
    """Return a page of what was bought, videos and characters, with its hold and its content.

    Adopted videos are among them: without a hold and a key, and with the object.

    Args:
        cursor: which page.
        project_ids: empty: all.
        statuses: of OpenAI's four; empty: all. What was refused and orphans count as failed.
    """
    where, args = ["true"], []  # type: tuple[list[str], list[str]]
    for column, values in (("videos.project_id", project_ids), (_STATUS, statuses)):
        if values:
            marks = ", ".join(f"${len(args) + number}" for number in range(1, len(values) + 1))
            where.append(f"{column} IN ({marks})")
            args += values
    listed = Listed(
        columns=_COLUMNS,
        source=_SOURCE,
        table="videos",
        where=" AND ".join(where),
        args=tuple(args),
    )
    return (yield from read_page(listed, cursor))
