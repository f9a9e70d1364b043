"""Is work finished when the one who asked for it has left?"""

import asyncio

import pytest

from gateway.work import Work


async def answer(gate: asyncio.Event, done: list[str]) -> str:
    await gate.wait()
    done.append("done")
    return "answer"


async def break_down() -> None:
    raise LookupError("broken")


async def cancel_itself() -> None:
    raise asyncio.CancelledError


async def test_the_future_has_the_result() -> None:
    gate = asyncio.Event()
    gate.set()
    async with asyncio.TaskGroup() as group:
        assert await Work(group).start(answer(gate, [])) == "answer"


async def test_the_future_has_the_exception_and_the_group_goes_on() -> None:
    gate = asyncio.Event()
    gate.set()
    async with asyncio.TaskGroup() as group:
        work = Work(group)
        with pytest.raises(LookupError, match="broken"):
            await work.start(break_down())
        assert await work.start(answer(gate, [])) == "answer"


async def test_an_exception_that_nobody_hears_is_not_reported_as_forgotten() -> None:
    reports: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: reports.append(context))
    async with asyncio.TaskGroup() as group:
        work = Work(group)
        work.start(break_down())
        assert await work.drain(seconds=10) == 0
    assert reports == []


async def test_work_that_is_cancelled_from_within_leaves_nobody_waiting() -> None:
    async with asyncio.TaskGroup() as group:
        outcome = Work(group).start(cancel_itself())
        await asyncio.wait([outcome], timeout=10)
        assert outcome.cancelled()


async def test_a_caller_that_is_cancelled_stops_nothing_and_the_drain_still_waits() -> None:
    gate, done = asyncio.Event(), list[str]()
    async with asyncio.TaskGroup() as group:
        work = Work(group)

        async def call() -> str:
            return await work.start(answer(gate, done))

        caller = group.create_task(call())
        await asyncio.sleep(0)
        caller.cancel()
        await asyncio.wait([caller])
        gate.set()
        assert await work.drain(seconds=10) == 0
        assert done == ["done"]


async def test_a_drain_waits_for_work_that_work_has_started() -> None:
    gate, done = asyncio.Event(), list[str]()
    async with asyncio.TaskGroup() as group:
        work = Work(group)

        async def start_more() -> None:
            work.start(answer(gate, done))
            gate.set()

        work.start(start_more())
        assert await work.drain(seconds=10) == 0
        assert done == ["done"]


async def test_a_drain_cuts_off_what_is_left_and_says_how_much() -> None:
    gate, done = asyncio.Event(), list[str]()
    async with asyncio.TaskGroup() as group:
        work = Work(group)
        assert await work.drain(seconds=0) == 0
        outcomes = [work.start(answer(gate, done)) for _ in range(3)]
        assert await work.drain(seconds=0.01) == 3
    assert done == []
    assert all(outcome.cancelled() for outcome in outcomes)
