"""How is a video written down that was not bought here?

Scripts only. It gets a row without a hold and without a key, completed, and assets that are due at
once: the mirror fetches them as it does any other. No entry is made, no balance moves.

Two things stand in the way. An id that any video here has, of whichever project and upstream, stays
where it is: several names of one upstream must not show a project what another has bought. And a
video that a submit without an id may have made is nobody's to adopt before that submit has ended:
its hold would stay for ever, and its client would lose what it has paid for.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.billing.audit_log import Change, write_line
from gateway.billing.projects import ProjectArchived, get_project
from gateway.db.script import Script, Sql
from gateway.videos.objects import Facts
from gateway.videos.polls import write_assets

# How far the clock of an upstream may be off ours.
SKEW_SECONDS: Final = 300
_NO_END: Final = (1 << 62) - 1
# A submit is under way as long as somebody has to look at it; after that it is an orphan. Both have
# an index with few rows in it; that of upstream_id has all that was ever refused: it is kept out.
_OPEN: Final = ("due_at > 0", "orphaned_at > 0")
_MAY_HAVE_MADE_IT: Final = " UNION ALL ".join(
    f"SELECT id FROM videos WHERE {is_open} AND COALESCE(upstream_id, '') = ''"
    " AND refused_at IS NULL AND kind = 'video' AND created_at <= $1"
    " AND submit_lease_ends_at >= $2"
    for is_open in _OPEN
)


@dataclass(frozen=True, slots=True)
class Stray:
    """A completed video of the upstream that is to be taken over.

    Attributes:
        id: which it will have here.
        shown: the object as clients will see it, JSON.
        made_at: when the upstream made it, as its object says; None: it does not.
        expires_at: when the upstream's copy goes.
        assets: for each variant that the upstream offers, the id that its asset will have.
    """

    id: str
    project_id: str
    upstream: str
    shown: str
    facts: Facts
    made_at: int | None
    expires_at: int
    assets: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class Known:
    """A video that is here already."""

    id: str
    upstream: str
    project: str


@dataclass(frozen=True, slots=True)
class Unended:
    """A submit that may have made the video: nobody knows yet what it made."""

    id: str


def find_known(upstream_ids: Sequence[str]) -> Script[dict[str, Known]]:
    """Return, by the upstream's id, those videos that are here already, the oldest of each."""
    if not upstream_ids:
        return {}
    marks = ", ".join(f"${number}" for number in range(1, len(upstream_ids) + 1))
    rows = yield Sql(
        "SELECT videos.upstream_id, videos.id, videos.upstream, projects.name AS project"
        " FROM videos LEFT JOIN projects ON projects.id = videos.project_id"
        f" WHERE videos.upstream_id IN ({marks}) ORDER BY videos.created_at DESC, videos.id DESC",
        tuple(upstream_ids),
    )
    return {upstream_id: Known(*facts) for upstream_id, *facts in rows}


def in_the_way(stray: Stray) -> Script[Known | Unended | None]:
    """Return why a video cannot be adopted; None: it can.

    Raises:
        ProjectArchived: nothing can be made in its project.
    """
    project = yield from get_project(stray.project_id)
    if project is None or project["archived_at"] is not None:
        raise ProjectArchived(stray.project_id)
    upstream_id = stray.facts.upstream_id
    known = yield from find_known((upstream_id,))
    if known:
        return known[upstream_id]
    earliest, latest = (0, _NO_END) if stray.made_at is None else (stray.made_at, stray.made_at)
    ((submit_id,),) = yield Sql(
        f"SELECT MIN(id) AS id FROM ({_MAY_HAVE_MADE_IT}) AS submits",
        (latest + SKEW_SECONDS, earliest - SKEW_SECONDS),
    )
    return None if submit_id is None else Unended(submit_id)


def adopt_video(change: Change, stray: Stray) -> Script[Known | Unended | None]:
    """Take a video over, or return what is in the way; None: it is the project's now.

    Raises:
        ProjectArchived: nothing can be made in its project.
    """
    found = yield from in_the_way(stray)
    if found is not None:
        # A script whose COMMIT was not answered is run again: what it finds then is its own.
        return found if found.id != stray.id else None
    now, upstream_id = change.now, stray.facts.upstream_id
    yield Sql(
        "INSERT INTO videos (id, project_id, upstream, upstream_id, kind, fields, status, object,"
        " created_at, submit_lease_ends_at, recorded_at, completed_at, expires_at, polled_at,"
        " missing_polls, claim_number)"
        " VALUES ($1, $2, $3, $4, 'video', '{}', 'completed', $5, $6, $7, $7, $8, $9, $7, 0, 0)",
        (
            stray.id,
            stray.project_id,
            stray.upstream,
            upstream_id,
            stray.shown,
            stray.facts.created_at,
            now,
            stray.facts.completed_at,
            stray.expires_at,
        ),
    )
    yield Sql(
        "INSERT INTO upstream_ids (upstream, upstream_id, video_id) VALUES ($1, $2, $3)",
        (stray.upstream, upstream_id, stray.id),
    )
    yield from write_assets(stray.id, stray.assets, expires_at=stray.expires_at, now=now)
    yield from write_line(
        change,
        "project.updated",
        resource="video",
        resource_id=stray.id,
        project_id=stray.project_id,
        after={"adopted_from": stray.upstream, "upstream_id": upstream_id},
    )
    return None
