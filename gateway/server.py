"""How is an application served on a port, and stopped?"""

import asyncio
import contextlib
import socket
from collections.abc import Iterator
from typing import Final

import uvicorn
from starlette.types import ASGIApp

from gateway.api.connection import ConnectedHttp
from gateway.config import SettingsError

_BACKLOG: Final = 2048
# How often the Date header is made anew.
_TICK_SECONDS: Final = 1.0


class Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process decides when it drains."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
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
        # uvicorn looks ten times a second whether to stop; a stop is to be noticed at once.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._stopping.wait()

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
    group: asyncio.TaskGroup, app: ASGIApp, listening: socket.socket, *, shutdown_seconds: int
) -> Server:
    """Serve an application on a listening socket, in a task of the group; return once it does."""
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
    server = Server(config)
    group.create_task(server.serve([listening]))
    await server.listening.wait()
    return server


async def stop(server: Server) -> None:
    """Stop listening, and return once what is in flight is answered."""
    server.stop()
    await server.stopped.wait()


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
