"""Do replicas hear at once what another one changed, and hear of it in the end all the same?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from conftest import ADMIN_KEY, World, eventually, world
from plain_http import NO_TLS

from gateway.api.auth import CACHE_SECONDS, LISTENING_SECONDS
from gateway.app import Running, running

pytestmark = pytest.mark.postgres("a file has no replicas")

LISTENERS = "query LIKE 'LISTEN%' OR query = 'SELECT 1'"


@asynccontextmanager
async def replica(made: World, *, listening: bool) -> AsyncIterator[Running]:
    """Another gateway on the same database."""
    settings = made.settings
    direct = settings.database_url if listening else ""
    changed = {name: getattr(settings, name) for name in settings.__slots__} | {
        "database_direct_url": direct
    }
    async with running(type(settings)(**changed), clock=made.timeline.clock()) as other:
        yield other


async def status(gateway: Running, value: str) -> int:
    async with httpx.AsyncClient(
        verify=NO_TLS, base_url=gateway.base_url, trust_env=False
    ) as client:
        answer = await client.get("/models", headers={"authorization": f"Bearer {value}"})
    return answer.status_code


async def revoke(made: World, key_id: str) -> None:
    async with made.client(ADMIN_KEY) as client:
        (project,) = (await client.get("/organization/projects")).json()["data"]
        path = f"/organization/projects/{project['id']}/api_keys/{key_id}"
        answer = await client.delete(path)
    assert answer.status_code == 200, answer.text


async def seconds_until_refused(gateway: Running, value: str) -> float:
    begun = asyncio.get_running_loop().time()
    while await status(gateway, value) != 401:
        await asyncio.sleep(0.01)
    return asyncio.get_running_loop().time() - begun


async def test_a_replica_that_listens_forgets_a_revoked_key_at_once(tmp_path: Path) -> None:
    async with world(tmp_path) as made, replica(made, listening=True) as other:
        await listened(made)
        key = await made.key()
        assert await status(other, key.value) == 200
        await revoke(made, key.id)
        assert await seconds_until_refused(other, key.value) < LISTENING_SECONDS / 5


async def test_a_replica_that_does_not_listen_forgets_it_within_two_seconds(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as made, replica(made, listening=False) as other:
        key = await made.key()
        assert await status(other, key.value) == 200
        await revoke(made, key.id)
        assert await seconds_until_refused(other, key.value) < 2
        assert CACHE_SECONDS < 2


async def test_a_replica_that_was_cut_off_from_changes_hears_them_again(tmp_path: Path) -> None:
    async with world(tmp_path) as made, replica(made, listening=True) as other:
        await listened(made)
        key = await made.key()
        assert await status(other, key.value) == 200
        await made.rows(f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE {MINE}")
        await revoke(made, key.id)
        assert await seconds_until_refused(other, key.value) < 2
        second = await made.key(name="second")
        await listened(made)
        assert await status(other, second.value) == 200
        await revoke(made, second.id)
        assert await seconds_until_refused(other, second.value) < LISTENING_SECONDS / 5


MINE = f"({LISTENERS}) AND datname = current_database()"


async def listened(made: World) -> None:
    async def there() -> bool:
        text = f"SELECT COUNT(*) AS listeners FROM pg_stat_activity WHERE {MINE}"
        return bool(await made.one(text))

    await eventually(there)
    await asyncio.sleep(0.2)  # the server has it; the replica is about to
