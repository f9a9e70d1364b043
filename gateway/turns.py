"""How are due rows worked off, a bounded number at once?"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
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
        give_back: makes due again, at once, what was claimed and will have no turn here; a row that
            its turn has written all the same stays as it was written.
    """

    name: str
    concurrency: int
    idle_seconds: float
    wake: asyncio.Event
    claim: Callable[[int], Awaitable[Sequence[C]]]
    turn: Callable[[C], Awaitable[None]]
    give_back: Callable[[Sequence[C]], Awaitable[None]]


async def work_off(loop: Loop[C]) -> None:
    """Claim and do what is due until cancelled; what is under way then has FINISH_SECONDS.

    A turn that fails is claimed again when its lease ends: nothing ends the loop. Whoever cancels
    the loop leaves no lease behind that the next process would have to wait for.
    """
    places = asyncio.Semaphore(loop.concurrency)
    under_way: dict[asyncio.Task[None], C] = {}

    def over(task: asyncio.Task[None]) -> None:
        del under_way[task]
        places.release()

    async with asyncio.TaskGroup() as group:
        try:
            while True:
                async with places:
                    loop.wake.clear()
                    claimed = await _claim(loop, loop.concurrency - len(under_way), group)
                for one in claimed:
                    # At once: no more were claimed than there are places.
                    await places.acquire()
                    task = group.create_task(_turn(loop, one))
                    under_way[task] = one
                    task.add_done_callback(over)
                if not claimed:
                    await _idle(loop)
        except asyncio.CancelledError:
            await _finish(loop, under_way)
            raise


async def _turn(loop: Loop[C], claimed: C) -> None:
    try:
        await loop.turn(claimed)
    except DatabaseUnavailable as error:
        _log.warning(
            "turn_not_recorded", loop=loop.name, cause=repr(error.__cause__), **claimed.log_facts
        )
    except Exception:  # noqa: BLE001 - one turn; the log has it
        _log.exception("turn_failed", loop=loop.name, **claimed.log_facts)


async def _claim(loop: Loop[C], limit: int, group: asyncio.TaskGroup) -> Sequence[C]:
    # Cut off in its middle, a claim might be written and known to nobody.
    claiming = group.create_task(_claimed(loop, limit))
    try:
        return await asyncio.shield(claiming)
    except asyncio.CancelledError:
        await _give_back(loop, await claiming)
        raise


async def _claimed(loop: Loop[C], limit: int) -> Sequence[C]:
    try:
        return await loop.claim(limit)
    except DatabaseUnavailable as error:
        _log.warning("turn_not_claimed", loop=loop.name, cause=repr(error.__cause__))
    except Exception:  # noqa: BLE001 - one turn; the log has it
        _log.exception("claim_failed", loop=loop.name)
    return ()


async def _finish(loop: Loop[C], under_way: Mapping[asyncio.Task[None], C]) -> None:
    if not under_way:
        return
    _, left = await asyncio.wait(under_way, timeout=FINISH_SECONDS)
    cut_off = {task: under_way[task] for task in left}
    for task in cut_off:
        task.cancel()
    if cut_off:
        await asyncio.wait(cut_off)
    await _give_back(loop, list(cut_off.values()))


async def _give_back(loop: Loop[C], claimed: Sequence[C]) -> None:
    if not claimed:
        return
    try:
        await loop.give_back(claimed)
    except DatabaseUnavailable as error:
        _log.warning("lease_not_given_back", loop=loop.name, cause=repr(error.__cause__))


async def _idle(loop: Loop[C]) -> None:
    try:
        async with asyncio.timeout(loop.idle_seconds):
            await loop.wake.wait()
    except TimeoutError:
        return
