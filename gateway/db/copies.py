"""Is a database a copy of another one, and is it whole? Scripts only.

A copy has an id, which stands on both sides before the first row is copied. So a copy that was
broken off is known as one, and as one of what: it can be gone on with, and nothing is served from
it.
"""

from typing import Final, NamedTuple

from gateway.db.script import Script, Sql

SOURCE: Final = "source"
TARGET: Final = "target"


class Copy(NamedTuple):
    """A copy that a database had a side in."""

    id: str
    finished: bool


def list_copies(side: str) -> Script[list[Copy]]:
    """Return the copies in which this database was the source, or the target."""
    rows = yield Sql("SELECT id, finished_at FROM copies WHERE side = $1 ORDER BY id", (side,))
    return [Copy(row["id"], row["finished_at"] is not None) for row in rows]


def begin_copy(copy_id: str, *, side: str, now: int) -> Script[bool]:
    """Say that a copy begins; False: this database is its other side, too."""
    yield Sql(
        "INSERT INTO copies (id, side, begun_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        (copy_id, side, now),
    )
    found = yield Sql("SELECT id FROM copies WHERE id = $1 AND side = $2", (copy_id, side))
    return bool(found)


def finish_copy(copy_id: str, *, now: int) -> Script[None]:
    """Say that a copy is whole."""
    yield Sql(
        "UPDATE copies SET finished_at = $2 WHERE id = $1 AND finished_at IS NULL", (copy_id, now)
    )


def is_unfinished() -> Script[bool]:
    """Tell whether this database is a copy that is not whole."""
    return not all(copy.finished for copy in (yield from list_copies(TARGET)))
