"""How does the simulator come to listen on a port?

Inside a running event loop (Simulator, for tests) or as a process of its own (run). uvicorn serves
it, without touching signals, and tells the app of the connection below each request, so that an
answer can be broken off.
"""

import asyncio
import json
import signal
import socket
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Self

import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from gateway.simulator.app import TRANSPORT, build_app
from gateway.simulator.world import Clock, Settings, World

BACKLOG = 2048
START_SECONDS = 10.0
STOP_SECONDS = 5.0
TICK_SECONDS = 1.0


class Simulator:
    """An upstream that listens while the `async with` block runs, in this event loop.

    Attributes:
        base_url: "http://127.0.0.1:PORT/v1", once it listens.
        world: what it knows, for tests in the same process; others use control.Control.
    """

    def __init__(
        self,
        *,
        settings: Settings | None = None,
        clock: Clock | None = None,
        host: str = "127.0.0.1",
        port: int = 0,
    ) -> None:
        """Prepare; nothing listens yet. Port 0 takes a free one."""
        settings = settings or Settings()
        self.base_url = ""
        self.world = World(settings=settings, clock=clock or Clock())
        self._address = (host, port)
        self._tasks = asyncio.TaskGroup()
        self._server = _Server(
            uvicorn.Config(
                build_app(self.world, settings=settings),
                http=_Protocol,
                lifespan="off",
                ws="none",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,
                backlog=BACKLOG,
            )
        )

    async def __aenter__(self) -> Self:
        made = socket.create_server(self._address, backlog=BACKLOG)
        # Opened anew it knows that it is TCP, and asyncio turns Nagle's algorithm off.
        listener = socket.socket(fileno=made.detach())
        host, port = listener.getsockname()[:2]
        self.base_url = f"http://{host}:{port}/v1"
        await self._tasks.__aenter__()
        self._tasks.create_task(self._server.serve(sockets=[listener]))
        async with asyncio.timeout(START_SECONDS):
            await self._server.listening.wait()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        del kind, error, traceback  # raised on as they are, not in the group's wrapping
        self._server.stop()
        await self._tasks.__aexit__(None, None, None)


def run(*, host: str, port: int, settings: Settings | None = None) -> None:
    """Serve until SIGTERM or SIGINT; one JSON line on stdout says the base_url once it listens."""
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(host=host, port=port, settings=settings))


async def _serve(*, host: str, port: int, settings: Settings | None) -> None:
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with Simulator(settings=settings, host=host, port=port) as simulator:
        sys.stdout.write(json.dumps({"base_url": simulator.base_url}) + "\n")
        sys.stdout.flush()
        await stopped.wait()


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self._stopping = asyncio.Event()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave signals to whoever runs the process."""
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Start, and say so."""
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        """Keep the Date header true, and end at once when told to stop."""
        while not await self.on_tick(0):
            with suppress(TimeoutError):
                async with asyncio.timeout(TICK_SECONDS):
                    await self._stopping.wait()

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Cut all connections, so that no answer that hangs holds up the end, and see them end.

        uvicorn's own waits in steps of 0.1 s, which a suite of short tests would feel.
        """
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        for connection in list(self.server_state.connections):
            if connection.transport is not None:
                connection.transport.abort()
        if self.server_state.tasks:
            await asyncio.wait(set(self.server_state.tasks), timeout=STOP_SECONDS)

    def stop(self) -> None:
        """Let serve() come to its end."""
        self.should_exit = True
        self._stopping.set()


class _Protocol(HttpToolsProtocol):
    def on_message_begin(self) -> None:
        """Add the connection to the request's scope."""
        super().on_message_begin()
        self.scope["extensions"] = {TRANSPORT: {"transport": self.transport}}
