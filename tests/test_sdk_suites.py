"""Do the clients that people already have work unchanged in front of the gateway?

The Python SDK's own suite for `videos`, the Node SDK, the oldest Python SDK with `videos` and
LiteLLM, each as a process of its own. The ids that the suite expects are seeded by creating
videos through the gateway.
"""

import asyncio
import hashlib
import json
import re
import shutil
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
from conftest import World, world
from sdk_tools import (
    LITELLM_VERSION,
    OLD_SDK_VERSION,
    image_in,
    node_with_sdk,
    python_sdk_suite,
    python_with,
    run,
)

from gateway.billing.keys import NewKey
from gateway.upstream.requests import OPERATIONS

HERE = Path(__file__).parent
# The first test of a machine installs its client.
pytestmark = pytest.mark.timeout(600)

VIDEOS_SUITE = "test_videos.py"
SUITE_PASSED = 138
# It mocks these answers with a library that does not reach its aiohttp client, and skips them.
SUITE_SKIPPED = {
    "test_method_download_content[aiohttp]",
    "test_method_download_content_with_all_params[aiohttp]",
    "test_raw_response_download_content[aiohttp]",
    "test_streaming_response_download_content[aiohttp]",
}
# What must be refused, and why.
SUITE_NO_IMAGE = 'its image is the bytes b"Example data": nothing is billed for what is no image'
SUITE_NO_VIDEO = 'its video is the bytes b"Example data": nothing is billed for what is no video'
SUITE_NO_MODEL = "it uploads a video and names no model: nothing is billed that has no price"
SUITE_REFUSED = {
    "test_method_create_with_all_params": SUITE_NO_IMAGE,
    "test_method_create_character": SUITE_NO_VIDEO,
    "test_raw_response_create_character": SUITE_NO_VIDEO,
    "test_streaming_response_create_character": SUITE_NO_VIDEO,
    "test_method_edit": SUITE_NO_MODEL,
    "test_raw_response_edit": SUITE_NO_MODEL,
    "test_streaming_response_edit": SUITE_NO_MODEL,
    "test_method_extend": SUITE_NO_MODEL,
    "test_raw_response_extend": SUITE_NO_MODEL,
    "test_streaming_response_extend": SUITE_NO_MODEL,
}
SUITE_CLIENTS = ("sync loose", "sync strict", "async loose", "async strict", "async aiohttp")
SUITE_DELETING = (
    *("test_method_delete", "test_raw_response_delete", "test_streaming_response_delete"),
)

NODE_PASSED = 22


@pytest.fixture
async def offering(tmp_path: Path) -> AsyncIterator[World]:
    """A gateway in front of a simulator that is told to have every operation."""
    async with world(tmp_path / "gateway", upstream_offers=OPERATIONS) as made:
        yield made


async def test_the_python_sdks_own_suite_passes_but_for_uploads_that_must_be_refused(
    tmp_path: Path,
) -> None:
    async with AsyncExitStack() as stack:
        seeded = [
            await stack.enter_async_context(
                world(tmp_path / str(number), upstream_offers=OPERATIONS)
            )
            for number in range(1 + len(SUITE_DELETING) * len(SUITE_CLIENTS))
        ]
        keys = await asyncio.gather(*(seeded_key(made) for made in seeded))
        await seed_character(seeded[0], keys[0])
        spare = [(made.base_url, key.value) for made, key in zip(seeded[1:], keys[1:], strict=True)]
        told = {
            "api_key": keys[0].value,
            "refused": {VIDEOS_SUITE: SUITE_REFUSED},
            "deleting": SUITE_DELETING,
            "spare": spare,
        }
        outcomes = await python_sdk_suite(
            [VIDEOS_SUITE], base_url=seeded[0].base_url, told=told, report=tmp_path / "report.json"
        )
        # Each of its clients makes three videos and three remixes; a refused upload makes nothing.
        assert await seeded[0].executions() == 1 + 6 * len(SUITE_CLIENTS)
        for made in seeded:
            assert await made.adds_up()
    names = {outcome: [one.split("::")[-1] for one in ids] for outcome, ids in outcomes.items()}
    assert {name.split("[")[0] for name in names["xfailed"]} == set(SUITE_REFUSED)
    assert len(names["xfailed"]) == len(SUITE_REFUSED) * len(SUITE_CLIENTS)
    assert set(names["skipped"]) == SUITE_SKIPPED
    assert len(names["passed"]) == SUITE_PASSED
    assert (names["failed"], names["error"], names["xpassed"]) == ([], [], [])


async def test_the_node_sdk_does_all_that_its_videos_resource_offers(
    offering: World, tmp_path: Path
) -> None:
    node, modules = await node_with_sdk()
    # An import is resolved from where the importing file stands.
    (tmp_path / "node_modules").symlink_to(modules)
    script = shutil.copy(HERE / "sdk_node.test.mjs", tmp_path)
    said = await run(
        [node, "--test", "--test-reporter=tap", str(script)],
        environment={
            "SDK_BASE_URL": offering.base_url,
            "SDK_API_KEY": (await offering.key()).value,
            "SDK_POOR_KEY": (await offering.key(name="poor", budget="0.50")).value,
            "SDK_IMAGE": str(image_in(tmp_path)),
        },
    )
    counts = dict(re.findall(r"^# (pass|fail|skipped|cancelled|todo) (\d+)$", said, re.MULTILINE))
    assert counts == {
        "pass": str(NODE_PASSED),
        **dict.fromkeys(("fail", "skipped", "cancelled", "todo"), "0"),
    }
    assert await offering.adds_up()


async def test_the_oldest_python_sdk_with_videos_works(offering: World, tmp_path: Path) -> None:
    python = await python_with(f"openai=={OLD_SDK_VERSION}")
    key = await offering.key()
    found = await told_by(python, "client_openai_2.py", offering, key, tmp_path)
    assert found["version"] == OLD_SDK_VERSION
    assert found["content_type"] == "application/json"
    assert (found["first"]["seconds"], found["first"]["size"]) == ("8", "1280x720")
    assert [found[name]["status"] for name in ("made", "image")] == ["completed", "completed"]
    assert found["remixed"]["remixed_from_video_id"] == found["made"]["id"]
    assert found["listed"] == [found[name]["id"] for name in ("remixed", "image", "made", "first")]
    assert found["content_sha256"] == await sha256_of(offering, found["made"]["id"])
    assert found["deleted"]["deleted"] is True
    assert found["gone"] == 404
    assert await offering.adds_up()


async def test_litellm_works_with_an_api_base(offering: World, tmp_path: Path) -> None:
    python = await python_with(f"litellm=={LITELLM_VERSION}")
    key = await offering.key()
    found = await told_by(python, "client_litellm.py", offering, key, tmp_path)
    video_id = found["made"]["id"]
    assert (found["made"]["seconds"], found["made"]["size"]) == ("8", "1280x720")
    assert (found["finished"]["id"], found["finished"]["status"]) == (video_id, "completed")
    assert found["content_sha256"] == await sha256_of(offering, video_id)
    assert found["remixed"]["remixed_from_video_id"] == video_id
    assert found["listed"] == [found[name]["id"] for name in ("remixed", "pictured", "made")]
    assert found["refused"]["status"] == 400
    assert "Supported values are: '4', '8', and '12'" in found["refused"]["message"]
    assert await offering.adds_up()


async def seeded_key(made: World) -> NewKey:
    """Return a key that has a finished video called video_123."""
    key = await made.key()
    assert await made.buy(key, "[[id video_123]]") == "video_123"
    await made.ended("video_123")
    return key


async def seed_character(made: World, key: NewKey) -> None:
    """Make a character called char_123."""
    await made.control.fault("set", operation="create-character", key="id", value="char_123")
    clip = await made.control.content("video_123")
    async with made.client(key) as client:
        answer = await client.post(
            "/videos/characters", data={"name": "heron"}, files={"video": ("heron.mp4", clip)}
        )
    assert answer.status_code == 200, answer.text
    assert answer.json()["id"] == "char_123"


async def told_by(
    python: str, script: str, made: World, key: NewKey, folder: Path
) -> dict[str, Any]:
    """Return what a client script prints."""
    told = {
        "base_url": made.base_url,
        "api_key": key.value,
        "image": str(image_in(folder)),
    }
    said = await run(
        [python, str(HERE / script), json.dumps(told)],
        # Otherwise LiteLLM asks the world for prices.
        environment={"LITELLM_LOCAL_MODEL_COST_MAP": "True"},
    )
    found: dict[str, Any] = json.loads(said)
    return found


async def sha256_of(made: World, video_id: str) -> str:
    return hashlib.sha256(await made.control.content(video_id)).hexdigest()
