"""Does migrating bring any database to the program's tables, once, or refuse and say why?"""

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path

import asyncpg
import pytest
from databases import opened_at

from gateway.db.database import Database
from gateway.db.migrate import SchemaError, migrate, standing
from gateway.db.script import Script, Sql

# What the two libraries say of a table that is not there.
FAULTS = (sqlite3.OperationalError, asyncpg.UndefinedTableError)
FIRST = """-- What is there at first?
CREATE TABLE fruits (
    id TEXT PRIMARY KEY, -- a name; not a number
    note TEXT NOT NULL DEFAULT 'a; b'
);

CREATE INDEX fruits_by_note ON fruits (note);  -- for the list
"""
SECOND = "INSERT INTO fruits (id) VALUES ('apple');\nINSERT INTO fruits (id) VALUES ('pear');\n"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    folder = tmp_path / "migrations"
    folder.mkdir()
    (folder / "0001_initial.sql").write_text(FIRST)
    (folder / "0002_fill.sql").write_text(SECOND)
    (folder / "README.md").write_text("not a migration")
    return folder


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened_at(tmp_path / "gateway.db", migrated=False) as database:
        yield database


async def missing(database: Database, folder: Path | None = None) -> list[int]:
    return [one.number for one in (await standing(database, folder=folder)).missing]


def applied() -> Script[list[tuple[int, str, int]]]:
    rows = yield Sql("SELECT number, name, applied_at FROM schema_migrations ORDER BY number")
    return [(row["number"], row["name"], row["applied_at"]) for row in rows]


def fruits() -> Script[list[tuple[str, str]]]:
    rows = yield Sql("SELECT id, note FROM fruits ORDER BY id")
    return [(row["id"], row["note"]) for row in rows]


async def test_migrations_are_applied_in_order_and_once(database: Database, folder: Path) -> None:
    assert await missing(database, folder) == [1, 2]
    assert await migrate(database, now=7, folder=folder) == [(1, "initial"), (2, "fill")]
    assert await missing(database, folder) == []
    assert await migrate(database, now=8, folder=folder) == []
    assert await database.read(applied) == [(1, "initial", 7), (2, "fill", 7)]
    assert await database.read(fruits) == [("apple", "a; b"), ("pear", "a; b")]


async def test_only_what_is_missing_is_applied(database: Database, folder: Path) -> None:
    await migrate(database, now=7, folder=folder)
    (folder / "0003_more.sql").write_text("INSERT INTO fruits (id) VALUES ('plum');\n")
    assert await missing(database, folder) == [3]
    assert await migrate(database, now=8, folder=folder) == [(3, "more")]
    assert (await database.read(applied))[-1] == (3, "more", 8)


async def test_a_migration_that_fails_leaves_nothing_and_the_ones_before_it_stay(
    database: Database, folder: Path
) -> None:
    broken = folder / "0003_broken.sql"
    broken.write_text("CREATE TABLE half (id TEXT);\nINSERT INTO nowhere (id) VALUES ('x');\n")
    with pytest.raises(FAULTS, match="nowhere"):
        await migrate(database, now=7, folder=folder)
    assert await missing(database, folder) == [3]
    broken.write_text("CREATE TABLE half (id TEXT);\n")
    assert await migrate(database, now=8, folder=folder) == [(3, "broken")]


async def test_several_processes_may_migrate_at_once_also_from_nothing(
    tmp_path: Path, folder: Path
) -> None:
    for number in range(3, 9):
        (folder / f"{number:04}_more.sql").write_text(f"CREATE TABLE t{number} (id TEXT);\n")
    async with AsyncExitStack() as stack:
        several = [
            await stack.enter_async_context(opened_at(tmp_path / "empty.db", migrated=False))
            for _ in range(4)
        ]
        done = await asyncio.gather(
            *(migrate(each, now=number, folder=folder) for number, each in enumerate(several))
        )
        numbers = [one.number for applied_here in done for one in applied_here]
        assert sorted(numbers) == list(range(1, 9))
        assert [number for number, _, _ in await several[0].read(applied)] == list(range(1, 9))
        assert await several[0].read(fruits) == [("apple", "a; b"), ("pear", "a; b")]


async def test_a_database_newer_than_the_program_is_refused(
    database: Database, folder: Path
) -> None:
    await migrate(database, now=7, folder=folder)
    (folder / "0002_fill.sql").unlink()
    for refused in (missing(database, folder), migrate(database, now=8, folder=folder)):
        with pytest.raises(SchemaError, match="newer than this program: it has migration 2, fill"):
            await refused
    assert len(await database.read(applied)) == 2


ADDS = "-- compatible with: 2\nALTER TABLE fruits ADD COLUMN colour TEXT;\n"


async def test_a_program_runs_on_a_newer_database_that_says_it_may(
    database: Database, folder: Path
) -> None:
    (folder / "0003_adds.sql").write_text(ADDS)
    await migrate(database, now=7, folder=folder)
    (folder / "0003_adds.sql").unlink()
    assert await migrate(database, now=8, folder=folder) == []
    assert await standing(database, folder=folder) == ([], [(3, "adds")])
    assert [number for number, _, _ in await database.read(applied)] == [1, 2, 3]


async def test_one_migration_that_needs_a_newer_program_is_enough_to_refuse_an_older_one(
    database: Database, folder: Path
) -> None:
    (folder / "0003_adds.sql").write_text(ADDS)
    (folder / "0004_takes.sql").write_text("-- compatible with: 3\nDROP INDEX fruits_by_note;\n")
    (folder / "0005_adds.sql").write_text("-- compatible with: 1\nCREATE TABLE more (id TEXT);\n")
    await migrate(database, now=7, folder=folder)
    (folder / "0005_adds.sql").unlink()
    (folder / "0004_takes.sql").unlink()
    assert (await standing(database, folder=folder)).newer == [(4, "takes"), (5, "adds")]
    (folder / "0003_adds.sql").unlink()
    with pytest.raises(
        SchemaError, match="migration 5, adds, and needs a program that knows migration 3; this"
    ):
        await migrate(database, now=8, folder=folder)


async def test_an_older_program_still_sees_that_a_file_it_knows_was_changed(
    database: Database, folder: Path
) -> None:
    (folder / "0003_adds.sql").write_text(ADDS)
    await migrate(database, now=7, folder=folder)
    (folder / "0003_adds.sql").unlink()
    (folder / "0002_fill.sql").write_text(SECOND.replace("pear", "plum"))
    with pytest.raises(SchemaError, match="migration 2, fill, was changed"):
        await migrate(database, now=8, folder=folder)


async def test_a_file_changed_after_it_was_applied_is_refused(
    database: Database, folder: Path
) -> None:
    await migrate(database, now=7, folder=folder)
    (folder / "0001_initial.sql").write_text(FIRST.replace("at first", "at the beginning"))
    (folder / "0003_more.sql").write_text("CREATE TABLE more (id TEXT);\n")
    with pytest.raises(SchemaError, match="migration 1, initial, was changed after it was applied"):
        await migrate(database, now=8, folder=folder)
    assert len(await database.read(applied)) == 2


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("0004_gap.sql", "SELECT 1;\n", "not numbered 1, 2"),
        ("0002_twice.sql", "SELECT 1;\n", "not numbered 1, 2"),
        ("3_short.sql", "SELECT 1;\n", "3_short.sql is not named NNNN_name.sql"),
        ("0003_open.sql", "SELECT 1;\nSELECT 2\n", "0003_open.sql: the last statement"),
        ("0003_x.sql", "-- compatible with: 4\nSELECT 1;\n", "is not one number from 1 to 3"),
        ("0003_x.sql", "-- compatible with: 0\nSELECT 1;\n", "is not one number from 1 to 3"),
        ("0003_x.sql", "-- compatible with: all\nSELECT 1;\n", "is not one number from 1 to 3"),
        ("0003_x.sql", "-- compatible with: 1\n-- compatible with: 2\n", "is not one number"),
    ],
)
async def test_files_out_of_order_are_refused_before_anything_is_applied(
    database: Database, folder: Path, name: str, text: str, words: str
) -> None:
    (folder / name).write_text(text)
    with pytest.raises(SchemaError, match=words):
        await migrate(database, now=7, folder=folder)
    (folder / name).unlink()
    assert await missing(database, folder) == [1, 2]


async def test_a_program_without_migrations_is_refused(database: Database, tmp_path: Path) -> None:
    empty = tmp_path / "empty"
    empty.mkdir()
    with pytest.raises(SchemaError, match="not numbered 1, 2"):
        await migrate(database, now=7, folder=empty)


async def test_the_migrations_of_this_program_apply(database: Database) -> None:
    numbers = await missing(database)
    assert numbers
    assert [one.number for one in await migrate(database, now=7)] == numbers
    assert await missing(database) == []
