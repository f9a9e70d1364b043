"""Which videos does a project have? Scripts only."""

from dataclasses import dataclass
from enum import Enum
from typing import Final, NamedTuple

from gateway.billing.ledger import HELD
from gateway.db.script import Script, Sql
from gateway.videos.lifecycle import COMPLETED, FAILED

_SEEN: Final = (
    "project_id = $1 AND kind = 'video' AND upstream_id IS NOT NULL AND deleted_at IS NULL"
)


@dataclass(frozen=True, slots=True)
class Page:
    """One page of a list.

    Attributes:
        objects: JSON texts of the videos, as clients see them.
    """

    objects: tuple[str, ...]
    first_id: str | None
    last_id: str | None
    has_more: bool


class Deletion(Enum):
    """What a request to delete came to."""

    DELETED = "deleted"
    NOT_OVER = "not_over"
    NO_SUCH_VIDEO = "no_such_video"


class Deleted(NamedTuple):
    """What became of a request to delete; None where there is no such video."""

    deletion: Deletion
    video_id: str | None = None
    upstream: str | None = None


_EMPTY: Final = Page(objects=(), first_id=None, last_id=None, has_more=False)


def list_page(
    *, project_id: str, limit: int, newest_first: bool, after: str | None
) -> Script[Page]:
    """Return the page after the video with the visible id `after`, or the first page.

    A cursor that names none of the project's videos gives an empty page: it is no error, and a
    client that pages with it stops.
    """
    sign, direction = ("<", "DESC") if newest_first else (">", "ASC")
    order = f"ORDER BY created_at {direction}, id {direction} LIMIT"
    if after is None:
        rows = yield Sql(
            f"SELECT upstream_id, object FROM videos WHERE {_SEEN} {order} $2",
            (project_id, limit + 1),
        )
    else:
        # A deleted video still marks its place.
        cursors = yield Sql(
            "SELECT created_at, id FROM videos WHERE project_id = $1 AND upstream_id = $2"
            " ORDER BY created_at, id LIMIT 1",
            (project_id, after),
        )
        if not cursors:
            return _EMPTY
        ((created_at, video_id),) = cursors
        rows = yield Sql(
            f"SELECT upstream_id, object FROM videos WHERE {_SEEN}"
            f" AND (created_at, id) {sign} ($2, $3) {order} $4",
            (project_id, created_at, video_id, limit + 1),
        )
    shown = rows[:limit]
    return Page(
        objects=tuple(row["object"] for row in shown),
        first_id=shown[0]["upstream_id"] if shown else None,
        last_id=shown[-1]["upstream_id"] if shown else None,
        has_more=len(rows) > limit,
    )


def delete_video(*, upstream_id: str, project_id: str, now: int) -> Script[Deleted]:
    """Hide a video of a project from every verb, if it is over.

    Row and entries stay; what is not mirrored yet never will be.
    """
    found = yield Sql(
        "SELECT videos.id, videos.status, videos.upstream, holds.state AS hold_state FROM videos"
        " LEFT JOIN holds ON holds.id = videos.hold_id"
        " WHERE videos.upstream_id = $2 AND videos.project_id = $1 AND videos.kind = 'video'"
        " AND videos.deleted_at IS NULL ORDER BY videos.created_at, videos.id LIMIT 1",
        (project_id, upstream_id),
    )
    if not found:
        return Deleted(Deletion.NO_SUCH_VIDEO)
    ((video_id, status, upstream, hold_state),) = found
    # An orphan is shown as failed, but the upstream's copy is the evidence that ends its hold.
    if status not in {COMPLETED, FAILED} or hold_state == HELD:
        return Deleted(Deletion.NOT_OVER, video_id, upstream)
    yield Sql("UPDATE videos SET deleted_at = $2 WHERE id = $1", (video_id, now))
    # Nobody mirrors it any more, and what the store has is removed.
    yield Sql(
        "UPDATE assets SET removed_at = $2, removed_for = 'deletion', due_at = NULL,"
        " leased_at = NULL, claim_number = claim_number + 1"
        " WHERE video_id = $1 AND removed_at IS NULL",
        (video_id, now),
    )
    yield Sql(
        "UPDATE assets SET due_at = NULL, claim_number = claim_number + 1"
        " WHERE video_id = $1 AND mirrored_at IS NULL",
        (video_id,),
    )
    return Deleted(Deletion.DELETED, video_id, upstream)
