"""Does a local folder keep its promises when callers are cancelled or the disk is damaged?"""

import asyncio
import os
import random
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import pytest

from gateway.errors import StoreUnavailable
from gateway.store import Reading
from gateway.store.folder import FolderStore
from gateway.store.folder_writing import BATCH_BYTES, STEPS

DEADLINE_SECONDS = 20.0
LARGE = random.Random(1).randbytes(3 * BATCH_BYTES + 17)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "content"


@pytest.fixture
def store(root: Path) -> FolderStore:
    return FolderStore(root)


async def _put(store: FolderStore, key: str, content: bytes) -> None:
    async with store.writing(key) as writing:
        for start in range(0, len(content), 70_001):
            await writing.write(content[start : start + 70_001])
        await writing.commit()


async def _get(store: FolderStore, key: str) -> bytes:
    async with store.reading(key) as reading:
        return await _part(reading, end=reading.size)


async def _part(reading: Reading, *, end: int) -> bytes:
    return b"".join([chunk async for chunk in reading.chunks(start=0, end=end)])


def _files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def _path(root: Path, key: str) -> Path:
    return next(root.glob(f"*/{key}"))


def _put_a_folder_in_place_of(path: Path) -> None:
    path.unlink()
    path.mkdir()


async def test_a_writing_that_was_swept_is_not_committed(store: FolderStore) -> None:
    async with store.writing("key") as writing:
        await writing.write(LARGE)
        await store.sweep(older_than_seconds=0, now=int(time.time()) + 10)
        with pytest.raises(StoreUnavailable):
            await writing.commit()
    assert await store.size("key") is None


async def test_leaving_without_commit_leaves_no_file(store: FolderStore, root: Path) -> None:
    async with store.writing("key") as writing:
        await writing.write(LARGE)
    assert _files(root) == []


async def test_a_reading_goes_on_undisturbed(store: FolderStore) -> None:
    await _put(store, "key", LARGE)
    async with store.reading("key") as before:
        await _put(store, "key", b"other")
        async with store.reading("key") as between:
            await store.delete("key")
            assert await _part(before, end=before.size) == LARGE
            assert await _part(between, end=between.size) == b"other"


async def test_what_the_page_cache_does_not_have_is_read_all_the_same(
    store: FolderStore, root: Path
) -> None:
    await _put(store, "key", LARGE)
    async with store.reading("key") as reading:
        with _path(root, "key").open("rb") as file:
            os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        assert await _part(reading, end=reading.size) == LARGE


async def test_stored_ignores_what_is_not_ours(store: FolderStore, root: Path) -> None:
    await _put(store, "key", b"content")
    here = _path(root, "key").parent
    for path in (root / "file", root / "ab" / "key", root / "lost+found" / "x", here / "a-b"):
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"x")
    (here / "folder").mkdir()
    assert [one.key async for one in store.stored()] == ["key"]


class _Barrier:
    """Holds the writing thread at a step, so that a test can do something meanwhile."""

    def __init__(self, step: str) -> None:
        self.step = step
        self.reached = threading.Event()
        self.go_on = threading.Event()

    def __call__(self, step: str) -> None:
        if step == self.step:
            self.reached.set()
            assert self.go_on.wait(DEADLINE_SECONDS)


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("cancellations", [1, 2])
async def test_cancelled_at_any_step_no_descriptor_and_no_part_is_left(
    root: Path, step: str, cancellations: int
) -> None:
    barrier = _Barrier(step)
    store = FolderStore(root, on_step=barrier)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_put(store, "key", LARGE))
        await asyncio.to_thread(barrier.reached.wait, DEADLINE_SECONDS)
        for _ in range(cancellations):
            task.cancel()
            await asyncio.sleep(0)
            await asyncio.sleep(0)
        barrier.go_on.set()
    await _until(lambda: not _open_below(root))
    await _until(lambda: _files(root / "tmp") == [])
    assert await store.size("key") in {None, len(LARGE)}


async def test_a_write_that_was_cancelled_leaves_a_gap_that_is_never_committed(root: Path) -> None:
    barrier = _Barrier("part written")
    store = FolderStore(root, on_step=barrier)
    async with store.writing("key") as writing:
        async with asyncio.TaskGroup() as tasks:
            task = tasks.create_task(writing.write(LARGE))
            await asyncio.to_thread(barrier.reached.wait, DEADLINE_SECONDS)
            task.cancel()
        barrier.go_on.set()
        await writing.write(b"a little more")
        with pytest.raises(StoreUnavailable):
            await writing.commit()
    assert await store.size("key") is None


def _open_below(root: Path) -> list[str]:
    """Return the files and folders of a store that this process holds open."""
    found = []
    for descriptor in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # that of the listing itself
            found.append(str(descriptor.readlink()))
    return [path for path in found if path.startswith(str(root))]


async def _until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.to_thread(os.sched_yield)


async def test_the_loop_goes_on_while_the_disk_is_slow(root: Path) -> None:
    barrier = _Barrier("synced")
    store = FolderStore(root, on_step=barrier)
    async with asyncio.TaskGroup() as tasks:
        task = tasks.create_task(_put(store, "key", LARGE))
        await asyncio.to_thread(barrier.reached.wait, DEADLINE_SECONDS)
        assert not task.done()
        barrier.go_on.set()
    assert await _get(store, "key") == LARGE


async def test_check_passes_and_leaves_nothing(store: FolderStore, root: Path) -> None:
    await store.check()
    assert _files(root) == []


async def test_a_root_that_cannot_be_made_is_reported_by_check(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    store = FolderStore(tmp_path / "file" / "content")
    with pytest.raises(StoreUnavailable):
        await store.check()
    with pytest.raises(StoreUnavailable):
        await _put(store, "key", b"content")


async def test_a_disk_that_is_gone_is_not_content_that_is_missing(
    store: FolderStore, root: Path, tmp_path: Path
) -> None:
    await _put(store, "key", b"content")
    _unmount(root, tmp_path / "disk")
    with pytest.raises(StoreUnavailable):
        async with store.reading("key"):
            pass
    for call in (store.delete, store.size, store.sha256):
        with pytest.raises(StoreUnavailable):
            await call("key")
    with pytest.raises(StoreUnavailable):
        await store.sweep(older_than_seconds=1, now=0)
    with pytest.raises(StoreUnavailable):
        await store.check()
    with pytest.raises(StoreUnavailable):
        await _put(store, "key", b"content")
    _mount(tmp_path / "disk", root)
    assert await _get(store, "key") == b"content"


def _unmount(root: Path, disk: Path) -> None:
    root.rename(disk)
    # What is left is the empty folder on which the disk was mounted.
    root.mkdir()


def _mount(disk: Path, root: Path) -> None:
    root.rmdir()
    disk.rename(root)


async def test_content_cut_off_on_disk_is_not_read_as_whole(store: FolderStore, root: Path) -> None:
    await _put(store, "key", LARGE)
    path = _path(root, "key")
    async with store.reading("key") as reading:
        os.truncate(path, 1000)
        with pytest.raises(StoreUnavailable):
            await _part(reading, end=2000)
        assert await _part(reading, end=1000) == LARGE[:1000]


async def test_a_folder_in_place_of_the_file_makes_commit_fail_and_clean_up(
    store: FolderStore, root: Path
) -> None:
    await _put(store, "key", b"content")
    _put_a_folder_in_place_of(_path(root, "key"))
    with pytest.raises(StoreUnavailable) as failure:
        await _put(store, "key", LARGE)
    assert isinstance(failure.value.__cause__, OSError)
    assert _files(root) == []
