"""How much content is kept, waits, or was lost? Scripts only, on indexes that hold all they read.

An asset is in one state: the first of these that is true.

    removed     our copy is not served any more; its bytes still have to go
    mirrored    the store has it
    lost        it cannot be had any more
    absent      the upstream has no such variant
    mirroring   somebody mirrors it now
    damaged     the store's bytes were wrong; it waits to be fetched again
    waiting     it waits to be mirrored
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final, TypeAlias

from gateway.db.script import Row, Script, Sql
from gateway.mirror.keeping import IS_KEPT

STATES: Final = ("mirrored", "waiting", "mirroring", "damaged", "lost", "absent", "removed")
PROJECTS: Final = 10
OLDEST: Final = 5
_SUM: Final = "CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT)"
# What was damaged waits since then, not since its video was completed.
_SINCE: Final = "COALESCE(assets.damaged_at, assets.created_at)"
_UNMIRRORED: Final = (
    "SELECT assets.video_id, videos.upstream_id, assets.project_id, projects.name AS project,"
    f" assets.variant, {_SINCE} AS waiting_since, assets.expires_at, assets.attempts,"
    " assets.failure FROM assets JOIN videos ON videos.id = assets.video_id"
    " LEFT JOIN projects ON projects.id = assets.project_id"
)


@dataclass(frozen=True, slots=True)
class Status:
    """How it stands with the content of all videos.

    Attributes:
        assets, size_bytes: by state, for all of STATES; bytes as far as they are known.
        verified_at: when the kept asset that was verified longest ago was; None: nothing is kept.
        oldest: the OLDEST that have waited longest for the mirror: video_id, upstream_id,
            project_id, project, variant, waiting_since, expires_at, attempts, failure.
        next_expiry: of what waits, the one whose upstream copy goes first; the same columns.
        failures: how many assets are not mirrored for which reason, by state and reason.
        projects: those that keep most bytes, PROJECTS of them: project_id, project, assets,
            size_bytes.
    """

    assets: Counter[str]
    size_bytes: Counter[str]
    verified_at: int | None
    oldest: Sequence[Row]
    next_expiry: Row | None
    failures: Counter[tuple[str, str]]
    projects: Sequence[Row]


# State, failure, assets, bytes.
_Counted: TypeAlias = tuple[str, str | None, int, int]


def read_status(*, now: int) -> Script[Status]:
    """Return how it stands."""
    projects = yield from _projects()
    counted = [*(yield from _not_kept(now=now)), _kept_of_all(projects)]
    status = Status(
        assets=Counter(dict.fromkeys(STATES, 0)),
        size_bytes=Counter(dict.fromkeys(STATES, 0)),
        verified_at=(yield from _verified_at()),
        oldest=(yield from _waiting(_SINCE, limit=OLDEST)),
        next_expiry=next(iter((yield from _waiting("assets.expires_at", limit=1))), None),
        failures=Counter(),
        projects=projects,
    )
    for state, failure, assets, size_bytes in counted:
        status.assets[state] += assets
        status.size_bytes[state] += size_bytes
        if failure is not None:
            status.failures[state, failure] += assets
    return status


def _projects() -> Script[Sequence[Row]]:
    """Return the largest projects, and beside each how much all of them have."""
    return (
        yield Sql(
            "SELECT kept.project_id, projects.name AS project, kept.assets, kept.size_bytes,"
            " kept.all_assets, kept.all_bytes FROM (SELECT project_id, COUNT(*) AS assets,"
            f" {_SUM} AS size_bytes, CAST(SUM(COUNT(*)) OVER () AS BIGINT) AS all_assets,"
            " CAST(SUM(SUM(size_bytes)) OVER () AS BIGINT) AS all_bytes FROM assets"
            f" WHERE {IS_KEPT} GROUP BY project_id ORDER BY 3 DESC, 1 LIMIT $1) AS kept"
            " LEFT JOIN projects ON projects.id = kept.project_id"
            " ORDER BY kept.size_bytes DESC, kept.project_id",
            (PROJECTS,),
        )
    )


def _kept_of_all(projects: Sequence[Row]) -> _Counted:
    if not projects:
        return ("mirrored", None, 0, 0)
    return ("mirrored", None, projects[0]["all_assets"], projects[0]["all_bytes"])


def _not_kept(*, now: int) -> Script[list[_Counted]]:
    waiting = yield Sql(
        "SELECT CASE WHEN leased_at IS NOT NULL AND due_at > $1 THEN 'mirroring'"
        " WHEN damaged_at IS NOT NULL THEN 'damaged' ELSE 'waiting' END AS state, failure,"
        f" COUNT(*), {_SUM} FROM assets WHERE due_at IS NOT NULL GROUP BY 1, 2",
        (now,),
    )
    lost = yield Sql(
        f"SELECT 'lost' AS state, failure, COUNT(*), {_SUM} FROM assets"
        " WHERE gone_at IS NOT NULL AND removed_at IS NULL GROUP BY 2"
    )
    # What the upstream never had is no failure, and has no bytes.
    absent = yield Sql(
        "SELECT 'absent', CAST(NULL AS TEXT), COUNT(*), 0 FROM assets"
        " WHERE absent_at IS NOT NULL AND removed_at IS NULL"
    )
    removed = yield Sql(
        f"SELECT 'removed', CAST(NULL AS TEXT), COUNT(*), {_SUM} FROM assets"
        " WHERE removed_at IS NOT NULL AND purged_at IS NULL"
    )
    return [
        (state, failure, assets, size_bytes)
        for state, failure, assets, size_bytes in (*waiting, *lost, *absent, *removed)
    ]


def _verified_at() -> Script[int | None]:
    ((verified_at,),) = yield Sql(f"SELECT MIN(verified_at) FROM assets WHERE {IS_KEPT}")
    return None if verified_at is None else int(verified_at)


def _waiting(order: str, *, limit: int) -> Script[Sequence[Row]]:
    return (
        yield Sql(
            f"{_UNMIRRORED} WHERE assets.id IN (SELECT id FROM assets WHERE due_at IS NOT NULL"
            f" ORDER BY {order}, assets.id LIMIT $1) ORDER BY {order}, assets.id",
            (limit,),
        )
    )
