"""Is a limit in force where, when and for whom it was set?"""

from collections.abc import AsyncIterator
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path

import pytest
from ledger_tools import NOW, a_change, a_hold, a_level, account, limited, opened, rows

from gateway.billing import ledger
from gateway.billing.balances import (
    ORGANIZATION_ID,
    THE_ORGANIZATION,
    Refusal,
    Standing,
    accounting_day,
    period_start,
)
from gateway.billing.budgets import get_budget, list_budgets, remove_budget
from gateway.billing.levels import find_level
from gateway.billing.projects import SeveralProjects, create_project
from gateway.billing.spend import spend_by_level
from gateway.db.database import Database

DAY_SECONDS = 86_400


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


async def limit(
    database: Database,
    level: str,
    level_id: str,
    period: str,
    micros: int,
    *,
    now: int = NOW,
) -> Standing:
    return await database.run(partial(limited, a_level(level, level_id), period, micros, now=now))


async def hold(database: Database, number: int, key_id: str = "key_a", *, now: int = NOW) -> bool:
    """Hold 0.40 dollars; tell whether the budgets allowed it."""
    wanted = a_hold(number, key_id=key_id, now=now)
    try:
        await database.run(partial(ledger.hold, wanted, now=now))
    except Refusal:
        return False
    return True


def test_a_day_ends_at_midnight_utc() -> None:
    midnight = int(datetime(2027, 1, 1, tzinfo=UTC).timestamp())
    assert accounting_day(midnight - 1) == "2026-12-31"
    assert accounting_day(midnight) == "2027-01-01"
    assert period_start("month", date(2026, 12, 31)) == "2026-12-01"
    assert period_start("total", date(2026, 12, 31)) == "all"


def test_an_account_names_nine_balances_of_its_day() -> None:
    assert [name.id for name in account("key_c").balances()] == [
        "organization:organization:day:2026-11-30",
        "organization:organization:month:2026-11-01",
        "organization:organization:total:all",
        "project:proj_b:day:2026-11-30",
        "project:proj_b:month:2026-11-01",
        "project:proj_b:total:all",
        "key:key_c:day:2026-11-30",
        "key:key_c:month:2026-11-01",
        "key:key_c:total:all",
    ]


@pytest.mark.parametrize("period", ["day", "month", "total"])
@pytest.mark.parametrize(
    ("level", "level_id", "same", "other"),
    [
        ("organization", ORGANIZATION_ID, "key_c", None),
        ("project", "proj_a", "key_b", "key_c"),
        ("key", "key_a", "key_a", "key_b"),
    ],
)
async def test_a_budget_binds_its_level_in_its_period_and_nobody_else(
    database: Database, period: str, level: str, level_id: str, same: str, other: str | None
) -> None:
    await limit(database, level, level_id, period, 799_999)
    assert await hold(database, 1)
    assert not await hold(database, 2, same)
    assert other is None or await hold(database, 3, other)


async def test_exactly_the_budget_may_be_held(database: Database) -> None:
    await limit(database, "key", "key_a", "day", 800_000)
    assert [await hold(database, number) for number in range(3)] == [True, True, False]


async def test_a_budget_of_zero_admits_nothing(database: Database) -> None:
    await limit(database, "project", "proj_a", "total", 0)
    assert not await hold(database, 1)


async def test_a_refusal_shows_every_balance_that_refused_and_changes_nothing(
    database: Database,
) -> None:
    await limit(database, "project", "proj_a", "day", 100)
    await limit(database, "key", "key_a", "total", 200)
    await limit(database, "key", "key_a", "month", 10_000_000)
    with pytest.raises(Refusal) as refusal:
        await database.run(partial(ledger.hold, a_hold(1), now=NOW))
    assert {(one.level, one.period, one.available_micros) for one in refusal.value.refusing} == {
        ("project", "day", 100),
        ("key", "total", 200),
    }
    listed = await database.read(
        partial(spend_by_level, period="month", day=datetime.fromtimestamp(NOW, UTC).date())
    )
    assert [(row["level"], row["held_micros"]) for row in listed] == [("key", 0)]


@pytest.mark.parametrize(("period", "later"), [("day", 3600), ("month", 3600)])
async def test_a_budget_holds_again_in_the_next_period(
    database: Database, period: str, later: int
) -> None:
    await limit(database, "key", "key_a", period, 400_000)
    assert await hold(database, 1)
    assert not await hold(database, 2)
    assert await hold(database, 3, now=NOW + later)
    assert not await hold(database, 4, now=NOW + later)


async def test_a_changed_budget_is_in_force_at_once_with_what_is_on_hold(
    database: Database,
) -> None:
    assert await hold(database, 1)
    standing = await limit(database, "organization", ORGANIZATION_ID, "month", 500_000)
    assert (standing.held_micros, standing.available_micros) == (400_000, 100_000)
    assert not await hold(database, 2)
    await limit(database, "organization", ORGANIZATION_ID, "month", 800_000)
    assert await hold(database, 2)
    standing = await limit(database, "organization", ORGANIZATION_ID, "month", 100_000)
    assert standing.available_micros == -700_000


async def test_a_changed_budget_leaves_the_period_that_is_over_alone(database: Database) -> None:
    await limit(database, "key", "key_a", "day", 400_000)
    assert await hold(database, 1)
    await limit(database, "key", "key_a", "day", 10_000_000, now=NOW + 3600)
    assert not await hold(database, 2)


async def test_a_settle_after_midnight_frees_the_day_of_the_hold(database: Database) -> None:
    await limit(database, "key", "key_a", "day", 800_000)
    assert await hold(database, 1)
    tomorrow = NOW + 3600
    await database.run(
        partial(ledger.settle, "hold_1", list_micros=100_000, reason="", now=tomorrow)
    )
    assert await hold(database, 2)
    assert not await hold(database, 3)
    assert [await hold(database, 4 + n, now=tomorrow) for n in range(3)] == [True, True, False]


async def test_levels_are_found_by_project_id_or_name_and_key_id(database: Database) -> None:
    for level, named, found in [
        ("organization", "whatever", THE_ORGANIZATION),
        ("project", "name of proj_b", a_level("project", "proj_b")),
        ("project", "proj_b", a_level("project", "proj_b")),
        ("project", "nobody", None),
        ("key", "key_b", a_level("key", "key_b")),
        ("key", "name of key_b", None),
    ]:
        assert await database.read(partial(find_level, level, named=named)) == found


async def test_a_name_that_two_projects_have_names_neither(database: Database) -> None:
    twin = partial(create_project, a_change("twin"), project_id="proj_c", name="name of proj_b")
    await database.run(twin)
    with pytest.raises(SeveralProjects) as refusal:
        await database.read(partial(find_level, "project", named="name of proj_b"))
    assert refusal.value.ids == ["proj_b", "proj_c"]
    assert await database.read(partial(find_level, "project", named="proj_b")) == a_level(
        "project", "proj_b"
    )


async def test_a_budget_is_listed_in_a_period_in_which_nothing_was_held_yet(
    database: Database,
) -> None:
    await limit(database, "key", "key_a", "month", 800_000)
    assert await hold(database, 1)
    for now, held in [(NOW, 400_000), (NOW + 90 * DAY_SECONDS, 0)]:
        (row,) = await database.read(partial(list_budgets, now=now))
        assert (row["level_id"], row["limit_micros"]) == ("key_a", 800_000)
        assert (row["name"], row["project_id"], row["period"]) == (
            "name of key_a",
            "proj_a",
            "month",
        )
        assert (row["held_micros"], row["spent_micros"]) == (held, 0)
        get = partial(get_budget, a_level("key", "key_a"), now=now)
        standing = await database.read(partial(get, period="month"))
        assert standing is not None
        assert (standing.limit_micros, standing.held_micros) == (800_000, held)
        assert await database.read(partial(get, period="day")) is None


@pytest.mark.parametrize("period", ["day", "month", "total"])
async def test_a_budget_that_was_removed_refuses_nothing_from_then_on(
    database: Database, period: str
) -> None:
    level = a_level("key", "key_a")
    remove = partial(remove_budget, a_change("removal"), level, period=period)
    assert not await database.run(remove)
    await limit(database, "key", "key_a", period, 400_000)
    assert await hold(database, 1)
    assert not await hold(database, 2)
    assert await database.run(remove)
    again = partial(remove_budget, a_change("another removal"), level, period=period)
    assert not await database.run(again)
    assert await hold(database, 2)
    assert await hold(database, 3, now=NOW + 3600)
    assert await database.read(partial(list_budgets, now=NOW)) == []
    standing = await limit(database, "key", "key_a", period, 900_000)
    held = 1_200_000 if period == "total" else 800_000
    assert (standing.held_micros, standing.available_micros) == (held, 900_000 - held)


@pytest.mark.parametrize("period", ["day", "month", "total"])
async def test_a_change_that_comes_after_the_next_period_began_binds_that_one_too(
    database: Database, period: str
) -> None:
    tomorrow = NOW + 3600
    level = a_level("key", "key_a")
    get = partial(get_budget, level, period=period)
    await limit(database, "key", "key_a", period, 400_000)
    assert await hold(database, 1, now=tomorrow)
    standing = await limit(database, "key", "key_a", period, 800_000)  # its moment is before
    assert (standing.period_start, standing.limit_micros) == (
        period_start(period, date(2026, 11, 30)),
        800_000,
    )
    found = await database.read(partial(get, now=tomorrow))
    assert found is not None
    assert (found.limit_micros, found.held_micros) == (800_000, 400_000)
    assert await hold(database, 2, now=tomorrow)
    assert not await hold(database, 3, now=tomorrow)
    assert await database.run(partial(remove_budget, a_change("removal"), level, period=period))
    assert await database.read(partial(get, now=tomorrow)) is None
    assert await hold(database, 3, now=tomorrow)
    await limit(database, "key", "key_a", period, 1_200_001, now=tomorrow)
    found = await database.read(partial(get, now=tomorrow))
    assert found is not None
    assert found.available_micros == 1


async def test_a_budget_is_read_where_its_balance_was_opened_without_a_limit(
    database: Database,
) -> None:
    await limit(database, "key", "key_a", "day", 800_000)
    assert await hold(database, 1)
    clear = partial(rows, "UPDATE balances SET limit_micros = NULL WHERE level = 'key'")
    await database.run(clear)
    found = await database.read(partial(get_budget, a_level("key", "key_a"), period="day", now=NOW))
    assert found is not None
    assert (found.limit_micros, found.held_micros) == (800_000, 400_000)


async def test_spend_is_reported_for_every_level_organization_first(database: Database) -> None:
    for number, key_id in enumerate(["key_a", "key_b", "key_c"]):
        assert await hold(database, number, key_id)
    await database.run(
        partial(ledger.settle, "hold_2", list_micros=300_000, reason="", now=NOW + DAY_SECONDS)
    )
    listed = await database.read(partial(spend_by_level, period="day", day=date(2026, 11, 30)))
    assert [tuple(row)[:3] + tuple(row)[5:] for row in listed] == [
        ("organization", "organization", None, 300_000, 800_000),
        ("project", "proj_a", "name of proj_a", 0, 800_000),
        ("project", "proj_b", "name of proj_b", 300_000, 0),
        ("key", "key_a", "name of key_a", 0, 400_000),
        ("key", "key_b", "name of key_b", 0, 400_000),
        ("key", "key_c", "name of key_c", 300_000, 0),
    ]
    assert await database.read(partial(spend_by_level, period="day", day=date(2026, 12, 1))) == []
