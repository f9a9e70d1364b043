"""How does content get into a local folder whole, or not at all?

Temporary name, fsync, rename, fsync of both folders; what stops on the way leaves at most a
temporary file, which nobody reads and a sweep removes.
"""

import asyncio
import os
import secrets
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from functools import partial
from pathlib import Path

from gateway.errors import StoreUnavailable

BATCH_BYTES = 1 << 20
STEPS = ("opened", "part written", "synced", "renamed", "durable")


class FolderWriting:
    """Content on its way in, made by FolderStore.writing.

    A cancelled call leaves its thread at work, so every step in a thread holds the lock:
    discard() waits for the step before it, and no descriptor is closed that is being written to.
    """

    def __init__(
        self,
        *,
        final: Path,
        temporary: Path,
        threads: ThreadPoolExecutor,
        on_step: Callable[[str], None],
    ) -> None:
        self._final = final
        self._temporary = temporary
        self._threads = threads
        self._on_step = on_step
        self._buffer = bytearray()
        self._gap = False
        self._lock = threading.Lock()
        self._descriptor: int | None = None
        self._name: Path | None = None
        self._discarded = False

    async def write(self, chunk: bytes) -> None:
        """Append bytes; returns once fewer than BATCH_BYTES are waiting for the disk."""
        self._buffer += chunk
        if len(self._buffer) >= BATCH_BYTES:
            await self._hand_over(self._append)

    async def commit(self) -> None:
        """Make what was written the content of the key, durably.

        After StoreUnavailable, or when cancelled, the key has this content whole or what it had
        before.
        """
        await self._hand_over(self._finish)

    async def _hand_over(self, step: Callable[[bytearray], None]) -> None:
        if self._gap:
            raise StoreUnavailable("Content of which a part was lost cannot be written on.")
        batch, self._buffer = self._buffer, bytearray()
        # Whoever catches a failure or a cancellation here and goes on would commit a gap.
        self._gap = True
        await asyncio.get_running_loop().run_in_executor(self._threads, partial(step, batch))
        self._gap = False

    def open(self) -> None:
        """Take a temporary name; on a thread."""
        with self._lock, told_as_unavailable("written"):
            if self._discarded:
                return
            name = self._temporary / f"{self._final.name}.{secrets.token_hex(8)}"
            # The umask decides who may read it: a server in front may be another user.
            flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
            self._descriptor = os.open(name, flags, 0o666)
            self._name = name
            self._on_step("opened")

    def _append(self, batch: bytearray) -> None:
        with self._lock, told_as_unavailable("written"):
            self._write_all(batch)
            self._on_step("part written")

    def _finish(self, batch: bytearray) -> None:
        with self._lock, told_as_unavailable("written"):
            descriptor = self._write_all(batch)
            os.fsync(descriptor)
            self._on_step("synced")
            self._close()
            if self._name is not None:
                self._final.parent.mkdir(exist_ok=True)
                self._name.replace(self._final)
                self._name = None
            self._on_step("renamed")
            sync_folder(self._final.parent)
            # Always, not only when the sub-folder is new: whoever made it may have died right then.
            sync_folder(self._final.parent.parent)
            self._on_step("durable")

    def _write_all(self, batch: bytearray) -> int:
        if self._descriptor is None:
            raise StoreUnavailable("This writing has ended.")
        rest = memoryview(batch)
        while rest:
            rest = rest[os.write(self._descriptor, rest) :]
        return self._descriptor

    def discard(self) -> None:
        """Let go of everything that was not committed; on a thread; never raises OSError."""
        with self._lock, suppress(OSError):
            self._discarded = True
            try:
                self._close()
            finally:
                if self._name is not None:
                    self._name.unlink(missing_ok=True)

    def _close(self) -> None:
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


def sync_folder(folder: Path) -> None:
    """Make the names in a folder durable."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


@contextmanager
def told_as_unavailable(what: str) -> Iterator[None]:
    """Turn an OSError into StoreUnavailable: fixed words for the client, the cause for the log."""
    try:
        yield
    except OSError as failure:
        raise StoreUnavailable(f"The content store could not be {what}.") from failure
