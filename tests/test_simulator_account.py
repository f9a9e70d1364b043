"""Does the simulator's account answer as the relay's does?"""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from plain_http import NO_TLS

from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings

KEY = {"authorization": "Bearer sk-simulator"}
TOKEN = {"authorization": "account-simulator"}


@dataclass
class Relay:
    http: httpx.AsyncClient
    control: Control

    async def buy(self, prompt: str = "a cat", **fields: str) -> tuple[str, str]:
        """Buy a video; return its id and the relay's id of the request."""
        answer = await self.http.post("/v1/videos", json={"prompt": prompt, **fields}, headers=KEY)
        return answer.json()["id"], answer.headers["x-shellapi-request-id"]

    async def account(self, what: str, **query: str | int) -> Any:
        answer = await self.http.get(f"/api/{what}/self", params=query, headers=TOKEN)
        assert answer.status_code == 200, answer.text
        return answer.json()

    async def log(self, **query: str | int) -> list[dict[str, Any]]:
        answer = await self.account("log", **query)
        assert (answer["success"], answer["message"]) == (True, "")
        return list(answer["data"])


@asynccontextmanager
async def a_relay(**changes: Any) -> AsyncIterator[Relay]:
    settings = Settings(queue_seconds=0, generation_seconds=0, **changes)
    async with (
        Simulator(settings=settings) as simulator,
        Control(simulator.base_url) as control,
        httpx.AsyncClient(verify=NO_TLS, base_url=simulator.base_url.removesuffix("/v1")) as http,
    ):
        yield Relay(http, control)


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with a_relay() as made:
        yield made


async def test_a_submit_is_charged_at_once_with_both_ids(relay: Relay) -> None:
    video, request_id = await relay.buy(seconds="8")
    (row,) = await relay.log()
    assert (row["type"], row["quota"], row["model_name"]) == (2, 400_000, "sora-2")
    assert row["request_id"] == request_id
    assert row["content"].endswith(f"任务ID: {video}")
    assert json.loads(row["other"])["request_path"] == "/v1/videos"


async def test_a_failure_is_given_back_by_a_row_without_a_request_id(relay: Relay) -> None:
    video, _ = await relay.buy("[[fail]] [[generation 60]]")
    assert [row["type"] for row in await relay.log()] == [2]
    await relay.control.advance(61)
    refund, charge = await relay.log()
    assert (refund["type"], refund["quota"], refund["request_id"]) == (11, -200_000, "")
    assert video in refund["content"]
    assert refund["created_at"] - charge["created_at"] == 60
    assert (await relay.account("task", task_id=video))["data"]["items"][0]["quota"] == 200_000


async def test_a_moderated_video_keeps_its_charge_where_its_model_is_billed(relay: Relay) -> None:
    await relay.buy("[[moderate-completed]]", model="grok-imagine-video")
    assert [row["type"] for row in await relay.log()] == [2]
    await relay.buy("[[moderate-completed]]")
    assert sorted(row["type"] for row in await relay.log()) == [2, 2, 11]


async def test_a_submit_whose_answer_was_lost_is_charged(relay: Relay) -> None:
    with pytest.raises(httpx.RemoteProtocolError):
        await relay.buy("[[drop]]")
    assert (await relay.http.post("/v1/videos", json={"prompt": "[[400]]"}, headers=KEY)).is_error
    (row,) = await relay.log(type=2)
    assert row["quota"] == 200_000


async def test_an_extension_is_charged_for_what_it_adds(relay: Relay) -> None:
    source, _ = await relay.buy(seconds="8")
    body = {"prompt": "on", "seconds": "4", "video": {"id": source}}
    answer = await relay.http.post("/v1/videos/extensions", json=body, headers=KEY)
    assert answer.json()["seconds"] == "12"
    assert sorted(row["quota"] for row in await relay.log()) == [200_000, 400_000]


async def test_the_log_pages_from_zero_and_knows_only_the_camel_spelling(relay: Relay) -> None:
    bought = {(await relay.buy())[1] for _ in range(12)}
    pages = [await relay.log(p=page, pageSize=5) for page in range(4)]
    assert [len(page) for page in pages] == [5, 5, 2, 0]
    assert {row["request_id"] for page in pages for row in page} == bought
    assert len(await relay.log(page_size=100)) == 10
    refused = await relay.account("log", pageSize=5001)
    assert refused["success"] is False
    assert "5000" in refused["message"]


async def test_the_log_is_filtered_by_type_time_model_and_request(relay: Relay) -> None:
    _, first = await relay.buy("[[fail]]")
    now = int((await relay.control.totals())["now"])
    await relay.control.advance(100)
    await relay.buy(model="grok-imagine-video")
    assert len(await relay.log(type=11)) == 1
    assert len(await relay.log(type=2, end_timestamp=now + 50)) == 1
    assert len(await relay.log(start_timestamp=now + 50)) == 1
    assert len(await relay.log(model_name="grok-imagine-video")) == 1
    assert [row["type"] for row in await relay.log(request_id=first)] == [2]


async def test_the_log_is_gzip_whatever_the_client_accepts(relay: Relay) -> None:
    await relay.buy()
    headers = {**TOKEN, "accept-encoding": "identity"}
    async with relay.http.stream("GET", "/api/log/self", headers=headers) as answer:
        raw = b"".join([chunk async for chunk in answer.aiter_raw()])
    assert answer.headers["content-encoding"] == "gzip"
    assert len(json.loads(gzip.decompress(raw))["data"]) == 1


@pytest.mark.parametrize("path", ["/api/user/self", "/api/log/self", "/api/task/self"])
@pytest.mark.parametrize("authorization", ["Bearer account-simulator", "Bearer sk-simulator", ""])
async def test_the_account_wants_its_own_token_bare(
    relay: Relay, path: str, authorization: str
) -> None:
    answer = await relay.http.get(path, headers={"authorization": authorization})
    assert answer.status_code == 401
    assert answer.json()["success"] is False


async def test_the_accounts_token_buys_nothing(relay: Relay) -> None:
    for authorization in ("account-simulator", "Bearer account-simulator"):
        headers = {"authorization": authorization}
        answer = await relay.http.post("/v1/videos", json={"prompt": "a cat"}, headers=headers)
        assert answer.status_code == 401
    (await relay.http.get("/api/user/self", headers=TOKEN)).raise_for_status()
    seen = await relay.control.received("account-user")
    assert seen[0]["headers"]["authorization"] == "account-simulator"


async def test_the_balance_is_what_was_not_used(relay: Relay) -> None:
    await relay.buy()
    await relay.buy("[[fail]]")
    told = await relay.account("user")
    assert (told["data"]["used_quota"], told["data"]["request_count"]) == (200_000, 2)
    assert told["data"]["quota"] == 50_000_000 - 200_000


async def test_tasks_page_from_one(relay: Relay) -> None:
    ids = [(await relay.buy())[0] for _ in range(3)]
    first = await relay.account("task", p=1, page_size=2)
    second = await relay.account("task", p=2, page_size=2)
    assert first["data"]["total"] == 3
    items = first["data"]["items"] + second["data"]["items"]
    assert [item["task_id"] for item in items] == ids[::-1]
    assert {item["status"] for item in items} == {"completed"}


@pytest.mark.parametrize("where", ["content", "other", "task_id"])
async def test_the_videos_id_stands_where_the_settings_say(where: str) -> None:
    async with a_relay(log_ids=where) as relay:
        video, _ = await relay.buy()
        (row,) = await relay.log()
    holds_it = {name for name in ("content", "other", "task_id") if video in row.get(name, "")}
    assert holds_it == {where}


async def test_the_log_can_be_falsified(relay: Relay) -> None:
    dropped, changed, kept = [(await relay.buy("[[fail]]"))[0] for _ in range(3)]
    await relay.control.drop_from_log(dropped)
    await relay.control.change_in_log(changed, micros=500_000)
    await relay.control.add_to_log(
        model="gpt-5.6", micros=15_000, request_id="foreign", created_at=7
    )
    rows = await relay.log()
    assert not [row for row in rows if dropped in row["content"]]
    assert [row["quota"] for row in rows if changed in row["content"]] == [250_000, -250_000]
    assert [row["quota"] for row in rows if kept in row["content"]] == [200_000, -200_000]
    assert [row["created_at"] for row in rows if row["request_id"] == "foreign"] == [7]
    with pytest.raises(httpx.HTTPStatusError):
        await relay.control.drop_from_log("video_nobody")


async def test_faults_strike_the_account_too(relay: Relay) -> None:
    await relay.control.fault("500", operation="account-log")
    assert (await relay.http.get("/api/log/self", headers=TOKEN)).status_code == 500
    await relay.control.fault("mislabelled", operation="account-log")
    with pytest.raises(httpx.DecodingError):
        await relay.log()
    assert await relay.log() == []
