"""Can what is still arriving be read by everybody at once, and does nothing of it stay behind?"""

import asyncio
import os
import random
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from processes import on_a_small_disk

from gateway.errors import StoreUnavailable
from gateway.mirror.spool import BATCH_BYTES, Spool

CONTENT = random.Random(7).randbytes(3 * BATCH_BYTES + 12_345)
DEADLINE_SECONDS = 20
# What runs in a process of its own, on a disk of its own of 3 MiB.
FULL = """
import asyncio, os, sys
from pathlib import Path
from gateway.errors import StoreUnavailable
from gateway.mirror.spool import BATCH_BYTES, Spool

async def main():
    spool = Spool(Path(sys.argv[1]))
    try:
        for number in range(8):
            await spool.append(bytes([number]) * BATCH_BYTES)
    except StoreUnavailable as failure:
        print(type(failure.__cause__).__name__, failure.__cause__.errno)
    for number in range(3):
        assert spool.read(offset=number * BATCH_BYTES, length=4) == bytes([number]) * 4
    spool.close()
    print(os.statvfs(sys.argv[1]).f_bfree == os.statvfs(sys.argv[1]).f_blocks)

asyncio.run(main())
"""


def descriptors(folder: Path) -> list[Path]:
    """Return the descriptors of this process that are files in a folder, with a name or without."""
    found = []
    for one in Path("/proc/self/fd").iterdir():
        with suppress(FileNotFoundError):  # the folder that is being looked at
            found += [one] if one.readlink().is_relative_to(folder) else []
    return found


def names(folder: Path) -> list[Path]:
    return list(folder.iterdir())


def read_all(spool: Spool, *, length: int, begin: int = 0) -> bytes:
    read = bytearray()
    while chunk := spool.read(offset=begin + len(read), length=length):
        assert len(chunk) <= length
        read += chunk
    return bytes(read)


async def filled(spool: Spool, content: bytes = CONTENT, *, chunk_bytes: int = 70_001) -> None:
    for begin in range(0, len(content), chunk_bytes):
        await spool.append(content[begin : begin + chunk_bytes])


@settings(max_examples=60, deadline=None)
@given(
    chunks=st.lists(st.integers(min_value=1, max_value=BATCH_BYTES + 9), max_size=6),
    reads=st.lists(
        st.tuples(
            st.integers(min_value=0, max_value=4 * BATCH_BYTES),
            st.integers(min_value=1, max_value=BATCH_BYTES),
        ),
        max_size=10,
    ),
)
def test_a_read_gives_what_was_appended_at_that_place(
    tmp_path_factory: pytest.TempPathFactory,
    chunks: list[int],
    reads: list[tuple[int, int]],
) -> None:
    async def case() -> None:
        spool = Spool(tmp_path_factory.getbasetemp())
        whole = b""
        for number, size in enumerate(chunks):
            chunk = bytes([number]) * size
            whole += chunk
            await spool.append(chunk)
            assert spool.size == len(whole)
            for offset, length in reads:
                part = spool.read(offset=offset, length=length)
                assert whole[offset : offset + len(part)] == part
                assert bool(part) is (offset < len(whole))
        assert read_all(spool, length=100_000) == whole
        spool.close()

    asyncio.run(case())


async def test_what_is_on_its_way_to_the_disk_can_be_read_too(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    async with asyncio.TaskGroup() as group:
        group.create_task(filled(spool))
        while spool.size < len(CONTENT):
            size = spool.size
            assert read_all(spool, length=333_333)[:size] == CONTENT[:size]
            await asyncio.sleep(0)
    assert read_all(spool, length=333_333) == CONTENT
    spool.close()


async def test_it_has_no_name_and_is_gone_when_it_is_closed(tmp_path: Path) -> None:
    spool = Spool(tmp_path)
    await spool.append(CONTENT[:100])
    assert descriptors(tmp_path) == []
    await filled(spool)
    assert names(tmp_path) == []
    assert len(descriptors(tmp_path)) == 1
    spool.close()
    spool.close()
    assert descriptors(tmp_path) == []


@pytest.mark.parametrize("late", [False, True])
async def test_closed_while_it_is_written_it_is_gone_when_the_write_is(
    tmp_path: Path, *, late: bool
) -> None:
    # However the two meet, the one that comes second lets go.
    for _ in range(5):
        spool = Spool(tmp_path)
        await spool.append(bytes(BATCH_BYTES))
        async with asyncio.TaskGroup() as group:
            writing = group.create_task(spool.append(bytes(32 * BATCH_BYTES)))
            await asyncio.sleep(0)
            while late and not (spool._flushing.locked() or writing.done()):
                await asyncio.sleep(0)
            spool.close()
            writing.cancel()
        async with asyncio.timeout(DEADLINE_SECONDS):
            while descriptors(tmp_path):
                await asyncio.sleep(0)


async def test_a_writer_that_is_cut_off_harms_no_other_spool(tmp_path: Path) -> None:
    spool, other = Spool(tmp_path), Spool(tmp_path)
    async with asyncio.TaskGroup() as group:
        writing = group.create_task(filled(spool))
        while spool.size < 2 * BATCH_BYTES:
            await asyncio.sleep(0)
        writing.cancel()
    spool.close()
    await filled(other)
    assert read_all(other, length=1 << 20) == CONTENT
    other.close()


async def test_a_folder_that_is_not_there_is_said_to_be_unavailable(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "nowhere")
    await spool.append(CONTENT[:1000])
    with pytest.raises(StoreUnavailable) as failure:
        await filled(spool)
    assert isinstance(failure.value.__cause__, FileNotFoundError)
    assert spool.read(offset=0, length=1000) == CONTENT[:1000]
    spool.close()


async def test_bytes_that_the_disk_has_lost_are_an_error_and_not_fewer_bytes(
    tmp_path: Path,
) -> None:
    spool = Spool(tmp_path)
    await filled(spool)
    (descriptor,) = descriptors(tmp_path)
    os.truncate(int(descriptor.name), 1000)
    assert spool.read(offset=0, length=1000) == CONTENT[:1000]
    with pytest.raises(StoreUnavailable):
        spool.read(offset=0, length=1001)
    spool.close()


def test_a_disk_that_is_full_is_an_error_and_what_came_before_can_be_read(tmp_path: Path) -> None:
    done = subprocess.run(
        on_a_small_disk(tmp_path, size="3500k", command=[sys.executable, "-c", FULL, tmp_path]),
        capture_output=True,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    assert done.stdout.split() == ["OSError", "28", "True"], done.stderr
