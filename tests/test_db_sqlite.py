"""Does SQLite keep its promises where it is special: group commits, locks, full disks, closing?"""

import asyncio
import sqlite3
import stat
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Literal, NamedTuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gateway.db.database import WAITING_LIMIT
from gateway.db.script import Script, Sql
from gateway.db.sqlite import (
    GROUP_LIMIT,
    PARAMETER_LIMIT,
    SqliteDatabase,
    open_sqlite,
)
from gateway.errors import DatabaseUnavailable

DEADLINE_SECONDS = 20.0


class RefusedError(Exception):
    pass


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "folder" / "gateway.db"


@pytest.fixture
async def database(path: Path) -> AsyncIterator[SqliteDatabase]:
    async with open_sqlite(path) as database:
        await database.run(create)
        yield database


def create() -> Script[None]:
    yield Sql("CREATE TABLE things (id TEXT PRIMARY KEY, amount BIGINT NOT NULL)")


def add(name: str) -> Script[str]:
    yield Sql("INSERT INTO things (id, amount) VALUES ($1, 1)", (name,))
    return name


def refuse() -> Script[None]:
    yield from add("refused")
    raise RefusedError


def names() -> Script[list[str]]:
    rows = yield Sql("SELECT id FROM things ORDER BY id")
    return [row["id"] for row in rows]


@contextmanager
def held_up() -> Iterator[tuple[threading.Event, Callable[[], Script[None]]]]:
    """Yield an event, set once the script is running, and the script, which ends with the block."""
    running, go_on = threading.Event(), threading.Event()

    def script() -> Script[None]:
        running.set()
        assert go_on.wait(DEADLINE_SECONDS)
        yield Sql("SELECT 1")

    try:
        yield running, script
    finally:
        go_on.set()


async def count_commits(database: SqliteDatabase, scripts: int) -> int:
    """Return how many COMMITs answer so many scripts that wait together behind another one."""
    statements: list[str] = []
    await database.writer.connection.set_trace_callback(statements.append)
    async with asyncio.TaskGroup() as tasks:
        with held_up() as (running, script):
            tasks.create_task(database.run(script))
            assert await asyncio.to_thread(running.wait, DEADLINE_SECONDS)
            waiting = [
                tasks.create_task(database.run(partial(add, f"{n}"))) for n in range(scripts)
            ]
            await asyncio.sleep(0)  # one turn of the loop: every caller has called
            assert len(database.writer.queue) == scripts
    assert [task.result() for task in waiting] == [f"{n}" for n in range(scripts)]
    return statements.count("COMMIT") - 1


async def test_scripts_that_wait_together_share_one_commit(database: SqliteDatabase) -> None:
    assert await count_commits(database, 100) == 1


async def test_no_group_is_larger_than_the_limit(database: SqliteDatabase) -> None:
    assert await count_commits(database, GROUP_LIMIT + 1) == 2


async def test_reads_do_not_wait_for_a_write(database: SqliteDatabase) -> None:
    async with asyncio.TaskGroup() as tasks:
        with held_up() as (running, script):
            writing = tasks.create_task(database.run(script))
            assert await asyncio.to_thread(running.wait, DEADLINE_SECONDS)
            assert await database.read(names) == []
            assert not writing.done()


async def test_a_long_read_does_not_hold_up_the_others(database: SqliteDatabase) -> None:
    async with asyncio.TaskGroup() as tasks:
        with held_up() as (running, script):
            reading = tasks.create_task(database.read(script))
            assert await asyncio.to_thread(running.wait, DEADLINE_SECONDS)
            for _ in range(10):
                assert await database.read(names) == []
            assert not reading.done()


@pytest.mark.parametrize("error", [KeyboardInterrupt, SystemExit, StopIteration, ValueError])
async def test_whatever_a_script_raises_its_caller_hears_it_and_the_others_go_on(
    database: SqliteDatabase, error: type[BaseException]
) -> None:
    closed = []

    def fail() -> Script[None]:
        try:
            yield from add("failed")
            raise error
        finally:
            closed.append(True)

    async def hear() -> None:
        with pytest.raises(RuntimeError if error is StopIteration else error):  # PEP 479
            await database.run(fail)

    await asyncio.gather(database.run(partial(add, "before")), hear())
    assert await database.run(names) == ["before"]
    assert closed == [True]


@pytest.mark.parametrize(
    "statement",
    [
        Sql("INSERT INTO things (id, amount) VALUES ('there', 1)"),
        Sql("INSERT INTO things (id) VALUES ('no amount')"),
        Sql("SELECT nothing FROM nowhere"),
        Sql("not SQL"),
        Sql("SELECT $1"),
        Sql("SELECT $1", (1 << 70,)),
    ],
)
async def test_a_wrong_statement_is_the_fault_of_its_script_alone(
    database: SqliteDatabase, statement: Sql
) -> None:
    ended = []

    def wrong() -> Script[None]:
        yield from add("wrong")
        try:
            yield statement
        finally:
            ended.append(True)

    await database.run(partial(add, "there"))
    answers = await asyncio.gather(
        database.run(partial(add, "one")),
        database.run(wrong),
        database.run(partial(add, "two")),
        return_exceptions=True,
    )
    assert isinstance(answers[1], sqlite3.Error | OverflowError)
    assert (answers[0], answers[2], ended) == ("one", "two", [True])
    assert await database.read(names) == ["one", "there", "two"]


async def test_a_script_that_asks_nothing_returns(database: SqliteDatabase) -> None:
    def add_all(wanted: list[str]) -> Script[int]:
        for name in wanted:
            yield from add(name)
        return len(wanted)

    assert await database.run(partial(add_all, [])) == 0
    assert await database.read(partial(add_all, [])) == 0


async def set_page_limit(database: SqliteDatabase, pages: int) -> None:
    await database.writer.connection.execute_fetchall(f"PRAGMA max_page_count = {pages}")


def add_large() -> Script[str]:
    yield Sql("INSERT INTO things (id, amount) VALUES ($1, 1)", ("x" * 200_000,))
    return "large"


async def test_when_the_disk_is_full_the_whole_group_hears_it_and_space_coming_back_is_enough(
    database: SqliteDatabase,
) -> None:
    await set_page_limit(database, 10)
    async with asyncio.TaskGroup() as tasks:
        with held_up() as (running, script):
            tasks.create_task(database.run(script))
            assert await asyncio.to_thread(running.wait, DEADLINE_SECONDS)
            group = asyncio.gather(
                database.run(partial(add, "small")),
                database.run(refuse),
                database.run(add_large),
                database.run(partial(add, "later")),
                return_exceptions=True,
            )
            await asyncio.sleep(0)  # one turn of the loop: every caller has called
    for answer in await group:
        assert isinstance(answer, DatabaseUnavailable)
        assert isinstance(answer.__cause__, sqlite3.OperationalError)
        assert answer.__cause__.sqlite_errorname == "SQLITE_FULL"
    assert await database.read(names) == []
    assert await database.run(partial(add, "small")) == "small"
    await set_page_limit(database, 1_000_000)
    assert await database.run(add_large) == "large"


async def test_after_a_commit_that_failed_the_connection_is_not_left_in_the_transaction(
    database: SqliteDatabase,
) -> None:
    def create_child() -> Script[None]:
        yield Sql(
            "CREATE TABLE children "
            "(parent TEXT REFERENCES things (id) DEFERRABLE INITIALLY DEFERRED)"
        )

    def add_orphan() -> Script[None]:
        yield Sql("INSERT INTO children (parent) VALUES ('nobody')")

    await database.run(create_child)
    with pytest.raises(DatabaseUnavailable):
        await database.run(add_orphan)
    assert await database.run(partial(add, "next")) == "next"


FILE_LIMIT = """
import asyncio, resource, sys
from functools import partial
from pathlib import Path
from gateway.db.script import Sql
from gateway.db.sqlite import open_sqlite
from gateway.errors import DatabaseUnavailable

def create():
    yield Sql("CREATE TABLE things (id TEXT PRIMARY KEY, amount BIGINT NOT NULL)")

def add(name):
    yield Sql("INSERT INTO things (id, amount) VALUES ($1, 1)", (name,))

def count():
    return (yield Sql("SELECT COUNT(*) AS number FROM things"))[0]["number"]

async def main():
    async with open_sqlite(Path(sys.argv[1])) as database:
        await database.run(create)
        soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
        done = failed = 0
        for number in range(20):
            try:
                await database.run(partial(add, str(number) * 10_000))
                done += 1
            except DatabaseUnavailable:
                failed += 1
        assert done and failed, (done, failed)
        assert await database.read(count) == done
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        for number in range(20):
            await database.run(partial(add, f"{number} again " + "x" * 10_000))
        assert await database.read(count) == done + 20
    print("recovered")

asyncio.run(main())
"""


async def test_after_the_system_refused_to_write_the_same_database_works_again(path: Path) -> None:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-W", "error", "-c", FILE_LIMIT, str(path)), stdout=subprocess.PIPE
    )
    output, _ = await asyncio.wait_for(process.communicate(), DEADLINE_SECONDS)
    assert (process.returncode, output) == (0, b"recovered\n")
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()


async def test_a_lock_held_by_another_process_is_waited_for(
    database: SqliteDatabase, path: Path
) -> None:
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    async with asyncio.TaskGroup() as tasks:
        waiting = tasks.create_task(database.run(partial(add, "waited")))
        reads = [await database.read(names) for _ in range(200)]
        assert reads == [[]] * 200
        assert not waiting.done()
        other.execute("COMMIT")
    other.close()
    assert waiting.result() == "waited"


async def test_a_caller_that_is_not_answered_in_time_hears_so_and_the_next_is_served(
    path: Path,
) -> None:
    async with open_sqlite(path, answer_seconds=0.1) as database:
        with held_up() as (_, script), pytest.raises(DatabaseUnavailable):
            await database.run(script)
    async with open_sqlite(path) as database:
        await database.run(create)


async def test_a_full_queue_refuses_at_once(database: SqliteDatabase) -> None:
    async with asyncio.TaskGroup() as tasks:
        with held_up() as (running, script):
            tasks.create_task(database.run(script))
            assert await asyncio.to_thread(running.wait, DEADLINE_SECONDS)
            for number in range(WAITING_LIMIT):
                tasks.create_task(database.run(partial(add, f"{number}")))
            await asyncio.sleep(0)  # one turn of the loop: every caller has called
            with pytest.raises(DatabaseUnavailable):
                await database.run(partial(add, "one too many"))
    assert len(await database.read(names)) == WAITING_LIMIT


async def test_closing_waits_for_what_is_queued(path: Path) -> None:
    async with asyncio.TaskGroup() as tasks, open_sqlite(path) as database:
        await database.run(create)
        waiting = [tasks.create_task(database.run(partial(add, f"{n}"))) for n in range(600)]
        await asyncio.sleep(0)  # one turn of the loop: every caller has called
    assert sum(task.done() for task in waiting) == 600
    async with open_sqlite(path) as database:
        assert len(await database.read(names)) == 600


async def test_an_error_in_the_block_closes_too_and_comes_out_as_it_is(path: Path) -> None:
    with pytest.raises(RefusedError):
        async with open_sqlite(path) as database:
            raise RefusedError
    with pytest.raises(DatabaseUnavailable):
        await database.run(create)


def test_many_may_open_one_new_file_at_once(tmp_path: Path) -> None:
    def create_and_add(name: str) -> Script[None]:
        yield Sql("CREATE TABLE IF NOT EXISTS things (id TEXT, amount BIGINT)")
        yield from add(name)

    async def open_and_add(path: Path, name: str) -> None:
        async with open_sqlite(path) as database:
            await database.run(partial(create_and_add, name))

    def begin_together(path: Path, together: threading.Barrier, name: str) -> None:
        together.wait(DEADLINE_SECONDS)
        asyncio.run(open_and_add(path, name))

    with ThreadPoolExecutor(4) as threads:
        for number in range(20):
            together = threading.Barrier(4)
            begin = partial(begin_together, tmp_path / f"{number}.db", together)
            assert list(threads.map(begin, "abcd")) == [None] * 4


async def test_a_new_file_locked_by_another_process_is_waited_for(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    other = sqlite3.connect(path, isolation_level=None)
    other.execute("BEGIN IMMEDIATE")
    begin = time.monotonic()
    with pytest.raises(DatabaseUnavailable):
        async with open_sqlite(path, busy_seconds=0.2):
            pass
    assert time.monotonic() - begin >= 0.2
    other.close()
    async with open_sqlite(path) as database:
        await database.run(create)


async def test_the_files_are_readable_by_their_owner_alone(
    database: SqliteDatabase, path: Path
) -> None:
    await database.run(partial(add, "one"))
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    assert modes == dict.fromkeys(("gateway.db", "gateway.db-wal", "gateway.db-shm"), 0o600)


@pytest.mark.parametrize(
    ("pragma", "value"), [("journal_mode", "wal"), ("synchronous", 2), ("foreign_keys", 1)]
)
async def test_every_commit_is_synced_and_references_are_checked(
    database: SqliteDatabase, pragma: str, value: str | int
) -> None:
    def ask() -> Script[object]:
        return (yield Sql(f"PRAGMA {pragma}"))[0][pragma]

    assert await database.run(ask) == value


async def test_memory_is_refused() -> None:
    with pytest.raises(ValueError, match="':memory:' is not supported"):
        async with open_sqlite(Path(":memory:")):
            pass


async def test_what_cannot_be_opened_is_unavailable(tmp_path: Path) -> None:
    text = tmp_path / "text.db"
    text.write_text("this is no database " * 100)
    for path in (tmp_path, text, text / "gateway.db"):
        with pytest.raises(DatabaseUnavailable):
            async with open_sqlite(path):
                pass


End = Literal["return", "refuse", "constraint", "syntax", "bug"]
ENDS: dict[End, type[Exception]] = {
    "refuse": RefusedError,
    "constraint": sqlite3.IntegrityError,
    "syntax": sqlite3.OperationalError,
    "bug": ZeroDivisionError,
}


class Step(NamedTuple):
    name: str
    amount: int | None  # None takes the name away


class Plan(NamedTuple):
    steps: list[Step]
    end: End


def play(plan: Plan) -> Script[dict[str, int]]:
    for name, amount in plan.steps:
        if amount is None:
            yield Sql("DELETE FROM things WHERE id = $1", (name,))
        else:
            yield Sql(
                "INSERT INTO things (id, amount) VALUES ($1, $2) "
                "ON CONFLICT (id) DO UPDATE SET amount = things.amount + excluded.amount",
                (name, amount),
            )
    if plan.end == "refuse":
        raise RefusedError
    if plan.end == "constraint":
        yield Sql("INSERT INTO things (id) VALUES ('no amount')")
    if plan.end == "syntax":
        yield Sql("not SQL")
    if plan.end == "bug":
        return {"never": 1 // 0}
    rows = yield Sql("SELECT id, amount FROM things")
    return {row["id"]: row["amount"] for row in rows}


def play_in_model(model: dict[str, int], plan: Plan) -> dict[str, int] | type[Exception]:
    if plan.end != "return":
        return ENDS[plan.end]
    for name, amount in plan.steps:
        if amount is None:
            model.pop(name, None)
        else:
            model[name] = model.get(name, 0) + amount
    return dict(model)


async def play_in_groups(
    path: Path, groups: list[list[Plan]]
) -> list[dict[str, int] | type[BaseException]]:
    answers: list[dict[str, int] | BaseException] = []
    async with open_sqlite(path) as database:
        await database.run(create)
        for group in groups:
            runs = (database.run(partial(play, plan)) for plan in group)
            answers += await asyncio.gather(*runs, return_exceptions=True)
    return [answer if isinstance(answer, dict) else type(answer) for answer in answers]


names_of_things = st.sampled_from("abc")
steps = st.builds(Step, names_of_things, st.none() | st.integers(-1000, 1000))
ends = st.sampled_from(["return", "return", *ENDS])
plans = st.builds(Plan, st.lists(steps, max_size=4), ends)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.lists(plans, min_size=1, max_size=12), max_size=4))
def test_scripts_in_groups_do_what_they_do_one_after_the_other(groups: list[list[Plan]]) -> None:
    model: dict[str, int] = {}
    expected = [play_in_model(model, plan) for group in groups for plan in group]
    with tempfile.TemporaryDirectory() as folder:
        answers = asyncio.run(play_in_groups(Path(folder) / "gateway.db", groups))
    assert answers == expected


async def test_arguments_beyond_the_limit_are_an_error_and_not_left_out(
    database: SqliteDatabase,
) -> None:
    def count(arguments: int) -> Script[int]:
        yield from add(f"{arguments}")
        marks = ", ".join(f"(${number})" for number in range(1, arguments + 1))
        rows = yield Sql(
            f"WITH given (n) AS (VALUES {marks}) SELECT COUNT(n) AS found FROM given",
            tuple(range(arguments)),
        )
        return int(rows[0]["found"])

    assert await database.run(partial(count, PARAMETER_LIMIT)) == PARAMETER_LIMIT
    with pytest.raises(ValueError, match="1001 arguments"):
        await database.run(partial(count, PARAMETER_LIMIT + 1))
    assert await database.read(names) == [f"{PARAMETER_LIMIT}"]


async def test_a_reader_that_is_busy_is_not_taken_though_nobody_waits_for_it_any_more(
    database: SqliteDatabase,
) -> None:
    async with asyncio.TaskGroup() as tasks:
        with held_up() as (running, script):
            given_up = tasks.create_task(database.read(script))
            assert await asyncio.to_thread(running.wait, DEADLINE_SECONDS)
            given_up.cancel()
            await asyncio.wait([given_up])
            async with asyncio.timeout(DEADLINE_SECONDS / 2):
                for _ in range(10):
                    assert await database.read(names) == []
