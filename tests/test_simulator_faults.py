"""Does the simulator break in each way that its table of faults names?"""

import asyncio
import re
from collections.abc import AsyncIterator
from typing import Any
from urllib.parse import quote

import httpx
import pytest
from plain_http import NO_TLS

from gateway.simulator import faults as faults_module
from gateway.simulator.control import Control
from gateway.simulator.faults import STAGES
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings

_KEY = {"authorization": "Bearer sk-simulator"}
_AT_ONCE = Settings(queue_seconds=0, generation_seconds=0)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(settings=_AT_ONCE) as running:
        yield running


@pytest.fixture
async def control(simulator: Simulator) -> AsyncIterator[Control]:
    async with Control(simulator.base_url) as client:
        yield client


@pytest.fixture
async def http(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        verify=NO_TLS, base_url=simulator.base_url, headers=_KEY, timeout=5
    ) as client:
        yield client


_ANSWERS = [
    ("refuse", 400, "invalid_request", 0),
    ("moderate", 400, "moderation_blocked", 0),
    ("moderate-403", 403, "content_policy_violation", 0),
    ("401", 401, "无效的令牌", 0),
    ("402", 402, "余额", 0),
    ("403", 403, "shell_api_error", 0),
    ("no-channel", 503, "无可用渠道", 0),
    ("balance", 429, "insufficient_user_quota", 0),
    ("balance-403", 403, "insufficient_user_quota", 0),
    ("balance-flat", 403, "quota_not_enough", 0),
    ("429 7", 429, "Rate limit", 0),
    ("500", 500, "<html>", 0),
    ("500-envelope", 500, "shell_api_error", 0),
    ("500-executed", 500, "write_response_body_failed", 1),
    ("502", 502, "<html>", 0),
    ("502 executed=1", 502, "<html>", 1),
    ("502-envelope", 502, "bad_response_status_code", 0),
    ("503", 503, "<html>", 0),
    ("503-envelope", 503, "capacity", 0),
    ("302", 302, "Moved", 0),
    ("408", 408, "<html>", 1),
    ("499", 499, "<html>", 1),
    ("504", 504, "<html>", 1),
    ("520", 520, "<html>", 1),
    ("html", 200, "<html>", 1),
    ("empty", 200, "", 1),
    ("garbage", 200, '{"id": "video_', 1),
    ("no-id", 200, '"object": "video"', 1),
    ("slow 100000", 200, '"object": "video"', 1),
    ("delay 0.01", 200, '"object": "video"', 1),
]


@pytest.mark.parametrize(("directive", "status", "words", "executions"), _ANSWERS)
async def test_a_prompt_breaks_the_request_that_carries_it(
    http: httpx.AsyncClient,
    control: Control,
    directive: str,
    status: int,
    words: str,
    executions: int,
) -> None:
    answer = await http.post("/videos", json={"prompt": f"a cat [[{directive}]]"})
    assert answer.status_code == status
    assert words in answer.text
    assert (await control.totals())["executions"] == executions
    if status == 429 and directive == "429 7":
        assert answer.headers["retry-after"] == "7"
    if directive == "no-id":
        assert "id" not in answer.json()


@pytest.mark.parametrize("directive", ["drop", "half-headers", "half-body"])
async def test_a_connection_is_cut_after_the_video_was_made(
    http: httpx.AsyncClient, control: Control, directive: str
) -> None:
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await http.post("/videos", json={"prompt": f"[[{directive}]]"})
    assert (await control.totals())["executions"] == 1


async def test_a_hang_makes_the_video_and_never_answers(
    http: httpx.AsyncClient, control: Control
) -> None:
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/videos", json={"prompt": "[[hang]]"}, timeout=0.1)
    with pytest.raises(httpx.ReadTimeout):
        await http.post("/videos", json={"prompt": "[[hang executed=0]]"}, timeout=0.1)
    assert (await control.totals())["executions"] == 1


async def test_a_simulator_stops_although_an_answer_hangs() -> None:
    async with (
        asyncio.timeout(5),
        httpx.AsyncClient(verify=NO_TLS, headers=_KEY) as http,
        asyncio.TaskGroup() as tasks,
        Simulator() as simulator,
        Control(simulator.base_url) as control,
    ):
        tasks.create_task(_cut_off(http, f"{simulator.base_url}/videos"))
        while not (await control.totals())["executions"]:
            pass


async def test_control_faults_are_used_up_in_order(
    http: httpx.AsyncClient, control: Control
) -> None:
    await control.fault("502", operation="create", executed=True)
    await control.fault("429", operation="create", value=3, times=2)
    await control.fault("500", operation="retrieve", times=None)
    statuses = [(await http.post("/videos", json={"prompt": "a"})).status_code for _ in range(4)]
    assert statuses == [502, 429, 429, 200]
    assert [(await http.get("/videos/x")).status_code for _ in range(3)] == [500] * 3
    assert (await control.totals())["executions"] == 2
    await control.clear_faults()
    assert (await http.get("/videos/x")).status_code == 404


async def test_a_connection_is_cut_before_the_body_is_read(
    http: httpx.AsyncClient, control: Control
) -> None:
    await control.fault("drop-early", operation="create")
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError, httpx.WriteError)):
        await http.post("/videos", json={"prompt": "a cat"})
    assert (await control.received("create"))[0]["fields"] == {}


async def test_an_answer_of_any_kind_can_be_asked_for(
    http: httpx.AsyncClient, control: Control
) -> None:
    await control.fault(
        "answer", operation="list", value="<p>", status=418, content_type="text/html"
    )
    answer = await http.get("/videos")
    assert (answer.status_code, answer.text) == (418, "<p>")
    assert answer.headers["content-type"] == "text/html"


@pytest.mark.parametrize("kind", ["slash", "dots", "query", "space", "long", "control"])
async def test_a_strange_id_can_be_asked_for_by_its_encoded_name(
    http: httpx.AsyncClient, kind: str
) -> None:
    made = (await http.post("/videos", json={"prompt": f"[[id {kind}]]"})).json()
    path = f"/videos/{quote(made['id'], safe='')}"
    if kind == "dots":
        path = path.replace(".", "%2E")
    assert (await http.get(path)).json()["id"] == made["id"]
    assert (await http.get(f"{path}/content")).status_code == 200


async def test_a_known_id_can_be_given_again(http: httpx.AsyncClient, control: Control) -> None:
    first = await _made(http, "one")
    again = await _made(http, "two [[duplicate-id]]")
    assert again == first
    state = await control.state()
    assert state["executions"] == 2
    assert state["videos"][first]["prompt"] == "one"
    assert [video["prompt"] for video in state["executed"]] == ["one", "two [[duplicate-id]]"]


@pytest.mark.parametrize(
    ("directive", "key", "value"),
    [
        ("retrieve:status SUCCESS", "status", "SUCCESS"),
        ("retrieve:status weird", "status", "weird"),
        ("retrieve:seconds 12", "seconds", "12"),
        ("retrieve:set 12 key=seconds", "seconds", 12),
        ("retrieve:no-seconds", "seconds", None),
        ("retrieve:unset expires_at", "expires_at", None),
        ("longer 12", "seconds", "12"),
        ("moderate-later", "error", {"code": "moderation_blocked", "message": "…"}),
        ("fail boom", "error", {"code": "boom", "message": "…"}),
        ("fail-bare", "status", "failed"),
        ("stuck", "status", "in_progress"),
        ("generation 60", "status", "in_progress"),
        ("queue 60", "status", "queued"),
    ],
)
async def test_the_object_can_say_otherwise(
    http: httpx.AsyncClient, directive: str, key: str, value: Any
) -> None:
    shown = (await http.get(f"/videos/{await _made(http, f'[[{directive}]]')}")).json()
    said = shown.get(key)
    assert (said | {"message": "…"} if isinstance(said, dict) else said) == value


async def test_later_requests_of_one_video_break_as_its_prompt_says(
    http: httpx.AsyncClient,
) -> None:
    broken = await _made(http, "[[retrieve:404*2]] [[retrieve:401*1]] [[delete:500]]")
    whole = await _made(http, "a cat")
    statuses = [(await http.get(f"/videos/{broken}")).status_code for _ in range(4)]
    assert statuses == [404, 404, 401, 200]
    assert (await http.get(f"/videos/{whole}")).status_code == 200
    assert (await http.delete(f"/videos/{broken}")).status_code == 500


async def test_content_can_be_cut_in_five_ways(http: httpx.AsyncClient, control: Control) -> None:
    for directive in ("truncate", "half-headers", "drop"):
        path = f"/videos/{await _made(http, f'[[content:{directive}]]')}/content"
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await http.get(path)
    for directive in ("cut 5000", "unsized 5000"):
        made = await _made(http, f"[[content:{directive}]]")
        answer = await http.get(f"/videos/{made}/content")
        assert answer.content == (await control.content(made))[:5000]
        assert ("content-length" in answer.headers) is (directive == "cut 5000")


async def test_content_can_stall_and_be_slow(http: httpx.AsyncClient, control: Control) -> None:
    stalled = await _made(http, "[[content:stall 1000]]")
    received: list[bytes] = []
    with pytest.raises(httpx.ReadTimeout):
        await _collect(http, f"/videos/{stalled}/content", into=received)
    assert b"".join(received) == (await control.content(stalled))[:1000]
    slow = await _made(http, "[[content:slow 400000]]")
    answer = await http.get(f"/videos/{slow}/content")
    assert answer.content == await control.content(slow)


async def test_content_can_be_late_after_completion(
    http: httpx.AsyncClient, control: Control
) -> None:
    path = f"/videos/{await _made(http, '[[late 8]]')}/content"
    assert (await http.get(path)).status_code == 400
    await control.advance(8)
    assert (await http.get(path)).status_code == 200


@pytest.mark.parametrize("where", ["path", "origin"])
async def test_content_can_be_elsewhere(
    http: httpx.AsyncClient, control: Control, where: str
) -> None:
    made = await _made(http, f"[[content:relocate {where}]]")
    answer = await http.get(f"/videos/{made}/content", follow_redirects=where == "path")
    if where == "origin":
        assert answer.headers["location"].startswith("http://localhost:")
        location = answer.headers["location"].replace("localhost", "127.0.0.1")
        answer = await http.get(location, headers={"authorization": ""})
    assert answer.content == await control.content(made)
    assert len(await control.received("redirected")) == 1


async def test_a_misspelt_fault_is_refused(http: httpx.AsyncClient, control: Control) -> None:
    for prompt in ("[[fial]]", "[[creat:500]]", "[[slow down]]", "[[502 delay=soon]]"):
        answer = await http.post("/videos", json={"prompt": prompt})
        assert answer.status_code == 400
        assert answer.json()["error"]["message"].startswith("simulator: ")
    with pytest.raises(httpx.HTTPStatusError):
        await control.fault("fial", operation="create")
    with pytest.raises(httpx.HTTPStatusError):
        await control.fault("500", operation="creat")


def test_the_table_of_faults_names_every_fault() -> None:
    described = re.split(r"[\s|]+", (faults_module.__doc__ or "").replace("500- 502- 503-", ""))
    families = {"500-envelope", "502-envelope", "503-envelope"}
    assert {name for name in STAGES if name not in described} <= families


async def _made(http: httpx.AsyncClient, prompt: str) -> str:
    return str((await http.post("/videos", json={"prompt": prompt})).json()["id"])


async def _collect(http: httpx.AsyncClient, path: str, *, into: list[bytes]) -> None:
    async with http.stream("GET", path, timeout=0.1) as answer:
        async for chunk in answer.aiter_raw():
            into.append(chunk)  # noqa: PERF401 - what came before the stall must be kept


async def _cut_off(http: httpx.AsyncClient, url: str) -> None:
    with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
        await http.post(url, json={"prompt": "[[hang]]"})
