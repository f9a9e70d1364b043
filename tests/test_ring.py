"""Does a spend alert ring when its threshold is crossed, once, and for nothing else?"""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ledger_tools import KEYS, NOW, a_change, a_hold, a_level, limited, opened, rows

from gateway.billing.alerts import (
    create_alert,
    delete_alert,
    find_alert,
    get_alert,
    list_alerts,
    list_deliveries,
    update_alert,
)
from gateway.billing.balances import KEY, ORGANIZATION, ORGANIZATION_ID, PROJECT
from gateway.billing.ledger import correct, hold, release, settle
from gateway.billing.money import Basis
from gateway.db.database import Database
from gateway.db.paging import Cursor

PRICE = 400_000
# The next hour is the next day, and the next month.
TOMORROW = NOW + 3600
MAIL = {"type": "email", "recipients": ["ops@example.com"]}
LEVELS = [(ORGANIZATION, ORGANIZATION_ID), (PROJECT, "proj_a"), (KEY, "key_a")]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


async def alert(
    database: Database,
    threshold: int,
    *,
    level: str = KEY,
    level_id: str = "key_a",
    period: str = "month",
    name: str = "alert",
    now: int = NOW,
) -> None:
    script = partial(
        create_alert,
        a_change(f"make {name}", now=now),
        a_level(level, level_id),
        alert_id=name,
        period=period,
        threshold_micros=threshold,
        channel=MAIL,
    )
    await database.run(script)


async def change(
    database: Database, threshold: int, *, period: str = "month", now: int = NOW
) -> None:
    script = partial(
        update_alert,
        a_change(f"{threshold} {period}", now=now),
        a_level(KEY, "key_a"),
        alert_id="alert",
        period=period,
        threshold_micros=threshold,
        channel=MAIL,
    )
    assert await database.run(script) is not None


async def spend(
    database: Database, number: int, micros: int = PRICE, *, key_id: str = "key_a", now: int = NOW
) -> None:
    await database.run(partial(hold, a_hold(number, key_id=key_id, now=now), now=now))
    await settled(database, number, micros, now=now)


async def settled(database: Database, number: int, micros: int = PRICE, *, now: int = NOW) -> None:
    script = partial(settle, f"hold_{number}", list_micros=micros, reason="", now=now)
    await database.run(script)


async def rung(database: Database) -> list[dict[str, Any]]:
    return await database.read(partial(rows, "SELECT * FROM alert_deliveries ORDER BY id"))


async def thresholds(database: Database) -> list[tuple[str, int, int]]:
    return [
        (one["period_start"], one["threshold_micros"], one["spent_micros"])
        for one in await rung(database)
    ]


async def test_an_alert_rings_at_the_settle_that_crosses_and_at_no_other(
    database: Database,
) -> None:
    await alert(database, 2 * PRICE)
    await spend(database, 1)
    await spend(database, 2, PRICE - 1)
    assert await rung(database) == []
    await spend(database, 3)
    await spend(database, 4)
    (one,) = await rung(database)
    assert (one["alert_id"], one["level"], one["level_id"], one["name"]) == (
        "alert",
        KEY,
        "key_a",
        "name of key_a",
    )
    assert (one["period"], one["period_start"]) == ("month", "2026-11-01")
    assert (one["threshold_micros"], one["spent_micros"], one["limit_micros"]) == (
        2 * PRICE,
        3 * PRICE - 1,
        None,
    )
    assert (one["created_at"], one["due_at"], one["attempts"]) == (NOW, NOW, 0)


async def test_exactly_the_threshold_rings(database: Database) -> None:
    await alert(database, PRICE)
    await spend(database, 1)
    assert await thresholds(database) == [("2026-11-01", PRICE, PRICE)]


async def test_neither_a_hold_nor_a_release_rings(database: Database) -> None:
    await alert(database, 1)
    await database.run(partial(hold, a_hold(1), now=NOW))
    await database.run(partial(release, "hold_1", reason="", now=NOW))
    await spend(database, 2, 0)
    assert await rung(database) == []


async def test_a_correction_rings_when_it_crosses(database: Database) -> None:
    await alert(database, 2 * PRICE)
    await spend(database, 1)
    for micros, expected in [(PRICE // 2, 0), (2 * PRICE, 1), (3 * PRICE, 1)]:
        script = partial(
            correct, "hold_1", entry_id=f"c{micros}", list_micros=micros, reason="", now=NOW
        )
        await database.run(script)
        await database.run(script)
        assert len(await rung(database)) == expected


async def test_it_does_not_ring_again_after_a_correction_below_the_threshold(
    database: Database,
) -> None:
    await alert(database, PRICE)
    await spend(database, 1)
    script = partial(correct, "hold_1", entry_id="c", list_micros=0, reason="", now=NOW)
    await database.run(script)
    await spend(database, 2)
    assert await thresholds(database) == [("2026-11-01", PRICE, PRICE)]


async def test_a_replay_rings_nothing(database: Database) -> None:
    await alert(database, PRICE)
    await spend(database, 1)
    before = await rung(database)
    await settled(database, 1, 9 * PRICE, now=NOW + 5)
    await alert(database, PRICE)
    assert await rung(database) == before


@pytest.mark.parametrize(
    ("period", "starts"),
    [
        ("day", ["2026-11-30", "2026-12-01"]),
        ("month", ["2026-11-01", "2026-12-01"]),
        ("total", ["all"]),
    ],
)
@pytest.mark.parametrize(("level", "level_id"), LEVELS)
async def test_an_alert_rings_once_in_each_period_of_its_level(
    database: Database, level: str, level_id: str, period: str, starts: list[str]
) -> None:
    await alert(database, PRICE, level=level, level_id=level_id, period=period)
    await spend(database, 1)
    await spend(database, 2)
    await spend(database, 3, now=TOMORROW)
    await spend(database, 4, now=TOMORROW)
    assert [one["period_start"] for one in await rung(database)] == starts
    assert {one["level_id"] for one in await rung(database)} == {level_id}


async def test_only_its_own_level_rings_an_alert(database: Database) -> None:
    for level, level_id in [*LEVELS, (KEY, "key_b"), (PROJECT, "proj_b"), (KEY, "key_c")]:
        await alert(database, PRICE, level=level, level_id=level_id, name=f"alert of {level_id}")
    await spend(database, 1, key_id="key_b")
    assert {one["level_id"] for one in await rung(database)} == {
        ORGANIZATION_ID,
        KEYS["key_b"],
        "key_b",
    }
    assert {one["name"] for one in await rung(database)} == {
        "organization",
        "name of proj_a",
        "name of key_b",
    }


async def test_what_was_held_last_month_rings_for_last_month(database: Database) -> None:
    await alert(database, PRICE)
    await database.run(partial(hold, a_hold(1), now=NOW))
    await settled(database, 1, now=TOMORROW)
    assert await thresholds(database) == [("2026-11-01", PRICE, PRICE)]
    (one,) = await rung(database)
    assert one["created_at"] == TOMORROW
    await spend(database, 2, now=TOMORROW)
    assert [start for start, *_ in await thresholds(database)] == ["2026-11-01", "2026-12-01"]


async def test_an_alert_made_after_the_crossing_rings_at_once_for_the_running_period(
    database: Database,
) -> None:
    await spend(database, 1)
    await alert(database, PRICE, name="early")
    assert [one["alert_id"] for one in await rung(database)] == ["early"]
    await alert(database, PRICE + 1, name="not yet")
    await alert(database, PRICE, name="tomorrow", now=TOMORROW)
    assert [one["alert_id"] for one in await rung(database)] == ["early"]


async def test_another_threshold_rings_anew_and_the_same_does_not(database: Database) -> None:
    await alert(database, PRICE)
    await spend(database, 1)
    await change(database, PRICE)
    assert len(await rung(database)) == 1
    await change(database, PRICE // 2)
    assert {one[1] for one in await thresholds(database)} == {PRICE // 2, PRICE}
    await change(database, 2 * PRICE)
    assert len(await rung(database)) == 2
    await spend(database, 2)
    assert len(await rung(database)) == 3
    await change(database, PRICE)
    assert len(await rung(database)) == 3


async def test_another_period_rings_anew_also_on_the_first_of_a_month(database: Database) -> None:
    await alert(database, PRICE, period="day", now=TOMORROW)
    await spend(database, 1, now=TOMORROW)
    await change(database, PRICE, period="month", now=TOMORROW)
    assert [(one["period"], one["period_start"]) for one in await rung(database)] == [
        ("day", "2026-12-01"),
        ("month", "2026-12-01"),
    ]


async def test_a_deleted_alert_does_not_ring_and_what_rang_before_stays(
    database: Database,
) -> None:
    await alert(database, PRICE)
    await alert(database, 2 * PRICE, name="second")
    await spend(database, 1)
    for name in ("alert", "second"):
        script = partial(
            delete_alert, a_change(f"end {name}"), a_level(KEY, "key_a"), alert_id=name
        )
        assert await database.run(script)
        again = partial(delete_alert, a_change("again"), a_level(KEY, "key_a"), alert_id=name)
        assert not await database.run(again)
    await spend(database, 2)
    assert [one["alert_id"] for one in await rung(database)] == ["alert"]
    assert (await rung(database))[0]["due_at"] == NOW
    assert await database.read(partial(find_alert, "alert")) is None


async def test_an_alert_is_about_what_counts_against_the_budget(database: Database) -> None:
    await alert(database, 133_334)
    cost = Basis("cost", 333_333)
    for number, expected in [(1, 0), (2, 1)]:
        wanted = a_hold(number, basis=cost)
        await database.run(partial(hold, wanted, now=NOW))
        await settled(database, number, 300_000)
        assert len(await rung(database)) == expected


async def test_a_delivery_says_which_limit_stood_when_it_rang(database: Database) -> None:
    await alert(database, PRICE)
    await database.run(partial(limited, a_level(KEY, "key_a"), "month", 10 * PRICE))
    await spend(database, 1)
    await database.run(partial(limited, a_level(KEY, "key_a"), "month", 20 * PRICE))
    (one,) = (await database.read(partial(list_deliveries, Cursor()))).rows
    assert (one["limit_micros"], one["spent_micros"]) == (10 * PRICE, PRICE)
    assert (one["attempts"], one["delivered_at"], one["given_up_at"]) == (0, None, None)


async def test_alerts_are_listed_and_found_by_their_level_only(database: Database) -> None:
    await alert(database, PRICE)
    await alert(database, PRICE, level=PROJECT, level_id="proj_a", name="other")
    key, project = a_level(KEY, "key_a"), a_level(PROJECT, "proj_a")
    for level, expected in [(key, ["alert"]), (project, ["other"]), (None, ["other", "alert"])]:
        page = await database.read(partial(list_alerts, Cursor(), level=level))
        assert [one["id"] for one in page.rows] == expected
    assert await database.read(partial(get_alert, project, alert_id="alert")) is None
    foreign = partial(delete_alert, a_change("foreign"), project, alert_id="alert")
    assert not await database.run(foreign)
    foreign_change = partial(
        update_alert,
        a_change("foreign"),
        project,
        alert_id="alert",
        period="day",
        threshold_micros=1,
        channel=MAIL,
    )
    assert await database.run(foreign_change) is None
    assert await database.read(partial(get_alert, key, alert_id="alert")) is not None
