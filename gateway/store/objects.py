"""How does an object store keep content?

    prefix/ab/<key>      committed content, laid out as in a folder
    prefix/tmp/check     what check() writes

Nothing here leans on conditional puts: "S3-compatible" stores differ in them. Keys are unique to
their content, so that two writers of one key write the same.
"""

import asyncio
import hashlib
from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import timedelta
from typing import TYPE_CHECKING, Final

import obstore

from gateway.errors import StoreUnavailable
from gateway.store import CHUNK_BYTES, UNNAMED, ContentMissing, Described, Stored
from gateway.store.buckets import Bucket, answered
from gateway.store.layout import key_at, path_of
from gateway.store.object_writing import ObjectWriting

if TYPE_CHECKING:
    from obstore import Attributes, ObjectMeta

CHECK_PATH: Final = "tmp/check"
CHECK_BYTES: Final = 64
LIST_PAGE: Final = 1000
# A store may close the connection of a reader it finds slow, again and again.
MAX_RESUMES: Final = 100


class ObjectStore:
    """A ContentStore in an S3-compatible object store, or one of Google or Azure.

    A reading whose key is deleted or written again raises StoreUnavailable at its next request.
    """

    # Each check is a PUT, which is billed; Google takes one a second to one place.
    check_every_seconds = 10.0

    def __init__(self, bucket: Bucket) -> None:
        self._bucket = bucket

    @asynccontextmanager
    async def writing(
        self, key: str, described: Described = UNNAMED
    ) -> AsyncIterator[ObjectWriting]:
        """Open a key for writing; see ContentStore."""
        writing = ObjectWriting(self._bucket, path_of(key), attributes=_attributes(described))
        try:
            yield writing
        finally:
            await writing.leave()

    @asynccontextmanager
    async def reading(self, key: str) -> AsyncIterator["ObjectReading"]:
        """Open a key for reading; see ContentStore."""
        found = await self._find(key)
        if found is None:
            raise ContentMissing(key)
        yield ObjectReading(self._bucket, path_of(key), size=found["size"], e_tag=_e_tag(found))

    async def delete(self, key: str) -> None:
        """Remove the content of a key, durably."""
        async with answered("written", seconds=self._reply_seconds):
            try:
                await obstore.delete_async(self._bucket.asking, path_of(key))
            except FileNotFoundError:
                await self._insist_on_bucket()

    async def size(self, key: str) -> int | None:
        """Return the number of bytes under a key, or None if there is no such content."""
        found = await self._find(key)
        return None if found is None else found["size"]

    async def sha256(self, key: str) -> tuple[int, str] | None:
        """Read the content again; return size and SHA-256, or None if there is no such content."""
        digest = hashlib.sha256()
        try:
            async with (
                self.reading(key) as reading,
                aclosing(reading.chunks(start=0, end=reading.size)) as chunks,
            ):
                async for chunk in chunks:
                    digest.update(chunk)
                return reading.size, digest.hexdigest()
        except ContentMissing:
            return None

    async def stored(self) -> AsyncGenerator[Stored, None]:
        """Yield what there is, a page at a time; see ContentStore."""
        pages = obstore.list(self._bucket.asking, chunk_size=LIST_PAGE)
        while True:
            async with answered("read", seconds=self._reply_seconds):
                page = await anext(pages, None)
            if page is None:
                return
            for one in page:
                key = key_at(one["path"])
                if key is not None:
                    yield Stored(key, one["size"], int(one["last_modified"].timestamp()))

    async def link(self, key: str, *, seconds: int) -> str:
        """Return a presigned URL for a GET; see ContentStore. S3 signs for at most 7 days."""
        async with answered("read", seconds=self._reply_seconds):
            return await obstore.sign_async(
                self._bucket.asking, "GET", path_of(key), timedelta(seconds=seconds)
            )

    def path(self, key: str) -> None:
        """Return None: no server in front has the files."""
        path_of(key)

    async def check(self) -> None:
        """Raise StoreUnavailable if content cannot be written now; takes 5 seconds at most.

        Tried, not asked: what may be listed need not be writable. One small object stays.
        """
        async with answered("written", seconds=self._bucket.deadlines.check_seconds):
            await obstore.put_async(self._bucket.asking, CHECK_PATH, bytes(CHECK_BYTES))

    async def sweep(self, *, older_than_seconds: int, now: int) -> int:
        """Return 0: uploads of writers that died are for a rule of the bucket to remove.

        The library has no way to list them. The rule is AbortIncompleteMultipartUpload in S3;
        Google has the same, and Azure drops uncommitted blocks after a week.
        """
        del older_than_seconds, now
        return 0

    @property
    def _reply_seconds(self) -> float:
        return self._bucket.deadlines.reply_seconds

    async def _find(self, key: str) -> "ObjectMeta | None":
        path = path_of(key)
        async with answered("read", seconds=self._reply_seconds):
            try:
                return await obstore.head_async(self._bucket.asking, path)
            except FileNotFoundError:
                await self._insist_on_bucket()
                return None

    async def _insist_on_bucket(self) -> None:
        """Raise an error of the library unless there is a bucket to be asked.

        A missing bucket is a 404 like a missing key, and a HEAD has no body that says which. Below
        the path listed there is never anything.
        """
        await anext(obstore.list(self._bucket.asking, CHECK_PATH, chunk_size=1), None)


class ObjectReading:
    """Content open for reading, in the version that was found when it was opened."""

    def __init__(self, bucket: Bucket, path: str, *, size: int, e_tag: str) -> None:
        self._bucket = bucket
        self._path = path
        self._e_tag = e_tag
        self.size = size
        self.file = None

    async def chunks(self, *, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` to before `end`; see Reading.

        A connection that breaks is taken up again where it broke, as long as each one brings more.
        """
        resumes = 0
        while start < end:
            begun = start
            try:
                async with aclosing(self._stream(start, end)) as pieces:
                    async for piece in pieces:
                        yield piece
                        start += len(piece)
            except StoreUnavailable:
                resumes += 1
                if start == begun or resumes > MAX_RESUMES:
                    raise

    async def _stream(self, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield what one request brings; the connection is closed with this generator."""
        seconds = self._bucket.deadlines.reply_seconds
        async with answered("read", seconds=seconds):
            answer = await obstore.get_async(
                self._bucket.asking,
                self._path,
                # Another version under the key is a refusal, also when the library itself resumes.
                options={"range": (start, end), "if_match": self._e_tag},
            )
        if answer.meta["size"] != self.size or _e_tag(answer.meta) != self._e_tag:
            raise StoreUnavailable("The content was replaced while it was being read.")
        # It reads ahead by no more than a few network buffers.
        stream = answer.stream(min_chunk_size=CHUNK_BYTES)
        while start < end:
            async with answered("read", seconds=seconds):
                buffer = await anext(stream, b"")
            if not 0 < len(buffer) <= end - start:
                raise StoreUnavailable("The content store gave more or less than was asked for.")
            start += len(buffer)
            for offset in range(0, len(buffer), CHUNK_BYTES):
                yield buffer[offset : offset + CHUNK_BYTES]
                await asyncio.sleep(0)


def _attributes(described: Described) -> "Attributes":
    return {
        "Content-Type": described.content_type,
        "Content-Disposition": f'attachment; filename="{described.filename}"',
        "Cache-Control": "private",
    }


def _e_tag(meta: "ObjectMeta") -> str:
    if not meta["e_tag"]:
        raise StoreUnavailable("The content store does not say which version it has (ETag).")
    return meta["e_tag"]
