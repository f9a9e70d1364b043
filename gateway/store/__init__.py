"""What may be relied on where bytes live, whichever store holds them?"""

import re
from collections.abc import AsyncGenerator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Final, Protocol

# Larger chunks save little, and every other request waits for each of them.
CHUNK_BYTES = 256 << 10
MAX_KEY_CHARACTERS = 128
_KEY = re.compile(rf"[A-Za-z0-9_]{{1,{MAX_KEY_CHARACTERS}}}", re.ASCII)
_CONTENT_TYPE = re.compile(r"[!-~]+/[!-~]+(; ?[!-~]+)*", re.ASCII)
_FILENAME = re.compile(r"[A-Za-z0-9._-]+", re.ASCII)


class ContentMissing(KeyError):
    """The store answered, and it has no content under this key."""


@dataclass(frozen=True, slots=True)
class Described:
    """How content is named where it is downloaded from the store itself.

    Attributes:
        content_type: such as `video/mp4`.
        filename: of `A-Z a-z 0-9 . _ -` only.

    Raises:
        ValueError: one of them is not fit for a header.
    """

    content_type: str = "application/octet-stream"
    filename: str = "content"

    def __post_init__(self) -> None:
        if not (_CONTENT_TYPE.fullmatch(self.content_type) and _FILENAME.fullmatch(self.filename)):
            raise ValueError("content is described by a type and a plain file name")


UNNAMED: Final = Described()


@dataclass(frozen=True, slots=True)
class Stored:
    """What a store has under one key.

    Attributes:
        modified_at: when it was committed, Unix seconds.
    """

    key: str
    size_bytes: int
    modified_at: int


class Writing(Protocol):
    """Content on its way in; see ContentStore."""

    async def write(self, chunk: bytes) -> None:
        """Append bytes."""
        ...

    async def commit(self) -> None:
        """Make what was written the content of the key."""
        ...


class OpenFile(Protocol):
    """Content as a file from which the kernel may send (sendfile(2))."""

    @property
    def descriptor(self) -> int:
        """Of the open file; the content's first byte is the file's."""
        ...

    async def at_hand(self, start: int, end: int) -> None:
        """Return once these bytes can be read without waiting for a disk.

        Raises:
            StoreUnavailable: they cannot be had.
        """
        ...


class Reading(Protocol):
    """Content that is open for reading; see ContentStore."""

    @property
    def size(self) -> int:
        """The number of bytes of the whole content."""
        ...

    @property
    def file(self) -> OpenFile | None:
        """The same content as a file, where it is one."""
        ...

    def chunks(self, *, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` to before `end` (0 <= start <= end <= size).

        In pieces of at most CHUNK_BYTES, none empty; the loop runs between any two of them. To be
        iterated once; whoever stops early closes it.
        """
        ...


class ContentStore(Protocol):
    """Keeps bytes under keys. Every sentence below has a conformance test in the same words.

    - A key is 1 to 128 of `A-Z a-z 0-9 _`; any other is a ValueError.
    - Content becomes visible only by `commit`, and whole.
    - `commit` is durable on return.
    - Leaving without `commit` leaves nothing.
    - Committing a key again replaces its content whole.
    - `chunks` gives exactly the bytes asked for, or raises StoreUnavailable.
    - A reading gives the bytes that were there when it was opened, or raises StoreUnavailable,
      even when the key is deleted or written again meanwhile.
    - Opening what is not there raises ContentMissing; `size` and `sha256` return None.
    - `delete` of what is not there is no error.
    - `stored` names everything that is committed, once, and nothing that is being written.
    - `sweep` removes no content; it removes what a writer that died has left behind, unless the
      store sees to that itself.
    - What cannot be written or read raises StoreUnavailable: "no" is never said when the answer
      could not be found out.
    - After a failed write nothing half-written is visible, and this writing cannot be committed.
    - The memory a writing or a reading holds is bounded, however much content there is.

    Attributes:
        check_every_seconds: how often check() may be called without being felt, or billed.
    """

    check_every_seconds: float

    def writing(
        self, key: str, described: Described = UNNAMED
    ) -> AbstractAsyncContextManager[Writing]:
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

    def stored(self) -> AsyncGenerator[Stored, None]:
        """Yield what there is, in no order."""
        ...

    async def link(self, key: str, *, seconds: int) -> str | None:
        """Return a URL under which a key can be downloaded for so long, without credentials.

        None where the store has no such URLs. The key need not exist.
        """
        ...

    def path(self, key: str) -> str | None:
        """Return where a server in front finds a key below the root of the store, as a URL path.

        None where it could not be read as a file.
        """
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
