"""What is no longer kept? Scripts only.

Three rules, in this order:

    by age              what was mirrored longer ago than its project keeps content
    by bytes            what a project has beyond its own limit, the oldest first
    by bytes of all     what all have together beyond the limit of the settings, the oldest first

The oldest is what was mirrored first, whoever's it is. What is pinned is never let go, but its
bytes count. A rule looks at one consistent state, chooses from that, and removes just what it
chose: of two processes that decide at once, the second finds the same done already, and neither
lets go of more than the rule says.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Final

from gateway.db.script import Row, Script, Sql, Value
from gateway.mirror.keeping import IS_KEPT
from gateway.mirror.pins import IS_PINNED

# Why an asset is removed; the third reason is `deletion`, by its client.
AGE: Final = "age"
SPACE: Final = "space"
# Rows of one transaction.
BATCH: Final = 500
_EVICTABLE: Final = f"{IS_KEPT} AND NOT {IS_PINNED}"
_KEEP_SECONDS: Final = "COALESCE(retentions.keep_seconds, $2)"


@dataclass(frozen=True, slots=True)
class Aged:
    """A project that has content older than it keeps.

    Attributes:
        before: what was mirrored before this Unix second is no longer kept.
    """

    project_id: str
    before: int


@dataclass(frozen=True, slots=True)
class Beyond:
    """How content stands to a limit on bytes.

    Attributes:
        kept_bytes: all that is kept now.
        asset_ids: what is to go, up to a batch; none although there is too much: the rest is
            pinned.
    """

    kept_bytes: int
    asset_ids: Sequence[str]


@dataclass(frozen=True, slots=True)
class Removed:
    """What was removed."""

    assets: int
    size_bytes: int


def next_aged(*, after: str, keep_seconds: int, now: int) -> Script[Aged | None]:
    """Return the next project, in the order of ids, that has something to let go for its age.

    Args:
        after: the project before it; "" for the first.
        keep_seconds: how long those keep content that do not say; 0: for ever.
        now: Unix seconds.
    """
    rows = yield Sql(
        f"SELECT projects.id, $3 - {_KEEP_SECONDS} AS before FROM projects"
        " LEFT JOIN retentions ON retentions.project_id = projects.id"
        f" WHERE projects.id > $1 AND {_KEEP_SECONDS} > 0 AND EXISTS (SELECT 1 FROM assets"
        " WHERE assets.project_id = projects.id"
        f" AND assets.mirrored_at < $3 - {_KEEP_SECONDS} AND {_EVICTABLE})"
        " ORDER BY projects.id LIMIT 1",
        # More than there has been time is no moment that a database can hold.
        (after, min(keep_seconds, now), now),
    )
    return Aged(*rows[0]) if rows else None


def find_aged(aged: Aged) -> Script[list[str]]:
    """Return a batch of what a project lets go for its age, the oldest first."""
    rows = yield Sql(
        "SELECT assets.id FROM assets WHERE assets.project_id = $1 AND assets.mirrored_at < $2"
        f" AND {_EVICTABLE} ORDER BY assets.mirrored_at, assets.id LIMIT $3",
        (aged.project_id, aged.before, BATCH),
    )
    return [row["id"] for row in rows]


def limited_projects(*, after: str) -> Script[Sequence[Row]]:
    """Return a batch of the projects with a limit on bytes (project_id, keep_bytes), by id."""
    return (
        yield Sql(
            "SELECT project_id, keep_bytes FROM retentions WHERE keep_bytes IS NOT NULL"
            " AND project_id > $1 ORDER BY project_id LIMIT $2",
            (after, BATCH),
        )
    )


def find_beyond(*, project_id: str | None, keep_bytes: int) -> Script[Beyond]:
    """Return how the content of a project, or of all (None), stands to its limit."""
    where, args = _of(project_id)
    ((kept_bytes,),) = yield Sql(
        "SELECT CAST(COALESCE(SUM(assets.size_bytes), 0) AS BIGINT) AS kept_bytes FROM assets"
        f" WHERE {where}{IS_KEPT}",
        args,
    )
    if kept_bytes <= keep_bytes:
        return Beyond(kept_bytes, ())
    rows = yield Sql(
        f"SELECT assets.id, assets.size_bytes FROM assets WHERE {where}{_EVICTABLE}"
        f" ORDER BY assets.mirrored_at, assets.id LIMIT ${len(args) + 1}",
        (*args, BATCH),
    )
    sized = ((row["id"], row["size_bytes"]) for row in rows)
    return Beyond(kept_bytes, oldest(sized, excess_bytes=kept_bytes - keep_bytes))


def oldest(sized: Iterable[tuple[str, int]], *, excess_bytes: int) -> list[str]:
    """Return as many of the first as hold the excess: all of them where they do not."""
    taken: list[str] = []
    for asset_id, size_bytes in sized:
        if excess_bytes <= 0:
            break
        taken.append(asset_id)
        excess_bytes -= size_bytes
    return taken


def remove(asset_ids: Sequence[str], *, reason: str, now: int) -> Script[Removed]:
    """Serve these no more, but what has been pinned or removed meanwhile; return what that was."""
    marks = ", ".join(f"${number}" for number in range(3, len(asset_ids) + 3))
    rows = yield Sql(
        "UPDATE assets SET removed_at = $1, removed_for = $2, claim_number = claim_number + 1"
        f" WHERE id IN ({marks}) AND {_EVICTABLE} RETURNING size_bytes",
        (now, reason, *asset_ids),
    )
    return Removed(len(rows), sum(row["size_bytes"] for row in rows))


def _of(project_id: str | None) -> tuple[str, tuple[Value, ...]]:
    return ("", ()) if project_id is None else ("assets.project_id = $1 AND ", (project_id,))
