"""How is content read that is still on its way?"""

import asyncio
from collections.abc import AsyncGenerator
from typing import Final

from gateway.errors import ContentPending
from gateway.mirror.fetch import Fetch
from gateway.mirror.fetched import FetchFailed
from gateway.store import CHUNK_BYTES

# With every answer that says "not yet".
COME_BACK: Final = {"retry-after-ms": "5000"}


class LiveReading:
    """A Reading of what is still on its way.

    What breaks off raises ContentPending: whoever asks again may get it. `size` is None where
    nobody knows yet.
    """

    def __init__(self, fetch: Fetch) -> None:
        self._fetch = fetch
        self.size = fetch.size
        self.file = None

    async def chunks(self, *, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` to before `end`, or to the end, as they come."""
        while start < end:
            try:
                chunk = await self._fetch.read(offset=start, length=min(CHUNK_BYTES, end - start))
            except FetchFailed as error:
                raise ContentPending(
                    "The copying of this video broke off. Try again.", headers=COME_BACK
                ) from error
            if not chunk:
                return
            yield chunk
            start += len(chunk)
            await asyncio.sleep(0)
