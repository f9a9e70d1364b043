"""Does the whole start when everything is right, say what is not, and end in order?"""

import asyncio
import json
import signal
import socket
from importlib.resources import files
from pathlib import Path

import httpx
import pytest
from conftest import (
    DEADLINE_SECONDS,
    Timeline,
    command,
    environ_for,
    eventually,
    new_key,
    serving,
    settings_for,
)
from databases import look
from plain_http import NO_TLS

from gateway.app import running
from gateway.clock import system_clock
from gateway.config import SettingsError
from gateway.server import listen
from gateway.setup import open_database
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator

NOWHERE = "http://127.0.0.1:9/v1"


async def refused(environ: dict[str, str]) -> tuple[int, str]:
    """Run `serve`, which must end by itself, and return its exit code and what it printed."""
    process = await command("serve", **environ)
    async with asyncio.timeout(DEADLINE_SECONDS):
        printed, _ = await process.communicate()
    assert process.returncode is not None
    return process.returncode, printed.decode()


async def test_every_mistake_in_a_catalogue_is_reported_and_nothing_starts(tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(
        '[models.one]\nunit = "minute"\nupstream = "elsewhere"\n[models.two]\nseconds = [4]\n'
    )
    code, printed = await refused(environ_for(tmp_path, NOWHERE, catalogue=str(catalogue)))
    assert code == 2
    assert "models.one" in printed
    assert "models.two" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "gateway.db").exists()
    assert not (tmp_path / "content").exists()


@pytest.mark.parametrize("text", [None, "models = ", "\udcff"])
async def test_a_catalogue_that_cannot_be_read_is_reported(
    tmp_path: Path, text: str | None
) -> None:
    catalogue = tmp_path / "catalogue.toml"
    if text is not None:
        catalogue.write_bytes(text.encode(errors="surrogateescape"))
    code, printed = await refused(environ_for(tmp_path, NOWHERE, catalogue=str(catalogue)))
    assert code == 2
    assert "video-gateway: catalogue:" in printed
    assert "Traceback" not in printed


async def test_a_model_of_an_upstream_that_is_not_set_up_is_reported(tmp_path: Path) -> None:
    packaged = (files("gateway.billing") / "catalogue.toml").read_text(encoding="utf-8")
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text(packaged.replace('unit = "second"', 'unit = "second"\nupstream = "b"', 1))
    code, printed = await refused(environ_for(tmp_path, NOWHERE, catalogue=str(catalogue)))
    assert (code, "there is no upstream named 'b'" in printed) == (2, True)


@pytest.mark.parametrize("port", ["port", "ops_port"])
async def test_a_port_in_use_is_reported_and_nothing_starts(tmp_path: Path, port: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        number = taken.getsockname()[1]
        code, printed = await refused(environ_for(tmp_path, NOWHERE, **{port: number}))
    assert code == 2
    assert f"cannot listen on 127.0.0.1:{number}" in printed
    assert "Traceback" not in printed
    assert not (tmp_path / "gateway.db").exists()


async def test_head_and_body_of_an_answer_leave_without_waiting_for_each_other() -> None:
    accepted: asyncio.Future[socket.socket] = asyncio.get_running_loop().create_future()

    class Taken(asyncio.Protocol):
        def connection_made(self, transport: asyncio.BaseTransport) -> None:
            accepted.set_result(transport.get_extra_info("socket"))

    with listen("127.0.0.1", 0) as listening:
        server = await asyncio.get_running_loop().create_server(Taken, sock=listening)
        async with server:
            _, writer = await asyncio.open_connection(*listening.getsockname())
            assert (await accepted).getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
            writer.close()
            await writer.wait_closed()


async def test_a_database_newer_than_the_program_is_refused_and_left_alone(tmp_path: Path) -> None:
    settings = settings_for(tmp_path, NOWHERE)
    async with open_database(settings, clock=system_clock()):
        pass
    look(
        settings.database_url, "INSERT INTO schema_migrations VALUES (9999, 'later', 'x', 9999, 1)"
    )
    code, printed = await refused(environ_for(tmp_path, NOWHERE))
    assert code == 1
    assert "newer" in printed
    assert "Traceback" not in printed
    assert "gateway_started" not in printed


@pytest.mark.sqlite("the file is a folder")
async def test_a_database_that_cannot_be_opened_is_reported(tmp_path: Path) -> None:
    (tmp_path / "gateway.db").mkdir()
    code, printed = await refused(environ_for(tmp_path, NOWHERE))
    assert code == 1
    assert "Traceback" not in printed


async def test_without_an_upstream_key_nothing_starts(tmp_path: Path) -> None:
    environ = environ_for(tmp_path, NOWHERE)
    del environ["GATEWAY_UPSTREAM_API_KEY"]
    code, printed = await refused(environ)
    assert (code, "GATEWAY_UPSTREAM_API_KEY" in printed) == (2, True)


@pytest.mark.sqlite("the file is a folder")
async def test_a_failed_start_leaves_no_port_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as free:
        port = free.getsockname()[1]
    (tmp_path / "gateway.db").mkdir()
    code, _ = await refused(environ_for(tmp_path, NOWHERE, port=port))
    assert code == 1
    with socket.create_server(("127.0.0.1", port)):
        pass
    with socket.create_server(("127.0.0.1", 0)) as taken:
        settings = settings_for(tmp_path, NOWHERE, ops_port=taken.getsockname()[1], port=port)
        with pytest.raises(SettingsError, match="cannot listen"):
            async with running(settings):
                pass
    with socket.create_server(("127.0.0.1", port)):
        pass


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_in_order(tmp_path: Path, number: signal.Signals) -> None:
    async with serving(environ_for(tmp_path, NOWHERE)) as served:
        async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as ops:
            ready = await ops.get(f"http://127.0.0.1:{served.ops_port}/readyz")
        assert ready.status_code == 200
        assert await served.stop(number) == 0
    assert json.loads(served.printed[-1])["event"] == "gateway_stopped"


async def test_a_create_in_flight_is_answered_and_recorded_before_the_process_ends(
    tmp_path: Path,
) -> None:
    async with Simulator() as simulator, Control(simulator.base_url) as control:
        settings = settings_for(tmp_path, simulator.base_url)
        async with (
            serving(environ_for(tmp_path, simulator.base_url)) as served,
            open_database(settings, clock=Timeline().clock()) as database,
        ):
            key = await new_key(database, Timeline().clock())
            async with served.client(key) as client, asyncio.TaskGroup() as group:
                post = group.create_task(
                    client.post("/videos", json={"prompt": "a cat [[delay 1]]"})
                )

                async def forwarded() -> bool:
                    return bool((await control.totals())["executions"])

                await eventually(forwarded)
                assert await served.stop() == 0
                answer = await post
        assert answer.status_code == 200
        ((recorded,),) = look(settings.database_url, "SELECT upstream_id FROM videos")
    assert recorded == answer.json()["id"]


async def test_what_was_bought_before_an_end_is_settled_and_mirrored_after_a_start(
    tmp_path: Path,
) -> None:
    async with Simulator() as simulator, Control(simulator.base_url) as control:
        environ = environ_for(tmp_path, simulator.base_url)
        settings = settings_for(tmp_path, simulator.base_url)
        async with open_database(settings, clock=system_clock()) as database:
            key = await new_key(database, system_clock())
        async with serving(environ) as served, served.client(key) as client:
            answer = await client.post("/videos", json={"prompt": "a cat [[queue 1000]]"})
            video_id = answer.json()["id"]
            assert await served.stop() == 0
        await control.advance(2000)
        async with serving(environ) as served, served.client(key) as client:

            async def completed() -> bool:
                video = (await client.get(f"/videos/{video_id}")).json()
                return bool(video["status"] == "completed")

            await eventually(completed)
            content = await client.get(f"/videos/{video_id}/content")
        assert content.content == await control.content(video_id)
