"""Which video is meant: by our id, `vid_…`, or by the upstream's, `video_…`? Scripts only."""

from typing import Final

from gateway.cli.common import fail
from gateway.db.script import Row, Script, Sql

_FACTS: Final = (
    "SELECT videos.id, videos.upstream, videos.upstream_id, videos.project_id, videos.hold_id,"
    " videos.orphaned_at, holds.state FROM videos LEFT JOIN holds ON holds.id = videos.hold_id"
)


def named_video(named: str, *, orphan: bool = False) -> Script[Row | None]:
    """Return the video that is named; None: there is none. Several end the command.

    Columns: id, upstream, upstream_id, project_id, hold_id, orphaned_at, state (of its
    hold); hold_id and state are None of a video that was adopted.

    Args:
        named: our id, or the upstream's.
        orphan: only orphans are meant.
    """
    rows = yield Sql(f"{_FACTS} WHERE videos.id = $1", (named,))
    if not rows:
        # Two upstreams may give the same id.
        rows = yield Sql(
            f"{_FACTS} WHERE videos.upstream_id = $1 ORDER BY videos.created_at, videos.id",
            (named,),
        )
    meant = [row for row in rows if row["orphaned_at"] is not None or not orphan]
    if len(meant) > 1:
        ids = ", ".join(f"{row['id']} (upstream {row['upstream']})" for row in meant)
        raise fail(f"several videos have the id {named!r}; say which by ours: {ids}")
    return meant[0] if meant else None
