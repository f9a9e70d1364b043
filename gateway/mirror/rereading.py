"""Are the bytes in a store those that were mirrored? Found out while they stream by."""

import hashlib
from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Final

from gateway.mirror.kept import Kept
from gateway.store import ContentMissing, ContentStore

MISSING: Final = "store_missing"
WRONG_LENGTH: Final = "store_wrong_length"
WRONG_BYTES: Final = "store_wrong_bytes"


class Damaged(Exception):
    """The store answered, and has something else than was mirrored, or nothing.

    Attributes:
        found: MISSING, WRONG_LENGTH or WRONG_BYTES.
    """

    def __init__(self, found: str) -> None:
        super().__init__(found)
        self.found = found


async def reread(store: ContentStore, asset: Kept) -> AsyncGenerator[bytes, None]:
    """Yield the content of an asset; what was yielded is right only once this has ended.

    Raises:
        Damaged: at the end, or earlier where the length tells it.
        StoreUnavailable: it could not be found out.
    """
    digest = hashlib.sha256()
    try:
        async with store.reading(asset.asset_id) as reading:
            if reading.size != asset.size_bytes:
                raise Damaged(WRONG_LENGTH)
            async with aclosing(reading.chunks(start=0, end=reading.size)) as chunks:
                async for chunk in chunks:
                    digest.update(chunk)
                    yield chunk
    except ContentMissing as error:
        raise Damaged(MISSING) from error
    if digest.hexdigest() != asset.sha256:
        raise Damaged(WRONG_BYTES)
