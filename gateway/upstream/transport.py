"""How do bytes travel to the upstream and back?

An httpx transport over aiohttp, because httpx's own pool falls to 56 requests/s at 256 at once.
Nothing is added to a request and nothing is done twice: no cookies, no headers of its own, no
redirects, no proxies from the environment, no decoding, no second try. Which exception says what
is written in attempt.py; its message is a fixed word fit for a metric.
"""

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from functools import cache
from typing import Any, Final, Self

import aiohttp
import httpx
from yarl import URL

from gateway.upstream.attempt import Attempt, Body, Request, Stopped

KEEPALIVE_SECONDS: Final = 4.0
"""How long an idle connection is kept: less than the upstream keeps it.

A request sent on a connection that the upstream is just closing has an unknown outcome. Node
(`server.keepAliveTimeout`), uvicorn (`--timeout-keep-alive`) and Apache (`KeepAliveTimeout`)
close after 5 s by default, nginx and load balancers after 60 s and more. gunicorn's 2 s would
need a shorter setting.
"""

READ_BUFFER_BYTES: Final = 262_144
"""Reading from the socket pauses when twice this much lies unread."""

_NOT_OURS: Final = ("User-Agent", "Accept", "Accept-Encoding", "Content-Type")

SocketMaker = Callable[[tuple[Any, ...]], socket.socket]


class AiohttpTransport(httpx.AsyncBaseTransport):
    """A pool of connections whose failures say what really happened.

    ConnectError, ConnectTimeout, PoolTimeout and UnsupportedProtocol: nothing was sent. Any other
    httpx.TransportError: the request may have been executed. httpx's `timeout` extension is read
    as: `pool` waiting for a free slot; `connect` name, address and TLS together; `write` longest
    silence while sending, re-armed with each piece of the body; `read` the head of the answer
    from the last byte of the body on, then the longest silence between pieces of the answer;
    and, of our own, `answer`: the whole answer from the last byte of the body on.

    The extension `before_first_byte` is called when a connection is at hand, in the same step of
    the event loop that hands over the first byte. What it raises comes through, nothing is sent,
    and the connection is closed.

    The stream of an answer must be closed; a connection whose answer was not read to its end is
    closed with it, never used again.
    """

    def __init__(
        self,
        *,
        max_connections: int,
        keepalive_seconds: float = KEEPALIVE_SECONDS,
        ssl_context: ssl.SSLContext | None = None,
        socket_maker: SocketMaker | None = None,
    ) -> None:
        self._slots = asyncio.Semaphore(max_connections)
        self._keepalive_seconds = keepalive_seconds
        self._ssl_context = ssl_context
        self._socket_maker = socket_maker
        self._session: aiohttp.ClientSession | None = None

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request once and return the answer's head, its body still to be read."""
        timeouts: dict[str, float | None] = request.extensions.get("timeout", {})
        await self._take_slot(request, seconds=timeouts.get("pool"))
        try:
            answer, attempt = await self._exchange(request, timeouts=timeouts)
        except BaseException:
            self._slots.release()
            raise
        stream = _Answer(
            answer,
            request=request,
            idle_seconds=timeouts.get("read"),
            answer_at=attempt.answer_at,
            done=self._slots.release,
        )
        return httpx.Response(
            answer.status, headers=list(answer.raw_headers), stream=stream, request=request
        )

    async def aclose(self) -> None:
        """Close every connection, idle or not."""
        if self._session is not None:
            await self._session.close()

    async def _take_slot(self, request: httpx.Request, *, seconds: float | None) -> None:
        try:
            async with asyncio.timeout(seconds if self._slots.locked() else None):
                await self._slots.acquire()
        except TimeoutError as error:
            raise httpx.PoolTimeout("pool_timeout", request=request) from error

    async def _exchange(
        self, request: httpx.Request, *, timeouts: dict[str, float | None]
    ) -> tuple[aiohttp.ClientResponse, Attempt]:
        deadline = asyncio.timeout(None)
        attempt = Attempt(
            request,
            deadline=deadline,
            timeouts=timeouts,
            before_first_byte=request.extensions.get("before_first_byte"),
        )
        try:
            async with deadline:
                answer = await self._send(request, attempt=attempt, seconds=timeouts.get("connect"))
        except Stopped:
            if attempt.refusal is None:
                raise
            raise attempt.refusal from None
        except TimeoutError as error:
            raise attempt.overdue() from error
        except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
            raise httpx.UnsupportedProtocol("bad_url", request=request) from error
        return answer, attempt

    async def _send(
        self, request: httpx.Request, *, attempt: Attempt, seconds: float | None
    ) -> aiohttp.ClientResponse:
        if self._session is None:
            self._session = self._open()
        has_body = "content-length" in request.headers or "transfer-encoding" in request.headers
        return await self._session.request(
            request.method,
            _address(request),
            headers=[
                (name.decode("ascii"), value.decode("latin-1"))
                for name, value in request.headers.raw
                # aiohttp frames a body of unknown length itself, and refuses to be told so.
                if name.lower() != b"transfer-encoding"
            ],
            data=Body(pieces(request), attempt=attempt) if has_body else None,
            allow_redirects=False,
            timeout=aiohttp.ClientTimeout(total=None, connect=seconds),
            middlewares=(attempt.once,),
        )

    def _open(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(
            limit=0,  # the slots are the limit: waiting for one is told apart from connecting
            keepalive_timeout=self._keepalive_seconds,
            ssl=self._ssl_context or tls_context(),
            socket_factory=self._socket_maker,
        )
        return aiohttp.ClientSession(
            connector=connector,
            request_class=Request,
            cookie_jar=aiohttp.DummyCookieJar(),
            auto_decompress=False,
            read_bufsize=READ_BUFFER_BYTES,
            skip_auto_headers=_NOT_OURS,
            trust_env=False,
        )


@cache
def tls_context() -> ssl.SSLContext:
    """Return httpx's own default: certificates are verified against certifi's list.

    SSL_CERT_FILE or SSL_CERT_DIR in the environment name another one. It is read once, which takes
    20 ms, for all upstreams together.
    """
    context = httpx.create_ssl_context()
    context.set_alpn_protocols(["http/1.1"])
    return context


def _address(request: httpx.Request) -> URL:
    # encoded: httpx has quoted it; quoting anew would change signed URLs and odd ids.
    url = URL(str(request.url), encoded=True)
    try:
        _ = url.port  # the authority is taken apart only now
    except ValueError as error:
        raise httpx.UnsupportedProtocol("bad_url", request=request) from error
    return url


def pieces(message: httpx.Request | httpx.Response) -> httpx.AsyncByteStream:
    """Return the body of a message as it is on the wire: no decoding of any kind."""
    if not isinstance(message.stream, httpx.AsyncByteStream):
        raise TypeError("the body is not an asynchronous stream")
    return message.stream


class _Answer(httpx.AsyncByteStream, AsyncIterator[bytes]):
    """The body of one answer as it came; owns the connection until it is closed."""

    def __init__(
        self,
        answer: aiohttp.ClientResponse,
        *,
        request: httpx.Request,
        idle_seconds: float | None,
        answer_at: float | None,
        done: Callable[[], None],
    ) -> None:
        self._answer = answer
        self._request = request
        self._idle_seconds = idle_seconds
        self._answer_at = answer_at
        self._done: Callable[[], None] | None = done

    # Not a generator: one that is left half-read lives on until it is collected.
    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        chunk = await self._next()
        if not chunk:
            raise StopAsyncIteration
        return chunk

    async def aclose(self) -> None:
        """Give the slot back; close the connection unless the answer was read to its end."""
        if self._done is None:
            return
        done, self._done = self._done, None
        # aiohttp has put the connection back by itself if the last byte has come.
        self._answer.close()
        done()

    async def _next(self) -> bytes:
        content = self._answer.content
        try:
            # A small answer lies there whole: a timer would cost more than the reading.
            chunk = content.read_nowait(-1)
            if chunk or content.at_eof():
                return chunk
            async with asyncio.timeout_at(self._due_at()):
                return await content.readany()
        except TimeoutError as error:
            raise httpx.ReadTimeout("answer_timeout", request=self._request) from error
        except aiohttp.ClientPayloadError as error:
            raise httpx.RemoteProtocolError("truncated", request=self._request) from error
        except (aiohttp.ClientError, OSError) as error:
            raise httpx.ReadError("connection_lost", request=self._request) from error

    def _due_at(self) -> float | None:
        dates = [self._answer_at] if self._answer_at is not None else []
        if self._idle_seconds is not None:
            dates.append(asyncio.get_running_loop().time() + self._idle_seconds)
        return min(dates, default=None)
