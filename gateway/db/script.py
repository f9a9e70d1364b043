"""What is a transaction made of?

A script is a plain generator. It yields `Sql`, is sent the rows, composes with `yield from`, and
returns its result or raises its refusal:

    def rename(project_id: str, name: str) -> Script[bool]:
        rows = yield Sql("UPDATE projects SET name = $1 WHERE id = $2 RETURNING id",
                         (name, project_id))
        return bool(rows)

With no `await` inside, no network call can slip into a transaction and no cancellation can strike
in its middle; and a test can play the database by sending rows.

A script may be run again whole (a serialization failure, a connection lost at COMMIT), so it has
no effects but its yields, is idempotent by the row ids passed in, and never catches a database
error: uniqueness is `ON CONFLICT DO NOTHING RETURNING`.

The one phrase that not every database understands is SKIP_LOCKED, in claims: where one writer runs
at a time there is nothing to skip, and SQLite's driver leaves it out. And CHANGED, which tells the
other processes on a server that something they remember is no longer so, tells nobody there.
"""

from collections.abc import Generator, Iterator, Sequence
from typing import Any, Final, NamedTuple, Protocol, TypeAlias, TypeVar

SKIP_LOCKED: Final = " FOR UPDATE SKIP LOCKED"

Value: TypeAlias = str | int | None


class Sql(NamedTuple):
    """One statement in the subset that SQLite and PostgreSQL share, with `$1`, `$2` … arguments."""

    text: str
    args: tuple[Value, ...] = ()


class Row(Protocol):
    """One row: values by column name, or unpacked in the order of the columns."""

    def __getitem__(self, column: str, /) -> Any: ...

    def __iter__(self) -> Iterator[Any]: ...

    def __len__(self) -> int: ...


Rows: TypeAlias = Sequence[Row]

CHANNEL: Final = "video_gateway"
CHANGED: Final = Sql(f"SELECT pg_notify('{CHANNEL}', '') AS told")

T = TypeVar("T")
Script: TypeAlias = Generator[Sql, Rows, T]
