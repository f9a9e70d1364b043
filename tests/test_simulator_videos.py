"""Does the simulator answer the official SDK as the relay would?"""

import io
from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from PIL import Image
from plain_http import NO_TLS

from gateway.simulator.control import Control
from gateway.simulator.mp4 import make_mp4
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings

# The SDK marks its whole videos resource as deprecated, and says so at each call.
pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

_KEY = {"authorization": "Bearer sk-simulator"}
_MP4 = make_mp4(width=720, height=1280, seconds=8, tag=b"upload")


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator() as running:
        yield running


@pytest.fixture
async def control(simulator: Simulator) -> AsyncIterator[Control]:
    async with Control(simulator.base_url) as client:
        yield client


@pytest.fixture
async def sdk(simulator: Simulator) -> AsyncIterator[openai.AsyncOpenAI]:
    async with openai.AsyncOpenAI(
        api_key="sk-simulator", base_url=simulator.base_url, max_retries=0
    ) as client:
        yield client


@pytest.fixture
async def http(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        verify=NO_TLS, base_url=simulator.base_url, headers=_KEY
    ) as client:
        yield client


async def test_the_sdk_creates_polls_downloads_lists_and_deletes(
    sdk: openai.AsyncOpenAI, control: Control
) -> None:
    video = await sdk.videos.create(prompt="a cat", seconds="8", size="1280x720")
    assert (video.status, video.progress, video.seconds) == ("queued", 0, "8")
    await control.advance(2.5)
    assert (await sdk.videos.retrieve(video.id)).status == "in_progress"
    await control.advance(2)
    done = await sdk.videos.retrieve(video.id)
    assert (done.status, done.progress) == ("completed", 100)
    assert done.expires_at == (done.completed_at or 0) + 86_400
    content = await sdk.videos.download_content(video.id)
    assert content.content == await control.content(video.id)
    thumbnail = await sdk.videos.download_content(video.id, variant="thumbnail")
    assert thumbnail.response.headers["content-type"] == "image/webp"
    assert [one.id async for one in sdk.videos.list()] == [video.id]
    assert (await sdk.videos.delete(video.id)).deleted
    with pytest.raises(openai.NotFoundError):
        await sdk.videos.retrieve(video.id)


async def test_a_completed_video_is_billed_and_a_failed_one_is_not(
    sdk: openai.AsyncOpenAI, control: Control
) -> None:
    paid = await sdk.videos.create(
        prompt="a cat", model="sora-2-pro", seconds="12", extra_body={"size": "1920x1080"}
    )
    free = await sdk.videos.create(prompt="a dog [[fail]]")
    assert (await control.totals())["billed_micros"] == 0
    await control.advance(10)
    failed = await sdk.videos.retrieve(free.id)
    assert failed.error is not None
    assert failed.error.code == "generation_failed"
    state = await control.state()
    assert state["billed_micros"] == 8_400_000
    assert state["executions"] == 2
    assert state["videos"][paid.id]["billed_micros"] == 8_400_000
    assert state["videos"][free.id]["retrieves"] == 1


async def test_json_and_multipart_make_the_same_video(http: httpx.AsyncClient) -> None:
    fields = {"prompt": "ein Käse", "model": "sora-2", "seconds": "4", "size": "1280x720"}
    by_json = (await http.post("/videos", json=fields)).json()
    parts = {name: (None, value) for name, value in fields.items()}
    by_parts = (await http.post("/videos", files=parts)).json()
    assert {**by_json, "id": ""} == {**by_parts, "id": "", "created_at": by_json["created_at"]}
    assert list(by_json)[:4] == ["id", "object", "created_at", "status"]
    assert len(by_json) == 13


async def test_a_multipart_body_without_a_length_is_read(
    http: httpx.AsyncClient, control: Control
) -> None:
    async def chunks() -> AsyncIterator[bytes]:
        yield b'--b\r\ncontent-disposition: form-data; name="prompt"\r\n\r\na c'
        yield b"at\r\n--b--\r\n"

    kind = {"content-type": "multipart/form-data; boundary=b"}
    answer = await http.post("/videos", content=chunks(), headers=kind)
    assert answer.json()["prompt"] == "a cat"
    received = (await control.received("create"))[0]
    assert received["headers"]["transfer-encoding"] == "chunked"
    assert (received["encoding"], received["fields"]) == ("multipart", {"prompt": "a cat"})


async def test_a_reference_image_must_be_a_true_image_of_the_video_s_size(
    http: httpx.AsyncClient, control: Control
) -> None:
    good, small = _png(720, 1280), _png(64, 64)
    assert await _refer(http, ("ref.png", good, "image/png")) is None
    wrong_size = await _refer(http, ("ref.png", small, "image/png"))
    assert wrong_size == "Inpaint image must match the requested width and height"
    wrong_type = await _refer(http, ("ref", good, "application/octet-stream"))
    assert str(wrong_type).startswith(
        "Invalid file 'input_reference': unsupported mimetype ('application/octet-stream')."
    )
    assert "not image/jpeg" in str(await _refer(http, ("ref.jpg", good, "image/jpeg")))
    assert "not a readable" in str(await _refer(http, ("ref.png", b"<svg/>", "image/png")))
    text = await http.post("/videos", json={"prompt": "a cat", "input_reference": "data:"})
    assert text.json()["error"] == {
        "message": "Invalid type for 'input_reference': expected a file, but got a string instead.",
        "type": "invalid_request_error",
        "param": "input_reference",
        "code": "invalid_type",
    }
    assert (await control.totals())["executions"] == 1
    first = (await control.received("create"))[0]["files"]["input_reference"]
    assert (first["content_type"], first["bytes"]) == ("image/png", len(good))


async def test_remix_edit_and_extension_are_billed_as_their_source(
    sdk: openai.AsyncOpenAI, http: httpx.AsyncClient, control: Control
) -> None:
    source = await sdk.videos.create(prompt="a cat", seconds="8", model="sora-2-pro")
    early = await http.post(f"/videos/{source.id}/remix", json={"prompt": "blue"})
    assert early.status_code == 400
    await control.advance(10)
    remixed = await sdk.videos.remix(source.id, prompt="blue")
    assert (remixed.remixed_from_video_id, remixed.seconds) == (source.id, "8")
    body: dict[str, Any] = {"prompt": "blue", "video": {"id": source.id}}
    edited = (await http.post("/videos/edits", json=body)).json()
    longer = (await http.post("/videos/extensions", json=body | {"seconds": "4"})).json()
    assert (edited["seconds"], longer["seconds"]) == ("8", "12")
    await control.advance(10)
    videos = (await control.state())["videos"]
    assert videos[remixed.id]["billed_micros"] == 2_400_000
    assert videos[edited["id"]]["billed_micros"] == 2_400_000
    assert videos[longer["id"]]["billed_micros"] == 1_200_000


async def test_an_uploaded_video_is_edited_and_extended(http: httpx.AsyncClient) -> None:
    files = {"video": ("v.mp4", _MP4, "video/mp4")}
    fields = {"prompt": "blue", "model": "sora-2"}
    edited = await http.post("/videos/edits", data=fields, files=files)
    assert edited.json()["seconds"] == "8"
    longer = await http.post("/videos/extensions", data=fields | {"seconds": "12"}, files=files)
    assert longer.json()["seconds"] == "20"
    nameless = await http.post("/videos/edits", data={"prompt": "blue"}, files=files)
    assert nameless.json()["error"]["param"] == "model"


async def test_a_character_is_made_found_and_used(
    sdk: openai.AsyncOpenAI, http: httpx.AsyncClient
) -> None:
    made = await sdk.videos.create_character(name="Mia", video=("v.mp4", _MP4, "video/mp4"))
    found = await sdk.videos.get_character(str(made.id))
    assert (found.id, found.name) == (made.id, "Mia")
    parts = {"prompt": (None, "a cat"), "characters[][id]": (None, str(made.id))}
    assert (await http.post("/videos", files=parts)).status_code == 200
    unknown = {"prompt": "a cat", "characters": [{"id": "char_x"}]}
    assert (await http.post("/videos", json=unknown)).status_code == 404


async def test_a_list_is_paged_in_either_order(http: httpx.AsyncClient) -> None:
    made = [(await http.post("/videos", json={"prompt": "a cat"})).json()["id"] for _ in range(5)]
    newest = (await http.get("/videos", params={"limit": 2})).json()
    assert [video["id"] for video in newest["data"]] == [made[4], made[3]]
    assert (newest["has_more"], newest["last_id"]) == (True, made[3])
    oldest = {"limit": 3, "order": "asc", "after": made[1]}
    rest = (await http.get("/videos", params=oldest)).json()
    assert [video["id"] for video in rest["data"]] == made[2:]
    assert rest["has_more"] is False
    unknown = await http.get("/videos", params={"after": "video_x"})
    assert (unknown.status_code, unknown.json()["data"]) == (200, [])
    assert (await http.get("/videos", params={"limit": 0})).json()["data"] == []
    assert (await http.get("/videos", params={"limit": 101})).status_code == 400


async def test_content_is_there_from_completion_until_it_expires(
    http: httpx.AsyncClient, control: Control
) -> None:
    video_id = (await http.post("/videos", json={"prompt": "a cat"})).json()["id"]
    path = f"/videos/{video_id}/content"
    early = await http.get(path)
    assert early.status_code == 404
    assert early.json()["error"]["message"] == (
        "Video is not ready yet, use GET /v1/videos/{video_id} to check status."
    )
    await control.advance(5)
    assert (await http.get(path)).status_code == 200
    await control.advance(86_400)
    assert (await http.get(path)).status_code == 404
    await control.settings(expired_status=410)
    assert (await http.get(path)).status_code == 410
    assert (await control.state())["videos"][video_id]["contents"] == {"video": 4}


async def test_content_answers_ranges_unless_told_not_to(
    http: httpx.AsyncClient, control: Control
) -> None:
    video_id = (await http.post("/videos", json={"prompt": "[[queue 0]] [[generation 0]]"})).json()[
        "id"
    ]
    path, whole = f"/videos/{video_id}/content", await control.content(video_id)
    for wanted, part in (
        ("bytes=10-19", whole[10:20]),
        ("bytes=100-", whole[100:]),
        ("bytes=-7", whole[-7:]),
    ):
        answer = await http.get(path, headers={"range": wanted})
        assert (answer.status_code, answer.content) == (206, part)
    beyond = await http.get(path, headers={"range": f"bytes={len(whole)}-"})
    assert (beyond.status_code, beyond.headers["content-range"]) == (416, f"bytes */{len(whole)}")
    await control.settings(ranges=False)
    plain = await http.get(path, headers={"range": "bytes=10-19"})
    assert (plain.status_code, plain.content) == (200, whole)


async def test_only_a_finished_video_is_deleted(http: httpx.AsyncClient, control: Control) -> None:
    video_id = (await http.post("/videos", json={"prompt": "a cat"})).json()["id"]
    assert (await http.delete(f"/videos/{video_id}")).status_code == 400
    await control.advance(5)
    assert (await http.delete(f"/videos/{video_id}")).json() == {
        "id": video_id,
        "object": "video.deleted",
        "deleted": True,
    }


async def test_a_wrong_key_is_refused_in_the_relay_s_words(
    http: httpx.AsyncClient, control: Control
) -> None:
    refused = await http.get("/videos", headers={"authorization": "Bearer sk-other"})
    assert refused.status_code == 401
    assert refused.json()["error"]["message"].startswith("无效的令牌 (request id: ")
    assert (await control.received())[0]["headers"]["authorization"] == "(not a known key)"


async def test_a_key_without_a_channel_is_a_503(http: httpx.AsyncClient) -> None:
    key = {"authorization": "Bearer sk-no-channel"}
    refused = await http.post("/videos", json={"prompt": "a cat"}, headers=key)
    assert refused.status_code == 503
    assert "无可用渠道" in refused.json()["error"]["message"]


async def test_every_answer_bears_both_request_ids(http: httpx.AsyncClient) -> None:
    for answer in (await http.get("/videos"), await http.get("/videos/x"), await http.put("/y")):
        assert answer.headers["x-request-id"].startswith("req_")
        assert answer.headers["x-shellapi-request-id"].isdigit()


async def test_veo_tells_little_and_grok_bills_the_moderated(
    http: httpx.AsyncClient, control: Control
) -> None:
    veo = {"prompt": "a cat", "model": "veo-3.1-fast-generate-preview"}
    made = (await http.post("/videos", json=veo)).json()
    assert made["id"] == made["task_id"]
    assert not {"seconds", "size", "prompt", "expires_at"} & set(made)
    grok = {"prompt": "[[moderate-completed]]", "model": "grok-imagine-video", "seconds": "2"}
    blocked = (await http.post("/videos", json=grok)).json()["id"]
    await control.advance(5)
    shown = (await http.get(f"/videos/{blocked}")).json()
    assert (shown["status"], shown["error"]["code"]) == ("completed", "moderation_blocked")
    assert (await http.get(f"/videos/{blocked}/content")).status_code == 404
    assert (await control.totals())["billed_micros"] == 300_000 + 100_000


async def test_large_content_arrives_whole() -> None:
    settings = Settings(queue_seconds=0, generation_seconds=0, content_bytes=20_000_000)
    async with Simulator(settings=settings) as simulator, Control(simulator.base_url) as control:
        async with httpx.AsyncClient(
            verify=NO_TLS, base_url=simulator.base_url, headers=_KEY
        ) as http:
            video_id = (await http.post("/videos", json={"prompt": "a cat"})).json()["id"]
            content = (await http.get(f"/videos/{video_id}/content")).content
        assert len(content) == 20_000_000
        assert content == await control.content(video_id)


async def _refer(http: httpx.AsyncClient, file: tuple[str, bytes, str]) -> object:
    answer = await http.post("/videos", data={"prompt": "a cat"}, files={"input_reference": file})
    return None if answer.status_code == 200 else answer.json()["error"]["message"]


def _png(width: int, height: int) -> bytes:
    into = io.BytesIO()
    Image.new("RGB", (width, height)).save(into, "PNG")
    return into.getvalue()
