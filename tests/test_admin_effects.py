"""Do changes take effect at once and in every process, and leave their lines?"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest
from admin_clients import told
from conftest import ADMIN_KEY, World, a_change, environ_for, eventually, serving, world

from gateway.api.auth import CACHE_SECONDS, Authenticator
from gateway.billing.keys import NewKey, revoke_key
from gateway.db.database import Database
from gateway.db.script import Script
from gateway.errors import InvalidApiKey

T = TypeVar("T")

on_shared = pytest.mark.asyncio(loop_scope="module")


def path_of(key: NewKey, rest: str = "") -> str:
    return f"/projects/{key.project_id}/api_keys/{key.id}{rest}"


@on_shared
@pytest.mark.parametrize("end", ["key", "account", "project"])
async def test_a_remembered_key_ends_with_the_next_request_and_what_it_bought_still_settles(
    shared: World, end: str
) -> None:
    key = await shared.key(project=f"ending {end}")
    found = await told(shared, "GET", path_of(key))
    project = f"/projects/{key.project_id}"
    account = f"{project}/service_accounts/{found['owner']['service_account']['id']}"
    video_id = await shared.buy(key, "[[queue 1]]")
    async with shared.client(key) as client:
        assert (await client.get("/videos")).status_code == 200
        match end:
            case "key":
                await told(shared, "DELETE", path_of(key))
            case "account":
                await told(shared, "DELETE", account)
            case "project":
                await told(shared, "POST", f"{project}/archive")
        assert (await client.get("/videos")).status_code == 401
        assert (await client.post("/videos", json={"prompt": "a cat"})).status_code == 401
    await shared.control.advance(1)
    assert (await shared.ended(video_id))["hold_state"] == "settled"
    assert await shared.adds_up()


@on_shared
async def test_every_change_leaves_its_line_with_the_request_id_and_who_made_it(
    shared: World,
) -> None:
    (setting,) = (await told(shared, "GET", "/admin_api_keys?order=asc&limit=1"))["data"]
    key = await shared.key(project="audited")
    path = f"/projects/{key.project_id}"
    steps: tuple[tuple[str, str, dict[str, Any] | None, str], ...] = (
        ("POST", path, {"name": "audited"}, "project.updated"),
        ("POST", f"{path}/service_accounts", {"name": "a"}, "service_account.created"),
        ("POST", path_of(key), {"scopes": []}, "api_key.updated"),
        ("POST", path_of(key, "/rotate"), {}, "api_key.updated"),
        ("POST", path_of(key, "/limits"), {"max_price_usd": "9"}, "rate_limit.updated"),
        ("POST", f"{path}/limits", {"max_price_usd": "9"}, "rate_limit.updated"),
        (
            *("POST", f"{path}/rate_limits/rl-all"),
            *({"max_requests_per_1_day": 9}, "rate_limit.updated"),
        ),
        (
            *("POST", f"{path}/model_permissions"),
            *({"mode": "deny_list", "model_ids": ["x"]}, "project.updated"),
        ),
        ("DELETE", f"{path}/model_permissions", None, "project.updated"),
        ("DELETE", path_of(key), None, "api_key.deleted"),
        ("POST", f"{path}/archive", None, "project.archived"),
        ("POST", "/admin_api_keys", {"name": "b"}, "tenant.admin_api_key.created"),
    )
    for number, (method, where, sent, event) in enumerate(steps):
        request_id = f"audited-{number}"
        body = {} if sent is None else {"json": sent}
        await told(shared, method, where, headers={"x-request-id": request_id}, **body)
        lines = await shared.rows(
            "SELECT type, actor_kind, actor_id FROM audit_log WHERE request_id = $1 ORDER BY id",
            request_id,
        )
        assert tuple(lines[0]) == (event, "admin_key", setting["id"]), where
    values = await shared.rows("SELECT facts_before, facts_after FROM audit_log")
    assert key.value not in str([tuple(row) for row in values])


@on_shared
async def test_what_changes_nothing_leaves_no_line(shared: World) -> None:
    key = await shared.key()
    before = await shared.one("SELECT COUNT(*) FROM audit_log")
    path = f"/projects/{key.project_id}"
    for where in (path, path_of(key), path_of(key, "/limits"), f"{path}/rate_limits/rl-all"):
        await told(shared, "POST", where, json={})
    assert await shared.one("SELECT COUNT(*) FROM audit_log") == before


async def test_a_second_process_obeys_within_the_time_that_keys_are_remembered(
    tmp_path: Path,
) -> None:
    async with (
        world(tmp_path) as made,
        serving(environ_for(tmp_path, made.simulator.base_url)) as second,
    ):
        keys = [await made.key(name=name) for name in ("revoked", "read only", "rotated")]
        archived = await made.key(project="archived")
        limited = await made.key(name="limited")
        clock = asyncio.get_running_loop().time
        async with (
            second.client(keys[0]) as revoked,
            second.client(keys[1]) as read_only,
            second.client(keys[2]) as rotated,
            second.client(archived) as ended,
            second.client(limited) as narrow,
            second.client(ADMIN_KEY) as elsewhere,
        ):
            clients = (revoked, rotated, ended, read_only, narrow)
            assert {(await one.get("/videos")).status_code for one in clients} == {200}
            await told(made, "DELETE", path_of(keys[0]))
            await told(made, "POST", path_of(keys[1]), json={"scopes": ["api.all.read"]})
            await told(made, "POST", path_of(keys[2], "/rotate"))
            await told(made, "POST", f"/projects/{archived.project_id}/archive")
            denied = {"mode": "allow_list", "model_ids": []}
            await told(made, "POST", path_of(limited, "/model_permissions"), json=denied)
            since = clock()
            # Money does not wait for the memory of a key to fade.
            for one in (revoked, ended, read_only, narrow):
                answer = await one.post("/videos", json={"prompt": "a cat"})
                assert answer.status_code in {401, 403}

            async def obeyed() -> bool:
                answers = [await one.get("/videos") for one in clients]
                return [one.status_code for one in answers] == [401, 401, 401, 200, 200]

            await eventually(obeyed)
            assert clock() - since < CACHE_SECONDS + 1
            shown = await elsewhere.get(f"/organization{path_of(keys[1])}")
            assert shown.json()["scopes"] == ["api.all.read"]


@dataclass
class Slow:
    """A database whose reads are answered when the test says so."""

    database: Database
    has_read: asyncio.Event = field(default_factory=asyncio.Event)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)

    async def run(self, script: Callable[[], Script[T]]) -> T:
        return await self.database.run(script)

    async def run_beside(self, script: Callable[[], Script[T]]) -> T:
        return await self.database.run_beside(script)

    async def read(self, script: Callable[[], Script[T]]) -> T:
        answer = await self.database.read(script)
        self.has_read.set()
        await self.go_on.wait()
        return answer


@on_shared
async def test_a_key_that_ends_while_it_is_looked_up_is_not_remembered(shared: World) -> None:
    key, clock = await shared.key(), shared.timeline.clock()
    slow = Slow(shared.database)
    authenticator = Authenticator(database=slow, clock=clock)
    headers = {"authorization": f"Bearer {key.value}"}
    async with asyncio.TaskGroup() as group:
        asked = group.create_task(authenticator.authenticate(headers))
        await slow.has_read.wait()
        await shared.database.run(partial(revoke_key, a_change(clock), key_id=key.id))
        authenticator.forget()
        slow.go_on.set()
        assert (await asked).id == key.id
    with pytest.raises(InvalidApiKey):
        await authenticator.authenticate(headers)
