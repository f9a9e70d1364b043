"""Does every store keep what ContentStore promises, sentence by sentence?"""

import asyncio
import hashlib
import random
import resource
import time
from collections.abc import AsyncIterator
from contextlib import aclosing, suppress
from pathlib import Path

import pytest
from object_servers import ACCESS_KEY_ID, SECRET_ACCESS_KEY, ObjectServer

from gateway.errors import StoreUnavailable
from gateway.store import (
    CHUNK_BYTES,
    MAX_KEY_CHARACTERS,
    ContentMissing,
    ContentStore,
    Described,
    Reading,
)
from gateway.store.layout import path_of
from gateway.store.object_writing import PART_BYTES
from gateway.store.opening import open_store_url

MIB = 1 << 20
# Several parts of an upload, and a bit.
LARGE = random.Random(1).randbytes(2 * PART_BYTES + 17)


@pytest.fixture(params=["folder", "moto", "swift"])
async def store(request: pytest.FixtureRequest, tmp_path: Path) -> AsyncIterator[ContentStore]:
    if request.param == "folder":
        async with open_store_url(f"file://{tmp_path / 'content'}") as folder:
            yield folder
        return
    server: ObjectServer = request.getfixturevalue(request.param)
    async with open_store_url(
        server.url(), access_key_id=ACCESS_KEY_ID, secret_access_key=SECRET_ACCESS_KEY
    ) as bucket:
        yield bucket


async def _put(store: ContentStore, key: str, content: bytes, *, chunk_bytes: int = 70_001) -> None:
    async with store.writing(key) as writing:
        for start in range(0, len(content), chunk_bytes):
            await writing.write(content[start : start + chunk_bytes])
        await writing.commit()


async def _get(store: ContentStore, key: str) -> bytes:
    async with store.reading(key) as reading:
        return await _part(reading, start=0, end=reading.size)


async def _part(reading: Reading, *, start: int, end: int) -> bytes:
    async with aclosing(reading.chunks(start=start, end=end)) as chunks:
        return b"".join([chunk async for chunk in chunks])


@pytest.mark.parametrize("key", ["", "a/b", "..", "a.b", "a-b", "ä", "a\n", "a" * 129, "a\0"])
async def test_any_other_key_is_a_value_error(store: ContentStore, key: str) -> None:
    with pytest.raises(ValueError, match="a store key is"):
        async with store.writing(key):
            pass
    with pytest.raises(ValueError, match="a store key is"):
        async with store.reading(key):
            pass
    for call in (store.delete, store.size, store.sha256):
        with pytest.raises(ValueError, match="a store key is"):
            await call(key)
    with pytest.raises(ValueError, match="a store key is"):
        await store.link(key, seconds=1)
    with pytest.raises(ValueError, match="a store key is"):
        store.path(key)


@pytest.mark.parametrize("key", ["a", "_", "0", "Z" * MAX_KEY_CHARACTERS, "asset_0Az"])
async def test_a_key_is_letters_digits_and_underscores(store: ContentStore, key: str) -> None:
    await _put(store, key, b"content of " + key.encode())
    assert await _get(store, key) == b"content of " + key.encode()


@pytest.mark.parametrize(
    "size", [0, 1, MIB - 1, MIB, MIB + 1, PART_BYTES - 1, PART_BYTES, PART_BYTES + 1]
)
async def test_what_was_written_is_read(store: ContentStore, size: int) -> None:
    content = LARGE[:size]
    await _put(store, "key", content)
    assert await _get(store, "key") == content
    assert await store.size("key") == size
    assert await store.sha256("key") == (size, hashlib.sha256(content).hexdigest())


@pytest.mark.parametrize("chunk_bytes", [4099, 1 << 16, len(LARGE)])
async def test_the_size_of_chunks_makes_no_difference(
    store: ContentStore, chunk_bytes: int
) -> None:
    await _put(store, "key", LARGE, chunk_bytes=chunk_bytes)
    assert await _get(store, "key") == LARGE


async def test_content_becomes_visible_only_by_commit_and_whole(store: ContentStore) -> None:
    async with store.writing("key") as writing:
        await writing.write(LARGE)
        assert await store.size("key") is None
        assert [one async for one in store.stored()] == []
        await writing.commit()
        assert await _get(store, "key") == LARGE


async def test_leaving_without_commit_leaves_nothing(store: ContentStore) -> None:
    async with store.writing("key") as writing:
        await writing.write(LARGE)
    with suppress(ZeroDivisionError):
        async with store.writing("key") as writing:
            await writing.write(LARGE)
            await writing.write(bytes(1 // 0))
    assert await store.size("key") is None


async def test_committing_a_key_again_replaces_its_content_whole(store: ContentStore) -> None:
    await _put(store, "key", LARGE)
    await _put(store, "key", b"shorter")
    assert await _get(store, "key") == b"shorter"


async def test_two_writers_of_a_key_do_not_mix(store: ContentStore) -> None:
    async with store.writing("key") as first, store.writing("key") as second:
        for start in range(0, len(LARGE), 70_001):
            await first.write(LARGE[start : start + 70_001])
            await second.write(bytes(70_001))
        await second.commit()
        await first.commit()
    assert await _get(store, "key") == LARGE


async def test_chunks_gives_exactly_the_bytes_asked_for(store: ContentStore) -> None:
    await _put(store, "key", LARGE)
    size = len(LARGE)
    async with store.reading("key") as reading:
        assert reading.size == size
        spans = [(0, 0), (0, 1), (5, 1005), (7, CHUNK_BYTES + 7), (size - 3, size), (size, size)]
        for start, end in spans:
            assert await _part(reading, start=start, end=end) == LARGE[start:end]


async def test_chunks_are_never_empty_nor_long_and_the_loop_runs_between_them(
    store: ContentStore,
) -> None:
    await _put(store, "key", LARGE)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await asyncio.sleep(0)

    async with asyncio.TaskGroup() as group, store.reading("key") as reading:
        counting = group.create_task(count())
        seen = -1
        async for chunk in reading.chunks(start=0, end=reading.size):
            assert 0 < len(chunk) <= CHUNK_BYTES
            assert turns > seen
            seen = turns
        counting.cancel()


async def test_whoever_stops_early_closes_it_and_can_read_again(store: ContentStore) -> None:
    await _put(store, "key", LARGE)
    async with store.reading("key") as reading:
        for _ in range(3):
            async with aclosing(reading.chunks(start=0, end=reading.size)) as chunks:
                assert LARGE.startswith(await anext(chunks))
        assert await _part(reading, start=0, end=reading.size) == LARGE


async def test_a_reading_gives_the_bytes_that_were_there_when_it_was_opened_or_raises(
    store: ContentStore,
) -> None:
    await _put(store, "key", LARGE)
    async with store.reading("key") as reading:
        for change in (_put(store, "key", bytes(len(LARGE))), store.delete("key")):
            await change
            with suppress(StoreUnavailable):
                assert await _part(reading, start=0, end=reading.size) == LARGE


async def test_a_reading_that_has_begun_gives_those_bytes_or_raises(store: ContentStore) -> None:
    await _put(store, "key", LARGE)
    async with store.reading("key") as reading:
        got = b""
        with suppress(StoreUnavailable):
            async for chunk in reading.chunks(start=0, end=reading.size):
                if not got:
                    await _put(store, "key", bytes(len(LARGE)))
                got += chunk
            assert len(got) == len(LARGE)
        assert LARGE.startswith(got)


async def test_opening_what_is_not_there_raises_content_missing(store: ContentStore) -> None:
    with pytest.raises(ContentMissing):
        async with store.reading("key"):
            pass
    assert await store.size("key") is None
    assert await store.sha256("key") is None


async def test_delete_of_what_is_not_there_is_no_error(store: ContentStore) -> None:
    await store.delete("key")
    await _put(store, "key", b"content")
    await store.delete("key")
    await store.delete("key")
    assert await store.size("key") is None


async def test_an_ended_writing_takes_no_more(store: ContentStore) -> None:
    async with store.writing("key") as writing:
        await writing.write(b"content")
        await writing.commit()
        await writing.write(LARGE[:10])
        with pytest.raises(StoreUnavailable):
            await writing.commit()
    with pytest.raises(StoreUnavailable):
        await writing.commit()
    assert await _get(store, "key") == b"content"


async def test_sweep_removes_no_content(store: ContentStore) -> None:
    await _put(store, "key", b"content")
    assert await store.sweep(older_than_seconds=0, now=int(time.time()) + 3600) == 0
    assert await _get(store, "key") == b"content"


async def test_check_passes_and_changes_nothing(store: ContentStore) -> None:
    await _put(store, "key", b"content")
    await store.check()
    assert await _get(store, "key") == b"content"


async def test_stored_names_everything_that_is_committed_once_and_nothing_that_is_being_written(
    store: ContentStore,
) -> None:
    begun = int(time.time())
    assert [one async for one in store.stored()] == []
    sizes = {f"key_{number}": number for number in range(12)}
    for key, size in sizes.items():
        await _put(store, key, LARGE[:size])
    await _put(store, "key_3", LARGE[:30])
    await store.delete("key_5")
    await store.check()
    async with store.writing("unfinished") as writing:
        await writing.write(LARGE)
        found = [one async for one in store.stored()]
    assert sorted((one.key, one.size_bytes) for one in found) == sorted(
        ({**sizes, "key_3": 30}.items()) - {("key_5", 5)}
    )
    assert all(begun - 2 <= one.modified_at <= time.time() + 2 for one in found)


async def test_a_path_is_the_same_in_every_store_or_none(store: ContentStore) -> None:
    assert store.path("key") in {path_of("key"), None}


async def test_content_can_be_described_for_those_who_download_it_from_the_store(
    store: ContentStore,
) -> None:
    described = Described(content_type="video/mp4", filename="video_1.mp4")
    for content in (b"short", LARGE):
        async with store.writing("key", described) as writing:
            await writing.write(content)
            await writing.commit()
        assert await _get(store, "key") == content


@pytest.mark.parametrize(
    ("content_type", "filename"),
    [("", "a"), ("video", "a"), ("a/b\r\nx: y", "a"), ("ä/b", "a"), ("a/b", ""), ("a/b", 'a"b')],
)
def test_a_description_is_fit_for_a_header(content_type: str, filename: str) -> None:
    with pytest.raises(ValueError, match="content is described by"):
        Described(content_type=content_type, filename=filename)


async def test_the_memory_a_writing_or_a_reading_holds_is_bounded(store: ContentStore) -> None:
    chunk = bytes(64 << 10)
    before = peak = _resident_bytes()
    async with store.writing("key") as writing:
        for _ in range(96 * 16):
            await writing.write(chunk)
            peak = max(peak, _resident_bytes())
        await writing.commit()
    async with store.reading("key") as reading:
        async for _ in reading.chunks(start=0, end=reading.size):
            peak = max(peak, _resident_bytes())
    assert await store.size("key") == 96 * MIB
    assert peak - before < 40 * MIB


def _resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
