"""How does one connection work off the scripts that wait?

Nobody is answered before the commit. What a connection could not finish, because it was lost, at
COMMIT or before, because of a deadlock, or because the process was stopped for so long that the
server ended its transaction, runs again whole on another one, as long as its callers can wait.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final, NamedTuple, TypeVar, cast

import asyncpg

from gateway.db.database import unavailable
from gateway.db.postgres_server import (
    CannotConnect,
    Connecting,
    is_fault_of_statement,
    may_pass,
    worded,
)
from gateway.db.script import Script

T = TypeVar("T")

RETRY_SECONDS: Final = 0.05
# What is allowed for the network, where the server itself ends a wait.
NETWORK_SECONDS: Final = 1.0
# Where the server has no place for another connection, and the line has others.
DO_WITHOUT_SECONDS: Final = 1.0


class Waiting(NamedTuple):
    """A script whose caller waits for the answer."""

    script: Callable[[], Script[Any]]
    since: float
    answer: asyncio.Future[Any]


@dataclass
class Figures:
    """What the workers of a line have done since it was opened.

    Attributes:
        groups: transactions that were committed.
        scripts: how many were answered by them, refusals too.
        retries: transactions that had to be run again.
        begin_seconds: how long beginning them took; for `run` mostly waiting for the lock.
    """

    groups: int = 0
    scripts: int = 0
    retries: int = 0
    begin_seconds: float = 0.0


@dataclass(kw_only=True)
class Line:
    """Scripts of one kind, in the order in which they came.

    Attributes:
        begin: what a transaction of that kind begins with.
        group_limit: scripts under one commit.
        busy_seconds: how long a caller waits for a server that comes back.
        answer_seconds: how long a caller waits at all.
        connected: how many of its workers have a connection.
    """

    begin: str
    group_limit: int = 1
    reading: bool = False
    busy_seconds: float
    answer_seconds: float
    connected: int = 0
    waiting: asyncio.Queue[Waiting] = field(default_factory=asyncio.Queue)
    figures: Figures = field(default_factory=Figures)

    async def take(self) -> Waiting:
        """Return the next script whose caller has not given up yet."""
        while True:
            taken = await self.waiting.get()
            if not self._has_given_up(taken):
                return taken

    def fill(self, group: list[Waiting]) -> None:
        """Add what waits by now, up to the limit."""
        while len(group) < self.group_limit and not self.waiting.empty():
            taken = self.waiting.get_nowait()
            if not self._has_given_up(taken):
                group.append(taken)

    def _has_given_up(self, waiting: Waiting) -> bool:
        # A caller that was cancelled has not: its script is not to be interrupted.
        if time.monotonic() < waiting.since + self.answer_seconds:
            return False
        self.refuse(waiting, unavailable(None))
        return True

    def put_back(self, group: list[Waiting]) -> None:
        """Leave a group to other workers of the line."""
        for waiting in group:
            self.waiting.put_nowait(waiting)
            self.waiting.task_done()
        group.clear()

    def tell(self, waiting: Waiting, result: Any) -> None:
        """Answer with the result of the script."""
        if not waiting.answer.done():  # its caller was cancelled
            waiting.answer.set_result(result)
        self.waiting.task_done()

    def refuse(self, waiting: Waiting, error: BaseException) -> None:
        """Answer with what the script raised, or with why it could not be run."""
        if not waiting.answer.done():
            waiting.answer.set_exception(error)
        self.waiting.task_done()


class Worker:
    """One connection, and the task that uses it."""

    def __init__(self, line: Line, connecting: Connecting) -> None:
        self._line = line
        self._connecting = connecting
        self._connection: asyncpg.Connection | None = None

    async def connect(self) -> asyncpg.Connection:
        """Return the connection, a new one if need be.

        Raises:
            CannotConnect: none can be made.
        """
        if self._connection is not None and self._connection.is_closed():
            self.drop()
        if self._connection is None:
            self._connection = await self._connecting.connect()
            self._line.connected += 1
        return self._connection

    async def work(self) -> None:
        """Answer what waits until cancelled."""
        while True:
            await self._answer([await self._line.take()])

    async def _answer(self, group: list[Waiting]) -> None:
        line = self._line
        while group:
            try:
                async with asyncio.timeout(line.answer_seconds):
                    answers = await _transaction(await self.connect(), line, group)
            except (Exception, asyncio.CancelledError) as error:
                # Not cancelled, a task that ends so would be missed by nobody.
                if _is_cancelled():
                    raise
                await self._cope(group, error)
            else:
                for answer in answers:
                    answer()
                return

    async def _cope(self, group: list[Waiting], error: BaseException) -> None:
        """Refuse those that cannot wait; leave in the group those that are to run again."""
        self.drop()
        line = self._line
        cause = error.__cause__ if isinstance(error, _BrokenError) else error
        if isinstance(cause, CannotConnect) and cause.may_pass and line.connected:
            line.put_back(group)
            await asyncio.sleep(DO_WITHOUT_SECONDS)
            return
        late = group
        if may_pass(cause):
            line.fill(group)  # who waits behind is as late, and is not to wait for the lock as long
            patience = min(line.busy_seconds, line.answer_seconds) - RETRY_SECONDS
            late = [each for each in group if time.monotonic() > each.since + patience]
        late, group[:] = group[: len(late)], group[len(late) :]  # they came one after the other
        for waiting in late:
            line.refuse(waiting, unavailable(cause))
        if group:
            line.figures.retries += 1
            await asyncio.sleep(RETRY_SECONDS)

    def drop(self) -> None:
        """End the connection at once, whatever is under way on it."""
        if self._connection is not None:
            self._connection.terminate()
            self._connection = None
            self._line.connected -= 1


def _is_cancelled() -> bool:
    task = asyncio.current_task()
    return task is None or task.cancelling() > 0


async def _transaction(
    connection: asyncpg.Connection, line: Line, group: list[Waiting]
) -> list[Callable[[], None]]:
    """Run a group; return the answers to be given after its commit, which is done."""
    begun = time.monotonic()
    # A pooler may wait for a server, too.
    await connection.execute(line.begin, timeout=line.busy_seconds + NETWORK_SECONDS)
    line.figures.begin_seconds += time.monotonic() - begun
    line.fill(group)  # also with those that have come meanwhile
    if len(group) == 1:
        answer, kept = await _alone(connection, line, group[0])
        await _end(connection, "COMMIT" if kept else "ROLLBACK")
        answers = [answer]
    else:
        answers = []
        leave = ""
        for waiting in group:
            await connection.execute(f"{leave}SAVEPOINT script")
            answer, kept = await _alone(connection, line, waiting)
            answers.append(answer)
            leave = f"{'RELEASE' if kept else 'ROLLBACK TO'} SAVEPOINT script;"
        await _end(connection, f"{leave}COMMIT")
    line.figures.groups += 1
    line.figures.scripts += len(group)
    return answers


async def _alone(
    connection: asyncpg.Connection, line: Line, waiting: Waiting
) -> tuple[Callable[[], None], bool]:
    """Run one script; return the answer, and whether what it did is to be kept."""
    try:
        result = await drive(connection, waiting.script, reading=line.reading)
    except BaseException as error:  # its caller hears even a KeyboardInterrupt, the others go on
        if isinstance(error, _BrokenError) or _is_cancelled():
            raise
        return partial(line.refuse, waiting, error), False
    return partial(line.tell, waiting, result), True


async def drive(
    connection: asyncpg.Connection, make: Callable[[], Script[T]], *, reading: bool
) -> T:
    """Send a fresh script its rows until it returns or raises; either way it is closed."""
    script = make()
    try:
        text, args = next(script)
        while True:
            try:
                rows = await connection.fetch(worded(text), *args)
            except (Exception, asyncio.CancelledError) as error:
                if _is_cancelled():
                    raise
                if is_fault_of_statement(error, connection, reading=reading):
                    raise
                raise _BrokenError from error
            text, args = script.send(rows)
    except StopIteration as done:
        return cast("T", done.value)
    finally:
        script.close()


class _BrokenError(Exception):
    """The database could not go on with a transaction; the cause says why."""


async def _end(connection: asyncpg.Connection, commands: str) -> None:
    # The server answers COMMIT with ROLLBACK where it could not commit.
    if await connection.execute(commands) != commands.rpartition(";")[2]:
        raise _BrokenError
