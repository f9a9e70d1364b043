"""How are the rows of any table read and written? Scripts only.

A row is a tuple of the table's columns, its key first. Keys compare here as they do in the
database: text by its bytes, which is the order of its characters.
"""

import hashlib
from collections.abc import Iterable, Sequence
from itertools import chain
from typing import Final, NamedTuple, TypeAlias

from gateway.db.script import Script, Sql, Value
from gateway.db.sqlite import PARAMETER_LIMIT
from gateway.db.tables import Table

Values: TypeAlias = tuple[Value, ...]

PAGE_ROWS: Final = 1_000


class Content(NamedTuple):
    """What is in a table: two with the same content are equal."""

    rows: int
    sha256: str


def key_of(table: Table, row: Values) -> Values:
    """Return the key of a row."""
    return row[: len(table.key)]


def read_page(table: Table, *, after: Values | None) -> Script[list[Values]]:
    """Return up to PAGE_ROWS rows in the order of their keys, the first or those after a key."""
    key = ", ".join(table.key)
    args = after or ()
    where = f" WHERE ({key}) > ({_marks(len(args))})" if args else ""
    rows = yield Sql(
        f"SELECT {', '.join(table.columns)} FROM {table.name}{where} ORDER BY {key}"
        f" LIMIT {PAGE_ROWS}",
        args,
    )
    return [tuple(row) for row in rows]


def count_rows(tables: Iterable[Table]) -> Script[int]:
    """Return how many rows all tables have together."""
    count = 0
    for table in tables:
        ((rows,),) = yield Sql(f"SELECT COUNT(*) FROM {table.name}")
        count += rows
    return count


def has_rows(table: Table) -> Script[bool]:
    """Tell whether a table has any."""
    return bool((yield Sql(f"SELECT {table.key[0]} FROM {table.name} LIMIT 1")))


def read_contents(tables: Iterable[Table]) -> Script[dict[str, Content]]:
    """Read all rows, and return what is in each table."""
    contents = {}
    for table in tables:
        digest = hashlib.sha256()
        count = 0
        page = yield from read_page(table, after=None)
        while page:
            count += len(page)
            digest.update(repr(page).encode())
            page = yield from read_page(table, after=key_of(table, page[-1]))
        contents[table.name] = Content(count, digest.hexdigest())
    return contents


def insert_rows(table: Table, rows: Sequence[Values]) -> Script[int]:
    """Insert up to PAGE_ROWS rows; return how many were left out.

    What refers to a row that is not there is left out, and so is what stands in the way of another.
    """
    fitting = yield from _with_all_they_refer_to(table, rows)
    inserted = 0
    at_once = PARAMETER_LIMIT // len(table.columns)
    for begin in range(0, len(fitting), at_once):
        some = fitting[begin : begin + at_once]
        width = len(table.columns)
        marks = ", ".join(f"({_marks(width, place * width)})" for place in range(len(some)))
        done = yield Sql(
            f"INSERT INTO {table.name} ({', '.join(table.columns)}) VALUES {marks}"
            f" ON CONFLICT DO NOTHING RETURNING {table.key[0]}",
            tuple(chain.from_iterable(some)),
        )
        inserted += len(done)
    return len(rows) - inserted


def _with_all_they_refer_to(table: Table, rows: Sequence[Values]) -> Script[Sequence[Values]]:
    for column, to_table, to_column in table.references:
        place = table.columns.index(column)
        wanted = {row[place] for row in rows} - {None}
        if not wanted:
            continue
        found = yield Sql(
            f"SELECT {to_column} FROM {to_table} WHERE {to_column} IN ({_marks(len(wanted))})",
            tuple(wanted),
        )
        missing = wanted - {value for (value,) in found}
        if missing:
            rows = [row for row in rows if row[place] not in missing]
    return rows


def change_rows(table: Table, rows: Iterable[Values]) -> Script[None]:
    """Let rows that are there be as these."""
    others = table.columns[len(table.key) :]
    first = len(table.key) + 1
    changes = ", ".join(f"{column} = ${place}" for place, column in enumerate(others, first))
    for row in rows:
        yield Sql(f"UPDATE {table.name} SET {changes} WHERE {_is_key(table)}", row)


def delete_rows(table: Table, keys: Iterable[Values]) -> Script[None]:
    """Delete the rows with these keys."""
    for key in keys:
        yield Sql(f"DELETE FROM {table.name} WHERE {_is_key(table)}", key)


def _is_key(table: Table) -> str:
    return " AND ".join(f"{column} = ${place}" for place, column in enumerate(table.key, 1))


def _marks(count: int, before: int = 0) -> str:
    return ", ".join(f"${place}" for place in range(before + 1, before + count + 1))
