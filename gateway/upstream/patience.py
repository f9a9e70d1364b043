"""When is an unbilled question asked again?

By whoever has a person waiting and no schedule of its own, as the poller has. What a second answer
could put right is asked twice more, after a short wait or the one that the upstream asks for.
"""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Final, TypeVar

from gateway.upstream.replies import Unclear

T = TypeVar("T")

WAITS_SECONDS: Final = (0.5, 2.0)
LONGEST_WAIT_SECONDS: Final = 30
# Whoever says this says it again.
_LAST_WORDS: Final = frozenset(
    {
        *("auth", "forbidden", "client_error", "redirect", "unexpected_status"),
        *("too_large", "not_json", "not_an_object", "no_status"),
    }
)


async def patiently(ask: Callable[[], Awaitable[T]]) -> T:
    """Return the first answer that says something, or the last that does not."""
    for wait_seconds in WAITS_SECONDS:
        reply = await ask()
        if not isinstance(reply, Unclear) or reply.reason in _LAST_WORDS:
            return reply
        asked_for = min(reply.retry_after_seconds or 0, LONGEST_WAIT_SECONDS)
        await asyncio.sleep(max(wait_seconds, asked_for))
    return await ask()
