"""Does everything get from one database into another, exactly, however often it is broken off?"""

import asyncio
import json
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, closing
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import pytest
from cli_tools import a_completed_video, an_orphan
from click.testing import CliRunner
from conftest import eventually
from ledger_tools import NOW, followed, opened
from postgres_tools import PostgresServer, postgres_server
from shelf import Ran

from gateway.cli.root import main
from gateway.clock import system_clock
from gateway.db.copies import is_unfinished
from gateway.db.copy import CopyRefused, Sides, compare, copy, count, finish, prepare
from gateway.db.migrate import migrate, read_migrations
from gateway.db.opening import open_database_url
from gateway.db.rows import Content, read_contents
from gateway.db.script import Script, Sql
from gateway.db.tables import tables_of

pytestmark = pytest.mark.sqlite("it names its databases itself, of either kind")

# Text that two databases, or two programs between them, could come to see differently.
STRANGE = [
    "",
    " ",
    "NULL",
    "\\N",
    "'); --",
    "a\tb\r\nc",
    "é",
    "e\u0301",
    "ﬃ",
    "猫",
    "🐈",
    "Z",
    "a",
    "_",
]


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres_server() as made:
        yield made


@dataclass
class Place:
    """Where the databases of one test are."""

    folder: Path
    server: PostgresServer
    made: list[str] = field(default_factory=list)

    def empty(self, kind: str) -> str:
        """Return the URL of a database in which nothing is."""
        self.made.append(kind)
        name = f"{self.folder.name}_{len(self.made)}"
        if kind == "sqlite":
            return f"sqlite:///{self.folder / name}.db"
        return self.server.make(name)

    async def full(self, kind: str) -> str:
        """Return the URL of a database in which a gateway has worked."""
        path = self.folder / "full.db"
        async with opened(path) as database:
            for number in range(1, 21):
                await database.run(partial(followed, number))
            await database.run(partial(a_completed_video, 21))
            await database.run(partial(an_orphan, 22, at=NOW))
            await database.run(strange_rows)
        url = f"sqlite:///{path}"
        if kind == "sqlite":
            return url
        target = self.empty(kind)
        async with both(url, target) as sides:
            copied = await copy(sides, clock=system_clock(), told=ignored)
            await finish(sides, copied, clock=system_clock())
        return target


@pytest.fixture
def place(tmp_path: Path, server: PostgresServer) -> Place:
    return Place(tmp_path, server)


@asynccontextmanager
async def both(source: str, target: str) -> AsyncIterator[Sides]:
    async with open_database_url(source) as here, open_database_url(target) as there:
        yield await prepare(here, there, clock=system_clock())


async def contents(url: str) -> dict[str, Content]:
    """Return what is in all tables but the one about copies."""
    tables = [one for one in tables_of(read_migrations()) if one.name != "copies"]
    async with open_database_url(url) as database:
        await migrate(database, now=NOW)
        return await database.read(partial(read_contents, tables))


def ignored(_: int) -> None:
    """Nobody looks at the progress."""


def strange_rows() -> Script[None]:
    for number, text in enumerate(STRANGE):
        yield audit_line(f"line {text}", number=number, text=text)
        yield Sql(
            "INSERT INTO limits (level, level_id, model, requests_per_minute) VALUES ('key', $1,"
            " $2, $3)",
            (text, STRANGE[-number], None if number % 2 else 2**63 - 1),
        )


def audit_line(line_id: str, *, number: int = 0, text: str | None = None) -> Sql:
    return Sql(
        "INSERT INTO audit_log (id, effective_at, type, actor_kind, actor_id, resource,"
        " resource_id, facts_before) VALUES ($1, $2, 't', 'command', 'tests', 'r', 'x', $3)",
        (line_id, number, text),
    )


def one(statement: Sql) -> Script[list[Any]]:
    return list((yield statement))


async def change(url: str, text: str, *args: str | int | None) -> list[Any]:
    async with open_database_url(url) as database:
        return await database.run(partial(one, Sql(text, args)))


def many_lines(url: str, count: int) -> None:
    """Give a file more rows than a copy is over with at once."""
    with closing(sqlite3.connect(url.removeprefix("sqlite:///"))) as connection, connection:
        connection.executemany(
            audit_line("").text.replace("$", "?"),
            [(f"many {number:06}", number, "x" * 100) for number in range(count)],
        )


async def started(source: str, target: str, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "database", "copy", source, target, *words),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def copied(source: str, target: str, *words: str) -> Ran:
    """Run `video-gateway database copy`; in a thread, because it has a loop of its own."""
    args = ["database", "copy", source, target, *words]
    result = await asyncio.to_thread(CliRunner().invoke, main, args)
    return Ran(result.exit_code, result.stdout, result.stderr)


@pytest.mark.parametrize(
    ("source", "target"),
    [("sqlite", "postgres"), ("postgres", "sqlite"), ("sqlite", "sqlite")],
)
async def test_everything_is_copied_and_both_sides_are_equal(
    place: Place, source: str, target: str
) -> None:
    here, there = await place.full(source), place.empty(target)
    ran = await copied(here, there)
    assert (ran.code, ran.err) == (0, "")
    assert "Both sides are equal, and both add up" in ran.out
    assert f"GATEWAY_DATABASE_URL='{there}'" in ran.out
    found = await contents(there)
    assert found == await contents(here)
    assert found["videos"].rows == 22
    assert found["limits"].rows == len(STRANGE)
    again = await copied(here, there, "--json")
    assert (again.code, again.json["copied"], again.json["whole"]) == (0, 0, True)


def test_the_tables_that_are_copied_are_those_that_postgresql_has(place: Place) -> None:
    url = place.empty("postgres")

    async def look() -> list[Any]:
        async with open_database_url(url) as database:
            await migrate(database, now=NOW)
        connection = await asyncpg.connect(url)
        try:
            return list(
                await connection.fetch(
                    "SELECT table_name, array_agg(column_name::text) AS columns"
                    " FROM information_schema.columns WHERE table_schema = 'public'"
                    " AND table_name <> 'schema_migrations' GROUP BY table_name"
                )
            )
        finally:
            await connection.close()

    tables = tables_of(read_migrations())
    assert {row["table_name"]: set(row["columns"]) for row in asyncio.run(look())} == {
        table.name: set(table.columns) for table in tables
    }
    places = {table.name: number for number, table in enumerate(tables)}
    for table in tables:
        assert table.key
        assert all(places[one.to_table] < places[table.name] for one in table.references)


async def test_a_copy_that_was_killed_goes_on_where_it_was_and_ends_equal(place: Place) -> None:
    here, there = await place.full("sqlite"), place.empty("postgres")
    many_lines(here, 30_000)
    process = await started(here, there)
    connection = await asyncpg.connect(there)

    async def some() -> bool:
        if await connection.fetchval("SELECT to_regclass('audit_log')") is None:
            return False
        return bool(await connection.fetchval("SELECT COUNT(*) > 2000 FROM audit_log"))

    await eventually(some)
    process.kill()
    await process.communicate()
    before = await connection.fetchval("SELECT COUNT(*) FROM audit_log")
    await connection.close()
    assert before < 30_000
    refused = await asyncio.to_thread(
        subprocess.run,
        [sys.executable, "-m", "gateway", "ledger", "audit", "--database-url", there],
        capture_output=True,
        text=True,
        check=False,
    )
    assert refused.returncode == 1
    assert "unfinished copy" in refused.stderr
    ran = await copied(here, there, "--json")
    assert (ran.code, ran.json["whole"], ran.json["repaired"]) == (0, True, 0)
    # A page may have been under way when it was killed.
    assert ran.json["rows"] - ran.json["copied"] >= before
    assert await contents(there) == await contents(here)


@pytest.mark.parametrize("target", ["sqlite", "postgres"])
async def test_what_changed_in_the_source_behind_the_copy_is_found_and_put_right_by_another(
    place: Place, target: str
) -> None:
    here, there = await place.full("sqlite"), place.empty(target)
    clock = system_clock()
    async with both(here, there) as sides:
        unfinished = await copy(sides, clock=clock, told=ignored)
        assert await compare(sides) == []
        for text in (
            "UPDATE projects SET name = 'another' WHERE id = 'proj_a'",
            "DELETE FROM limits WHERE model = 'a'",
            "DELETE FROM entries WHERE hold_id = 'hold_22'",
        ):
            await sides.source.run(partial(one, Sql(text)))
        await sides.source.run(partial(one, audit_line("a late one")))
        # The same number of rows, and other ones.
        await sides.source.run(partial(one, Sql("DELETE FROM audit_log WHERE id = 'line a'")))
        differences = await compare(sides)
        assert {name for name, _, _ in differences} == {
            *("audit_log", "entries", "limits", "projects")
        }
        assert await sides.target.read(is_unfinished)
        again = await copy(sides, clock=clock, told=ignored)
        assert again.copy == unfinished.copy
        assert (again.rows, again.repaired, again.left_out) == (1, 4, 0)
        assert await compare(sides) == []
        await finish(sides, again, clock=clock)
        assert not await sides.target.read(is_unfinished)
    # What the books say of the deleted entry is wrong on both sides now, and that is said.
    ran = await copied(here, there, "--json")
    assert (ran.code, ran.json["differences"]) == (1, [])
    assert ran.json["unsound"] == ["FROM", "TO"]


@pytest.mark.parametrize("target", ["sqlite", "postgres"])
async def test_pages_that_end_at_different_keys_on_both_sides_are_put_right_too(
    place: Place, target: str
) -> None:
    here, there = await place.full("sqlite"), place.empty(target)
    many_lines(here, 3_500)
    clock = system_clock()
    async with both(here, there) as sides:
        await copy(sides, clock=clock, told=ignored)
        for database, text in (
            (sides.target, "DELETE FROM audit_log WHERE effective_at % 7 = 3"),
            (sides.target, "DELETE FROM audit_log WHERE effective_at BETWEEN 900 AND 2100"),
            (sides.source, "DELETE FROM audit_log WHERE effective_at % 3 = 1"),
            (sides.source, "DELETE FROM audit_log WHERE effective_at > 3100"),
            (sides.source, "UPDATE audit_log SET actor_id = 'y' WHERE effective_at % 13 = 2"),
        ):
            await database.run(partial(one, Sql(f"{text} AND id LIKE 'many %'")))
        there_before = {at for at in range(3_500) if at % 7 != 3 and not 900 <= at <= 2100}
        here_now = {at for at in range(3_101) if at % 3 != 1}
        changed = {at for at in here_now & there_before if at % 13 == 2}
        told: list[int] = []
        mended = await copy(sides, clock=clock, told=told.append)
        assert mended.rows == len(here_now - there_before)
        assert mended.repaired == len(there_before - here_now) + len(changed)
        assert sum(told) == await count(sides)
        assert await compare(sides) == []
        again = await copy(sides, clock=clock, told=ignored)
        assert (again.rows, again.repaired, again.left_out) == (0, 0, 0)


async def test_a_source_in_use_ends_with_1_and_once_it_is_quiet_the_next_run_makes_it_whole(
    place: Place,
) -> None:
    here, there = await place.full("sqlite"), place.empty("postgres")
    many_lines(here, 10_000)
    sold = 30
    async with open_database_url(here) as gateway:
        process = await started(here, there, "--json")
        while process.returncode is None:
            await gateway.run(partial(followed, sold))
            sold += 1
            try:
                async with asyncio.timeout(0.01):
                    await process.wait()
            except TimeoutError:
                continue
    assert process.stdout is not None
    ran = json.loads(await process.stdout.read())
    assert process.returncode == 1
    assert ran["whole"] is False
    assert {"holds", "entries", "balances"} <= {one["table"] for one in ran["differences"]}
    text = (await copied(here, there)).out
    assert "Both sides are equal" in text
    assert await contents(there) == await contents(here)


async def test_a_row_whose_parent_came_too_late_is_left_out_and_not_a_failure(
    place: Place,
) -> None:
    here, there = await place.full("sqlite"), place.empty("postgres")
    async with both(here, there) as sides:
        without = Sides(
            sides.source,
            sides.target,
            tuple(table for table in sides.tables if table.name != "holds"),
        )
        found = await copy(without, clock=system_clock(), told=ignored)
        assert found.left_out > 20
        assert {name for name, _, _ in await compare(sides)} >= {"holds", "entries", "videos"}
        found = await copy(sides, clock=system_clock(), told=ignored)
        assert found.left_out == 0
        assert await compare(sides) == []


@pytest.mark.parametrize("target", ["sqlite", "postgres"])
async def test_a_target_with_rows_of_its_own_is_refused_and_stays_as_it_is(
    place: Place, target: str
) -> None:
    here, there = await place.full("sqlite"), place.empty(target)
    async with open_database_url(there) as database:
        await migrate(database, now=NOW)
        await database.run(partial(one, audit_line("its own")))
    before = await contents(there)
    ran = await copied(here, there)
    assert ran.code == 1
    assert "TO is not empty" in ran.err
    assert "audit_log" in ran.err
    assert await contents(there) == before
    async with open_database_url(there) as database:
        assert not await database.read(is_unfinished)


async def test_an_unfinished_copy_of_one_source_is_not_gone_on_with_from_another(
    place: Place,
) -> None:
    here, there, other = await place.full("sqlite"), place.empty("sqlite"), place.empty("sqlite")
    async with both(here, there) as sides:
        await copy(sides, clock=system_clock(), told=ignored)
    await contents(other)
    ran = await copied(other, there)
    assert ran.code == 1
    assert "TO is an unfinished copy of another database" in ran.err
    ran = await copied(there, other)
    assert ran.code == 1
    assert "FROM is itself an unfinished copy" in ran.err


async def test_a_copy_that_was_finished_is_never_written_to_again(place: Place) -> None:
    here, there = await place.full("sqlite"), place.empty("sqlite")
    assert (await copied(here, there)).code == 0
    await change(here, audit_line("sold there").text, *audit_line("sold there").args)
    before = await contents(there)
    ran = await copied(here, there)
    assert ran.code == 1
    assert "TO was whole once" in ran.out
    assert "audit_log differs" in ran.out
    assert await contents(there) == before


async def test_a_newer_side_is_refused_because_its_new_columns_would_be_lost(place: Place) -> None:
    here, there = await place.full("sqlite"), place.empty("sqlite")
    await change(
        here,
        "INSERT INTO schema_migrations (number, name, sha256, compatible_with, applied_at)"
        " VALUES (9, 'later', 'x', 1, 1)",
    )
    ran = await copied(here, there)
    assert ran.code == 1
    assert "FROM is newer than this program: it has migration 9, later" in ran.err


async def test_one_database_under_two_names_is_refused(place: Place) -> None:
    there = place.empty("postgres")
    ran = await copied(there, there.replace("127.0.0.1", "localhost"))
    assert ran.code == 1
    assert "the same database" in ran.err
    assert (await copied(there, there)).code == 2
    path = place.folder / "link.db"
    full = await place.full("sqlite")
    path.symlink_to(full.removeprefix("sqlite:///"))
    ran = await copied(full, f"sqlite:///{path}")
    assert ran.code == 2
    assert "the same database" in ran.err


async def test_a_source_that_is_not_there_is_not_made(place: Place) -> None:
    ran = await copied(place.empty("sqlite"), place.empty("sqlite"))
    assert ran.code == 1
    assert "there is no database at" in ran.err
    assert list(place.folder.glob("*.db")) == []


async def test_a_password_is_never_printed(place: Place) -> None:
    here, there = await place.full("sqlite"), place.empty("postgres")
    secret = "only-for-the-server"
    with_password = there.replace("postgres@", f"postgres:{secret}@")
    for ran in (
        await copied(here, with_password),
        await copied(here, with_password.replace(str(place.server.port), "1")),
        await copied(here, f"postgresql://postgres:{secret}@127.0.0.1:1"),
    ):
        assert secret not in ran.out + ran.err
    unreachable = await copied(here, with_password.replace(str(place.server.port), "1"))
    assert unreachable.code == 1
    assert f"TO, {there.replace(str(place.server.port), '1')}: " in unreachable.err
    assert await contents(there) == await contents(here)


async def test_refusals_are_json_where_json_was_asked_for(place: Place) -> None:
    ran = await copied(place.empty("sqlite"), place.empty("sqlite"), "--json")
    assert ran.out == ""
    assert json.loads(ran.err)["error"]["exit_code"] == 1


async def test_prepare_brings_both_sides_to_the_tables_of_this_program(place: Place) -> None:
    here, there = place.empty("sqlite"), place.empty("postgres")
    async with both(here, there) as sides:
        assert await compare(sides) == []
        await sides.target.run(partial(one, audit_line("x")))
        with pytest.raises(CopyRefused, match="not empty"):
            await copy(sides, clock=system_clock(), told=ignored)
