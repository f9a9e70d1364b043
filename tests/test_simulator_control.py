"""Can a simulator be steered and questioned, also as a process of its own?"""

import asyncio
import json
import signal
import sys

import httpx
import pytest
from plain_http import NO_TLS

from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Clock, Settings

_KEY = {"authorization": "Bearer sk-simulator"}
_DEADLINE_SECONDS = 20


async def test_a_dark_simulator_answers_nobody_but_its_control() -> None:
    async with (
        Simulator() as simulator,
        Control(simulator.base_url) as control,
        httpx.AsyncClient(verify=NO_TLS, base_url=simulator.base_url, headers=_KEY) as http,
    ):
        await control.go_dark()
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            await http.get("/videos")
        assert (await control.totals())["dark"] is True
        await control.come_back()
        assert (await http.get("/videos")).status_code == 200


async def test_a_video_can_be_forgotten_and_its_content_expired() -> None:
    settings = Settings(queue_seconds=0, generation_seconds=0)
    async with (
        Simulator(settings=settings) as simulator,
        Control(simulator.base_url) as control,
        httpx.AsyncClient(verify=NO_TLS, base_url=simulator.base_url, headers=_KEY) as http,
    ):
        made = (await http.post("/videos", json={"prompt": "a cat"})).json()["id"]
        await control.expire(made)
        assert (await http.get(f"/videos/{made}/content")).status_code == 404
        assert (await http.get(f"/videos/{made}")).status_code == 200
        await control.forget(made)
        assert (await http.get(f"/videos/{made}")).status_code == 404
        assert (await control.totals())["billed_micros"] == 400_000


async def test_a_reset_forgets_all_but_the_first_settings() -> None:
    settings = Settings(queue_seconds=7)
    async with (
        Simulator(settings=settings) as simulator,
        Control(simulator.base_url) as control,
        httpx.AsyncClient(verify=NO_TLS, base_url=simulator.base_url, headers=_KEY) as http,
    ):
        await http.post("/videos", json={"prompt": "a cat"})
        await control.settings(queue_seconds=9, keys=["sk-other"])
        assert (await http.get("/videos")).status_code == 401
        await control.fault("500", times=None)
        await control.reset()
        state = await control.state()
        assert (state["executions"], state["requests"], state["faults"]) == (0, {}, [])
        assert state["settings"]["queue_seconds"] == 7
        assert (await http.get("/videos")).json()["data"] == []


async def test_time_is_what_the_clock_says() -> None:
    clock = Clock(source=lambda: 1_800_000_000)
    async with Simulator(clock=clock) as simulator, Control(simulator.base_url) as control:
        assert (await control.totals())["now"] == 1_800_000_000
        await control.advance(90)
        assert (await control.totals())["now"] == 1_800_000_090
        await control.set_now(1_900_000_000)
        assert simulator.world.clock.now() == 1_900_000_000


async def test_what_was_received_can_be_read_back() -> None:
    async with (
        Simulator() as simulator,
        Control(simulator.base_url) as control,
        httpx.AsyncClient(verify=NO_TLS, base_url=simulator.base_url, headers=_KEY) as http,
    ):
        told = {"accept-encoding": "identity", "x-stainless-lang": "python"}
        await http.post("/videos", json={"prompt": "a cat"}, headers=told)
        await http.get("/videos/a%2Fb%3Fc", params={"x": "1"})
        state = await control.state()
        created, retrieved = state["last"]["create"], state["last"]["retrieve"]
        assert created["headers"]["accept-encoding"] == "identity"
        assert created["headers"]["x-stainless-lang"] == "python"
        assert created["headers"]["authorization"] == "Bearer sk-simulator"
        assert (created["encoding"], created["fields"]) == ("json", {"prompt": "a cat"})
        assert (retrieved["path"], retrieved["query"]) == ("/v1/videos/a%2Fb%3Fc", "x=1")
        assert state["requests"] == {"create": 1, "retrieve": 1}


async def test_two_simulators_share_one_loop_and_no_signal_handler() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    async with Simulator() as one, Simulator() as other:
        assert one.base_url != other.base_url
        during = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    assert before == during


async def test_a_port_can_be_taken_again_at_once() -> None:
    async with Simulator() as first:
        port = int(first.base_url.removesuffix("/v1").rpartition(":")[2])
        async with httpx.AsyncClient(verify=NO_TLS, headers=_KEY) as http:
            assert (await http.get(f"{first.base_url}/videos")).status_code == 200
    async with Simulator(port=port) as second:
        assert second.base_url == first.base_url


async def test_an_error_inside_the_block_comes_out_as_it_is() -> None:
    with pytest.raises(LookupError, match="mine"):
        async with Simulator():
            raise LookupError("mine")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_process_says_where_it_listens_and_stops_in_order(number: signal.Signals) -> None:
    command = [sys.executable, "-m", "gateway.simulator", "--port", "0", "--key", "sk-mine"]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    try:
        async with asyncio.timeout(_DEADLINE_SECONDS):
            assert process.stdout is not None
            base_url = json.loads(await process.stdout.readline())["base_url"]
            key = {"authorization": "Bearer sk-mine"}
            async with httpx.AsyncClient(verify=NO_TLS, base_url=base_url, headers=key) as http:
                made = await http.post("/videos", json={"prompt": "a cat"})
                assert made.status_code == 200
                process.send_signal(number)
                assert await process.wait() == 0
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
