"""How long does the store take, and how often can it not do it? Counted around any store."""

from collections.abc import AsyncGenerator, AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from gateway.errors import StoreUnavailable
from gateway.store import UNNAMED, ContentStore, Described, Reading, Stored, Writing
from gateway.telemetry.metrics.resources import ResourceMetrics


class _Writing:
    """Content on its way in: how fast it comes is not the store's doing, so each step counts."""

    def __init__(self, writing: Writing, metrics: ResourceMetrics) -> None:
        self._writing = writing
        self._metrics = metrics

    async def write(self, chunk: bytes) -> None:
        """See Writing."""
        with self._metrics.doing("write", failure=StoreUnavailable):
            await self._writing.write(chunk)

    async def commit(self) -> None:
        """See Writing."""
        with self._metrics.doing("commit", failure=StoreUnavailable):
            await self._writing.commit()


class Measured:
    """A store as good as the one within, whose work is counted."""

    def __init__(self, store: ContentStore, metrics: ResourceMetrics) -> None:
        self._store = store
        self._metrics = metrics
        self.check_every_seconds = store.check_every_seconds

    @asynccontextmanager
    async def writing(self, key: str, described: Described = UNNAMED) -> AsyncIterator[Writing]:
        """See ContentStore."""
        async with self._store.writing(key, described) as writing:
            yield _Writing(writing, self._metrics)

    @asynccontextmanager
    async def reading(self, key: str) -> AsyncIterator[Reading]:
        """See ContentStore; what fails while it is read is counted as well."""
        async with AsyncExitStack() as stack:
            with self._metrics.doing("read", failure=StoreUnavailable):
                reading = await stack.enter_async_context(self._store.reading(key))
            try:
                yield reading
            except StoreUnavailable:
                self._metrics.failed("read")
                raise

    async def delete(self, key: str) -> None:
        """See ContentStore."""
        with self._metrics.doing("delete", failure=StoreUnavailable):
            await self._store.delete(key)

    async def size(self, key: str) -> int | None:
        """See ContentStore."""
        with self._metrics.doing("size", failure=StoreUnavailable):
            return await self._store.size(key)

    async def sha256(self, key: str) -> tuple[int, str] | None:
        """See ContentStore."""
        with self._metrics.doing("read", failure=StoreUnavailable):
            return await self._store.sha256(key)

    def stored(self) -> AsyncGenerator[Stored, None]:
        """See ContentStore."""
        return self._store.stored()

    async def link(self, key: str, *, seconds: int) -> str | None:
        """See ContentStore; it asks nobody."""
        return await self._store.link(key, seconds=seconds)

    def path(self, key: str) -> str | None:
        """See ContentStore."""
        return self._store.path(key)

    async def check(self) -> None:
        """See ContentStore."""
        with self._metrics.doing("check", failure=StoreUnavailable):
            await self._store.check()

    async def sweep(self, *, older_than_seconds: int, now: int) -> int:
        """See ContentStore."""
        with self._metrics.doing("sweep", failure=StoreUnavailable):
            return await self._store.sweep(older_than_seconds=older_than_seconds, now=now)
