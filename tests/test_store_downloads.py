"""Are the bytes from an object store the right ones, or none, whatever happens to the way?"""

import random
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import aclosing
from functools import partial

import pytest
from conftest import eventually
from object_servers import (
    Line,
    ObjectServer,
)
from store_tools import (
    IMPATIENT,
    MIB,
    far_store,
    get_all,
    open_objects,
    put,
    resident_bytes,
)

from gateway.errors import StoreUnavailable
from gateway.store.object_writing import PART_BYTES
from gateway.store.objects import ObjectReading

LARGE = random.Random(1).randbytes(3 * PART_BYTES + 17)


@pytest.fixture(params=["moto", "swift"])
def server(request: pytest.FixtureRequest) -> ObjectServer:
    found: ObjectServer = request.getfixturevalue(request.param)
    return found


@pytest.mark.parametrize("cuts", [1, 2, 8])
async def test_a_download_that_is_cut_is_taken_up_where_it_broke(
    server: ObjectServer, cuts: int
) -> None:
    async with far_store(server) as far:
        await put(far.direct, "key", LARGE)
        async with far.store.reading("key") as reading:
            far.line.cut_after_bytes, far.line.cuts = 1_000_000, cuts
            assert await get_all(reading) == LARGE
            assert far.line.cuts == 0


async def test_a_download_that_brings_nothing_more_is_not_tried_for_ever(
    swift: ObjectServer,
) -> None:
    async with far_store(swift) as far:
        await put(far.direct, "key", LARGE)
        async with far.store.reading("key") as reading:
            # Less than the head of an answer: no connection brings any content.
            far.line.cut_after_bytes, far.line.cuts = 20, sys.maxsize
            with pytest.raises(StoreUnavailable):
                await get_all(reading)


async def test_a_download_that_cannot_go_on_raises_and_never_looks_complete(
    server: ObjectServer,
) -> None:
    async with far_store(server) as far:
        await put(far.direct, "key", LARGE)
        async with far.store.reading("key") as reading:
            got = await _broken_off(reading, meanwhile=far.line.go)
            assert 0 < len(got) < len(LARGE)
            assert LARGE.startswith(got)
            await far.line.come()
            assert await get_all(reading) == LARGE


async def test_a_download_that_hangs_raises_in_bounded_time(swift: ObjectServer) -> None:
    async with far_store(swift) as far:
        await put(far.direct, "key", LARGE)
        async with far.store.reading("key") as reading:
            begun = time.monotonic()
            got = await _broken_off(reading, meanwhile=far.line.hang)
            assert time.monotonic() - begun < 3 * IMPATIENT.reply_seconds
            assert LARGE.startswith(got)


async def test_content_replaced_while_a_download_is_broken_is_never_mixed(
    server: ObjectServer,
) -> None:
    async with far_store(server) as far:
        await put(far.direct, "key", LARGE)
        async with far.store.reading("key") as reading:
            far.line.cut_after_bytes, far.line.cuts = 2_000_000, 1
            replace = partial(put, far.direct, "key", bytes(len(LARGE)))
            got = await _broken_off(reading, meanwhile=replace)
            assert 0 < len(got) < len(LARGE)
            assert LARGE.startswith(got)


async def _broken_off(reading: ObjectReading, *, meanwhile: Callable[[], Awaitable[None]]) -> bytes:
    """Read until it fails, do something after the first chunk, and return what had come."""
    got = b""
    try:
        async for chunk in reading.chunks(start=0, end=reading.size):
            if not got:
                await meanwhile()
            got += chunk
    except StoreUnavailable:
        return got
    raise AssertionError("what was broken looked complete")


@pytest.mark.parametrize("change", ["replaced", "deleted"])
async def test_a_reading_of_content_that_has_changed_is_unavailable(
    server: ObjectServer, change: str
) -> None:
    store = open_objects(server.url())
    await put(store, "key", b"content")
    async with store.reading("key") as reading:
        if change == "replaced":
            await put(store, "key", b"another")
        else:
            await store.delete("key")
        with pytest.raises(StoreUnavailable):
            await get_all(reading)


async def test_a_reader_that_stalls_holds_little_memory_and_then_gets_everything(
    moto: ObjectServer,
) -> None:
    content = random.Random(2).randbytes(60_000_000)
    readers = 8
    async with far_store(moto) as far:
        await put(far.direct, "key", content)
        async with far.store.reading("key") as reading:
            before = resident_bytes()
            streams = [reading.chunks(start=0, end=reading.size) for _ in range(readers)]
            begun = [await anext(stream) for stream in streams]
            # Longer than every deadline: who is waited for is the reader, not the store.
            await _nothing_comes(far.line, seconds=IMPATIENT.reply_seconds)
            assert (resident_bytes() - before) / readers < 2 * MIB
            for first, stream in zip(begun[1:], streams[1:], strict=True):
                assert content.startswith(first)
                await stream.aclose()
            rest = b"".join([chunk async for chunk in streams[0]])
            assert begun[0] + rest == content


async def _nothing_comes(line: Line, *, seconds: float) -> None:
    """Wait until the line has carried nothing for so long."""
    carried, since = -1, 0.0

    async def still() -> bool:
        nonlocal carried, since
        if line.carried_bytes != carried:
            carried, since = line.carried_bytes, time.monotonic()
        return time.monotonic() - since > seconds

    await eventually(still)


async def test_a_reader_that_leaves_closes_its_connection(swift: ObjectServer) -> None:
    async with far_store(swift) as far:
        await put(far.direct, "key", bytes(60_000_000))
        async with far.store.reading("key") as reading:
            async with aclosing(reading.chunks(start=0, end=reading.size)) as chunks:
                await anext(chunks)
                assert far.line.connections

            async def closed() -> bool:
                return far.line.connections == 0

            await eventually(closed)
