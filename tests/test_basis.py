"""Where the upstream costs another part of its list price, does every figure stand on its basis?"""

from collections.abc import AsyncIterator
from fractions import Fraction
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

import pytest
from conftest import World, world
from hypothesis import given
from hypothesis import strategies as st
from ledger_tools import NOW, a_hold, a_level, limited, opened, organization, rows

from gateway.billing.audit import audit
from gateway.billing.balances import ORGANIZATION, Refusal
from gateway.billing.ledger import correct, hold, list_entries, release, settle
from gateway.billing.money import COST, LIST, MAX_MICROS, Basis
from gateway.db.database import Database

# A bonus of ten percent on every top-up; and one that divides nothing.
BONUS_PPM = 909_091
# Longer than the lease of a poll.
PAST_A_TURN_SECONDS = 75
PPMS = [1, 333_333, BONUS_PPM, 1_000_000, 1_234_567]
LISTED = 400_000


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database
        assert await database.read(audit) == []


async def hold_one(database: Database, basis: Basis, number: int = 1) -> None:
    await database.run(partial(hold, a_hold(number, basis=basis), now=NOW))


async def settled(database: Database, listed: int, number: int = 1) -> None:
    script = partial(settle, f"hold_{number}", list_micros=listed, reason="", now=NOW)
    assert await database.run(script)


async def costs(database: Database) -> list[tuple[int, ...]]:
    found = await database.read(
        partial(
            rows,
            "SELECT spent_micros, list_micros, cost_micros, videos, clip_seconds FROM costs"
            " ORDER BY id",
        )
    )
    return [tuple(row.values()) for row in found]


def upward(listed: int, ppm: int) -> int:
    return ceil(Fraction(listed * ppm, 1_000_000))


@given(listed=st.integers(0, MAX_MICROS), ppm=st.integers(1, 10_000_000))
def test_a_cost_is_rounded_up_to_a_whole_micro(listed: int, ppm: int) -> None:
    assert Basis(COST, ppm).cost(listed) == Basis(LIST, ppm).cost(listed) == upward(listed, ppm)
    assert Basis(COST, ppm).amount(listed) == upward(listed, ppm)
    assert Basis(LIST, ppm).amount(listed) == listed


@pytest.mark.costly
@pytest.mark.parametrize("name", [LIST, COST])
@pytest.mark.parametrize("ppm", PPMS)
@pytest.mark.parametrize("listed", [LISTED, 1, 300_001, 700_003])
async def test_a_settle_of_less_the_same_or_more_stands_on_its_basis(
    database: Database, name: str, ppm: int, listed: int
) -> None:
    basis = Basis(name, ppm)
    held = LISTED if name == LIST else upward(LISTED, ppm)
    spent = listed if name == LIST else upward(listed, ppm)
    await hold_one(database, basis)
    assert await database.read(organization) == (0, held)
    await settled(database, listed)
    assert await database.read(organization) == (spent, 0)
    figures = (spent, listed, upward(listed, ppm), 1, 4)
    assert await costs(database) == [figures, figures]
    entries = await database.read(partial(list_entries, hold_id="hold_1"))
    assert [tuple(row)[2:6] for row in entries] == [
        (held, 0, 0, 0),
        (-held, spent, listed, upward(listed, ppm)),
    ]
    (stored,) = await database.read(partial(rows, "SELECT * FROM holds"))
    assert (stored["list_micros"], stored["amount_micros"]) == (LISTED, held)
    assert (stored["cost_multiplier_ppm"], stored["basis"]) == (ppm, name)
    assert stored["settled_micros"] == spent


@pytest.mark.parametrize("name", [LIST, COST])
async def test_a_release_frees_exactly_what_was_held(database: Database, name: str) -> None:
    await hold_one(database, Basis(name, 333_333))
    assert await database.run(partial(release, "hold_1", reason="", now=NOW))
    assert await database.read(organization) == (0, 0)
    assert await costs(database) == []


@pytest.mark.parametrize("name", [LIST, COST])
async def test_corrections_never_drift_from_the_rounded_total(
    database: Database, name: str
) -> None:
    ppm = 333_333
    await hold_one(database, Basis(name, ppm))
    await settled(database, LISTED)
    for number, listed in enumerate([1, 2, 3, 0, 7, 400_001, 0, 5]):
        script = partial(
            correct, "hold_1", entry_id=f"c{number}", list_micros=listed, reason="", now=NOW
        )
        (before, _) = await database.read(organization)
        spent = listed if name == LIST else upward(listed, ppm)
        assert await database.run(script) == spent - before
        assert await database.read(organization) == (spent, 0)
        videos = int(listed > 0)
        figures = (spent, listed, upward(listed, ppm), videos, 4 * videos)
        assert await costs(database) == [figures, figures]
        (stored,) = await database.read(partial(rows, "SELECT settled_micros FROM holds"))
        assert stored["settled_micros"] == spent


async def test_a_budget_on_cost_admits_what_the_cost_fits_and_no_more(database: Database) -> None:
    basis = Basis(COST, BONUS_PPM)
    price = upward(LISTED, BONUS_PPM)
    assert price == 363_637
    await database.run(partial(limited, a_level(ORGANIZATION), "day", 2 * price))
    await hold_one(database, basis, 1)
    await hold_one(database, basis, 2)
    with pytest.raises(Refusal):
        await database.run(partial(hold, a_hold(3, rate=1, basis=basis), now=NOW))
    assert await database.read(organization) == (0, 2 * price)


async def test_what_changes_between_hold_and_settle_does_not_change_the_terms_of_the_hold(
    tmp_path: Path,
) -> None:
    (folder := tmp_path / "gateway").mkdir()
    async with world(tmp_path) as beside:
        upstream: dict[str, Any] = {"upstream_base_url": beside.simulator.base_url}
        on_cost: dict[str, Any] = {"budget_basis": COST, "upstream_cost_multiplier_ppm": BONUS_PPM}
        async with world(folder, **upstream, **on_cost) as made:
            key = await made.key(budget="1.00")
            video_id = await made.buy(key, "[[queue 1]]")
            assert (await made.facts(video_id))["hold_micros"] == 363_637
        await beside.control.advance(1)
        async with world(folder, **upstream, budget_basis=LIST) as made:
            # A poll of the first that was broken off leaves its lease behind.
            made.timeline.offset_seconds += PAST_A_TURN_SECONDS
            assert (await made.ended(video_id))["hold_settled_micros"] == 363_637
            assert await made.total() == (363_637, 0)
            await made.ended(await made.buy(key))
            assert await made.total() == (763_637, 0)
            assert await made.adds_up()


async def bought(made: World, **body: str) -> tuple[int, dict[str, str], str]:
    key = await made.key(budget="1.00")
    async with made.client(key) as client:
        answer = await client.post("/videos", json={"prompt": "a cat", **body})
    return answer.status_code, dict(answer.headers), answer.text


@pytest.mark.parametrize(
    ("name", "cost", "left"), [(LIST, "0.80", "0.20"), (COST, "0.727273", "0.272727")]
)
async def test_a_client_sees_the_figures_that_its_budget_acts_on(
    tmp_path: Path, name: str, cost: str, left: str
) -> None:
    settings: dict[str, Any] = {"budget_basis": name, "upstream_cost_multiplier_ppm": BONUS_PPM}
    async with world(tmp_path, **settings) as made:
        status, headers, text = await bought(made, seconds="8")
        assert status == 200, text
        assert headers["x-gateway-cost-usd"] == cost
        assert headers["x-gateway-budget-remaining-usd"] == left


async def test_a_refusal_and_its_suggestion_are_on_the_basis(tmp_path: Path) -> None:
    settings: dict[str, Any] = {"budget_basis": COST, "upstream_cost_multiplier_ppm": BONUS_PPM}
    async with world(tmp_path, **settings) as made:
        status, _, text = await bought(made, seconds="12")
        assert status == 429
        assert "This request costs $1.09091, but the key's monthly budget of $1.00" in text
        assert "Would still fit: sora-2 at 720x1280 for 8 seconds ($0.727273)." in text
        key = await made.key()
        await made.limit("key", key.id, price_micros=799_999)
        async with made.client(key) as client:
            body = {"prompt": "a cat", "seconds": "8"}
            refused = await client.post("/videos", json=body)
            dry = await client.post("/videos", json=body, headers={"x-gateway-dry-run": "true"})
            assert (await client.post("/videos", json={"prompt": "a cat"})).status_code == 200
        # It is about what may be asked for, whatever the terms of the upstream are.
        message = (
            "This request costs $0.80 at list price, and one request of this key may cost"
            " $0.799999. Would still fit: sora-2 at 720x1280 for 4 seconds ($0.40)."
        )
        assert refused.json()["error"]["message"] == message
        assert (dry.json()["allowed"], dry.json()["message"]) == (False, message)
