"""How are scripts run on SQLite?

Each connection has a thread and a queue. All scripts that wait together run in one hop to that
thread: on the writer they share one commit, hence one fsync, each inside a savepoint of its own,
so that a refusal undoes only itself; on a reader they share one snapshot. Nobody is answered
before the commit.

aiosqlite has no public way to run a function on its thread, but `commit` it does run there: so
the connections are made by its `factory` argument, and their `commit` means "run and commit
everything that waits". Every caller makes a hop of its own and the first to arrive serves all;
both queues are first in, first out, so a hop never ends before its caller's script was answered.
"""

import asyncio
import sqlite3
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from concurrent.futures import Future
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, cast

import aiosqlite

from gateway.db.database import UNAVAILABLE, WAITING_LIMIT, unavailable
from gateway.db.script import SKIP_LOCKED, Script
from gateway.db.sqlite_file import PRIMARY_CODE_MASK, prepare_file
from gateway.errors import DatabaseUnavailable

T = TypeVar("T")

BUSY_SECONDS = 10.0  # how long a caller waits for another process that holds the write lock
ANSWER_SECONDS = 30.0  # how long a caller waits at all: a disk may hang for ever
GROUP_LIMIT = 256  # scripts under one commit, which fail together when the commit fails
READERS = 2  # so that one long report does not stand before every other read
PARAMETER_LIMIT = 1_000  # `$1` … of one statement
CACHE_KIB = 16 << 10  # of each connection, once it has read that much; SQLite's own is 2 MiB
WAL_LIMIT_BYTES = 64 << 20  # what a checkpoint leaves of the log's file

# The fault of one statement; any other code is the database's: https://www.sqlite.org/rescode.html
_STATEMENT_CODES = {
    sqlite3.SQLITE_ERROR,
    sqlite3.SQLITE_TOOBIG,
    sqlite3.SQLITE_CONSTRAINT,
    sqlite3.SQLITE_MISMATCH,
    sqlite3.SQLITE_MISUSE,
    sqlite3.SQLITE_RANGE,
}
_KEYS = tuple(str(number) for number in range(1, PARAMETER_LIMIT + 1))


@asynccontextmanager
async def open_sqlite(
    path: Path,
    *,
    busy_seconds: float = BUSY_SECONDS,
    answer_seconds: float = ANSWER_SECONDS,
    breaks_off: bool = False,
) -> AsyncIterator["SqliteDatabase"]:
    """Yield the database in the file `path`, which is made with mode 0600 if there is none.

    Leaving waits for what is queued, then closes. Raises DatabaseUnavailable if the file cannot
    be opened. `:memory:` is not supported: each connection would see a database of its own.
    """
    if str(path) == ":memory:":
        raise ValueError("SQLite needs a file: ':memory:' is not supported")
    async with AsyncExitStack() as stack:
        try:
            # First, because a failed open would leave aiosqlite's thread to outlive the loop.
            await asyncio.to_thread(prepare_file, path, busy_seconds=busy_seconds)
            writer, *readers = [
                await stack.enter_async_context(_open_lane(path, begin, busy_seconds))
                for begin in ("BEGIN IMMEDIATE", *["BEGIN"] * READERS)
            ]
        except (OSError, sqlite3.Error) as error:
            raise DatabaseUnavailable(UNAVAILABLE) from error
        database = SqliteDatabase(writer=writer, readers=readers, answer_seconds=answer_seconds)
        try:
            yield database
        except BaseException:
            if breaks_off:
                for lane in (writer, *readers):
                    await lane.connection.interrupt()
            raise
        finally:
            database.closed = True


@dataclass(kw_only=True)
class SqliteDatabase:
    """What `gateway.db.database.Database` promises, kept on SQLite; made by `open_sqlite`."""

    writer: "_Lane"
    readers: list["_Lane"]
    answer_seconds: float
    closed: bool = False

    async def run(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script in a transaction that may write, and return its result."""
        return await self._ask(self.writer, script)

    async def run_beside(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script as `run` does: there is one writer."""
        return await self.run(script)

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """Run a fresh script that only reads, and return its result."""
        return await self._ask(min(self.readers, key=_Lane.load), script)

    async def _ask(self, lane: "_Lane", script: Callable[[], Script[T]]) -> T:
        if self.closed or len(lane.queue) >= WAITING_LIMIT:
            raise DatabaseUnavailable(UNAVAILABLE)
        answer: Future[T] = Future()
        try:
            async with asyncio.timeout(self.answer_seconds):
                # No await between these two: the hops stand in the order of the queue.
                lane.queue.append(_Waiting(script, time.monotonic(), answer))
                await lane.connection.commit()
        except TimeoutError as error:
            raise DatabaseUnavailable(UNAVAILABLE) from error
        return answer.result(timeout=0)


class _Waiting(NamedTuple):
    script: Callable[[], Script[Any]]
    since: float
    answer: Future[Any]


@dataclass
class _Lane:
    """One connection and its thread.

    Attributes:
        queue: what waits for it.
        running: what it is doing now, whether or not anybody still waits for the answer.
    """

    connection: aiosqlite.Connection
    queue: deque[_Waiting]
    running: list[_Waiting]

    def load(self) -> int:
        """Return how many scripts the next one would stand behind."""
        return len(self.queue) + len(self.running)


@asynccontextmanager
async def _open_lane(path: Path, begin: str, busy_seconds: float) -> AsyncIterator[_Lane]:
    queue: deque[_Waiting] = deque()
    running: list[_Waiting] = []
    factory = partial(
        _GroupConnection, begin=begin, queue=queue, running=running, busy_seconds=busy_seconds
    )
    async with aiosqlite.connect(
        path, factory=factory, isolation_level=None, timeout=busy_seconds
    ) as connection:
        yield _Lane(connection, queue, running)


class _GroupConnection(sqlite3.Connection):
    """A connection whose `commit` runs, commits and answers what waits in `queue`."""

    def __init__(
        self,
        *args: Any,
        begin: str,
        queue: deque[_Waiting],
        running: list[_Waiting],
        busy_seconds: float,
        **options: Any,
    ) -> None:
        super().__init__(*args, **options)
        self.row_factory = sqlite3.Row
        self._begin, self._queue, self._running = begin, queue, running
        self._busy_seconds = busy_seconds
        self.create_function("pg_notify", 2, lambda *_: None)  # script.CHANGED
        self.execute("PRAGMA synchronous = FULL")
        self.execute("PRAGMA fullfsync = ON")  # on macOS a plain fsync stops at the drive's cache
        self.execute("PRAGMA foreign_keys = ON")
        self.execute(f"PRAGMA cache_size = -{CACHE_KIB}")
        self.execute(f"PRAGMA journal_size_limit = {WAL_LIMIT_BYTES}").fetchall()
        self.execute(f"PRAGMA query_only = {begin == 'BEGIN':d}")

    def commit(self) -> None:
        """Answer everyone in the next group, once its commit is done or has failed."""
        group = [self._queue.popleft() for _ in range(min(len(self._queue), GROUP_LIMIT))]
        if not group:
            return
        self._running[:] = group
        try:
            _wait_for_locks(self, until=group[0].since + self._busy_seconds)
            self.execute(self._begin)
            answers = [_run_alone(self, waiting) for waiting in group]
            self.execute("COMMIT")
        except (sqlite3.Error, MemoryError) as error:
            answers = [partial(each.answer.set_exception, unavailable(error)) for each in group]
        finally:
            if self.in_transaction:  # a COMMIT that failed leaves it open
                with suppress(sqlite3.Error):  # the first error is the one to hear
                    self.execute("ROLLBACK")
            self._running.clear()
        for answer in answers:
            answer()


def _run_alone(connection: sqlite3.Connection, waiting: _Waiting) -> Callable[[], None]:
    """Return the answer to be given after the commit."""
    connection.execute("SAVEPOINT script")
    try:
        answer = partial(waiting.answer.set_result, drive(connection, waiting.script()))
    except BaseException as error:  # its caller hears even a KeyboardInterrupt, the others go on
        if _speaks_of_database(error):
            raise
        connection.execute("ROLLBACK TO script")
        answer = partial(waiting.answer.set_exception, error)
    connection.execute("RELEASE script")
    return answer


def drive(connection: sqlite3.Connection, script: Script[T]) -> T:
    """Send the script its rows until it returns or raises; either way it is closed."""
    try:
        text, args = next(script)
        while True:
            if len(args) > PARAMETER_LIMIT:
                raise ValueError(f"a statement has {len(args)} arguments, over {PARAMETER_LIMIT}")
            rows = connection.execute(
                text.replace(SKIP_LOCKED, ""), dict(zip(_KEYS, args, strict=False))
            ).fetchall()
            text, args = script.send(rows)
    except StopIteration as done:
        return cast("T", done.value)
    finally:
        script.close()


def _speaks_of_database(error: BaseException) -> bool:
    code = getattr(error, "sqlite_errorcode", sqlite3.SQLITE_ERROR)
    # With no extension it is `query_only`: a file that cannot be written refuses at BEGIN.
    return code != sqlite3.SQLITE_READONLY and code & PRIMARY_CODE_MASK not in _STATEMENT_CODES


def _wait_for_locks(connection: sqlite3.Connection, *, until: float) -> None:
    milliseconds = max(0, round((until - time.monotonic()) * 1000))
    connection.execute(f"PRAGMA busy_timeout = {milliseconds}").fetchall()
