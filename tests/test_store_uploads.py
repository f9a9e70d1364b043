"""Is an upload to an object store whole or invisible, whatever happens to it?"""

import asyncio
import random
import time
from contextlib import suppress

import pytest
from conftest import eventually
from object_servers import (
    ObjectServer,
)
from store_tools import (
    IMPATIENT,
    MIB,
    far_store,
    get,
    keys_of,
    open_objects,
    prefix_of,
    put,
)

from gateway.errors import StoreUnavailable
from gateway.store import ContentMissing
from gateway.store.buckets import Deadlines
from gateway.store.object_writing import PART_BYTES, ObjectWriting
from gateway.store.objects import ObjectStore

LARGE = random.Random(1).randbytes(3 * PART_BYTES + 17)


@pytest.fixture(params=["moto", "swift"])
def server(request: pytest.FixtureRequest) -> ObjectServer:
    found: ObjectServer = request.getfixturevalue(request.param)
    return found


async def test_an_upload_that_is_cut_off_shows_nothing(server: ObjectServer) -> None:
    async with far_store(server) as far:
        async with far.store.writing("key") as writing:
            await writing.write(LARGE[: PART_BYTES + 1])
            await eventually(lambda: _uploads(server, far.url, count=1))
            await far.line.go()
            with pytest.raises(StoreUnavailable):
                await _write_on(writing)
            await far.line.come()
            with pytest.raises(StoreUnavailable):
                await writing.commit()
        assert await far.direct.size("key") is None
        assert await keys_of(far.direct) == []
        await put(far.store, "key", LARGE)
        assert await get(far.direct, "key") == LARGE


async def test_an_upload_whose_connections_break_is_finished_all_the_same(
    server: ObjectServer,
) -> None:
    async with far_store(server, deadlines=Deadlines()) as far:
        async with far.store.writing("key") as writing:
            for start in range(0, len(LARGE), MIB):
                await writing.write(LARGE[start : start + MIB])
                far.line.drop()
            await writing.commit()
        assert await get(far.direct, "key") == LARGE


@pytest.mark.parametrize("content", [b"short", LARGE])
async def test_an_answer_that_is_lost_leaves_the_content_whole_or_invisible(
    moto: ObjectServer, content: bytes
) -> None:
    committed = 0
    # A connection per request: one to begin, one per part, one to complete.
    for spared in range(7):
        async with far_store(moto, deadlines=Deadlines()) as far:
            far.line.spared, far.line.cuts = spared, 1
            try:
                await put(far.store, "key", content)
                committed += 1
                assert await get(far.direct, "key") == content
            except StoreUnavailable:
                assert await far.direct.size("key") in {None, len(content)}
            # What the mirror does: it looks, and fetches again if nothing is there.
            if await far.direct.size("key") is None:
                await put(far.direct, "key", content)
            assert await get(far.direct, "key") == content
    assert committed >= 5


async def _write_on(writing: ObjectWriting) -> None:
    for start in range(0, len(LARGE), MIB):
        await writing.write(LARGE[start : start + MIB])


async def _uploads(server: ObjectServer, url: str, *, count: int) -> bool:
    return len(server.unfinished_uploads(prefix_of(url))) == count


@pytest.mark.parametrize("content", [b"short", LARGE])
async def test_after_a_failed_commit_this_writing_cannot_be_committed(
    server: ObjectServer, content: bytes
) -> None:
    async with far_store(server) as far:
        async with far.store.writing("key") as writing:
            await writing.write(content)
            await far.line.go()
            with pytest.raises(StoreUnavailable):
                await writing.commit()
            await far.line.come()
            with pytest.raises(StoreUnavailable):
                await writing.commit()
        assert await far.direct.size("key") is None


async def test_leaving_without_commit_leaves_no_parts(server: ObjectServer) -> None:
    url = server.url()
    store = open_objects(url)
    async with store.writing("key") as writing:
        await writing.write(LARGE)
        await eventually(lambda: _uploads(server, url, count=1))
    assert await _uploads(server, url, count=0)
    with suppress(ZeroDivisionError):
        async with store.writing("key") as writing:
            await writing.write(LARGE)
            await writing.write(bytes(1 // 0))
    assert await _uploads(server, url, count=0)
    assert await keys_of(store) == []


async def test_a_writer_that_is_cancelled_leaves_no_parts(server: ObjectServer) -> None:
    url = server.url()
    store = open_objects(url)
    began = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_write_for_ever(store, began))
        await began.wait()
        task.cancel()
    assert await _uploads(server, url, count=0)
    assert await store.size("key") is None


async def test_a_writer_that_is_cancelled_twice_shows_nothing(server: ObjectServer) -> None:
    store = open_objects(server.url())
    began = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        task = group.create_task(_write_for_ever(store, began))
        await began.wait()
        task.cancel()
        await asyncio.sleep(0)
        task.cancel()
    assert await store.size("key") is None


async def _write_for_ever(store: ObjectStore, began: asyncio.Event) -> None:
    async with store.writing("key") as writing:
        while True:
            await writing.write(LARGE)
            began.set()


@pytest.mark.parametrize("content", [b"short", LARGE])
async def test_a_commit_that_is_cancelled_is_whole_or_nothing(
    server: ObjectServer, content: bytes
) -> None:
    store = open_objects(server.url())
    for turns in range(0, 40, 5):
        async with asyncio.TaskGroup() as group:
            task = group.create_task(put(store, "key", content))
            for _ in range(turns):
                await asyncio.sleep(0)
            task.cancel()
        with suppress(ContentMissing):
            assert await get(store, "key") == content
        await store.delete("key")


async def test_a_writer_that_leaves_a_hanging_store_is_let_go(moto: ObjectServer) -> None:
    async with far_store(moto) as far:
        async with far.store.writing("key") as writing:
            await writing.write(LARGE[:PART_BYTES])
            await far.line.hang()
            begun = time.monotonic()
        assert time.monotonic() - begun < IMPATIENT.abandon_seconds + 1
        far.line.go_on()
        assert await far.direct.size("key") is None
