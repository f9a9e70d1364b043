"""Does the gateway itself find out when its books no longer add up?"""

import asyncio
import contextlib
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from functools import partial
from pathlib import Path

from conftest import LogLines, World, command, eventually, world
from metrics_tools import scrape

from gateway.billing.audit_turns import RETRY_SECONDS, Auditing, audit_forever
from gateway.billing.comparisons import (
    Comparison,
    begin_audit,
    read_comparisons,
    write_comparison,
)
from gateway.db.script import Script, Sql
from gateway.setup import open_as_it_is

HOUR_SECONDS = 3_600


@asynccontextmanager
async def auditing(made: World) -> AsyncIterator[None]:
    """Audit beside the gateway's own loop, which looks once a minute."""
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(
            audit_forever(
                Auditing(
                    database=made.database,
                    apart=partial(open_as_it_is, made.settings),
                    clock=made.timeline.clock(),
                    interval_seconds=HOUR_SECONDS,
                    look_seconds=0.05,
                )
            )
        )
        yield
        loop.cancel()


async def last_audit(made: World) -> Comparison | None:
    found = await made.database.read(read_comparisons)
    return next((one for one in found if one.upstream is None), None)


async def test_books_that_add_up_are_audited_once_an_interval(
    studio: World, logged: LogLines
) -> None:
    await studio.ended(await studio.buy(await studio.key()))

    async def audited(times: int) -> bool:
        return len(logged.lines("ledger_audited")) == times

    async with auditing(studio):
        await eventually(partial(audited, 1))
        first = await last_audit(studio)
        assert first is not None
        assert first.differences == 0
        studio.timeline.offset_seconds += HOUR_SECONDS
        await eventually(partial(audited, 2))
    second = await last_audit(studio)
    assert second is not None
    assert second.compared_at >= first.compared_at + HOUR_SECONDS
    assert len(logged.lines("ledger_audited")) == 2


async def test_a_sum_that_is_wrong_rings_and_is_seen_until_it_is_right_again(
    studio: World, logged: LogLines
) -> None:
    key = await studio.key()
    await studio.ended(await studio.buy(key))
    wrong = "UPDATE balances SET spent_micros = spent_micros + $1 WHERE period = 'total'"
    await studio.change(wrong, 1)

    async def rang() -> bool:
        return bool(logged.lines("ledger_does_not_add_up"))

    async with auditing(studio):
        await eventually(rang)
    (line,) = logged.lines("ledger_does_not_add_up")
    assert (line["level"], line["differences"]) == ("error", 3)
    assert line["first"].startswith("balances/")
    found = await scrape(studio.gateway.ops_port)
    assert found.sum("ledger_audit_differences") == 3
    await studio.change(wrong, -1)
    process = await command("ledger", "audit", GATEWAY_DATABASE_URL=studio.settings.database_url)
    assert await process.wait() == 0
    found = await scrape(studio.gateway.ops_port)
    assert found.sum("ledger_audit_differences") == 0
    last = await last_audit(studio)
    assert last is not None
    assert found.sum("ledger_audit_timestamp_seconds") == last.compared_at


async def test_of_many_who_find_the_last_audit_too_old_one_makes_the_next(
    studio: World, logged: LogLines
) -> None:
    async with contextlib.AsyncExitStack() as stack:
        for _ in range(5):
            await stack.enter_async_context(auditing(studio))

        async def audited() -> bool:
            return await last_audit(studio) is not None

        await eventually(audited)
        studio.timeline.offset_seconds += HOUR_SECONDS

        async def audited_again() -> bool:
            return len(logged.lines("ledger_audited")) >= 2

        await eventually(audited_again)
    assert len(logged.lines("ledger_audited")) == 2


async def test_one_that_was_broken_off_is_begun_anew_after_an_hour(studio: World) -> None:
    now = studio.timeline.clock().now()
    begin = partial(begin_audit, older_than=0, retry_at=now - RETRY_SECONDS, now=now)
    assert await studio.database.run(begin)
    assert not await studio.database.run(begin)
    later = now + RETRY_SECONDS
    assert await studio.database.run(partial(begin_audit, older_than=0, retry_at=now, now=later))
    found = await studio.database.read(read_comparisons)
    assert found == []


async def test_whoever_ends_waits_for_no_audit(studio: World) -> None:
    under_way = threading.Event()

    # Counting a hundred million takes longer than anybody would wait.
    def long() -> Script[None]:
        yield Sql("SELECT 1 AS one")
        under_way.set()
        yield Sql(
            "WITH RECURSIVE numbers (n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers"
            " WHERE n < 100000000) SELECT COUNT(*) AS counted FROM numbers"
        )

    async def audit() -> None:
        opening = open_as_it_is(studio.settings, answer_seconds=60, breaks_off=True)
        async with opening as database:
            await database.read(long)

    async def begun() -> bool:
        return under_way.is_set()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(audit())
        await eventually(begun)
        task.cancel()
        _, late = await asyncio.wait([task], timeout=5)
        assert not late


async def test_the_gateway_audits_by_itself_unless_that_is_turned_off(tmp_path: Path) -> None:
    async with world(tmp_path / "on") as made:
        # Its loop looks once a minute: what is asked for here is that it is there at all.
        assert any("audit_forever" in repr(task) for task in asyncio.all_tasks())
        assert await last_audit(made) is None
    async with world(tmp_path / "off", audit_hours=0):
        assert not any("audit_forever" in repr(task) for task in asyncio.all_tasks())


async def test_a_comparison_takes_the_place_of_the_one_before_it(studio: World) -> None:
    audit = Comparison(None, compared_at=1, differences=0, drift_micros=0)
    bill = Comparison("default", compared_at=2, differences=3, drift_micros=-1_500_000)
    for one in (audit, bill, replace(audit, compared_at=4)):
        await studio.database.run(partial(write_comparison, one))
    found = await studio.database.read(read_comparisons)
    assert found == [replace(audit, compared_at=4), bill]
    shown = await scrape(studio.gateway.ops_port)
    assert shown.sum("reconciliation_drift_usd", upstream="default") == -1.5
    assert shown.sum("reconciliation_differences", upstream="default") == 3
    assert shown.sum("reconciliation_timestamp_seconds", upstream="default") == 2
