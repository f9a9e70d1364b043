"""How are scripts run on PostgreSQL?

Scripts that write stand in one line, as they do on SQLite: their transaction begins by taking one
advisory lock, the same for all replicas. So the books are written by one transaction at a time;
scripts are serializable by construction, and no two can deadlock. It costs little, because whatever
moves money meets at the organization's three balances anyway. Scripts that wait together share a
transaction, hence one lock and one fsync, each inside a savepoint of its own, so that a refusal
undoes only itself.

`run_beside` stands in no line, and `read` sees a snapshot; both use connections of their own.

A group whose connection was lost, at COMMIT or before, runs again whole: once it has the lock, what
was begun before is over, and a script that took effect finds its own rows. Everything belongs to a
transaction and nothing to a session, so that a pooler may stand in between.
"""

import asyncio
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar, cast

import asyncpg

from gateway.db.database import UNAVAILABLE, WAITING_LIMIT, unavailable
from gateway.db.postgres_server import (
    UNREACHABLE,
    Connecting,
    is_fault_of_statement,
    may_pass,
    worded,
)
from gateway.db.script import Script
from gateway.errors import DatabaseUnavailable

T = TypeVar("T")

BUSY_SECONDS: Final = 10.0  # how long a caller waits for a lock, or for a server that comes back
ANSWER_SECONDS: Final = 30.0  # how long a caller waits at all
IDLE_SECONDS: Final = 3.0  # how long a process that was stopped may hold up all others
RETRY_SECONDS: Final = 0.05
GROUP_LIMIT: Final = 64  # scripts under one commit
BOOKS_LOCK: Final = 0x766964656F


@asynccontextmanager
async def open_postgres(
    url: str,
    *,
    password: str = "",
    connections: int,
    busy_seconds: float = BUSY_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
) -> AsyncIterator["PostgresDatabase"]:
    """Yield the database at `url` (postgresql://…) with so many connections, at least 3.

    Leaving waits for what is queued, then closes. Raises DatabaseUnavailable if no connection can
    be made.
    """
    connecting = Connecting(url, password=password)
    try:
        first = await connecting.connect()
    except UNREACHABLE as error:
        raise unavailable(error) from error
    limits = (
        f"SET LOCAL lock_timeout = {round(busy_seconds * 1000)};"
        f"SET LOCAL statement_timeout = {round(answer_seconds * 1000)};"
        f"SET LOCAL idle_in_transaction_session_timeout = {round(IDLE_SECONDS * 1000)}"
    )
    writing = f"BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE;{limits}"
    books = _Line(f"{writing};SELECT pg_advisory_xact_lock({BOOKS_LOCK})", GROUP_LIMIT)
    beside = _Line(writing)
    reads = _Line(f"BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY;{limits}", reading=True)
    readers = (connections - 1) // 2
    lines = [books, *[beside] * (connections - 1 - readers), *[reads] * readers]
    workers = [_Worker(line, connecting, busy_seconds, answer_seconds) for line in lines]
    workers[0].connection = first
    database = PostgresDatabase(books, beside, reads, answer_seconds=answer_seconds)
    failure: BaseException | None = None
    async with asyncio.TaskGroup() as group:
        tasks = [group.create_task(worker.work()) for worker in workers]
        try:
            yield database
        except BaseException as error:  # noqa: BLE001 - raised below, where no group wraps it
            failure = error
        database.closed = True
        for line in (books, beside, reads):
            await line.waiting.join()
        for task in tasks:
            task.cancel()
    if failure is not None:
        raise failure


class _Waiting(NamedTuple):
    script: Callable[[], Script[Any]]
    since: float
    answer: asyncio.Future[Any]


@dataclass
class _Line:
    """Scripts of one kind, in the order in which they came.

    Attributes:
        begin: what a transaction of that kind begins with.
    """

    begin: str
    group_limit: int = 1
    reading: bool = False
    waiting: asyncio.Queue[_Waiting] = field(default_factory=asyncio.Queue)


class PostgresDatabase:
    """What `gateway.db.database.Database` promises, kept on PostgreSQL; made by `open_postgres`."""

    def __init__(self, books: _Line, beside: _Line, reads: _Line, *, answer_seconds: float) -> None:
        self._books, self._beside, self._reads = books, beside, reads
        self._answer_seconds = answer_seconds
        self.closed = False

    async def run(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script in a transaction that may write, and return its result."""
        return await self._ask(self._books, script)

    async def run_beside(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script that may write beside others, and return its result."""
        return await self._ask(self._beside, script)

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script that only reads, and return its result."""
        return await self._ask(self._reads, script)

    async def _ask(self, line: _Line, script: Callable[[], Script[T]]) -> T:
        if self.closed or line.waiting.qsize() >= WAITING_LIMIT:
            raise DatabaseUnavailable(UNAVAILABLE)
        answer = asyncio.get_running_loop().create_future()
        line.waiting.put_nowait(_Waiting(script, time.monotonic(), answer))
        try:
            async with asyncio.timeout(self._answer_seconds):
                return cast("T", await answer)
        except TimeoutError as error:
            raise DatabaseUnavailable(UNAVAILABLE) from error


class _Worker:
    """One connection, and the task that uses it."""

    def __init__(
        self, line: _Line, connecting: Connecting, busy_seconds: float, answer_seconds: float
    ) -> None:
        self.connection: asyncpg.Connection | None = None
        self._line = line
        self._connecting = connecting
        self._busy_seconds = busy_seconds
        self._answer_seconds = answer_seconds

    async def work(self) -> None:
        """Answer what waits until cancelled."""
        waiting = self._line.waiting
        try:
            while True:
                group = [await waiting.get()]
                while len(group) < self._line.group_limit and not waiting.empty():
                    group.append(waiting.get_nowait())
                for answer in await self._answers(group):
                    answer()
                    waiting.task_done()
        finally:
            self._drop()

    async def _answers(self, group: list[_Waiting]) -> list[Callable[[], None]]:
        until = group[0].since + self._busy_seconds
        while True:
            try:
                async with asyncio.timeout(self._answer_seconds):
                    if self.connection is None:
                        self.connection = await self._connecting.connect()
                    return await _transaction(self.connection, self._line, group)
            except asyncio.CancelledError:
                raise
            except Exception as error:  # noqa: BLE001 - whatever it is, everybody waiting hears it
                self._drop()
                cause = error.__cause__ if isinstance(error, _BrokenError) else error
                if not may_pass(cause) or time.monotonic() + RETRY_SECONDS > until:
                    return [partial(_refuse, each, unavailable(cause)) for each in group]
            await asyncio.sleep(RETRY_SECONDS)

    def _drop(self) -> None:
        if self.connection is not None:
            self.connection.terminate()
            self.connection = None


async def _transaction(
    connection: asyncpg.Connection, line: _Line, group: list[_Waiting]
) -> list[Callable[[], None]]:
    """Run a group; return the answers to be given after its commit, which is done."""
    await connection.execute(line.begin)
    if len(group) == 1:
        answer, kept = await _alone(connection, group[0], reading=line.reading)
        await _end(connection, "COMMIT" if kept else "ROLLBACK")
        return [answer]
    answers = []
    leave = ""
    for waiting in group:
        await connection.execute(f"{leave}SAVEPOINT script")
        answer, kept = await _alone(connection, waiting, reading=line.reading)
        answers.append(answer)
        leave = f"{'RELEASE' if kept else 'ROLLBACK TO'} SAVEPOINT script;"
    await connection.execute(leave)
    await _end(connection, "COMMIT")
    return answers


async def _alone(
    connection: asyncpg.Connection, waiting: _Waiting, *, reading: bool
) -> tuple[Callable[[], None], bool]:
    """Run one script; return the answer, and whether what it did is to be kept."""
    try:
        result = await drive(connection, waiting.script(), reading=reading)
    except _BrokenError:
        raise
    except Exception as error:  # noqa: BLE001 - its caller hears it, the others go on
        return partial(_refuse, waiting, error), False
    return partial(_tell, waiting, result), True


async def drive(connection: asyncpg.Connection, script: Script[T], *, reading: bool) -> T:
    """Send the script its rows until it returns or raises; either way it is closed."""
    try:
        text, args = next(script)
        while True:
            try:
                rows = await connection.fetch(worded(text), *args)
            except Exception as error:
                if is_fault_of_statement(error, reading=reading):
                    raise
                raise _BrokenError from error
            text, args = script.send(rows)
    except StopIteration as done:
        return cast("T", done.value)
    finally:
        script.close()


class _BrokenError(Exception):
    """The database could not go on with a transaction; the cause says why."""


async def _end(connection: asyncpg.Connection, command: str) -> None:
    # The server answers COMMIT with ROLLBACK where it could not commit.
    if await connection.execute(command) != command:
        raise _BrokenError


def _tell(waiting: _Waiting, result: Any) -> None:
    if not waiting.answer.done():  # its caller was cancelled
        waiting.answer.set_result(result)


def _refuse(waiting: _Waiting, error: Exception) -> None:
    if not waiting.answer.done():
        waiting.answer.set_exception(error)
