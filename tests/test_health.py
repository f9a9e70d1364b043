"""Does the process say truthfully whether it lives and whether it wants requests?"""

import asyncio
import sqlite3
import subprocess
import sys
from pathlib import Path

import httpx
import pytest
from conftest import DEADLINE_SECONDS, LogLines, World, eventually, world
from plain_http import NO_TLS

from gateway.api.health import DATABASE_PATIENCE_SECONDS
from gateway.db.migrate import read_migrations

# In a process of its own: closing a file that SQLite has open here would drop its locks.
BREAK = """
import pathlib, sqlite3, sys
path = pathlib.Path(sys.argv[1])
connection = sqlite3.connect(path, timeout=10)
connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchall()
connection.close()
kept = path.read_bytes()
pathlib.Path(sys.argv[2]).write_bytes(kept)
with path.open("r+b") as file:
    file.write(bytes(len(kept)))
"""
MEND = """
import pathlib, sys
with pathlib.Path(sys.argv[1]).open("r+b") as file:
    file.write(pathlib.Path(sys.argv[2]).read_bytes())
"""


async def look(made: World, path: str) -> httpx.Response:
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        return await client.get(f"http://127.0.0.1:{made.gateway.ops_port}{path}")


async def test_a_process_that_runs_is_alive_and_ready(studio: World) -> None:
    assert (await look(studio, "/livez")).text == "ok"
    ready = await look(studio, "/readyz")
    assert (ready.status_code, ready.text) == (200, "ok")
    shown = await look(studio, "/readyz?verbose")
    said = shown.json()
    checks = ("not_draining", "database", "migrations", "clock", "store")
    assert (said["ready"], said["checks"]) == (True, dict.fromkeys(checks, True))
    assert said["found"]["migrations"] == {"known": len(read_migrations()), "unfit": None}
    assert said["found"]["clock"] == {"ahead_seconds": 0.0}
    for name in ("database", "store"):
        assert 0 <= said["found"][name]["since_answer_seconds"] < DEADLINE_SECONDS
    assert (await look(studio, "/healthz")).status_code == 404


async def test_health_is_not_on_the_port_of_the_api(studio: World) -> None:
    key = await studio.key()
    async with studio.client(key) as client:
        answer = await client.get(str(httpx.URL(studio.base_url).copy_with(path="/readyz")))
    assert answer.status_code == 404


async def test_an_upstream_that_is_gone_does_not_make_it_unready(studio: World) -> None:
    await studio.control.go_dark()
    assert (await look(studio, "/readyz")).status_code == 200


async def test_while_it_drains_it_is_alive_and_not_ready(tmp_path: Path) -> None:
    seen: list[tuple[int, int, bool]] = []

    async def watch(made: World) -> None:
        while True:
            alive, ready = await look(made, "/livez"), await look(made, "/readyz?verbose")
            checks = ready.json()["checks"]
            seen.append((alive.status_code, ready.status_code, checks["not_draining"]))
            if ready.status_code == 503:
                return

    async def looked() -> bool:
        return bool(seen)

    async with asyncio.TaskGroup() as group:
        async with world(tmp_path) as made:
            key = await made.key()
            client = made.client(key)
            watching = group.create_task(watch(made))
            await eventually(looked)
            post = group.create_task(
                client.post("/videos", json={"prompt": "a cat [[delay 1]] [[queue 1000]]"})
            )

            async def forwarded() -> bool:
                return await made.executions() == 1

            await eventually(forwarded)
        assert watching.done()
        assert (await post).status_code == 200
        await client.aclose()
    assert seen[0] == (200, 200, True)
    assert seen[-1] == (200, 503, False)


@pytest.mark.sqlite("it breaks the file")
async def test_without_its_database_for_ten_seconds_it_is_not_ready_until_it_is_back(
    tmp_path: Path, logged: LogLines
) -> None:
    async with world(tmp_path) as made:
        key = await made.key()
        path, kept = str(made.settings.database_path), str(tmp_path / "kept")
        await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", BREAK, path, kept], check=True
        )

        async def noticed() -> bool:
            return bool(logged.lines("database_unavailable"))

        await eventually(noticed)
        assert (await look(made, "/readyz")).status_code == 200
        async with made.client(key) as client:
            answer = await client.get("/videos/none")
            assert (answer.status_code, answer.json()["error"]["code"]) == (
                503,
                "database_unavailable",
            )
        made.timeline.offset_seconds += int(DATABASE_PATIENCE_SECONDS) + 1
        assert (await look(made, "/readyz")).status_code == 503
        assert (await look(made, "/readyz?verbose")).json()["checks"]["database"] is False
        assert (await look(made, "/livez")).status_code == 200
        await asyncio.to_thread(
            subprocess.run, [sys.executable, "-c", MEND, path, kept], check=True
        )

        # SQLite keeps the page it read until somebody writes.
        await made.key(name="another")

        async def ready() -> bool:
            return (await look(made, "/readyz")).status_code == 200

        await eventually(ready)
        await made.buy(key)
    assert [line["level"] for line in logged.lines("database_unavailable")] == ["error"]
    (back,) = logged.lines("database_available")
    assert back["duration_seconds"] > DATABASE_PATIENCE_SECONDS
    with sqlite3.connect(path) as connection:
        assert connection.execute("PRAGMA integrity_check").fetchall() == [("ok",)]
    connection.close()
