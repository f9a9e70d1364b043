"""What do logs and metrics cost a client who asks for a video's status?

    python tests/benchmarks/telemetry.py [--rounds 7] [--seconds 3]

Needs wrk. Two gateways of one process each, on the same records: one as it is served, its log
written to a file, and one that logs and counts nothing. In each round both answer GETs for 1,000
videos that are in progress, with 1, 32 and 256 connections. What the server itself uses of its core
tells more than the clock where other programs run beside it.
"""

import argparse
import asyncio
import logging
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, Final, Self

import httpx
import structlog
import uvloop
from side_by_side import LOAD_CORE, SERVE, Figure, cpu_seconds, gateway, on_core, show, upstream

from gateway import app
from gateway.cli.common import read_settings
from gateway.simulator.server import run
from gateway.simulator.world import Settings as SimulatorSettings

VIDEOS: Final = 1_000
AT_ONCE: Final = 50
CLIENTS: Final = (1, 32, 256)
GOAL: Final = 0.75
# Which of the videos is asked for: another one each time, the same ones on both sides.
ASK: Final = """
local ids = {{{ids}}}
local next = 0
request = function()
    next = next % #ids + 1
    return wrk.format("GET", "/v1/videos/" .. ids[next])
end
"""


class Nothing:
    """Whatever is asked of it, it does nothing."""

    @classmethod
    def of(cls, *_: object) -> Self:
        return cls()

    def __getattr__(self, name: str) -> Any:
        return self

    def __call__(self, *_: object, **__: object) -> Any:
        return self

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        return None

    async def watch(self) -> None:
        return None


def serve_in_silence() -> None:
    """Serve as `video-gateway serve` does, but for logs and metrics."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    without: dict[str, Any] = {
        "Metrics": Nothing,
        "MeasuredDatabase": lambda database, _: database,
        "MeasuredStore": lambda store, _: store,
    }
    for name, other in without.items():
        setattr(app, name, other)

    async def serve() -> None:
        async with app.running(read_settings(None, serving=True)):
            await asyncio.Event().wait()

    with suppress(KeyboardInterrupt):
        uvloop.run(serve())


async def buy_all(client: httpx.Client) -> list[str]:
    """Buy videos that never end, and return their ids."""
    async with httpx.AsyncClient(
        base_url=client.base_url, headers=client.headers, trust_env=False, timeout=60
    ) as buyer:

        async def buy() -> str:
            answer = await buyer.post("/videos", json={"prompt": "a heron [[stuck]]"})
            answer.raise_for_status()
            return str(answer.json()["id"])

        bought: list[str] = []
        for _ in range(0, VIDEOS, AT_ONCE):
            bought += await asyncio.gather(*(buy() for _ in range(AT_ONCE)))
        return bought


def ask(
    client: httpx.Client, pid: int, script: Path, *, clients: int, seconds: int
) -> tuple[float, float]:
    """Return how many statuses so many clients get in a second, and in one of the server's CPU."""
    used = cpu_seconds(pid)
    key = f"authorization: {client.headers['authorization']}"
    command = ["wrk", "-t1", f"-c{clients}", f"-d{seconds}s", "-H", key, "-s", str(script)]
    said = subprocess.run(
        on_core(LOAD_CORE, [*command, str(client.base_url)]),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    used = cpu_seconds(pid) - used
    found = re.search(r"(\d+) requests in .*Requests/sec:\s+([0-9.]+)", said, re.DOTALL)
    if found is None or "Non-2xx" in said:
        raise RuntimeError(said)
    return float(found[2]), int(found[1]) / used


def measure(folder: Path, *, rounds: int, seconds: int) -> list[Figure]:
    figures = {
        clients: [
            Figure(f"status GET, {clients} clients", unit, GOAL, at_least=True)
            for unit in ("/s", "/CPU s")
        ]
        for clients in CLIENTS
    }
    own = [sys.executable, __file__]
    with ExitStack() as stack:
        upstream_url = stack.enter_context(upstream(*own, "--upstream"))
        sides = []
        for name, command in (("loud", SERVE), ("silent", (*own, "--silent"))):
            client, pid = stack.enter_context(gateway(folder / name, upstream_url, serve=command))
            script = folder / f"{name}.lua"
            ids = ", ".join(f'"{one}"' for one in asyncio.run(buy_all(client)))
            script.write_text(ASK.format(ids=ids))
            sides.append((client, pid, script))
        for number in range(rounds + 1):
            for clients, figure in figures.items():
                ours, theirs = (ask(*one, clients=clients, seconds=seconds) for one in sides)
                if number:  # the first round warms up
                    for one, mine, other in zip(figure, ours, theirs, strict=True):
                        one.ours.append(mine)
                        one.theirs.append(other)
    return [one for pair in figures.values() for one in pair]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--seconds", type=int, default=3)
    parser.add_argument("--upstream", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--silent", action="store_true", help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.upstream:
        run(host="127.0.0.1", port=0, settings=SimulatorSettings())
        return
    if asked.silent:
        serve_in_silence()
        return
    missing = [tool for tool in ("wrk", "taskset") if shutil.which(tool) is None]
    if missing:
        sys.exit(f"needs {', '.join(missing)}")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    with tempfile.TemporaryDirectory() as name:
        show(measure(Path(name), rounds=asked.rounds, seconds=asked.seconds))


if __name__ == "__main__":
    main()
