"""Are the costs that are reported, however grouped, the sums of the entries?"""

from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from datetime import UTC, date, datetime, time, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from databases import a_folder
from hypothesis import given
from hypothesis import strategies as st
from ledger_tools import KEYS, NOW, a_hold, bench, examples, opened, rows

from gateway.billing.audit import Difference, audit
from gateway.billing.costs import DAY, GROUPS, KEY, PROJECT, SUMS, Asked, read_costs
from gateway.billing.ledger import correct, hold, settle
from gateway.billing.money import Basis
from gateway.db.database import Database
from gateway.db.script import Row, Script, Sql

DAY_SECONDS = 86_400
DAYS = [date(2026, 11, 30) + timedelta(days=number) for number in (-30, -1, 0, 1, 31)]
BASES = [Basis(), Basis("cost", 333_333), Basis("list", 909_091)]
# Key, model, day, basis, what it came to, what it was corrected to.
BOUGHT = st.tuples(
    st.sampled_from(sorted(KEYS)),
    st.sampled_from(["sora-2", "sora-2-pro"]),
    st.sampled_from(range(len(DAYS))),
    st.sampled_from(BASES),
    st.sampled_from([0, 1, 400_000, 700_001]),
    st.sampled_from([None, 0, 7, 1_000_003]),
)
ASKED = st.builds(
    Asked,
    first_day=st.sampled_from([*DAYS, date(2026, 11, 1), date(2026, 12, 1)]),
    last_day=st.sampled_from([*DAYS, date(2026, 11, 30), date(2026, 12, 31), date(2027, 1, 31)]),
    group_by=st.lists(st.sampled_from(GROUPS), unique=True),
    project_ids=st.sampled_from([(), ("proj_a",), ("proj_a", "proj_b"), ("nobody",)]),
    key_ids=st.sampled_from([(), (), ("key_a",), ("key_b", "key_c")]),
)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


def buy(number: int, bought: tuple[Any, ...]) -> Script[None]:
    key_id, model, day, basis, listed, corrected = bought
    now = int(datetime.combine(DAYS[day], time(12), UTC).timestamp())
    yield from hold(a_hold(number, key_id=key_id, model=model, basis=basis, now=now), now=now)
    name = f"hold_{number}"
    yield from settle(name, list_micros=listed, reason="", now=now + 40 * DAY_SECONDS)
    if corrected is not None:
        yield from correct(
            name, entry_id=f"c{number}", list_micros=corrected, reason="", now=now + DAY_SECONDS
        )


def summed(found: list[dict[str, Any]], asked: Asked) -> dict[tuple[str, ...], list[int]]:
    """The same sums, from the entries and holds alone."""
    sums: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0] * len(SUMS))
    for one in found:
        day = date.fromisoformat(one["accounting_day"])
        if not asked.first_day <= day <= asked.last_day:
            continue
        if asked.project_ids and one["project_id"] not in asked.project_ids:
            continue
        if asked.key_ids and one["key_id"] not in asked.key_ids:
            continue
        named = {
            "day": one["accounting_day"],
            "project": one["project_id"],
            "key": one["key_id"],
            "model": one["model"],
            "size": one["size"],
            "operation": one["operation"],
            "line_item": f"{one['model']}, {one['size']}, {one['operation']}",
        }
        total = sums[tuple(named[group] for group in asked.group_by)]
        videos = int(one["listed"] > 0)
        figures = (one["spent"], one["listed"], one["cost"], videos, videos * one["clip_seconds"])
        for place, figure in enumerate(figures):
            total[place] += figure
    return sums


def test_costs_grouped_in_any_way_are_sums_over_the_entries() -> None:
    @examples(25)
    @given(bought=st.lists(BOUGHT, max_size=8), asked=st.lists(ASKED, min_size=6, max_size=12))
    def they_are(bought: list[tuple[Any, ...]], asked: list[Asked]) -> None:
        with a_folder() as folder, bench(folder / "gateway.db") as records:
            for number, one in enumerate(bought):
                records.run(partial(buy, number, one))
            assert records.run(audit) == []
            holds = records.run(
                partial(
                    rows,
                    "SELECT holds.*, SUM(entries.spent_micros) AS spent,"
                    " SUM(entries.list_micros) AS listed, SUM(entries.cost_micros) AS cost"
                    " FROM holds JOIN entries ON entries.hold_id = holds.id GROUP BY holds.id",
                )
            )
            for wish in asked:
                agree(wish, holds, records.run(partial(read_costs, wish)))

    they_are()


def agree(wish: Asked, holds: list[dict[str, Any]], found: Sequence[Row]) -> None:
    wanted = {key: sums for key, sums in summed(holds, wish).items() if any(sums)}
    got = {
        tuple(row[group] for group in wish.group_by): [row[name] for name in SUMS] for row in found
    }
    assert {key: sums for key, sums in got.items() if any(sums)} == wanted
    assert len(got) == len(found)


async def test_costs_come_in_the_order_asked_for_with_the_names_of_projects_and_keys(
    database: Database,
) -> None:
    for number, key_id in enumerate(["key_c", "key_a", "key_b"]):
        await database.run(partial(buy, number, (key_id, "sora-2", 2, Basis(), 400_000, None)))
    asked = Asked(DAYS[2], DAYS[2], group_by=(PROJECT, KEY, DAY))
    found = await database.read(partial(read_costs, asked))
    assert [dict(row) for row in found] == [
        {
            "project": project,
            "project_name": f"name of {project}",
            "key": key,
            "key_name": f"name of {key}",
            "day": "2026-11-30",
            **dict.fromkeys(SUMS[:3], 400_000),
            "videos": 1,
            "clip_seconds": 4,
        }
        for key, project in sorted(KEYS.items())
    ]


# Of the four that were held.
THREE_SECONDS = dict.fromkeys(SUMS[:3], 300_000) | {"videos": 1, "clip_seconds": 4}
TAMPERING = [
    (
        "UPDATE balances SET spent_micros = 7 WHERE id LIKE 'key:%:total:all'",
        "balances/key:key_a:total:all",
        {"held_micros": 400_000, "spent_micros": 7},
        {"held_micros": 400_000, "spent_micros": 300_000},
    ),
    (
        "UPDATE balances SET held_micros = 0 WHERE id LIKE 'key:%:total:all'",
        "balances/key:key_a:total:all",
        {"held_micros": 0, "spent_micros": 300_000},
        {"held_micros": 400_000, "spent_micros": 300_000},
    ),
    (
        "DELETE FROM balances WHERE id LIKE 'key:%:total:all'",
        "balances/key:key_a:total:all",
        {"held_micros": 0, "spent_micros": 0},
        {"held_micros": 400_000, "spent_micros": 300_000},
    ),
    (
        (
            "INSERT INTO balances (id, level, level_id, period, period_start, spent_micros,"
            " held_micros) VALUES ('stray', 'key', 'k', 'total', 'all', 5, 0)"
        ),
        "balances/stray",
        {"held_micros": 0, "spent_micros": 5},
        {"held_micros": 0, "spent_micros": 0},
    ),
    *(
        (
            f"UPDATE costs SET {column} = 7 WHERE period = 'month'",
            "costs/month:2026-11-01:proj_a::sora-2:720x1280:create",
            THREE_SECONDS | {column: 7},
            THREE_SECONDS,
        )
        for column in SUMS
    ),
    (
        "DELETE FROM costs WHERE period = 'day'",
        "costs/day:2026-11-30:proj_a:key_a:sora-2:720x1280:create",
        dict.fromkeys(SUMS, 0),
        THREE_SECONDS,
    ),
]


def spent_and_held() -> Script[None]:
    for number in (1, 2):
        yield from hold(a_hold(number), now=NOW)
    yield from settle("hold_1", list_micros=300_000, reason="", now=NOW)


def tampered(text: str) -> Script[None]:
    yield Sql(text)


@pytest.mark.parametrize(("tampering", "what", "kept", "entries"), TAMPERING)
async def test_an_audit_finds_every_sum_that_is_not_the_sum_of_its_entries(
    database: Database, tampering: str, what: str, kept: dict[str, int], entries: dict[str, int]
) -> None:
    await database.run(spent_and_held)
    assert await database.read(audit) == []
    await database.run(partial(tampered, tampering))
    assert await database.read(audit) == [Difference(what, kept, entries)]


@pytest.mark.parametrize(
    ("tampering", "differences"),
    [
        ("DELETE FROM entries WHERE id = 'hold_1/end'", 11),
        ("DELETE FROM entries WHERE id = 'hold_2/hold'", 9),
        ("UPDATE entries SET spent_micros = spent_micros + 1 WHERE id = 'hold_1/end'", 11),
        ("UPDATE entries SET cost_micros = 0 WHERE id = 'hold_1/end'", 2),
    ],
)
async def test_an_audit_finds_a_missing_or_changed_entry_in_all_that_it_is_part_of(
    database: Database, tampering: str, differences: int
) -> None:
    await database.run(spent_and_held)
    await database.run(partial(tampered, tampering))
    assert len(await database.read(audit)) == differences
