"""How are two servers measured side by side, on one machine, in one run?

Server and load have a core each where there are two. A figure is the median of interleaved rounds;
a spread above 15 % of either side makes it inconclusive.
"""

import json
import os
import socket
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import httpx
from rich.console import Console
from rich.table import Table

MOST_SPREAD: Final = 0.15
SERVER_CORE, LOAD_CORE = "0", "1"
WAIT_SECONDS: Final = 30
SERVE: Final = (sys.executable, "-m", "gateway", "serve")


@dataclass
class Figure:
    """What was measured of one thing on both sides.

    Attributes:
        goal: the ratio of ours to theirs that is asked for, at least or at most.
    """

    name: str
    unit: str
    goal: float
    at_least: bool
    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def spread(self) -> float:
        """The wider of both sides: from the first to the third quartile, over the median."""
        return max(_spread(self.ours), _spread(self.theirs))

    @property
    def verdict(self) -> str:
        met = self.ratio >= self.goal if self.at_least else self.ratio <= self.goal
        if self.spread > MOST_SPREAD:
            return "inconclusive"
        return "met" if met else "missed"


def _spread(values: Sequence[float]) -> float:
    first, _, third = statistics.quantiles(values, n=4)
    return (third - first) / statistics.median(values)


def on_core(core: str, command: list[str]) -> list[str]:
    return ["taskset", "-c", core, *command] if (os.cpu_count() or 1) > 1 else command


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        return int(listening.getsockname()[1])


@contextmanager
def running(command: list[str], **options: Any) -> Iterator[subprocess.Popen[str]]:
    with subprocess.Popen(command, text=True, **options) as process:
        try:
            yield process
        finally:
            process.terminate()


def until_it_listens(port: int) -> None:
    give_up = time.monotonic() + WAIT_SECONDS
    while time.monotonic() < give_up:
        with socket.socket() as client:
            if client.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.02)
    raise TimeoutError(f"nothing listens on {port}")


@contextmanager
def upstream(*options: str) -> Iterator[str]:
    """Run `video-gateway simulate` or the like; yield its base URL.

    The program prints one line of JSON with it.
    """
    with running(on_core(LOAD_CORE, list(options)), stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        yield str(json.loads(process.stdout.readline())["base_url"])


@contextmanager
def gateway(
    folder: Path, upstream_url: str, *, serve: Sequence[str] = SERVE
) -> Iterator[tuple[httpx.Client, int]]:
    """Run a gateway on records and content in a folder; yield a client with a key, and its pid."""
    port = free_port()
    environ = os.environ | {
        "GATEWAY_PORT": str(port),
        "GATEWAY_OPS_PORT": "0",
        "GATEWAY_DATABASE_URL": f"sqlite:///{folder / 'gateway.db'}",
        "GATEWAY_STORE_URL": f"file://{folder / 'content'}",
        "GATEWAY_UPSTREAM_BASE_URL": upstream_url,
        "GATEWAY_UPSTREAM_API_KEY": "sk-simulator",
        "GATEWAY_POLL_INTERVAL_SECONDS": "1",
        "GATEWAY_LOG_FORMAT": "json",
    }
    command = [sys.executable, "-m", "gateway"]
    made = subprocess.run(
        [*command, "keys", "create", "--project", "bench", "--name", "bench", "--json"],
        env=environ,
        capture_output=True,
        text=True,
        check=True,
    )
    served = on_core(SERVER_CORE, list(serve))
    with running(served, env=environ, stdout=subprocess.DEVNULL) as process:
        until_it_listens(port)
        headers = {"authorization": f"Bearer {json.loads(made.stdout)['value']}"}
        url = f"http://127.0.0.1:{port}/v1"
        with httpx.Client(base_url=url, headers=headers, trust_env=False, timeout=60) as client:
            yield client, process.pid


def cpu_seconds(pid: int) -> float:
    """Return what a process has used of its core: what others do there does not count."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def show(figures: Sequence[Figure]) -> None:
    """Print a table of all figures."""
    table = Table("work", "gateway", "beside", "ratio", "goal", "spread", "verdict")
    for one in figures:
        table.add_row(
            one.name,
            f"{statistics.median(one.ours):,.1f} {one.unit}",
            f"{statistics.median(one.theirs):,.1f} {one.unit}",
            f"{one.ratio:.2f}",
            f"{'≥' if one.at_least else '≤'} {one.goal}",
            f"{one.spread:.0%}",
            one.verdict,
        )
    Console(width=140).print(table)
