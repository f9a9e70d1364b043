"""Is the bill read whole, or an explanation given why not?"""

import gzip
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from plain_http import NO_TLS

from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings
from gateway.upstream.account import (
    MAX_PAGE_BYTES,
    MAX_PAGES,
    AccountError,
    AccountSettings,
    LogRefused,
    TokenRefused,
    TooMuch,
    Unreachable,
    Unreadable,
    read_bill,
)
from gateway.upstream.bill import CHARGE, REFUND, BillRow, NotABill, SaidNo, read_page

TOKEN = "account-simulator"
HOUR = 3_600


@dataclass
class Relay:
    url: str
    http: httpx.AsyncClient
    control: Control

    async def buy(self, prompt: str = "a cat", **fields: str) -> tuple[str, str]:
        answer = await self.http.post("/videos", json={"prompt": prompt, **fields})
        return answer.json()["id"], answer.headers["x-shellapi-request-id"]

    async def bill(
        self, *, before: int = HOUR, end: int | None = None, **changes: Any
    ) -> list[BillRow]:
        if end is None:
            end = int((await self.control.totals())["now"])
        settings = AccountSettings(**({"url": self.url, "token": TOKEN} | changes))
        return await read_bill(settings, start=end - before, end=end)


@asynccontextmanager
async def a_relay(**changes: Any) -> AsyncIterator[Relay]:
    settings = Settings(queue_seconds=0, generation_seconds=0, **changes)
    async with (
        Simulator(settings=settings) as simulator,
        Control(simulator.base_url) as control,
        httpx.AsyncClient(
            verify=NO_TLS,
            base_url=simulator.base_url,
            headers={"authorization": "Bearer sk-simulator"},
        ) as http,
    ):
        yield Relay(simulator.base_url.removesuffix("/v1"), http, control)


@pytest.fixture
async def relay() -> AsyncIterator[Relay]:
    async with a_relay() as made:
        yield made


@pytest.mark.parametrize("where", ["content", "other", "task_id"])
async def test_charges_and_refunds_name_their_video_wherever_the_id_stands(where: str) -> None:
    async with a_relay(log_ids=where) as relay:
        video, request_id = await relay.buy("[[fail]]")
        charge, refund = await relay.bill()
    assert (charge.kind, charge.micros, charge.request_id) == (CHARGE, 400_000, request_id)
    assert (refund.kind, refund.micros, refund.request_id) == (REFUND, -400_000, None)
    assert charge.upstream_id == refund.upstream_id == video
    assert charge.model == "sora-2"


async def test_an_empty_log_is_an_empty_bill(relay: Relay) -> None:
    assert await relay.bill() == []


async def test_every_page_is_read(relay: Relay) -> None:
    bought = [(await relay.buy())[1] for _ in range(7)]
    rows = await relay.bill(page_rows=3, pause_seconds=0)
    assert sorted(row.request_id or "" for row in rows) == sorted(bought)


async def test_the_log_is_asked_for_a_day_at_a_time_with_the_relays_own_spelling(
    relay: Relay,
) -> None:
    await relay.bill(before=2 * 86_400)
    queries = [httpx.QueryParams(one["query"]) for one in await relay.control.received()]
    assert {query["pageSize"] for query in queries} == {"1000"}
    assert {query["p"] for query in queries} == {"0"}
    assert [query["type"] for query in queries] == ["2", "11"] * 3
    spans = [int(query["end_timestamp"]) - int(query["start_timestamp"]) for query in queries]
    assert spans == [86_399] * 4 + [0] * 2


async def test_a_window_of_too_many_pages_is_halved(relay: Relay) -> None:
    now = int((await relay.control.totals())["now"])
    for number in range(MAX_PAGES + 2):
        await relay.control.add_to_log(
            model="m", micros=2, request_id=f"req_{number}", created_at=now - 2 * number
        )
    rows = await relay.bill(before=2 * MAX_PAGES + 8, end=now, page_rows=1, pause_seconds=0)
    assert len({row.request_id for row in rows}) == len(rows) == MAX_PAGES + 2


async def test_a_second_that_cannot_be_halved_is_too_much(relay: Relay) -> None:
    now = int((await relay.control.totals())["now"])
    for number in range(MAX_PAGES + 1):
        await relay.control.add_to_log(
            model="m", micros=2, request_id=f"req_{number}", created_at=now
        )
    with pytest.raises(TooMuch):
        await relay.bill(before=0, end=now, page_rows=1, pause_seconds=0)


async def test_a_mislabelled_page_is_read_all_the_same(relay: Relay) -> None:
    await relay.buy()
    await relay.control.fault("mislabelled", operation="account-log", times=None)
    assert len(await relay.bill()) == 1


@pytest.mark.parametrize("token", ["sk-simulator", "Bearer account-simulator", "tok\nen", "tökén"])
async def test_a_wrong_token_is_explained(relay: Relay, token: str) -> None:
    with pytest.raises(TokenRefused) as refusal:
        await relay.bill(token=token)
    assert token not in str(refusal.value)


@pytest.mark.parametrize(
    ("fault", "more", "error"),
    [
        ("html", {}, Unreadable),
        ("garbage", {}, Unreadable),
        ("empty", {}, Unreadable),
        ("answer", {"value": '{"success": true, "data": {"items": []}}'}, Unreadable),
        ("answer", {"value": '{"success": true, "data": [{"type": 2}]}'}, Unreadable),
        ("answer", {"value": '{"object": "list", "data": []}'}, Unreadable),
        ("answer", {"value": '{"success": false, "message": "no such user"}'}, LogRefused),
        ("500", {}, LogRefused),
        ("429", {}, LogRefused),
        ("302", {}, LogRefused),
        ("403", {}, TokenRefused),
        ("drop", {}, Unreachable),
        ("half-body", {}, Unreachable),
        ("hang", {}, Unreachable),
        ("slow", {"value": 10}, Unreachable),
    ],
)
async def test_what_is_no_bill_is_an_error_and_never_an_empty_one(
    relay: Relay, fault: str, more: dict[str, Any], error: type[AccountError]
) -> None:
    await relay.buy()
    await relay.control.fault(fault, operation="account-log", times=None, **more)
    with pytest.raises(error) as raised:
        await relay.bill(page_seconds=0.3)
    assert TOKEN not in str(raised.value)


async def test_a_refusal_passes_the_relays_words_on_without_the_token(relay: Relay) -> None:
    said = json.dumps({"success": False, "message": f"token {TOKEN} is locked"})
    await relay.control.fault("answer", operation="account-log", value=said)
    with pytest.raises(LogRefused, match="token … is locked"):
        await relay.bill()


async def test_a_page_that_unpacks_to_too_much_is_not_unpacked(relay: Relay) -> None:
    bomb = " " * (MAX_PAGE_BYTES + 1)
    assert len(gzip.compress(bomb.encode())) < MAX_PAGE_BYTES // 100
    await relay.control.fault("answer", operation="account-log", value=bomb)
    with pytest.raises(Unreadable, match="too long"):
        await relay.bill()


async def test_a_log_that_does_not_page_is_noticed(relay: Relay) -> None:
    row = {"type": 2, "quota": 1, "created_at": 5, "model_name": "m"}
    said = json.dumps({"success": True, "data": [row]})
    await relay.control.fault("answer", operation="account-log", times=None, value=said)
    with pytest.raises(Unreadable, match="every page alike"):
        await relay.bill()


async def test_nobody_at_the_address_is_unreachable() -> None:
    settings = AccountSettings("http://127.0.0.1:1", "token", page_seconds=5)
    with pytest.raises(Unreachable, match="could not be reached"):
        await read_bill(settings, start=0, end=1)


def test_the_token_is_not_in_the_repr() -> None:
    assert "secret" not in repr(AccountSettings("http://relay", "secret"))


def page(*rows: Any) -> bytes:
    return json.dumps({"success": True, "message": "", "data": list(rows)}).encode()


def a_row(**fields: Any) -> dict[str, Any]:
    return {"type": 2, "quota": 7, "created_at": 5, "model_name": "m", **fields}


@pytest.mark.parametrize(
    "content",
    [
        "操作 generate, 任务ID: video_12345678",
        "任务ID\uff1avideo_12345678\uff0c模型固定价格 0.4",
        "refund of task_id=video_12345678; generation failed",
        "Task ID: video_12345678, group ratio 1",
    ],
)
def test_an_id_is_found_within_words(content: str) -> None:
    (row,) = read_page(page(a_row(content=content)), kind=CHARGE).rows
    assert row.upstream_id == "video_12345678"


def test_other_is_json_in_a_string_or_an_object() -> None:
    for other in ('{"task_id": "task_1"}', {"task_id": "task_1"}):
        (row,) = read_page(page(a_row(other=other)), kind=CHARGE).rows
        assert row.upstream_id == "task_1"
    for odd in ("{", "[]", None, 7, '{"task_id": {}}', "[" * 100_000):
        (row,) = read_page(page(a_row(other=odd)), kind=CHARGE).rows
        assert row.upstream_id is None


def test_a_quota_is_two_micros_and_a_refund_is_negative_either_way() -> None:
    rows = [a_row(type=11, quota=-3), a_row(type=11, quota=3), a_row(type=2), a_row(type=1)]
    read = read_page(page(*rows), kind=REFUND)
    assert [row.micros for row in read.rows] == [-6, -6]
    assert read.count == 4
    assert [row.micros for row in read_page(page(*rows), kind=CHARGE).rows] == [14]


def test_a_request_that_was_refused_moves_no_money_and_is_no_row() -> None:
    read = read_page(page(a_row(quota=0, error_code="moderation_blocked")), kind=CHARGE)
    assert (read.rows, read.count) == ((), 1)


def test_nothing_of_a_row_is_kept_that_could_be_a_key() -> None:
    (row,) = read_page(page(a_row(token_key="secret", key="secret")), kind=CHARGE).rows
    assert "secret" not in repr(row)


@pytest.mark.parametrize(
    "row",
    [
        None,
        [],
        {},
        a_row(quota="7"),
        a_row(quota=7.5),
        a_row(quota=True),
        a_row(quota=10**16),
        a_row(created_at=None),
        a_row(type="2"),
    ],
)
def test_a_row_that_cannot_be_read_is_never_left_out(row: Any) -> None:
    with pytest.raises(NotABill, match="row 2 of the page"):
        read_page(page(a_row(), row), kind=CHARGE)


def test_nothing_may_be_null() -> None:
    assert read_page(b'{"success": true, "data": null}', kind=CHARGE).count == 0
    with pytest.raises(SaidNo):
        read_page(b'{"success": false, "message": null}', kind=CHARGE)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)
odd_rows = st.dictionaries(
    st.sampled_from(
        ["type", "quota", "created_at", "model_name", "request_id", "other", "content", "task_id"]
    ),
    json_values | st.sampled_from([2, 11]),
)


@given(st.binary() | st.lists(odd_rows).map(lambda rows: page(*rows)))
def test_any_bytes_are_a_page_or_no_bill(body: bytes) -> None:
    try:
        read = read_page(body, kind=CHARGE)
    except (NotABill, SaidNo):
        return
    assert all(row.kind == CHARGE and row.micros for row in read.rows)
