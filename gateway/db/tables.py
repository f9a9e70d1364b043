"""Which tables, columns and keys do the migrations of this program come to?

They are asked of SQLite, which is given the same statements, in memory.
"""

import sqlite3
from contextlib import closing
from dataclasses import dataclass
from graphlib import TopologicalSorter
from typing import NamedTuple

from gateway.db.migrate import Migration


class Reference(NamedTuple):
    """A column whose value, where it has one, stands in a column of another table."""

    column: str
    to_table: str
    to_column: str


@dataclass(frozen=True, slots=True)
class Table:
    """A table.

    Attributes:
        columns: all of them, those of the key first, in the order in which it compares.
        key: those of the primary key.
    """

    name: str
    columns: tuple[str, ...]
    key: tuple[str, ...]
    references: tuple[Reference, ...]


def tables_of(migrations: list[Migration]) -> list[Table]:
    """Return all tables, each after those that it refers to."""
    with closing(sqlite3.connect(":memory:")) as connection:
        for migration in migrations:
            for statement in migration.statements:
                connection.execute(statement.text)
        named = connection.execute(
            "SELECT name FROM sqlite_schema WHERE type = 'table' AND name NOT LIKE 'sqlite_%'"
        )
        tables = {name: _table(connection, name) for (name,) in named}
    order = TopologicalSorter(
        {name: {one.to_table for one in tables[name].references} for name in sorted(tables)}
    )
    return [tables[name] for name in order.static_order()]


def _table(connection: sqlite3.Connection, name: str) -> Table:
    # pk is the column's place in the primary key, from 1; 0: it is not in it.
    columns = connection.execute(
        "SELECT name, pk FROM pragma_table_info(?) ORDER BY pk = 0, pk, cid", (name,)
    ).fetchall()
    references = connection.execute(
        'SELECT "from", "table", "to" FROM pragma_foreign_key_list(?)', (name,)
    )
    return Table(
        name,
        columns=tuple(column for column, _ in columns),
        key=tuple(column for column, place in columns if place),
        references=tuple(Reference(*one) for one in references),
    )
