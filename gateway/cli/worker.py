"""What does one of several workers do? It serves on the ports of the process that started it.

`gateway/workers.py` starts it, and says what goes over the channel between the two; it is no
command for people. What is wrong when it begins, it says as `video-gateway serve` does.
"""

import asyncio
import pickle
import shutil
import signal
import socket
from contextlib import suppress
from typing import Final

import click
import structlog
from prometheus_client import CollectorRegistry

from gateway.app import running
from gateway.cli.common import begin_logs
from gateway.cli.serve import run, stop_on_signals
from gateway.config import Settings
from gateway.server import Ports
from gateway.telemetry.metrics.sharing import share
from gateway.workers import BEAT_SECONDS, Told

# How long a worker goes on whose parent has died: what it leaves then is what a crash leaves. Its
# ports are needed by whoever is started next.
BEREFT_SECONDS: Final = 5


@click.command()
@click.argument("channel", type=int)
def worker(channel: int) -> None:
    """Serve as the parent says that is at the other end of the channel, a descriptor."""
    with socket.socket(fileno=channel) as parent:
        told = _told(parent)
        if told is None:
            return
        share(told.counting, worker=told.number)
        registry = begin_logs(told.settings.log_format)
        structlog.contextvars.bind_contextvars(worker=told.number)
        with socket.socket(fileno=told.api) as api, socket.socket(fileno=told.ops) as ops:
            bereft = run(_serve(told.settings, Ports(api, ops), parent, registry=registry))
        if bereft:
            # The parent would have done it.
            shutil.rmtree(told.counting, ignore_errors=True)


def _told(parent: socket.socket) -> Told | None:
    """Return what the parent says, None if it has died before."""
    with parent.makefile("rb") as channel:
        try:
            told: Told = pickle.load(channel)  # noqa: S301 - the other end of a pair of sockets
        except EOFError:
            return None
    return told


async def _serve(
    settings: Settings, ports: Ports, parent: socket.socket, *, registry: CollectorRegistry
) -> bool:
    """Serve until told to stop, or until the parent has gone; tell whether it has."""
    loop = asyncio.get_running_loop()
    stop = stop_on_signals()
    bereft = asyncio.Event()
    parent.settimeout(0)

    def gone() -> None:
        # It says nothing more, so what can be read is the end.
        loop.remove_reader(parent)
        # The kernel ends what has not ended by then, whatever it is doing.
        signal.alarm(BEREFT_SECONDS)
        bereft.set()
        stop.hurried.set()
        stop.asked.set()

    def beat() -> None:
        with suppress(OSError):
            parent.send(b".")
        loop.call_later(BEAT_SECONDS, beat)

    loop.add_reader(parent, gone)
    async with running(settings, shared=ports, registry=registry, hurried=stop.hurried):
        beat()
        await stop.asked.wait()
    return bereft.is_set()


if __name__ == "__main__":
    worker()
