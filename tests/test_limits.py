"""Is a limit on requests, videos in flight or price exact, and does only what is bought count?"""

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ledger_tools import (
    LEASE_SECONDS,
    NO_IDS,
    NOW,
    RATE_MICROS,
    a_change,
    a_hold,
    a_level,
    a_submit,
    accepted,
    account,
    claim_one,
    limited,
    opened,
    rows,
)

from gateway.billing.balances import KEY, PROJECT, Refusal
from gateway.billing.limits import (
    ALL_MODELS,
    Limits,
    TooDear,
    TooManyInFlight,
    TooManyRequests,
    Usage,
    forget_counts,
    get_limits,
    set_limits,
)
from gateway.billing.money import COST, Basis
from gateway.db.database import Database
from gateway.db.script import Script
from gateway.videos.admission import Admitted, would_admit
from gateway.videos.lifecycle import Completed, Failed, Pending
from gateway.videos.opening import open_submit
from gateway.videos.orphans import RELEASE_MARGIN_SECONDS, release_orphan, settle_orphan
from gateway.videos.polls import write_completed, write_failed, write_orphan, write_pending
from gateway.videos.records import orphan_lapsed, record_accepted, record_orphan, record_refused

PRICE = 4 * RATE_MICROS
DAY_SECONDS = 86_400
# The last second of an hour, and of a minute.
LAST = NOW + 3599
LATER = NOW + LEASE_SECONDS + RELEASE_MARGIN_SECONDS


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


async def limit(
    database: Database, level: str, level_id: str, model: str = ALL_MODELS, **limits: int
) -> None:
    change = a_change(f"{level_id} {model} {limits}")
    await database.run(
        partial(set_limits, change, a_level(level, level_id), Limits(**limits), model=model)
    )


async def buy(
    database: Database,
    number: int,
    *,
    key_id: str = "key_a",
    model: str = "sora-2",
    seconds: int = 4,
    now: int = NOW,
) -> Admitted:
    hold = a_hold(number, key_id=key_id, model=model, seconds=seconds, now=now)
    admitted = await database.run(partial(open_submit, a_submit(number, hold, now=now), now=now))
    assert isinstance(admitted, Admitted)
    return admitted


async def counts(database: Database) -> dict[str, int]:
    found = await database.read(partial(rows, "SELECT id, requests FROM request_counts"))
    return {row["id"]: row["requests"] for row in found}


async def test_limits_are_read_back_by_model_and_none_removes_them(database: Database) -> None:
    level = a_level(PROJECT, "proj_a")
    everything = Limits(1, 2, 3, 4, 5)
    await database.run(partial(set_limits, a_change("1"), level, everything, model=ALL_MODELS))
    await limit(database, PROJECT, "proj_a", "sora-2", requests_per_day=9)
    await limit(database, PROJECT, "proj_b", "sora-2", requests_per_day=7)
    assert await database.read(partial(get_limits, level)) == {
        ALL_MODELS: everything,
        "sora-2": Limits(requests_per_day=9),
    }
    await database.run(partial(set_limits, a_change("2"), level, Limits(), model=ALL_MODELS))
    assert await database.read(partial(get_limits, level)) == {"sora-2": Limits(requests_per_day=9)}


@pytest.mark.parametrize("window", ["minute", "day"])
@pytest.mark.parametrize("model", [ALL_MODELS, "sora-2"])
@pytest.mark.parametrize(
    ("level", "level_id", "same", "other"),
    [(PROJECT, "proj_a", "key_b", "key_c"), (KEY, "key_a", "key_a", "key_b")],
)
async def test_a_limit_binds_its_level_and_model_in_its_window_and_nobody_else(
    database: Database, level: str, level_id: str, same: str, other: str, model: str, window: str
) -> None:
    if window == "minute":
        await limit(database, level, level_id, model, requests_per_minute=2)
    else:
        await limit(database, level, level_id, model, requests_per_day=2)
    for number, remaining in [(1, 1), (2, 0)]:
        (usage,) = (await buy(database, number, key_id=[same, "key_a"][number % 2])).usages
        seconds = {"minute": 60, "day": DAY_SECONDS}[window]
        resets_at = NOW - NOW % seconds + seconds
        assert usage == Usage(level, model, window, 2, number, resets_at)
        assert usage.remaining == remaining
    with pytest.raises(TooManyRequests) as refusal:
        await buy(database, 3, key_id=same)
    assert (refusal.value.usage.level, refusal.value.usage.remaining) == (level, 0)
    await buy(database, 4, key_id=other)
    if model == ALL_MODELS:
        with pytest.raises(TooManyRequests):
            await buy(database, 5, model="sora-2-pro")
    else:
        await buy(database, 5, model="sora-2-pro")


@pytest.mark.parametrize(
    ("window", "wait_seconds"), [("minute", 1), ("day", DAY_SECONDS - (LAST % DAY_SECONDS))]
)
async def test_a_count_begins_again_with_the_minute_and_with_the_day(
    database: Database, window: str, wait_seconds: int
) -> None:
    if window == "minute":
        await limit(database, KEY, "key_a", requests_per_minute=1)
    else:
        await limit(database, KEY, "key_a", requests_per_day=1)
    await buy(database, 1, now=LAST)
    for number, now in [(2, LAST), (3, LAST + wait_seconds - 1)]:
        with pytest.raises(TooManyRequests):
            await buy(database, number, now=now)
    (usage,) = (await buy(database, 4, now=LAST + wait_seconds)).usages
    assert usage.requests == 1
    with pytest.raises(TooManyRequests):
        await buy(database, 5, now=LAST + wait_seconds)


async def test_a_limit_of_zero_refuses_everything(database: Database) -> None:
    await limit(database, PROJECT, "proj_a", "sora-2", requests_per_day=0)
    with pytest.raises(TooManyRequests):
        await buy(database, 1)
    await limit(database, PROJECT, "proj_b", videos_in_flight=0)
    with pytest.raises(TooManyInFlight):
        await buy(database, 2, key_id="key_c")
    await limit(database, KEY, "key_b", price_micros=0)
    with pytest.raises(TooDear):
        await buy(database, 3, key_id="key_b", model="sora-2-pro")


async def test_what_a_budget_or_another_limit_refuses_counts_nothing(database: Database) -> None:
    await limit(
        database, PROJECT, "proj_a", requests_per_minute=9, price_micros=PRICE, videos_in_flight=2
    )
    await limit(database, KEY, "key_a", requests_per_day=9)
    await limit(database, KEY, "key_b", requests_per_minute=1)
    await buy(database, 1, key_id="key_b")
    before = await counts(database)
    assert sorted(before.values()) == [1, 1]
    with pytest.raises(TooManyRequests):
        await buy(database, 2, key_id="key_b")
    with pytest.raises(TooDear):
        await buy(database, 3, seconds=8)
    await database.run(partial(limited, a_level(KEY, "key_a"), "day", PRICE - 1))
    with pytest.raises(Refusal):
        await buy(database, 4)
    assert await counts(database) == before
    await database.run(partial(limited, a_level(KEY, "key_a"), "day", 10 * PRICE))
    await buy(database, 5)
    with pytest.raises(TooManyInFlight):
        await buy(database, 6)
    assert sorted((await counts(database)).values()) == [1, 1, 2]


async def test_the_same_submit_counts_once(database: Database) -> None:
    await limit(database, KEY, "key_a", requests_per_day=2)
    await buy(database, 1)
    assert (await buy(database, 1)).usages == ()
    assert list((await counts(database)).values()) == [1]


async def test_counting_begins_when_a_limit_is_set(database: Database) -> None:
    await buy(database, 1)
    await limit(database, KEY, "key_a", requests_per_day=1)
    await buy(database, 2)
    with pytest.raises(TooManyRequests):
        await buy(database, 3)


async def test_a_changed_limit_is_in_force_at_once_with_what_was_counted(
    database: Database,
) -> None:
    await limit(database, KEY, "key_a", requests_per_day=5)
    for number in range(3):
        await buy(database, number)
    await limit(database, KEY, "key_a", requests_per_day=2)
    with pytest.raises(TooManyRequests):
        await buy(database, 9)
    await limit(database, KEY, "key_a", requests_per_day=4)
    (usage,) = (await buy(database, 9)).usages
    assert (usage.requests, usage.remaining) == (4, 0)


async def test_a_dry_run_tells_the_limits_and_counts_nothing(database: Database) -> None:
    await limit(database, KEY, "key_a", requests_per_day=2)
    await buy(database, 1)
    look = partial(would_admit, account(), model="sora-2", price_micros=PRICE, now=NOW)
    for _ in range(3):
        (usage,) = (await database.read(look)).usages
        assert (usage.limit, usage.requests, usage.remaining) == (2, 1, 1)
    await buy(database, 2)
    with pytest.raises(TooManyRequests):
        await database.read(look)
    assert list((await counts(database)).values()) == [2]


@pytest.mark.parametrize("size", [PRICE - 1, PRICE])
async def test_what_costs_more_than_the_limit_is_refused(database: Database, size: int) -> None:
    await limit(database, PROJECT, "proj_a", price_micros=size)
    if size < PRICE:
        with pytest.raises(TooDear) as refusal:
            await buy(database, 1)
        assert (refusal.value.level, refusal.value.limit_micros) == (PROJECT, size)
    else:
        await buy(database, 1)


@pytest.mark.parametrize("ppm", [500_000, 2_000_000])
async def test_the_limit_on_the_price_is_about_the_list_price_on_any_basis(
    database: Database, ppm: int
) -> None:
    await limit(database, PROJECT, "proj_a", price_micros=PRICE)
    basis = Basis(COST, ppm)
    await database.run(partial(open_submit, a_submit(1, a_hold(1, basis=basis)), now=NOW))
    dear = a_hold(2, basis=basis, rate=RATE_MICROS + 1)
    with pytest.raises(TooDear):
        await database.run(partial(open_submit, a_submit(2, dear), now=NOW))


async def test_a_character_is_no_video_in_flight_and_is_not_refused_for_one(
    database: Database,
) -> None:
    await limit(database, PROJECT, "proj_a", videos_in_flight=1, requests_per_day=2)
    await buy(database, 1)
    hold = replace(a_hold(2), operation="character", model="", size="", clip_seconds=0)
    character = replace(a_submit(2, hold), kind="character")
    admitted = await database.run(partial(open_submit, character, now=NOW))
    assert isinstance(admitted, Admitted)
    assert [usage.requests for usage in admitted.usages] == [2]
    with pytest.raises(TooManyInFlight):
        await buy(database, 3)


async def test_old_counts_are_forgotten_and_running_ones_are_not(database: Database) -> None:
    await limit(database, KEY, "key_a", requests_per_day=5, requests_per_minute=5)
    await buy(database, 1)
    await buy(database, 2, now=NOW + DAY_SECONDS)
    assert await database.run(partial(forget_counts, now=NOW + DAY_SECONDS)) == 0
    assert await database.run(partial(forget_counts, now=NOW + 3 * DAY_SECONDS)) == 3
    assert len(await counts(database)) == 1


def in_flight_ends() -> dict[str, Callable[[], Script[Any]]]:
    """How the first video, bought as vid_1, stops being in the making."""

    def accepted_and(write: Callable[..., Script[Any]]) -> Script[None]:
        yield from record_accepted("vid_1", accepted("up_1"), first_poll_at=NOW, now=NOW)
        claim = yield from claim_one()
        yield from write(claim)

    def orphaned_and(end: Callable[..., Script[Any]]) -> Script[None]:
        yield from record_orphan("vid_1", reason="broken", request_ids=NO_IDS, now=NOW)
        yield from end(a_change(now=LATER), "vid_1")

    def completed(claim: Any) -> Script[Any]:
        judged = Completed(list_micros=PRICE, above_hold=False, has_content=True)
        assets = {"video": "asset_1"}
        yield from write_completed(
            claim, judged, {"id": "up_1"}, assets=assets, retention_seconds=60, now=NOW
        )

    def failed(claim: Any) -> Script[Any]:
        yield from write_failed(claim, Failed("no", list_micros=0), {"id": "up_1"}, now=NOW)

    def lost(claim: Any) -> Script[Any]:
        yield from write_orphan(claim, reason="missing", due_at=NOW + 60, now=NOW)

    return {
        "completed": partial(accepted_and, completed),
        "failed": partial(accepted_and, failed),
        "lost": partial(accepted_and, lost),
        "refused": partial(record_refused, "vid_1", reason="refused:400", now=NOW),
        "outcome unknown": partial(
            record_orphan, "vid_1", reason="broken", request_ids=NO_IDS, now=NOW
        ),
        "lease lapsed": partial(orphan_lapsed, now=LATER),
        "settled by a person": partial(orphaned_and, settle_orphan),
        "released by a person": partial(orphaned_and, release_orphan),
    }


@pytest.mark.parametrize("end", sorted(in_flight_ends()))
@pytest.mark.parametrize(("level", "level_id"), [(PROJECT, "proj_a"), (KEY, "key_a")])
async def test_a_place_among_the_videos_in_flight_comes_free_when_one_ends(
    database: Database, level: str, level_id: str, end: str
) -> None:
    await limit(database, level, level_id, videos_in_flight=1)
    await buy(database, 1)
    with pytest.raises(TooManyInFlight) as refusal:
        await buy(database, 2)
    assert (refusal.value.level, refusal.value.limit) == (level, 1)
    await database.run(in_flight_ends()[end])
    await buy(database, 3, now=LATER)
    with pytest.raises(TooManyInFlight):
        await buy(database, 4, now=LATER)


async def test_a_video_that_is_followed_is_in_flight_and_a_lost_one_that_is_seen_again(
    database: Database,
) -> None:
    await limit(database, KEY, "key_a", videos_in_flight=1)
    await buy(database, 1)
    accept = partial(record_accepted, "vid_1", accepted("up_1"), first_poll_at=NOW, now=NOW)
    await database.run(accept)
    claim = await database.run(claim_one)
    with pytest.raises(TooManyInFlight):
        await buy(database, 2)
    await database.run(partial(write_orphan, claim, reason="missing", due_at=NOW, now=NOW))
    again = await database.run(claim_one)
    seen = {"id": "up_1", "status": "in_progress"}
    await database.run(
        partial(write_pending, again, Pending("in_progress"), seen, due_at=NOW, now=NOW)
    )
    with pytest.raises(TooManyInFlight):
        await buy(database, 2)
    await buy(database, 3, key_id="key_b")
