"""Does every database keep each sentence of the Database protocol?"""

import asyncio
import contextlib
import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager
from functools import partial
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest
from pgbouncer_tools import pgbouncer, pooler
from postgres_tools import PostgresServer, postgres_server

from gateway.db.database import Database
from gateway.db.postgres import BOOKS_LOCK, open_postgres
from gateway.db.script import SKIP_LOCKED, Script, Sql
from gateway.db.sqlite import open_sqlite
from gateway.errors import DatabaseUnavailable

DEADLINE_SECONDS = 20.0
BUSY_SECONDS = 1.0
ANSWER_SECONDS = 5.0
CONNECTIONS = 5
POSTGRES_15 = Path("/usr/lib/postgresql/15/bin")
# One database behind each of the ways to it.
WAYS = ("sqlite", "postgres", "postgres 15", "pgbouncer")
VERBS = ("run", "run_beside")


class Implementation(NamedTuple):
    """What a test needs beyond the protocol.

    Attributes:
        rule_broken: what breaking a rule of the schema raises.
        outage: nothing can write meanwhile.
        away: it cannot be reached meanwhile; None where that cannot happen to a file.
    """

    open: Callable[[], AbstractAsyncContextManager[Database]]
    url: str
    rule_broken: type[Exception]
    write_refusal: type[Exception]
    outage: Callable[[], AbstractAsyncContextManager[None]]
    away: Callable[[], AbstractAsyncContextManager[None]] | None


class RefusedError(Exception):
    pass


HOLD_LOCK = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1], isolation_level=None)
connection.execute("BEGIN IMMEDIATE")
print("locked", flush=True)
sys.stdin.read()
"""

WRITE_UNTIL_KILLED = """
import asyncio, sys
from functools import partial
from gateway.db.opening import open_database_url
from gateway.db.script import Sql

def add(name):
    yield Sql("INSERT INTO things (id, amount) VALUES ($1, $2)", (name, 1))
    yield Sql("INSERT INTO things (id, amount) VALUES ($1, $2)", (name + " too", 1))

async def write(database, writer):
    for number in range(10**9):
        name = f"{sys.argv[2]}-{writer}-{number}"
        await getattr(database, sys.argv[3])(partial(add, name))
        print(name, flush=True)

async def main():
    async with open_database_url(sys.argv[1]) as database, asyncio.TaskGroup() as tasks:
        for writer in range(8):
            tasks.create_task(write(database, writer))

asyncio.run(main())
"""


@contextlib.asynccontextmanager
async def hold_write_lock(path: Path) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", HOLD_LOCK, str(path)),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    try:
        assert await asyncio.wait_for(process.stdout.readline(), DEADLINE_SECONDS) == b"locked\n"
        yield
    finally:
        process.kill()
        await process.communicate()


@contextlib.asynccontextmanager
async def hold_books_lock(url: str) -> AsyncIterator[None]:
    connection = await asyncpg.connect(url)
    try:
        await connection.execute(f"BEGIN; SELECT pg_advisory_xact_lock({BOOKS_LOCK})")
        await connection.execute("LOCK TABLE things")
        yield
    finally:
        await connection.close()


@contextlib.asynccontextmanager
async def stopped(server: PostgresServer) -> AsyncIterator[None]:
    await asyncio.to_thread(server.stop)
    try:
        yield
    finally:
        await asyncio.to_thread(server.start)


@pytest.fixture(scope="module")
def newest() -> Iterator[PostgresServer]:
    with postgres_server() as server:
        yield server


@pytest.fixture(scope="module")
def oldest() -> Iterator[PostgresServer]:
    if not POSTGRES_15.exists():
        pytest.skip("NOT RUN: PostgreSQL 15 is not installed")
    with pytest.MonkeyPatch.context() as environ, contextlib.ExitStack() as stack:
        environ.setenv("PGBIN", str(POSTGRES_15))
        yield stack.enter_context(postgres_server())


@pytest.fixture(scope="module")
def pooler_port(newest: PostgresServer) -> Iterator[int]:
    if pgbouncer() is None:
        pytest.skip("NOT RUN: pgbouncer is not installed")
    with pooler(newest.url()) as port:
        yield port


@pytest.fixture(params=WAYS)
def implementation(request: pytest.FixtureRequest, tmp_path: Path) -> Implementation:
    if request.param == "sqlite":
        path = tmp_path / "gateway.db"
        return Implementation(
            open=partial(open_sqlite, path, busy_seconds=BUSY_SECONDS),
            url=f"sqlite:///{path}",
            rule_broken=sqlite3.IntegrityError,
            write_refusal=sqlite3.OperationalError,
            outage=partial(hold_write_lock, path),
            away=None,
        )
    which = "oldest" if request.param == "postgres 15" else "newest"
    server: PostgresServer = request.getfixturevalue(which)
    name = f"test_{os.urandom(8).hex()}"
    url = server.make(name)
    if request.param == "pgbouncer":
        port = request.getfixturevalue("pooler_port")
        url = f"postgresql://postgres@127.0.0.1:{port}/{name}"
    return Implementation(
        open=partial(
            open_postgres,
            url,
            connections=CONNECTIONS,
            busy_seconds=BUSY_SECONDS,
            answer_seconds=ANSWER_SECONDS,
        ),
        url=url,
        rule_broken=asyncpg.CheckViolationError,
        write_refusal=asyncpg.ReadOnlySQLTransactionError,
        outage=partial(hold_books_lock, server.url(name)),
        away=partial(stopped, server),
    )


@pytest.fixture(params=VERBS)
def verb(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
async def database(implementation: Implementation) -> AsyncIterator[Database]:
    async with implementation.open() as opened:
        await opened.run(create)
        yield opened


def create() -> Script[None]:
    yield Sql(
        "CREATE TABLE things (id TEXT PRIMARY KEY, amount BIGINT NOT NULL CHECK (amount >= 0))"
    )


def add(name: str, amount: int = 1) -> Script[str]:
    rows = yield Sql(
        "INSERT INTO things (id, amount) VALUES ($1, $2) ON CONFLICT DO NOTHING RETURNING id",
        (name, amount),
    )
    return "added" if rows else "there already"


def add_and_refuse(name: str) -> Script[None]:
    yield from add(name)
    raise RefusedError(name)


def amounts() -> Script[dict[str, int]]:
    rows = yield Sql("SELECT id, amount FROM things ORDER BY id")
    return {row["id"]: row["amount"] for row in rows}


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await condition():
            pass


async def test_run_is_atomic_the_statements_of_a_script_are_all_done_or_none_is(
    database: Database, implementation: Implementation, verb: str
) -> None:
    run = getattr(database, verb)

    def add_three_but_the_last_breaks_a_rule() -> Script[None]:
        yield from add("one")
        yield from add("two")
        yield from add("three", -1)

    with pytest.raises(implementation.rule_broken):
        await run(add_three_but_the_last_breaks_a_rule)
    assert await database.read(amounts) == {}

    def add_two() -> Script[str]:
        yield from add("one")
        return (yield from add("two"))

    assert await run(add_two) == "added"
    async with implementation.open() as other:
        assert await other.read(amounts) == {"one": 1, "two": 1}


@pytest.mark.parametrize("crash", range(2))
async def test_run_is_durable_on_return_what_a_script_wrote_is_there_after_a_crash_of_process(
    database: Database, implementation: Implementation, verb: str, crash: int
) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", WRITE_UNTIL_KILLED, implementation.url, str(crash), verb),
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    async with asyncio.timeout(DEADLINE_SECONDS):
        answered = [await process.stdout.readline() for _ in range(20 + 100 * crash)]
        process.send_signal(signal.SIGKILL)
        answered += (await process.stdout.read()).splitlines(keepends=True)
        assert await process.wait() == -signal.SIGKILL

    names = {line.decode().strip() for line in answered if line.endswith(b"\n")}
    found = await database.run(amounts)
    assert names
    assert names <= found.keys()
    halves = {name.removesuffix(" too") for name in found}
    assert found.keys() == halves | {f"{name} too" for name in halves}


async def test_a_refusal_raised_by_a_script_undoes_that_script_alone_never_another_beside_it(
    database: Database, verb: str
) -> None:
    scripts: list[Callable[[], Script[str | None]]] = [partial(add, f"{n:02}") for n in range(50)]
    scripts.insert(25, partial(add_and_refuse, "refused"))
    answers = await asyncio.gather(*map(getattr(database, verb), scripts), return_exceptions=True)
    assert isinstance(answers.pop(25), RefusedError)
    assert answers == ["added"] * 50
    assert await database.read(amounts) == {f"{n:02}": 1 for n in range(50)}


async def test_a_result_or_a_refusal_is_answered_only_after_the_commit_that_covers_it(
    database: Database, implementation: Implementation
) -> None:
    def refuse_if_there(name: str) -> Script[None]:
        if name in (yield from amounts()):
            raise RefusedError(name)

    async def see(name: str, other: Database) -> None:
        assert await database.run(partial(add, name)) == "added"
        assert name in await other.read(amounts)

    async def hear_refusal(name: str, other: Database) -> bool:
        try:
            await database.run(partial(refuse_if_there, name))
        except RefusedError:
            assert name in await other.read(amounts)
            return True
        return False

    async with implementation.open() as other:
        for number in range(20):
            name = f"{number}"
            _, refused, _ = await asyncio.gather(
                see(name, other), hear_refusal(name, other), hear_refusal(name, other)
            )
            assert refused or await hear_refusal(name, other)


async def test_scripts_are_serializable_each_sees_the_effects_of_whole_scripts_only(
    database: Database, implementation: Implementation
) -> None:
    def increment() -> Script[int]:
        before = (yield from amounts())["counter"]
        yield Sql("UPDATE things SET amount = $1 WHERE id = 'counter'", (before + 1,))
        return before

    await database.run(partial(add, "counter", 0))
    async with implementation.open() as other:
        befores = await asyncio.gather(
            *(each.run(increment) for _ in range(50) for each in (database, other))
        )
    assert sorted(befores) == list(range(100))


async def test_200_racing_holds_admit_exactly_what_fits(
    database: Database, implementation: Implementation
) -> None:
    def hold(number: int) -> Script[bool]:
        yield from add(f"hold {number}", 9)
        taken = yield Sql(
            "UPDATE things SET amount = amount - $1 "
            "WHERE id IN ('day', 'total') AND amount >= $1 RETURNING id",
            (9,),
        )
        if len(taken) != 2:
            raise RefusedError
        return True

    await database.run(partial(add, "day", 100))
    await database.run(partial(add, "total", 1_000))
    async with implementation.open() as other:
        answers = await asyncio.gather(
            *((database, other)[n % 2].run(partial(hold, n)) for n in range(200)),
            return_exceptions=True,
        )
    assert answers.count(True) == 11
    assert sum(isinstance(answer, RefusedError) for answer in answers) == 189
    found = await database.read(amounts)
    assert (found.pop("day"), found.pop("total")) == (1, 901)
    assert len(found) == 11


@pytest.mark.parametrize("turns", [1, 2, 5])
async def test_cancelling_the_caller_of_run_does_not_interrupt_the_script(
    database: Database, verb: str, turns: int
) -> None:
    def add_pair(name: str) -> Script[None]:
        yield from add(name)
        yield from add(f"{name} too")

    async with asyncio.TaskGroup() as tasks:
        callers = [
            tasks.create_task(getattr(database, verb)(partial(add_pair, f"{number}")))
            for number in range(50)
        ]
        for _ in range(turns):
            await asyncio.sleep(0)  # one turn of the loop: every caller has called
        for caller in callers:
            caller.cancel()

    async def all_there() -> bool:
        return len(await database.read(amounts)) == 100

    await eventually(all_there)
    assert await database.run(partial(add, "after")) == "added"


async def test_read_sees_one_consistent_state_and_everything_committed_before_it_was_called(
    database: Database,
) -> None:
    def move(number: int) -> Script[None]:
        for name, sign in (("a", -1), ("b", 1)):
            yield Sql("UPDATE things SET amount = amount + $1 WHERE id = $2", (sign, name))
        yield from add(f"move {number}")

    def balances() -> Script[tuple[int, int, int]]:
        (a,) = (yield Sql("SELECT amount FROM things WHERE id = 'a'"))[0]
        (b,) = (yield Sql("SELECT amount FROM things WHERE id = 'b'"))[0]
        (moves,) = (yield Sql("SELECT COUNT(*) FROM things WHERE id LIKE 'move %'"))[0]
        return a, b, moves

    async def move_and_look(number: int) -> None:
        await database.run(partial(move, number))
        a, b, moves = await database.read(balances)
        assert (a, b) == (100 - moves, moves)
        assert f"move {number}" in await database.read(amounts)

    await database.run(partial(add, "a", 100))
    await database.run(partial(add, "b", 0))
    await asyncio.gather(*map(move_and_look, range(100)))


async def test_read_refuses_to_write(database: Database, implementation: Implementation) -> None:
    answers = await asyncio.gather(
        database.read(amounts),
        database.read(partial(add, "written")),
        database.read(amounts),
        return_exceptions=True,
    )
    assert isinstance(answers[1], implementation.write_refusal)
    assert (answers[0], answers[2]) == ({}, {})
    assert await database.run(amounts) == {}


async def test_when_the_database_cannot_write_run_raises_database_unavailable_within_a_bounded_time(
    database: Database, implementation: Implementation, verb: str
) -> None:
    run = getattr(database, verb)
    async with implementation.outage():
        begin = time.monotonic()
        answers = await asyncio.gather(
            *(run(partial(add, f"{number}")) for number in range(3)),
            run(partial(add_and_refuse, "refused")),
            return_exceptions=True,
        )
        assert time.monotonic() - begin < DEADLINE_SECONDS
        assert {type(answer) for answer in answers} == {DatabaseUnavailable}
    assert await run(partial(add, "and works again once it is back")) == "added"
    assert len(await database.read(amounts)) == 1


async def test_when_the_database_cannot_be_reached_run_and_read_raise_database_unavailable(
    implementation: Implementation,
) -> None:
    async with implementation.open() as closed:
        pass
    for call in (closed.run, closed.run_beside, closed.read):
        with pytest.raises(DatabaseUnavailable):
            await call(amounts)


async def test_when_the_server_is_away_all_raise_database_unavailable_and_work_once_it_is_back(
    database: Database, implementation: Implementation
) -> None:
    if implementation.away is None:
        return  # a file is where it is
    calls = (database.run, database.run_beside, database.read)
    async with implementation.away():
        begin = time.monotonic()
        answers = await asyncio.gather(
            *(call(amounts) for call in calls for _ in range(20)), return_exceptions=True
        )
        assert time.monotonic() - begin < DEADLINE_SECONDS
        assert {type(answer) for answer in answers} == {DatabaseUnavailable}

    async def works_again() -> bool:
        answers = await asyncio.gather(*(call(amounts) for call in calls), return_exceptions=True)
        return answers == [{}] * 3

    await eventually(works_again)


async def test_after_database_unavailable_whether_the_script_took_effect_is_unknown_run_it_again(
    database: Database, implementation: Implementation, verb: str
) -> None:
    run = getattr(database, verb)
    async with implementation.outage():
        with pytest.raises(DatabaseUnavailable):
            await run(partial(add, "once"))
    assert await run(partial(add, "once")) in {"added", "there already"}
    assert await run(partial(add, "once")) == "there already"
    assert await database.read(amounts) == {"once": 1}


async def test_scripts_of_run_beside_run_beside_any_others_each_statement_sees_whole_scripts_only(
    database: Database, implementation: Implementation
) -> None:
    def move(number: int) -> Script[None]:
        for name, sign in (("a", -1), ("b", 1)):
            yield Sql("UPDATE things SET amount = amount + $1 WHERE id = $2", (sign, name))
        yield from add(f"move {number}", 0)

    def total() -> Script[list[int]]:
        sums = []
        for _ in range(3):
            rows = yield Sql("SELECT CAST(SUM(amount) AS BIGINT) AS total FROM things")
            sums.append(rows[0]["total"])
        return sums

    await database.run(partial(add, "a", 200))
    await database.run(partial(add, "b", 0))
    async with implementation.open() as other:
        answers = await asyncio.gather(
            *(
                call
                for number in range(20)
                for call in (
                    database.run(partial(move, 2 * number)),
                    other.run_beside(partial(move, 2 * number + 1)),
                    database.run_beside(total),
                    other.run_beside(total),
                )
            )
        )
    assert [one for one in answers if one is not None] == [[200] * 3] * 40
    found = await database.read(amounts)
    assert (found["a"], found["b"]) == (160, 40)


async def test_a_claim_beside_others_is_had_by_one_of_those_who_want_it(
    database: Database, implementation: Implementation
) -> None:
    def claim(limit: int) -> Script[list[str]]:
        rows = yield Sql(
            "UPDATE things SET amount = amount - 1 WHERE id IN (SELECT id FROM things"
            f" WHERE amount = 1 ORDER BY id LIMIT $1{SKIP_LOCKED}) AND amount = 1 RETURNING id",
            (limit,),
        )
        return [row["id"] for row in rows]

    for number in range(200):
        await database.run(partial(add, f"{number}"))
    claimed: list[str] = []

    async def claim_all(of: Database) -> None:
        while got := await of.run_beside(partial(claim, 7)):
            claimed.extend(got)

    async with implementation.open() as other:
        await asyncio.gather(*(claim_all(of) for of in (database, other) for _ in range(4)))
    # Whoever found nothing may have passed over what another gave up.
    await claim_all(database)
    assert sorted(claimed) == sorted(str(number) for number in range(200))
