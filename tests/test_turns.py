"""Are due rows worked off, never more at once than allowed, whatever a turn does?"""

import asyncio
from collections import deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest
import structlog

from gateway.errors import DatabaseUnavailable
from gateway.turns import FINISH_SECONDS, LEASE_SECONDS, RENEW_SECONDS, Loop, Turns

DEADLINE_SECONDS = 10.0
NEVER_SECONDS = 3600.0


@dataclass(frozen=True)
class Due:
    video_id: str

    @property
    def log_facts(self) -> Mapping[str, str]:
        return {"video_id": self.video_id}


@dataclass
class Yard:
    """Rows that are due, and turns that end when they are told to."""

    due: deque[Due] = field(default_factory=deque)
    limits: list[int] = field(default_factory=list)
    begun: list[str] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    given_back: list[str] = field(default_factory=list)
    renewed: list[str] = field(default_factory=list)
    renew_errors: deque[Exception] = field(default_factory=deque)
    lost: set[str] = field(default_factory=set)
    most: int = 0
    gate: asyncio.Event = field(default_factory=asyncio.Event)
    claiming: asyncio.Event | None = None
    claim_errors: deque[Exception] = field(default_factory=deque)
    give_back_error: Exception | None = None
    turn_errors: dict[str, BaseException] = field(default_factory=dict)

    async def claim(self, limit: int) -> Sequence[Due]:
        self.limits.append(limit)
        if self.claim_errors:
            raise self.claim_errors.popleft()
        taken = [self.due.popleft() for _ in range(min(limit, len(self.due)))]
        if self.claiming is not None:
            await self.claiming.wait()
        return taken

    async def turn(self, claimed: Due) -> None:
        self.begun.append(claimed.video_id)
        self.most = max(self.most, len(self.begun) - len(self.ended))
        try:
            await self.gate.wait()
            if claimed.video_id in self.turn_errors:
                raise self.turn_errors[claimed.video_id]
        finally:
            self.ended.append(claimed.video_id)

    async def renew(self, claimed: Due) -> bool:
        self.renewed.append(claimed.video_id)
        if self.renew_errors:
            raise self.renew_errors.popleft()
        return claimed.video_id not in self.lost

    async def give_back(self, claimed: Sequence[Due]) -> None:
        self.given_back.extend(one.video_id for one in claimed)
        if self.give_back_error is not None:
            raise self.give_back_error


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not condition():
            await asyncio.sleep(0)


@asynccontextmanager
async def working(
    yard: Yard,
    *,
    concurrency: int = 3,
    idle_seconds: float = NEVER_SECONDS,
    renew_seconds: float = NEVER_SECONDS,
) -> AsyncIterator[asyncio.Event]:
    wake = asyncio.Event()
    loop = Loop(
        name="test",
        concurrency=concurrency,
        idle_seconds=idle_seconds,
        wake=wake,
        claim=yard.claim,
        renew=yard.renew,
        turn=yard.turn,
        give_back=yard.give_back,
        renew_seconds=renew_seconds,
    )
    async with asyncio.TaskGroup() as group:
        task = group.create_task(Turns(loop).run())
        yield wake
        task.cancel()


@pytest.fixture
def yard() -> Yard:
    return Yard(due=deque(Due(f"vid_{number}") for number in range(10)))


async def test_no_more_is_claimed_than_there_are_places(yard: Yard) -> None:
    async with working(yard):
        await until(lambda: len(yard.begun) == 3)
        assert len(yard.due) == 7
        yard.gate.set()
        await until(lambda: len(yard.ended) == 10)
    assert yard.most == 3
    assert all(1 <= limit <= 3 for limit in yard.limits)
    assert sorted(yard.begun) == [f"vid_{number}" for number in range(10)]


async def test_a_place_that_is_free_is_filled_while_others_are_taken(yard: Yard) -> None:
    only_one = [yard.due.popleft()]
    rest, yard.due = yard.due, deque(only_one)
    async with working(yard) as wake:
        await until(lambda: len(yard.begun) == 1)
        yard.due = rest
        wake.set()
        await until(lambda: len(yard.begun) == 3)
        assert yard.ended == []


async def test_a_loop_with_nothing_due_waits_until_it_is_woken() -> None:
    yard = Yard()
    yard.gate.set()
    async with working(yard) as wake:
        await until(lambda: len(yard.limits) == 1)
        for _ in range(100):
            await asyncio.sleep(0)
        assert len(yard.limits) == 1
        yard.due.append(Due("vid_1"))
        wake.set()
        await until(lambda: yard.ended == ["vid_1"])


async def test_a_loop_with_nothing_due_looks_again_after_a_while() -> None:
    yard = Yard()
    async with working(yard, idle_seconds=0.001):
        await until(lambda: len(yard.limits) >= 3)


async def test_a_turn_that_fails_ends_neither_the_loop_nor_the_others(yard: Yard) -> None:
    yard.turn_errors = {
        "vid_0": RuntimeError("a defect"),
        "vid_1": DatabaseUnavailable("gone"),
        "vid_2": asyncio.CancelledError(),
    }
    yard.gate.set()
    with structlog.testing.capture_logs() as logs:
        async with working(yard):
            await until(lambda: len(yard.ended) == 10)
    told = {(line["event"], line["video_id"], line["log_level"]) for line in logs}
    assert told == {
        ("turn_failed", "vid_0", "error"),
        ("turn_not_recorded", "vid_1", "warning"),
    }


async def test_a_claim_that_fails_is_made_again(yard: Yard) -> None:
    yard.claim_errors = deque([DatabaseUnavailable("gone"), RuntimeError("a defect")])
    yard.gate.set()
    with structlog.testing.capture_logs() as logs:
        async with working(yard, idle_seconds=0.001):
            await until(lambda: len(yard.ended) == 10)
    assert [line["event"] for line in logs] == ["turn_not_claimed", "claim_failed"]


async def test_what_is_under_way_when_the_loop_ends_is_finished(yard: Yard) -> None:
    async with working(yard):
        await until(lambda: len(yard.begun) == 3)
        asyncio.get_running_loop().call_later(FINISH_SECONDS / 50, yard.gate.set)
    assert len(yard.ended) == 3
    assert yard.given_back == []


async def test_a_turn_that_is_cut_off_gives_its_lease_back(yard: Yard) -> None:
    with structlog.testing.capture_logs() as logs:
        async with working(yard):
            await until(lambda: len(yard.begun) == 3)
    assert sorted(yard.given_back) == ["vid_0", "vid_1", "vid_2"]
    assert logs == []


async def test_a_claim_that_is_under_way_when_the_loop_ends_is_given_back(yard: Yard) -> None:
    yard.claiming = asyncio.Event()
    async with working(yard):
        await until(lambda: len(yard.due) == 7)
        asyncio.get_running_loop().call_later(FINISH_SECONDS / 50, yard.claiming.set)
    assert yard.begun == []
    assert sorted(yard.given_back) == ["vid_0", "vid_1", "vid_2"]


async def test_a_lease_that_cannot_be_given_back_does_not_keep_the_loop_from_ending(
    yard: Yard,
) -> None:
    yard.give_back_error = DatabaseUnavailable("gone")
    with structlog.testing.capture_logs() as logs:
        async with working(yard):
            await until(lambda: len(yard.begun) == 3)
    assert [line["event"] for line in logs] == ["lease_not_given_back"]


async def test_a_lease_is_renewed_for_as_long_as_its_turn_takes_whatever_a_renewal_does(
    yard: Yard,
) -> None:
    yard.renew_errors = deque([DatabaseUnavailable("gone"), RuntimeError("a defect")])
    with structlog.testing.capture_logs() as logs:
        async with working(yard, renew_seconds=0.001):
            await until(lambda: len(yard.renewed) >= 15)
            yard.gate.set()
            await until(lambda: len(yard.ended) == 10)
    assert yard.renewed[:15] == ["vid_0", "vid_1", "vid_2"] * 5
    assert [line["event"] for line in logs] == ["lease_not_renewed", "renewal_failed"]


async def test_a_turn_that_has_lost_its_lease_is_cut_off_and_the_others_go_on(yard: Yard) -> None:
    yard.lost = {"vid_1"}
    with structlog.testing.capture_logs() as logs:
        async with working(yard, renew_seconds=0.001):
            await until(lambda: "vid_1" in yard.ended)
            assert yard.ended == ["vid_1"]
            yard.gate.set()
            await until(lambda: len(yard.ended) == 10)
    assert yard.given_back == []
    told = [(line["event"], line["loop"], line["video_id"]) for line in logs]
    assert told[0] == ("lease_lost", "test", "vid_1")


def test_a_lease_outlasts_a_renewal_that_fails() -> None:
    assert 2 * RENEW_SECONDS < LEASE_SECONDS
