"""Is content downloaded once for all, taken up where it broke, and never passed off as whole?"""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

import pytest
from conftest import LogLines
from hypothesis import given, settings
from hypothesis import strategies as st
from test_upstream_server import Act, Peer, Server, answer_and_close, reset, serving

from gateway.errors import ContentPending, StoreUnavailable
from gateway.mirror.fetch import RESUME_SECONDS, Fetch
from gateway.mirror.fetched import FetchFailed, Wanted, Whole
from gateway.mirror.fetches import Fetches
from gateway.mirror.live import LiveReading
from gateway.mirror.throttle import Throttle
from gateway.simulator.images import make_thumbnail
from gateway.simulator.mp4 import make_mp4
from gateway.upstream.client import Upstream, UpstreamSettings

DEADLINE_SECONDS = 20
FILM = make_mp4(width=720, height=1280, seconds=4, tag=b"film", at_least_bytes=3_000_000)
OTHER = make_mp4(width=720, height=1280, seconds=4, tag=b"else", at_least_bytes=3_000_000)
PICTURE = make_thumbnail(width=720, height=1280, tag=b"thumbnail")
HALF = 1_500_000
ETAG = 'etag: "one"\r\n'
WEAK = 'etag: W/"one"\r\n'
DATE = "last-modified: Wed, 21 Oct 2026 07:28:00 GMT\r\n"
PAGE = b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
VIDEO = Wanted("asset_1", "default", "video_1", "video")
THUMBNAIL = Wanted("asset_2", "default", "video_1", "thumbnail")


@dataclass(frozen=True)
class Bench:
    """Downloads from a server that does as it is told."""

    server: Server
    fetches: Fetches

    async def read(self, wanted: Wanted = VIDEO) -> tuple[bytes, Exception | None]:
        """Read a download to its end, or to where it fails."""
        async with asyncio.timeout(DEADLINE_SECONDS), self.fetches.join(wanted) as fetch:
            return await read_from(fetch)

    async def failure(self, wanted: Wanted = VIDEO) -> str:
        _, failure = await self.read(wanted)
        assert isinstance(failure, FetchFailed)
        return failure.reason

    def ranges(self) -> list[tuple[str | None, str | None]]:
        """Return Range and If-Range of every request so far."""
        return [(header(one, "range"), header(one, "if-range")) for one in self.server.requests]


@asynccontextmanager
async def bench(
    *acts: Act,
    spool_folder: Path | None = None,
    concurrency: int = 8,
    max_content_bytes: int = 100_000_000,
    idle_seconds: float = 10,
) -> AsyncIterator[Bench]:
    async with serving(acts) as server:
        upstream = UpstreamSettings(
            name="default",
            base_url=server.url,
            api_key="sk-x",
            content_idle_seconds=idle_seconds,
        )
        async with Upstream(upstream) as client, asyncio.TaskGroup() as group:
            yield Bench(
                server,
                Fetches(
                    group=group,
                    upstreams={"default": client},
                    concurrency=concurrency,
                    max_content_bytes=max_content_bytes,
                    throttle=Throttle(0, elapsed=time.monotonic),
                    spool_folder=spool_folder,
                ),
            )


def header(request: bytes, name: str) -> str | None:
    lines = [line.partition(": ") for line in request.decode("latin-1").split("\r\n")]
    return next((value for key, _, value in lines if key.lower() == name), None)


def head(size: int | None, headers: str = "", *, status: str = "200 OK") -> bytes:
    framing = "transfer-encoding: chunked" if size is None else f"content-length: {size}"
    return f"HTTP/1.1 {status}\r\n{framing}\r\n{headers}\r\n".encode("latin-1")


def all_of(content: bytes = FILM, headers: str = "") -> bytes:
    return head(len(content), headers) + content


def rest_of(begin: int, content: bytes = FILM, headers: str = "") -> bytes:
    says = f"content-range: bytes {begin}-{len(content) - 1}/{len(content)}\r\n{headers}"
    part = content[begin:]
    return head(len(part), says, status="206 Partial Content") + part


def chunked(content: bytes, headers: str = "", *, ended: bool = True) -> bytes:
    pieces = [content[at : at + 100_000] for at in range(0, len(content), 100_000)]
    body = b"".join(b"%x\r\n%b\r\n" % (len(piece), piece) for piece in pieces)
    return head(None, headers) + body + (b"0\r\n\r\n" if ended else b"")


def sent(data: bytes) -> Act:
    return answer_and_close(data)


def asked(answer: Callable[[int], bytes]) -> Act:
    """Answer to the place in the content that a request begins at, and close."""

    async def act(peer: Peer) -> None:
        begin = header(await peer.read_request(), "range") or "bytes=0-"
        await peer.send(answer(int(begin.removeprefix("bytes=").removesuffix("-"))))
        peer.writer.close()

    return act


def broken(begin: int = HALF, headers: str = "", content: bytes = FILM) -> Act:
    """Announce all of it, and close in the middle."""
    return sent(head(len(content), headers) + content[:begin])


def held(told: asyncio.Event, first: bytes, rest: bytes = b"") -> Act:
    """Send a beginning, and the rest when told, or never."""

    async def act(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(first)
        async with asyncio.TaskGroup() as group:
            leaving = group.create_task(until_gone(peer))
            waiting = group.create_task(told.wait())
            await asyncio.wait({leaving, waiting}, return_when=asyncio.FIRST_COMPLETED)
            leaving.cancel()
            waiting.cancel()
        await peer.send(rest)
        peer.writer.close()

    return act


async def until_gone(peer: Peer) -> None:
    with suppress(ConnectionResetError):
        await peer.until_gone()


async def read_from(
    fetch: Fetch, *, begin: int = 0, length: int = 200_000
) -> tuple[bytes, Exception | None]:
    read = bytearray()
    try:
        await fetch.ready()
        while chunk := await fetch.read(offset=begin + len(read), length=length):
            read += chunk
    except (FetchFailed, StoreUnavailable) as failure:
        return bytes(read), failure
    return bytes(read), None


async def arrived(fetch: Fetch, size: int) -> None:
    """Wait until so many bytes can be read."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        await fetch.read(offset=size - 1, length=1)


async def test_one_download_is_for_everybody_and_a_later_one_is_another() -> None:
    async with bench(sent(all_of()), sent(all_of())) as made:
        reads = await asyncio.gather(*(made.read() for _ in range(10)))
        assert {hashlib.sha256(content).digest() for content, _ in reads} == {
            hashlib.sha256(FILM).digest()
        }
        assert len(made.server.requests) == 1
        assert VIDEO.asset_id not in made.fetches
        assert await made.read() == (FILM, None)
        assert len(made.server.requests) == 2


async def test_it_says_what_it_was_once_all_of_it_was_checked() -> None:
    async with bench(sent(all_of())) as made, made.fetches.join(VIDEO) as fetch:
        await fetch.ready()
        assert (fetch.content_type, fetch.size) == ("video/mp4", len(FILM))
        await read_from(fetch)
        assert fetch.whole == Whole("video/mp4", len(FILM), hashlib.sha256(FILM).hexdigest())


async def test_what_has_arrived_is_read_at_once_in_any_order_and_the_rest_when_it_comes() -> None:
    told = asyncio.Event()
    first = head(len(FILM)) + FILM[:HALF]
    async with (
        bench(held(told, first, FILM[HALF:])) as made,
        made.fetches.join(VIDEO) as fetch,
        asyncio.TaskGroup() as group,
    ):
        behind = group.create_task(read_from(fetch, begin=HALF + 5))
        await arrived(fetch, HALF)
        chance = random.Random(2)
        for offset in [0, HALF - 7, *(chance.randrange(HALF) for _ in range(50))]:
            part = await fetch.read(offset=offset, length=70_000)
            assert part
            assert part == FILM[offset : offset + len(part)]
        assert fetch.whole is None
        assert not behind.done()
        told.set()
        assert await behind == (FILM[HALF + 5 :], None)


async def test_the_last_byte_of_what_is_not_whole_never_comes() -> None:
    cut = FILM[:HALF]
    async with bench(sent(all_of(cut)), sent(chunked(cut))) as made:
        content, failure = await made.read()
        assert content == cut[:-1]
        assert str(failure) == "not_a_whole_mp4"
        # Of unknown length all may come: nothing but the end of the answer says that it is over.
        content, failure = await made.read()
        assert cut.startswith(content)
        assert str(failure) == "not_a_whole_mp4"


@pytest.mark.parametrize(
    ("answer", "reason"),
    [
        (all_of(PAGE), "not_an_mp4"),
        (chunked(PAGE), "not_an_mp4"),
        (all_of(b""), "not_a_whole_mp4"),
        (all_of(b"no"), "not_a_whole_mp4"),
        (all_of(PICTURE), "not_an_mp4"),
        (all_of(FILM + b"more"), "not_a_whole_mp4"),
        (head(len(FILM), status="404 Not Found") + FILM, "http_status"),
        (head(None, status="204 No Content"), "http_status"),
        (b"HTTP/1.1 302 Found\r\ncontent-length: 0\r\nlocation: //a..b/\r\n\r\n", "defect"),
    ],
)
async def test_what_is_not_the_content_is_not_readable_or_not_to_its_end(
    answer: bytes, reason: str
) -> None:
    async with bench(sent(answer)) as made:
        content, failure = await made.read()
        assert str(failure) == reason
        assert content == b"" or reason == "not_a_whole_mp4"
        assert len(content) < len(answer)


async def test_who_lags_behind_a_failure_gets_what_had_come_and_then_hears_of_it() -> None:
    async with bench(sent(all_of(FILM[:HALF]))) as made, made.fetches.join(VIDEO) as fetch:
        with pytest.raises(FetchFailed, match="not_a_whole_mp4"):
            await fetch.read(offset=HALF - 1, length=1)
        assert (await read_from(fetch))[0] == FILM[: HALF - 1]


async def test_after_a_failure_the_next_who_asks_begins_another_while_others_still_read() -> None:
    async with bench(sent(all_of(FILM[:HALF])), sent(all_of())) as made:
        async with made.fetches.join(VIDEO) as failed:
            await read_from(failed)
            assert VIDEO.asset_id not in made.fetches
            async with made.fetches.join(VIDEO) as fetch:
                assert fetch is not failed
                assert VIDEO.asset_id in made.fetches
                assert await read_from(fetch) == (FILM, None)
                assert (await read_from(failed))[0] == FILM[: HALF - 1]
        assert VIDEO.asset_id not in made.fetches


def whole_again(_: int) -> bytes:
    return all_of()


# What comes with the first answer, how the second is made, and what the second was asked with.
RESUMED: dict[str, tuple[str, Callable[[int], bytes], tuple[bool, str | None]]] = {
    "a strong ETag": (ETAG, rest_of, (True, '"one"')),
    "a Last-Modified": (DATE, rest_of, (True, DATE[15:-2])),
    "a weak ETag and a date": (WEAK + DATE, rest_of, (True, DATE[15:-2])),
    "a weak ETag": (WEAK, whole_again, (False, None)),
    "nothing": ("", whole_again, (False, None)),
    "an ETag but no ranges": (ETAG, whole_again, (True, '"one"')),
    "an ETag and then no length": (ETAG, lambda _: chunked(FILM), (True, '"one"')),
    "another ETag but no other byte": (
        ETAG,
        lambda _: all_of(headers='etag: "two"\r\n'),
        (True, '"one"'),
    ),
}


@pytest.mark.parametrize("name", RESUMED)
async def test_a_download_that_broke_is_taken_up_without_its_readers_noticing(name: str) -> None:
    headers, second, (ranged, validator) = RESUMED[name]
    async with bench(broken(headers=headers), asked(second)) as made:
        assert await made.read() == (FILM, None)
        (first, _), (again, condition) = made.ranges()
        assert (first, again is not None, condition) == (None, ranged, validator)


def a_part(begin: int, end: int, *, says: str | None = None) -> bytes:
    says = says or f"content-range: bytes {begin}-{end - 1}/{len(FILM)}\r\n"
    return head(end - begin, says, status="206 Partial Content") + FILM[begin:end]


CHANGED: dict[str, tuple[str, Callable[[int], bytes], str]] = {
    "other bytes of the same length": ("", lambda _: all_of(OTHER), "changed"),
    "other bytes whose ETag no longer fits": (ETAG, lambda _: all_of(OTHER), "changed"),
    "another length": ("", lambda _: all_of(FILM + b"more"), "changed"),
    "another length of the rest": (ETAG, lambda at: rest_of(at, FILM + b"more"), "changed"),
    "less than was asked for": (ETAG, lambda at: a_part(at, at + 9), "changed"),
    "a shorter one without a length": (ETAG, lambda _: chunked(FILM[:1000]), "changed"),
    "a page without a length": ("", lambda _: chunked(PAGE), "changed"),
    "a part from elsewhere": (ETAG, lambda at: rest_of(at - 1), "wrong_range"),
    "a part that does not say which": (
        ETAG,
        lambda at: a_part(at, len(FILM), says="x-nothing: 1\r\n"),
        "wrong_range",
    ),
    "no such part": (ETAG, lambda _: head(0, status="416 No"), "http_status"),
    "no longer there": ("", lambda _: head(0, status="404 Not Found"), "http_status"),
    "gone": ("", lambda _: head(0, status="410 Gone"), "http_status"),
    "not for this key": ("", lambda _: head(0, status="401 Unauthorized"), "http_status"),
}


@pytest.mark.parametrize("name", CHANGED)
async def test_what_is_no_longer_the_same_is_never_joined_to_what_came_before(name: str) -> None:
    headers, second, reason = CHANGED[name]
    async with bench(broken(headers=headers), asked(second)) as made:
        content, failure = await made.read()
        assert str(failure) == reason
        assert FILM.startswith(content)
        assert len(content) < len(FILM)
        assert len(made.server.requests) == 2


async def test_a_picture_that_broke_is_not_whole_because_a_shorter_answer_ended_well() -> None:
    first = chunked(PICTURE[:5000], ended=False)
    async with bench(sent(first), sent(chunked(PICTURE[:100]))) as made:
        assert await made.failure(THUMBNAIL) == "changed"


async def test_a_validator_that_cannot_be_sent_back_breaks_one_download_and_nothing_else(
    logged: LogLines,
) -> None:
    async with bench(broken(headers='etag: "\x7f"\r\n'), sent(all_of())) as made:
        assert await made.failure() == "defect"
        assert await made.read() == (FILM, None)
    assert [line["asset_id"] for line in logged.lines("fetch_failed")] == [VIDEO.asset_id]


async def test_a_download_that_stalls_is_broken_off_and_taken_up() -> None:
    never = asyncio.Event()
    first = held(never, head(len(FILM), ETAG) + FILM[:HALF])
    async with bench(first, asked(rest_of), idle_seconds=0.3) as made:
        assert await made.read() == (FILM, None)
        assert [part for part, _ in made.ranges()] == [None, f"bytes={HALF}-"]


async def test_a_download_that_brings_nothing_more_is_given_up() -> None:
    async with bench(broken(), reset, reset, sent(head(0, status="503 Busy"))) as made:
        content, failure = await made.read()
        assert FILM[:HALF].startswith(content)
        assert str(failure) == "http_status"
        assert len(made.server.requests) == 1 + len(RESUME_SECONDS)


async def test_a_download_that_brought_nothing_is_not_tried_again_here() -> None:
    async with bench(reset) as made:
        assert await made.failure() == "connection_lost"
        assert len(made.server.requests) == 1


@settings(max_examples=12, deadline=None)
@given(
    cuts=st.lists(st.integers(min_value=1, max_value=len(FILM) - 1), max_size=3, unique=True),
    validated=st.booleans(),
)
def test_wherever_it_breaks_however_often_the_bytes_are_the_same(
    cuts: list[int], *, validated: bool
) -> None:
    headers = ETAG if validated else ""

    def cut_at(end: int) -> Callable[[int], bytes]:
        def answer(begin: int) -> bytes:
            whole = rest_of(begin, headers=headers) if begin else all_of(headers=headers)
            return whole[: len(whole) - (len(FILM) - end)]

        return answer

    async def case() -> None:
        async with bench(*(asked(cut_at(end)) for end in [*sorted(cuts), len(FILM)])) as made:
            assert await made.read() == (FILM, None)

    asyncio.run(case())


async def test_with_its_last_reader_a_download_ends() -> None:
    never = asyncio.Event()
    async with bench(held(never, head(len(FILM)) + FILM[:HALF])) as made:
        async with made.fetches.join(VIDEO) as fetch:
            async with made.fetches.join(VIDEO) as same:
                await arrived(same, HALF)
            await arrived(fetch, HALF)
            assert made.server.closed == 0
        await made.server.until(lambda: made.server.closed == 1)
        assert VIDEO.asset_id not in made.fetches


async def test_a_reader_that_is_cancelled_leaves_as_one_that_goes() -> None:
    never = asyncio.Event()
    async with bench(held(never, head(len(FILM)) + FILM[:HALF])) as made:
        async with asyncio.TaskGroup() as group:
            readers = [group.create_task(made.read()) for _ in range(3)]
            await made.server.until(lambda: len(made.server.requests) == 1)
            for reader in readers:
                reader.cancel()
        await made.server.until(lambda: made.server.closed == 1)
        assert VIDEO.asset_id not in made.fetches


async def test_no_more_are_made_at_once_than_there_are_places() -> None:
    told = asyncio.Event()
    first = held(told, head(len(FILM)) + FILM[:HALF], FILM[HALF:])
    async with bench(first, sent(all_of(PICTURE)), concurrency=1) as made:
        async with asyncio.TaskGroup() as group:
            film = group.create_task(made.read())
            await made.server.until(lambda: len(made.server.requests) == 1)
            picture = group.create_task(made.read(THUMBNAIL))
            leaves = group.create_task(made.read(Wanted("asset_3", "default", "video_3", "video")))
            await asyncio.sleep(0)
            leaves.cancel()
            async with made.fetches.join(VIDEO) as fetch:
                await arrived(fetch, HALF)
            assert len(made.server.requests) == 1
            told.set()
        assert film.result() == (FILM, None)
        assert picture.result() == (PICTURE, None)
        # Who left while it waited for a place has asked the upstream for nothing.
        assert len(made.server.requests) == 2


@pytest.mark.parametrize("answer", [all_of(), chunked(FILM)])
async def test_what_is_over_the_limit_is_not_downloaded_to_its_end(answer: bytes) -> None:
    async with bench(sent(answer), max_content_bytes=HALF) as made:
        content, failure = await made.read()
        assert str(failure) == "too_large"
        assert len(content) <= HALF


async def test_an_upstream_that_is_no_longer_set_has_nothing() -> None:
    async with bench() as made:
        assert await made.failure(Wanted("asset_1", "other", "v", "video")) == "no_such_upstream"


async def test_without_room_for_it_a_download_fails_and_what_came_can_be_read(
    tmp_path: Path,
) -> None:
    async with bench(sent(all_of()), spool_folder=tmp_path / "nowhere") as made:
        content, failure = await made.read()
        assert isinstance(failure, StoreUnavailable)
        assert FILM.startswith(content)
        assert len(content) < len(FILM)


async def test_a_live_reading_gives_exactly_what_was_asked_for() -> None:
    async with bench(sent(all_of())) as made, made.fetches.join(VIDEO) as fetch:
        await fetch.ready()
        reading = LiveReading(fetch)
        size = len(FILM)
        assert reading.size == size
        for start, end in [(0, size), (5, 6), (HALF, size), (size - 1, size), (7, 7)]:
            chunks = [chunk async for chunk in reading.chunks(start=start, end=end)]
            assert all(chunks)
            assert b"".join(chunks) == FILM[start:end]


async def test_a_live_reading_of_unknown_length_ends_where_the_content_does() -> None:
    told = asyncio.Event()
    first, rest = chunked(FILM)[:HALF], chunked(FILM)[HALF:]
    async with bench(held(told, first, rest)) as made, made.fetches.join(VIDEO) as fetch:
        await fetch.ready()
        reading = LiveReading(fetch)
        assert reading.size is None
        told.set()
        chunks = [chunk async for chunk in reading.chunks(start=0, end=1 << 60)]
        assert b"".join(chunks) == FILM


async def test_a_live_reading_that_breaks_off_says_that_it_may_come_again() -> None:
    async with bench(sent(all_of(FILM[:HALF]))) as made, made.fetches.join(VIDEO) as fetch:
        await fetch.ready()
        received = bytearray()

        async def receive() -> None:
            async for chunk in LiveReading(fetch).chunks(start=0, end=HALF):
                received.extend(chunk)

        with pytest.raises(ContentPending) as caught:
            await receive()
        assert caught.value.headers == {"retry-after-ms": "5000"}
        assert bytes(received) == FILM[: HALF - 1]
