"""Does every store keep what ContentStore promises, sentence by sentence?"""

import hashlib
import random
import time
import tracemalloc
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.store import MAX_KEY_CHARACTERS, ContentMissing, ContentStore
from gateway.store.folder import FolderStore

MIB = 1 << 20
LARGE = random.Random(1).randbytes(3 * MIB + 17)


@pytest.fixture(params=["folder"])
def store(tmp_path: Path) -> ContentStore:
    return FolderStore(tmp_path / "content")


async def _put(store: ContentStore, key: str, content: bytes, *, chunk_bytes: int = 70_001) -> None:
    async with store.writing(key) as writing:
        for start in range(0, len(content), chunk_bytes):
            await writing.write(content[start : start + chunk_bytes])
        await writing.commit()


async def _get(store: ContentStore, key: str) -> bytes:
    async with store.reading(key) as reading:
        return await reading.read(offset=0, length=reading.size)


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


@pytest.mark.parametrize("key", ["a", "_", "0", "Z" * MAX_KEY_CHARACTERS, "asset_0Az"])
async def test_a_key_is_letters_digits_and_underscores(store: ContentStore, key: str) -> None:
    await _put(store, key, b"content of " + key.encode())
    assert await _get(store, key) == b"content of " + key.encode()


@pytest.mark.parametrize("size", [0, 1, MIB - 1, MIB, MIB + 1])
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


async def test_read_gives_exactly_the_bytes_asked_for(store: ContentStore) -> None:
    await _put(store, "key", LARGE)
    size = len(LARGE)
    async with store.reading("key") as reading:
        assert reading.size == size
        for offset, length in [(0, 1), (5, 1000), (size - 3, 3), (size - 3, 9), (size, 1)]:
            part = await reading.read(offset=offset, length=length)
            assert part == LARGE[offset : offset + length]


async def test_a_reading_gives_the_bytes_that_were_there_when_it_was_opened_or_raises(
    store: ContentStore,
) -> None:
    await _put(store, "key", LARGE)
    async with store.reading("key") as reading:
        for change in (_put(store, "key", bytes(len(LARGE))), store.delete("key")):
            await change
            with suppress(StoreUnavailable):
                assert await reading.read(offset=0, length=reading.size) == LARGE


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


async def test_the_memory_a_writing_holds_is_bounded(store: ContentStore) -> None:
    chunk = bytes(64 << 10)
    tracemalloc.start()
    try:
        async with store.writing("key") as writing:
            for _ in range(64 * 16):
                await writing.write(chunk)
            _, peak = tracemalloc.get_traced_memory()
            await writing.commit()
    finally:
        tracemalloc.stop()
    assert await store.size("key") == 64 * MIB
    assert peak < 16 * MIB
