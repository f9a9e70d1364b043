"""A raw socket server that does as it is told, and counts what it executed; and its own test."""

import asyncio
import contextlib
import re
import socket
import struct
from collections.abc import AsyncIterator, Awaitable, Callable, Iterable
from dataclasses import dataclass, field

DEADLINE_SECONDS = 10
_LENGTH = re.compile(rb"(?i)\r\ncontent-length: *([0-9]+)")


@dataclass
class Peer:
    """One connection, seen from the server."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter
    server: "Server"
    first: bytes

    async def read_request(self) -> bytes:
        """Read one whole request (which counts as its execution) and return its bytes."""
        request = self.first + await self.reader.readuntil(b"\r\n\r\n")
        length = _LENGTH.search(request)
        if length is not None:
            request += await self.reader.readexactly(int(length[1]))
        elif b"transfer-encoding: chunked" in request.lower():
            request += await self.reader.readuntil(b"0\r\n\r\n")
        await self.server.note(request)
        return request

    async def send(self, data: bytes) -> None:
        self.writer.write(data)
        await self.writer.drain()

    async def until_gone(self) -> None:
        while await self.reader.read(65_536):
            pass

    def reset(self) -> None:
        found = self.writer.get_extra_info("socket")
        found.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.writer.transport.abort()


Act = Callable[[Peer], Awaitable[bool | None]]
"""One exchange on a connection; True: the connection goes on to the next act."""


@dataclass
class Server:
    """What the server is to do next, and what it has seen.

    Attributes:
        acts: one for each request, in the order in which their first bytes arrive.
        begun: how many first bytes have arrived.
        requests: those that were executed.
        idle_seconds: how long it waits for a first byte, or None: as long as the client does.
    """

    acts: list[Act]
    port: int = 0
    connections: int = 0
    closed: int = 0
    begun: int = 0
    idle_seconds: float | None = None
    requests: list[bytes] = field(default_factory=list)
    changed: asyncio.Condition = field(default_factory=asyncio.Condition)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def note(self, request: bytes) -> None:
        async with self.changed:
            self.requests.append(request)
            self.changed.notify_all()

    async def until(self, condition: Callable[[], bool]) -> None:
        async with asyncio.timeout(DEADLINE_SECONDS), self.changed:
            await self.changed.wait_for(condition)

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        with contextlib.suppress(OSError, TimeoutError, asyncio.IncompleteReadError):
            while await self.exchange(reader, writer):
                pass
        writer.close()
        with contextlib.suppress(OSError):
            await writer.wait_closed()
        async with self.changed:
            self.closed += 1
            self.changed.notify_all()

    async def exchange(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> bool:
        async with asyncio.timeout(self.idle_seconds):
            first = await reader.read(1)
        if not first:
            return False
        self.begun += 1
        return bool(self.acts and await self.acts.pop(0)(Peer(reader, writer, self, first)))


@contextlib.asynccontextmanager
async def serving(
    acts: Iterable[Act], *, idle_seconds: float | None = None
) -> AsyncIterator[Server]:
    """Run a server for these acts."""
    script = Server(list(acts), idle_seconds=idle_seconds)
    listener = await asyncio.start_server(script.serve, "127.0.0.1", 0, limit=2**20)
    script.port = listener.sockets[0].getsockname()[1]
    try:
        yield script
    finally:
        listener.close()
        # Every connection is gone before the loop is: a client that leaks one fails here.
        await script.until(lambda: script.closed == script.connections)


def reply(status: str = "200 OK", body: bytes = b"{}", *, headers: str = "") -> bytes:
    head = f"HTTP/1.1 {status}\r\ncontent-length: {len(body)}\r\n{headers}\r\n"
    return head.encode() + body


def answer(data: bytes | None = None) -> Act:
    """Execute, answer, and go on with the next act on the same connection."""

    async def act(peer: Peer) -> bool:
        await peer.read_request()
        await peer.send(reply() if data is None else data)
        return True

    return act


def answer_and_close(data: bytes = b"") -> Act:
    """Execute, send these bytes (by default none), close."""

    async def act(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(data)
        peer.writer.close()

    return act


async def silence(peer: Peer) -> None:
    """Execute and say nothing until the client has gone."""
    await peer.read_request()
    await peer.until_gone()


async def reset(peer: Peer) -> None:
    """Execute, then reset the connection."""
    await peer.read_request()
    peer.reset()


async def reset_unread(peer: Peer) -> None:
    """Reset the connection at the first byte; nothing is executed."""
    peer.reset()


async def close_unread(peer: Peer) -> None:
    """Close the connection at the first byte; nothing is executed."""
    peer.writer.close()


async def test_the_server_counts_what_it_executed() -> None:
    async with serving([answer(), reset]) as server:
        reader, writer = await asyncio.open_connection("127.0.0.1", server.port)
        writer.write(b"POST / HTTP/1.1\r\ncontent-length: 2\r\n\r\nhi")
        assert await reader.readexactly(len(reply())) == reply()
        writer.close()
        await writer.wait_closed()
        assert [request[-2:] for request in server.requests] == [b"hi"]
