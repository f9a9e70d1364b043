"""What is read of a video: for its client, for an operation on it, for an operator?

Scripts only. Everything a client asks for is looked up within its project: another project's video
is not there.
"""

import json
import math
from dataclasses import dataclass

from gateway.db.script import Row, Script, Sql
from gateway.errors import InvalidRequest
from gateway.videos.lifecycle import clip_seconds_of


@dataclass(frozen=True, slots=True)
class SourceVideo:
    """What is known of a video that an operation begins with."""

    upstream: str
    status: str
    model: str
    size: str
    clip_seconds: int


@dataclass(frozen=True, slots=True)
class Shown:
    """What a video's object says that it is; None: it does not say."""

    model: str | None
    size: str | None
    clip_seconds: int | None


def shown_by(text: str) -> Shown:
    """Return what a video's object, JSON, says: of an adopted video there is no other record."""
    video = json.loads(text)
    seconds = clip_seconds_of(video)
    return Shown(
        model=_word(video.get("model")),
        size=_word(video.get("size")),
        clip_seconds=None if seconds is None else math.ceil(seconds),
    )


def _word(value: object) -> str | None:
    return value if isinstance(value, str) and value.isprintable() else None


def find_video(*, upstream_id: str, project_id: str) -> Script[Row | None]:
    """Return what a retrieve needs of a video of a project, or None: also for another project's.

    Columns: id, status, object, orphaned_at, cost_micros (held, or what it came to; None: adopted).
    """
    rows = yield Sql(
        "SELECT videos.id, videos.status, videos.object, videos.orphaned_at,"
        " COALESCE(holds.settled_micros, holds.amount_micros) AS cost_micros FROM videos"
        " LEFT JOIN holds ON holds.id = videos.hold_id"
        " WHERE videos.upstream_id = $1 AND videos.project_id = $2 AND videos.deleted_at IS NULL"
        " AND videos.kind = 'video' ORDER BY videos.created_at, videos.id LIMIT 1",
        (upstream_id, project_id),
    )
    return rows[0] if rows else None


def find_content(*, upstream_id: str, project_id: str, variant: str) -> Script[Row | None]:
    """Return what serving one variant needs, or None where the project has no such video.

    Columns: video_id, status, upstream, then of the asset, None where there is none: asset_id,
    content_type, size_bytes, sha256, expires_at, mirrored_at, absent_at, gone_at, removed_at,
    leased_at, due_at, failure.
    """
    rows = yield Sql(
        "SELECT videos.id AS video_id, videos.status, videos.upstream, assets.id AS asset_id,"
        " assets.content_type, assets.size_bytes, assets.sha256, assets.expires_at,"
        " assets.mirrored_at, assets.absent_at, assets.gone_at, assets.removed_at,"
        " assets.leased_at, assets.due_at, assets.failure FROM videos"
        " LEFT JOIN assets ON assets.video_id = videos.id AND assets.variant = $3"
        " WHERE videos.upstream_id = $1 AND videos.project_id = $2 AND videos.deleted_at IS NULL"
        " AND videos.kind = 'video' ORDER BY videos.created_at, videos.id LIMIT 1",
        (upstream_id, project_id, variant),
    )
    return rows[0] if rows else None


def list_videos(*, limit: int) -> Script[list[Row]]:
    """Return the newest videos of all projects, as an operator sees them.

    An adopted one has none of the columns of a hold, and its object as adopted_object.
    """
    rows = yield Sql(
        "SELECT videos.id, videos.upstream_id, projects.name AS project, videos.key_id,"
        " holds.model, holds.size, holds.clip_seconds, videos.status, holds.state AS hold_state,"
        " holds.amount_micros, videos.created_at, videos.orphaned_at, videos.refused_at,"
        " videos.deleted_at, CASE WHEN videos.hold_id IS NULL THEN videos.object END"
        " AS adopted_object,"
        " (SELECT CAST(SUM(entries.spent_micros) AS BIGINT) FROM entries"
        " WHERE entries.hold_id = holds.id) AS spent_micros, assets.mirrored_at FROM videos"
        " LEFT JOIN holds ON holds.id = videos.hold_id"
        " JOIN projects ON projects.id = videos.project_id"
        " LEFT JOIN assets ON assets.video_id = videos.id AND assets.variant = 'video'"
        " ORDER BY videos.created_at DESC, videos.id DESC LIMIT $1",
        (limit,),
    )
    return list(rows)


def find_character(*, upstream_id: str, project_id: str) -> Script[Row | None]:
    """Return a character of a project, or None: also for another project's.

    Columns: id, object, upstream.
    """
    rows = yield Sql(
        "SELECT id, object, upstream FROM videos WHERE upstream_id = $1 AND project_id = $2"
        " AND kind = 'character' ORDER BY created_at, id LIMIT 1",
        (upstream_id, project_id),
    )
    return rows[0] if rows else None


def find_source(*, upstream_id: str, project_id: str) -> Script[SourceVideo | None]:
    """Return what an operation on a video of a project needs, or None.

    Raises:
        InvalidRequest: it was adopted, and its object does not say what it is.
    """
    rows = yield Sql(
        "SELECT videos.upstream, videos.status, videos.object, holds.model, holds.size,"
        " holds.clip_seconds, videos.hold_id FROM videos"
        " LEFT JOIN holds ON holds.id = videos.hold_id"
        " WHERE videos.upstream_id = $1 AND videos.project_id = $2 AND videos.kind = 'video'"
        " AND videos.deleted_at IS NULL ORDER BY videos.created_at, videos.id LIMIT 1",
        (upstream_id, project_id),
    )
    if not rows:
        return None
    ((upstream, status, text, model, size, clip_seconds, hold_id),) = rows
    shown = shown_by(text)
    if hold_id is None:
        model, size = shown.model, shown.size
    # What the upstream made, not what was asked: an extension's object has the stitched total.
    clip_seconds = shown.clip_seconds or clip_seconds
    if model is None or size is None or clip_seconds is None:
        raise InvalidRequest(
            "The source video was not bought here, and its object does not say its model, size and"
            " seconds: what this would cost is unknown.",
            param="video",
        )
    return SourceVideo(
        upstream=upstream,
        status=status,
        model=model,
        size=size,
        clip_seconds=clip_seconds,
    )
