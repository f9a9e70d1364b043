"""Do several processes serve as one, whichever of them dies, and end as one?"""

import asyncio
import io
import json
import os
import signal
import socket
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from importlib.resources import files
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import structlog
import uvloop
from conftest import (
    DEADLINE_SECONDS,
    LogLines,
    Serving,
    command,
    environ_for,
    eventually,
    new_key,
    serving,
    settings_for,
)
from metrics_tools import Scrape, scrape
from plain_http import NO_TLS
from processes import gone, is_alive
from starlette.types import Receive, Scope, Send

from gateway.cli.worker import BEREFT_SECONDS
from gateway.clock import system_clock
from gateway.config import SettingsError, load
from gateway.server import Stop, listen, open_ports, port_of, serve, stop
from gateway.setup import open_database
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings
from gateway.telemetry.logs import configure_logs
from gateway.workers import _back_off, run_workers

pytestmark = pytest.mark.postgres("several processes need it")

NOWHERE = "http://127.0.0.1:9/v1"
WORKERS = 2
CONNECTIONS = 64


@dataclass
class Crew:
    """A gateway of several processes, and the upstream that it buys from."""

    served: Serving
    simulator: Simulator
    control: Control
    key: str
    environ: dict[str, str] = field(repr=False)

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log with an event's name."""
        return self.served.said(event)

    async def logged(self, event: str, *, times: int = 1) -> list[dict[str, Any]]:
        """Wait for so many lines with an event's name."""
        return await self.served.logged(event, times=times)

    def pid(self, worker: int) -> int:
        """Return the process that serves, or last served, as this worker."""
        (*_, last) = [one for one in self.said("gateway_started") if one["worker"] == worker]
        return int(last["pid"])

    def client(self) -> httpx.AsyncClient:
        return self.served.client(self.key)

    async def buy(self, prompt: str) -> str:
        async with self.client() as client:
            answer = await client.post("/videos", json={"prompt": prompt})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def happened(self, count: int = 1) -> None:
        """Wait until the upstream has made so many videos."""

        async def met() -> bool:
            return bool((await self.control.totals())["executions"] == count)

        await eventually(met)

    async def finished(self, video_id: str) -> None:
        """Insist that a video comes to its end, and that its content can be had."""
        async with self.client() as client:

            async def completed() -> bool:
                answer = await client.get(f"/videos/{video_id}")
                return bool(answer.json()["status"] == "completed")

            await eventually(completed)
            content = await client.get(f"/videos/{video_id}/content")
        assert content.content == await self.control.content(video_id)

    async def adds_up(self) -> None:
        audit = await command("ledger", "audit", **self.environ)
        printed, _ = await audit.communicate()
        assert audit.returncode == 0, printed

    async def readyz(self) -> int:
        async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as ops:
            answer = await ops.get(f"http://127.0.0.1:{self.served.ops_port}/readyz")
        return answer.status_code


@asynccontextmanager
async def crew(folder: Path, **changes: Any) -> AsyncIterator[Crew]:
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=0)
    async with Simulator(settings=simulated) as simulator, Control(simulator.base_url) as control:
        environ = environ_for(folder, simulator.base_url, **({"workers": WORKERS} | changes))
        settings = settings_for(folder, simulator.base_url)
        async with open_database(settings, clock=system_clock()) as database:
            key = await new_key(database, system_clock())
        async with serving(environ) as served:
            made = Crew(served, simulator, control, key.value, environ)
            await made.logged("workers_started")
            yield made


async def refused(environ: dict[str, str]) -> tuple[int | None, str]:
    """Run `serve`, which must end by itself, and return its exit code and what it printed."""
    process = await command("serve", **environ)
    async with asyncio.timeout(DEADLINE_SECONDS):
        printed, _ = await process.communicate()
    return process.returncode, printed.decode()


def test_connections_that_wait_at_a_shared_port_are_taken_in_turns() -> None:
    async def names(scope: Scope, receive: Receive, send: Send) -> None:
        del receive
        name = scope["state"]["name"]
        head = [(b"content-length", str(len(name)).encode())]
        await send({"type": "http.response.start", "status": 200, "headers": head})
        await send({"type": "http.response.body", "body": name.encode()})

    def named(name: str) -> Any:
        async def app(scope: Scope, receive: Receive, send: Send) -> None:
            scope["state"] = {"name": name}
            await names(scope, receive, send)

        return app

    async def ask(port: int, asked: asyncio.Barrier) -> bytes:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        await asked.wait()
        writer.write(b"GET / HTTP/1.1\r\nhost: x\r\nconnection: close\r\n\r\n")
        answer = await reader.read()
        writer.close()
        await writer.wait_closed()
        return answer[-1:]

    async def shares() -> Counter[bytes]:
        with listen("127.0.0.1", 0) as first:
            second = first.dup()
            asked = asyncio.Barrier(CONNECTIONS + 1)
            async with asyncio.TaskGroup() as group:
                asking = [group.create_task(ask(port_of(first), asked)) for _ in range(CONNECTIONS)]
                await asked.wait()
                servers = [
                    await serve(group, named(name), at, shutdown_seconds=1, shared=True)
                    for name, at in (("a", first), ("b", second))
                ]
                answers = await asyncio.gather(*asking)
                for server in servers:
                    await stop(server)
            return Counter(answers)

    shared = uvloop.run(shares())
    assert shared.total() == CONNECTIONS
    assert min(shared[b"a"], shared[b"b"]) >= CONNECTIONS // 3


def test_a_line_of_the_log_is_one_write_so_that_workers_leave_each_others_lines_whole() -> None:
    class Writes(io.StringIO):
        def write(self, text: str) -> int:
            written.append(text)
            return len(text)

    written: list[str] = []
    configure_logs("json", stream=Writes())
    structlog.get_logger().info("one")
    structlog.get_logger().info("two")
    structlog.reset_defaults()
    assert [json.loads(line)["event"] for line in written] == ["one", "two"]
    assert all(line.endswith("\n") for line in written)


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
async def test_what_is_bought_over_many_connections_is_bought_once_by_whichever_worker(
    tmp_path: Path,
) -> None:
    async with crew(tmp_path) as made:
        bought: list[str] = []

        async def buy() -> None:
            async with openai.AsyncOpenAI(
                base_url=made.served.base_url, api_key=made.key, max_retries=0
            ) as client:
                video = await client.videos.create(prompt="a heron")
                bought.append(video.id)

        def sold() -> Counter[int]:
            lines = made.said("request")
            return Counter(
                line["worker"]
                for line in lines
                if (line["method"], line["status"]) == ("POST", 200)
            )

        async def each_has_sold() -> bool:
            async with asyncio.TaskGroup() as group:
                for _ in range(8):
                    group.create_task(buy())
            return len(sold()) == WORKERS

        await eventually(each_has_sold)
        await asyncio.gather(*map(made.finished, bought))
        assert len(set(bought)) == len(bought) == (await made.control.totals())["executions"]
        assert await made.served.stop() == 0
        await made.adds_up()


async def test_a_worker_that_is_killed_comes_back_and_its_videos_go_on(tmp_path: Path) -> None:
    async with crew(tmp_path) as made, made.client() as client:
        bought = [await made.buy(f"[[queue 1000]] {number}") for number in range(4)]
        killed = made.pid(1)
        os.kill(killed, signal.SIGKILL)
        await made.control.advance(2000)
        (died,) = await made.logged("worker_died")
        assert (died["level"], died["worker"], died["pid"]) == ("error", 1, killed)
        assert (died["exit_code"], died["hung"]) == (-signal.SIGKILL, False)
        assert (await client.get("/videos")).status_code == 200
        await made.logged("gateway_started", times=WORKERS + 1)
        assert made.pid(1) != killed
        assert await made.readyz() == 200
        await asyncio.gather(*map(made.finished, bought))
        assert (await made.control.totals())["executions"] == len(bought)
        await made.adds_up()
        assert await made.served.stop() == 0


async def test_workers_count_as_one_and_go_on_counting_where_one_has_died(tmp_path: Path) -> None:
    async with crew(tmp_path) as made:

        async def ask(client: httpx.AsyncClient) -> None:
            await client.get("/videos/none")

        async def each_has_answered() -> bool:
            # A connection each, so that both have some.
            for _ in range(8):
                async with made.client() as client:
                    await ask(client)
            return len({line["worker"] for line in made.said("request")}) == WORKERS

        async def counted() -> Scrape:
            return await scrape(made.served.ops_port)

        await eventually(each_has_answered)
        before = await counted()
        asked = len(made.said("request"))
        assert before.sum("http_requests_total", code="404") == asked
        assert before.sum("processes") == WORKERS
        assert before.sum("build_info") == 1
        assert before.sum("check_passing", check="database") == 1
        os.kill(made.pid(1), signal.SIGKILL)
        await made.logged("worker_died")
        await made.logged("gateway_started", times=WORKERS + 1)

        async def both_again() -> bool:
            return (await counted()).sum("processes") == WORKERS

        await eventually(both_again)
        after = await counted()
        assert after.sum("http_requests_total", code="404") == asked
        # The parent serves nobody; its alarm is seen all the same.
        assert after.sum("alarms_total", event="worker_died") == 1
        assert after.families.keys() == before.families.keys()
        assert await made.served.stop() == 0


async def test_told_to_stop_all_workers_finish_what_is_in_flight_and_nobody_is_left(
    tmp_path: Path,
) -> None:
    async with crew(tmp_path) as made, made.client() as client, asyncio.TaskGroup() as group:
        post = group.create_task(client.post("/videos", json={"prompt": "a cat [[delay 2]]"}))
        await made.happened()
        made.served.process.send_signal(signal.SIGTERM)
        await made.logged("gateway_stopped", times=WORKERS - 1)
        assert await made.readyz() == 503
        with pytest.raises(httpx.ConnectError):
            await made.buy("too late")
        assert await made.served.stop() == 0  # a second signal
        answer = await post
        assert answer.status_code == 200
        assert [line["exit_code"] for line in made.said("workers_stopped")] == [0]
        assert {line["worker"] for line in made.said("gateway_stopped")} == {1, 2}
        assert not any(is_alive(made.pid(worker)) for worker in (1, 2))
        await made.adds_up()


async def test_told_to_stop_while_they_start_all_end_in_order(tmp_path: Path) -> None:
    async with serving(environ_for(tmp_path, NOWHERE, workers=3)) as served:
        assert await served.stop(signal.SIGINT) == 0
    assert not [line for line in served.printed if "Traceback" in line or "worker_died" in line]


async def test_workers_whose_parent_was_killed_end_within_seconds_whatever_they_do(
    tmp_path: Path,
) -> None:
    async def buy_in_vain(made: Crew) -> None:
        with pytest.raises(httpx.TransportError):
            await made.buy("a cat [[delay 60]]")

    async with crew(tmp_path) as made, asyncio.TaskGroup() as group:
        group.create_task(buy_in_vain(made))
        await made.happened()
        made.served.process.kill()
        await gone([made.pid(1), made.pid(2)], seconds=BEREFT_SECONDS + 3)
        with socket.create_server(("127.0.0.1", made.served.port)):
            pass


async def test_a_worker_that_hangs_is_killed_and_another_takes_its_place(
    tmp_path: Path, logged: LogLines, capfd: pytest.CaptureFixture[str]
) -> None:
    settings = settings_for(tmp_path, NOWHERE, workers=WORKERS)
    stop_all = Stop()
    started: list[dict[str, Any]] = []

    async def have_started(count: int) -> bool:
        lines = [line for line in capfd.readouterr().out.splitlines() if "gateway_started" in line]
        started.extend(map(json.loads, lines))
        return len(started) == count

    async def has_died() -> bool:
        return bool(logged.lines("worker_died"))

    with open_ports(settings) as ports:
        async with asyncio.TaskGroup() as group:
            running = group.create_task(
                run_workers(settings, ports, stop=stop_all, counting=tmp_path, silent_seconds=2)
            )
            await eventually(lambda: have_started(WORKERS))
            os.kill(started[0]["pid"], signal.SIGSTOP)
            await eventually(has_died)
            await eventually(lambda: have_started(WORKERS + 1))
            stop_all.asked.set()
    (died,) = logged.lines("worker_died")
    assert (died["pid"], died["hung"], running.result()) == (started[0]["pid"], True, 0)


async def test_a_worker_that_cannot_come_back_is_tried_again_while_the_others_serve(
    tmp_path: Path,
) -> None:
    catalogue = tmp_path / "catalogue.toml"
    packaged = (files("gateway.billing") / "catalogue.toml").read_text(encoding="utf-8")
    catalogue.write_text(packaged, encoding="utf-8")
    async with crew(tmp_path, catalogue=str(catalogue)) as made:
        catalogue.unlink()
        os.kill(made.pid(2), signal.SIGKILL)
        deaths = await made.logged("worker_died", times=2)
        assert [one["exit_code"] for one in deaths[:2]] == [-signal.SIGKILL, 2]
        await made.buy("a heron")
        catalogue.write_text(packaged, encoding="utf-8")
        await made.logged("gateway_started", times=WORKERS + 1)
        assert await made.served.stop() == 0


def test_who_dies_again_and_again_is_started_ever_more_slowly_but_is_started() -> None:
    assert [_back_off(deaths) for deaths in range(10)] == [0, 0, 1, 2, 4, 8, 16, 30, 30, 30]


@pytest.mark.parametrize("workers", [1, WORKERS])
async def test_a_mistake_that_is_found_at_the_start_is_said_once_and_ends_it(
    tmp_path: Path, workers: int
) -> None:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text("[models.one]\nseconds = [4]\n")
    environ = environ_for(tmp_path, NOWHERE, workers=workers, catalogue=str(catalogue))
    code, printed = await refused(environ)
    lines = [line for line in printed.splitlines() if not line.startswith("{")]
    assert (code, len(lines)) == (2, len(set(lines)))
    assert "video-gateway: catalogue: models.one" in printed
    assert "Traceback" not in printed
    assert "worker_died" not in printed


async def test_a_port_in_use_is_said_before_any_worker_starts(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        environ = environ_for(tmp_path, NOWHERE, workers=WORKERS, ops_port=number)
        code, printed = await refused(environ)
    (said,) = printed.splitlines()
    assert code == 2
    assert said.startswith(f"video-gateway: cannot listen on 127.0.0.1:{number}: ")


@pytest.mark.parametrize(("workers", "complaints"), [(1, 1), (2, 2)])
def test_sqlite_refuses_several_workers_beside_all_other_mistakes(
    workers: int, complaints: int
) -> None:
    environ = {
        "GATEWAY_DATABASE_URL": "sqlite:///gateway.db",
        "GATEWAY_WORKERS": str(workers),
        "GATEWAY_LOG_FORMAT": "xml",
    }
    with pytest.raises(SettingsError) as found:
        load(file=None, environ=environ, flags={}, serving=False)
    assert len(found.value.problems) == complaints
    refusal = "workers must be 1 with SQLite, not 2: several need PostgreSQL"
    assert any(problem.startswith(refusal) for problem in found.value.problems) == (workers == 2)
