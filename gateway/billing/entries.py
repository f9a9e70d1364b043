"""Which entries were made, and for what? Scripts only.

Entries are read in the order of their time and then of their ids, a page at a time, so that a whole
year needs no more memory than a page. The entries of days that are over are complete; beside those
of the running second others may still be written.
"""

from collections.abc import Sequence
from typing import Final

from gateway.db.script import Row, Script, Sql

ENTRY_COLUMNS: Final = (
    "id",
    "created_at",
    "accounting_day",
    "kind",
    "reason",
    "project_id",
    "project_name",
    "key_id",
    "key_name",
    "hold_id",
    "video_id",
    "upstream",
    "upstream_id",
    "operation",
    "model",
    "size",
    "clip_seconds",
    "held_micros",
    "spent_micros",
    "list_micros",
    "cost_micros",
)
_SELECT: Final = (
    "SELECT entries.id, entries.created_at, holds.accounting_day, entries.kind, entries.reason,"
    " holds.project_id, projects.name AS project_name, holds.key_id, keys.name AS key_name,"
    " entries.hold_id, videos.id AS video_id, videos.upstream, videos.upstream_id,"
    " holds.operation, holds.model, holds.size, holds.clip_seconds, entries.held_micros,"
    " entries.spent_micros, entries.list_micros, entries.cost_micros"
    " FROM entries JOIN holds ON holds.id = entries.hold_id"
    # Left joins, so that no planner begins with the projects asked for and sorts all entries.
    " LEFT JOIN projects ON projects.id = holds.project_id"
    " LEFT JOIN keys ON keys.id = holds.key_id"
    " LEFT JOIN videos ON videos.hold_id = holds.id"
)


def read_entries(
    *,
    after: tuple[int, str] | None,
    since: int,
    until: int,
    limit: int,
    project_ids: Sequence[str] = (),
    key_ids: Sequence[str] = (),
) -> Script[list[Row]]:
    """Return a page of entries with the facts of their holds, the oldest first.

    Columns: ENTRY_COLUMNS. Those of the video are None where its row is not there.

    Args:
        after: created_at and id of the last entry of the page before; None: the first page.
        since: Unix seconds, the entry was made then or later.
        until: Unix seconds, it was made before.
        limit: entries at most.
        project_ids: empty: all.
        key_ids: empty: all.
    """
    where = ["entries.created_at >= $1", "entries.created_at < $2"]
    args: list[str | int] = [since, until]
    if after is not None:
        where.append("(entries.created_at, entries.id) > ($3, $4)")
        args += after
    for column, values in (("project_id", project_ids), ("key_id", key_ids)):
        if values:
            marks = ", ".join(f"${len(args) + number}" for number in range(1, len(values) + 1))
            where.append(f"holds.{column} IN ({marks})")
            args += values
    rows = yield Sql(
        f"{_SELECT} WHERE {' AND '.join(where)}"
        f" ORDER BY entries.created_at, entries.id LIMIT ${len(args) + 1}",
        (*args, limit),
    )
    return list(rows)


def find_place(entry_id: str) -> Script[tuple[int, str] | None]:
    """Return where an entry stands, the `after` of the page behind it; None: there is none."""
    rows = yield Sql("SELECT created_at, id FROM entries WHERE id = $1", (entry_id,))
    return (int(rows[0]["created_at"]), str(rows[0]["id"])) if rows else None
