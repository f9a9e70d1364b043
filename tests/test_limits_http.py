"""What does a client see of limits, and does only what it buys count, at any concurrency?"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import httpx
import pytest
from conftest import World, a_change, eventually, world

from gateway.api.auth import CACHE_SECONDS
from gateway.billing.keys import READ, NewKey, update_key
from gateway.billing.levels import find_level
from gateway.billing.permissions import ALLOW, DENY, Permissions, set_permissions
from gateway.db.script import Script
from gateway.simulator.world import Settings as SimulatorSettings

SLOW = SimulatorSettings(queue_seconds=3600, generation_seconds=3600)
BODY = {"prompt": "a cat"}


@pytest.fixture
async def made(tmp_path: Path) -> AsyncIterator[World]:
    async with world(tmp_path, simulated=SLOW) as made:
        await made.next_day()
        yield made


async def ask(
    made: World,
    key: NewKey,
    body: dict[str, str] | None = None,
    *,
    headers: dict[str, str] | None = None,
) -> httpx.Response:
    async with made.client(key) as client:
        return await client.post("/videos", json=body or BODY, headers=headers)


async def counted(made: World) -> list[int]:
    return sorted(row["requests"] for row in await made.rows("SELECT requests FROM request_counts"))


def code_of(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


async def permit(made: World, level: str, level_id: str, permissions: Permissions) -> None:
    def script() -> Script[None]:
        found = yield from find_level(level, named=level_id)
        assert found is not None
        yield from set_permissions(change, found, permissions)

    change = a_change(made.timeline.clock())
    await made.database.run(script)


async def test_of_two_hundred_concurrent_creates_a_limit_of_seven_admits_seven(
    made: World,
) -> None:
    keys = [await made.key(name=f"key {number}") for number in range(4)]
    await made.limit("project", keys[0].project_id, requests_per_minute=7)
    clients = [made.client(key) for key in keys]
    answers = await asyncio.gather(
        *(
            clients[number % len(clients)].post("/videos", json={"prompt": f"cat {number}"})
            for number in range(200)
        )
    )
    await asyncio.gather(*(client.aclose() for client in clients))
    assert Counter(answer.status_code for answer in answers) == {200: 7, 429: 193}
    left = [
        int(answer.headers["x-ratelimit-remaining-requests"])
        for answer in answers
        if answer.status_code == 200
    ]
    assert sorted(left) == list(range(7))
    assert {code_of(answer) for answer in answers if answer.status_code == 429} == {
        (429, "rate_limit_exceeded")
    }
    assert await counted(made) == [7]
    assert await made.executions() == 7
    assert await made.total() == (0, 7 * 400_000)
    assert await made.adds_up()


async def test_an_admitted_create_tells_what_is_left_of_the_nearest_limit(made: World) -> None:
    key = await made.key()
    assert "x-ratelimit-limit-requests" not in (await ask(made, key)).headers
    await made.limit("project", key.project_id, requests_per_day=2, requests_per_minute=9)
    headers = (await ask(made, key)).headers
    assert headers["x-ratelimit-limit-requests"] == "2"
    assert headers["x-ratelimit-remaining-requests"] == "1"
    assert headers["x-ratelimit-reset-requests"].startswith(("24h0m0s", "23h59m"))


async def test_a_refusal_by_the_minute_says_when_to_come_back_and_that_an_sdk_may(
    made: World,
) -> None:
    key = await made.key()
    await made.limit("key", key.id, requests_per_minute=1)
    assert (await ask(made, key)).status_code == 200
    answer = await ask(made, key)
    assert code_of(answer) == (429, "rate_limit_exceeded")
    assert answer.json()["error"]["type"] == "rate_limit_error"
    wait = int(answer.headers["retry-after"])
    assert 30 < wait <= 60
    assert answer.headers["retry-after-ms"] == str(wait * 1000)
    assert answer.headers["x-ratelimit-limit-requests"] == "1"
    assert answer.headers["x-ratelimit-remaining-requests"] == "0"
    assert answer.headers["x-ratelimit-reset-requests"] in {f"{wait}s", "1m0s"}
    assert "x-should-retry" not in answer.headers
    assert "This key may make 1 billable requests per minute" in answer.text
    made.timeline.offset_seconds += wait
    assert (await ask(made, key)).status_code == 200


async def test_a_refusal_by_the_day_tells_an_sdk_not_to_come_back(made: World) -> None:
    key = await made.key()
    await made.limit("project", key.project_id, model="sora-2", requests_per_day=1)
    assert (await ask(made, key)).status_code == 200
    answer = await ask(made, key)
    assert code_of(answer) == (429, "rate_limit_exceeded")
    assert answer.headers["x-should-retry"] == "false"
    assert int(answer.headers["retry-after-ms"]) > 23 * 3_600_000
    assert "This project may make 1 billable requests per day for sora-2" in answer.text
    made.timeline.offset_seconds += 86_400
    assert (await ask(made, key)).status_code == 200


async def test_replays_and_retries_of_an_sdk_count_nothing(made: World) -> None:
    key = await made.key(budget="4.00")
    await made.limit("key", key.id, requests_per_day=2)
    replayed = {"idempotency-key": "one"}
    first = await ask(made, key, headers=replayed)
    for _ in range(3):
        again = await ask(made, key, headers=replayed)
        assert (again.status_code, again.content) == (200, first.content)
        assert again.headers["idempotent-replayed"] == "true"
        assert again.headers["x-gateway-cost-usd"] == "0.40"
        assert again.headers["x-gateway-budget-remaining-usd"] == "3.60"
        assert again.headers["x-gateway-budget-level"] == "key"
    assert await counted(made) == [1]
    second = await ask(made, key, {"prompt": "a dog"})
    again = await ask(made, key, {"prompt": "a dog"}, headers={"x-stainless-retry-count": "1"})
    assert again.json()["id"] == second.json()["id"]
    assert again.headers["x-gateway-deduplicated"] == "true"
    assert again.headers["x-gateway-cost-usd"] == "0.40"
    assert again.headers["x-gateway-budget-remaining-usd"] == "3.20"
    assert await counted(made) == [2]
    assert code_of(await ask(made, key)) == (429, "rate_limit_exceeded")


async def test_what_is_refused_before_the_hold_counts_nothing(made: World) -> None:
    key = await made.key(budget="0.50", period="total")
    await made.limit("key", key.id, requests_per_day=2)
    for body, status in [({"prompt": ""}, 400), ({**BODY, "seconds": "8"}, 429)]:
        assert (await ask(made, key, body)).status_code == status
        assert await counted(made) == []
    async with made.client(key) as client:
        answer = await client.post("/videos/extensions", json={"prompt": "on", "seconds": "4"})
    assert code_of(answer) == (400, "operation_not_offered")
    assert await counted(made) == []
    assert (await ask(made, key)).headers["x-ratelimit-remaining-requests"] == "1"


async def test_a_dry_run_tells_the_limits_and_takes_no_place(made: World) -> None:
    key = await made.key()
    await made.limit("key", key.id, requests_per_day=1, videos_in_flight=5)
    for _ in range(3):
        answer = (await ask(made, key, headers={"x-gateway-dry-run": "true"})).json()
        assert answer["allowed"]
        assert answer["rate_limits"] == [
            {"level": "key", "model": None, "window": "day", "limit": 1, "remaining": 1}
        ]
    assert await counted(made) == []
    assert (await ask(made, key)).status_code == 200
    answer = (await ask(made, key, headers={"x-gateway-dry-run": "true"})).json()
    assert (answer["allowed"], answer["cost_usd"]) == (False, "0.40")
    assert "1 billable requests per day" in answer["message"]
    assert await counted(made) == [1]


async def test_a_place_in_flight_is_free_again_when_its_video_is_finished(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        key = await made.key()
        await made.limit("project", key.project_id, videos_in_flight=1)
        video_id = await made.buy(key, "[[queue 1]]")
        answer = await ask(made, key)
        assert code_of(answer) == (429, "rate_limit_exceeded")
        assert answer.headers["retry-after"] == "10"
        assert "x-should-retry" not in answer.headers
        assert "1 videos in the making" in answer.text
        await made.control.advance(1)
        await made.ended(video_id)
        assert (await ask(made, key)).status_code == 200


async def test_a_price_limit_says_what_would_fit(made: World) -> None:
    key = await made.key()
    await made.limit("key", key.id, price_micros=1_000_000)
    answer = await ask(made, key, {**BODY, "seconds": "12"})
    assert code_of(answer) == (403, "price_limit_exceeded")
    assert answer.json()["error"]["message"] == (
        "This request costs $1.20 at list price, and one request of this key may cost $1.00."
        " Would still fit: sora-2 at 720x1280 for 8 seconds ($0.80)."
    )
    assert answer.headers["x-should-retry"] == "false"
    assert (await ask(made, key, {**BODY, "seconds": "8"})).status_code == 200


@pytest.mark.parametrize(
    "permissions", [Permissions(ALLOW, ("sora-2",)), Permissions(DENY, ("sora-2-pro",))]
)
@pytest.mark.parametrize("level", ["project", "key"])
async def test_a_model_that_is_not_permitted_is_refused_with_its_name_and_level(
    made: World, level: str, permissions: Permissions
) -> None:
    key = await made.key()
    await permit(made, level, key.project_id if level == "project" else key.id, permissions)
    answer = await ask(made, key, {**BODY, "model": "sora-2-pro"})
    assert code_of(answer) == (403, "model_not_found")
    assert answer.json()["error"] == {
        "message": f"The {level} that this request belongs to does not have access to model"
        " 'sora-2-pro'.",
        "type": "invalid_request_error",
        "param": "model",
        "code": "model_not_found",
    }
    dry = await ask(
        made, key, {**BODY, "model": "sora-2-pro"}, headers={"x-gateway-dry-run": "true"}
    )
    assert (dry.json()["allowed"], dry.json()["message"]) == (
        False,
        answer.json()["error"]["message"],
    )
    assert await made.total() == (0, 0)
    assert (await ask(made, key)).status_code == 200


async def test_a_key_that_may_only_read_reads_and_buys_nothing(made: World) -> None:
    buyer, reader = await made.key(), await made.key()
    video_id = await made.buy(buyer)
    change = partial(
        update_key, project_id=reader.project_id, key_id=reader.id, scope=READ, expires_at=None
    )
    await made.database.run(partial(change, a_change(made.timeline.clock())))
    async with made.client(reader) as client:
        assert (await client.get(f"/videos/{video_id}")).status_code == 200
        assert (await client.get("/videos")).json()["data"][0]["id"] == video_id
        for headers in ({}, {"x-gateway-dry-run": "true"}):
            answer = await client.post("/videos", json=BODY, headers=headers)
            assert code_of(answer) == (403, "insufficient_permissions")
    assert await made.executions() == 1


async def test_a_key_whose_scope_was_narrowed_a_moment_ago_buys_nothing(made: World) -> None:
    key = await made.key()
    async with made.client(key) as client:
        assert (await client.get("/videos")).status_code == 200  # remembered from here on
        script = partial(
            update_key,
            a_change(made.timeline.clock()),
            project_id=key.project_id,
            key_id=key.id,
            scope=READ,
            expires_at=None,
        )
        await made.database.run(script)
        assert code_of(await client.post("/videos", json=BODY)) == (401, "invalid_api_key")
        made.timeline.offset_seconds += int(CACHE_SECONDS) + 1
        assert code_of(await client.post("/videos", json=BODY)) == (
            403,
            "insufficient_permissions",
        )
    assert (await made.total(), await made.executions()) == ((0, 0), 0)


async def test_reads_are_limited_by_key_and_project_and_a_refused_one_is_not_counted(
    made: World,
) -> None:
    key, other, third = [await made.key(name=name) for name in ("one", "two", "three")]
    await made.limit("key", key.id, reads_per_minute=2)
    await made.limit("project", key.project_id, reads_per_minute=5)

    async def reads(one: NewKey, times: int, method: str = "GET") -> list[int]:
        async with made.client(one) as client:
            return [(await client.request(method, "/videos")).status_code for _ in range(times)]

    assert await reads(key, 4) == [200, 200, 429, 429]
    assert await reads(other, 2) == [200, 200]
    assert await reads(third, 2) == [200, 429]
    async with made.client(key) as client:
        answer = await client.get("/videos/none/content")
        assert code_of(answer) == (429, "rate_limit_exceeded")
        assert answer.headers["x-ratelimit-remaining-requests"] == "0"
        assert 0 < int(answer.headers["retry-after"]) <= 60
        assert "x-should-retry" not in answer.headers
        assert (await client.post("/videos", json=BODY)).status_code == 200
    made.timeline.offset_seconds += 60
    assert await reads(key, 3) == [200, 200, 429]


async def test_the_setting_limits_the_reads_of_keys_without_a_limit_of_their_own(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, read_requests_per_minute=1) as made:
        await made.next_day()
        plain, own = await made.key(), await made.key()
        await made.limit("key", own.id, reads_per_minute=3)
        for key, expected in [(plain, [404, 429]), (own, [404, 404, 404, 429])]:
            async with made.client(key) as client:
                got = [(await client.head("/videos/none")).status_code for _ in expected]
            assert got == expected


async def test_when_a_key_was_last_used_is_written_down(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        key, unused = await made.key(), await made.key()
        await made.buy(key)
        now = made.timeline.clock().now()
    async with world(tmp_path) as made:

        async def used() -> object:
            return await made.one("SELECT last_used_at FROM keys WHERE id = $1", key.id)

        found = await eventually(used)
        assert now - 30 <= found <= now
        assert await made.one("SELECT last_used_at FROM keys WHERE id = $1", unused.id) is None
