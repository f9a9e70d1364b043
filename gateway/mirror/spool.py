"""Where do bytes stand while they are still arriving, so that many can read them?

In a file without a name, which is gone with its descriptor, whatever becomes of the process. One
writes, any number read; what was appended can be read at once, the last of it from memory.
"""

import asyncio
import os
import tempfile
import threading
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final

from gateway.errors import StoreUnavailable

# One hop to a thread for so much: a hop for every piece that arrives costs a third.
BATCH_BYTES: Final = 1 << 20


class Spool:
    """A file that grows.

    Attributes:
        size: how many bytes can be read.
    """

    def __init__(self, folder: Path | None) -> None:
        self.size = 0
        self._folder = folder
        self._file: BinaryIO | None = None
        # A descriptor that a thread still writes to must not be closed: its number is given anew.
        self._flushing = threading.Lock()
        self._closed = False
        self._flushed = 0
        self._batch = bytearray()

    async def append(self, chunk: bytes) -> None:
        """Add bytes; returns once fewer than BATCH_BYTES are waiting for the disk.

        Only one may append at a time.

        Raises:
            StoreUnavailable: they cannot be kept; nothing can be appended any more.
        """
        self._batch += chunk
        self.size += len(chunk)
        if len(self._batch) < BATCH_BYTES:
            return
        batch = bytes(self._batch)
        await asyncio.get_running_loop().run_in_executor(None, partial(self._flush, batch))
        self._flushed += len(batch)
        self._batch = bytearray()

    def read(self, *, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on; none where there are none yet.

        Inline: what has just been written is in the page cache.

        Raises:
            StoreUnavailable: they cannot be read.
        """
        if offset >= self._flushed:
            begins_at = offset - self._flushed
            return bytes(self._batch[begins_at : begins_at + length])
        wanted = min(length, self._flushed - offset)
        try:
            chunk = os.pread(self._opened().fileno(), wanted, offset)
        except OSError as failure:
            raise StoreUnavailable("Content on its way could not be read.") from failure
        if len(chunk) != wanted:
            raise StoreUnavailable("Content on its way was lost.")
        return chunk

    def close(self) -> None:
        """Let go of everything; a write under way on a thread does it when it is done."""
        self._closed = True
        self._batch = bytearray()
        if self._flushing.acquire(blocking=False):
            self._close_file()
            self._flushing.release()

    def _flush(self, batch: bytes) -> None:
        with self._flushing:
            try:
                if not self._closed:
                    self._write(batch)
            except OSError as failure:
                raise StoreUnavailable("Content on its way could not be kept.") from failure
            finally:
                if self._closed:
                    self._close_file()

    def _write(self, batch: bytes) -> None:
        descriptor = self._opened().fileno()
        rest = memoryview(batch)
        while rest:
            rest = rest[os.pwrite(descriptor, rest, self._flushed + len(batch) - len(rest)) :]

    def _opened(self) -> BinaryIO:
        if self._file is None:
            self._file = tempfile.TemporaryFile(dir=self._folder)  # noqa: SIM115 - closed by close()
        return self._file

    def _close_file(self) -> None:
        if self._file is not None:
            self._file.close()
