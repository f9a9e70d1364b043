"""Does a gateway that is told to end give others time to notice, and leave nothing behind?"""

import asyncio
import signal
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import (
    DEADLINE_SECONDS,
    Serving,
    environ_for,
    eventually,
    new_key,
    serving,
    settings_for,
)
from databases import look
from plain_http import NO_TLS
from processes import gone

from gateway.billing.keys import NewKey
from gateway.cli.worker import BEREFT_SECONDS
from gateway.clock import system_clock
from gateway.setup import open_database
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings
from gateway.turns import LEASE_SECONDS

LONG_SECONDS = 60


@dataclass
class House:
    """Where gateways run one after the other, on the same records."""

    control: Control
    key: NewKey
    environ: dict[str, str] = field(repr=False)

    def rows(self, text: str) -> list[Any]:
        return look(self.environ["GATEWAY_DATABASE_URL"], text)

    async def executed(self, count: int) -> None:
        """Wait until the upstream has made so many videos."""

        async def met() -> bool:
            return bool((await self.control.totals())["executions"] == count)

        await eventually(met)

    async def asked(self, operation: str, count: int) -> None:
        """Wait until the upstream was asked so often for something."""

        async def met() -> bool:
            requests = (await self.control.totals())["requests"]
            return bool(requests.get(operation, 0) >= count)

        await eventually(met)


@asynccontextmanager
async def a_house(folder: Path, **changes: Any) -> AsyncIterator[House]:
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=0)
    async with Simulator(settings=simulated) as simulator, Control(simulator.base_url) as control:
        settings = settings_for(folder, simulator.base_url)
        async with open_database(settings, clock=system_clock()) as database:
            key = await new_key(database, system_clock())
        yield House(control, key, environ_for(folder, simulator.base_url, **changes))


async def bought(client: httpx.AsyncClient, prompt: str) -> str:
    answer = await client.post("/videos", json={"prompt": prompt})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def finished(house: House, client: httpx.AsyncClient, video_id: str) -> None:
    async def completed() -> bool:
        return bool((await client.get(f"/videos/{video_id}")).json()["status"] == "completed")

    await eventually(completed)
    content = await client.get(f"/videos/{video_id}/content")
    assert content.content == await house.control.content(video_id)


async def readiness(served: Serving) -> tuple[int, dict[str, Any]]:
    # A connection of its own each time: of several processes any may answer.
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as ops:
        answer = await ops.get(f"http://127.0.0.1:{served.ops_port}/readyz?verbose")
    return answer.status_code, answer.json()["checks"]


async def unready(served: Serving) -> None:
    """Wait until it says that nothing more should be sent to it."""

    async def met() -> bool:
        return (await readiness(served))[0] == 503

    await eventually(met)


async def closed(served: Serving) -> None:
    """Wait until no connection is accepted any more."""

    async def met() -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", served.port)
        except ConnectionRefusedError:
            return True
        writer.close()
        return False

    await eventually(met)


async def ended(served: Serving) -> int:
    async with asyncio.timeout(DEADLINE_SECONDS):
        return await served.process.wait()


@pytest.mark.costly
async def test_it_goes_on_with_everything_for_the_delay_and_then_leaves_nothing_behind(
    tmp_path: Path,
) -> None:
    async with a_house(tmp_path, drain_delay_seconds=LONG_SECONDS) as house:
        async with (
            serving(house.environ) as served,
            served.client(house.key) as kept,
            served.client(house.key) as fresh,
            asyncio.TaskGroup() as group,
        ):
            hung = await bought(kept, "[[retrieve:hang*1]]")
            stalled = await bought(kept, "[[content:stall*1]]")
            await house.asked("content", 1)
            await house.asked("retrieve", 2)
            served.process.terminate()
            await unready(served)
            status, checks = await readiness(served)
            assert (status, checks.pop("not_draining")) == (503, False)
            assert set(checks.values()) == {True}
            # On a connection that was there before, and on a new one.
            answer = await kept.post("/videos", json={"prompt": "a heron"})
            assert (answer.status_code, answer.headers["connection"]) == (200, "close")
            await finished(house, fresh, await bought(fresh, "a fox"))
            slow = group.create_task(bought(fresh, "[[delay 4]]"))
            await house.executed(5)
            served.process.send_signal(signal.SIGINT)
            await closed(served)
            assert not slow.done()
            assert (await readiness(served))[0] == 503
            assert await slow
            assert await ended(served) == 0
        printed = "".join(served.printed)
        assert '"event": "gateway_stopped"' in served.printed[-1]
        assert "shutdown_with_work_left" not in printed
        assert "Traceback" not in printed
        assert house.rows("SELECT COUNT(*) FROM videos WHERE upstream_id IS NULL")[0][0] == 0
        # What it had claimed waits for nobody's lease.
        (due,) = house.rows(f"SELECT due_at FROM videos WHERE upstream_id = '{hung}'")
        assert due[0] <= time.time()
        (due,) = house.rows(
            "SELECT assets.due_at, leased_at FROM assets JOIN videos ON videos.id = video_id"
            f" WHERE upstream_id = '{stalled}'"
        )
        assert (due[0] <= time.time(), due[1]) == (True, None)
        environ = {**house.environ, "GATEWAY_DRAIN_DELAY_SECONDS": "1"}
        async with serving(environ) as other, other.client(house.key) as client:
            async with asyncio.timeout(LEASE_SECONDS - 1):
                await finished(house, client, hung)
                await finished(house, client, stalled)
            begun = time.monotonic()
            assert await other.stop() == 0
            assert time.monotonic() - begun >= 1
        assert [line["delay_seconds"] for line in other.said("gateway_draining")] == [1]


@pytest.mark.postgres("several processes need it")
async def test_all_workers_are_unready_at_once_and_serve_until_a_second_interrupt(
    tmp_path: Path,
) -> None:
    async with (
        a_house(tmp_path, drain_delay_seconds=LONG_SECONDS, workers=2) as house,
        serving(house.environ) as served,
    ):
        await served.logged("workers_started")
        served.process.terminate()
        lines = await served.logged("gateway_draining", times=2)
        assert {line["worker"] for line in lines} == {1, 2}
        assert {(await readiness(served))[0] for _ in range(20)} == {503}
        # A supervisor may send it to a group and to its first process: that ends no delay.
        served.process.terminate()
        sellers: set[int] = set()
        count = 0
        while len(sellers) < 2:
            async with served.client(house.key) as client:
                await bought(client, f"number {count}")
            count += 1
            sellers = {line["worker"] for line in served.said("request")}
        served.process.send_signal(signal.SIGINT)
        await closed(served)
        assert await ended(served) == 0
        assert [line["exit_code"] for line in served.said("workers_stopped")] == [0]
        assert not [line for line in served.printed if "Traceback" in line or "worker_died" in line]
        recorded = house.rows("SELECT COUNT(*) FROM videos WHERE upstream_id IS NOT NULL")
        assert recorded[0][0] == count


@pytest.mark.postgres("several processes need it")
async def test_a_parent_that_is_killed_in_the_delay_takes_its_workers_with_it(
    tmp_path: Path,
) -> None:
    async with (
        a_house(tmp_path, drain_delay_seconds=LONG_SECONDS, workers=2) as house,
        serving(house.environ) as served,
    ):
        await served.logged("workers_started")
        served.process.terminate()
        await served.logged("gateway_draining", times=2)
        served.process.kill()
        pids = [line["pid"] for line in served.said("gateway_started")]
        await gone(pids, seconds=BEREFT_SECONDS + 3)
