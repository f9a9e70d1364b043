"""What may be relied on where bytes live, whichever store holds them?"""

import re
from contextlib import AbstractAsyncContextManager
from typing import Protocol

MAX_KEY_CHARACTERS = 128
_KEY = re.compile(rf"[A-Za-z0-9_]{{1,{MAX_KEY_CHARACTERS}}}", re.ASCII)


class ContentMissing(KeyError):
    """The store answered, and it has no content under this key."""


class Writing(Protocol):
    """Content on its way in; see ContentStore."""

    async def write(self, chunk: bytes) -> None:
        """Append bytes."""
        ...

    async def commit(self) -> None:
        """Make what was written the content of the key."""
        ...


class Reading(Protocol):
    """Content that is open for reading; see ContentStore."""

    @property
    def size(self) -> int:
        """The number of bytes of the whole content."""
        ...

    async def read(self, *, offset: int, length: int) -> bytes:
        """Return `length` bytes from `offset` on, fewer only where the content ends."""
        ...


class ContentStore(Protocol):
    """Keeps bytes under keys. Every sentence below has a conformance test in the same words.

    - A key is 1 to 128 of `A-Z a-z 0-9 _`; any other is a ValueError.
    - Content becomes visible only by `commit`, and whole.
    - `commit` is durable on return.
    - Leaving without `commit` leaves nothing.
    - Committing a key again replaces its content whole.
    - `read` gives exactly the bytes asked for, fewer only where the content ends.
    - A reading gives the bytes that were there when it was opened, or raises StoreUnavailable,
      even when the key is deleted or written again meanwhile.
    - Opening what is not there raises ContentMissing; `size` and `sha256` return None.
    - `delete` of what is not there is no error.
    - `sweep` removes what a writer that died has left behind, and no content.
    - What cannot be written or read raises StoreUnavailable: "no" is never said when the answer
      could not be found out.
    - After a failed write nothing half-written is visible, and this writing cannot be committed.
    - The memory a writing holds is bounded, however much is written.
    """

    def writing(self, key: str) -> AbstractAsyncContextManager[Writing]:
        """Open a key for writing."""
        ...

    def reading(self, key: str) -> AbstractAsyncContextManager[Reading]:
        """Open a key for reading."""
        ...

    async def delete(self, key: str) -> None:
        """Remove the content of a key."""
        ...

    async def size(self, key: str) -> int | None:
        """Return the number of bytes under a key."""
        ...

    async def sha256(self, key: str) -> tuple[int, str] | None:
        """Read the content again and return its size and the SHA-256 of it in hexadecimal."""
        ...

    async def check(self) -> None:
        """Raise StoreUnavailable if content cannot be written now."""
        ...

    async def sweep(self, *, older_than_seconds: int, now: int) -> int:
        """Remove writings abandoned for longer than that, and return how many."""
        ...


def checked_key(key: str) -> str:
    """Return the key, or raise ValueError if it is none of ours."""
    if _KEY.fullmatch(key) is None:
        raise ValueError("a store key is 1 to 128 letters, digits and underscores")
    return key
