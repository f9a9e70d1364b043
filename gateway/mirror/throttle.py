"""How is the bandwidth of all downloads together kept below a limit?"""

import asyncio
from collections.abc import Callable


class Throttle:
    """Lets bytes pass at a rate; what was not used for a second is lost.

    Args:
        bytes_per_second: 0 lets everything pass at once.
        elapsed: seconds that never run backwards.
    """

    def __init__(self, bytes_per_second: int, *, elapsed: Callable[[], float]) -> None:
        self._rate = bytes_per_second
        self._elapsed = elapsed
        self._free_at = elapsed()

    async def take(self, size: int) -> None:
        """Wait until `size` bytes may pass."""
        if not self._rate:
            return
        now = self._elapsed()
        # Each takes its turn when it comes, so that nobody waits for a lock held by a sleeper.
        self._free_at = max(self._free_at, now - 1) + size / self._rate
        if (wait_seconds := self._free_at - now) > 0:
            await asyncio.sleep(wait_seconds)
