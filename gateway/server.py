"""How is an application served on a port, and stopped?

A port that several processes share is accepted from in turns: a few connections, then a moment for
the others. uvloop by itself takes at once all that wait. Of 64 connections opened together to four
processes of a busy machine, five times, the process with most had 38 to 62, and twice one had none;
in turns it had 18 to 43, and none had less than 4. A socket of its own for each process
(SO_REUSEPORT) spreads them more evenly still, 18 to 20. But it goes on giving its share to a
process that hangs, resets what waits for one that has died, and lets a second gateway of the same
user take the same port without a word.
"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Final, NamedTuple

import uvicorn
from starlette.types import ASGIApp

from gateway.api.connection import ConnectedHttp
from gateway.config import Settings, SettingsError

_BACKLOG: Final = 2048
# How often the Date header is made anew.
_TICK_SECONDS: Final = 1.0
# What one process takes from a shared port before it leaves the others time to take the next.
_TURN_CONNECTIONS: Final = 4
_TURN_SECONDS: Final = 0.001
# After a connection that could not be accepted: there may be no descriptors left for the moment.
_PAUSE_SECONDS: Final = 0.5
_CLOSE: Final = (b"connection", b"close")


@dataclass(frozen=True, slots=True)
class Stop:
    """What a process has been told of its end.

    Attributes:
        asked: it is to end, in order.
        hurried: without the drain delay; whoever waits for that need not.
    """

    asked: asyncio.Event = field(default_factory=asyncio.Event)
    hurried: asyncio.Event = field(default_factory=asyncio.Event)


class Ports(NamedTuple):
    """The two listening sockets of a gateway."""

    api: socket.socket
    ops: socket.socket


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process decides when it drains."""

    def __init__(self, config: uvicorn.Config, *, shared: socket.socket | None) -> None:
        super().__init__(config)
        self._shared = shared
        self.listening = asyncio.Event()
        self.stopped = asyncio.Event()
        self._stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals alone."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen, and say so."""
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Tick until a stop is asked for."""
        if self._shared is None:
            await self._tick()
            return
        with self._shared as listening:
            async with asyncio.TaskGroup() as group:
                accepting = group.create_task(self._accept_in_turns(listening))
                await self._tick()
                accepting.cancel()

    async def _tick(self) -> None:
        # uvicorn looks ten times a second whether to stop; a stop is to be noticed at once.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._stopping.wait()

    async def _accept_in_turns(self, listening: socket.socket) -> None:
        loop = asyncio.get_running_loop()
        listening.settimeout(0)
        while True:
            try:
                for _ in range(_TURN_CONNECTIONS):
                    accepted, _address = await loop.sock_accept(listening)
                    await loop.connect_accepted_socket(self._protocol, accepted)
                await asyncio.sleep(_TURN_SECONDS)
            except OSError:
                await asyncio.sleep(_PAUSE_SECONDS)

    def _protocol(self) -> asyncio.Protocol:
        return ConnectedHttp(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )

    def keep_no_connection(self) -> None:
        """Go on serving, but close every connection with its next answer.

        Whoever has kept one, such as a load balancer, comes back by another, and is not caught in
        the middle of a request when all are closed.
        """
        self.config.encoded_headers.append(_CLOSE)  # of what uvicorn puts together with each Date
        self.server_state.default_headers.append(_CLOSE)  # of what it has put together last

    def stop(self) -> None:
        """Stop listening, and end once what is in flight is answered."""
        self.should_exit = True
        self._stopping.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        """Serve to the end, and say so."""
        try:
            await super().serve(sockets)
        finally:
            self.stopped.set()


async def serve(
    group: asyncio.TaskGroup,
    app: ASGIApp,
    listening: socket.socket,
    *,
    shutdown_seconds: int,
    shared: bool = False,
) -> Server:
    """Serve an application on a listening socket, in a task of the group; return once it does.

    Args:
        group: in which it is served.
        app: the application.
        listening: is closed when the server stops.
        shutdown_seconds: how long a stop waits for what is in flight.
        shared: other processes accept from this socket, too.
    """
    config = uvicorn.Config(
        app,
        http=ConnectedHttp,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=shutdown_seconds,
    )
    server = Server(config, shared=listening if shared else None)
    group.create_task(server.serve([] if shared else [listening]))
    await server.listening.wait()
    return server


async def wait_unless(hurried: asyncio.Event, *, seconds: float) -> None:
    """Wait for so long, or until hurried."""
    with contextlib.suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await hurried.wait()


async def stop(server: Server) -> None:
    """Stop listening, and return once what is in flight is answered."""
    server.stop()
    await server.stopped.wait()


@contextlib.contextmanager
def open_ports(settings: Settings) -> Iterator[Ports]:
    """Yield listening sockets for the API and for ops.

    Raises:
        SettingsError: a port cannot be had.
    """
    with (
        listen(settings.host, settings.port) as api,
        listen(settings.ops_host, settings.ops_port) as ops,
    ):
        yield Ports(api, ops)


@contextlib.contextmanager
def listen(host: str, port: int) -> Iterator[socket.socket]:
    """Yield a listening socket.

    Raises:
        SettingsError: the port cannot be had.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        made = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError([f"cannot listen on {host}:{port}: {error.strerror}"]) from error
    # It leaves the protocol unsaid, and asyncio turns Nagle's algorithm off only for what says TCP:
    # head and body of an answer would be 40 ms apart, a delayed acknowledgement.
    with socket.socket(fileno=made.detach()) as listening:
        yield listening


def port_of(listening: socket.socket) -> int:
    """Return the number of its port, also where the setting said 0."""
    return int(listening.getsockname()[1])
