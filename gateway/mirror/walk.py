"""How is a long list of assets worked off, a bounded number at once?"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from typing import Final, Protocol, TypeVar

from gateway.db.database import Database
from gateway.db.script import Script
from gateway.errors import StoreUnavailable
from gateway.mirror.kept import Kept

PAGE_ASSETS: Final = 100
# Failures in a row after which a store is down: each may have taken its whole deadline.
GIVE_UP_AFTER: Final = 5

R = TypeVar("R")


class Listing(Protocol):
    """A script that lists assets, page by page."""

    def __call__(self, *, after: Kept | None, limit: int) -> Script[list[Kept]]:
        """Return the page after an asset, or the first."""
        ...


async def pages(
    database: Database, listing: Listing, *, limit: int | None = None
) -> AsyncGenerator[list[Kept], None]:
    """Yield a list a page at a time, up to `limit` assets; no transaction is open in between."""
    after: Kept | None = None
    left = limit
    while left is None or left > 0:
        asked = PAGE_ASSETS if left is None else min(left, PAGE_ASSETS)
        page = await _page(database, listing, after=after, limit=asked)
        if not page:
            return
        yield page
        after = page[-1]
        left = None if left is None else left - len(page)


async def _page(
    database: Database, listing: Listing, *, after: Kept | None, limit: int
) -> list[Kept]:
    return await database.read(lambda: listing(after=after, limit=limit))


async def at_once(
    assets: Sequence[Kept], work: Callable[[Kept], Awaitable[R]], *, concurrency: int
) -> list[R]:
    """Do some work about each asset, and return what came of each, in their order.

    Raises:
        Exception: what the first that failed has raised; the others are cancelled.
    """
    places = asyncio.Semaphore(concurrency)

    async def one(asset: Kept) -> R:
        async with places:
            return await work(asset)

    try:
        async with asyncio.TaskGroup() as group:
            tasks = [group.create_task(one(asset)) for asset in assets]
    except ExceptionGroup as failed:
        raise failed.exceptions[0] from failed
    return [task.result() for task in tasks]


class Patience:
    """Tells a store that is down from content that cannot be read."""

    def __init__(self) -> None:
        self._failures = 0

    def answered(self) -> None:
        """Say that the store has answered."""
        self._failures = 0

    def failed(self, error: StoreUnavailable) -> None:
        """Say that it has not; raises the error when that was once too often in a row."""
        self._failures += 1
        if self._failures >= GIVE_UP_AFTER:
            raise error
