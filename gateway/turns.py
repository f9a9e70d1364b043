"""How are due rows worked off, a bounded number at once?

Whoever claims a row has it for LEASE_SECONDS, and for as long again whenever the lease is renewed:
so a turn may take its time, and what a process that died had claimed is due again soon.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Generic, Protocol, TypeVar

import structlog

from gateway.errors import DatabaseUnavailable

LEASE_SECONDS: Final = 15
RENEW_SECONDS: Final = 5.0
FINISH_SECONDS: Final = 5.0


class Claimed(Protocol):
    """A row that is ours until its lease ends."""

    @property
    def log_facts(self) -> Mapping[str, Any]:
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
        renew: keeps one claim for another LEASE_SECONDS; tells whether it was still ours, else its
            turn is cut off.
        turn: does one thing about one of them and writes the outcome; it may be cut off anywhere.
        give_back: makes due again, at once, what was claimed and will have no turn here; a row that
            its turn has written all the same stays as it was written.
    """

    name: str
    concurrency: int
    idle_seconds: float
    wake: asyncio.Event
    claim: Callable[[int], Awaitable[Sequence[C]]]
    renew: Callable[[C], Awaitable[bool]]
    turn: Callable[[C], Awaitable[None]]
    give_back: Callable[[Sequence[C]], Awaitable[None]]
    renew_seconds: float = RENEW_SECONDS


class Turns(Generic[C]):
    """Works a loop off."""

    def __init__(self, loop: Loop[C]) -> None:
        self._loop = loop
        self._places = asyncio.Semaphore(loop.concurrency)
        self._taken = 0
        self._under_way: dict[asyncio.Task[None], C] = {}
        self._group: asyncio.TaskGroup | None = None

    async def run(self) -> None:
        """Claim and do what is due until cancelled; what is under way then has FINISH_SECONDS.

        A turn that fails is claimed again when its lease ends: nothing ends the loop. Whoever
        cancels it leaves no lease behind that the next process would have to wait for.
        """
        async with asyncio.TaskGroup() as group:
            self._group = group
            group.create_task(self._renew_forever())
            try:
                while True:
                    if not await self._fill(group):
                        await _idle(self._loop)
            except asyncio.CancelledError:
                self._group = None
                await _finish(self._loop, self._under_way)
                raise

    async def begin(self, claimed: C) -> None:
        """Do something that was claimed elsewhere now, beside the turns that the loop allows."""
        if self._group is None:
            await _give_back(self._loop, [claimed])
        else:
            self._start(self._group, claimed)

    async def _fill(self, group: asyncio.TaskGroup) -> int:
        async with self._places:
            self._loop.wake.clear()
            claimed = await _claim(self._loop, self._loop.concurrency - self._taken, group)
        for one in claimed:
            # At once: no more were claimed than there are places.
            await self._places.acquire()
            self._taken += 1
            self._start(group, one).add_done_callback(self._leave)
        return len(claimed)

    async def _renew_forever(self) -> None:
        while True:
            await asyncio.sleep(self._loop.renew_seconds)
            for task, claimed in list(self._under_way.items()):
                if not await _is_kept(self._loop, claimed) and not task.done():
                    _log.warning("lease_lost", loop=self._loop.name, **claimed.log_facts)
                    task.cancel()

    def _start(self, group: asyncio.TaskGroup, claimed: C) -> asyncio.Task[None]:
        task = group.create_task(_turn(self._loop, claimed))
        self._under_way[task] = claimed
        task.add_done_callback(self._under_way.pop)
        return task

    def _leave(self, _: asyncio.Task[None]) -> None:
        self._taken -= 1
        self._places.release()


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


async def _is_kept(loop: Loop[C], claimed: C) -> bool:
    try:
        return await loop.renew(claimed)
    except DatabaseUnavailable as error:
        _log.warning("lease_not_renewed", loop=loop.name, cause=repr(error.__cause__))
    except Exception:  # noqa: BLE001 - the leases end; the log has it
        _log.exception("renewal_failed", loop=loop.name)
    return True  # as far as is known


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
