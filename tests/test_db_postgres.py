"""Does PostgreSQL keep its promises where it is special: lost connections, restarts, failover?"""

import asyncio
import contextlib
import dataclasses
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import asyncpg
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from postgres_tools import PostgresServer, postgres_server
from tcp_proxy import TcpProxy, tcp_proxy
from test_db_sqlite import Plan, RefusedError, plans, play, play_in_model

from gateway.db.database import WAITING_LIMIT, in_words
from gateway.db.postgres import (
    BOOKS_LOCK,
    GROUP_LIMIT,
    IDLE_SECONDS,
    PostgresDatabase,
    open_postgres,
)
from gateway.db.postgres_server import (
    CannotConnect,
    Connecting,
    is_fault_of_statement,
    may_pass,
)
from gateway.db.postgres_worker import NETWORK_SECONDS
from gateway.db.script import Script, Sql
from gateway.db.url import shown
from gateway.errors import DatabaseUnavailable

DEADLINE_SECONDS = 20.0
CONNECTIONS = 5
VERBS = ("run", "run_beside")
MARGIN_SECONDS = 3.0


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        yield made


@pytest.fixture
def url(server: PostgresServer) -> str:
    return server.make(f"test_{os.urandom(8).hex()}")


@pytest.fixture
async def database(url: str) -> AsyncIterator[PostgresDatabase]:
    async with opened(url) as made:
        await made.run(create)
        yield made


@pytest.fixture(params=VERBS)
def verb(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@asynccontextmanager
async def opened(url: str, **options: Any) -> AsyncIterator[PostgresDatabase]:
    async with open_postgres(url, **{"connections": CONNECTIONS, **options}) as made:
        yield made


@asynccontextmanager
async def by_hand(url: str) -> AsyncIterator[asyncpg.Connection]:
    connection = await asyncpg.connect(url)
    try:
        yield connection
    finally:
        await connection.close()


@asynccontextmanager
async def books_locked(url: str) -> AsyncIterator[None]:
    async with by_hand(url) as hand:
        await hand.execute(f"SELECT pg_advisory_lock({BOOKS_LOCK})")
        yield


async def say(url: str, text: str) -> None:
    async with by_hand(url) as hand:
        await hand.execute(text)


def create() -> Script[None]:
    yield Sql("CREATE TABLE things (id TEXT PRIMARY KEY, amount BIGINT NOT NULL)")
    yield Sql("INSERT INTO things (id, amount) VALUES ('total', 0)")


def pay(name: str, begun: list[str] | None = None) -> Script[str]:
    """Count a name in the total once, however often it is run."""
    if begun is not None:
        begun.append(name)
    rows = yield Sql(
        "INSERT INTO things (id, amount) VALUES ($1, 1) ON CONFLICT DO NOTHING RETURNING id",
        (name,),
    )
    if not rows:
        return "paid before"
    yield Sql("UPDATE things SET amount = amount + 1 WHERE id = 'total'")
    return "paid"


def refuse(name: str) -> Script[None]:
    yield from pay(name)
    raise RefusedError(name)


def names() -> Script[list[str]]:
    rows = yield Sql("SELECT id FROM things WHERE id <> 'total' ORDER BY id")
    return [row["id"] for row in rows]


def total() -> Script[int]:
    rows = yield Sql("SELECT amount FROM things WHERE id = 'total'")
    return int(rows[0]["amount"])


async def is_paid_once(database: PostgresDatabase, wanted: list[str]) -> bool:
    found = await database.read(names)
    return sorted(found) == sorted(wanted) and await database.read(total) == len(wanted)


async def eventually_works(database: PostgresDatabase) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        for call in (database.run, database.run_beside, database.read):
            while True:
                with contextlib.suppress(DatabaseUnavailable):
                    await call(total)
                    break


# --- Connections that are lost


@pytest.mark.parametrize(("at", "answer"), [("before", "paid"), ("after", "paid before")])
async def test_a_script_whose_connection_is_lost_at_commit_runs_again_and_counts_once(
    database: PostgresDatabase, url: str, verb: str, at: Any, answer: str
) -> None:
    begun: list[str] = []
    async with tcp_proxy(url) as proxy, opened(proxy.url(url)) as through:
        call = getattr(through, verb)
        assert await call(partial(pay, "first")) == "paid"
        proxy.at_commit = at
        assert await call(partial(pay, "second", begun)) == answer
        assert proxy.struck.is_set()
        assert begun == ["second", "second"]
    assert await is_paid_once(database, ["first", "second"])


@pytest.mark.parametrize("at", ["before", "after"])
async def test_a_group_whose_connection_is_lost_at_commit_runs_again_whole(
    database: PostgresDatabase, url: str, at: Any
) -> None:
    begun: list[str] = []
    wanted = [f"{number:02}" for number in range(40)]
    async with tcp_proxy(url) as proxy, opened(proxy.url(url)) as through:
        await through.run(total)
        proxy.at_commit = at
        answers = await asyncio.gather(
            *(through.run(partial(pay, name, begun)) for name in wanted),
            through.run(partial(refuse, "refused")),
            return_exceptions=True,
        )
        assert isinstance(answers.pop(), RefusedError)
        assert answers == ["paid" if at == "before" else "paid before"] * 40
        assert begun == wanted * 2
        assert through.figures.retries == 1
    assert await is_paid_once(database, wanted)


async def test_a_script_whose_connection_is_lost_in_its_middle_runs_again(
    database: PostgresDatabase, url: str, verb: str
) -> None:
    runs: list[int] = []

    def cut_once(proxy: TcpProxy) -> Script[str]:
        runs.append(1)
        answer = yield from pay("one")
        if len(runs) == 1:
            proxy.cut()
        yield Sql("SELECT 1")
        return answer

    async with tcp_proxy(url) as proxy, opened(proxy.url(url)) as through:
        assert await getattr(through, verb)(partial(cut_once, proxy)) == "paid"
    assert len(runs) == 2
    assert await is_paid_once(database, ["one"])


async def test_connections_that_were_lost_while_idle_cost_nobody_an_error(
    database: PostgresDatabase, url: str
) -> None:
    async with tcp_proxy(url) as proxy, opened(proxy.url(url)) as through:
        for number in range(3):
            name = f"{number}"
            answers = await asyncio.gather(
                through.run(partial(pay, name)), through.run_beside(total), through.read(total)
            )
            assert answers[0] == "paid"
            proxy.cut()
            await say(url, "SELECT 1")  # turns of the loop, which hears that they are lost
        assert through.figures.retries == 0
    assert await is_paid_once(database, ["0", "1", "2"])


async def test_a_connection_found_closed_is_no_fault_of_the_statement(url: str) -> None:
    connection = await Connecting(url, password="").connect()
    connection.terminate()
    with pytest.raises(asyncpg.InterfaceError) as closed:
        await connection.fetch("SELECT 1")
    assert not is_fault_of_statement(closed.value, connection, reading=False)
    assert may_pass(closed.value)


async def test_a_deadlock_beside_a_script_is_run_again(
    database: PostgresDatabase, url: str
) -> None:
    runs: list[int] = []

    def take(name: str) -> Script[None]:
        yield Sql("UPDATE things SET amount = amount + 1 WHERE id = $1", (name,))

    def take_both() -> Script[None]:
        runs.append(1)
        yield from take("a")
        yield from take("b")

    for name in ("a", "b"):
        await database.run(partial(pay, name))
    # Whoever waits first looks first, and is the one to fall.
    await say(url, f'ALTER DATABASE "{urlsplit(url).path[1:]}" SET deadlock_timeout = 500')
    async with opened(url) as fresh, by_hand(url) as hand, asyncio.TaskGroup() as tasks:
        await hand.execute("SET deadlock_timeout = '1h'; BEGIN")
        await hand.execute("UPDATE things SET amount = amount + 1 WHERE id = 'b'")
        script = tasks.create_task(fresh.run_beside(take_both))
        waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'transactionid'"
        while not await hand.fetchval(waits):
            await hand.execute("SELECT pg_stat_clear_snapshot()")
        await hand.execute("UPDATE things SET amount = amount + 1 WHERE id = 'a'")
        await hand.execute("COMMIT")
        await script
    assert len(runs) == 2

    def amounts() -> Script[list[int]]:
        rows = yield Sql("SELECT amount FROM things WHERE id IN ('a', 'b')")
        return [row["amount"] for row in rows]

    assert await database.read(amounts) == [3, 3]


@pytest.mark.parametrize("code", ["40001", "40P01", "57P01", "25P03"])
async def test_what_may_pass_is_run_again_whole(
    database: PostgresDatabase, url: str, verb: str, code: str
) -> None:
    await say(
        url,
        "CREATE SEQUENCE falls;"  # no rollback undoes what it counts
        "CREATE FUNCTION fall() RETURNS bigint LANGUAGE plpgsql AS $$ BEGIN"
        f" IF nextval('falls') = 1 THEN RAISE EXCEPTION 'falls once' USING ERRCODE = '{code}';"
        " END IF; RETURN 1; END $$",
    )

    def fall_once() -> Script[str]:
        answer = yield from pay("one")
        yield Sql("SELECT fall()")
        return answer

    call = getattr(database, verb)
    calls = [call(fall_once), call(partial(pay, "two"))]
    assert await asyncio.gather(*calls) == ["paid", "paid"]
    assert await is_paid_once(database, ["one", "two"])


async def test_a_statement_prepared_before_its_table_was_changed_is_prepared_anew(
    database: PostgresDatabase, url: str
) -> None:
    calls = (database.run, database.run_beside, database.read)
    for number, kind in enumerate(("NUMERIC", "BIGINT", "INTEGER")):
        assert await asyncio.gather(*(call(total) for call in calls)) == [number] * 3
        await say(url, f"ALTER TABLE things ALTER COLUMN amount TYPE {kind}")
        assert await asyncio.gather(*(call(total) for call in calls)) == [number] * 3
        await database.run(partial(pay, kind))


# --- A server that is away


@pytest.mark.parametrize("mode", ["fast", "immediate"])
async def test_while_the_server_is_restarted_callers_wait_and_each_counts_once(
    database: PostgresDatabase, server: PostgresServer, mode: str
) -> None:
    paid: list[str] = []
    ends = asyncio.Event()

    async def pay_on(caller: int) -> None:
        number = 0
        while not ends.is_set():
            name = f"{caller} {number}"
            call = database.run_beside if number % 4 == 3 else database.run
            assert await call(partial(pay, name)) in {"paid", "paid before"}
            paid.append(name)
            assert await database.read(total) > 0
            number += 1

    async with asyncio.TaskGroup() as tasks:
        for caller in range(8):
            tasks.create_task(pay_on(caller))
        while len(paid) < 100:
            await asyncio.sleep(0.01)
        await asyncio.to_thread(server.stop, mode)
        before = len(paid)
        await asyncio.to_thread(server.start)
        while len(paid) < before + 100:
            await asyncio.sleep(0.01)
        ends.set()
    assert await is_paid_once(database, paid)


async def test_while_the_server_is_away_for_long_callers_hear_so_in_time_and_it_works_again(
    server: PostgresServer, url: str
) -> None:
    async with opened(url, busy_seconds=0.5) as database:
        await database.run(create)
        await asyncio.to_thread(server.stop)
        try:
            begin = time.monotonic()
            answers = await asyncio.gather(
                *(call(total) for call in (database.run, database.run_beside, database.read) * 100),
                return_exceptions=True,
            )
            assert {type(answer) for answer in answers} == {DatabaseUnavailable}
            assert 0.4 < time.monotonic() - begin < MARGIN_SECONDS
            causes = {type(one.__cause__) for one in answers if isinstance(one, Exception)}
            assert causes == {CannotConnect}
        finally:
            await asyncio.to_thread(server.start)
        await eventually_works(database)


async def test_a_network_that_swallows_everything_is_waited_for_in_bounds(
    database: PostgresDatabase, url: str
) -> None:
    async with tcp_proxy(url) as proxy:
        options = {"busy_seconds": 0.5, "answer_seconds": 1.0}
        async with opened(proxy.url(url), **options) as through:
            await eventually_works(through)
            proxy.stall()
            for _ in range(2):  # on connections that were there, and on new ones
                begin = time.monotonic()
                answers = await asyncio.gather(
                    *(call(total) for call in (through.run, through.run_beside, through.read) * 9),
                    return_exceptions=True,
                )
                assert {type(answer) for answer in answers} == {DatabaseUnavailable}
                assert time.monotonic() - begin < 1.0 + MARGIN_SECONDS
            proxy.flow()
            await eventually_works(through)
            proxy.stall()
            begin = time.monotonic()
        assert time.monotonic() - begin < 1.0, "closing waits for nobody"
    assert await database.run(partial(pay, "one")) == "paid"


async def test_a_connection_that_nothing_comes_from_is_given_up_for_a_new_one(
    database: PostgresDatabase, url: str
) -> None:
    def forget(proxy: TcpProxy, name: str) -> Script[None]:
        yield from pay(name)
        proxy.forget()
        yield Sql("SELECT 1")

    async with tcp_proxy(url) as proxy:
        async with opened(proxy.url(url), answer_seconds=1.0) as through:
            for call in (through.run, through.run_beside, through.read):
                assert await call(total) == 0
            for call in (through.run, through.run_beside):
                with pytest.raises(DatabaseUnavailable):
                    await call(partial(forget, proxy, "forgotten"))
            await eventually_works(through)  # once the server has ended the one that fell dumb
        # A beginning is answered within the time for locks, and not only within the whole.
        async with opened(proxy.url(url), busy_seconds=0.3) as through:
            assert await through.run(total) == 0
            proxy.forget()
            begin = time.monotonic()
            calls = [through.run(partial(pay, f"{n}")) for n in range(20)]
            answers = await asyncio.gather(*calls, return_exceptions=True)
            assert {type(answer) for answer in answers} == {DatabaseUnavailable}
            assert time.monotonic() - begin < 0.3 + NETWORK_SECONDS + MARGIN_SECONDS / 2
            assert await through.run(partial(pay, "one")) == "paid"
    assert await is_paid_once(database, ["one"])


async def test_a_read_that_was_given_up_is_ended_at_once_and_the_next_is_served(
    url: str,
) -> None:
    def sleep() -> Script[None]:
        yield Sql("SELECT CAST(pg_sleep(60) AS TEXT)")

    async with opened(url, answer_seconds=0.5) as short:
        await short.run(create)
        begin = time.monotonic()
        answers = await asyncio.gather(
            *(short.read(sleep) for _ in range(3)), return_exceptions=True
        )
        assert {type(answer) for answer in answers} == {DatabaseUnavailable}
        assert time.monotonic() - begin < MARGIN_SECONDS
        await eventually_works(short)

    async def ended() -> bool:
        async with by_hand(url) as hand:
            sleeping = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%pg_sleep(60)%'"
            return not await hand.fetchval(f"{sleeping} AND pid <> pg_backend_pid()")

    async with asyncio.timeout(DEADLINE_SECONDS):
        while not await ended():
            pass


async def test_a_script_whose_caller_gave_up_before_it_began_is_not_begun(
    database: PostgresDatabase, url: str
) -> None:
    begun: list[str] = []
    async with opened(url, answer_seconds=0.3) as short:
        async with books_locked(url):
            answers = await asyncio.gather(
                *(short.run(partial(pay, f"{n}", begun)) for n in range(200)),
                return_exceptions=True,
            )
            assert {type(answer) for answer in answers} == {DatabaseUnavailable}
        assert await short.run(partial(pay, "after", begun)) == "paid"
    assert begun == ["after"]
    assert await is_paid_once(database, ["after"])


async def test_who_waits_for_the_lock_in_vain_hears_so_with_all_others_who_wait(
    database: PostgresDatabase, url: str
) -> None:
    async with opened(url, busy_seconds=0.4) as short, books_locked(url):
        begin = time.monotonic()
        answers = await asyncio.gather(
            *(short.run(total) for _ in range(50)), return_exceptions=True
        )
        assert {type(answer) for answer in answers} == {DatabaseUnavailable}
        assert time.monotonic() - begin < MARGIN_SECONDS
    assert await database.run(total) == 0


async def test_who_waits_for_the_lock_in_vain_leaves_the_lock_to_who_came_later(
    database: PostgresDatabase, url: str
) -> None:
    begin = time.monotonic()
    async with opened(url, busy_seconds=0.8) as short, asyncio.TaskGroup() as tasks:
        async with books_locked(url):
            early = tasks.create_task(hear_unavailable(short))
            while time.monotonic() < begin + 0.5:
                await asyncio.sleep(0)
            later = tasks.create_task(short.run(partial(pay, "later")))
            await early
            assert not later.done()
        assert await later == "paid"
    assert await is_paid_once(database, ["later"])


async def hear_unavailable(database: PostgresDatabase) -> None:
    with pytest.raises(DatabaseUnavailable):
        await database.run(partial(pay, "early"))


@pytest.mark.parametrize("connections", [3, 4, 10])
async def test_there_are_never_more_connections_than_allowed(
    database: PostgresDatabase, url: str, connections: int
) -> None:
    def count() -> Script[int]:
        rows = yield Sql(
            "SELECT COUNT(*) AS number FROM pg_stat_activity WHERE application_name = 'counted'"
        )
        return int(rows[0]["number"])

    async with opened(f"{url}?application_name=counted", connections=connections) as counted:
        calls = (counted.run, counted.run_beside, counted.read)
        counts = await asyncio.gather(*(call(count) for call in calls * 50))
        assert max(counts) == connections
        assert await counted.read(count) == connections
    assert await database.run(total) == 0


async def test_where_the_server_has_no_place_for_all_connections_those_there_are_serve(
    database: PostgresDatabase, url: str
) -> None:
    await say(url, "CREATE ROLE crowded LOGIN CONNECTION LIMIT 3; GRANT ALL ON things TO crowded")
    crowded = url.replace("postgres@", "crowded@")
    async with opened(crowded, connections=9) as few:
        for call in (few.run, few.run_beside, few.read):
            assert await call(total) == 0
        begin = time.monotonic()
        for _ in range(3):
            calls = (few.run, few.run_beside, few.read) * 30
            assert await asyncio.gather(*(call(total) for call in calls)) == [0] * 90
        assert time.monotonic() - begin < MARGIN_SECONDS
        with pytest.raises(DatabaseUnavailable) as refused:
            async with opened(crowded):
                pass
    assert "too many connections" in str(refused.value.__cause__)
    assert await database.run(total) == 0


# --- A process that is stopped


STOPS_IN_ITS_MIDDLE = """
import asyncio, os, signal, sys
import uvloop
from functools import partial
from gateway.db.postgres import open_postgres
from gateway.db.script import Sql
sys.path.insert(0, sys.argv[2])
from test_db_postgres import pay

stops = [signal.SIGSTOP]

def stop(name):
    answer = yield from pay(name)
    while stops:
        os.kill(os.getpid(), stops.pop())
    return answer

async def main():
    async with open_postgres(sys.argv[1], connections=3) as database:
        answers = await asyncio.gather(
            *(database.run(partial(pay, f"before {n}")) for n in range(10)),
            database.run(partial(stop, "stopped")),
            *(database.run(partial(pay, f"after {n}")) for n in range(10)),
        )
        print(sorted(set(answers)), database.figures.retries)

uvloop.run(main())
"""


async def test_a_process_stopped_in_the_middle_of_a_group_holds_the_others_up_for_a_bounded_time(
    database: PostgresDatabase, url: str
) -> None:
    process = subprocess.Popen(  # noqa: ASYNC220 - asyncio would take the news that it was stopped
        [sys.executable, "-c", STOPS_IN_ITS_MIDDLE, url, Path(__file__).parent],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        # `wait` tells of one that was stopped, too.
        _, status = await asyncio.to_thread(os.waitpid, process.pid, os.WUNTRACED)
        assert os.WIFSTOPPED(status)
        begin = time.monotonic()
        assert await database.run(partial(pay, "other")) == "paid"
        assert time.monotonic() - begin < IDLE_SECONDS + MARGIN_SECONDS
        assert await is_paid_once(database, ["other"])
        process.send_signal(signal.SIGCONT)
        output, _ = await asyncio.to_thread(process.communicate, None, DEADLINE_SECONDS)
    finally:
        process.kill()
        process.wait()
    assert output == "['paid'] 1\n"
    paid = [f"{when} {n}" for when in ("before", "after") for n in range(10)]
    assert await is_paid_once(database, ["other", "stopped", *paid])


# --- Scripts that go wrong


async def test_scripts_that_wait_together_share_one_commit_also_with_a_refusal(
    database: PostgresDatabase,
) -> None:
    groups = database.figures.groups
    wanted = [f"{number:02}" for number in range(GROUP_LIMIT - 1)]
    answers = await asyncio.gather(
        *(database.run(partial(pay, name)) for name in wanted[:30]),
        database.run(partial(refuse, "refused")),
        *(database.run(partial(pay, name)) for name in wanted[30:]),
        return_exceptions=True,
    )
    assert isinstance(answers.pop(30), RefusedError)
    assert answers == ["paid"] * (GROUP_LIMIT - 1)
    assert database.figures.groups == groups + 1
    assert await is_paid_once(database, wanted)
    await asyncio.gather(*(database.run(total) for _ in range(GROUP_LIMIT + 1)))
    assert database.figures.groups == groups + 3


async def test_who_comes_while_the_lock_is_waited_for_is_in_the_same_group(
    database: PostgresDatabase, url: str
) -> None:
    groups = database.figures.groups
    async with asyncio.TaskGroup() as tasks:  # noqa: SIM117 - ends after the lock
        async with books_locked(url):
            first = tasks.create_task(database.run(partial(pay, "first")))
            async with by_hand(url) as hand:
                waits = "SELECT count(*) FROM pg_stat_activity WHERE wait_event = 'advisory'"
                while not await hand.fetchval(waits):
                    pass
            later = [tasks.create_task(database.run(partial(pay, f"{n}"))) for n in range(20)]
            await asyncio.sleep(0)  # one turn of the loop: every caller has called
            assert not first.done()
    assert [task.result() for task in later] == ["paid"] * 20
    assert database.figures.groups == groups + 1


@pytest.mark.parametrize(
    "error",
    [
        *(KeyboardInterrupt, SystemExit, GeneratorExit, StopIteration, asyncio.CancelledError),
        *(TimeoutError, ValueError),
    ],
)
@pytest.mark.parametrize("early", [False, True])
async def test_whatever_a_script_raises_its_caller_hears_it_and_the_others_go_on(
    database: PostgresDatabase, verb: str, error: type[BaseException], *, early: bool
) -> None:
    closed = []

    def fail() -> Script[None]:
        try:
            yield from pay("failed")
            raise error
        finally:
            closed.append(True)

    def fail_early() -> Script[None]:
        closed.append(True)
        raise error

    async def hear() -> None:
        with pytest.raises(RuntimeError if error is StopIteration else error):  # PEP 479
            await getattr(database, verb)(fail_early if early else fail)

    await asyncio.gather(database.run(partial(pay, "before")), hear())
    assert await database.run_beside(partial(pay, "after")) == "paid"
    assert await is_paid_once(database, ["before", "after"])
    assert closed == [True]


@pytest.mark.parametrize(
    "statement",
    [
        Sql("INSERT INTO things (id, amount) VALUES ('there', 1)"),
        Sql("INSERT INTO things (id) VALUES ('no amount')"),
        Sql("SELECT nothing FROM nowhere"),
        Sql("not SQL"),
        Sql("SELECT amount FROM things WHERE id = $1"),
        Sql("SELECT amount FROM things WHERE id = $1", ("one", "too many")),
        Sql("SELECT amount FROM things WHERE amount = $1", (1 << 70,)),
        Sql("SELECT amount FROM things WHERE amount = $1", ("no number",)),
        Sql("SELECT amount FROM things WHERE id = $1", ("\0",)),
        Sql("SELECT amount FROM things WHERE id = $1", ("\ud800",)),
        Sql("SELECT 1 / (amount - amount) FROM things"),
    ],
)
async def test_a_wrong_statement_is_the_fault_of_its_script_alone(
    database: PostgresDatabase, statement: Sql
) -> None:
    ended = []

    def wrong() -> Script[None]:
        yield from pay("wrong")
        try:
            yield statement
        finally:
            ended.append(True)

    def wrong_read() -> Script[None]:
        yield statement

    await database.run(partial(pay, "there"))
    answers = await asyncio.gather(
        database.run(partial(pay, "one")),
        database.run(wrong),
        database.run(partial(pay, "two")),
        database.read(wrong_read),
        database.read(total),
        return_exceptions=True,
    )
    (beside,) = await asyncio.gather(database.run_beside(wrong), return_exceptions=True)
    for answer in (answers[1], answers[3], beside):
        assert isinstance(answer, asyncpg.PostgresError | asyncpg.InterfaceError)
    assert (answers[0], answers[2], ended) == ("paid", "paid", [True, True])
    assert isinstance(answers[4], int)
    assert database.figures.retries == 0
    assert await is_paid_once(database, ["one", "there", "two"])


async def test_after_a_commit_that_failed_the_next_is_served(database: PostgresDatabase) -> None:
    def create_child() -> Script[None]:
        yield Sql(
            "CREATE TABLE children "
            "(parent TEXT REFERENCES things (id) DEFERRABLE INITIALLY DEFERRED)"
        )

    def add_orphan() -> Script[None]:
        yield Sql("INSERT INTO children (parent) VALUES ('nobody')")

    await database.run(create_child)
    for call in (database.run, database.run_beside):
        with pytest.raises(DatabaseUnavailable):
            await call(add_orphan)
        assert await call(total) == 0


async def test_a_script_that_asks_nothing_returns(database: PostgresDatabase) -> None:
    def ask_nothing() -> Script[int]:
        yield from ()
        return 7

    for call in (database.run, database.run_beside, database.read):
        assert await call(ask_nothing) == 7


async def play_in_groups(url: str, groups: list[list[Plan]]) -> list[Any]:
    answers: list[Any] = []
    async with opened(url, connections=3) as database:
        for group in groups:
            runs = (database.run(partial(play, plan)) for plan in group)
            answers += await asyncio.gather(*runs, return_exceptions=True)
    return [answer if isinstance(answer, dict) else type(answer) for answer in answers]


# What SQLite calls otherwise.
CALLED = {
    "IntegrityError": asyncpg.NotNullViolationError,
    "OperationalError": asyncpg.PostgresSyntaxError,
}


@settings(max_examples=40, deadline=None, suppress_health_check=list(HealthCheck))
@given(groups=st.lists(st.lists(plans, min_size=1, max_size=12), max_size=4))
def test_scripts_in_groups_do_what_they_do_one_after_the_other(
    url: str, groups: list[list[Plan]]
) -> None:
    table = "CREATE TABLE things (id TEXT PRIMARY KEY, amount BIGINT NOT NULL)"
    asyncio.run(say(url, f"DROP TABLE IF EXISTS things; {table}"))
    model: dict[str, int] = {}
    expected: list[Any] = [play_in_model(model, plan) for group in groups for plan in group]
    wanted = [one if isinstance(one, dict) else CALLED.get(one.__name__, one) for one in expected]
    assert asyncio.run(play_in_groups(url, groups)) == wanted


# --- What is queued


async def test_a_long_read_does_not_hold_up_the_others(database: PostgresDatabase) -> None:
    def sleep() -> Script[None]:
        yield Sql("SELECT CAST(pg_sleep(1) AS TEXT)")

    async with asyncio.TaskGroup() as tasks:
        reading = tasks.create_task(database.read(sleep))
        await asyncio.sleep(0)
        for _ in range(3):
            assert await asyncio.gather(*(database.read(total) for _ in range(20))) == [0] * 20
        assert not reading.done()


async def test_neither_reads_nor_scripts_beside_wait_for_the_books(
    database: PostgresDatabase, url: str
) -> None:
    async with asyncio.TaskGroup() as tasks:  # noqa: SIM117 - ends after the lock
        async with books_locked(url):
            waiting = tasks.create_task(database.run(partial(pay, "waited")))
            assert await database.run_beside(partial(pay, "beside")) == "paid"
            assert await database.read(names) == ["beside"]
            assert not waiting.done()
    assert waiting.result() == "paid"


async def test_a_full_queue_refuses_at_once(database: PostgresDatabase, url: str) -> None:
    async with books_locked(url), asyncio.TaskGroup() as tasks:
        callers = [tasks.create_task(database.run(total))]
        await asyncio.sleep(0)  # one turn of the loop: the caller has called
        while database.books.waiting.qsize():
            await asyncio.sleep(0)
        callers += [tasks.create_task(database.run(total)) for _ in range(WAITING_LIMIT)]
        await asyncio.sleep(0)  # one turn of the loop: every caller has called
        with pytest.raises(DatabaseUnavailable):
            await database.run(total)
        for caller in callers:
            caller.cancel()


async def test_closing_waits_for_what_is_queued(url: str) -> None:
    async with asyncio.TaskGroup() as tasks, opened(url) as database:
        await database.run(create)
        waiting = [tasks.create_task(database.run(partial(pay, f"{n}"))) for n in range(300)]
        waiting += [tasks.create_task(database.run_beside(partial(pay, f"b{n}"))) for n in range(9)]
        await asyncio.sleep(0)  # one turn of the loop: every caller has called
    assert [task.result() for task in waiting] == ["paid"] * 309
    async with opened(url) as database:
        assert await database.read(total) == 309


async def test_an_error_in_the_block_closes_too_and_comes_out_as_it_is(url: str) -> None:
    with pytest.raises(RefusedError):
        async with opened(url) as database:
            raise RefusedError
    with pytest.raises(DatabaseUnavailable):
        await database.run(create)


# --- Servers that are set up otherwise


@pytest.mark.parametrize(
    ("setting", "kept"), [("off", "on"), ("local", "local"), ("remote_apply", "remote_apply")]
)
async def test_what_is_acknowledged_is_durable_whatever_synchronous_commit_is(
    url: str, verb: str, setting: str, kept: str
) -> None:
    def look() -> Script[str]:
        rows = yield Sql("SELECT current_setting('synchronous_commit') AS value")
        return str(rows[0]["value"])

    name = urlsplit(url).path[1:]
    await say(url, f'ALTER DATABASE "{name}" SET synchronous_commit = {setting}')
    async with opened(url) as database:
        assert await database.read(look) == setting
        assert await getattr(database, verb)(look) == kept


async def test_a_crash_of_the_server_loses_nothing_even_with_synchronous_commit_off(
    server: PostgresServer, url: str
) -> None:
    await say(url, f'ALTER DATABASE "{urlsplit(url).path[1:]}" SET synchronous_commit = off')
    async with opened(url) as database:
        await database.run(create)
        wanted = [f"{number}" for number in range(20)]
        for name in wanted:
            assert await database.run(partial(pay, name)) == "paid"
        server.stop("immediate")
        server.start()
        assert await is_paid_once(database, wanted)


async def test_a_database_that_is_read_only_is_read_and_not_written(
    database: PostgresDatabase, url: str
) -> None:
    name = urlsplit(url).path[1:]
    await say(url, f'ALTER DATABASE "{name}" SET default_transaction_read_only = on')
    async with opened(url, busy_seconds=0.3) as still:
        assert await still.read(total) == 0
        for call in (still.run, still.run_beside):
            with pytest.raises(DatabaseUnavailable) as refused:
                await call(partial(pay, "one"))
            assert isinstance(refused.value.__cause__, asyncpg.ReadOnlySQLTransactionError)
        async with by_hand(url) as hand:
            await hand.execute("SET default_transaction_read_only = off")
            await hand.execute(f'ALTER DATABASE "{name}" RESET default_transaction_read_only')
        assert await still.run(partial(pay, "one")) == "paid"
    assert await is_paid_once(database, ["one"])


async def test_another_encoding_is_refused(server: PostgresServer) -> None:
    await say(
        server.url(),
        "CREATE DATABASE latin TEMPLATE template0 ENCODING 'LATIN1' LC_COLLATE 'C' LC_CTYPE 'C'",
    )
    with pytest.raises(DatabaseUnavailable) as refused:
        async with opened(server.url("latin")):
            pass
    assert str(refused.value.__cause__).endswith("the database has the encoding LATIN1, not UTF8")


async def test_text_is_compared_byte_by_byte_whatever_the_locale_of_the_database_is(
    database: PostgresDatabase, url: str
) -> None:
    def alter() -> Script[None]:
        yield Sql("ALTER TABLE things ADD COLUMN note TEXT")

    await database.run(alter)
    async with by_hand(url) as hand:
        collations = await hand.fetch(
            "SELECT attname, collname FROM pg_attribute JOIN pg_collation c ON c.oid = attcollation"
            " WHERE attrelid = 'things'::regclass"
        )
    assert {one["attname"]: one["collname"] for one in collations} == {"id": "C", "note": "C"}


async def test_a_unix_socket_will_do(server: PostgresServer, url: str) -> None:
    where = f"host={server.folder}&port={server.port}&user=postgres"
    async with opened(f"postgresql:///{urlsplit(url).path[1:]}?{where}") as database:
        await database.run(create)
        assert await database.read(total) == 0


async def test_a_peer_that_vanished_is_given_up_by_the_system(url: str) -> None:
    connection = await Connecting(url, password="").connect()
    try:
        transport: asyncio.Transport = connection._transport  # type: ignore[attr-defined]
        sock = transport.get_extra_info("socket")
        assert sock.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE) == 1
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 2
        assert sock.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 6_000
    finally:
        await connection.close()


@pytest.fixture
def standby(server: PostgresServer) -> Iterator[PostgresServer]:
    folder = server.folder / "standby"
    folder.mkdir()
    if server.owner:
        os.chown(folder, server.owner["user"], server.owner["group"])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    made = dataclasses.replace(server, folder=folder, port=port)
    server.run(
        *("pg_basebackup", "-D", f"{folder}/data", "-d", server.url()),
        *("--write-recovery-conf", "--checkpoint=fast", "--no-sync"),
    )
    made.start()
    try:
        yield made
    finally:
        made.stop("immediate")


def at_both(url: str, first: int, second: int) -> str:
    name = urlsplit(url).path[1:]
    return f"postgresql://postgres@127.0.0.1:{first},127.0.0.1:{second}/{name}"


async def test_a_standby_is_refused_and_of_several_hosts_the_primary_is_taken_after_a_failover_too(
    server: PostgresServer, url: str, standby: PostgresServer
) -> None:
    with pytest.raises(DatabaseUnavailable) as refused:
        async with opened(standby.url(urlsplit(url).path[1:])):
            pass
    assert str(refused.value.__cause__).endswith("it is a standby, which takes no writes")
    async with opened(at_both(url, standby.port, server.port)) as database:
        await database.run(create)
        assert await database.run(partial(pay, "one")) == "paid"
        await asyncio.to_thread(server.stop)
        try:
            waiting = [
                asyncio.to_thread(
                    standby.run, "pg_ctl", "promote", "-w", "-D", f"{standby.folder}/data"
                ),
                database.run(partial(pay, "two")),
                database.run_beside(partial(pay, "three")),
                database.read(total),
            ]
            _, *answers = await asyncio.gather(*waiting)
            assert answers[:2] == ["paid", "paid"]
            assert await is_paid_once(database, ["one", "two", "three"])
        finally:
            await asyncio.to_thread(server.start)


async def test_a_first_host_that_has_vanished_does_not_keep_from_the_second(url: str) -> None:
    async with tcp_proxy(url) as proxy:
        proxy.stall()
        port = urlsplit(url).port
        assert port is not None
        both = at_both(url, proxy.port, port)
        connecting = Connecting(both, password="", connect_seconds=0.5)
        for _ in range(3):
            connection = await connecting.connect()
            assert await connection.fetchval("SELECT 1") == 1
            await connection.close()
        assert proxy.accepted == 1, "the one that answered is asked first"


# --- What a person is told


PASSWORD = "s3cret-of-ours"


@pytest.fixture(scope="module")
def guarded(server: PostgresServer) -> str:
    """A server that asks for a password."""
    file = server.folder / "data" / "pg_hba.conf"
    file.write_text(f"host all guarded 127.0.0.1/32 scram-sha-256\n{file.read_text()}")
    server.run("psql", "-qXc", f"CREATE ROLE guarded LOGIN PASSWORD '{PASSWORD}'", server.url())
    server.run("pg_ctl", "reload", "-D", f"{server.folder}/data")
    return f"postgresql://guarded@127.0.0.1:{server.port}/postgres"


def who() -> Script[str]:
    rows = yield Sql("SELECT CAST(current_user AS TEXT) AS name")
    return str(rows[0]["name"])


async def test_a_password_is_taken_from_the_url_first_then_from_its_setting(guarded: str) -> None:
    inside = guarded.replace("guarded@", f"guarded:{PASSWORD}@")
    for url, password in ((guarded, PASSWORD), (inside, ""), (inside, "s3cret-of-others")):
        async with opened(url, password=password) as database:
            assert await database.read(who) == "guarded"


async def test_what_is_wrong_is_said_in_words_and_never_with_a_password(
    server: PostgresServer, guarded: str
) -> None:
    port = server.port
    wrong = guarded.replace("guarded@", "guarded:s3cret-and-wrong@")
    cases = {
        wrong: 'password authentication failed for user "guarded"',
        guarded: "password",
        server.url("nowhere"): 'database "nowhere" does not exist',
        "postgresql://u:s3cret@127.0.0.1:1/db": "('127.0.0.1', 1)",
        "postgresql://u:s3cret@nowhere.invalid/db": "no such host",
        f"postgresql://u@127.0.0.1:{port}/db?sslmode=require": "SSL",
        f"postgresql://u@127.0.0.1:{port}/db?sslmode=never": "`sslmode`",
        f"postgresql://u@127.0.0.1:{port}/db?sslmode=verify-full&sslrootcert=/no": "No such file",
        f"postgresql://postgres@127.0.0.1:{port}/postgres?nonsense=1": 'parameter "nonsense"',
        "postgresql://u:s3cret@127.0.0.1:1,127.0.0.1:2/db": "1); ",
        "postgresql:///db?host=/nowhere": "No such file",
    }
    for url, expected in cases.items():
        with pytest.raises(DatabaseUnavailable) as refused:
            async with opened(url):
                pass
        for said in (in_words(refused.value), repr(refused.value.__cause__)):
            assert "s3cret" not in said
            assert f"cannot connect to {shown(url)}: " in said
            assert expected in said.replace("\\", "")


def test_a_person_at_a_shell_hears_it_too(guarded: str) -> None:
    url = guarded.replace("guarded@", "guarded:s3cret-and-wrong@")
    done = subprocess.run(
        [sys.executable, "-m", "gateway", "keys", "list", "--database-url", url],
        capture_output=True,
        text=True,
        check=False,
    )
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr == (
        "Error: The database is not available at the moment: cannot connect to"
        f' {guarded}: password authentication failed for user "guarded"\n'
    )
