"""Does a gateway keep and serve content in an object store, and cope without it?"""

import asyncio
import hashlib
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from conftest import LogLines, World, eventually, world
from object_servers import ACCESS_KEY_ID, SECRET_ACCESS_KEY, ObjectServer
from plain_http import NO_TLS
from store_tools import far_store, keys_of, open_objects, prefix_of

KEYS: dict[str, Any] = {
    "store_access_key_id": ACCESS_KEY_ID,
    "store_secret_access_key": SECRET_ACCESS_KEY,
}


async def finished(made: World) -> tuple[str, str, bytes]:
    """Return a key's value, a mirrored video's id, and its true content."""
    key = await made.key()
    video_id = await made.buy(key)
    await made.mirrored(video_id)
    return key.value, video_id, await made.control.content(video_id)


async def test_content_is_served_from_the_bucket(swift: ObjectServer, tmp_path: Path) -> None:
    url = swift.url()
    async with world(tmp_path, store_url=url, **KEYS) as made:
        value, video_id, content = await finished(made)
        etag = f'"{hashlib.sha256(content).hexdigest()}"'
        async with made.client(value) as client:
            path = f"/videos/{video_id}/content"
            whole = await client.get(path)
            assert (whole.status_code, whole.content) == (200, content)
            assert whole.headers["etag"] == etag
            part = await client.get(path, headers={"range": "bytes=-77", "if-range": etag})
            assert (part.status_code, part.content) == (206, content[-77:])
            head = await client.head(path)
            assert head.headers["content-length"] == str(len(content))
            assert (await client.get(path, headers={"if-none-match": etag})).status_code == 304
            # The upstream is needed for none of it.
            await made.control.fault("502", operation="content", times=None)
            assert (await client.get(path)).content == content
            assert (await client.delete(f"/videos/{video_id}")).status_code == 200
            assert (await client.get(path)).status_code == 404

        async def empty() -> bool:
            return await keys_of(open_objects(url)) == []

        await eventually(empty)


@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
async def test_the_sdk_follows_a_redirect_to_the_bucket_and_leaves_its_key_behind(
    swift: ObjectServer, tmp_path: Path
) -> None:
    async with world(tmp_path, store_url=swift.url(), store_redirect_seconds=60, **KEYS) as made:
        value, video_id, content = await finished(made)
        async with made.client(value) as client:
            answer = await client.get(f"/videos/{video_id}/content")
            assert (answer.status_code, answer.content) == (302, b"")
            assert answer.headers["cache-control"] == "private, no-store"
            head = await client.head(f"/videos/{video_id}/content")
            assert (head.status_code, head.headers["content-length"]) == (200, str(len(content)))
        async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as stranger:
            direct = await stranger.get(answer.headers["location"])
            assert (direct.status_code, direct.content) == (200, content)
            assert direct.headers["content-type"] == "video/mp4"
            named = f'attachment; filename="{video_id}.mp4"'
            assert direct.headers["content-disposition"] == named
        async with openai.AsyncOpenAI(base_url=made.base_url, api_key=value) as sdk:
            downloaded = await sdk.videos.download_content(video_id)
            assert downloaded.content == content


async def test_with_the_bucket_away_nothing_is_bought_and_records_are_still_read(
    moto: ObjectServer, tmp_path: Path, logged: LogLines
) -> None:
    async with far_store(moto) as far:
        behind = moto.url(prefix_of(far.url), port=far.line.port)
        async with world(tmp_path, store_url=behind, **KEYS) as made:
            value, video_id, content = await finished(made)
            await far.line.go()

            async def noticed() -> bool:
                return bool(logged.lines("store_unavailable"))

            await eventually(noticed, seconds=40)
            async with made.client(value) as client:
                refused = await client.post("/videos", json={"prompt": "a heron"})
                assert refused.status_code == 503
                assert refused.json()["error"]["code"] == "store_unavailable"
                assert (await client.get(f"/videos/{video_id}")).status_code == 200
                missing = await client.get(f"/videos/{video_id}/content")
                assert missing.json()["error"]["code"] == "store_unavailable"
                ready = f"http://127.0.0.1:{made.gateway.ops_port}/readyz"
                assert (await client.get(ready)).status_code == 200
                await far.line.come()

                async def back() -> bool:
                    answer = await client.post("/videos", json={"prompt": "a heron"})
                    return answer.status_code == 200

                await eventually(back, seconds=40)
                assert (await client.get(f"/videos/{video_id}/content")).content == content


async def test_a_client_has_its_content_while_the_bucket_takes_nothing(
    moto: ObjectServer, tmp_path: Path
) -> None:
    async with far_store(moto) as far:
        behind = moto.url(prefix_of(far.url), port=far.line.port)
        async with world(tmp_path, store_url=behind, **KEYS) as made:
            key = await made.key()
            await far.line.hang()
            video_id = await made.buy(key)

            async def begun() -> bool:
                asset = await made.asset(video_id)
                return asset is not None and asset["attempts"] >= 1

            await eventually(begun)
            async with made.client(key) as client, asyncio.timeout(30):
                answer = await client.get(f"/videos/{video_id}/content")
            assert answer.content == await made.control.content(video_id)
            assert "etag" not in answer.headers
            far.line.go_on()
            await made.mirrored(video_id)
