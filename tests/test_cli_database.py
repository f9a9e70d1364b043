"""Do the commands about the database as a whole do what they say, and undo nothing?"""

import asyncio
import json
import shutil
import sqlite3
import stat
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli_tools import a_completed_video, an_orphan, new_terminal, now
from click.testing import CliRunner, Result
from conftest import command, environ_for, eventually, new_key, serving
from ledger_tools import followed, opened
from openai import OpenAI
from postgres_tools import postgres_server

from gateway.billing.audit import audit
from gateway.cli.root import main
from gateway.clock import system_clock
from gateway.db.backup import BackupFailed, back_up
from gateway.db.migrate import read_migrations
from gateway.db.opening import open_database_url
from gateway.db.script import Script, Sql
from gateway.db.sqlite import open_sqlite
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings

KNOWN = read_migrations()

pytestmark = [
    pytest.mark.sqlite("a backup of PostgreSQL is made by its own programs"),
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]


@pytest.fixture
async def path(tmp_path: Path) -> Path:
    """A database in which a gateway has worked; nobody has it open."""
    path = tmp_path / "gateway.db"
    async with opened(path) as database:
        for number in range(1, 6):
            await database.run(partial(followed, number))
        await database.run(partial(a_completed_video, 6))
        await database.run(partial(an_orphan, 7, at=now()))
    return path


def run(*words: str, exit_code: int = 0, environ: dict[str, str] | None = None) -> Result:
    result = CliRunner(env=environ).invoke(main, words)
    assert result.exit_code == exit_code, result.output
    return result


async def in_thread(
    *words: str, exit_code: int = 0, environ: dict[str, str] | None = None
) -> Result:
    """Run a command that has a loop of its own."""
    return await asyncio.to_thread(run, *words, exit_code=exit_code, environ=environ)


def rows(path: Path, text: str) -> list[tuple[Any, ...]]:
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(text).fetchall()


def fill(path: Path, *, mib: int) -> None:
    """Let there be more than is copied at once."""
    change(path, "CREATE TABLE filling (bytes BLOB)")
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.executemany("INSERT INTO filling VALUES (zeroblob(?))", [(1 << 20,)] * mib)


def change(path: Path, text: str) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(text)


def sums(path: Path) -> list[tuple[Any, ...]]:
    return rows(path, "SELECT id, spent_micros, held_micros FROM balances ORDER BY id")


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


def lines(what: str) -> str:
    """What a command says of every migration that there is."""
    return "".join(f"{what} {one.number} {one.name}\n" for one in KNOWN)


def test_migrate_says_what_it_has_done_and_then_that_nothing_is_missing(tmp_path: Path) -> None:
    option = f"--database-url=sqlite:///{tmp_path / 'new' / 'gateway.db'}"
    missing = run("migrate", "--check", option, exit_code=1)
    assert "there is no database at" in missing.stderr
    assert names(tmp_path) == set()
    done = run("migrate", option)
    assert done.stdout == lines("applied")
    assert run("migrate", option).stdout == "Nothing is missing.\n"
    assert run("migrate", "--check", option).stdout == "Nothing is missing.\n"
    facts = json.loads(run("migrate", "--json", option).stdout)
    assert facts == {"applied": [], "missing": [], "newer": []}


def test_migrate_check_changes_nothing_and_exits_with_1_where_something_is_missing(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gateway.db"
    sqlite3.connect(path).close()
    option = f"--database-url=sqlite:///{path}"
    for _ in range(2):
        assert run("migrate", "--check", option, exit_code=1).stdout == lines("missing:")
    facts = json.loads(run("migrate", "--check", "--json", option, exit_code=1).stdout)
    assert facts["missing"] == [{"number": one.number, "name": one.name} for one in KNOWN]
    run("migrate", option)


def test_what_a_newer_program_added_is_told_and_what_it_took_away_is_refused(
    tmp_path: Path,
) -> None:
    person = new_terminal(tmp_path)
    add = (
        "INSERT INTO schema_migrations (number, name, sha256, compatible_with, applied_at)"
        " VALUES ({0}, 'later', 'x', {1}, 1)"
    )
    newest = len(KNOWN)
    change(person.path, add.format(newest + 1, newest))
    assert f"which may run with it: {newest + 1} later" in person.run("migrate").stdout
    person.run("keys", "create", "--project", "films", "--name", "a")
    change(person.path, add.format(newest + 2, newest + 1))
    for words in (("migrate",), ("keys", "list")):
        assert "newer than this program" in person.run(*words, exit_code=1).stderr


async def test_where_it_is_not_to_be_migrated_at_start_nothing_runs_before_migrate_has(
    tmp_path: Path,
) -> None:
    path = tmp_path / "gateway.db"
    sqlite3.connect(path).close()
    environ = environ_for(tmp_path, "http://127.0.0.1:1/v1", migrate_at_start=False)
    process = await command("serve", **environ)
    out, _ = await process.communicate()
    assert process.returncode == 1
    assert "run `video-gateway migrate`" in out.decode()
    listed = await in_thread("projects", "list", exit_code=1, environ=environ)
    assert "run `video-gateway migrate`" in listed.stderr
    assert rows(path, "SELECT name FROM sqlite_schema WHERE name = 'projects'") == []
    assert (await in_thread("migrate", environ=environ)).stdout == lines("applied")
    await in_thread("projects", "list", environ=environ)
    async with serving(environ) as served:
        assert await served.stop() == 0


async def test_a_backup_is_one_file_that_has_everything_and_is_only_its_owners(
    path: Path, tmp_path: Path
) -> None:
    file = tmp_path / "backups" / "copy.db"
    file.parent.mkdir()
    option = f"--database-url=sqlite:///{path}"
    done = await in_thread("database", "backup", str(file), option)
    assert "whole and audited" in done.stdout
    assert names(file.parent) == {"copy.db"}
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert sums(file) == sums(path)
    assert rows(file, "PRAGMA journal_mode") == [("delete",)]
    other = file.with_name("other.db")
    facts = json.loads((await in_thread("database", "backup", str(other), option, "--json")).stdout)
    assert facts == {"file": str(other), "size_bytes": other.stat().st_size}


async def test_a_backup_while_the_gateway_is_written_to_adds_up(path: Path, tmp_path: Path) -> None:
    option = f"--database-url=sqlite:///{path}"
    fill(path, mib=40)
    done = asyncio.Event()
    sold = 100

    async def sell() -> None:
        nonlocal sold
        async with open_sqlite(path) as database:
            while not done.is_set():
                async with asyncio.TaskGroup() as at_once:
                    for _ in range(8):
                        sold += 1
                        at_once.create_task(database.run(partial(followed, sold)))

    held = []
    async with asyncio.TaskGroup() as group:
        group.create_task(sell())
        for number in range(3):
            before = sold
            file = tmp_path / f"copy{number}.db"
            await in_thread("database", "backup", str(file), option)
            assert sold > before
            held.append(rows(file, "SELECT COUNT(*) FROM entries")[0][0])
        done.set()
    assert held == sorted(held)
    assert held[0] != held[-1]
    for number in range(3):
        async with open_sqlite(tmp_path / f"copy{number}.db") as database:
            assert await database.read(audit) == []


async def test_a_backup_replaces_nothing_and_leaves_nothing_behind(
    path: Path, tmp_path: Path
) -> None:
    option = f"--database-url=sqlite:///{path}"
    there = tmp_path / "backups" / "there.db"
    there.parent.mkdir()
    there.write_text("mine")
    words = ("database", "backup")
    assert "there already" in (await in_thread(*words, str(there), option, exit_code=1)).stderr
    assert there.read_text() == "mine"
    nowhere = tmp_path / "nowhere" / "copy.db"
    assert "cannot write" in (await in_thread(*words, str(nowhere), option, exit_code=1)).stderr
    absent = await in_thread(*words, "x.db", f"{option}.absent", exit_code=1)
    assert "there is no database at" in absent.stderr
    assert names(there.parent) == {"there.db"}
    assert names(tmp_path) == {"backups", "gateway.db"}


async def test_a_name_that_is_taken_while_the_backup_is_made_is_not_replaced(
    path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    file = folder / "copy.db"

    def taken(_: int) -> None:
        file.write_text("mine")

    with pytest.raises(BackupFailed, match="there already"):
        back_up(path, file, audit=audit, told=taken)
    assert names(folder) == {"copy.db"}
    assert file.read_text() == "mine"


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("UPDATE balances SET spent_micros = spent_micros + 1", "the books do not add up"),
        ("UPDATE entries SET hold_id = 'lost'", "a row refers to one that is not there"),
    ],
)
async def test_no_backup_is_made_of_what_is_not_sound(
    path: Path, tmp_path: Path, text: str, words: str
) -> None:
    change(path, text)
    folder = tmp_path / "backups"
    folder.mkdir()
    ran = await in_thread(
        *("database", "backup", str(folder / "copy.db"), f"--database-url=sqlite:///{path}"),
        exit_code=1,
    )
    assert words in ran.stderr
    assert names(folder) == set()


async def test_a_damaged_file_is_found_and_something_else_is_no_database(
    path: Path, tmp_path: Path
) -> None:
    folder = tmp_path / "backups"
    folder.mkdir()
    ((end_of_page,),) = rows(
        path,
        "SELECT rootpage * page_size FROM sqlite_schema, pragma_page_size"
        " WHERE name = 'entries_by_hold'",
    )
    with path.open("r+b") as file:
        file.seek(end_of_page - 400)
        file.write(b"\xff" * 400)
    (tmp_path / "text.db").write_text("text" * 1000)
    for name, words in (("gateway.db", "is damaged"), ("text.db", "not a database")):
        ran = await in_thread(
            *("database", "backup", str(folder / "copy.db")),
            f"--database-url=sqlite:///{tmp_path / name}",
            exit_code=1,
        )
        assert words in ran.stderr
    assert names(folder) == set()


async def test_a_backup_that_was_killed_leaves_no_file_of_that_name(
    path: Path, tmp_path: Path
) -> None:
    fill(path, mib=150)
    folder = tmp_path / "backups"
    folder.mkdir()
    process = await command(
        *("database", "backup", str(folder / "copy.db")), f"--database-url=sqlite:///{path}"
    )

    async def begun() -> bool:
        return any(one.stat().st_size > 1 << 20 for one in folder.iterdir())

    await eventually(begun)
    process.kill()
    await process.communicate()
    assert not (folder / "copy.db").exists()
    await in_thread(
        "database", "backup", str(folder / "copy.db"), f"--database-url=sqlite:///{path}"
    )
    assert sums(folder / "copy.db") == sums(path)


async def test_after_a_restore_what_is_due_is_done_and_what_was_lost_is_taken_over(
    tmp_path: Path,
) -> None:
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=0)
    async with (
        Simulator(settings=simulated) as simulator,
        Control(simulator.base_url) as control,
    ):
        environ = environ_for(tmp_path, simulator.base_url)
        path, file = tmp_path / "gateway.db", tmp_path / "copy.db"
        option = f"--database-url=sqlite:///{path}"
        await in_thread("migrate", option)
        async with open_sqlite(path) as database:
            key = await new_key(database, system_clock())
        async with serving(environ) as gateway:
            slow = await bought(gateway.base_url, key.value, "a heron [[queue 1000]]")
            await in_thread("database", "backup", str(file), option)
            lost = await bought(gateway.base_url, key.value, "a cat")
            await until(path, "SELECT COUNT(*) = 1 FROM assets WHERE mirrored_at IS NOT NULL")
        for name in ("gateway.db", "gateway.db-wal", "gateway.db-shm"):
            (tmp_path / name).unlink(missing_ok=True)
        shutil.copy(file, path)
        await control.advance(2000)
        async with serving(environ) as gateway:
            await until(path, "SELECT COUNT(*) = 1 FROM holds WHERE state = 'settled'")
            await in_thread("ledger", "audit", option)
            async with gateway.client(key) as client:
                assert (await client.get(f"/videos/{lost}")).status_code == 404
            adopting = await in_thread(
                "mirror", "adopt", "--project", "studio", lost, "--json", environ=environ
            )
            assert json.loads(adopting.stdout)[0]["outcome"] == "adopted"
            await until(path, "SELECT COUNT(*) = 2 FROM assets WHERE mirrored_at IS NOT NULL")
            async with gateway.client(key) as client:
                for video in (slow, lost):
                    answer = await client.get(f"/videos/{video}/content")
                    assert answer.status_code == 200
                    assert answer.content == await control.content(video)
            await in_thread("ledger", "audit", option)
        assert rows(path, "SELECT COUNT(*) FROM holds") == [(1,)]


async def bought(base_url: str, key: str, prompt: str) -> str:
    def buy() -> str:
        with OpenAI(base_url=base_url, api_key=key) as sdk:
            return sdk.videos.create(prompt=prompt).id

    return await asyncio.to_thread(buy)


async def until(path: Path, text: str) -> None:
    async def met() -> bool:
        return rows(path, text) == [(1,)]

    await eventually(met)


async def test_the_command_that_is_named_for_postgresql_makes_a_backup_that_can_be_restored(
    path: Path,
) -> None:
    with postgres_server() as server:
        url = server.make("gateway")
        source = f"sqlite:///{path}"
        await in_thread("database", "copy", source, url)
        file = server.folder / "copy.dump"
        with_password = url.replace("postgres@", "postgres:hidden@")
        ran = await in_thread(
            "database", "backup", str(file), "--database-url", with_password, exit_code=2
        )
        assert "hidden" not in ran.output
        (line,) = [one for one in ran.stderr.splitlines() if "pg_dump" in one]
        program, *args = line.split()
        server.run(program, *args)
        restored = server.make("restored")
        server.run("pg_restore", "--exit-on-error", f"--dbname={restored}", str(file))
        await in_thread("ledger", "audit", "--database-url", restored)
        async with open_database_url(restored) as database:
            assert await database.read(count_videos) == 7


def count_videos() -> Script[int]:
    ((count,),) = yield Sql("SELECT COUNT(*) FROM videos")
    return int(count)
