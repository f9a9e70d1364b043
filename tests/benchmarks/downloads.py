"""Is stored content sent as fast as nginx sends a file, and does a cold download begin at once?

    python tests/benchmarks/downloads.py [--rounds 7] [--seconds 3]

Needs nginx and wrk. Server and load have a core each where there are two. Rounds are interleaved:
in each, nginx (sendfile, one worker) and the gateway (one process) send the same 20 MB file, whole
to 4 clients and 1 MB ranges to 8; a figure is the median of its rounds. Then cold downloads of
60 MB: the first byte through the gateway beside the first byte from the upstream itself, in turn,
from one that answers at once and from one that takes 50 ms. A spread above 15 % of either side
makes a figure inconclusive.
"""

import argparse
import asyncio
import re
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Final

import httpx
from side_by_side import (
    LOAD_CORE,
    SERVER_CORE,
    Figure,
    free_port,
    gateway,
    on_core,
    running,
    show,
    until_it_listens,
    upstream,
)

from gateway.simulator.control import Control
from gateway.simulator.server import run
from gateway.simulator.world import Settings as SimulatorSettings

MIB: Final = 1 << 20
WARM_BYTES, COLD_BYTES = 20 * MIB, 60 * MIB
COLD_DOWNLOADS: Final = 30
# An upstream on the same machine, and one across a continent.
AWAY_MS: Final = (0, 50)
NGINX = """
daemon off;
user root;
worker_processes 1;
pid {folder}/pid;
error_log stderr;
events {{ worker_connections 1024; }}
http {{
    access_log off;
    sendfile on;
    tcp_nopush on;
    keepalive_requests 1000000;
    server {{ listen 127.0.0.1:{port}; root {folder}/files; }}
}}
"""


def simulated(content_bytes: int) -> list[str]:
    """Return the command for a simulated upstream whose videos are so long."""
    return [sys.executable, __file__, "--upstream", str(content_bytes)]


def buy(client: httpx.Client) -> str:
    """Buy a video and wait until it can be downloaded."""
    answer = client.post("/videos", json={"prompt": "a heron"})
    answer.raise_for_status()
    video_id = str(answer.json()["id"])
    while client.head(f"/videos/{video_id}/content").status_code != 200:
        time.sleep(0.1)
    return video_id


@contextmanager
def nginx(folder: Path, content: bytes) -> Iterator[str]:
    """Run nginx with one file; yield its URL."""
    files = folder / "files"
    files.mkdir(parents=True)
    (files / "video.mp4").write_bytes(content)
    port = free_port()
    config = folder / "nginx.conf"
    config.write_text(NGINX.format(folder=folder, port=port))
    with running(on_core(SERVER_CORE, ["nginx", "-c", str(config), "-p", str(folder)])):
        until_it_listens(port)
        yield f"http://127.0.0.1:{port}/video.mp4"


def wrk(url: str, headers: dict[str, str], *, clients: int, seconds: int) -> float:
    """Return the MB per second that so many clients take."""
    told = [part for name, text in headers.items() for part in ("-H", f"{name}: {text}")]
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "--timeout", "30s", *told, url]
    said = subprocess.run(
        on_core(LOAD_CORE, command), capture_output=True, text=True, check=True
    ).stdout
    if "Non-2xx" in said:
        raise RuntimeError(said)
    found = re.search(r"Transfer/sec:\s+([0-9.]+)([KMG])B", said)
    assert found is not None, said
    return float(found[1]) * {"K": 1e-3, "M": 1.0, "G": 1e3}[found[2]]


def warm(folder: Path, *, rounds: int, seconds: int) -> list[Figure]:
    whole = Figure("warm 20 MB, 4 clients, beside nginx", "MB/s", 0.9, at_least=True)
    part = Figure("range of 1 MB, 8 clients, beside nginx", "MB/s", 0.9, at_least=True)
    with ExitStack() as stack:
        upstream_url = stack.enter_context(upstream(*simulated(WARM_BYTES)))
        client, _ = stack.enter_context(gateway(folder / "warm", upstream_url))
        path = f"/videos/{buy(client)}/content"
        theirs = stack.enter_context(nginx(folder / "nginx", client.get(path).content))
        ours = f"{client.base_url}{path.removeprefix('/')}"
        key = {"authorization": client.headers["authorization"]}
        ranged = {"range": f"bytes={5 * MIB}-{6 * MIB - 1}"}
        for number in range(rounds + 1):
            for figure, clients, asked in ((whole, 4, {}), (part, 8, ranged)):
                mine = wrk(ours, key | asked, clients=clients, seconds=seconds)
                other = wrk(theirs, asked, clients=clients, seconds=seconds)
                if number:  # the first round warms up
                    figure.ours.append(mine)
                    figure.theirs.append(other)
    return [whole, part]


async def first_byte_ms(url: httpx.URL, key: str) -> float:
    """Return how long the first byte of the content takes; read the rest and drop it."""
    reader, writer = await asyncio.open_connection(url.host, url.port)
    request = f"GET {url.raw_path.decode()} HTTP/1.1\r\nhost: {url.host}\r\n"
    begun = time.perf_counter()
    writer.write(f"{request}authorization: Bearer {key}\r\nconnection: close\r\n\r\n".encode())
    head = await reader.readuntil(b"\r\n\r\n")
    first = await reader.read(1)
    took_ms = (time.perf_counter() - begun) * 1000
    assert head.startswith(b"HTTP/1.1 200"), head
    assert first
    while await reader.read(MIB):
        pass
    writer.close()
    return took_ms


def forget(folder: Path) -> None:
    """Make everything that is mirrored look as if another process were just mirroring it."""
    with sqlite3.connect(folder / "gateway.db", timeout=10) as database:
        database.execute(
            "UPDATE assets SET mirrored_at = NULL, leased_at = created_at, due_at = 99999999999"
        )


async def keep_waiting(upstream_url: str, seconds: float) -> None:
    """Let the upstream take so long to begin with content."""
    async with Control(upstream_url) as control:
        await control.fault("delay", operation="content", value=seconds, times=None)


def cold(folder: Path, *, away_ms: int) -> Figure:
    name = f"first byte of a cold 60 MB, beside an upstream {away_ms} ms away"
    figure = Figure(name, "ms", 1.2, at_least=False)
    with ExitStack() as stack:
        upstream_url = stack.enter_context(upstream(*simulated(COLD_BYTES)))
        place = folder / f"cold{away_ms}"
        client, _ = stack.enter_context(gateway(place, upstream_url))
        video_id = buy(client)
        path = f"videos/{video_id}/content"
        time.sleep(1)  # what was only waited for is in the store now
        key = client.headers["authorization"].removeprefix("Bearer ")
        forget(place)
        if away_ms:
            asyncio.run(keep_waiting(upstream_url, away_ms / 1000))
        for _ in range(COLD_DOWNLOADS):
            ours = asyncio.run(first_byte_ms(httpx.URL(f"{client.base_url}{path}"), key))
            theirs = asyncio.run(first_byte_ms(httpx.URL(f"{upstream_url}/{path}"), "sk-simulator"))
            figure.ours.append(ours)
            figure.theirs.append(theirs)
    return figure


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--upstream", type=int, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.upstream is not None:
        settings = SimulatorSettings(
            queue_seconds=0, generation_seconds=0, content_bytes=asked.upstream
        )
        run(host="127.0.0.1", port=0, settings=settings)
        return
    missing = [tool for tool in ("nginx", "wrk", "taskset") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"needs {', '.join(missing)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        figures = warm(folder, rounds=asked.rounds, seconds=asked.seconds)
        figures += [cold(folder, away_ms=away_ms) for away_ms in AWAY_MS]
    show(figures)


if __name__ == "__main__":
    main()
