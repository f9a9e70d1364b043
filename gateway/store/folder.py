"""How does a local folder keep content?

    root/ab/<key>              committed content; see layout.py
    root/tmp/<key>.<random>    being written; the same filesystem, so that a rename is enough

`tmp` is made once, together with the root, and never again: where it is missing the folder is not
ours (a disk that is not mounted), and then "there is no such content" would be a lie.
"""

import asyncio
import hashlib
import os
import stat
import tempfile
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager, suppress
from functools import partial
from itertools import islice
from pathlib import Path
from typing import TypeVar

from gateway.errors import StoreUnavailable
from gateway.store import CHUNK_BYTES, UNNAMED, ContentMissing, Described, Stored
from gateway.store.folder_writing import FolderWriting, sync_folder, told_as_unavailable
from gateway.store.layout import SHARDS, key_at, path_of

MAX_THREADS = 8
CHECK_SECONDS = 5.0
CHECK_BYTES = 4096
MAX_SWEPT_FILES = 10_000
# Linux has it; elsewhere every read is done on a thread.
_NO_WAIT: int | None = getattr(os, "RWF_NOWAIT", None)

T = TypeVar("T")


class FolderStore:
    """A ContentStore in a local folder; threads do what waits for the disk, but for short reads.

    A reading goes on undisturbed when its key is deleted or written again. `on_step` is told, on
    the writing thread, the name of each of folder_writing.STEPS as soon as it is done.
    """

    check_every_seconds = 2.0

    def __init__(self, root: Path, *, on_step: Callable[[str], None] = lambda _: None) -> None:
        self._root = root
        self._temporary = root / "tmp"
        self._on_step = on_step
        # Threads of its own: a disk that hangs must not take name resolution with it.
        self._threads = ThreadPoolExecutor(MAX_THREADS, thread_name_prefix="store")
        # A disk that is down at start is for check() to report: what needs no store goes on.
        with suppress(OSError):
            self._temporary.mkdir(parents=True, exist_ok=True)

    @asynccontextmanager
    async def writing(
        self, key: str, described: Described = UNNAMED
    ) -> AsyncIterator[FolderWriting]:
        """Open a key for writing; see ContentStore."""
        del described  # a file has no more than its bytes
        writing = FolderWriting(
            final=self._path(key),
            temporary=self._temporary,
            threads=self._threads,
            on_step=self._on_step,
        )
        try:
            await self._in_thread(writing.open)
            yield writing
        finally:
            # Shielded: a second cancellation must not leave the descriptor open.
            await asyncio.shield(self._in_thread(writing.discard))

    @asynccontextmanager
    async def reading(self, key: str) -> AsyncIterator["FolderReading"]:
        """Open a key for reading; see ContentStore."""
        descriptor = self._open(self._path(key))
        if descriptor is None:
            raise ContentMissing(key)
        try:
            yield FolderReading(descriptor, threads=self._threads)
        finally:
            os.close(descriptor)

    async def delete(self, key: str) -> None:
        """Remove the content of a key, durably."""
        await self._in_thread(partial(self._delete, self._path(key)))

    async def size(self, key: str) -> int | None:
        """Return the number of bytes under a key, or None if there is no such content."""
        path = self._path(key)
        with told_as_unavailable("read"):
            return self._if_there(lambda: path.stat().st_size)

    async def sha256(self, key: str) -> tuple[int, str] | None:
        """Read the content again; return size and SHA-256, or None if there is no such content."""
        return await self._in_thread(partial(self._sha256, self._path(key)))

    async def stored(self) -> AsyncGenerator[Stored, None]:
        """Yield what there is, a sub-folder at a time; see ContentStore."""
        for folder in await self._in_thread(self._folders):
            for one in await self._in_thread(partial(self._stored, folder)):
                yield one

    async def link(self, key: str, *, seconds: int) -> None:
        """Return None: a folder has no URLs."""
        del seconds
        path_of(key)

    def path(self, key: str) -> str:
        """Return the path of a key below the folder; see ContentStore."""
        return path_of(key)

    async def check(self) -> None:
        """Raise StoreUnavailable if content cannot be written now; takes CHECK_SECONDS at most."""
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                await self._in_thread(self._check)
        except TimeoutError as failure:
            raise StoreUnavailable("The content store does not answer.") from failure

    async def sweep(self, *, older_than_seconds: int, now: int) -> int:
        """Remove temporary files not written to for longer than that, and return how many.

        At most MAX_SWEPT_FILES are looked at in one turn. A writer that lets so much time pass
        between two batches loses its file, and its commit fails.
        """
        return await self._in_thread(partial(self._sweep, before=now - older_than_seconds))

    def close(self) -> None:
        """Let the threads go, each when what it does is done; nothing may be asked any more."""
        self._threads.shutdown(wait=False)

    def _in_thread(self, function: Callable[[], T]) -> asyncio.Future[T]:
        return asyncio.get_running_loop().run_in_executor(self._threads, function)

    def _path(self, key: str) -> Path:
        return self._root / path_of(key)

    def _if_there(self, function: Callable[[], T]) -> T | None:
        try:
            return function()
        except FileNotFoundError:
            self._temporary.stat()
            return None

    def _open(self, path: Path) -> int | None:
        with told_as_unavailable("read"):
            return self._if_there(lambda: os.open(path, os.O_RDONLY | os.O_CLOEXEC))

    def _delete(self, path: Path) -> None:
        with told_as_unavailable("written"):
            self._if_there(path.unlink)
            # Also after a delete that found nothing: an earlier one may have died right here.
            self._if_there(partial(sync_folder, path.parent))

    def _sha256(self, path: Path) -> tuple[int, str] | None:
        with told_as_unavailable("read"):
            opened = self._if_there(lambda: path.open("rb"))
            if opened is None:
                return None
            with opened as file:
                digest = hashlib.file_digest(file, "sha256")
                return file.tell(), digest.hexdigest()

    def _folders(self) -> list[Path]:
        with told_as_unavailable("read"):
            self._temporary.stat()
            return [self._root / name for name in SHARDS if (self._root / name).is_dir()]

    def _stored(self, folder: Path) -> list[Stored]:
        found = []
        with told_as_unavailable("read"), os.scandir(folder) as entries:
            for entry in entries:
                key = key_at(f"{folder.name}/{entry.name}")
                with suppress(FileNotFoundError):  # deleted meanwhile
                    about = entry.stat(follow_symlinks=False)
                    if key is not None and stat.S_ISREG(about.st_mode):
                        found.append(Stored(key, about.st_size, int(about.st_mtime)))
        return found

    def _check(self) -> None:
        # Tried, not asked: permissions say nothing about a full or a read-only disk.
        with (
            told_as_unavailable("written"),
            tempfile.TemporaryFile(dir=self._temporary) as file,
        ):
            file.write(bytes(CHECK_BYTES))
            file.flush()

    def _sweep(self, *, before: int) -> int:
        swept = 0
        with told_as_unavailable("written"), os.scandir(self._temporary) as entries:
            for entry in islice(entries, MAX_SWEPT_FILES):
                # A writer may finish with its file meanwhile, and that is as well.
                with suppress(FileNotFoundError):
                    if entry.stat(follow_symlinks=False).st_mtime < before:
                        Path(entry.path).unlink()
                        swept += 1
        return swept


class FolderReading:
    """Content open for reading, and an OpenFile; its descriptor is its opener's to close."""

    def __init__(self, descriptor: int, *, threads: ThreadPoolExecutor) -> None:
        self.descriptor = descriptor
        self.size = os.fstat(descriptor).st_size
        self._threads = threads

    @property
    def file(self) -> "FolderReading":
        """Itself."""
        return self

    async def chunks(self, *, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` to before `end`; see Reading."""
        while start < end:
            wanted = min(CHUNK_BYTES, end - start)
            await self.at_hand(start, start + wanted)
            yield self._read(start, start + wanted)
            start += wanted
            await asyncio.sleep(0)

    async def at_hand(self, start: int, end: int) -> None:
        """Bring these bytes from the disk, on a thread, unless they are in memory; see OpenFile.

        From the page cache a thread hop would cost more than the read; for a disk the loop would
        wait.
        """
        if not self._is_at_hand(end - 1):
            read = partial(self._read, start, end)
            await asyncio.get_running_loop().run_in_executor(self._threads, read)

    def _is_at_hand(self, offset: int) -> bool:
        """Tell whether a byte can be read without waiting for a disk (preadv2(2), RWF_NOWAIT)."""
        if _NO_WAIT is None:
            return False
        try:
            return os.preadv(self.descriptor, [bytearray(1)], offset, _NO_WAIT) == 1
        except OSError:
            return False  # not at hand; or a filesystem that cannot tell, such as one on a network

    def _read(self, start: int, end: int) -> bytes:
        with told_as_unavailable("read"):
            chunk = os.pread(self.descriptor, end - start, start)
        if len(chunk) != end - start:
            raise StoreUnavailable("The content store holds less than it was given.")
        return chunk
