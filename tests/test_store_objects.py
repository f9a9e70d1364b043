"""What else does an object store do: links, listings, prefixes?"""

import random
import time

import httpx
import pytest
from conftest import eventually
from object_servers import (
    BUCKET,
    SECRET_ACCESS_KEY,
    SWIFT_PAGE,
    ObjectServer,
)
from plain_http import NO_TLS
from store_tools import (
    get,
    keys_of,
    open_objects,
    prefix_of,
    put,
)

from gateway.store import Described
from gateway.store.layout import path_of
from gateway.store.object_writing import PART_BYTES

LARGE = random.Random(1).randbytes(3 * PART_BYTES + 17)


@pytest.fixture(params=["moto", "swift"])
def server(request: pytest.FixtureRequest) -> ObjectServer:
    found: ObjectServer = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("content", [b"short", LARGE])
async def test_a_link_works_without_credentials_and_says_what_the_content_is(
    server: ObjectServer, content: bytes
) -> None:
    store = open_objects(server.url())
    described = Described(content_type="video/mp4", filename="video_1.mp4")
    await put(store, "key", content, described)
    link = await store.link("key", seconds=60)
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        answer = await client.get(link)
        part = await client.get(link, headers={"range": "bytes=1-3"})
    assert (answer.status_code, answer.content) == (200, content)
    assert answer.headers["content-type"] == "video/mp4"
    assert answer.headers["content-disposition"] == 'attachment; filename="video_1.mp4"'
    assert answer.headers["cache-control"] == "private"
    # What is shorter than a part is one put; the ETag of several ends in their number.
    assert ("-" in answer.headers["etag"]) is (len(content) >= PART_BYTES)
    assert (part.status_code, part.content) == (206, content[1:4])
    assert SECRET_ACCESS_KEY not in link


async def test_a_link_is_good_for_so_long_and_for_this_key_only(swift: ObjectServer) -> None:
    store = open_objects(swift.url())
    await put(store, "key", b"content")
    await put(store, "other", b"secret")
    link = await store.link("key", seconds=2)
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        assert (await client.get(link)).content == b"content"
        elsewhere = link.replace(path_of("key"), path_of("other"))
        assert (await client.get(elsewhere)).status_code == 403
        assert (await client.get(link.partition("?")[0])).is_client_error
        assert (await client.put(link, content=b"mine")).status_code == 403

        async def expired() -> bool:
            answer = await client.get(link)
            return answer.status_code == 403 and b"expired" in answer.content

        await eventually(expired)
    assert await get(store, "key") == b"content"


async def test_stored_ignores_what_is_not_ours_and_turns_pages(swift: ObjectServer) -> None:
    url = swift.url()
    admin = swift.admin()
    for path in ("ab/key", "tmp/check", "key", "ab/cd/key", "ab/no-key", "AB/key", "content.txt"):
        admin.put_object(Bucket=BUCKET, Key=f"{prefix_of(url)}/{path}", Body=b"x")
    keys = [f"key_{number}" for number in range(3 * SWIFT_PAGE)]
    for key in keys:
        await put(open_objects(url), key, b"x")
    assert sorted(await keys_of(open_objects(url))) == sorted(keys)


async def test_two_prefixes_of_a_bucket_are_two_stores(server: ObjectServer) -> None:
    url = server.url()
    inner, outer = open_objects(server.url(f"{prefix_of(url)}/a/b")), open_objects(url)
    await put(inner, "key", b"inner")
    assert await outer.size("key") is None
    assert await keys_of(outer) == []
    assert await keys_of(inner) == ["key"]
    assert await keys_of(open_objects(server.url(f"{prefix_of(url)}/a/bc"))) == []


async def test_sweep_leaves_it_to_a_rule_of_the_bucket(moto: ObjectServer) -> None:
    store = open_objects(moto.url())
    await put(store, "key", b"content")
    assert await store.sweep(older_than_seconds=0, now=int(time.time()) + 10) == 0
    assert await get(store, "key") == b"content"
