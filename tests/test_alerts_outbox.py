"""Is a delivery written down only by the one whose turn it is?"""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from databases import opened_at
from mail_tools import EMAIL, NOW, opened, outbox, put

from gateway.alerts.deliver import (
    FIRST_WAIT_SECONDS,
    GIVE_UP_SECONDS,
    MAX_WAIT_SECONDS,
    next_due,
)
from gateway.alerts.outbox import (
    DeliveryClaim,
    claim_due,
    give_back,
    write_delivered,
    write_failed,
    write_given_up,
)
from gateway.db.database import Database
from gateway.turns import LEASE_SECONDS


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        await database.run(partial(put, 1, channel=EMAIL))
        yield database


async def claim(database: Database, *, now: int = NOW, limit: int = 1) -> list[DeliveryClaim]:
    return await database.run(
        partial(claim_due, limit=limit, lease_ends_at=now + LEASE_SECONDS, now=now)
    )


async def test_a_claim_lasts_for_its_lease_and_is_counted(database: Database) -> None:
    (first,) = await claim(database)
    assert await claim(database, now=NOW + LEASE_SECONDS - 1) == []
    (second,) = await claim(database, now=NOW + LEASE_SECONDS)
    assert (first.claim_number, first.attempts) == (1, 1)
    assert (second.claim_number, second.attempts) == (2, 2)
    assert second.crossing == first.crossing
    assert first.log_facts == {
        "delivery_id": "alert_1:2026-11-01:10000000",
        "alert_id": "alert_1",
        "project_id": first.crossing.level_id,
        "threshold_micros": first.crossing.threshold_micros,
        "spent_micros": first.crossing.spent_micros,
    }


async def test_a_claim_that_was_lost_writes_nothing(database: Database) -> None:
    (lost,) = await claim(database)
    (mine,) = await claim(database, now=NOW + LEASE_SECONDS)
    before = await outbox(database)
    assert not await database.run(partial(write_delivered, lost, note=None, now=NOW))
    assert not await database.run(partial(write_failed, lost, failure="mail_tls", due_at=NOW))
    assert not await database.run(partial(write_given_up, lost, failure="mail_tls", now=NOW))
    assert await outbox(database) == before
    assert await database.run(partial(write_delivered, mine, note=None, now=NOW + 61))
    row = (await outbox(database))["alert_1"]
    assert (row["delivered_at"], row["due_at"], row["failure"]) == (NOW + 61, None, None)


async def test_what_is_given_back_is_due_at_once_but_not_what_is_delivered(
    database: Database,
) -> None:
    (first,) = await claim(database)
    await database.run(partial(give_back, [first], now=NOW + 5))
    (second,) = await claim(database, now=NOW + 5)
    await database.run(partial(give_back, [first], now=NOW + 6))
    assert await claim(database, now=NOW + 6) == []
    await database.run(partial(write_delivered, second, note=None, now=NOW + 6))
    await database.run(partial(give_back, [second], now=NOW + 7))
    assert await claim(database, now=NOW + 10**9) == []


async def test_what_is_delivered_or_given_up_is_never_due_again(database: Database) -> None:
    await database.run(partial(put, 2, channel=EMAIL))
    one, two = await claim(database, limit=2)
    await database.run(partial(write_delivered, one, note="mail_recipients 1 of 2", now=NOW))
    await database.run(partial(write_given_up, two, failure="mail_timeout", now=NOW + 1))
    assert await claim(database, now=NOW + 10**9, limit=9) == []
    found = await outbox(database)
    assert found["alert_1"]["failure"] == "mail_recipients 1 of 2"
    assert (found["alert_2"]["given_up_at"], found["alert_2"]["failure"]) == (
        NOW + 1,
        "mail_timeout",
    )


async def test_a_new_delivery_goes_before_those_that_failed(database: Database) -> None:
    (old,) = await claim(database)
    await database.run(partial(write_failed, old, failure="mail_timeout", due_at=NOW + 10))
    await database.run(partial(put, 2, channel=EMAIL, now=NOW + 20))
    assert [one.crossing.alert_id for one in await claim(database, now=NOW + 20)] == ["alert_2"]
    (again,) = await claim(database, now=NOW + 20)
    assert (again.crossing.alert_id, again.failure) == ("alert_1", "mail_timeout")


async def test_two_workers_never_both_hold_one_claim(tmp_path: Path) -> None:
    async with AsyncExitStack() as stack:
        path = tmp_path / "shared.db"
        first = await stack.enter_async_context(opened(path))
        second = await stack.enter_async_context(opened_at(path))
        for number in range(40):
            await first.run(partial(put, number, channel=EMAIL))
        async with asyncio.TaskGroup() as group:
            claims = [
                group.create_task(claim(database, limit=3))
                for _ in range(10)
                for database in (first, second)
            ]
        held = [one.crossing.id for task in claims for one in task.result()]
        assert len(held) == len(set(held)) == 40


def test_the_waits_double_from_ten_seconds_to_an_hour() -> None:
    waits = [
        (next_due(attempts=attempts, created_at=NOW, now=NOW, chance=0.0) or 0) - NOW
        for attempts in (*range(1, 12), 10_000)
    ]
    assert waits == [10, 20, 40, 80, 160, 320, 640, 1280, 2560, 3600, 3600, 3600]
    assert (waits[0], waits[-1]) == (FIRST_WAIT_SECONDS, MAX_WAIT_SECONDS)


def test_chance_adds_up_to_a_fifth() -> None:
    due = [next_due(attempts=4, created_at=NOW, now=NOW, chance=one) for one in (0, 0.5, 0.999)]
    assert due == [NOW + 80, NOW + 88, NOW + 95]


def test_the_last_try_is_three_days_after_the_alert() -> None:
    end = NOW + GIVE_UP_SECONDS
    assert GIVE_UP_SECONDS == 72 * 3600
    assert next_due(attempts=80, created_at=NOW, now=end - 5, chance=0.0) == end
    assert next_due(attempts=81, created_at=NOW, now=end, chance=0.0) is None
