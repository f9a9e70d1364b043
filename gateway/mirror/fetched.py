"""What is fetched, what came of it, and is what came again what came before?"""

import hashlib
from dataclasses import dataclass

from gateway.upstream.envelopes import RequestIds


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which content is to be had from where."""

    asset_id: str
    upstream: str
    upstream_id: str
    variant: str


@dataclass(frozen=True, slots=True)
class Whole:
    """Content that came down whole and is what it should be."""

    content_type: str
    size_bytes: int
    sha256: str


class FetchFailed(Exception):
    """The content could not be had, or not to its end.

    Attributes:
        reason: a fixed word.
        status: the upstream's status, or None: no answer came, or it is not about the answer.
        request_ids: what the upstream called the last request, where it answered.
    """

    def __init__(self, reason: str, status: int | None = None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.status = status
        self.request_ids = RequestIds()


class Again:
    """Passes over what has come before, and insists that it is the same."""

    def __init__(self, digest: "hashlib._Hash", size: int) -> None:
        self._before = digest.digest()
        self._left = size
        self._digest = hashlib.sha256()

    def beyond(self, chunk: bytes) -> bytes:
        """Return what of the next chunk is new."""
        if not self._left:
            return chunk
        seen = chunk[: self._left]
        self._digest.update(seen)
        self._left -= len(seen)
        if not self._left and self._digest.digest() != self._before:
            raise FetchFailed("changed")
        return chunk[len(seen) :]

    def finish(self) -> None:
        """Insist that at least as much has come as before: without a length nobody else does."""
        if self._left:
            raise FetchFailed("changed")
