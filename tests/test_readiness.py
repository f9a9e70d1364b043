"""Does a gateway want no requests once its database is gone, or has become a newer program's?"""

import asyncio
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import LogLines, World, eventually, world
from databases import url_of
from metrics_tools import scrape
from plain_http import NO_TLS
from tcp_proxy import tcp_proxy

from gateway.api.health import CHECK_SECONDS, DATABASE_PATIENCE_SECONDS
from gateway.db.migrate import read_migrations

KNOWN = len(read_migrations())
# How long Prometheus waits for a scrape unless it is told otherwise.
PROMETHEUS_SECONDS = 10


async def readiness(made: World) -> tuple[int, dict[str, Any]]:
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{made.gateway.ops_port}/readyz?verbose")
    return answer.status_code, answer.json()


async def becomes(made: World, status: int) -> dict[str, Any]:
    """Wait for a status, and return what is said with it."""

    async def met() -> dict[str, Any] | None:
        found, said = await readiness(made)
        return said if found == status else None

    said: dict[str, Any] = await eventually(met)
    return said


async def apply(made: World, number: int, name: str, *, compatible_with: int) -> None:
    """Write down that a newer program has applied a migration."""
    await made.change(
        "INSERT INTO schema_migrations (number, name, sha256, compatible_with, applied_at)"
        " VALUES ($1, $2, 'x', $3, 1)",
        *(number, name, compatible_with),
    )


async def test_a_migration_that_leaves_no_room_for_this_program_makes_it_unready_while_it_is_there(
    studio: World, logged: LogLines
) -> None:
    key = await studio.key()
    await apply(studio, KNOWN + 1, "expands", compatible_with=KNOWN)
    await studio.buy(key)
    await apply(studio, KNOWN + 2, "contracts", compatible_with=KNOWN + 1)
    said = await becomes(studio, 503)
    assert [name for name, passes in said["checks"].items() if not passes] == ["migrations"]
    assert said["found"]["migrations"]["unfit"] == (
        f"the database is newer than this program: it has migration {KNOWN + 2}, contracts, and"
        f" needs a program that knows migration {KNOWN + 1}; this one knows {KNOWN}"
    )
    async with studio.client(key) as client:
        answer = await client.post("/videos", json={"prompt": "a cat"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "draining")
        assert "x-should-retry" not in answer.headers
        assert (await client.get("/videos")).status_code == 200
    assert await studio.executions() == 1
    (alarm,) = logged.lines("migrations_unfit")
    assert (alarm["level"], alarm["cause"]) == ("error", said["found"]["migrations"]["unfit"])
    await studio.change("DELETE FROM schema_migrations WHERE number > $1", KNOWN)
    await becomes(studio, 200)
    await studio.buy(key)
    assert len(logged.lines("migrations_unfit")) == 1


@pytest.mark.costly
async def test_a_database_that_lacks_a_migration_makes_it_unready(
    studio: World, logged: LogLines
) -> None:
    await studio.change("DELETE FROM schema_migrations WHERE number = $1", KNOWN)
    said = await becomes(studio, 503)
    name = read_migrations()[-1].name
    assert said["found"]["migrations"]["unfit"] == f"the database lacks migration {KNOWN}, {name}"
    assert len(logged.lines("migrations_unfit")) == 1


@pytest.mark.postgres("a file does not fall silent")
async def test_a_database_that_says_nothing_for_ten_seconds_makes_it_unready_until_it_answers(
    tmp_path: Path,
) -> None:
    url = url_of(tmp_path / "gateway.db")
    async with tcp_proxy(url) as proxy, world(tmp_path, database_url=proxy.url(url)) as made:

        async def since_answer(at_least: float) -> bool:
            found = (await readiness(made))[1]["found"]["database"]["since_answer_seconds"]
            return found is not None and bool(found >= at_least)

        await eventually(lambda: since_answer(0))
        proxy.stall()
        await eventually(lambda: since_answer(CHECK_SECONDS + 1))
        assert (await readiness(made))[0] == 200
        async with asyncio.timeout(PROMETHEUS_SECONDS):
            found = await scrape(made.gateway.ops_port)
        assert found.sum("records_readable") == 0
        assert found.sum("processes") == 1
        made.timeline.offset_seconds += int(DATABASE_PATIENCE_SECONDS)
        status, said = await readiness(made)
        assert (status, said["checks"]["database"]) == (503, False)
        proxy.flow()
        await becomes(made, 200)
