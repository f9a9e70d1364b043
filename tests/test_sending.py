"""Does stored content arrive as it was stored, and is what breaks off seen to break off?"""

import asyncio
import hashlib
import logging
import os
import queue
import random
import resource
import socket
import struct
import threading
import time
from collections.abc import Awaitable, Callable, Iterator, MutableMapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import uvicorn
from plain_http import NO_TLS

from gateway.api.connection import ConnectedHttp
from gateway.api.sending import send_content
from gateway.errors import StoreUnavailable
from gateway.store.folder import FolderStore

DEADLINE_SECONDS = 20.0
CONTENT = random.Random(5).randbytes(20_000_003)
SHA256 = hashlib.sha256(CONTENT).hexdigest()
ETAG = f'"{SHA256}"'
SIZE = len(CONTENT)


@dataclass(frozen=True)
class Served:
    """A server in a thread of its own, which serves each key of the store under /<key>."""

    root: Path
    address: tuple[str, int]
    server: uvicorn.Server
    endings: queue.Queue[str] = field(default_factory=queue.Queue)
    taken: list[int] = field(default_factory=list)

    def url(self, key: str = "key") -> str:
        return f"http://{self.address[0]}:{self.address[1]}/{key}"

    def ending(self) -> str:
        return self.endings.get(timeout=DEADLINE_SECONDS)


def _app(store: FolderStore, endings: "queue.Queue[str]", taken: list[int]) -> Any:
    async def app(
        scope: MutableMapping[str, Any],
        _receive: Callable[[], Awaitable[MutableMapping[str, Any]]],
        send: Callable[[MutableMapping[str, Any]], Awaitable[None]],
    ) -> None:
        asked = dict(scope["headers"])
        try:
            async with store.reading(scope["path"][1:]) as reading:
                ending: str = await send_content(
                    scope,
                    send,
                    source=reading,
                    content_type="video/mp4",
                    sha256=SHA256,
                    filename="video_1.mp4",
                    headers={"x-request-id": "request_1"},
                    taken=taken.append,
                    stalled_seconds=float(asked.get(b"x-stalled-seconds", b"20")),
                )
        except StoreUnavailable:
            endings.put("store_failed")
            raise
        endings.put(ending)

    return app


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    root = tmp_path_factory.mktemp("served")
    store = FolderStore(root)
    asyncio.run(_put(store, "key", CONTENT))
    asyncio.run(_put(store, "empty", b""))
    endings: queue.Queue[str] = queue.Queue()
    taken: list[int] = []
    config = uvicorn.Config(
        _app(store, endings, taken),
        http=ConnectedHttp,
        loop="uvloop",
        lifespan="off",
        log_config=None,
        access_log=False,
        timeout_graceful_shutdown=5,
    )
    server = uvicorn.Server(config)
    with socket.create_server(("127.0.0.1", 0), backlog=128) as listener:
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        try:
            yield Served(root, listener.getsockname(), server, endings, taken)
        finally:
            server.should_exit = True
            thread.join(DEADLINE_SECONDS)
    assert not thread.is_alive()


@pytest.fixture(autouse=True)
def _no_ending_is_left_over(served: Served) -> Iterator[None]:
    yield
    assert served.endings.empty()


@pytest.fixture(scope="module")
def client() -> Iterator[httpx.Client]:
    with httpx.Client(verify=NO_TLS, timeout=DEADLINE_SECONDS) as client:
        yield client


async def _put(store: FolderStore, key: str, content: bytes) -> None:
    async with store.writing(key) as writing:
        await writing.write(content)
        await writing.commit()


def _until(condition: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not condition():
        assert time.monotonic() < deadline
        os.sched_yield()


def test_a_get_brings_the_whole_content_and_says_what_it_is(
    served: Served, client: httpx.Client
) -> None:
    served.taken.clear()
    answer = client.get(served.url())
    assert answer.status_code == 200
    assert answer.content == CONTENT
    headers = dict(answer.headers)
    del headers["date"], headers["server"]
    assert headers == {
        "content-type": "video/mp4",
        "content-length": str(SIZE),
        "content-disposition": 'attachment; filename="video_1.mp4"',
        "etag": ETAG,
        "accept-ranges": "bytes",
        "cache-control": "private",
        "x-content-type-options": "nosniff",
        "x-request-id": "request_1",
    }
    assert served.ending() == "sent"
    assert sum(served.taken) == SIZE


def test_a_head_says_the_same_without_content(served: Served, client: httpx.Client) -> None:
    whole, head = client.get(served.url()), client.head(served.url())
    assert (head.status_code, head.content) == (200, b"")
    for name in set(whole.headers) - {"date"}:
        assert head.headers[name] == whole.headers[name]
    assert [served.ending(), served.ending()] == ["sent", "sent"]


def test_a_head_has_no_range(served: Served, client: httpx.Client) -> None:
    head = client.head(served.url(), headers={"range": "bytes=0-1"})
    assert (head.status_code, head.headers["content-length"]) == (200, str(SIZE))
    assert served.ending() == "sent"


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [
        ("bytes=0-0", 0, 1),
        ("bytes=0-1048575", 0, 1 << 20),
        ("bytes=262143-262144", 262143, 262145),
        (f"bytes={SIZE - 1}-", SIZE - 1, SIZE),
        ("bytes=5000000-99999999", 5_000_000, SIZE),
        ("bytes=-1000", SIZE - 1000, SIZE),
        ("bytes=-99999999", 0, SIZE),
    ],
)
def test_a_range_brings_that_part(
    served: Served, client: httpx.Client, asked: str, start: int, end: int
) -> None:
    answer = client.get(served.url(), headers={"range": asked})
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{SIZE}"
    assert answer.headers["content-length"] == str(end - start)
    assert answer.headers["etag"] == ETAG
    assert answer.content == CONTENT[start:end]
    assert served.ending() == "sent"


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=9-1", "items=0-1", "bytes"])
def test_several_ranges_or_nonsense_bring_the_whole(
    served: Served, client: httpx.Client, asked: str
) -> None:
    answer = client.get(served.url(), headers={"range": asked})
    assert (answer.status_code, answer.content) == (200, CONTENT)
    assert served.ending() == "sent"


def test_two_range_headers_bring_the_whole(served: Served, client: httpx.Client) -> None:
    answer = client.get(served.url(), headers=[("range", "bytes=0-1"), ("range", "bytes=2-3")])
    assert (answer.status_code, len(answer.content)) == (200, SIZE)
    assert served.ending() == "sent"


@pytest.mark.parametrize("asked", [f"bytes={SIZE}-", "bytes=-0"])
def test_a_range_outside_is_a_416_with_the_size(
    served: Served, client: httpx.Client, asked: str
) -> None:
    answer = client.get(served.url(), headers={"range": asked})
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{SIZE}"
    assert answer.json()["error"]["code"] == "range_not_satisfiable"
    assert served.ending() == "sent"


@pytest.mark.parametrize("held", [ETAG, f"W/{ETAG}", f'"x", {ETAG}', "*"])
def test_content_that_the_client_has_is_a_304(
    served: Served, client: httpx.Client, held: str
) -> None:
    for method in ("GET", "HEAD"):
        headers = {"if-none-match": held, "range": "bytes=0-1"}
        answer = client.request(method, served.url(), headers=headers)
        assert (answer.status_code, answer.content) == (304, b"")
        assert (answer.headers["etag"], answer.headers["cache-control"]) == (ETAG, "private")
        assert "content-length" not in answer.headers
        assert served.ending() == "sent"


@pytest.mark.parametrize(
    ("if_range", "status"),
    [
        (ETAG, 206),
        (f"W/{ETAG}", 200),
        ('"other"', 200),
        ("Wed, 21 Oct 2026 07:28:00 GMT", 200),
    ],
)
def test_a_range_of_other_content_brings_the_whole(
    served: Served, client: httpx.Client, if_range: str, status: int
) -> None:
    answer = client.get(served.url(), headers={"range": "bytes=0-9", "if-range": if_range})
    assert (answer.status_code, len(answer.content)) == (status, 10 if status == 206 else SIZE)
    assert served.ending() == "sent"


def test_empty_content_is_served(served: Served, client: httpx.Client) -> None:
    answer = client.get(served.url("empty"))
    assert (answer.status_code, answer.headers["content-length"]) == (200, "0")
    assert served.ending() == "sent"


def test_every_answer_leaves_the_connection_ready_for_the_next(served: Served) -> None:
    requests: list[tuple[str, dict[str, str]]] = [
        ("HEAD", {}),
        ("GET", {"range": "bytes=1-3"}),
        ("GET", {"if-none-match": "*"}),
        ("GET", {"range": "bytes=99999999-"}),
        ("GET", {}),
    ]
    limits = httpx.Limits(max_connections=1)
    with httpx.Client(verify=NO_TLS, timeout=DEADLINE_SECONDS, limits=limits) as client:
        accepted = served.server.server_state.total_requests
        statuses = [
            client.request(method, served.url(), headers=headers).status_code
            for method, headers in requests
        ]
        assert len(served.server.server_state.connections) <= 2
    assert statuses == [200, 206, 304, 416, 200]
    assert served.server.server_state.total_requests == accepted + len(requests)
    assert [served.ending() for _ in requests] == ["sent"] * len(requests)


def _ask(served: Served, *, part: str = "bytes=0-", stalled_seconds: float = 20) -> socket.socket:
    """Ask for content on a connection that takes in little by itself."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    connection.settimeout(DEADLINE_SECONDS)
    connection.connect(served.address)
    headers = f"host: x\r\nrange: {part}\r\nx-stalled-seconds: {stalled_seconds}\r\n"
    connection.sendall(f"GET /key HTTP/1.1\r\n{headers}\r\n".encode())
    return connection


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def test_fifty_readers_that_never_read_cost_little_and_are_disconnected(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    readers = 50
    _until(lambda: not served.server.server_state.tasks)
    before = peak = _resident_bytes()
    connections = [_ask(served, stalled_seconds=1.0) for _ in range(readers)]
    deadline = time.monotonic() + DEADLINE_SECONDS
    while served.endings.qsize() < readers:
        assert time.monotonic() < deadline
        peak = max(peak, _resident_bytes())
    assert {served.ending() for _ in range(readers)} == {"client_stalled"}
    _until(lambda: not served.server.server_state.tasks)
    assert (peak - before) / readers < 1_000_000
    for connection in connections:
        assert _received(connection) < SIZE
        connection.close()
    assert caplog.records == []


def _received(connection: socket.socket) -> int:
    total = 0
    try:
        while chunk := connection.recv(1 << 20):
            total += len(chunk)
    except ConnectionResetError:
        pass
    return total


def test_a_stalled_reader_frees_its_connection(served: Served) -> None:
    before = len(served.server.server_state.connections)
    with _ask(served, stalled_seconds=0.2):
        assert served.ending() == "client_stalled"
        _until(lambda: len(served.server.server_state.connections) <= before)


@pytest.mark.parametrize("linger", [0, 1])
def test_a_client_that_leaves_ends_it_quietly(
    served: Served, caplog: pytest.LogCaptureFixture, linger: int
) -> None:
    connection = _ask(served)
    assert connection.recv(1000).startswith(b"HTTP/1.1 206 Partial Content\r\n")
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, linger))
    connection.close()
    assert served.ending() == "client_left"
    assert caplog.records == []


def test_a_client_that_leaves_with_its_last_byte_has_been_sent_everything(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    for _ in range(20):
        with _ask(served, part="bytes=-1000000") as connection:
            received = b""
            while len(received) < 1_000_000 or not received.endswith(CONTENT[-1000:]):
                received += connection.recv(1 << 20)
        assert served.ending() == "sent"
    assert caplog.records == []


def test_a_store_that_fails_on_the_way_breaks_the_connection_off(
    served: Served, caplog: pytest.LogCaptureFixture
) -> None:
    asyncio.run(_put(FolderStore(served.root), "cut", CONTENT))
    path = next(served.root.glob("*/cut"))
    with (
        httpx.Client(verify=NO_TLS, timeout=DEADLINE_SECONDS) as client,
        client.stream("GET", served.url("cut")) as answer,
    ):
        assert answer.headers["content-length"] == str(SIZE)
        # Real damage: the file is cut while it is being read.
        os.truncate(path, 1000)
        with pytest.raises((httpx.RemoteProtocolError, httpx.ReadError)):
            answer.read()
    assert served.ending() == "store_failed"

    def logged() -> list[int]:
        return [record.levelno for record in caplog.records if record.name == "uvicorn.error"]

    # uvicorn says so once the endpoint has raised, which is after the connection broke.
    _until(lambda: bool(logged()))
    assert logged() == [logging.ERROR]


def test_a_store_that_fails_at_once_can_still_be_answered_for(served: Served) -> None:
    store = FolderStore(served.root)
    asyncio.run(_put(store, "gone", CONTENT))
    asyncio.run(_fails_before_anything_is_sent(store, next(served.root.glob("*/gone"))))


async def _fails_before_anything_is_sent(store: FolderStore, path: Path) -> None:
    sent: list[MutableMapping[str, Any]] = []

    async def send(message: MutableMapping[str, Any]) -> None:
        sent.append(message)

    scope = {
        "method": "GET",
        "headers": [],
        "extensions": {"gateway.connection": {"gateway.connection": None}},
    }
    taken: list[int] = []
    async with store.reading("gone") as reading:
        os.truncate(path, 0)
        with pytest.raises(StoreUnavailable):
            await send_content(
                scope,
                send,
                source=reading,
                content_type="video/mp4",
                sha256=SHA256,
                filename="x",
                headers={},
                taken=taken.append,
            )
    assert sent == []
    assert taken == []
