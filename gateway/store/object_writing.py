"""How does content get into an object store whole, or not at all, while it is still coming in?

What is shorter than a part is one put. From the first whole part on it is a multipart upload, which
the library runs on threads of its own: it asks for the next piece when it has room, and a piece
that cannot be handed over keeps the writer waiting. The key gets the content only when the upload
is completed; an upload whose writer leaves is aborted. What a killed process leaves behind is
parts that no request shows, for a lifecycle rule to remove (AbortIncompleteMultipartUpload).
"""

import asyncio
from typing import TYPE_CHECKING, Final, cast

import obstore

from gateway.errors import StoreUnavailable
from gateway.store.buckets import Bucket, answered

if TYPE_CHECKING:
    from obstore import Attributes, PutResult

# The least that S3 takes as a part; 1000 of them, which is what some stores take, are 5 GiB.
PART_BYTES: Final = 5 << 20
PARTS_AT_ONCE: Final = 2
PIECE_BYTES: Final = 256 << 10


class ObjectWriting:
    """Content on its way in, made by ObjectStore.writing."""

    def __init__(self, bucket: Bucket, path: str, *, attributes: "Attributes") -> None:
        self._bucket = bucket
        self._path = path
        self._attributes = attributes
        self._chunks: list[bytes] = []
        self._waiting_bytes = 0
        self._upload: _Upload | None = None
        self._over = False

    async def write(self, chunk: bytes) -> None:
        """Append bytes; returns once fewer than PART_BYTES are waiting for the store."""
        self._chunks.append(chunk)
        self._waiting_bytes += len(chunk)
        limit = PART_BYTES if self._upload is None else PIECE_BYTES
        if self._waiting_bytes >= limit:
            self._begin_step()
            if self._upload is None:
                self._upload = _Upload(self._bucket, self._path, attributes=self._attributes)
            await self._upload.take(self._waiting())
            self._over = False

    async def commit(self) -> None:
        """Make what was written the content of the key, durably.

        After StoreUnavailable, or when cancelled, the key has this content whole or what it had
        before.
        """
        self._begin_step()
        if self._upload is not None:
            await self._upload.take(self._waiting())
            await self._upload.complete()
            return
        async with answered("written", seconds=self._bucket.deadlines.taken_seconds):
            await obstore.put_async(
                self._bucket.sending,
                self._path,
                self._waiting(),
                attributes=self._attributes,
                use_multipart=False,
            )

    async def leave(self) -> None:
        """Let go of everything that was not committed."""
        self._over = True
        if self._upload is not None:
            await self._upload.abandon()

    def _begin_step(self) -> None:
        if self._over:
            raise StoreUnavailable("This writing has ended, or a part of it was lost.")
        # Whoever catches a failure or a cancellation here and goes on would commit a gap.
        self._over = True

    def _waiting(self) -> bytes:
        waiting = b"".join(self._chunks)
        self._chunks.clear()
        self._waiting_bytes = 0
        return waiting


class _Upload:
    """One multipart upload."""

    def __init__(self, bucket: Bucket, path: str, *, attributes: "Attributes") -> None:
        self._deadlines = bucket.deadlines
        self._source = _Source()
        # The library has begun when it returns, on threads of its own. It must not be cancelled
        # before it was told that there is no more: what has begun would not be aborted.
        self._outcome = cast(
            "asyncio.Future[PutResult]",
            obstore.put_async(
                bucket.sending,
                path,
                self._source,
                attributes=attributes,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            ),
        )
        self._outcome.add_done_callback(self._ended)

    async def take(self, piece: bytes) -> None:
        """Hand a piece over; waits until the one before it was fetched."""
        if piece:
            async with answered("written", seconds=self._deadlines.taken_seconds):
                await self._source.give(piece)
        if self._outcome.done():
            await self._result()

    async def complete(self) -> None:
        """Say that there is no more, and wait until the content is visible."""
        # The parts under way, the last one, and the completion itself.
        async with answered("written", seconds=3 * self._deadlines.taken_seconds):
            await self._source.give(None)
        await self._result()

    async def abandon(self) -> None:
        """Have everything aborted that was not completed, or leave it for the lifecycle rule."""
        self._source.fail()
        try:
            await asyncio.wait([self._outcome], timeout=self._deadlines.abandon_seconds)
        finally:
            self._outcome.cancel()

    async def _result(self) -> None:
        async with answered("written", seconds=3 * self._deadlines.taken_seconds):
            # Shielded: whoever is cancelled here still gives it the time to be aborted.
            await asyncio.shield(self._outcome)

    def _ended(self, outcome: "asyncio.Future[PutResult]") -> None:
        self._source.drop()
        # A writer that has left never looks at the exception; asyncio would log it as forgotten.
        if not outcome.cancelled():
            outcome.exception()


class _AbandonedError(Exception):
    """The writer has left; makes the library abort the upload."""


class _Source:
    """The pieces of one upload, as the library fetches them; one of them may be waiting."""

    def __init__(self) -> None:
        self._pieces: asyncio.Queue[bytes | None] = asyncio.Queue(1)
        self._failed = False

    def __aiter__(self) -> "_Source":
        return self

    async def __anext__(self) -> bytes:
        piece = await self._pieces.get()
        if self._failed:
            raise _AbandonedError
        if piece is None:
            raise StopAsyncIteration
        return piece

    async def give(self, piece: bytes | None) -> None:
        """Hand over a piece, or None for the end."""
        await self._pieces.put(piece)

    def fail(self) -> None:
        """Make the library see a failure where it would see the next piece, or the end."""
        self._failed = True
        self.drop()
        self._pieces.put_nowait(None)

    def drop(self) -> None:
        """Forget what is waiting, so that its writer does not wait either."""
        while not self._pieces.empty():
            self._pieces.get_nowait()
