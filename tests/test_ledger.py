"""Does every movement of money count once, at any concurrency?"""

import asyncio
import random
import sys
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from databases import url_of
from ledger_tools import NOW, a_hold, a_level, balances, limited, opened, organization, rows

from gateway.billing.audit import audit
from gateway.billing.balances import ORGANIZATION, Refusal
from gateway.billing.ledger import (
    correct,
    hold,
    list_entries,
    release,
    settle,
)
from gateway.db.database import Database

DEADLINE_SECONDS = 60.0
BUDGET_MICROS = 12_345_678

HOLD_IN_ANOTHER_PROCESS = """
import asyncio, sys
from functools import partial
from gateway.billing.balances import Refusal
from gateway.billing.ledger import hold
from gateway.db.opening import open_database_url
from ledger_tools import NOW, a_hold

async def one(database, number):
    wanted = a_hold(f"{sys.argv[2]}_{number}", rate=1 + number * 977)
    try:
        await database.run(partial(hold, wanted, now=NOW))
    except Refusal:
        return 0
    return wanted.amount_micros

async def main():
    async with open_database_url(sys.argv[1]) as database:
        print("open", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        print(sum([await one(database, number) for number in range(100)]), flush=True)

asyncio.run(main())
"""


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


async def limit_organization(database: Database, micros: int = BUDGET_MICROS) -> None:
    await database.run(partial(limited, a_level(ORGANIZATION), "total", micros))


async def test_a_hold_touches_its_nine_balances_and_no_other(database: Database) -> None:
    await database.run(partial(hold, a_hold(1), now=NOW))
    await database.run(partial(hold, a_hold(2, key_id="key_c"), now=NOW))
    found = await database.read(balances)
    assert len(found) == 15  # the organization's three are shared
    for balance_id, (spent, held) in found.items():
        both = balance_id.startswith("organization")
        assert (spent, held) == (0, 800_000 if both else 400_000)


async def test_the_same_hold_counts_once(database: Database) -> None:
    await limit_organization(database)
    first = await database.run(partial(hold, a_hold(1), now=NOW))
    assert first is not None
    assert await database.run(partial(hold, a_hold(1), now=NOW + 1)) is None
    assert [one.held_micros for one in first] == [400_000]
    assert await database.read(organization) == (0, 400_000)


async def test_a_settle_frees_the_hold_and_charges_what_it_really_cost(database: Database) -> None:
    await database.run(partial(hold, a_hold(1), now=NOW))
    end = partial(settle, "hold_1", list_micros=300_000, reason="completed", now=NOW + 5)
    assert await database.run(end)
    assert await database.read(organization) == (300_000, 0)
    assert set((await database.read(balances)).values()) == {(300_000, 0)}


async def test_more_than_was_held_is_settled_whatever_the_limit(database: Database) -> None:
    await limit_organization(database, 400_000)
    await database.run(partial(hold, a_hold(1), now=NOW))
    await database.run(partial(settle, "hold_1", list_micros=500_000, reason="", now=NOW))
    assert await database.read(organization) == (500_000, 0)


@pytest.mark.parametrize("first", ["settle", "release"])
@pytest.mark.parametrize("second", ["settle", "release"])
async def test_a_hold_ends_once(database: Database, first: str, second: str) -> None:
    ends = {
        "settle": partial(settle, "hold_1", list_micros=300_000, reason="", now=NOW),
        "release": partial(release, "hold_1", reason="", now=NOW),
    }
    await database.run(partial(hold, a_hold(1), now=NOW))
    assert await database.run(ends[first])
    before = await database.read(balances)
    assert not await database.run(ends[second])
    assert await database.read(balances) == before
    assert before["organization:organization:total:all"] == (
        300_000 if first == "settle" else 0,
        0,
    )


async def test_a_hold_that_does_not_exist_cannot_end(database: Database) -> None:
    assert not await database.run(partial(settle, "nobody", list_micros=1, reason="", now=NOW))
    assert not await database.run(partial(release, "nobody", reason="", now=NOW))


async def test_an_adjust_counts_once_and_leaves_the_hold_ended(database: Database) -> None:
    await database.run(partial(hold, a_hold(1), now=NOW))
    await database.run(partial(settle, "hold_1", list_micros=300_000, reason="", now=NOW))
    script = partial(
        correct, "hold_1", entry_id="refund", list_micros=200_000, reason="refund", now=NOW
    )
    assert await database.run(script) == -100_000
    assert await database.run(script) == 0
    assert await database.read(organization) == (200_000, 0)
    (row,) = await database.read(partial(rows, "SELECT state, settled_micros FROM holds"))
    assert (row["state"], row["settled_micros"]) == ("settled", 200_000)


async def test_an_entry_id_counts_once_whatever_it_is_used_for_again(database: Database) -> None:
    await database.run(partial(hold, a_hold(1), now=NOW))
    await database.run(partial(settle, "hold_1", list_micros=300_000, reason="", now=NOW))
    for micros, change in [(200_000, -100_000), (250_000, 0)]:
        script = partial(
            correct, "hold_1", entry_id="refund", list_micros=micros, reason="refund", now=NOW
        )
        assert await database.run(script) == change
    assert await database.read(organization) == (200_000, 0)


async def test_a_correction_makes_a_hold_cost_what_it_should(database: Database) -> None:
    await database.run(partial(hold, a_hold(1), now=NOW))
    await database.run(partial(release, "hold_1", reason="", now=NOW))
    script = partial(
        correct, "hold_1", entry_id="late", list_micros=400_000, reason="late", now=NOW
    )
    assert await database.run(script) == 400_000
    assert await database.run(script) == 0
    assert await database.read(organization) == (400_000, 0)


async def test_entries_tell_what_happened_in_order(database: Database) -> None:
    await database.run(partial(hold, a_hold(1), now=NOW))
    await database.run(partial(settle, "hold_1", list_micros=300_000, reason="done", now=NOW))
    await database.run(
        partial(correct, "hold_1", entry_id="a", list_micros=299_999, reason="refund", now=NOW + 1)
    )
    entries = await database.read(partial(list_entries, hold_id="hold_1"))
    assert [tuple(row)[1:-1] for row in entries] == [
        ("hold", 400_000, 0, 0, 0, ""),
        ("settle", -400_000, 300_000, 300_000, 300_000, "done"),
        ("adjust", 0, -1, -1, -1, "refund"),
    ]


async def test_the_rate_and_its_card_are_stored_with_the_hold(database: Database) -> None:
    await database.run(partial(hold, a_hold(1, seconds=8), now=NOW))
    (row,) = await database.read(partial(rows, "SELECT * FROM holds"))
    assert (row["rate_micros"], row["unit"], row["clip_seconds"]) == (100_000, "second", 8)
    assert (row["amount_micros"], row["rate_card_sha256"]) == (800_000, "0" * 64)
    assert row["accounting_day"] == "2026-11-30"


async def test_two_hundred_concurrent_holds_admit_exactly_what_fits(database: Database) -> None:
    await limit_organization(database)
    chance = random.Random(4)
    wanted = [
        a_hold(number, key_id=chance.choice(["key_a", "key_b", "key_c"]), rate=chance.choice(rates))
        for number, rates in enumerate([[1, 33_333, 100_000, 175_000]] * 200)
    ]

    async def one(number: int) -> bool:
        try:
            await database.run(partial(hold, wanted[number], now=NOW))
        except Refusal as refusal:
            (standing,) = refusal.refusing
            assert standing.available_micros < wanted[number].amount_micros
            return False
        return True

    admitted = await asyncio.gather(*(one(number) for number in range(200)))
    # In the order in which they stood in the queue, each is admitted if and only if it fits.
    held = 0
    for each, was_admitted in zip(wanted, admitted, strict=True):
        assert was_admitted == (held + each.amount_micros <= BUDGET_MICROS)
        held += each.amount_micros if was_admitted else 0
    assert await database.read(organization) == (0, held)
    assert BUDGET_MICROS - held < max(each.amount_micros for each in wanted)
    assert await database.read(audit) == []


async def test_a_hundred_racing_ends_of_one_hold_end_it_once(database: Database) -> None:
    await database.run(partial(hold, a_hold(1), now=NOW))
    ends = [
        partial(settle, "hold_1", list_micros=number, reason="", now=NOW)
        if number % 2
        else partial(release, "hold_1", reason="", now=NOW)
        for number in range(100)
    ]
    ended = await asyncio.gather(*(database.run(end) for end in ends))
    assert sum(ended) == 1
    assert await database.read(audit) == []


async def test_two_processes_on_one_database_cannot_pass_one_budget(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    async with opened(path) as database, asyncio.timeout(DEADLINE_SECONDS):
        await limit_organization(database)
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", HOLD_IN_ANOTHER_PROCESS, url_of(path), name),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                env={"PYTHONPATH": ":".join(sys.path)},
            )
            for name in ("one", "two")
        ]
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"open\n"
        answers = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
        held = [int(answer) for answer, _ in answers]
        assert await database.read(organization) == (0, sum(held))
        assert sum(held) <= BUDGET_MICROS
        assert await database.read(audit) == []
        # Both were refused something in the end: less is left than the dearest would cost.
        assert BUDGET_MICROS - sum(held) < 4 * (1 + 99 * 977)
