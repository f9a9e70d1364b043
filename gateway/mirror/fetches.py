"""Which downloads are under way in this process, so that each is made once?"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

from gateway.mirror.fetch import Fetch
from gateway.mirror.fetched import Wanted
from gateway.mirror.throttle import Throttle
from gateway.upstream.client import Upstream


@dataclass(slots=True)
class _UnderWay:
    fetch: Fetch
    task: asyncio.Task[None]
    readers: int = 0


@dataclass(slots=True)
class Fetches:
    """All downloads of content in this process.

    Attributes:
        group: what they run in.
        concurrency: how many are made at once; others wait for their turn.
        max_content_bytes: what is longer is not downloaded to its end.
        spool_folder: where what is on its way stands; None: where the system has temporary files.
    """

    group: asyncio.TaskGroup
    upstreams: Mapping[str, Upstream]
    concurrency: int
    max_content_bytes: int
    throttle: Throttle
    spool_folder: Path | None = None
    _under_way: dict[str, _UnderWay] = field(default_factory=dict)
    _places: asyncio.Semaphore = field(init=False)

    def __post_init__(self) -> None:
        """Make as many places as downloads are allowed at once."""
        self._places = asyncio.Semaphore(self.concurrency)

    def __contains__(self, asset_id: str) -> bool:
        """Tell whether an asset is on its way, or came and is still being read."""
        found = self._under_way.get(asset_id)
        return found is not None and found.fetch.failure is None

    @asynccontextmanager
    async def join(self, wanted: Wanted) -> AsyncIterator[Fetch]:
        """Yield the download of an asset, begun for the first who asks; with the last it ends."""
        one = self._under_way.get(wanted.asset_id)
        if one is None or one.fetch.failure is not None:
            one = self._begin(wanted)
        one.readers += 1
        try:
            yield one.fetch
        finally:
            one.readers -= 1
            if not one.readers:
                self._end(wanted.asset_id, one)

    def _begin(self, wanted: Wanted) -> _UnderWay:
        fetch = Fetch(
            wanted,
            self.upstreams.get(wanted.upstream),
            spool_folder=self.spool_folder,
            max_content_bytes=self.max_content_bytes,
            throttle=self.throttle,
        )
        one = _UnderWay(fetch, self.group.create_task(self._run(fetch)))
        self._under_way[wanted.asset_id] = one
        return one

    async def _run(self, fetch: Fetch) -> None:
        async with self._places:
            await fetch.run()

    def _end(self, asset_id: str, one: _UnderWay) -> None:
        # A later download of the same asset may have taken its place.
        if self._under_way.get(asset_id) is one:
            del self._under_way[asset_id]
        one.task.cancel()
        one.task.add_done_callback(lambda _: one.fetch.close())
