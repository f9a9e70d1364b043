"""Does the transport say what really happened, and does it do nothing twice?"""

import asyncio
import contextlib
import socket
import ssl
import threading
from collections.abc import AsyncIterator, Callable, Coroutine
from typing import Any

import httpx
import pytest
import trustme
import uvloop
from test_upstream_server import (
    DEADLINE_SECONDS,
    Act,
    Peer,
    Server,
    answer,
    answer_and_close,
    close_unread,
    reply,
    reset,
    reset_unread,
    serving,
    silence,
)

from gateway.upstream.transport import READ_BUFFER_BYTES, AiohttpTransport, pieces

SOON = 0.1
HALF_BODY = b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nhalf"
TIMEOUTS = {"pool": 5.0, "connect": 5.0, "write": 5.0, "read": 5.0}

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def run(loop: Callable[[], asyncio.AbstractEventLoop], case: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(case)


async def ask(
    transport: AiohttpTransport,
    url: str,
    *,
    method: str = "POST",
    before_first_byte: Callable[[], None] | None = None,
    content: Any = b'{"prompt":"a cat"}',
    headers: dict[str, str] | None = None,
    **timeouts: float,
) -> tuple[int, bytes]:
    extensions: dict[str, Any] = {"timeout": {**TIMEOUTS, **timeouts}}
    if before_first_byte is not None:
        extensions["before_first_byte"] = before_first_byte
    request = httpx.Request(
        method,
        url,
        content=content if method == "POST" else None,
        headers=headers,
        extensions=extensions,
    )
    response = await transport.handle_async_request(request)
    try:
        return response.status_code, b"".join([piece async for piece in pieces(response)])
    finally:
        await response.aclose()


@contextlib.asynccontextmanager
async def started(
    acts: list[Act], *, reused: bool = False, **settings: Any
) -> AsyncIterator[tuple[Server, AiohttpTransport]]:
    settings.setdefault("max_connections", 1)
    async with (
        serving([*([answer()] if reused else []), *acts]) as server,
        AiohttpTransport(**settings) as transport,
    ):
        if reused:
            assert (await ask(transport, server.url))[0] == 200
        yield server, transport


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize(
    ("act", "expected", "word", "executed"),
    [
        (close_unread, (httpx.ReadError, httpx.RemoteProtocolError), "connection_lost", 0),
        (reset_unread, (httpx.ReadError, httpx.RemoteProtocolError), "connection_lost", 0),
        (reset, (httpx.ReadError, httpx.RemoteProtocolError), "connection_lost", 1),
        (answer_and_close(), httpx.RemoteProtocolError, "connection_lost", 1),
        (answer_and_close(b"HTTP/1.1 200 O"), httpx.RemoteProtocolError, "connection_lost", 1),
        (answer_and_close(b"no HTTP\r\n\r\n"), httpx.RemoteProtocolError, "bad_response", 1),
        (answer_and_close(HALF_BODY), httpx.RemoteProtocolError, "truncated", 1),
        (silence, httpx.ReadTimeout, "answer_timeout", 1),
    ],
)
def test_what_broke_after_the_first_byte_may_have_been_executed_and_is_never_repeated(
    loop: Any, *, reused: bool, method: str, act: Act, expected: Any, word: str, executed: int
) -> None:
    async def case() -> None:
        async with started([act, answer()], reused=reused) as (server, transport):
            before = len(server.requests)
            with pytest.raises(expected) as caught:
                await ask(transport, server.url, method=method, read=SOON)
            assert not isinstance(caught.value, httpx.ConnectError | httpx.ConnectTimeout)
            assert str(caught.value) == word
            assert server.connections == 1
            # The next answer comes to the next question: nothing was sent in between.
            assert (await ask(transport, server.url, method=method))[0] == 200
            assert len(server.requests) == before + executed + 1

    run(loop, case())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_refused_connection_sent_nothing(loop: Any, method: str) -> None:
    async def case() -> None:
        with socket.socket() as bound:
            bound.bind(("127.0.0.1", 0))  # bound and not listening: refused
            async with AiohttpTransport(max_connections=1) as transport:
                url = f"http://127.0.0.1:{bound.getsockname()[1]}"
                with pytest.raises(httpx.ConnectError, match="connect_refused"):
                    await ask(transport, url, method=method)

    run(loop, case())


async def test_a_name_that_does_not_resolve_sent_nothing() -> None:
    async with AiohttpTransport(max_connections=1) as transport:
        with pytest.raises(httpx.ConnectError, match="dns"):
            await ask(transport, "http://upstream.invalid/v1")


async def test_a_handshake_that_hangs_sent_nothing() -> None:
    async with started([silence]) as (server, transport):
        with pytest.raises(httpx.ConnectTimeout, match="connect_timeout"):
            await ask(transport, f"https://127.0.0.1:{server.port}", connect=SOON)
        assert server.requests == []


async def test_a_server_that_speaks_no_tls_was_sent_nothing() -> None:
    async def plain(peer: Peer) -> None:
        await peer.send(b"220 hello\r\n")

    async with started([plain]) as (server, transport):
        with pytest.raises(httpx.ConnectError, match="tls"):
            await ask(transport, f"https://127.0.0.1:{server.port}")
        assert server.requests == []


async def test_a_certificate_nobody_vouches_for_is_refused() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(context)
    script = Server([answer()])
    listener = await asyncio.start_server(script.serve, "127.0.0.1", 0, ssl=context)
    url = f"https://localhost:{listener.sockets[0].getsockname()[1]}"
    trusting = ssl.create_default_context()
    authority.configure_trust(trusting)
    async with (
        AiohttpTransport(max_connections=1) as strict,
        AiohttpTransport(max_connections=1, ssl_context=trusting) as transport,
    ):
        with pytest.raises(httpx.ConnectError, match="tls"):
            await ask(strict, url)
        assert script.requests == []
        assert (await ask(transport, url))[0] == 200
    listener.close()
    await script.until(lambda: script.closed == script.connections)


async def test_waiting_for_a_free_connection_sent_nothing() -> None:
    async with started([silence]) as (server, transport):
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask_and_fail(transport, server.url))
            await server.until(lambda: len(server.requests) == 1)
            with pytest.raises(httpx.PoolTimeout, match="pool_timeout"):
                await ask(transport, server.url, pool=SOON)
            first.cancel()
        assert len(server.requests) == 1


async def ask_and_fail(transport: AiohttpTransport, url: str) -> None:
    with pytest.raises(httpx.HTTPError):
        await ask(transport, url)


async def test_a_cancelled_request_gives_its_place_back_and_closes_its_connection() -> None:
    async with started([silence, answer()]) as (server, transport):
        async with asyncio.TaskGroup() as group:
            first = group.create_task(ask_and_fail(transport, server.url))
            await server.until(lambda: len(server.requests) == 1)
            first.cancel()
        assert (await ask(transport, server.url))[0] == 200
        assert server.connections == 2


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("method", ["POST", "GET"])
@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("refusal", [RuntimeError("late"), OSError("late"), TimeoutError("late")])
def test_a_refusal_before_the_first_byte_sends_nothing_and_comes_through(
    loop: Any, *, method: str, reused: bool, refusal: Exception
) -> None:
    def refuse() -> None:
        raise refusal

    async def case() -> None:
        async with started([answer()], reused=reused) as (server, transport):
            with pytest.raises(type(refusal)) as caught:
                await ask(transport, server.url, method=method, before_first_byte=refuse)
            assert caught.value is refusal
            await server.until(lambda: server.closed == 1)
            assert server.begun == int(reused)
            assert (await ask(transport, server.url, method=method))[0] == 200
            assert server.connections == 2

    run(loop, case())


@pytest.mark.parametrize("reused", [False, True])
@pytest.mark.parametrize("method", ["POST", "GET"])
async def test_before_the_first_byte_is_asked_once_per_request(
    *, method: str, reused: bool
) -> None:
    asked: list[int] = []
    async with started([answer()], reused=reused) as (server, transport):
        before = len(server.requests)
        await ask(
            transport,
            server.url,
            method=method,
            before_first_byte=lambda: asked.append(len(server.requests)),
        )
        assert asked == [before]


async def test_before_the_first_byte_is_not_asked_without_a_connection() -> None:
    asked: list[int] = []
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with AiohttpTransport(max_connections=1) as transport:
            with pytest.raises(httpx.ConnectError):
                await ask(transport, url, before_first_byte=lambda: asked.append(1))
    assert asked == []


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize("method", ["POST", "GET"])
def test_a_connection_that_was_closed_unnoticed_is_not_written_to(loop: Any, method: str) -> None:
    listener = socket.create_server(("127.0.0.1", 0))
    may_close, has_closed = threading.Event(), threading.Event()

    def serve() -> None:
        connection, _ = listener.accept()
        connection.recv(65_536)
        connection.sendall(reply())
        may_close.wait(DEADLINE_SECONDS)
        connection.close()
        has_closed.set()

    async def case() -> None:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        async with AiohttpTransport(max_connections=1) as transport:
            await ask(transport, url, method="GET")
            # The event loop stands still meanwhile, so that it cannot hear of the end.
            may_close.set()
            assert has_closed.wait(DEADLINE_SECONDS)
            with pytest.raises(httpx.ConnectError, match="connection_lost"):
                await ask(transport, url, method=method)

    thread = threading.Thread(target=serve)
    thread.start()
    run(loop, case())
    thread.join()
    listener.close()


async def test_idle_connections_are_dropped_before_the_upstream_drops_them() -> None:
    async def load(worker: int) -> None:
        for turn in range(8):
            await ask(transport, server.url, content=b"{}")
            # The load pauses: shorter and longer than what the server has patience for.
            await asyncio.sleep((worker + turn) % 8 * 0.07)

    async with (
        serving([answer()] * 256, idle_seconds=0.4) as server,
        AiohttpTransport(max_connections=32, keepalive_seconds=0.05) as transport,
    ):
        async with asyncio.TaskGroup() as group:
            for worker in range(32):
                group.create_task(load(worker))
        assert len(server.requests) == 256
        assert server.connections < 256


async def test_nothing_is_added_to_a_request(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    cookie = reply(headers="set-cookie: a=b\r\n")
    async with started([answer(cookie), answer()]) as (server, transport):
        for _ in range(2):
            await ask(transport, server.url, headers={"x-one": "1"}, content=b"{}")
    head = f"POST / HTTP/1.1\r\nHost: 127.0.0.1:{server.port}\r\nx-one: 1\r\nContent-Length: 2"
    assert server.requests == [f"{head}\r\n\r\n{{}}".encode()] * 2


async def test_redirects_are_not_followed_and_bodies_are_not_decoded() -> None:
    moved = reply("302 Found", b"x", headers="location: /elsewhere\r\n")
    lie = reply(body=b"plain", headers="content-encoding: gzip\r\n")
    async with started([answer(moved), answer(lie)]) as (server, transport):
        assert await ask(transport, server.url) == (302, b"x")
        assert await ask(transport, server.url) == (200, b"plain")


async def test_a_connection_whose_answer_was_half_read_is_never_used_again() -> None:
    long = reply(body=b"x" * 50_000_000)
    async with started([answer(long), answer()]) as (server, transport):
        request = httpx.Request("GET", server.url, extensions={"timeout": TIMEOUTS})
        response = await transport.handle_async_request(request)
        assert await anext(aiter(pieces(response)))
        await response.aclose()
        await response.aclose()
        assert (await ask(transport, server.url))[0] == 200
        assert server.connections == 2


async def test_a_reader_that_stalls_does_not_make_memory_grow() -> None:
    offered = 256 * 2**20
    sent = 0

    async def pour(peer: Peer) -> None:
        nonlocal sent
        await peer.read_request()
        await peer.send(f"HTTP/1.1 200 OK\r\ncontent-length: {offered}\r\n\r\n".encode())
        chunk = bytes(2**16)
        with contextlib.suppress(TimeoutError):
            while sent < offered:
                async with asyncio.timeout(1):
                    await peer.send(chunk)
                sent += len(chunk)
        await peer.server.note(b"stalled")
        await peer.until_gone()

    async with started([pour]) as (server, transport):
        request = httpx.Request("GET", server.url, extensions={"timeout": TIMEOUTS})
        response = await transport.handle_async_request(request)
        await server.until(lambda: b"stalled" in server.requests)
        # What arrives in one piece is what has lain in memory; the rest stayed in the kernel.
        piece = await anext(aiter(pieces(response)))
        await response.aclose()
    assert len(piece) <= 4 * READ_BUFFER_BYTES
    assert sent < offered


async def test_the_send_deadline_counts_silence_and_the_answer_deadline_the_whole() -> None:
    loop = asyncio.get_running_loop()
    got = asyncio.Semaphore(0)
    begun = loop.time()

    async def slowly() -> AsyncIterator[bytes]:
        while loop.time() < begun + 3 * SOON:
            yield b"x" * 1_000
            await got.acquire()

    async def take(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        while (await peer.reader.readuntil(b"\r\n")) != b"0\r\n":
            await peer.reader.readuntil(b"\r\n")
            got.release()
        await peer.send(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n")
        # For ever, and never silent.
        while not peer.writer.is_closing():
            await peer.send(b"1\r\nx\r\n")
            await asyncio.sleep(0)

    async with started([take]) as (server, transport):
        with pytest.raises(httpx.ReadTimeout, match="answer_timeout"):
            await ask(transport, server.url, content=slowly(), write=SOON, answer=2 * SOON)
        assert loop.time() - begun >= 5 * SOON


async def test_a_server_that_stops_reading_meets_the_send_deadline() -> None:
    async def stop_reading(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        peer.writer.transport.pause_reading()  # type: ignore[attr-defined]
        await peer.server.until(lambda: b"over" in peer.server.requests)
        peer.reset()

    async with started([stop_reading]) as (server, transport):
        with pytest.raises(httpx.WriteTimeout, match="send_timeout"):
            await ask(transport, server.url, content=bytes(64 * 2**20), write=2 * SOON)
        await server.note(b"over")


@pytest.mark.parametrize(
    ("declared", "acts", "expected"),
    [(3, [answer()], httpx.ConnectError), (7, [silence, answer()], httpx.WriteError)],
)
async def test_a_body_that_is_not_as_long_as_declared_is_not_completed(
    declared: int, acts: list[Act], expected: type[httpx.TransportError]
) -> None:
    async def five() -> AsyncIterator[bytes]:
        yield b"12345"

    async with started(acts) as (server, transport):
        headers = {"content-length": str(declared)}
        with pytest.raises(expected):
            await ask(transport, server.url, content=five(), headers=headers)
        assert server.requests == []
        assert (await ask(transport, server.url))[0] == 200


async def test_a_body_of_unknown_length_is_sent_in_chunks() -> None:
    async def two() -> AsyncIterator[bytes]:
        yield b"one"
        yield b""
        yield b"two"

    async with started([answer()]) as (server, transport):
        assert (await ask(transport, server.url, content=two()))[0] == 200
    assert server.requests[0].endswith(b"\r\n\r\n3\r\none\r\n3\r\ntwo\r\n0\r\n\r\n")


async def test_an_answer_that_comes_before_the_body_is_sent_ends_the_exchange() -> None:
    async def refuse(peer: Peer) -> None:
        await peer.reader.readuntil(b"\r\n\r\n")
        await peer.send(reply("413 Too Large"))
        await peer.until_gone()

    async with started([refuse, answer()]) as (server, transport):
        gate = asyncio.Event()

        async def endless() -> AsyncIterator[bytes]:
            yield b"x"
            await gate.wait()

        assert (await ask(transport, server.url, content=endless()))[0] == 413
        assert (await ask(transport, server.url))[0] == 200
        assert server.connections == 2


@pytest.mark.parametrize("url", ["ftp://127.0.0.1/", "http://a.invalid:99999/", "http:///x"])
async def test_an_address_that_is_no_url_sent_nothing(url: str) -> None:
    async with AiohttpTransport(max_connections=1) as transport:
        with pytest.raises(httpx.UnsupportedProtocol, match="bad_url"):
            await ask(transport, url)
