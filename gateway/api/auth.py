"""Who sends this request?"""

from collections.abc import Mapping
from functools import partial
from typing import Final

from gateway.billing.keys import VIRTUAL, Key, digest, find_key, well_formed
from gateway.clock import Clock
from gateway.db.database import Database
from gateway.errors import InvalidApiKey
from gateway.videos.records import WRONG_KEY

# How long a revoked key may go on reading; it cannot buy for a moment longer, because the hold's
# own transaction looks at the key again.
CACHE_SECONDS: Final = 2.0
CACHE_LIMIT: Final = 10_000


class Authenticator:
    """Finds the virtual key of a request, and remembers it for CACHE_SECONDS."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._found: dict[str, tuple[Key, float]] = {}

    async def authenticate(self, headers: Mapping[str, str]) -> Key:
        """Return the key of the Authorization header (`Bearer vgk_…`).

        Raises:
            InvalidApiKey: there is none, it is mistyped, of another kind, unknown, or revoked.
        """
        scheme, _, value = headers.get("authorization", "").partition(" ")
        value = value.strip()
        if scheme.lower() != "bearer" or not well_formed(value, VIRTUAL):
            raise InvalidApiKey(WRONG_KEY)
        hashed = digest(value)
        now = self._clock.elapsed()
        cached = self._found.get(hashed)
        if cached is not None and now - cached[1] < CACHE_SECONDS:
            return cached[0]
        key = await self._database.read(partial(find_key, hashed))
        if key is None:
            self._found.pop(hashed, None)
            raise InvalidApiKey(WRONG_KEY)
        if len(self._found) >= CACHE_LIMIT:
            self._found.clear()
        self._found[hashed] = (key, now)
        return key
