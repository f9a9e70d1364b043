"""How does work go on when the one who asked for it has left?"""

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class Work:
    """Work that is finished whatever becomes of its caller; the process drains it before it ends.

    It lives in one TaskGroup: what is started here is never lost, and never outlives the process's
    own orderly end.
    """

    def __init__(self, group: asyncio.TaskGroup) -> None:
        self._group = group
        # The tasks, not the futures: a caller that is cancelled cancels its future only.
        self._under_way: set[asyncio.Task[None]] = set()

    def start(self, work: Coroutine[Any, Any, T]) -> "asyncio.Future[T]":
        """Begin work; the future has its result or its exception. Cancelling it stops nothing."""
        outcome: asyncio.Future[T] = asyncio.get_running_loop().create_future()
        outcome.add_done_callback(_seen)
        task = self._group.create_task(_finish(work, outcome))
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        return outcome

    async def drain(self, *, seconds: float) -> int:
        """Wait until nothing is under way, at most so long.

        Return how much still was: it is cut off, as a kill would, so that the process can end.
        """
        until = asyncio.get_running_loop().time() + seconds
        # More than once: work may start work, as a submit does with its record.
        while self._under_way and (left := until - asyncio.get_running_loop().time()) > 0:
            await asyncio.wait(self._under_way, timeout=left)
        for task in self._under_way:
            task.cancel()
        return len(self._under_way)


async def _finish(work: Coroutine[Any, Any, T], outcome: "asyncio.Future[T]") -> None:
    try:
        result = await work
    except Exception as error:  # noqa: BLE001 - it is the caller's, and must not end the group
        if not outcome.done():
            outcome.set_exception(error)
    else:
        if not outcome.done():
            outcome.set_result(result)
    finally:
        outcome.cancel()  # does nothing but where the work itself was cancelled


def _seen(outcome: "asyncio.Future[Any]") -> None:
    # A caller that has left never looks at the exception; asyncio would log it as forgotten.
    if not outcome.cancelled():
        outcome.exception()
