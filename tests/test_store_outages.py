"""Does an object store that refuses, hangs, goes and comes back never say what it does not know?"""

import random
import re
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import pytest
from object_servers import (
    ACCESS_KEY_ID,
    BUCKET,
    ObjectServer,
    moto_server,
    swift_server,
)
from obstore.exceptions import PermissionDeniedError
from store_tools import (
    IMPATIENT,
    MIB,
    far_store,
    get,
    is_unavailable,
    keys_of,
    open_objects,
    prefix_of,
    put,
)

from gateway.store.buckets import Credentials, Deadlines
from gateway.store.object_writing import PART_BYTES
from gateway.store.objects import ObjectStore

LARGE = random.Random(1).randbytes(3 * PART_BYTES + 17)


@pytest.fixture(params=["moto", "swift"])
def server(request: pytest.FixtureRequest) -> ObjectServer:
    found: ObjectServer = request.getfixturevalue(request.param)
    return found


OPERATIONS: dict[str, Callable[[ObjectStore], Awaitable[object]]] = {
    "a short put": lambda store: put(store, "other", b"content"),
    "a long put": lambda store: put(store, "other", LARGE),
    "a get": lambda store: get(store, "key"),
    "delete": lambda store: store.delete("key"),
    "size": lambda store: store.size("key"),
    "sha256": lambda store: store.sha256("key"),
    "stored": keys_of,
    "check": lambda store: store.check(),
}


@pytest.mark.parametrize("name", OPERATIONS)
@pytest.mark.parametrize(
    "credentials", [Credentials(ACCESS_KEY_ID, "wrong"), Credentials("test:nobody", "testing")]
)
async def test_a_store_that_refuses_is_unavailable_and_nothing_is_missing(
    swift: ObjectServer, name: str, credentials: Credentials
) -> None:
    url = swift.url()
    await put(open_objects(url), "key", b"content")
    cause = await is_unavailable(OPERATIONS[name](open_objects(url, credentials=credentials)))
    assert re.search("SignatureDoesNotMatch|InvalidAccessKeyId|403 Forbidden", str(cause))
    assert name == "stored" or isinstance(cause, PermissionDeniedError)
    assert credentials.secret_access_key not in f"{cause!r} {credentials!r}"
    assert await keys_of(open_objects(url)) == ["key"]


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_bucket_that_is_not_there_is_unavailable_and_nothing_is_missing(
    server: ObjectServer, name: str
) -> None:
    await is_unavailable(OPERATIONS[name](open_objects(server.url(bucket="nobody-has-made-it"))))


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_store_that_is_gone_is_unavailable_until_it_comes_back(
    moto: ObjectServer, name: str
) -> None:
    async with far_store(moto, deadlines=Deadlines()) as far:
        await put(far.store, "key", b"content")
        await far.line.go()
        begun = time.monotonic()
        await is_unavailable(OPERATIONS[name](far.store))
        assert time.monotonic() - begun < Deadlines().again_seconds
        await far.line.come()
        await OPERATIONS[name](far.store)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_store_that_hangs_is_unavailable_in_bounded_time(
    moto: ObjectServer, name: str
) -> None:
    async with far_store(moto) as far:
        await put(far.direct, "key", b"content")
        await far.line.hang()
        begun = time.monotonic()
        await is_unavailable(OPERATIONS[name](far.store))
        assert time.monotonic() - begun < IMPATIENT.taken_seconds + IMPATIENT.abandon_seconds
        far.line.go_on()
        await OPERATIONS[name](far.store)


@pytest.mark.parametrize("name", OPERATIONS)
async def test_a_store_that_is_slow_does_everything(moto: ObjectServer, name: str) -> None:
    async with far_store(moto, deadlines=Deadlines()) as far:
        await put(far.direct, "key", LARGE[:MIB])
        far.line.delay_seconds = 0.002
        await OPERATIONS[name](far.store)
        found = {
            "a short put": ["key", "other"],
            "a long put": ["key", "other"],
            "delete": [],
        }
        assert sorted(await keys_of(far.direct)) == found.get(name, ["key"])


async def test_a_store_that_was_stopped_and_comes_back_has_its_content(tmp_path: Path) -> None:
    with swift_server(tmp_path) as server:
        url = server.url()
        await put(open_objects(url), "short", b"content")
        await put(open_objects(url), "long", LARGE)
    await is_unavailable(open_objects(url).size("short"))
    with swift_server(tmp_path) as server:
        store = open_objects(server.url(prefix_of(url)))
        assert await get(store, "short") == b"content"
        assert await get(store, "long") == LARGE


async def test_a_store_that_comes_back_empty_misses_nothing_but_its_bucket() -> None:
    with moto_server() as server, moto_server() as empty:
        empty.admin().delete_bucket(Bucket=BUCKET)
        async with far_store(server) as far:
            await put(far.store, "key", b"content")
            far.line.to_port = empty.port
            far.line.drop()
            for operation in OPERATIONS.values():
                await is_unavailable(operation(far.store))
