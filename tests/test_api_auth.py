"""Is it only a living virtual key that reads and buys, and does nothing tell why another fails?"""

from functools import partial

import httpx
import pytest
from conftest import World, a_change
from plain_http import NO_TLS

from gateway.api.auth import CACHE_SECONDS
from gateway.billing.key_values import ADMIN, VIRTUAL, new_value
from gateway.billing.keys import revoke_key, rotate_key, update_key

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def ask(
    made: World, authorization: str | None, *, method: str = "GET", path: str = "/videos/none"
) -> httpx.Response:
    headers = {} if authorization is None else {"authorization": authorization}
    async with httpx.AsyncClient(verify=NO_TLS, base_url=made.base_url, trust_env=False) as client:
        return await client.request(method, path, headers=headers)


async def revoke(made: World, key_id: str) -> None:
    change = a_change(made.timeline.clock())
    await made.database.run(partial(revoke_key, change, key_id=key_id))


async def test_every_wrong_key_gets_the_same_401(shared: World) -> None:
    key = await shared.key()
    revoked = await shared.key()
    await revoke(shared, revoked.id)
    last = "A" if key.value[-1] != "A" else "B"
    wrong = [
        None,
        "",
        "Bearer",
        key.value,
        f"Basic {key.value}",
        f"Bearer {key.value[:-1]}{last}",
        f"Bearer {key.value}x",
        f"Bearer {key.value} {key.value}",
        "Bearer sk-simulator",
        f"Bearer {new_value(VIRTUAL)}",
        f"Bearer {new_value(ADMIN)}",
        f"Bearer {revoked.value}",
    ]
    answers = [await ask(shared, one) for one in wrong]
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    error = answers[0].json()["error"]
    assert (error["type"], error["code"]) == ("invalid_request_error", "invalid_api_key")
    assert error["message"].startswith("Incorrect API key provided")
    assert {answer.headers["x-should-retry"] for answer in answers} == {"false"}
    headers = [set(answer.headers) for answer in answers]
    assert all(names == headers[0] for names in headers)


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/videos"),
        ("GET", "/videos/none"),
        ("HEAD", "/videos/none"),
        ("GET", "/videos/none/content"),
        ("HEAD", "/videos/none/content"),
    ],
)
async def test_no_path_answers_without_a_key(shared: World, method: str, path: str) -> None:
    assert (await ask(shared, None, method=method, path=path)).status_code == 401


@pytest.mark.parametrize("form", ["Bearer {}", "bearer {}", "BEARER  {}"])
async def test_a_key_is_known_however_its_header_is_spaced(shared: World, form: str) -> None:
    key = await shared.key()
    assert (await ask(shared, form.format(key.value))).status_code == 404


async def test_a_revoked_key_cannot_buy_even_while_it_is_remembered(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key)
    await shared.ended(video_id)
    before = await shared.total(), await shared.executions()
    async with shared.client(key) as client:
        assert (await client.get(f"/videos/{video_id}")).status_code == 200
        await revoke(shared, key.id)
        answer = await client.post("/videos", json={"prompt": "a cat"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (401, "invalid_api_key")
        shared.timeline.offset_seconds += int(CACHE_SECONDS) + 1
        assert (await client.get(f"/videos/{video_id}")).status_code == 401
    assert (await shared.total(), await shared.executions()) == before


async def test_a_key_of_an_archived_project_cannot_buy(shared: World) -> None:
    key = await shared.key(project="archived")
    await shared.change(
        "UPDATE projects SET archived_at = $2 WHERE id = $1", key.project_id, 1_700_000_000
    )
    async with shared.client(key) as client:
        answer = await client.post("/videos", json={"prompt": "a cat"})
    assert answer.status_code == 401


async def test_what_a_revoked_key_has_bought_still_settles(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[queue 1]]")
    await revoke(shared, key.id)
    await shared.control.advance(1)
    assert (await shared.ended(video_id))["hold_state"] == "settled"
    colleague = await shared.key()
    async with shared.client(colleague) as client:
        assert (await client.get(f"/videos/{video_id}")).json()["status"] == "completed"


async def test_a_rotated_value_opens_nothing_from_the_second_at_which_its_grace_ends(
    shared: World,
) -> None:
    key = await shared.key()
    fresh = new_value(VIRTUAL)
    assert (await ask(shared, f"Bearer {key.value}")).status_code == 404  # remembered from here on
    change = a_change(shared.timeline.clock())
    await shared.database.run(
        partial(rotate_key, change, key_id=key.id, value=fresh, grace_seconds=600)
    )
    assert (await ask(shared, f"Bearer {key.value}")).status_code == 404
    assert (await ask(shared, f"Bearer {fresh}")).status_code == 404
    ends_at = change.now + 600
    shared.timeline.offset_seconds += ends_at - 10 - shared.timeline.clock().now()
    assert (await ask(shared, f"Bearer {key.value}")).status_code == 404
    shared.timeline.offset_seconds += ends_at - shared.timeline.clock().now()
    assert (await ask(shared, f"Bearer {key.value}")).status_code == 401
    buying = await ask(shared, f"Bearer {key.value}", method="POST", path="/videos")
    assert buying.status_code == 401
    assert (await ask(shared, f"Bearer {fresh}")).status_code == 404


async def test_a_remembered_key_ends_at_the_second_at_which_it_expires(shared: World) -> None:
    key = await shared.key()
    clock = shared.timeline.clock()
    expires_at = clock.now() + 60
    script = partial(
        update_key,
        a_change(clock),
        project_id=key.project_id,
        key_id=key.id,
        scope=None,
        expires_at=expires_at,
    )
    await shared.database.run(script)
    shared.timeline.offset_seconds += expires_at - 10 - clock.now()
    assert (await ask(shared, f"Bearer {key.value}")).status_code == 404
    shared.timeline.offset_seconds += expires_at - clock.now()
    assert (await ask(shared, f"Bearer {key.value}")).status_code == 401
