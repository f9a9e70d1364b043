"""Does a client get a video while it is on its way from the upstream, and never half as whole?"""

import asyncio
import hashlib
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from conftest import LogLines, World, eventually, new_key, settings_for, world
from openai import OpenAI

from gateway.app import running
from gateway.billing.keys import NewKey
from gateway.clock import system_clock
from gateway.setup import open_database
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

SIZE = 3_000_000
HALF = 1_500_000
OFFERS = ("create", "retrieve", "content", "thumbnail", "spritesheet", "delete")
BROKEN_OFF = (httpx.RemoteProtocolError, httpx.ReadError)


def simulated(**changes: Any) -> SimulatorSettings:
    plain = {"queue_seconds": 0, "generation_seconds": 0, "content_bytes": SIZE}
    return SimulatorSettings(**(plain | changes))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(place: Path) -> AsyncIterator[World]:
    folder = place / "live"
    async with world(folder, simulated=simulated(), upstream_offers=OFFERS[:3]) as made:
        yield made


@dataclass
class Arriving:
    """An answer whose body is read bit by bit."""

    answer: httpx.Response
    received: bytearray = field(default_factory=bytearray)

    def __post_init__(self) -> None:
        self._pieces = self.answer.aiter_raw()

    async def upto(self, size: int) -> bytes:
        """Read until so many bytes have come, and return them."""
        while len(self.received) < size:
            self.received += await anext(self._pieces)
        return bytes(self.received[:size])

    async def whole(self) -> bytes:
        """Read to the end; raises one of BROKEN_OFF where it is none."""
        async for piece in self._pieces:
            self.received += piece
        return bytes(self.received)


@dataclass(frozen=True)
class Live:
    """A video whose content comes down just now."""

    made: World
    key: NewKey
    video_id: str
    content: bytes

    @asynccontextmanager
    async def get(self, method: str = "GET", **headers: str) -> AsyncIterator[Arriving]:
        asked = {name.replace("_", "-"): value for name, value in headers.items()}
        path = f"/videos/{self.video_id}/content"
        async with (
            self.made.client(self.key) as client,
            client.stream(method, path, headers=asked) as answer,
        ):
            yield Arriving(answer)

    async def ask(self, method: str = "GET", **headers: str) -> httpx.Response:
        async with self.get(method, **headers) as arriving:
            await arriving.answer.aread()
            return arriving.answer

    async def downloads(self) -> int:
        """Return how often the upstream was asked for it."""
        video = (await self.made.control.state())["videos"][self.video_id]
        return int(video["contents"].get("video", 0))

    async def mirrored(self) -> None:
        """Insist that it gets into the store as it is."""
        asset = await self.made.mirrored(self.video_id)
        assert asset["sha256"] == hashlib.sha256(self.content).hexdigest()
        (path,) = self.made.settings.store_path.glob(f"*/{asset['id']}")
        assert path.read_bytes() == self.content

    async def not_mirrored(self) -> None:
        asset = await self.made.asset(self.video_id)
        assert asset is not None
        assert asset["mirrored_at"] is None
        assert not list(self.made.settings.store_path.glob(f"*/{asset['id']}"))


async def buy(made: World, prompt: str) -> Live:
    key = await made.key()
    video_id = await made.buy(key, prompt)
    await made.ended(video_id)
    return Live(made, key, video_id, await made.control.content(video_id))


async def pausing(made: World, prompt: str = f"[[content:pause*1 {HALF}]]") -> Live:
    """Buy a video whose download pauses in the middle."""
    live = await buy(made, prompt)
    await sending(made)
    return live


async def sending(made: World, count: int = 1) -> None:
    """Wait until the upstream is sending so many contents."""

    async def so_many() -> bool:
        return int((await made.control.totals())["delivering"].get("content", 0)) == count

    await eventually(so_many)


async def test_one_download_feeds_the_store_and_everybody_who_comes_while_it_lasts(
    shared: World, logged: LogLines
) -> None:
    live = await pausing(shared)
    async with AsyncExitStack() as stack:
        clients = [await stack.enter_async_context(live.get()) for _ in range(10)]
        for client in clients:
            # The first byte does not wait for the last.
            assert await client.upto(HALF) == live.content[:HALF]
            assert client.answer.headers["content-length"] == str(SIZE)
        await shared.control.go_on()
        late = await stack.enter_async_context(live.get())
        contents = await asyncio.gather(*(client.whole() for client in [*clients, late]))
        assert {hashlib.sha256(content).digest() for content in contents} == {
            hashlib.sha256(live.content).digest()
        }
    await live.mirrored()
    assert (await live.ask()).content == live.content
    assert await live.downloads() == 1
    sources = [line.get("source") for line in logged.lines("request") if line.get("source")]
    assert sources[:10] == ["upstream"] * 10
    assert sources[-1] == "store"


async def test_a_range_that_has_arrived_is_answered_at_once_and_one_behind_it_waits(
    shared: World,
) -> None:
    live = await pausing(shared)
    async with asyncio.TaskGroup() as group:
        behind = group.create_task(live.ask(range=f"bytes={HALF + 5}-{HALF + 99}"))
        across = group.create_task(live.ask(range=f"bytes={HALF - 5}-{HALF + 5}"))
        suffix = group.create_task(live.ask(range="bytes=-1000"))
        for asked, span in {
            "bytes=0-0": slice(0, 1),
            "bytes=1000-1999": slice(1000, 2000),
            f"bytes={HALF - 9}-{HALF - 1}": slice(HALF - 9, HALF),
        }.items():
            part = await live.ask(range=asked)
            assert (part.status_code, part.content) == (206, live.content[span])
            assert part.headers["content-range"] == f"bytes {span.start}-{span.stop - 1}/{SIZE}"
            assert "etag" not in part.headers
        outside = await live.ask(range=f"bytes={SIZE}-")
        assert (outside.status_code, outside.headers["content-range"]) == (416, f"bytes */{SIZE}")
        async with live.get(range="bytes=7-") as arriving:
            assert await arriving.upto(1000) == live.content[7:1007]
        assert not any(one.done() for one in (behind, across, suffix))
        await shared.control.go_on()
    assert behind.result().content == live.content[HALF + 5 : HALF + 100]
    assert across.result().content == live.content[HALF - 5 : HALF + 6]
    assert suffix.result().content == live.content[-1000:]
    assert {one.result().status_code for one in (behind, across, suffix)} == {206}
    assert await live.downloads() == 1


async def test_a_head_says_what_will_come(shared: World) -> None:
    live = await pausing(shared)
    head = await live.ask("HEAD")
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == str(SIZE)
    assert head.headers["content-type"] == "video/mp4"
    assert head.headers["accept-ranges"] == "bytes"
    assert "etag" not in head.headers
    await shared.control.go_on()
    await live.mirrored()
    assert "etag" in (await live.ask("HEAD")).headers


async def test_what_is_not_whole_yet_has_no_etag_and_no_condition_holds_for_it(
    shared: World,
) -> None:
    live = await pausing(shared)
    etag = f'"{hashlib.sha256(live.content).hexdigest()}"'
    async with AsyncExitStack() as stack:
        answers = [
            await stack.enter_async_context(live.get(**headers))
            for headers in (
                {"range": "bytes=5-9", "if_range": etag},
                {"range": "bytes=5-9", "if_range": "Wed, 21 Oct 2026 07:28:00 GMT"},
                {"if_none_match": etag},
            )
        ]
        await shared.control.go_on()
        for arriving in answers:
            assert arriving.answer.status_code == 200
            assert "etag" not in arriving.answer.headers
            assert await arriving.whole() == live.content


async def test_content_of_unknown_length_comes_as_it_is_and_has_no_parts(shared: World) -> None:
    live = await pausing(shared, f"[[content:pause*1 {HALF} sized=0]]")
    head = await live.ask("HEAD")
    assert (head.status_code, "content-length" in head.headers) == (200, False)
    async with live.get() as whole, live.get(range="bytes=5-9") as part:
        for arriving in (whole, part):
            assert arriving.answer.status_code == 200
            assert arriving.answer.headers["transfer-encoding"] == "chunked"
            assert not {"content-length", "accept-ranges"} & set(arriving.answer.headers)
            assert await arriving.upto(HALF) == live.content[:HALF]
        await shared.control.go_on()
        assert await whole.whole() == live.content
        assert await part.whole() == live.content
    await live.mirrored()
    assert (await live.ask()).headers["content-length"] == str(SIZE)


async def test_a_client_that_leaves_stops_neither_the_mirror_nor_the_others(
    shared: World, logged: LogLines
) -> None:
    live = await pausing(shared)
    async with live.get() as stays:
        for _ in range(3):
            async with live.get() as leaves:
                await leaves.upto(1000)

        async def noticed() -> bool:
            endings = [line.get("ending") for line in logged.lines("request")]
            return endings.count("client_left") == 3

        await shared.control.go_on()
        assert await stays.whole() == live.content
        await eventually(noticed)
    await live.mirrored()
    assert await live.downloads() == 1


async def test_a_client_that_stalls_stops_neither_the_mirror_nor_the_others(
    shared: World,
) -> None:
    live = await pausing(shared)
    with stalled(shared, live) as connection:
        async with live.get() as reads:
            await shared.control.go_on()
            assert await reads.whole() == live.content
        await live.mirrored()
        # It is still connected, and what it was sent is the beginning.
        received = await asyncio.to_thread(connection.recv, 1 << 16, socket.MSG_WAITALL)
        _, _, body = received.partition(b"\r\n\r\n")
        assert live.content.startswith(body)
    assert await live.downloads() == 1


def stalled(made: World, live: Live) -> socket.socket:
    """Ask for content on a connection that takes in little by itself."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 16 << 10)
    connection.connect(("127.0.0.1", made.gateway.port))
    key = f"authorization: Bearer {live.key.value}"
    request = f"GET /v1/videos/{live.video_id}/content HTTP/1.1\r\nhost: x\r\n{key}\r\n\r\n"
    connection.sendall(request.encode())
    return connection


@pytest.mark.parametrize("ranges", [True, False])
async def test_when_the_upstreams_connection_breaks_clients_do_not_notice(
    tmp_path: Path, *, ranges: bool
) -> None:
    async with world(tmp_path, simulated=simulated(ranges=ranges)) as made:
        live = await pausing(made, f"[[content:break*1 {HALF}]]")
        async with live.get() as client, asyncio.TaskGroup() as group:
            behind = group.create_task(live.ask(range=f"bytes={HALF}-"))
            await client.upto(HALF)
            await made.control.go_on()
            assert await client.whole() == live.content
        assert behind.result().content == live.content[HALF:]
        await live.mirrored()
        asset = await made.asset(live.video_id)
        assert asset is not None
        assert (asset["attempts"], await live.downloads()) == (1, 2)
        asked = [one["headers"].get("range") for one in await made.control.received("content")]
        assert asked == [None, f"bytes={HALF}-" if ranges else None]


@pytest.mark.parametrize("ranges", [True, False])
async def test_what_changed_at_the_upstream_is_broken_off_and_the_next_get_the_new_whole(
    tmp_path: Path, *, ranges: bool
) -> None:
    async with world(tmp_path, simulated=simulated(ranges=ranges)) as made:
        live = await pausing(made, f"[[content:break*1 {HALF}]]")
        async with live.get() as client:
            assert await client.upto(HALF) == live.content[:HALF]
            await made.control.change(live.video_id)
            await made.control.go_on()
            with pytest.raises(BROKEN_OFF):
                await client.whole()
            assert live.content.startswith(client.received)
        changed = Live(made, live.key, live.video_id, await made.control.content(live.video_id))
        assert changed.content != live.content
        assert (await changed.ask()).content == changed.content
        await changed.mirrored()


@pytest.mark.parametrize("sized", [0, 1])
async def test_what_ends_as_if_it_were_whole_and_is_not_is_broken_off(
    tmp_path: Path, sized: int
) -> None:
    async with world(tmp_path, simulated=simulated(), content_wait_seconds=0) as made:
        live = await pausing(made, f"[[content:pause*1 {HALF} cut={SIZE - 9} sized={sized}]]")
        async with live.get() as client:
            assert await client.upto(HALF) == live.content[:HALF]
            await made.control.fault("503", operation="content", times=None)
            await made.control.go_on()
            with pytest.raises(BROKEN_OFF):
                await client.whole()
            assert live.content.startswith(client.received)
        again = await live.ask()
        assert (again.status_code, again.json()["error"]["code"]) == (409, "content_pending")
        await live.not_mirrored()
        await made.control.clear_faults()
        await live.mirrored()


async def test_a_page_of_html_with_200_is_never_sent_on(tmp_path: Path) -> None:
    async with world(tmp_path, simulated=simulated(), content_wait_seconds=1) as made:
        await made.control.fault("html", operation="content", times=None)
        live = await buy(made, "a cat")
        for method in ("GET", "HEAD"):
            answer = await live.ask(method)
            assert answer.status_code == 409
        await live.not_mirrored()
        await made.control.clear_faults()
        made.timeline.offset_seconds += 60
        await live.mirrored()


async def test_an_upstream_that_goes_away_for_good_breaks_the_download_off(
    tmp_path: Path, logged: LogLines
) -> None:
    async with world(tmp_path, simulated=simulated(), content_wait_seconds=0) as made:
        live = await pausing(made, f"[[content:break*1 {HALF}]]")
        async with live.get() as client:
            await client.upto(HALF)
            await made.control.go_dark()
            await made.control.go_on()
            with pytest.raises(BROKEN_OFF):
                await client.whole()
            assert live.content.startswith(client.received)
        await live.not_mirrored()
        assert (await live.ask()).status_code == 409
        await made.control.come_back()
        await live.mirrored()
    assert logged.lines("mirror_failed")[0]["failure"] == "connection_lost"


async def test_content_that_expires_in_the_middle_is_broken_off_and_an_alarm_rings(
    tmp_path: Path, logged: LogLines
) -> None:
    async with world(tmp_path, simulated=simulated(), content_wait_seconds=0) as made:
        live = await pausing(made, f"[[content:break*1 {HALF}]] [[retention 600]]")
        async with live.get() as client:
            await client.upto(HALF)
            await made.control.expire(live.video_id)
            await made.control.go_on()
            with pytest.raises(BROKEN_OFF):
                await client.whole()
        assert (await live.ask()).status_code == 409
        made.timeline.offset_seconds += 601

        async def gone() -> httpx.Response | None:
            answer = await live.ask()
            return answer if answer.status_code == 410 else None

        answer = await eventually(gone)
        assert answer.json()["error"]["code"] == "content_expired"
        await live.not_mirrored()
    assert [line["level"] for line in logged.lines("content_lost")] == ["error"]


@pytest.mark.parametrize("sized", [0, 1])
async def test_what_is_too_large_is_not_sent_to_its_end(tmp_path: Path, sized: int) -> None:
    settings = {"max_content_bytes": SIZE - 1, "content_wait_seconds": 0}
    async with world(tmp_path, simulated=simulated(), **settings) as made:
        fault = f"[[content:pause {HALF} sized={sized}]]"
        live = await buy(made, fault)
        if sized:
            await made.control.go_on()
            assert (await live.ask()).status_code == 409
        else:
            await sending(made)
            async with live.get() as client:
                await client.upto(HALF)
                await made.control.go_on()
                with pytest.raises(BROKEN_OFF):
                    await client.whole()
        await live.not_mirrored()


async def test_more_downloads_than_there_are_places_wait_for_their_turn(tmp_path: Path) -> None:
    settings = {"fetch_concurrency": 1, "content_wait_seconds": 1}
    async with world(tmp_path, simulated=simulated(), **settings) as made:
        first = await pausing(made)
        second = await buy(made, "a dog")
        answer = await second.ask()
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "content_pending")
        assert await second.downloads() == 0
        async with first.get() as client:
            await made.control.go_on()
            assert await client.whole() == first.content
        await first.mirrored()
        await second.mirrored()
        assert (await first.downloads(), await second.downloads()) == (1, 1)


async def test_a_store_that_disappears_leaves_clients_of_a_live_download_unharmed(
    tmp_path: Path, logged: LogLines
) -> None:
    async with world(tmp_path, simulated=simulated(), content_wait_seconds=0) as made:
        live = await pausing(made)
        store, away = made.settings.store_path, tmp_path / "unmounted"
        async with live.get() as client:
            await client.upto(HALF)
            store.rename(away)
            await made.control.go_on()
            assert await client.whole() == live.content

        async def failed() -> bool:
            return bool(logged.lines("mirror_store_failed"))

        await eventually(failed)
        asset = await made.asset(live.video_id)
        assert asset is not None
        assert asset["mirrored_at"] is None
        away.rename(store)
        await live.mirrored()


@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
async def test_when_the_upstream_is_switched_off_for_good_everything_is_there_for_the_sdk(
    tmp_path: Path,
) -> None:
    clock = system_clock()
    async with AsyncExitStack() as upstream:
        simulator = await upstream.enter_async_context(
            Simulator(settings=simulated(content_bytes=0))
        )
        settings = settings_for(tmp_path, simulator.base_url, upstream_offers=OFFERS)
        async with open_database(settings, clock=clock) as database, running(settings) as gateway:
            key = await new_key(database, clock)
            before = await asyncio.to_thread(bought, gateway.base_url, key)
            async with Control(simulator.base_url) as control:
                for video_id in before.videos:
                    for variant in ("video", "thumbnail", "spritesheet"):
                        content = await control.content(video_id, variant=variant)
                        assert before.contents[video_id, variant] == content
            await upstream.aclose()
            after = await asyncio.to_thread(seen, gateway.base_url, key)
            assert after == before


@dataclass(frozen=True)
class Seen:
    """What the official SDK sees of everything."""

    listed: list[dict[str, Any]]
    videos: dict[str, dict[str, Any]]
    contents: dict[tuple[str, str], bytes]


def bought(base_url: str, key: NewKey) -> Seen:
    with OpenAI(base_url=base_url, api_key=key.value) as sdk:
        for number in range(3):
            video = sdk.videos.create_and_poll(prompt=f"cat {number}", poll_interval_ms=100)
            assert video.status == "completed"
    # Once from the download itself, and again from the store.
    first, again = seen(base_url, key), seen(base_url, key)
    assert first == again
    return again


def seen(base_url: str, key: NewKey) -> Seen:
    with OpenAI(base_url=base_url, api_key=key.value) as sdk:
        listed = list(sdk.videos.list())
        return Seen(
            [one.to_dict() for one in listed],
            {one.id: sdk.videos.retrieve(one.id).to_dict() for one in listed},
            {
                (one.id, variant): sdk.videos.download_content(one.id, variant=variant).read()
                for one in listed
                for variant in ("video", "thumbnail", "spritesheet")
            },
        )
