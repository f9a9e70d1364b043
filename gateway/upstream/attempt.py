"""What became of one request: was nothing sent, or may the upstream have executed it?

The answer decides whether money is released, so it is taken from what happened on the wire and
never guessed from the name of an exception. An attempt goes through these steps, in order:

    waiting     no connection is at hand yet              nothing was sent
    connected   a connection is at hand                   nothing was sent
    begun       the first byte is being handed over       may have been executed
    sent        the last byte of the body was handed over may have been executed

`begun` is set in the same step of the event loop that writes the head of the request, after the
caller's `before_first_byte` and after a look whether the upstream has closed the connection in
the meantime. Up to then every failure is a ConnectError or ConnectTimeout; from then on none is.

aiohttp is extended at its public seams only: a middleware (which turns its exceptions into ours
before it can repeat an idempotent request on another connection, as it does by itself for
ClientOSError and ServerDisconnectedError), a request class, and a payload.
"""

import asyncio
import errno
import select
import ssl
from collections.abc import AsyncIterable, Callable
from typing import Any, Final

import aiohttp
import aiohttp.abc
import aiohttp.connector
import aiohttp.payload
import httpx

from gateway.upstream.addresses import PrivateAddress

WRITE_BYTES: Final = 65_536
"""A body is written in pieces of at most this size, so that the send deadline sees progress."""


class Stopped(Exception):
    """`before_first_byte` raised: nothing was sent."""


class Attempt:
    """One request on its way; never used twice.

    Attributes:
        begun: the first byte may have left.
        sent: the last byte of the body was handed to the operating system or to a buffer of at
            most a few WRITE_BYTES.
        refusal: what `before_first_byte` raised, or None.
        answer_at: loop time by which the whole answer is due, once sent; None: no such deadline.
    """

    def __init__(
        self,
        request: httpx.Request,
        *,
        deadline: asyncio.Timeout,
        timeouts: dict[str, float | None],
        before_first_byte: Callable[[], None] | None,
    ) -> None:
        self.begun = False
        self.sent = False
        self.refusal: Exception | None = None
        self.answer_at: float | None = None
        self._request = request
        self._deadline: asyncio.Timeout | None = deadline
        self._timeouts = timeouts
        self._before_first_byte = before_first_byte

    async def once(
        self, request: aiohttp.ClientRequest, handler: aiohttp.ClientHandlerType
    ) -> aiohttp.ClientResponse:
        """Send at most once, as an aiohttp middleware; what fails is raised as httpx says it."""
        if isinstance(request, Request):
            request.attempt = self
        try:
            return await handler(request)
        # RuntimeError: uvloop raises it in place of OSError while it connects.
        except (aiohttp.ClientError, OSError, RuntimeError) as error:
            raise self.failure(error) from error
        finally:
            self._deadline = None

    def connected(self, connection: aiohttp.connector.Connection, *, has_body: bool) -> None:
        """Start the clock; without a body the next step is the only write, so begin."""
        if has_body:
            self._due("write")
        else:
            self.begin(connection.transport)
            self.finish()

    def begin(self, transport: asyncio.BaseTransport | None) -> None:
        """Allow the first byte. No await may stand between this call and the write.

        Raises:
            ConnectionResetError: the upstream has closed the connection.
            Stopped: `before_first_byte` raised.
        """
        if transport is None or transport.is_closing() or _has_something_to_read(transport):
            raise ConnectionResetError(errno.ECONNRESET, "closed before the first byte")
        if self._before_first_byte is not None:
            try:
                self._before_first_byte()
            except Exception as refusal:
                self.refusal = refusal
                raise Stopped from refusal
        self.begun = True

    def progress(self) -> None:
        """Re-arm the send deadline: another piece is about to be written."""
        self._due("write")

    def finish(self) -> None:
        """The last byte is out: the answer is due from here on."""
        self.sent = True
        seconds = self._timeouts.get("answer")
        if seconds is not None:
            self.answer_at = asyncio.get_running_loop().time() + seconds
        self._due("read" if seconds is None else "answer")

    def failure(self, error: BaseException) -> Exception:
        """Return the exception that says what became of the request, with a fixed word."""
        if self.refusal is not None:
            return Stopped()
        if not self.begun:
            return self._nothing_sent(error)
        if isinstance(error, aiohttp.ClientResponseError):
            return httpx.RemoteProtocolError("bad_response", request=self._request)
        if isinstance(error, aiohttp.ServerDisconnectedError):
            return httpx.RemoteProtocolError("connection_lost", request=self._request)
        broken = httpx.ReadError if self.sent else httpx.WriteError
        return broken("connection_lost", request=self._request)

    def overdue(self) -> httpx.TimeoutException:
        """Return the exception for a deadline that passed after a connection was at hand."""
        if not self.begun:
            return httpx.ConnectTimeout("send_timeout", request=self._request)
        if not self.sent:
            return httpx.WriteTimeout("send_timeout", request=self._request)
        return httpx.ReadTimeout("answer_timeout", request=self._request)

    def _nothing_sent(self, error: BaseException) -> Exception:
        if isinstance(error, TimeoutError):
            return httpx.ConnectTimeout("connect_timeout", request=self._request)
        return httpx.ConnectError(_connect_word(error), request=self._request)

    def _due(self, kind: str) -> None:
        # None once an answer has come: an upstream may answer before it has read the body.
        if self._deadline is not None:
            seconds = self._timeouts.get(kind)
            now = asyncio.get_running_loop().time()
            self._deadline.reschedule(None if seconds is None else now + seconds)


class Request(aiohttp.ClientRequest):
    """aiohttp's request, which tells its attempt when a connection is at hand."""

    attempt: Attempt

    async def send(self, conn: aiohttp.connector.Connection) -> aiohttp.ClientResponse:
        """Write the head, and start writing the body."""
        self.attempt.connected(conn, has_body=bool(self.body))
        return await super().send(conn)


class Body(aiohttp.payload.Payload):
    """A request body that begins and finishes its attempt, and keeps to its declared length."""

    def __init__(self, stream: AsyncIterable[bytes], *, attempt: Attempt) -> None:
        super().__init__(stream)
        self._attempt = attempt

    async def write_with_length(
        self, writer: aiohttp.abc.AbstractStreamWriter, content_length: int | None
    ) -> None:
        """Write the body piece by piece; the head goes out together with the first piece."""
        attempt = self._attempt
        total = 0
        async for chunk in self._value:
            for start in range(0, len(chunk), WRITE_BYTES):
                piece = chunk[start : start + WRITE_BYTES]
                total += len(piece)
                if content_length is not None and total > content_length:
                    raise ValueError("the body is longer than its Content-Length")
                if not attempt.begun:
                    attempt.begin(writer.transport)
                attempt.progress()
                await writer.write(piece)
        if not attempt.begun:
            attempt.begin(writer.transport)
        if content_length is not None and total != content_length:
            raise ValueError("the body is shorter than its Content-Length")
        await writer.drain()
        attempt.finish()

    async def write(self, writer: aiohttp.abc.AbstractStreamWriter) -> None:
        """Write the body; aiohttp's older name for it."""
        await self.write_with_length(writer, None)

    def decode(self, encoding: str = "utf-8", errors: str = "strict") -> str:
        """Say that there is no text to be had: aiohttp requires the method."""
        raise TypeError(f"a streamed body is not text ({encoding}, {errors})")


def _has_something_to_read(transport: asyncio.BaseTransport) -> bool:
    # Before a request nothing may come: readable means that the upstream has closed (or sent a
    # 408 and closes), and the event loop has not been told yet. What is written then is lost,
    # and nobody could say whether it was executed.
    found: Any = transport.get_extra_info("socket")
    if found is None or transport.get_extra_info("sslcontext") is not None:
        return False  # TLS 1.3 sends session tickets unasked
    poll = select.poll()
    poll.register(found.fileno(), select.POLLIN)
    return bool(poll.poll(0))


def _connect_word(error: BaseException) -> str:
    if isinstance(error, aiohttp.ClientConnectorDNSError):
        return "dns"
    if isinstance(error, aiohttp.ClientSSLError | ssl.SSLError):
        return "tls"
    if isinstance(error, aiohttp.ClientConnectorError):
        if isinstance(error.os_error, PrivateAddress):
            return "private_address"
        return "connect_refused" if error.errno == errno.ECONNREFUSED else "connect_failed"
    return "bad_url" if isinstance(error, aiohttp.InvalidURL) else "connection_lost"
