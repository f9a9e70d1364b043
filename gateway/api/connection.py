"""What may a request do with its connection that ASGI has no words for?

Break it off, and hand the kernel a file to send. Both need the transport under uvicorn, which the
protocol class below puts into the request's scope.
"""

import asyncio
import os
from collections.abc import Awaitable, Callable, MutableMapping
from contextlib import closing
from socket import socket
from typing import Any, Final

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

# Between two of these the loop runs: every other request waits for each of them.
PART_BYTES: Final = 512 << 10
_CONNECTION: Final = "gateway.connection"


class ClientStalled(Exception):
    """The client did not take what was sent to it."""


class ConnectedHttp(HttpToolsProtocol):
    """uvicorn's protocol, for `Config(http=…)`, under which a request knows its connection."""

    def on_message_begin(self) -> None:
        """Add to a request's scope what connection_of() returns."""
        super().on_message_begin()
        self.scope["extensions"] = {_CONNECTION: {_CONNECTION: Connection(self)}}


class Connection:
    """The connection of one request."""

    def __init__(self, protocol: HttpToolsProtocol) -> None:
        self._protocol = protocol

    @property
    def is_closing(self) -> bool:
        """Whether the client has left, or we let go of it."""
        return self._protocol.transport.is_closing()

    async def break_off(self) -> None:
        """End it at once, whatever was announced.

        uvicorn itself only closes: that waits until all that was written is taken, and a stalled
        reader never takes it.
        """
        self._protocol.transport.abort()
        # uvicorn hears of it in the next turn, and then does not mind an answer without an end.
        await asyncio.sleep(0)

    async def send_file(
        self,
        file: int,
        *,
        start: int,
        end: int,
        at_hand: Callable[[int, int], Awaitable[None]],
        taken: Callable[[int], None],
        stalled_seconds: float,
    ) -> int:
        """Send bytes of an open file as the body of the answer that was started (sendfile(2)).

        They go from the kernel's cache to the network without passing through here: half the work
        of reading and writing them, and nothing is held for a reader who is slow.

        Args:
            file: its descriptor.
            start: the first byte.
            end: the one behind the last; together they are the announced length.
            at_hand: waits until the bytes of a part can be read without waiting for a disk.
            taken: told of each number of bytes that the connection has taken.
            stalled_seconds: how long the client may take nothing.

        Returns:
            The position reached: before `end` where the client left before it.

        Raises:
            ClientStalled: it took nothing for so long.
            GatewayError: what `at_hand` raises, as it must where the file has no such bytes.
        """
        transport = self._protocol.transport
        # uvicorn counts what passes through it.
        self._protocol.cycle.expected_content_length = 0
        at = start
        # A number of its own: the loop watches the transport's already.
        with closing(_second(transport)) as second:
            while transport.get_write_buffer_size() and not self.is_closing:
                await _writable(second, seconds=stalled_seconds)  # the head of the answer first
            while at < end and not self.is_closing:
                part = min(end, at + PART_BYTES)
                await at_hand(at, part)
                try:
                    sent = os.sendfile(second.fileno(), file, at, part - at)
                except BlockingIOError:
                    await _writable(second, seconds=stalled_seconds)
                    continue
                except (BrokenPipeError, ConnectionResetError):
                    break
                taken(sent)
                at += sent
                await asyncio.sleep(0)
        return at


def connection_of(scope: MutableMapping[str, Any]) -> Connection:
    """Return the connection of a request; the server must run ConnectedHttp."""
    found: Connection = scope["extensions"][_CONNECTION][_CONNECTION]
    return found


def _second(transport: asyncio.Transport) -> socket:
    found: socket = transport.get_extra_info("socket")
    second = found.dup()
    second.settimeout(0)
    return second


async def _writable(connection: socket, *, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    writable = asyncio.Event()
    loop.add_writer(connection, writable.set)
    try:
        async with asyncio.timeout(seconds):
            await writable.wait()
    except TimeoutError as error:
        raise ClientStalled from error
    finally:
        loop.remove_writer(connection)
