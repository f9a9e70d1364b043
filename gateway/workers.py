"""How do several processes serve one gateway?

The parent opens both ports once and starts workers, fresh interpreters that inherit them. It serves
nothing itself: it starts anew what dies or hangs, and ends with all of them. The first worker is
started alone, because it finds out whether the settings are right: then a mistake is said once, and
nothing is tried again.

Each worker has a channel to its parent, a pair of sockets. Down it come the settings, so that a
worker that is started later has those of the others, whatever has become of the file. Up it comes a
byte each second, and one that falls silent is killed: it would never be found by health checks,
which others answer. When the parent has gone, however it died, the channel ends, and the worker
with it (`gateway/cli/worker.py`).
"""

import asyncio
import pickle
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import structlog

from gateway.config import Settings
from gateway.server import Ports, Stop, port_of, wait_unless
from gateway.telemetry.metrics.sharing import forget

# The number of this process among those that count; workers have those from 1 on.
PARENT: Final = 0
BEAT_SECONDS: Final = 1.0
# How long a worker may say nothing. Nothing in it may hold up its loop for so long.
SILENT_SECONDS: Final = 30.0
# Beyond drain delay and `shutdown_seconds`: what is claimed is given back, the database closed.
_ENDING_SECONDS: Final = 60.0
# Who has lived for so long is started anew at once.
_STEADY_SECONDS: Final = 60.0
_MAX_BACK_OFF_SECONDS: Final = 30.0
_MODULE: Final = "gateway.cli.worker"
_FAILED: Final = 1
_BEATS: Final = 64

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Told:
    """What a worker is told when it begins; `api` and `ops` are descriptors.

    Attributes:
        counting: the folder in which all workers keep what they count.
    """

    number: int
    settings: Settings
    api: int
    ops: int
    counting: Path


async def run_workers(
    settings: Settings,
    ports: Ports,
    *,
    stop: Stop,
    counting: Path,
    silent_seconds: float = SILENT_SECONDS,
) -> int:
    """Serve with as many processes as the settings say until told to stop, and close the ports.

    Args:
        settings: what they are told.
        ports: what they serve on.
        stop: what they are told of it.
        counting: a folder for what they count, of which this process is number PARENT.
        silent_seconds: how long a worker may say nothing.

    Returns:
        The exit code: 0 if every worker has ended in order; if one could not begin, its own.
    """
    crew = _Crew(settings, ports, stop, counting, silent_seconds)
    async with asyncio.TaskGroup() as group:
        closing = group.create_task(_close_on_stop(crew))
        await _keep_all(crew)
        closing.cancel()
    _log.info("workers_stopped", exit_code=crew.exit_code)
    return crew.exit_code


@dataclass(slots=True)
class _Crew:
    """What the tasks share that each look after one worker."""

    settings: Settings
    ports: Ports
    stop: Stop
    counting: Path
    silent_seconds: float
    exit_code: int = 0


@dataclass(slots=True)
class _Life:
    """What became of one process.

    Attributes:
        served: it has served.
        hung: it was killed, because it fell silent or did not end.
    """

    pid: int = 0
    seconds: float = 0.0
    served: bool = False
    hung: bool = False
    exit_code: int = 0


async def _close_on_stop(crew: _Crew) -> None:
    try:
        await crew.stop.asked.wait()
        await wait_unless(crew.stop.hurried, seconds=crew.settings.drain_delay_seconds)
    finally:
        # The workers close theirs, or are gone. Nobody accepts, so nobody is to wait for it.
        for listening in crew.ports:
            listening.close()


async def _keep_all(crew: _Crew) -> None:
    begun = [asyncio.Event() for _ in range(crew.settings.workers)]
    async with asyncio.TaskGroup() as group:
        for number, event in enumerate(begun, start=1):
            group.create_task(_keep(crew, number, event))
            if number == 1:
                await event.wait()
        for event in begun:
            await event.wait()
        if not crew.stop.asked.is_set():
            api, ops = map(port_of, crew.ports)
            _log.info("workers_started", workers=len(begun), port=api, ops_port=ops)


async def _keep(crew: _Crew, number: int, begun: asyncio.Event) -> None:
    """Start a worker, and another one when it dies, until told to stop.

    `begun` is set once the first has served, or never will.
    """
    quick_deaths = 0
    try:
        while not crew.stop.asked.is_set():
            life = await _live(crew, number, begun)
            if crew.stop.asked.is_set():
                if life.served and life.exit_code:
                    _say_died(number, life)
                    crew.exit_code = crew.exit_code or _FAILED
            elif not begun.is_set():
                if life.exit_code < 0:  # what ends by itself has said why
                    _say_died(number, life)
                crew.exit_code = max(life.exit_code, _FAILED)
                crew.stop.asked.set()
            else:
                _say_died(number, life)
                quick_deaths = 0 if life.seconds > _STEADY_SECONDS else quick_deaths + 1
                await wait_unless(crew.stop.asked, seconds=_back_off(quick_deaths))
    finally:
        begun.set()


def _say_died(number: int, life: _Life) -> None:
    _log.error("worker_died", worker=number, pid=life.pid, exit_code=life.exit_code, hung=life.hung)


def _back_off(quick_deaths: int) -> float:
    """Return how long to wait after so many quick deaths in a row: not at all, 1, 2, 4 … s."""
    if quick_deaths <= 1:
        return 0.0
    return min(_MAX_BACK_OFF_SECONDS, 2.0 ** (quick_deaths - 2))


async def _live(crew: _Crew, number: int, begun: asyncio.Event) -> _Life:
    """Let one process serve, and return what became of it."""
    life = _Life()
    loop = asyncio.get_running_loop()
    since = loop.time()
    async with _started(crew, number) as (process, channel), asyncio.TaskGroup() as group:
        life.pid = process.pid
        beside = (
            group.create_task(_watch(crew, life, process, channel, begun)),
            group.create_task(_end_on_stop(crew, life, process)),
        )
        life.exit_code = await process.wait()
        forget(crew.counting, worker=number)
        for task in beside:
            task.cancel()
    life.seconds = loop.time() - since
    return life


@asynccontextmanager
async def _started(
    crew: _Crew, number: int
) -> AsyncIterator[tuple[asyncio.subprocess.Process, asyncio.StreamReader]]:
    """Start a worker and tell it what it is to do; yield it and its channel."""
    ours, theirs = socket.socketpair()
    api, ops = (listening.fileno() for listening in crew.ports)
    with theirs:
        # Its own session: a Ctrl-C in the terminal reaches it once, and in order, from here.
        process = await asyncio.create_subprocess_exec(
            *(*_interpreter(), "-m", _MODULE, str(theirs.fileno())),
            pass_fds=(theirs.fileno(), api, ops),
            stdin=asyncio.subprocess.DEVNULL,
            start_new_session=True,
        )
    reader, writer = await asyncio.open_unix_connection(sock=ours)
    try:
        writer.write(pickle.dumps(Told(number, crew.settings, api, ops, crew.counting)))
        yield process, reader
    finally:
        writer.close()


def _interpreter() -> list[str]:
    """Return the command of this interpreter; it imports from the working folder only if we do."""
    here = Path.cwd() in [Path(folder).resolve() for folder in sys.path]
    return [sys.executable, *(() if here else ("-P",))]


async def _watch(
    crew: _Crew,
    life: _Life,
    process: asyncio.subprocess.Process,
    channel: asyncio.StreamReader,
    begun: asyncio.Event,
) -> None:
    """Note that a worker serves; kill it if it falls silent from then on."""
    try:
        while True:
            async with asyncio.timeout(crew.silent_seconds if life.served else None):
                if not await channel.read(_BEATS):
                    return
            life.served = True
            begun.set()
    except TimeoutError:
        _kill(life, process)
    except ConnectionError:
        return  # it has died with something unread


async def _end_on_stop(crew: _Crew, life: _Life, process: asyncio.subprocess.Process) -> None:
    await crew.stop.asked.wait()
    _signal(process, signal.SIGTERM)
    await wait_unless(crew.stop.hurried, seconds=crew.settings.drain_delay_seconds)
    if crew.stop.hurried.is_set():
        _signal(process, signal.SIGINT)
    await asyncio.sleep(crew.settings.shutdown_seconds + _ENDING_SECONDS)
    _kill(life, process)


def _kill(life: _Life, process: asyncio.subprocess.Process) -> None:
    life.hung = True
    _signal(process, signal.SIGKILL)


def _signal(process: asyncio.subprocess.Process, number: signal.Signals) -> None:
    with suppress(ProcessLookupError):
        process.send_signal(number)
