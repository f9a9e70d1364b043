"""How are due rows worked off, a bounded number at once?"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, Generic, Protocol, TypeVar

import structlog

from gateway.errors import DatabaseUnavailable

FINISH_SECONDS: Final = 5.0


class Claimed(Protocol):
    """A row that is ours until its lease ends."""

    @property
    def log_facts(self) -> Mapping[str, str]:
        """What of it goes into the log lines about its turn, such as `video_id`."""
        ...


C = TypeVar("C", bound=Claimed)
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Loop(Generic[C]):
    """One background loop.

    Attributes:
        name: what the log calls it.
        concurrency: turns under way at once.
        idle_seconds: how long to wait for `wake` when nothing was due.
        wake: set by whoever knows that something is due now.
        claim: takes at most so many due rows.
        turn: does one thing about one of them and writes the outcome; it may be cut off anywhere.
    """

    name: str
    concurrency: int
    idle_seconds: float
    wake: asyncio.Event
    claim: Callable[[int], Awaitable[Sequence[C]]]
    turn: Callable[[C], Awaitable[None]]


async def work_off(loop: Loop[C]) -> None:
    """Claim and do what is due until cancelled; what is under way then has FINISH_SECONDS.

    A turn that fails is claimed again when its lease ends: nothing ends the loop.
    """
    places = asyncio.Semaphore(loop.concurrency)
    free = loop.concurrency
    async with asyncio.TaskGroup() as group:

        async def turn(claimed: C) -> None:
            nonlocal free
            try:
                await loop.turn(claimed)
            except DatabaseUnavailable as error:
                _log.warning(
                    "turn_not_recorded",
                    loop=loop.name,
                    cause=repr(error.__cause__),
                    **claimed.log_facts,
                )
            except Exception:  # noqa: BLE001 - one turn; the log has it
                _log.exception("turn_failed", loop=loop.name, **claimed.log_facts)
            finally:
                free += 1
                places.release()

        try:
            while True:
                async with places:
                    loop.wake.clear()
                    claimed = await _claim(loop, free)
                for one in claimed:
                    await places.acquire()
                    free -= 1
                    group.create_task(turn(one))
                if not claimed:
                    await _idle(loop)
        except asyncio.CancelledError:
            # A turn cut off leaves a lease behind, which the next process would wait for.
            await _finish(places, loop.concurrency)
            raise


async def _claim(loop: Loop[C], limit: int) -> Sequence[C]:
    try:
        return await loop.claim(limit)
    except DatabaseUnavailable as error:
        _log.warning("turn_not_claimed", loop=loop.name, cause=repr(error.__cause__))
    except Exception:  # noqa: BLE001 - one turn; the log has it
        _log.exception("claim_failed", loop=loop.name)
    return ()


async def _finish(places: asyncio.Semaphore, concurrency: int) -> None:
    with suppress(TimeoutError):
        async with asyncio.timeout(FINISH_SECONDS):
            for _ in range(concurrency):
                await places.acquire()


async def _idle(loop: Loop[C]) -> None:
    try:
        async with asyncio.timeout(loop.idle_seconds):
            await loop.wake.wait()
    except TimeoutError:
        return
