"""How does an order leave, at most once?

Only what certainly never left is tried again; what left is never sent a second time, whatever came
of it.
"""

import asyncio
from collections.abc import Callable
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.upstream.client import Body, Upstream
from gateway.upstream.replies import NotSent, Unknown
from gateway.videos.outcomes import Outcome

# Waits before the second and the third try of a request of which nothing was sent.
_BACKOFF_SECONDS: Final = (0.25, 1.0)


class _LateError(Exception):
    """The lease is over, or too short for a POST: nothing was sent."""


async def forward(
    upstream: Upstream,
    path: str,
    body: Body,
    *,
    clock: Clock,
    on_step: Callable[[str], None],
    begin_by: float,
    log: structlog.typing.FilteringBoundLogger,
) -> Outcome:
    """Return what became of the order, whatever happens; its first byte leaves by `begin_by`."""
    begun = False

    def before_first_byte() -> None:
        nonlocal begun
        if clock.elapsed() > begin_by:
            raise _LateError
        begun = True
        on_step("submit.sending")

    try:
        return await _sent(upstream, path, body, before_first_byte=before_first_byte)
    except _LateError:
        return NotSent("lease_lapsed")
    except Exception:
        # A defect must not leave a hold that says nothing: it would wait out its lease, and then
        # need a person, who could not know what is known here: whether a byte was sent.
        log.exception("submit_failed")
        return Unknown("defect") if begun else NotSent("defect")


async def _sent(
    upstream: Upstream, path: str, body: Body, *, before_first_byte: Callable[[], None]
) -> Outcome:
    for wait_seconds in _BACKOFF_SECONDS:
        outcome = await upstream.submit(path, body, before_first_byte=before_first_byte)
        if not isinstance(outcome, NotSent):
            return outcome
        await asyncio.sleep(wait_seconds)
    return await upstream.submit(path, body, before_first_byte=before_first_byte)
