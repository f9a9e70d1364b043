"""Does the official Python SDK work unchanged, with only base_url and api_key set?"""

import asyncio
import hashlib
import io
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import httpx
import openai
import pytest
from conftest import World, world
from openai import AsyncOpenAI, OpenAI
from openai.types import Video
from PIL import Image

from gateway.billing.keys import NewKey

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

T = TypeVar("T")


async def with_sdk(made: World, key: NewKey, use: Callable[[OpenAI], T]) -> T:
    """Use the synchronous client in a thread: the gateway runs in this one's loop."""

    def used() -> T:
        with OpenAI(base_url=made.base_url, api_key=key.value) as client:
            return use(client)

    return await asyncio.to_thread(used)


def png(width: int = 720, height: int = 1280) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height), (10, 120, 200)).save(out, "PNG")
    return out.getvalue()


async def last_create(made: World) -> dict[str, Any]:
    received: dict[str, Any] = (await made.control.received("create"))[-1]
    return received


async def test_a_prompt_alone_is_enough_to_create_and_every_default_goes_upstream(
    studio: World,
) -> None:
    key = await studio.key()
    video = await with_sdk(studio, key, lambda sdk: sdk.videos.create(prompt="a cat"))
    assert isinstance(video, Video)
    assert (video.model, video.size, video.seconds) == ("sora-2", "720x1280", "4")
    received = await last_create(studio)
    assert received["fields"] == {
        "prompt": "a cat",
        "model": "sora-2",
        "seconds": "4",
        "size": "720x1280",
    }


async def test_nothing_of_the_client_but_the_checked_fields_goes_upstream(studio: World) -> None:
    key = await studio.key()
    await with_sdk(studio, key, lambda sdk: sdk.videos.create(prompt="a cat"))
    headers = (await last_create(studio))["headers"]
    assert headers["authorization"] == "Bearer sk-simulator"
    assert headers["accept-encoding"] == "identity"
    assert headers["user-agent"].startswith("video-gateway/")
    assert not [name for name in headers if name.startswith(("x-stainless", "x-gateway"))]
    assert key.value not in str(headers)


@pytest.mark.parametrize("form", ["path", "bytes", "tuple", "file object"])
async def test_a_reference_image_arrives_whole_and_rightly_named_however_it_was_given(
    studio: World, tmp_path: Path, form: str
) -> None:
    image = png()
    path = tmp_path / "my reference.png"
    path.write_bytes(image)
    given: dict[str, Any] = {
        "path": path,
        "bytes": image,
        "tuple": ("ref.jpg", image, "application/octet-stream"),
        "file object": io.BytesIO(image),
    }
    key = await studio.key()
    video = await with_sdk(
        studio,
        key,
        lambda sdk: sdk.videos.create(prompt="a wave", input_reference=given[form], seconds="8"),
    )
    assert video.seconds == "8"
    received = await last_create(studio)
    assert received["files"] == {
        "input_reference": {
            "filename": "input_reference.png",
            "content_type": "image/png",
            "bytes": len(image),
            "sha256": hashlib.sha256(image).hexdigest(),
        }
    }
    assert received["fields"]["seconds"] == "8"
    assert received["fields"]["size"] == "720x1280"


async def test_a_reference_image_of_another_size_is_refused_before_anything_is_billed(
    studio: World,
) -> None:
    key = await studio.key()

    def create(sdk: OpenAI) -> Video:
        return sdk.videos.create(prompt="a wave", input_reference=png(64, 64))

    with pytest.raises(openai.BadRequestError, match="must match the requested width") as refused:
        await with_sdk(studio, key, create)
    assert refused.value.param == "input_reference"
    assert await studio.total() == (0, 0)
    assert await studio.executions() == 0


async def test_create_and_poll_then_download_by_the_polled_id(studio: World) -> None:
    key = await studio.key()

    def produce(sdk: OpenAI) -> tuple[Video, bytes]:
        video = sdk.videos.create_and_poll(prompt="a cat [[queue 1]]", seconds="12")
        return video, sdk.videos.download_content(video.id).read()

    video, content = await with_sdk(studio, key, produce)
    assert (video.status, video.progress, video.error) == ("completed", 100, None)
    assert content == await studio.control.content(video.id)
    assert await studio.total() == (1_200_000, 0)
    assert await studio.adds_up()


async def test_a_video_that_is_completed_in_the_very_answer_can_be_downloaded_at_once(
    studio: World,
) -> None:
    key = await studio.key()

    def produce(sdk: OpenAI) -> tuple[Video, bytes]:
        video = sdk.videos.create_and_poll(prompt="a cat")
        return video, sdk.videos.download_content(video.id).read()

    video, content = await with_sdk(studio, key, produce)
    assert content == await studio.control.content(video.id)


async def test_the_asynchronous_client_creates_polls_and_streams_a_download(
    studio: World, tmp_path: Path
) -> None:
    key = await studio.key()
    path = tmp_path / "video.mp4"
    async with AsyncOpenAI(base_url=studio.base_url, api_key=key.value) as sdk:
        video = await sdk.videos.create_and_poll(
            prompt="a cat [[generation 1]]", model="sora-2-pro", size="1792x1024"
        )
        assert video.status == "completed"
        async with sdk.videos.with_streaming_response.download_content(video.id) as answer:
            await answer.stream_to_file(path)
        again = await sdk.videos.retrieve(video.id)
    assert path.read_bytes() == await studio.control.content(video.id)
    assert again == video
    assert await studio.total() == (2_000_000, 0)


async def test_a_range_of_a_download_is_a_206_with_just_those_bytes(studio: World) -> None:
    key = await studio.key()
    video_id = await studio.buy(key)
    await studio.mirrored(video_id)
    whole = await studio.control.content(video_id)

    def part(sdk: OpenAI) -> httpx.Response:
        answer = sdk.videos.with_raw_response.download_content(
            video_id, extra_headers={"Range": "bytes=100-299"}
        )
        return httpx.Response(
            answer.status_code, headers=dict(answer.headers), content=answer.content
        )

    answer = await with_sdk(studio, key, part)
    assert answer.status_code == 206
    assert answer.headers["content-range"] == f"bytes 100-299/{len(whole)}"
    assert answer.content == whole[100:300]


async def test_a_download_in_pieces_is_the_whole(studio: World) -> None:
    key = await studio.key()
    video_id = await studio.buy(key)
    await studio.mirrored(video_id)

    def pieces(sdk: OpenAI) -> list[bytes]:
        with sdk.videos.with_streaming_response.download_content(video_id) as answer:
            return list(answer.iter_bytes(4096))

    received = await with_sdk(studio, key, pieces)
    assert len(received) > 1
    assert b"".join(received) == await studio.control.content(video_id)


async def test_a_failed_video_nets_nothing(studio: World) -> None:
    key = await studio.key()
    video = await with_sdk(
        studio,
        key,
        lambda sdk: sdk.videos.create_and_poll(prompt="[[queue 1]] [[moderate-later]]"),
    )
    assert video.status == "failed"
    assert video.error is not None
    assert video.error.code == "moderation_blocked"
    assert (await studio.ended(video.id))["hold_state"] == "released"
    assert await studio.total() == (0, 0)
    assert await studio.adds_up()


async def test_twelve_seconds_of_1080p_settle_exactly_eight_dollars_forty(studio: World) -> None:
    key = await studio.key(budget="8.40")
    size: Any = "1080x1920"

    def create(sdk: OpenAI) -> Video:
        return sdk.videos.create(prompt="a cat", model="sora-2-pro", size=size, seconds="12")

    video = await with_sdk(studio, key, create)
    facts = await studio.ended(video.id)
    assert (facts["hold_state"], facts["hold_settled_micros"]) == ("settled", 8_400_000)
    assert await studio.total() == (8_400_000, 0)
    assert (await studio.control.totals())["billed_micros"] == 8_400_000
    with pytest.raises(openai.RateLimitError):
        await with_sdk(studio, key, lambda sdk: sdk.videos.create(prompt="one more"))


@pytest.mark.parametrize(("budget", "fitting"), [("2.50", 2), ("1.00", 0)])
async def test_of_twenty_posts_at_once_only_those_pass_that_fit_the_budget(
    studio: World, budget: str, fitting: int
) -> None:
    key = await studio.key(budget=budget)
    async with AsyncOpenAI(base_url=studio.base_url, api_key=key.value) as sdk:
        answers = await asyncio.gather(
            *(sdk.videos.create(prompt=f"cat {one}", seconds="12") for one in range(20)),
            return_exceptions=True,
        )
    bought = [answer for answer in answers if isinstance(answer, Video)]
    refused = [answer for answer in answers if isinstance(answer, openai.RateLimitError)]
    assert (len(bought), len(refused)) == (fitting, 20 - fitting)
    for one in refused:
        assert one.code == "insufficient_quota"
        assert one.response.headers["x-should-retry"] == "false"
        assert one.request.headers["x-stainless-retry-count"] == "0"
        assert "$1.20" in one.message
    assert await studio.executions() == fitting
    assert (await studio.control.totals())["requests"].get("create", 0) == fitting
    for video in bought:
        await studio.ended(video.id)
    assert await studio.total() == (fitting * 1_200_000, 0)
    assert await studio.adds_up()


async def test_the_sdk_does_not_send_again_what_may_have_been_executed(studio: World) -> None:
    key = await studio.key()
    with pytest.raises(openai.InternalServerError) as unknown:
        await with_sdk(studio, key, lambda sdk: sdk.videos.create(prompt="[[500-executed]]"))
    assert unknown.value.code == "outcome_unknown"
    assert await studio.executions() == 1
    assert await studio.total() == (0, 400_000)


async def test_the_sdk_comes_back_by_itself_while_the_content_is_copied(tmp_path: Path) -> None:
    async with world(tmp_path, content_wait_seconds=0) as made:
        key = await made.key()
        video_id = await made.buy(key, "[[content:delay 2]]")
        await made.ended(video_id)
        content = await with_sdk(
            made, key, lambda sdk: sdk.videos.download_content(video_id).read()
        )
        assert content == await made.control.content(video_id)


async def test_the_json_body_of_older_clients_is_taken(studio: World) -> None:
    key = await studio.key()
    video = await with_sdk(
        studio,
        key,
        lambda sdk: sdk.videos.create(
            prompt="a cat", seconds="8", extra_headers={"Content-Type": "application/json"}
        ),
    )
    assert video.seconds == "8"
    assert (await studio.facts(video.id))["hold_micros"] == 800_000


async def test_errors_carry_the_request_id_that_the_log_has(studio: World) -> None:
    key = await studio.key()

    def create(sdk: OpenAI) -> Video:
        seconds: Any = "5"
        return sdk.videos.create(prompt="a cat", seconds=seconds)

    with pytest.raises(openai.BadRequestError) as refused:
        await with_sdk(studio, key, create)
    assert refused.value.request_id is not None
    assert refused.value.request_id.startswith("req_")
    assert (refused.value.param, refused.value.code) == ("seconds", "invalid_value")


async def test_a_wrong_key_and_an_unknown_id_raise_what_openai_raises(studio: World) -> None:
    key = await studio.key()
    wrong = NewKey(id="none", value="sk-of-another-place", project_id="none")
    with pytest.raises(openai.AuthenticationError):
        await with_sdk(studio, wrong, lambda sdk: sdk.videos.create(prompt="a cat"))
    with pytest.raises(openai.NotFoundError):
        await with_sdk(studio, key, lambda sdk: sdk.videos.retrieve("video_unknown"))


@pytest.mark.parametrize("strange", ["slash", "dots", "query", "space"])
async def test_strange_ids_survive_the_round_trip(studio: World, strange: str) -> None:
    key = await studio.key()

    def produce(sdk: OpenAI) -> tuple[Video, Video, bytes]:
        video = sdk.videos.create_and_poll(prompt=f"[[id {strange}]] [[queue 1]]")
        found = sdk.videos.retrieve(video.id)
        return video, found, sdk.videos.download_content(video.id).read()

    video, found, content = await with_sdk(studio, key, produce)
    assert found == video
    assert video.id in (await studio.control.state())["videos"]
    assert content == await studio.control.content(video.id)
