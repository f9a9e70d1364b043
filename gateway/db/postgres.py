"""How are scripts run on PostgreSQL?

Scripts that write stand in one line, as they do on SQLite: their transaction begins by taking one
advisory lock, the same for all replicas. So the books are written by one transaction at a time;
scripts are serializable by construction, and no two can deadlock. It costs little, because whatever
moves money meets at the organization's three balances anyway. Scripts that wait together share a
transaction, hence one lock and one fsync, each inside a savepoint of its own, so that a refusal
undoes only itself.

`run_beside` stands in no line, and `read` sees a snapshot; both use connections of their own, one
script to a transaction, so that none holds up or fails another.

What a lost connection broke off runs again whole. Under the lock, what was begun before is then
over, and a script that took effect finds its own rows. Without it, what was begun before may be
about to commit: statements wait for the rows that it has changed, and a claim passes them over
until their lease ends.

Everything belongs to a transaction and nothing to a session, so that a pooler may stand in between.
A server or a role may have `synchronous_commit = off`; what is acknowledged here is durable all the
same. Nothing overrides `default_transaction_read_only`, by which an operator stops all writing.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Final, TypeVar, cast

from gateway.db.database import UNAVAILABLE, WAITING_LIMIT, unavailable
from gateway.db.postgres_server import CannotConnect, Connecting
from gateway.db.postgres_worker import Figures, Line, Waiting, Worker
from gateway.db.script import Script
from gateway.errors import DatabaseUnavailable

T = TypeVar("T")

BUSY_SECONDS: Final = 10.0  # how long a caller waits for a lock, or for a server that comes back
ANSWER_SECONDS: Final = 30.0  # how long a caller waits at all
IDLE_SECONDS: Final = 3.0  # how long a process that was stopped may hold up all others
GROUP_LIMIT: Final = 64  # scripts under one commit
BOOKS_LOCK: Final = 0x766964656F

_DURABLE: Final = (
    "CASE current_setting('synchronous_commit') WHEN 'off'"
    " THEN set_config('synchronous_commit', 'on', true) END"
)
_LOCK: Final = f"pg_advisory_xact_lock({BOOKS_LOCK})"


@asynccontextmanager
async def open_postgres(
    url: str,
    *,
    password: str = "",
    connections: int,
    busy_seconds: float = BUSY_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
    breaks_off: bool = False,
) -> AsyncIterator["PostgresDatabase"]:
    """Yield the database at `url` (postgresql://…) with up to so many connections, at least 3.

    Leaving waits for what is queued, then closes. Raises DatabaseUnavailable if no connection can
    be made.
    """
    connecting = Connecting(url, password=password)
    database = _lines(busy_seconds=busy_seconds, answer_seconds=answer_seconds)
    readers = (connections - 1) // 2
    lines = [database.books, *[database.reads] * readers]
    lines += [database.beside] * (connections - len(lines))
    workers = [Worker(line, connecting) for line in lines]
    try:
        await workers[0].connect()
    except CannotConnect as error:
        raise unavailable(error) from error
    failure: BaseException | None = None
    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(worker.work()) for worker in workers]
            try:
                yield database
            except BaseException as error:  # noqa: BLE001 - raised below, where no group wraps it
                failure = error
            if failure is None or not breaks_off:
                await _close(database)
            for task in tasks:
                task.cancel()
    finally:
        for worker in workers:  # a task may have been cancelled before its first step
            worker.drop()
    if failure is not None:
        raise failure


def _lines(*, busy_seconds: float, answer_seconds: float) -> "PostgresDatabase":
    limits = (
        f"SET LOCAL lock_timeout = {round(busy_seconds * 1000)};"
        f"SET LOCAL statement_timeout = {round(answer_seconds * 1000)};"
        f"SET LOCAL idle_in_transaction_session_timeout = {round(IDLE_SECONDS * 1000)}"
    )
    writing = f"BEGIN ISOLATION LEVEL READ COMMITTED;{limits};SELECT {_DURABLE}"
    reading = f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;{limits}"

    def line(begin: str, *, group_limit: int = 1, reading: bool = False) -> Line:
        return Line(
            begin=begin,
            group_limit=group_limit,
            reading=reading,
            busy_seconds=busy_seconds,
            answer_seconds=answer_seconds,
        )

    return PostgresDatabase(
        books=line(f"{writing}, {_LOCK}", group_limit=GROUP_LIMIT),
        beside=line(writing),
        reads=line(reading, reading=True),
    )


async def _close(database: "PostgresDatabase") -> None:
    database.closed = True
    for line in (database.books, database.beside, database.reads):
        with suppress(TimeoutError):  # by then every caller has given up
            async with asyncio.timeout(line.answer_seconds):
                await line.waiting.join()


class PostgresDatabase:
    """What `gateway.db.database.Database` promises, kept on PostgreSQL; made by `open_postgres`."""

    def __init__(self, *, books: Line, beside: Line, reads: Line) -> None:
        self.books, self.beside, self.reads = books, beside, reads
        self.closed = False

    @property
    def figures(self) -> Figures:
        """What was done for `run`."""
        return self.books.figures

    async def run(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script in a transaction that may write, and return its result."""
        return await self._ask(self.books, script)

    async def run_beside(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script that may write beside others, and return its result."""
        return await self._ask(self.beside, script)

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script that only reads, and return its result."""
        return await self._ask(self.reads, script)

    async def _ask(self, line: Line, script: Callable[[], Script[T]]) -> T:
        if self.closed or line.waiting.qsize() >= WAITING_LIMIT:
            raise DatabaseUnavailable(UNAVAILABLE)
        answer = asyncio.get_running_loop().create_future()
        line.waiting.put_nowait(Waiting(script, time.monotonic(), answer))
        deadline = asyncio.timeout(line.answer_seconds)
        try:
            async with deadline:
                return cast("T", await answer)
        except TimeoutError as error:
            if not deadline.expired():  # the script's own
                raise
            raise DatabaseUnavailable(UNAVAILABLE) from error
