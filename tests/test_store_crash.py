"""Does a local folder keep its promises when the process is killed or the disk is full?"""

import os
import random
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import pytest

from gateway.store.folder import FolderStore
from gateway.store.folder_writing import BATCH_BYTES, STEPS

DEADLINE_SECONDS = 20.0
LARGE = random.Random(1).randbytes(3 * BATCH_BYTES + 17)

# What runs in a process of its own, to be killed or starved there.
CHILD = """
import asyncio, os, random, resource, signal, sys
from functools import partial
from pathlib import Path
from gateway.errors import StoreUnavailable
from gateway.store.folder import FolderStore
from gateway.store.folder_writing import BATCH_BYTES

content = random.Random(1).randbytes(3 * BATCH_BYTES + 17)

async def put(store, key, content):
    async with store.writing(key) as writing:
        for start in range(0, len(content), 70_001):
            await writing.write(content[start : start + 70_001])
        await writing.commit()

async def main(store):
{body}

def on_step(step):
    if step == {fatal_step!r}:
        os.kill(os.getpid(), signal.SIGKILL)

asyncio.run(main(FolderStore(Path(sys.argv[1]), on_step=on_step)))
"""


@pytest.fixture
def root(tmp_path: Path) -> Path:
    return tmp_path / "content"


async def _put(store: FolderStore, key: str, content: bytes) -> None:
    async with store.writing(key) as writing:
        for start in range(0, len(content), 70_001):
            await writing.write(content[start : start + 70_001])
        await writing.commit()


async def _get(store: FolderStore, key: str) -> bytes:
    async with store.reading(key) as reading:
        return b"".join([chunk async for chunk in reading.chunks(start=0, end=reading.size)])


def _files(root: Path) -> list[str]:
    return sorted(path.name for path in root.rglob("*") if path.is_file())


def _child(body: str, *, root: Path, fatal_step: str | None = None) -> tuple[int, str]:
    lines = textwrap.indent(textwrap.dedent(body), "    ")
    script = CHILD.format(body=lines, fatal_step=fatal_step)
    done = subprocess.run(
        [sys.executable, "-c", script, root],
        stdout=subprocess.PIPE,
        text=True,
        timeout=DEADLINE_SECONDS,
        check=False,
    )
    return done.returncode, done.stdout


@pytest.mark.parametrize("step", STEPS)
@pytest.mark.parametrize("before", [None, b"what was there before"])
async def test_killed_at_any_step_a_key_has_its_old_content_or_the_new_one_whole(
    root: Path, step: str, before: bytes | None
) -> None:
    store = FolderStore(root)
    if before is not None:
        await _put(store, "key", before)
    code, _ = _child('await put(store, "key", content)', root=root, fatal_step=step)
    assert code == -signal.SIGKILL
    if step in {"renamed", "durable"}:
        assert await _get(store, "key") == LARGE
    elif before is not None:
        assert await _get(store, "key") == before
    else:
        assert await store.size("key") is None
    await store.sweep(older_than_seconds=0, now=int(time.time()) + 10)
    assert _files(root) == ([] if await store.size("key") is None else ["key"])


async def test_every_step_is_reached_in_order(root: Path) -> None:
    steps: list[str] = []
    await _put(FolderStore(root, on_step=steps.append), "key", LARGE)
    assert list(dict.fromkeys(steps)) == list(STEPS)


async def test_killed_at_random_moments_only_whole_files_are_visible(root: Path) -> None:
    store = FolderStore(root)
    chance = random.Random(3)
    endless = CHILD.format(
        body="    for number in range(10**9):\n        await put(store, f'k{number}', content)\n"
        "        print(number, flush=True)",
        fatal_step=None,
    )
    for _ in range(4):
        lines, seconds = chance.randint(1, 9), chance.random() * 0.01
        for number in _acknowledged_before_its_death(endless, root, lines=lines, seconds=seconds):
            assert await _get(store, f"k{number}") == LARGE
    for visible in set(_files(root)) - set(_files(root / "tmp")):
        assert await _get(store, visible) == LARGE


def _acknowledged_before_its_death(
    script: str, root: Path, *, lines: int, seconds: float
) -> list[str]:
    with subprocess.Popen(
        [sys.executable, "-c", script, root], stdout=subprocess.PIPE, text=True
    ) as child:
        assert child.stdout is not None
        acknowledged = [child.stdout.readline().strip() for _ in range(lines)]
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pass
        child.kill()
    return acknowledged


async def test_sweep_removes_what_a_writer_that_died_has_left(root: Path) -> None:
    store = FolderStore(root)
    await _put(store, "kept", b"content")
    now = int(time.time())
    async with store.writing("alive") as writing:
        _child('await put(store, "key", content)', root=root, fatal_step="part written")
        assert len(_files(root / "tmp")) == 2
        os.utime(next((root / "tmp").glob("key.*")), (now - 3601, now - 3601))
        assert await store.sweep(older_than_seconds=3600, now=now) == 1
        assert await store.sweep(older_than_seconds=3600, now=now) == 0
        await writing.commit()
    assert _files(root) == ["alive", "kept"]


@pytest.mark.parametrize("limit", [0, 1000, BATCH_BYTES + 5, len(LARGE) - 1])
def test_a_disk_that_is_full_leaves_nothing_half_written(root: Path, limit: int) -> None:
    # A limit on file size makes the kernel refuse the write for real, as a full disk would.
    _, printed = _child(
        f"""
        resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            await put(store, "key", content)
        except StoreUnavailable as failure:
            print(type(failure.__cause__).__name__, failure.__cause__.errno)
        print(await store.size("key"))
        """,
        root=root,
    )
    assert printed.split() == ["OSError", "27", "None"]
    assert _files(root) == []


def test_a_full_disk_fails_the_check(root: Path) -> None:
    _, printed = _child(
        """
        await store.check()
        resource.setrlimit(resource.RLIMIT_FSIZE, (100, 100))
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        try:
            await store.check()
        except StoreUnavailable:
            print("unavailable")
        """,
        root=root,
    )
    assert printed.split() == ["unavailable"]


def test_without_descriptors_the_answer_is_unavailable_not_missing(root: Path) -> None:
    _, printed = _child(
        """
        await put(store, "key", content)
        resource.setrlimit(resource.RLIMIT_NOFILE, (3, 3))
        for call in (store.reading("key").__aenter__, partial(store.sha256, "key"), store.check):
            try:
                await call()
            except StoreUnavailable:
                print("unavailable")
        """,
        root=root,
    )
    assert printed.split() == ["unavailable"] * 3
