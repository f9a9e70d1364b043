"""Is a finished video downloaded as it was made, also when the upstream no longer has it?"""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from conftest import LogLines, World, eventually, world
from plain_http import NO_TLS

from gateway.billing.keys import NewKey
from gateway.simulator.world import Settings as SimulatorSettings

pytestmark = pytest.mark.asyncio(loop_scope="module")

NOT_READY = "Video is not ready yet, use GET /v1/videos/{video_id} to check status."


@dataclass(frozen=True)
class Finished:
    """A mirrored video, and what its content truly is."""

    made: World
    key: NewKey
    video_id: str
    content: bytes

    @property
    def etag(self) -> str:
        return f'"{hashlib.sha256(self.content).hexdigest()}"'

    async def get(self, method: str = "GET", **headers: str) -> httpx.Response:
        asked = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.made.client(self.key) as client:
            return await client.request(method, f"/videos/{self.video_id}/content", headers=asked)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(place: Path) -> AsyncIterator[World]:
    async with world(place / "content") as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def finished(shared: World) -> Finished:
    return await finish(shared)


async def finish(made: World) -> Finished:
    key = await made.key()
    video_id = await made.buy(key)
    await made.mirrored(video_id)
    return Finished(made, key, video_id, await made.control.content(video_id))


async def test_the_bytes_served_are_the_bytes_the_upstream_sent(finished: Finished) -> None:
    answer = await finished.get()
    assert answer.status_code == 200
    assert answer.content == finished.content
    assert answer.headers["etag"] == finished.etag
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-length"] == str(len(finished.content))
    assert answer.headers["accept-ranges"] == "bytes"
    assert answer.headers["content-disposition"] == (
        f'attachment; filename="{finished.video_id}.mp4"'
    )
    assert answer.headers["x-request-id"].startswith("req_")


async def test_a_head_has_the_headers_of_the_get_and_no_body(finished: Finished) -> None:
    whole, head = await finished.get(), await finished.get("HEAD")
    assert (head.status_code, head.content) == (200, b"")
    own = {"date", "x-request-id"}
    assert {name: value for name, value in head.headers.items() if name not in own} == {
        name: value for name, value in whole.headers.items() if name not in own
    }


async def test_who_has_the_content_already_gets_a_304(finished: Finished) -> None:
    answer = await finished.get(if_none_match=finished.etag)
    assert (answer.status_code, answer.content) == (304, b"")
    assert (await finished.get(if_none_match='"other"')).status_code == 200


@pytest.mark.parametrize(
    ("asked", "start", "end"), [("bytes=0-0", 0, 1), ("bytes=1000-1999", 1000, 2000)]
)
async def test_a_range_is_answered_with_that_part(
    finished: Finished, asked: str, start: int, end: int
) -> None:
    answer = await finished.get(range=asked)
    assert (answer.status_code, answer.content) == (206, finished.content[start:end])
    assert answer.headers["content-range"] == f"bytes {start}-{end - 1}/{len(finished.content)}"


async def test_an_interrupted_download_can_be_resumed(finished: Finished) -> None:
    resumed = await finished.get(range="bytes=700-", if_range=finished.etag)
    assert (resumed.status_code, resumed.content) == (206, finished.content[700:])
    other = await finished.get(range="bytes=700-", if_range='"other"')
    assert (other.status_code, other.content) == (200, finished.content)


async def test_a_range_behind_the_end_is_a_416_in_openais_envelope(finished: Finished) -> None:
    answer = await finished.get(range=f"bytes={len(finished.content)}-")
    assert answer.status_code == 416
    assert answer.headers["content-range"] == f"bytes */{len(finished.content)}"
    assert answer.json()["error"]["code"] == "range_not_satisfiable"


@pytest.mark.parametrize("loss", ["expired", "forgotten", "dark"])
async def test_downloads_go_on_when_the_upstream_has_lost_the_video_or_is_gone(
    tmp_path: Path, loss: str
) -> None:
    async with world(tmp_path) as made:
        finished = await finish(made)
        match loss:
            case "expired":
                await made.control.expire(finished.video_id)
            case "forgotten":
                await made.control.forget(finished.video_id)
            case _:
                await made.control.go_dark()
        made.timeline.offset_seconds += 2 * 86_400
        assert (await finished.get()).content == finished.content
        part = await finished.get(range="bytes=10-19")
        assert (part.status_code, part.content) == (206, finished.content[10:20])
        assert (await finished.get("HEAD")).status_code == 200
        async with made.client(finished.key) as client:
            video = (await client.get(f"/videos/{finished.video_id}")).json()
        assert video["status"] == "completed"


async def test_a_download_costs_the_upstream_nothing(finished: Finished) -> None:
    for _ in range(3):
        await finished.get()
    videos = (await finished.made.control.state())["videos"]
    assert videos[finished.video_id]["contents"] == {"video": 1}


@pytest.mark.parametrize("prompt", ["[[queue 1000]]", "[[generation 1000]]", "[[fail]]"])
async def test_content_of_a_video_that_is_not_completed_is_a_404_in_openais_words(
    shared: World, prompt: str
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, prompt)
    async with shared.client(key) as client:
        answer = await client.get(f"/videos/{video_id}/content")
    assert (answer.status_code, answer.json()["error"]["message"]) == (404, NOT_READY)
    assert answer.headers["x-should-retry"] == "false"


async def test_a_download_waits_for_its_first_byte(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[content:delay 1]]")
    await shared.ended(video_id)
    async with shared.client(key) as client:
        answer = await client.get(f"/videos/{video_id}/content")
    assert answer.status_code == 200
    assert answer.content == await shared.control.content(video_id)


async def test_a_download_is_told_when_to_come_back_if_the_first_byte_takes_long(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, content_wait_seconds=0) as made:
        key = await made.key()
        video_id = await made.buy(key, "[[content:pause*1 0]]")
        await made.ended(video_id)
        async with made.client(key) as client:
            answer = await client.get(f"/videos/{video_id}/content")
            assert (answer.status_code, answer.json()["error"]["code"]) == (409, "content_pending")
            assert answer.headers["retry-after-ms"] == "5000"
            assert "x-should-retry" not in answer.headers
        await made.control.go_on()


async def test_content_that_expired_before_it_was_mirrored_is_a_410_and_an_alarm(
    shared: World, logged: LogLines
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[retention 0]]")
    await shared.ended(video_id)
    async with shared.client(key) as client:
        answer = await client.get(f"/videos/{video_id}/content")
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "content_expired")
        assert answer.headers["x-should-retry"] == "false"
        assert (await client.get(f"/videos/{video_id}")).json()["status"] == "completed"
    facts = await shared.facts(video_id)
    (alarm,) = logged.lines("content_lost")
    assert (alarm["level"], alarm["video_id"]) == ("error", facts["id"])
    assert facts["hold_state"] == "settled"


async def test_content_that_is_no_longer_in_the_store_is_a_410(shared: World) -> None:
    finished = await finish(shared)
    asset = await shared.mirrored(finished.video_id)
    (path,) = shared.settings.store_path.glob(f"*/{asset['id']}")
    path.unlink()
    answer = await finished.get()
    assert (answer.status_code, answer.json()["error"]["code"]) == (410, "content_expired")


async def test_an_unknown_variant_is_refused_and_one_that_is_not_offered_is_a_404(
    finished: Finished,
) -> None:
    async with finished.made.client(finished.key) as client:
        path = f"/videos/{finished.video_id}/content"
        wrong = await client.get(path, params={"variant": "poster"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "variant")
        missing = await client.get(path, params={"variant": "thumbnail"})
        assert (missing.status_code, missing.json()["error"]["param"]) == (404, "variant")
        named = await client.get(path, params={"variant": "video"})
        assert named.content == finished.content


async def test_content_of_another_project_is_a_404(finished: Finished) -> None:
    other = await finished.made.key(project="other")
    async with finished.made.client(other) as client:
        path = f"/videos/{finished.video_id}/content"
        for method in ("GET", "HEAD"):
            answer = await client.request(method, path)
            assert answer.status_code == 404
            assert answer.headers["x-should-retry"] == "false"


async def test_a_colleague_of_the_same_project_may_download(finished: Finished) -> None:
    colleague = await finished.made.key(name="colleague")
    async with finished.made.client(colleague) as client:
        answer = await client.get(f"/videos/{finished.video_id}/content")
    assert answer.content == finished.content


@pytest.mark.parametrize("strange", ["slash", "dots", "query", "space"])
async def test_a_strange_id_names_a_file_that_hides_in_no_folder(
    shared: World, strange: str
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, f"[[id {strange}]]")
    await shared.mirrored(video_id)
    async with shared.client(key) as client:
        answer = await client.get(f"/videos/{video_id.replace('%', '%25')}/content")
        if strange != "space":
            assert answer.status_code == 404
        quoted = "".join(f"%{byte:02X}" for byte in video_id.encode())
        answer = await client.get(f"/videos/{quoted}/content")
    assert answer.content == await shared.control.content(video_id)
    _, _, filename = answer.headers["content-disposition"].partition("filename=")
    assert not set(filename) & set("/\\? ")


async def test_thirty_megabytes_arrive_byte_for_byte_at_many_readers(tmp_path: Path) -> None:
    simulated = SimulatorSettings(
        queue_seconds=0, generation_seconds=0, content_bytes=30 * 1_000_000
    )
    async with world(tmp_path, simulated=simulated) as made:
        finished = await finish(made)
        assert len(finished.content) >= 30 * 1_000_000
        answers = await asyncio.gather(*(finished.get() for _ in range(4)))
        assert {hashlib.sha256(answer.content).hexdigest() for answer in answers} == {
            hashlib.sha256(finished.content).hexdigest()
        }
        tail = await finished.get(range="bytes=-1000000")
        assert tail.content == finished.content[-1_000_000:]


async def test_with_the_store_down_nothing_is_bought_and_records_are_still_read(
    tmp_path: Path, logged: LogLines
) -> None:
    async with world(tmp_path) as made:
        finished = await finish(made)
        store, away = made.settings.store_path, tmp_path / "unmounted"
        store.rename(away)
        async with made.client(finished.key) as client:

            async def refused() -> httpx.Response | None:
                answer = await client.post("/videos", json={"prompt": "a cat [[queue 1000]]"})
                return None if answer.status_code == 200 else answer

            answer = await eventually(refused)
            assert answer.status_code == 503
            assert answer.json()["error"]["code"] == "store_unavailable"
            spent = await made.total()
            executed = await made.executions()
            await client.post("/videos", json={"prompt": "a cat"})
            assert (await made.total(), await made.executions()) == (spent, executed)
            assert (await client.get(f"/videos/{finished.video_id}")).status_code == 200
            content = await finished.get()
            assert content.json()["error"]["code"] == "store_unavailable"
            async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as ops:
                ready = await ops.get(f"http://127.0.0.1:{made.gateway.ops_port}/readyz")
                shown = await ops.get(f"http://127.0.0.1:{made.gateway.ops_port}/readyz?verbose")
            assert ready.status_code == 200
            assert shown.json()["checks"]["store"] is False
            away.rename(store)

            async def bought() -> bool:
                answer = await client.post("/videos", json={"prompt": "a cat [[queue 1000]]"})
                return answer.status_code == 200

            await eventually(bought)
        assert (await finished.get()).content == finished.content
    assert [line["level"] for line in logged.lines("store_unavailable")] == ["error"]
