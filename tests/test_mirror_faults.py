"""Does content survive full disks, failing disks, slow disks, other replicas and death?"""

import asyncio
import errno
import hashlib
import json
import os
import signal
import socket
from collections.abc import AsyncIterator
from contextlib import ExitStack, asynccontextmanager
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import eventually
from plain_http import NO_TLS
from processes import (
    Process,
    Scene,
    forget_peak,
    memory,
    on_a_small_disk,
    scene,
    seen_by,
    with_faults,
)

from gateway.turns import LEASE_SECONDS

MIB = 1 << 20
SIZE = 3_000_000
HALF = 1_500_000
PAUSES = f"[[content:pause*1 {HALF}]]"
BROKEN_OFF = (httpx.RemoteProtocolError, httpx.ReadError)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path) as made:
        await made.control.settings(content_bytes=SIZE)
        yield made


async def bought(stage: Scene, process: Process, prompt: str = "a heron") -> str:
    """Buy a video, wait until it is completed, and return its id."""
    answer = await stage.create(process, prompt)
    assert answer.status_code == 200, answer.text
    done = "SELECT id FROM videos WHERE status = 'completed'"
    await stage.counted(done, len(await stage.executed()))
    return str(answer.json()["id"])


async def sending(stage: Scene, count: int) -> None:
    """Wait until the upstream is sending so many contents."""

    async def so_many() -> bool:
        return int((await stage.control.totals())["delivering"].get("content", 0)) == count

    await eventually(so_many)


@asynccontextmanager
async def download(
    stage: Scene, process: Process, video_id: str, **headers: str
) -> AsyncIterator["Arriving"]:
    async with (
        stage.client(process) as client,
        client.stream("GET", f"/videos/{video_id}/content", headers=headers) as answer,
    ):
        yield Arriving(answer)


class Arriving:
    """An answer whose body is read bit by bit."""

    def __init__(self, answer: httpx.Response) -> None:
        self.answer = answer
        self.received = b""
        self._pieces = answer.aiter_raw()

    async def upto(self, size: int) -> bytes:
        """Read until so many bytes have come, and return them."""
        while len(self.received) < size:
            self.received += await anext(self._pieces)
        return self.received[:size]

    async def whole(self) -> bytes:
        """Read to the end; raises one of BROKEN_OFF where it is none."""
        return self.received + b"".join([piece async for piece in self._pieces])


def asset(stage: Scene) -> dict[str, Any]:
    """Return the row of the only asset."""
    (row,) = stage.rows("SELECT * FROM assets")
    return dict(row)


def kept(stage: Scene, *, process: Process | None = None) -> list[Path]:
    """Return the files of content that are visible in the store."""
    root = stage.settings.store_path
    seen = root if process is None else seen_by(process, root)
    return [path for path in seen.glob("??/*") if path.is_file()]


async def readiness(process: Process) -> int:
    port = process.said("gateway_started")[0]["ops_port"]
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as ops:
        return (await ops.get(f"http://127.0.0.1:{port}/readyz")).status_code


async def test_one_process_mirrors_and_clients_of_the_other_have_a_download_of_their_own(
    stage: Scene,
) -> None:
    async with stage.process() as one, stage.process() as other:
        slow = "[[content:slow*1 200000]]"
        video_id = await bought(stage, one, f"{PAUSES} {slow} {PAUSES}")
        content = await stage.control.content(video_id)
        await sending(stage, 1)
        await one.until(lambda: bool((one.steps + other.steps).count("mirror.claimed")))
        mirrors, serves = (one, other) if "mirror.claimed" in one.steps else (other, one)
        async with download(stage, mirrors, video_id) as here:
            assert await here.upto(HALF) == content[:HALF]
            await sending(stage, 1)
            async with download(stage, serves, video_id) as there:
                assert await there.upto(1000) == content[:1000]
                await sending(stage, 2)
            # Nobody but that client wanted the second download: it ends with it.
            await sending(stage, 1)
            async with download(stage, serves, video_id) as there:
                assert await there.upto(HALF) == content[:HALF]
                await sending(stage, 2)
                await stage.control.go_on()
                assert await there.whole() == content
            assert await here.whole() == content
        await stage.mirrored()
        for process in (one, other):
            await stage.downloads(process, video_id)
        assert (one.steps + other.steps).count("mirror.claimed") == 1
        assert (asset(stage)["attempts"], asset(stage)["leased_at"]) == (1, None)
        (video,) = await stage.executed()
        assert video["contents"] == {"video": 3}


@pytest.mark.costly
async def test_told_to_stop_it_sends_live_content_to_its_end_and_mirrors_it(stage: Scene) -> None:
    async with stage.process() as process:
        video_id = await bought(stage, process, PAUSES)
        content = await stage.control.content(video_id)
        async with download(stage, process, video_id) as client:
            await client.upto(HALF)
            process.terminate()
            await eventually(partial(refuses, process))
            await stage.control.go_on()
            assert await client.whole() == content
        await process.reached("mirror.recorded")
        assert await process.died() == 0
    async with stage.process() as process:
        await stage.downloads(process, video_id)
        (video,) = await stage.executed()
        assert video["contents"] == {"video": 1}


async def refuses(process: Process) -> bool:
    """Tell whether a process accepts no more connections."""
    address = httpx.URL(process.base_url)
    try:
        _, writer = await asyncio.open_connection(address.host, address.port)
    except ConnectionError:  # refused, or taken and dropped in the moment of closing
        return True
    writer.close()
    return False


@pytest.mark.costly
async def test_told_to_stop_it_gives_the_lease_of_a_mirror_back(stage: Scene) -> None:
    async with stage.process() as process:
        video_id = await bought(stage, process, PAUSES)
        await sending(stage, 1)
        process.terminate()
        assert await process.died() == 0
        await sending(stage, 0)
    assert kept(stage) == []
    # Without a jump in time: nobody has to wait for the lease to end.
    async with stage.process() as process:
        await stage.mirrored()
        await stage.downloads(process, video_id)
        assert (asset(stage)["attempts"], asset(stage)["failure"]) == (2, None)


@pytest.mark.costly
async def test_killed_in_the_middle_of_a_download_nothing_is_left_of_it(
    stage: Scene, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    async with stage.process(spool_path=str(spool)) as process:
        video_id = await bought(stage, process, PAUSES)
        async with download(stage, process, video_id) as client:
            await client.upto(HALF)
            assert spooled(process, spool) == 1
            process.kill()
            assert await process.died() == -signal.SIGKILL
            with pytest.raises(BROKEN_OFF):
                await client.whole()
    assert (list(spool.iterdir()), kept(stage)) == ([], [])
    async with stage.process() as process:
        # Until the lease of the dead has ended others serve their clients without the store.
        await stage.downloads(process, video_id)
        assert asset(stage)["mirrored_at"] is None
        stage.jump(LEASE_SECONDS + 1)
        await stage.mirrored()
        await stage.downloads(process, video_id)
        (video,) = await stage.executed()
        assert video["contents"] == {"video": 3}


def spooled(process: Process, folder: Path) -> int:
    """Return how many files in a folder a process has open, with a name or without."""
    numbers = Path(f"/proc/{process.popen.pid}/fd").iterdir()
    return sum(number.readlink().is_relative_to(folder) for number in numbers)


async def test_who_slept_past_his_lease_does_not_put_old_content_over_new(stage: Scene) -> None:
    async with stage.process("mirror.written", act="stop") as sleeper:
        video_id = await bought(stage, sleeper)
        await sleeper.stopped()
        await stage.control.change(video_id)
        stage.jump(LEASE_SECONDS + 1)
        async with stage.process() as process:
            await stage.mirrored()
            await stage.downloads(process, video_id)
            sleeper.resume()
            await sleeper.logged("lease_lost")
            (path,) = kept(stage)
            assert hashlib.sha256(path.read_bytes()).hexdigest() == asset(stage)["sha256"]
            for each in (sleeper, process):
                await stage.downloads(each, video_id)


@pytest.mark.costly
async def test_with_the_stores_disk_full_clients_get_content_live_and_it_is_mirrored_once_it_fits(
    stage: Scene,
) -> None:
    store = stage.settings.store_path
    small = partial(disk_of, folder=store, size="5m")
    async with stage.process(under=small) as process:
        first = await bought(stage, process)
        await stage.mirrored()
        second = await bought(stage, process, PAUSES)
        content = await stage.control.content(second)
        async with download(stage, process, second) as client:
            await client.upto(HALF)
            await stage.control.go_on()
            assert await client.whole() == content
        failed = await process.logged("mirror_store_failed")
        assert failed["cause"].startswith(f"OSError({errno.ENOSPC}")
        assert len(kept(stage, process=process)) == 1
        assert not list(seen_by(process, store / "tmp").iterdir())
        # It goes on serving what it has, and is not unready.
        await stage.downloads(process, first)
        assert await readiness(process) == 200
        stage.jump(LEASE_SECONDS)
        await process.until(lambda: len(process.said("mirror_store_failed")) == 2)
        for path in kept(stage, process=process):
            path.unlink()
        stage.jump(LEASE_SECONDS)
        await stage.mirrored(2)
        await stage.downloads(process, second)


@pytest.mark.costly
async def test_with_the_spools_disk_full_nothing_looks_whole_and_it_is_mirrored_once_it_fits(
    stage: Scene, tmp_path: Path
) -> None:
    spool = tmp_path / "spool"
    spool.mkdir()
    small = partial(disk_of, folder=spool, size="10m")
    async with stage.process(under=small, spool_path=str(spool)) as process:
        ballast = seen_by(process, spool / "ballast")
        ballast.write_bytes(bytes(8 * MIB))
        await stage.control.settings(content_bytes=3 * SIZE)
        video_id = await bought(stage, process, PAUSES)
        async with asyncio.TaskGroup() as group, download(stage, process, video_id) as client:
            await client.upto(HALF)
            behind = group.create_task(part(stage, process, video_id, "bytes=-9"))
            await process.until(lambda: spooled(process, spool) == 1)
            await stage.control.go_on()
            with pytest.raises(BROKEN_OFF):
                await client.whole()
        # To whom nothing was sent yet an answer can be given.
        answer = behind.result()
        assert (answer.status_code, answer.json()["error"]["code"]) == (503, "store_unavailable")
        failed = await process.logged("mirror_store_failed")
        assert failed["cause"].startswith(f"OSError({errno.ENOSPC}")
        assert (asset(stage)["mirrored_at"], kept(stage)) == (None, [])
        assert await readiness(process) == 200
        ballast.unlink()
        stage.jump(LEASE_SECONDS)
        await stage.mirrored()
        await stage.downloads(process, video_id)


def disk_of(command: list[str], *, folder: Path, size: str) -> list[str]:
    folder.mkdir(exist_ok=True)
    return on_a_small_disk(folder, size=size, command=command)


async def part(stage: Scene, process: Process, video_id: str, span: str) -> httpx.Response:
    async with stage.client(process) as client:
        return await client.get(f"/videos/{video_id}/content", headers={"range": span})


@pytest.mark.costly
@pytest.mark.parametrize(
    "fault", ["fsync:error=EIO:when=1", "fsync:error=EIO:when=2", "rename:error=EIO:when=1"]
)
async def test_a_disk_that_fails_to_keep_it_is_an_alarm_and_the_content_is_fetched_again(
    stage: Scene, fault: str
) -> None:
    failing = partial(failing_with, fault=fault)
    async with stage.process(under=failing) as process:
        video_id = await bought(stage, process, PAUSES)
        content = await stage.control.content(video_id)
        async with download(stage, process, video_id) as client:
            await client.upto(HALF)
            await stage.control.go_on()
            assert await client.whole() == content
        failed = await process.logged("mirror_store_failed")
        assert failed["cause"].startswith(f"OSError({errno.EIO}")
        await stage.mirrored()
        await stage.downloads(process, video_id)
        assert asset(stage)["sha256"] == hashlib.sha256(content).hexdigest()
        assert await readiness(process) == 200


@pytest.mark.costly
async def test_a_disk_that_is_slow_keeps_nobody_waiting_but_the_mirror(stage: Scene) -> None:
    slow = partial(failing_with, fault="fsync:delay_enter=1500000")
    async with stage.process(under=slow) as process:
        video_id = await bought(stage, process)
        await process.reached("mirror.written")
        async with stage.client(process) as client:
            assert (await client.get(f"/videos/{video_id}")).status_code == 200
        await stage.downloads(process, video_id)
        await stage.mirrored()
        (video,) = await stage.executed()
        assert video["contents"] == {"video": 1}


def failing_with(command: list[str], *, fault: str) -> list[str]:
    return with_faults(fault, command=command)


@pytest.mark.costly
async def test_ten_clients_of_one_large_video_cost_one_download_and_little_memory(
    stage: Scene,
) -> None:
    size, clients = 60_000_000, 10
    async with stage.process() as process:
        await warmed_up(stage, process)
        await stage.control.settings(content_bytes=size)
        before, _ = memory(process)
        forget_peak(process)
        video_id = await bought(stage, process, "[[content:pause*1 1000000]]")
        digest = hashlib.sha256(await stage.control.content(video_id)).hexdigest()
        await sending(stage, 1)
        async with asyncio.TaskGroup() as group:
            cold = [
                group.create_task(asyncio.to_thread(hashed, stage, process, video_id))
                for _ in range(clients)
            ]
            await stage.control.go_on()
        assert {one.result() for one in cold} == {(size, digest)}
        await stage.mirrored(2)
        _, peak = memory(process)
        cold_growth = peak - before
        before, _ = memory(process)
        forget_peak(process)
        warm = await asyncio.gather(
            *(asyncio.to_thread(hashed, stage, process, video_id) for _ in range(clients))
        )
        assert set(warm) == {(size, digest)}
        _, peak = memory(process)
        assert (await stage.executed())[-1]["contents"] == {"video": 1}
        told(cold_growth=cold_growth, warm_growth=peak - before)
        assert cold_growth < 40_000_000
        assert peak - before < 40_000_000


@pytest.mark.costly
@pytest.mark.parametrize("where", ["live", "store"])
async def test_five_hundred_readers_that_stall_cost_less_than_a_megabyte_each(
    stage: Scene, where: str
) -> None:
    readers, size = 500, 20_000_000
    async with stage.process() as process:
        await warmed_up(stage, process)
        await stage.control.settings(content_bytes=size)
        video_id = await bought(stage, process, "[[content:pause*1 10000000]]")
        await sending(stage, 1)
        if where == "store":
            await stage.control.go_on()
            await stage.mirrored(2)
        before, _ = memory(process)
        forget_peak(process)
        with ExitStack() as stack:
            connections = [
                stack.enter_context(asked(stage, process, video_id)) for _ in range(readers)
            ]
            for connection in connections:
                await asyncio.to_thread(connection.recv, 1, socket.MSG_PEEK)
            await eventually(partial(rests, process))
            if where == "live":
                await stage.control.go_on()
                await stage.mirrored(2)
                await eventually(partial(rests, process))
            _, peak = memory(process)
            # They cost nobody else anything.
            await stage.downloads(process, video_id)
        told(each=(peak - before) / readers)
        assert (peak - before) / readers < 1_000_000
        assert (await stage.executed())[-1]["contents"] == {"video": 1}


async def warmed_up(stage: Scene, process: Process) -> None:
    """Let everything have been done once that is done later."""
    await stage.control.settings(content_bytes=5_000_000)
    video_id = await bought(stage, process, PAUSES)
    async with download(stage, process, video_id) as client:
        await client.upto(HALF)
        await stage.control.go_on()
        await client.whole()
    await stage.mirrored()
    await stage.downloads(process, video_id)


def asked(stage: Scene, process: Process, video_id: str) -> socket.socket:
    """Ask for content on a connection that takes in little by itself."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    connection.settimeout(60)
    address = httpx.URL(process.base_url)
    connection.connect((address.host, address.port))
    key = f"authorization: Bearer {stage.key}"
    connection.sendall(
        f"GET /v1/videos/{video_id}/content HTTP/1.1\r\nhost: x\r\n{key}\r\n\r\n".encode()
    )
    return connection


def hashed(stage: Scene, process: Process, video_id: str) -> tuple[int, str]:
    """Download content on a thread; return its size and SHA-256."""
    with asked(stage, process, video_id) as connection:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 20)
        with connection.makefile("rb") as stream:
            assert stream.readline().split()[1] == b"200"
            length = 0
            while (line := stream.readline().rstrip()) != b"":
                name, _, value = line.partition(b": ")
                length = int(value) if name == b"content-length" else length
            digest, left = hashlib.sha256(), length
            while left and (piece := stream.read1(min(left, 1 << 20))):
                digest.update(piece)
                left -= len(piece)
    assert left == 0
    return length, digest.hexdigest()


async def rests(process: Process) -> bool:
    """Tell whether a process does next to nothing."""
    before = worked(process)
    await asyncio.sleep(0.3)  # long enough for a process that works to be seen working
    return worked(process) - before <= 1


def worked(process: Process) -> int:
    """Return for how many ticks a process has had a processor: proc(5), stat, fields 14 and 15."""
    text = Path(f"/proc/{process.popen.pid}/stat").read_text().rpartition(")")[2]
    return sum(map(int, text.split()[11:13]))


def told(**figures: float) -> None:
    """Say what was measured where a folder for that is named."""
    if folder := os.environ.get("FIGURES"):
        with (Path(folder) / "figures.jsonl").open("a") as file:
            file.write(json.dumps(figures) + "\n")
