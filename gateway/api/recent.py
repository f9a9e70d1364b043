"""What was read from the database a moment ago, and need not be read again?"""

import math
from collections.abc import Hashable
from typing import Final, Generic, TypeVar

from gateway.clock import Clock

MAX_ENTRIES: Final = 10_000

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class Recent(Generic[K, V]):
    """Remembers values for a while, and no more than MAX_ENTRIES of them.

    What another process changes is seen here so much later, unless somebody hears of it and calls
    forget(); what this one changes at once, if it calls forget() when it has.
    """

    def __init__(self, clock: Clock, *, seconds: float) -> None:
        self._clock = clock
        self._seconds = seconds
        self._values: dict[K, tuple[V, float]] = {}
        self._forgot_at = -math.inf

    def remember_for(self, seconds: float) -> None:
        """Remember values for so long from now on, also those that are remembered already."""
        self._seconds = seconds

    def get(self, key: K) -> V | None:
        """Return a value that was found not longer ago than that."""
        found = self._values.get(key)
        if found is None or self._clock.elapsed() - found[1] >= self._seconds:
            return None
        return found[0]

    def put(self, key: K, value: V, *, asked_at: float) -> None:
        """Remember a value; `asked_at` is the clock's `elapsed` before it was looked up."""
        # A look-up that began earlier may have seen what was there before.
        if asked_at <= self._forgot_at:
            return
        if len(self._values) >= MAX_ENTRIES:
            self._values.clear()
        self._values[key] = (value, asked_at)

    def forget(self) -> None:
        """Look everything up again."""
        self._forgot_at = self._clock.elapsed()
        self._values.clear()
