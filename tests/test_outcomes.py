"""What do client, ledger and orphan list say after each outcome of a submit?

The table below is the design's, row by row: a fault of the simulator, what the client is told,
what becomes of the hold, and how often the upstream executed.
"""

import asyncio
import socket
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conftest import LogLines, World, eventually, world

from gateway.config import UpstreamConfig
from gateway.db.script import Row
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.videos.orphans import list_orphans

pytestmark = pytest.mark.asyncio(loop_scope="module")

PRICE_MICROS = 400_000
RELEASED = "released"
HELD = "held"


@dataclass(frozen=True, kw_only=True)
class Case:
    """One row: `orphan` is the reason in the list of orphans, None where there is none."""

    fault: str
    status: int
    code: str | None
    retry: bool = False
    hold: str = RELEASED
    orphan: str | None = None
    executed: int = 0
    value: str | int | None = None
    arguments: dict[str, Any] = field(default_factory=dict)


def unknown(fault: str, reason: str, *, status: int = 502, executed: int = 0, **rest: Any) -> Case:
    return Case(
        fault=fault,
        status=status,
        code="outcome_unknown",
        hold=HELD,
        orphan=reason,
        executed=executed,
        **rest,
    )


CASES = [
    # The upstream said no to the request: its own words are passed on.
    Case(fault="refuse", status=400, code="invalid_request"),
    Case(fault="flat", status=400, code="invalid_request"),
    Case(fault="400", status=400, code=None),
    Case(fault="404", status=404, code=None),
    Case(fault="410", status=410, code=None),
    Case(fault="moderate", status=400, code="moderation_blocked"),
    Case(fault="moderate-403", status=403, code="content_policy_violation"),
    # It said no to the gateway: fixed words.
    Case(fault="401", status=502, code="upstream_auth"),
    Case(fault="403", status=502, code="upstream_misconfigured"),
    Case(fault="unverified", status=502, code="upstream_misconfigured"),
    Case(fault="no-channel", status=502, code="upstream_misconfigured"),
    Case(fault="402", status=503, code="upstream_balance"),
    Case(fault="balance", status=503, code="upstream_balance"),
    Case(fault="balance-403", status=503, code="upstream_balance"),
    Case(fault="balance-flat", status=503, code="upstream_balance"),
    Case(fault="insufficient-quota", status=503, code="upstream_balance"),
    Case(fault="429", status=429, code="rate_limit_exceeded", retry=True, value=7),
    # It said no in an envelope, after a failure of its own.
    Case(fault="500-envelope", status=500, code="do_request_failed", retry=True),
    Case(fault="503-envelope", status=503, code="capacity", retry=True),
    # Nobody can say whether there is a video.
    unknown("500-executed", "unknown_code", executed=1),
    unknown("500", "server_error"),
    unknown("503", "server_error"),
    unknown("502", "bad_gateway"),
    unknown("502", "bad_gateway", executed=1, arguments={"executed": True}),
    unknown("502-envelope", "bad_gateway"),
    unknown("504", "gateway_timeout", status=504, executed=1),
    unknown("520", "server_error", executed=1),
    unknown("408", "request_timeout", status=504, executed=1),
    unknown("499", "client_closed", executed=1),
    unknown("301", "redirect"),
    unknown("302", "redirect"),
    unknown("303", "redirect"),
    unknown("307", "redirect"),
    unknown("308", "redirect"),
    unknown("html", "not_json", executed=1),
    unknown("empty", "not_json", executed=1),
    unknown("garbage", "not_json", executed=1),
    unknown("answer", "not_an_object", value="[]"),
    unknown("answer", "unusable_id", value='{"id": ""}'),
    unknown("answer", "unusable_id", value='{"id": 7}'),
    unknown("answer", "unusable_id", value='{"status": "queued"}', arguments={"status": 202}),
    unknown("no-id", "unusable_id", executed=1),
    unknown("id", "unusable_id", value="control", executed=1),
    unknown("id", "unusable_id", value="long", executed=1),
    unknown("hang", "answer_timeout", status=504, executed=1),
    unknown("drop", "connection_lost", executed=1),
    unknown("drop-early", "connection_lost"),
    unknown("half-headers", "truncated", executed=1),
    unknown("half-body", "truncated", executed=1),
    unknown("stall", "answer_timeout", status=504, executed=1),
]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def table(place: Path) -> AsyncIterator[World]:
    folder = place / "outcomes"
    async with world(folder, upstream_post_seconds=1) as made:
        yield made


async def orphans(made: World) -> dict[str, Row]:
    return {row["id"]: row for row in await made.database.read(list_orphans)}


async def outcome(made: World, key_id: str) -> dict[str, Any]:
    """Return the only video that a key has tried to buy, with its hold."""
    (row,) = await made.rows(
        "SELECT videos.id, videos.upstream_id, videos.refused_at, videos.orphan_reason,"
        " holds.id AS hold_id, holds.state, holds.amount_micros FROM videos"
        " JOIN holds ON holds.id = videos.hold_id WHERE videos.key_id = $1",
        key_id,
    )
    names = ("id", "hold_id", "upstream_id", "state", "amount_micros")
    return {name: row[name] for name in names}


@pytest.mark.parametrize(
    "case", CASES, ids=[f"{case.fault} {case.value or ''}".strip() for case in CASES]
)
async def test_each_outcome_is_told_held_and_listed_as_designed(table: World, case: Case) -> None:
    key = await table.key(name=case.fault)
    before = await table.control.totals()
    await table.control.fault(case.fault, operation="create", value=case.value, **case.arguments)
    async with table.client(key) as client:
        answer = await client.post("/videos", json={"prompt": "a cat"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (case.status, case.code)
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"]
    assert "<html" not in answer.text
    assert ("x-should-retry" not in answer.headers) is case.retry
    if case.fault == "429":
        assert answer.headers["retry-after"] == str(case.value)
    row = await outcome(table, key.id)
    assert (row["state"], row["amount_micros"]) == (case.hold, PRICE_MICROS)
    listed = (await orphans(table)).get(row["id"])
    assert (listed and listed["orphan_reason"]) == case.orphan
    after = await table.control.totals()
    assert after["executions"] - before["executions"] == case.executed
    assert after["requests"]["create"] - before["requests"].get("create", 0) == 1
    assert await table.adds_up()


async def test_the_ids_of_an_orphaned_request_are_kept_for_the_search(table: World) -> None:
    key = await table.key()
    await table.control.fault("504", operation="create")
    async with table.client(key) as client:
        await client.post("/videos", json={"prompt": "a cat"})
    listed = (await orphans(table))[(await outcome(table, key.id))["id"]]
    assert listed["provider_request_id"].startswith("req_")
    assert listed["relay_request_id"].isdecimal()
    assert (listed["project"], listed["model"]) == ("studio", "sora-2")


async def test_an_upstream_that_answers_in_time_is_waited_for(table: World) -> None:
    key = await table.key()
    video_id = await table.buy(key, "[[delay 0.5]]")
    assert (await table.facts(video_id))["hold_state"] in {"held", "settled"}


async def test_an_id_that_another_video_owns_makes_an_orphan_and_an_alarm(
    table: World, logged: LogLines
) -> None:
    key = await table.key()
    first_id = await table.buy(key, "[[queue 1000]]")
    before = await table.facts(first_id)
    other = await table.key(project="other")
    async with table.client(other) as client:
        answer = await client.post("/videos", json={"prompt": f"[[duplicate-id {first_id}]]"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "outcome_unknown")
        assert answer.headers["x-should-retry"] == "false"
        assert (await client.get(f"/videos/{first_id}")).status_code == 404
    row = await outcome(table, other.id)
    assert (row["state"], row["upstream_id"]) == (HELD, None)
    assert (await orphans(table))[row["id"]]["orphan_reason"] == "duplicate_upstream_id"
    after = await table.facts(first_id)
    moving = {"polled_at", "due_at", "claim_number", "object", "status"}
    assert {name for name in after if after[name] != before[name]} <= moving
    (alarm,) = logged.lines("submit_contradicted")
    assert (alarm["level"], alarm["how"], alarm["upstream_id"]) == ("error", "duplicate", first_id)


async def test_a_connection_that_cannot_be_made_releases_and_may_be_retried(
    tmp_path: Path, logged: LogLines
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with world(tmp_path, upstream_base_url=f"http://127.0.0.1:{port}/v1") as made:
        key = await made.key()
        async with made.client(key) as client:
            answer = await client.post("/videos", json={"prompt": "a cat"})
        assert (answer.status_code, answer.json()["error"]["code"]) == (502, "upstream_unreachable")
        assert "x-should-retry" not in answer.headers
        assert (await outcome(made, key.id))["state"] == RELEASED
        assert await made.total() == (0, 0)
        assert await orphans(made) == {}
        assert await made.adds_up()
    assert [line["reason"] for line in logged.lines("submit_not_sent")] == ["connect_refused"]


async def test_a_request_of_which_nothing_was_sent_is_tried_again_and_bought_once(
    tmp_path: Path,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    async with world(tmp_path, upstream_base_url=f"http://127.0.0.1:{port}/v1") as made:
        key = await made.key()

        async def held() -> bool:
            return (await made.total())[1] == PRICE_MICROS

        async with made.client(key) as client, asyncio.TaskGroup() as group:
            post = group.create_task(client.post("/videos", json={"prompt": "a cat"}))
            await eventually(held)
            async with Simulator(port=port) as late:
                answer = await post
                assert (answer.status_code, len(late.world.executed)) == (200, 1)


@pytest.mark.parametrize(("trusted", "hold"), [("trusted", RELEASED), ("doubted", HELD)])
async def test_a_setting_says_whether_a_bad_gateway_is_a_refusal(
    tmp_path: Path, trusted: str, hold: str
) -> None:
    async with Simulator() as simulator, Control(simulator.base_url) as control:
        upstream = UpstreamConfig(
            base_url=simulator.base_url,
            api_key="sk-simulator",
            bad_gateway_is_refusal=trusted == "trusted",
        )
        async with world(tmp_path, upstreams=(upstream,)) as made:
            key = await made.key()
            await control.fault("502", operation="create")
            async with made.client(key) as client:
                answer = await client.post("/videos", json={"prompt": "a cat"})
            assert answer.status_code == 502
            assert (await outcome(made, key.id))["state"] == hold
