"""Who sends this request?

Virtual keys open `/v1/videos` and `/v1/models`, admin keys `/v1/organization`. A key of the wrong
kind is told the same as one that does not exist.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Final, Generic, Protocol, TypeVar

import structlog

from gateway.api.recent import Recent
from gateway.billing.admin_keys import AdminKey, find_admin_key, write_admin_used
from gateway.billing.key_values import ADMIN, VIRTUAL, digest, well_formed
from gateway.billing.usable_keys import Key, find_key, write_used
from gateway.clock import Clock
from gateway.db.database import Database
from gateway.db.script import Script
from gateway.errors import DatabaseUnavailable, InvalidApiKey
from gateway.videos.opening import WRONG_KEY

# How long a key that another process revoked may go on reading; it cannot buy for a moment longer,
# because the hold's own transaction looks at the key again.
CACHE_SECONDS: Final = 1.0
# The same where changes are heard at once: what nobody has confirmed for so long opens nothing.
LISTENING_SECONDS: Final = 5.0
# How often is written down which keys were used.
USED_SECONDS: Final = 60.0

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Ending(Protocol):
    """A key that may be used until a moment."""

    @property
    def id(self) -> str:
        """Its id."""
        ...

    @property
    def ends_at(self) -> int | None:
        """Unix seconds from which it may be used no more."""
        ...


K = TypeVar("K", bound=Ending)


class Authenticator:
    """Finds the key of a request, and remembers it for a while."""

    def __init__(self, *, database: Database, clock: Clock) -> None:
        self._database = database
        self._clock = clock
        self._keys = _Cache[Key](clock)
        self._admin_keys = _Cache[AdminKey](clock)

    async def authenticate(self, headers: Mapping[str, str]) -> Key:
        """Return the virtual key of the Authorization header (`Bearer vgk_…`).

        Raises:
            InvalidApiKey: there is none, it is mistyped, of another kind, unknown, or revoked.
        """
        hashed = _digest_of(headers, VIRTUAL)
        return await self._keys.find(hashed, partial(self._read, find_key, hashed))

    async def authenticate_admin(self, headers: Mapping[str, str]) -> AdminKey:
        """Return the admin key of the Authorization header (`Bearer vga_…`).

        Raises:
            InvalidApiKey: as above.
        """
        hashed = _digest_of(headers, ADMIN)
        return await self._admin_keys.find(hashed, partial(self._read, find_admin_key, hashed))

    def forget(self) -> None:
        """Look every key up again: what was changed here holds here from the next request on."""
        self._keys.recent.forget()
        self._admin_keys.recent.forget()

    def listening(self, heard: bool) -> None:  # noqa: FBT001 - the one thing there is to tell
        """Be told whether what other processes change is heard, and forget() called, at once."""
        seconds = LISTENING_SECONDS if heard else CACHE_SECONDS
        self._keys.recent.remember_for(seconds)
        self._admin_keys.recent.remember_for(seconds)

    async def write_used(self) -> None:
        """Write down when keys were last used, since this was last called."""
        keys, self._keys.used = self._keys.used, {}
        admin_keys, self._admin_keys.used = self._admin_keys.used, {}
        if keys:
            await self._database.run_beside(partial(write_used, keys))
        if admin_keys:
            await self._database.run_beside(partial(write_admin_used, admin_keys))

    async def _read(self, script: Callable[..., Script[K | None]], value_sha256: str) -> K | None:
        return await self._database.read(partial(script, value_sha256, now=self._clock.now()))


async def write_used_forever(authenticator: Authenticator) -> None:
    """Write down which keys were used until cancelled; a turn that fails loses a minute of that."""
    while True:
        await asyncio.sleep(USED_SECONDS)
        try:
            await authenticator.write_used()
        except DatabaseUnavailable as error:
            _log.warning("key_use_not_recorded", cause=repr(error.__cause__))
        except Exception:  # noqa: BLE001 - one turn; the log has it
            _log.exception("key_use_not_recorded")


class _Cache(Generic[K]):
    """Keys by the digest of their value.

    Attributes:
        recent: those that may be used.
        used: Unix seconds by key id.
    """

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.recent = Recent[str, K](clock, seconds=CACHE_SECONDS)
        self.used: dict[str, int] = {}

    async def find(self, hashed: str, look_up: Callable[[], Awaitable[K | None]]) -> K:
        now, asked_at = self._clock.now(), self._clock.elapsed()
        key = self.recent.get(hashed)
        if key is None:
            key = await look_up()
            if key is None:
                raise InvalidApiKey(WRONG_KEY)
            self.recent.put(hashed, key, asked_at=asked_at)
        if key.ends_at is not None and now >= key.ends_at:
            raise InvalidApiKey(WRONG_KEY)
        self.used[key.id] = now
        return key


def _digest_of(headers: Mapping[str, str], kind: str) -> str:
    scheme, _, value = headers.get("authorization", "").partition(" ")
    value = value.strip()
    if scheme.lower() != "bearer" or not well_formed(value, kind):
        raise InvalidApiKey(WRONG_KEY)
    return digest(value)
