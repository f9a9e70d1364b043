"""How does one download from the upstream feed everybody who waits for it?

    upstream ── one Fetch ── Spool ──┬── the mirror, which copies it into the store
                                     ├── a client
                                     └── a client, however slow

The download goes at the upstream's pace, its readers at theirs. A reader that leaves changes
nothing for the others; with the last one the download ends. A connection that broke is taken up
from that byte on where the upstream can tell that its content is still the same; else from the
beginning, and then what comes has to be what came before.

What readers may see before the whole is there: nothing until the first bytes are those of the right
kind of content, and never the last byte before all of it has been checked. So what goes wrong never
looks complete.
"""

import asyncio
import hashlib
from pathlib import Path
from typing import Final

import structlog

from gateway.errors import StoreUnavailable
from gateway.mirror.fetched import Again, FetchFailed, Wanted, Whole
from gateway.mirror.kinds import KindCheck, NotTheContentError
from gateway.mirror.spool import Spool
from gateway.mirror.throttle import Throttle
from gateway.upstream.client import Upstream
from gateway.upstream.content import ContentStream, ContentUnavailable
from gateway.upstream.envelopes import RequestIds

# Waits before a broken download is taken up again; a connection that brought bytes starts anew.
RESUME_SECONDS: Final = (0.1, 1.0, 3.0)
_BROKEN: Final = frozenset({"truncated", "connection_lost", "answer_timeout"})
_FOR_NOW: Final = frozenset({408, 429, 500, 502, 503, 504})

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Fetch:
    """One download, to be run() once; it can be read from while it runs and after.

    Attributes:
        size: of the whole content in bytes; None where the upstream does not say.
        content_type: what it is served as; known once ready() has returned.
        failure: why there will be no more of it.
        whole: what it is; None until everything has come and was checked.
    """

    def __init__(
        self,
        wanted: Wanted,
        upstream: Upstream | None,
        *,
        spool_folder: Path | None,
        max_content_bytes: int,
        throttle: Throttle,
    ) -> None:
        self.size: int | None = None
        self.content_type = ""
        self.failure: FetchFailed | StoreUnavailable | None = None
        self.whole: Whole | None = None
        self._wanted = wanted
        self._upstream = upstream
        self._max_content_bytes = max_content_bytes
        self._throttle = throttle
        self._spool = Spool(spool_folder)
        self._digest = hashlib.sha256()
        self._kind = KindCheck(wanted.variant)
        self._validator: str | None = None
        self._request_ids = RequestIds()
        self._moved = asyncio.Event()

    async def run(self) -> None:
        """Download to the end, or until there is no hope; never raises but CancelledError."""
        try:
            await self._download()
            self._check_whole()
        except StoreUnavailable as error:
            self.failure = error
        except (FetchFailed, ContentUnavailable, NotTheContentError) as error:
            self.failure = _failed(error)
            self.failure.request_ids = self._request_ids
        except asyncio.CancelledError:
            self.failure = FetchFailed("cancelled")
            raise
        except Exception:  # noqa: BLE001 - one download, which must not take the process with it
            _log.exception("fetch_failed", asset_id=self._wanted.asset_id)
            self.failure = FetchFailed("defect")
        finally:
            self._tell()

    async def ready(self) -> None:
        """Wait until content_type and size are known, and there is something to read.

        Raises:
            FetchFailed, StoreUnavailable: nothing of it can be had.
        """
        while not self._readable and self.whole is None:
            await self._wait()

    async def read(self, *, offset: int, length: int) -> bytes:
        """Return up to `length` bytes from `offset` on, waiting for the first; b"" at the end.

        Raises:
            FetchFailed, StoreUnavailable: these bytes will not come.
        """
        while self._readable <= offset:
            if self.whole is not None:
                return b""
            await self._wait()
        return self._spool.read(offset=offset, length=min(length, self._readable - offset))

    def close(self) -> None:
        """Let go of what has come; nobody reads any more."""
        self._spool.close()

    @property
    def _readable(self) -> int:
        if self.whole is not None:
            return self.whole.size_bytes
        if not self.content_type:
            return 0
        # The last byte of an announced length would make an answer look complete.
        return min(self._spool.size, (self.size or self._spool.size + 1) - 1)

    async def _wait(self) -> None:
        if self.failure is not None:
            raise self.failure
        await self._moved.wait()

    def _tell(self) -> None:
        moved, self._moved = self._moved, asyncio.Event()
        moved.set()

    async def _download(self) -> None:
        if self._upstream is None:
            raise FetchFailed("no_such_upstream")
        waits = iter(RESUME_SECONDS)
        while True:
            before = self._spool.size
            try:
                return await self._receive(self._upstream)
            except ContentUnavailable as error:
                self._request_ids = error.request_ids
                if self._spool.size > before:
                    waits = iter(RESUME_SECONDS)
                wait_seconds = next(waits, None)
                if wait_seconds is None or not self._may_resume(error):
                    raise
            await asyncio.sleep(wait_seconds)

    def _may_resume(self, error: ContentUnavailable) -> bool:
        # When one that brought nothing is tried again is not decided here.
        if not self._spool.size:
            return False
        return error.reason in _BROKEN or error.status is None or error.status in _FOR_NOW

    async def _receive(self, upstream: Upstream) -> None:
        wanted = self._wanted
        had = self._spool.size
        offset = had if self._validator else 0
        async with upstream.content(
            wanted.upstream_id, wanted.variant, offset=offset, validator=self._validator
        ) as stream:
            self._announced(stream)
            again = Again(self._digest, had - stream.offset)
            async for chunk in stream.chunks():
                if fresh := again.beyond(chunk):
                    await self._take(fresh)
            again.finish()

    def _announced(self, stream: ContentStream) -> None:
        self._request_ids = stream.request_ids
        if self._spool.size == 0:
            self._validator = stream.validator
        if stream.size is None:
            return
        size = stream.offset + stream.size
        if self.size not in (None, size):
            raise FetchFailed("changed")
        if size > self._max_content_bytes:
            raise FetchFailed("too_large")
        self.size = size

    async def _take(self, chunk: bytes) -> None:
        if self._spool.size + len(chunk) > self._max_content_bytes:
            raise FetchFailed("too_large")
        self._kind.feed(chunk)
        self.content_type = self._kind.content_type or ""
        self._digest.update(chunk)
        await self._spool.append(chunk)
        self._tell()
        # Now, not when the upstream pauses: what has come is for whoever waits for it.
        await asyncio.sleep(0)
        await self._throttle.take(len(chunk))

    def _check_whole(self) -> None:
        size = self._spool.size
        if self.size not in (None, size):
            raise FetchFailed("wrong_length")
        self.size = size
        self.content_type = self._kind.finish()
        self.whole = Whole(self.content_type, size, self._digest.hexdigest())


def _failed(error: FetchFailed | ContentUnavailable | NotTheContentError) -> FetchFailed:
    if isinstance(error, FetchFailed):
        return error
    if isinstance(error, ContentUnavailable):
        return FetchFailed(error.reason, error.status)
    return FetchFailed(str(error))
