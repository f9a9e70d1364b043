"""How often may a key read?

Limits on reads protect the process, not a budget: they are counted in memory, by each process for
itself, in minutes of the clock.
"""

from typing import Final

from gateway.billing.usable_keys import Key
from gateway.clock import Clock
from gateway.errors import RateLimitExceeded

MINUTE_SECONDS: Final = 60
_MILLISECONDS: Final = 1000


class Reads:
    """Counts reads by key and by project."""

    def __init__(self, *, clock: Clock, default_per_minute: int) -> None:
        """Take the limit of keys that have none of their own; 0 is no limit."""
        self._clock = clock
        self._default = default_per_minute or None
        self._minute = 0
        self._counts: dict[str, int] = {}

    def count(self, key: Key) -> None:
        """Count one read.

        Raises:
            RateLimitExceeded: it is one too many; it is not counted.
        """
        limits = {
            f"project {key.project_id}": key.project_reads_per_minute,
            f"key {key.id}": self._default
            if key.reads_per_minute is None
            else key.reads_per_minute,
        }
        limited = {whose: limit for whose, limit in limits.items() if limit is not None}
        if not limited:
            return
        now = self._clock.now()
        if now // MINUTE_SECONDS != self._minute:
            self._minute = now // MINUTE_SECONDS
            self._counts.clear()
        for whose, limit in limited.items():
            if self._counts.get(whose, 0) >= limit:
                raise _too_many(whose.split()[0], limit, wait=MINUTE_SECONDS - now % MINUTE_SECONDS)
        for whose in limited:
            self._counts[whose] = self._counts.get(whose, 0) + 1


def _too_many(whose: str, limit: int, *, wait: int) -> RateLimitExceeded:
    message = f"This {whose} may read {limit} times per minute. The count begins again in {wait}s."
    if limit == 0:
        message = f"This {whose} may not read: its limit is 0 reads per minute."
    return RateLimitExceeded(
        message,
        retry_after_ms=wait * _MILLISECONDS,
        headers={
            "x-ratelimit-limit-requests": str(limit),
            "x-ratelimit-remaining-requests": "0",
            "x-ratelimit-reset-requests": f"{wait}s",
        },
    )
