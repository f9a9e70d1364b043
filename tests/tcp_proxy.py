"""What stands between a client and a server, and breaks the connection when a test says so?"""

import asyncio
import contextlib
import socket
import struct
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Final, Literal
from urllib.parse import urlsplit

CHUNK_BYTES: Final = 1 << 16
# PostgreSQL's message Query, alone or at the end of other statements.
_COMMIT: Final = b"COMMIT\x00"


@dataclass(eq=False)
class TcpProxy:
    """A proxy on loopback; what it does to bytes can be changed while connections are open.

    Attributes:
        delay_seconds: how long each piece waits, in either direction.
        at_commit: whether the next connection on which a COMMIT passes is to be broken before the
            server gets it, or after the server has answered, before the client hears so.
        struck: set once that has happened.
        accepted: connections since it was started.
    """

    target: tuple[str, int]
    port: int = 0
    delay_seconds: float = 0.0
    at_commit: Literal["before", "after"] | None = None
    struck: asyncio.Event = field(default_factory=asyncio.Event)
    accepted: int = 0
    _flows: list[asyncio.Event] = field(default_factory=list)
    _open: set[asyncio.StreamWriter] = field(default_factory=set)

    def url(self, url: str) -> str:
        """Return the URL of a server as it is reached through here."""
        parts = urlsplit(url)
        who, at, _ = parts.netloc.rpartition("@")
        return parts._replace(netloc=f"{who}{at}127.0.0.1:{self.port}").geturl()

    def stall(self) -> None:
        """Let nothing pass any more: a network that swallows everything and says nothing."""
        for flows in self._flows:
            flows.clear()

    def forget(self) -> None:
        """Let nothing pass on the connections there are; new ones are as good as ever."""
        self.stall()
        self._flows.append(asyncio.Event())
        self._flows[-1].set()

    def flow(self) -> None:
        """Let everything pass again, also what was held up."""
        for flows in self._flows:
            flows.set()

    def cut(self) -> None:
        """Break all connections, with a reset."""
        for writer in self._open:
            _reset(writer)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.accepted += 1
        try:
            there, back = await asyncio.open_connection(*self.target)
        except OSError:
            _reset(writer)
            return
        both = {writer, back}
        self._open |= both
        # What the client awaits of a COMMIT is swallowed, where it is to be broken after it.
        swallows = asyncio.Event()
        flows = self._flows[-1]
        try:
            async with asyncio.TaskGroup() as tasks:
                tasks.create_task(self._pump(reader, back, both, flows, swallows, from_client=True))
                tasks.create_task(
                    self._pump(there, writer, both, flows, swallows, from_client=False)
                )
        except* OSError:
            pass
        finally:
            self._open -= both
            for one in both:
                _reset(one)

    async def _pump(
        self,
        source: asyncio.StreamReader,
        sink: asyncio.StreamWriter,
        both: set[asyncio.StreamWriter],
        flows: asyncio.Event,
        swallows: asyncio.Event,
        *,
        from_client: bool,
    ) -> None:
        while piece := await source.read(CHUNK_BYTES):
            await asyncio.sleep(self.delay_seconds)
            await flows.wait()
            if from_client and self.at_commit is not None and piece.endswith(_COMMIT):
                before, self.at_commit = self.at_commit == "before", None
                if before:
                    self._strike(both)
                    return
                swallows.set()
            if swallows.is_set() and not from_client:
                self._strike(both)
                return
            sink.write(piece)
            await sink.drain()
        await flows.wait()
        for one in both:
            one.close()

    def _strike(self, both: set[asyncio.StreamWriter]) -> None:
        for one in both:
            _reset(one)
        self.struck.set()


def _reset(writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):  # it is closed already
        writer.get_extra_info("socket").setsockopt(
            socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0)
        )
    writer.transport.abort()


@asynccontextmanager
async def tcp_proxy(url: str) -> AsyncIterator[TcpProxy]:
    """Run a proxy to the server of a URL until the context is left."""
    parts = urlsplit(url)
    assert parts.hostname is not None
    assert parts.port is not None
    proxy = TcpProxy((parts.hostname, parts.port))
    proxy.forget()
    server = await asyncio.start_server(proxy.serve, "127.0.0.1", 0)
    proxy.port = server.sockets[0].getsockname()[1]
    try:
        yield proxy
    finally:
        server.close()
        proxy.cut()
        proxy.flow()
        await server.wait_closed()
