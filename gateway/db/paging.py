"""How is a long list read page by page? Scripts only.

Every list is ordered by a time and then by id, which is compared bytewise, so that a row has one
place in it for ever. A cursor is the id of a row: the page before or after that row. A cursor that
names no row gives an empty page: a client that pages with it stops.
"""

from dataclasses import dataclass
from typing import Final

from gateway.db.script import Row, Script, Sql

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100


@dataclass(frozen=True, slots=True)
class Cursor:
    """Which page is asked for.

    Attributes:
        limit: rows at most, 0 or more.
        after, before: ids; at most one of the two counts, `after` first.
    """

    limit: int = DEFAULT_LIMIT
    newest_first: bool = True
    after: str | None = None
    before: str | None = None


@dataclass(frozen=True, slots=True)
class Listed:
    """What is listed: trusted SQL text, never a client's.

    Attributes:
        columns: what is selected; `id` must be among them.
        source: tables and joins; the listed table comes first and is called by its name.
        table: the listed table.
        where: condition with `$1` … for args.
        time_column: of the listed table.
    """

    columns: str
    source: str
    table: str
    where: str
    args: tuple[str | int | None, ...] = ()
    time_column: str = "created_at"


@dataclass(frozen=True, slots=True)
class Page:
    """Rows in the order asked for; has_more: there are others beyond the last."""

    rows: tuple[Row, ...]
    has_more: bool


def read_page(listed: Listed, cursor: Cursor) -> Script[Page]:
    """Return one page of a list."""
    named = cursor.after if cursor.after is not None else cursor.before
    backwards = cursor.after is None and cursor.before is not None
    newest_first = cursor.newest_first != backwards
    sign, direction = ("<", "DESC") if newest_first else (">", "ASC")
    moment, key = f"{listed.table}.{listed.time_column}", f"{listed.table}.id"
    where, args = listed.where, listed.args
    if named is not None:
        found = yield Sql(
            f"SELECT {listed.time_column}, id FROM {listed.table} WHERE id = $1", (named,)
        )
        if not found:
            return Page(rows=(), has_more=False)
        where += f" AND ({moment}, {key}) {sign} (${len(args) + 1}, ${len(args) + 2})"
        args += tuple(found[0])
    rows = yield Sql(
        f"SELECT {listed.columns} FROM {listed.source} WHERE {where}"
        f" ORDER BY {moment} {direction}, {key} {direction} LIMIT ${len(args) + 1}",
        (*args, cursor.limit + 1),
    )
    shown = list(rows[: cursor.limit])
    if backwards:
        shown.reverse()
    return Page(rows=tuple(shown), has_more=len(rows) > cursor.limit)
