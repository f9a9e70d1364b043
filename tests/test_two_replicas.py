"""Are two gateways on one database as exact as one?

Both stand in this process; all they share is the database, to which each has its own connections.
"""

import asyncio
import random
from collections.abc import AsyncIterator
from functools import partial
from itertools import chain, repeat
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import pytest
import pytest_asyncio
from conftest import World, world
from databases import opened_at
from ledger_tools import (
    KEYS,
    NOW,
    a_hold,
    a_level,
    balances,
    followed,
    limited,
    opened,
    organization,
    rows,
)

from gateway.app import running
from gateway.billing.audit import audit
from gateway.billing.balances import KEY, ORGANIZATION, PROJECT, Refusal
from gateway.billing.keys import NewKey
from gateway.billing.ledger import Hold, correct, hold, release, settle
from gateway.db.database import Database

ROUNDS = 5
HOLDS = 200
# Of each level: the organization, both projects, one key.
BUDGETS = {
    (ORGANIZATION, "organization"): 9_000_000,
    (PROJECT, "proj_a"): 6_000_000,
    (PROJECT, "proj_b"): 5_000_000,
    (KEY, "key_a"): 2_500_000,
}
REPLAYED = "idempotent-replayed"
DEDUPLICATED = "x-gateway-deduplicated"
PRICE_MICROS = 400_000


class Replicas(NamedTuple):
    """Two gateways, and the world that the first of them belongs to."""

    made: World
    urls: tuple[str, str]

    async def create(self, key: NewKey, *, times: int, **headers: str) -> list[httpx.Response]:
        """Create one and the same video so many times at once, at both."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}
        async with self.made.client(key) as client:
            await asyncio.gather(*(client.get(f"{url}/models") for url in self.urls))
            urls = chain.from_iterable(repeat(self.urls))
            return await asyncio.gather(
                *(
                    client.post(f"{next(urls)}/videos", json={"prompt": "a cat"}, headers=named)
                    for _ in range(times)
                )
            )


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def replicas(place: Path) -> AsyncIterator[Replicas]:
    async with (
        world(place / "replicas") as made,
        running(made.settings, clock=made.timeline.clock()) as second,
    ):
        # Nothing here is about content.
        await made.control.fault("404", operation="content", times=None)
        yield Replicas(made, (made.base_url, second.base_url))


@pytest_asyncio.fixture(loop_scope="module")
async def pair(tmp_path: Path) -> AsyncIterator[tuple[Database, Database]]:
    """One database, opened twice."""
    path = tmp_path / "gateway.db"
    async with opened(path) as one, opened_at(path) as other:
        yield one, other


pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_one_idempotency_key_at_both_at_once_buys_one_video(replicas: Replicas) -> None:
    for number in range(ROUNDS):
        key, before = await replicas.made.key(name=f"{number}"), await replicas.made.executions()
        answers = await replicas.create(key, times=8, idempotency_key=f"race {number}")
        assert {answer.status_code for answer in answers} == {200}
        assert len({answer.content for answer in answers}) == 1
        assert [answer.headers.get(REPLAYED) for answer in answers].count("true") == 7
        assert await replicas.made.executions() == before + 1
    assert await replicas.made.adds_up()


async def test_two_retries_of_one_count_at_both_at_once_do_not_share_an_attempt(
    replicas: Replicas,
) -> None:
    for number in range(ROUNDS):
        key, before = await replicas.made.key(name=f"{number}"), await replicas.made.executions()
        (first,) = await replicas.create(key, times=1)
        answers = await replicas.create(key, times=2, x_stainless_retry_count="1")
        assert {answer.status_code for answer in answers} == {200}
        told = {answer.headers.get(DEDUPLICATED): answer.json()["id"] for answer in answers}
        assert set(told) == {"true", None}
        assert told["true"] == first.json()["id"] != told[None]
        assert await replicas.made.executions() == before + 2
    assert await replicas.made.adds_up()


async def test_creates_at_both_at_once_buy_exactly_what_the_budget_is_for(
    replicas: Replicas,
) -> None:
    key, before = await replicas.made.key(budget="2.00"), await replicas.made.executions()
    answers = await replicas.create(key, times=20)
    codes = [answer.status_code for answer in answers]
    assert (codes.count(200), codes.count(429)) == (5, 15)
    assert await replicas.made.executions() == before + 5


async def test_two_hundred_holds_at_both_at_once_are_admitted_if_they_fit_at_every_level(
    pair: tuple[Database, Database],
) -> None:
    for (level, level_id), micros in BUDGETS.items():
        await pair[0].run(partial(limited, a_level(level, level_id), "total", micros))
    chance = random.Random(7)
    wanted = [
        a_hold(number, key_id=chance.choice(sorted(KEYS)), rate=chance.choice([1, 33_333, 100_000]))
        for number in range(HOLDS)
    ]

    async def one(number: int) -> Refusal | None:
        try:
            await pair[number % 2].run(partial(hold, wanted[number], now=NOW))
        except Refusal as refusal:
            return refusal
        return None

    answers = await asyncio.gather(*(one(number) for number in range(HOLDS)))
    admitted = [each for each, refusal in zip(wanted, answers, strict=True) if refusal is None]
    for each, refusal in zip(wanted, answers, strict=True):
        for standing in () if refusal is None else refusal.refusing:
            assert standing.available_micros < each.amount_micros
    held = await pair[0].read(balances)
    for (level, level_id), micros in BUDGETS.items():
        taken = sum(each.amount_micros for each in admitted if level_id in ids_of(each))
        assert held[f"{level}:{level_id}:total:all"] == (0, taken)
        assert taken <= micros
    # Nothing that would have fitted was refused in the end: the same again is refused altogether.
    for each in [
        each for each, refusal in zip(wanted, answers, strict=True) if refusal is not None
    ]:
        with pytest.raises(Refusal):
            await pair[0].run(partial(hold, each, now=NOW))
    assert await pair[1].read(audit) == []


def ids_of(each: Hold) -> set[str]:
    return {"organization", each.account.project_id, each.account.key_id}


@pytest.mark.parametrize("same_entry", [True, False])
async def test_corrections_at_both_at_once_leave_what_the_last_one_says(
    pair: tuple[Database, Database], *, same_entry: bool
) -> None:
    for number in range(ROUNDS):
        hold_id = f"hold_{number}"
        await pair[0].run(partial(hold, a_hold(number), now=NOW))
        await pair[0].run(partial(settle, hold_id, list_micros=300_000, reason="", now=NOW))
        amounts = [100_000] * 8 if same_entry else [100_000 + one for one in range(8)]
        changes = await asyncio.gather(
            *(
                pair[place % 2].run(
                    partial(
                        correct,
                        hold_id,
                        entry_id=f"{hold_id}/{0 if same_entry else place}",
                        list_micros=amount,
                        reason="bill",
                        now=NOW,
                    )
                )
                for place, amount in enumerate(amounts)
            )
        )
        (row,) = await pair[1].read(
            partial(rows, f"SELECT settled_micros FROM holds WHERE id = '{hold_id}'")
        )
        assert row["settled_micros"] == 300_000 + sum(changes)
        assert row["settled_micros"] in amounts
        assert len([change for change in changes if change]) == (1 if same_entry else len(amounts))
    assert await pair[0].read(audit) == []


async def test_ends_of_one_hold_at_both_at_once_end_it_once(
    pair: tuple[Database, Database],
) -> None:
    for number in range(ROUNDS):
        hold_id = f"hold_{number}"
        await pair[0].run(partial(hold, a_hold(number), now=NOW))
        ends: list[Any] = [
            partial(settle, hold_id, list_micros=PRICE_MICROS, reason="", now=NOW),
            partial(release, hold_id, reason="", now=NOW),
        ]
        ended = await asyncio.gather(*(pair[place % 2].run(ends[place % 2]) for place in range(8)))
        assert sum(ended) == 1
    assert (await pair[1].read(organization))[1] == 0
    assert await pair[1].read(audit) == []


async def test_one_video_recorded_at_both_at_once_is_one(pair: tuple[Database, Database]) -> None:
    await asyncio.gather(*(pair[place % 2].run(followed) for place in range(8)))
    assert len(await pair[0].read(partial(rows, "SELECT id FROM videos"))) == 1
    assert await pair[0].read(organization) == (0, PRICE_MICROS)
    assert await pair[1].read(audit) == []
