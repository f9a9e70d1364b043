"""Can a person end an orphan, exactly once, and never while its submit may be under way?"""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from ledger_tools import (
    LEASE_SECONDS,
    NO_IDS,
    NOW,
    RATE_MICROS,
    a_change,
    a_submit,
    accepted,
    claim_one,
    followed,
    opened,
    organization,
    rows,
)

from gateway.billing.audit import audit
from gateway.db.database import Database
from gateway.db.script import Script
from gateway.upstream.envelopes import RequestIds
from gateway.videos.lifecycle import Completed
from gateway.videos.opening import open_submit
from gateway.videos.orphans import (
    RELEASE_MARGIN_SECONDS,
    NoOrphan,
    TooEarly,
    attach_orphan,
    list_orphans,
    release_orphan,
    settle_orphan,
)
from gateway.videos.polls import write_completed, write_given_up, write_orphan
from gateway.videos.records import Recorded, record_accepted, record_orphan

PRICE = 4 * RATE_MICROS
FREE_AT = NOW + LEASE_SECONDS + RELEASE_MARGIN_SECONDS


def an_orphan(number: int = 1, *, now: int = NOW) -> Script[None]:
    yield from open_submit(a_submit(number, now=now), now=now)
    yield from record_orphan(f"vid_{number}", reason="broken", request_ids=NO_IDS, now=now)


def lose() -> Script[None]:
    """The upstream no longer tells about the video that is due."""
    claim = yield from claim_one(now=FREE_AT)
    yield from write_orphan(claim, reason="missing", due_at=FREE_AT + 3600, now=FREE_AT)


def lose_again(*, now: int) -> Script[None]:
    claim = yield from claim_one(now=now)
    yield from write_orphan(claim, reason="missing", due_at=now + 3600, now=now)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database
        assert await database.read(audit) == []


async def test_orphans_are_listed_oldest_first(database: Database) -> None:
    await database.run(partial(an_orphan, 1, now=NOW + 5))
    await database.run(partial(an_orphan, 2))
    await database.run(partial(followed, 3))
    listed = await database.read(list_orphans)
    assert [row["id"] for row in listed] == ["vid_2", "vid_1"]
    assert (listed[0]["orphan_reason"], listed[0]["amount_micros"]) == ("broken", PRICE)
    assert (listed[0]["project"], listed[0]["upstream_id"]) == ("name of proj_a", None)


async def test_a_settled_orphan_costs_what_was_held(database: Database) -> None:
    await database.run(an_orphan)
    assert await database.run(partial(settle_orphan, a_change(), "vid_1")) == PRICE
    assert await database.read(organization) == (PRICE, 0)
    assert await database.read(list_orphans) == []


@pytest.mark.parametrize("billed", [0, 1, PRICE // 4, 3 * PRICE])
async def test_a_settled_orphan_costs_what_the_upstreams_bill_says(
    database: Database, billed: int
) -> None:
    await database.run(an_orphan)
    settle = partial(settle_orphan, a_change(), "vid_1", list_micros=billed)
    assert await database.run(settle) == billed
    assert await database.read(organization) == (billed, 0)


async def test_a_released_orphan_costs_nothing(database: Database) -> None:
    await database.run(an_orphan)
    assert await database.run(partial(release_orphan, a_change(now=FREE_AT), "vid_1")) == PRICE
    assert await database.read(organization) == (0, 0)
    assert await database.read(list_orphans) == []


async def test_a_release_waits_for_the_lease_of_the_submit_and_a_margin(
    database: Database,
) -> None:
    await database.run(an_orphan)
    with pytest.raises(TooEarly) as refusal:
        await database.run(partial(release_orphan, a_change(now=FREE_AT - 7), "vid_1"))
    assert refusal.value.seconds == 7
    assert await database.read(organization) == (0, PRICE)


async def test_a_commit_whose_answer_was_lost_ends_an_orphan_at_the_amount_it_did(
    database: Database,
) -> None:
    await database.run(partial(followed, now=FREE_AT))
    await database.run(lose)
    settle = partial(settle_orphan, a_change("once", now=FREE_AT), "vid_1", list_micros=7)
    assert await database.run(settle) == 7
    await database.run(partial(lose_again, now=FREE_AT))
    assert await database.run(settle) == 7
    assert [row["id"] for row in await database.read(list_orphans)] == ["vid_1"]
    assert await database.read(organization) == (7, 0)


async def test_an_orphan_is_ended_once(database: Database) -> None:
    await database.run(an_orphan)
    await database.run(partial(settle_orphan, a_change("first", now=FREE_AT), "vid_1"))
    for script in (
        partial(settle_orphan, a_change(now=FREE_AT), "vid_1"),
        partial(release_orphan, a_change(now=FREE_AT), "vid_1"),
        partial(attach_orphan, a_change(now=FREE_AT), "vid_1", upstream_id="up_9"),
    ):
        with pytest.raises(NoOrphan):
            await database.run(script)
    assert await database.read(organization) == (PRICE, 0)


@pytest.mark.parametrize("video_id", ["vid_1", "nobody"])
async def test_what_is_no_orphan_cannot_be_ended_by_a_person(
    database: Database, video_id: str
) -> None:
    await database.run(followed)
    with pytest.raises(NoOrphan):
        await database.run(partial(settle_orphan, a_change(now=FREE_AT), video_id))
    with pytest.raises(NoOrphan):
        await database.run(partial(release_orphan, a_change(now=FREE_AT), video_id))
    assert await database.read(organization) == (0, PRICE)


async def test_an_attached_orphan_is_followed_to_its_end(database: Database) -> None:
    await database.run(an_orphan)
    attach = partial(attach_orphan, a_change(), "vid_1", upstream_id="up_1")
    assert await database.run(attach) is Recorded.FOLLOWED
    claim = await database.run(claim_one)
    assert (claim.upstream_id, claim.orphaned) == ("up_1", False)
    script = partial(
        write_completed,
        claim,
        Completed(list_micros=PRICE // 4, above_hold=False, has_content=True),
        {"status": "completed", "seconds": "1"},
        assets={"video": "asset_1"},
        retention_seconds=60,
        now=NOW,
    )
    await database.run(script)
    assert await database.read(organization) == (PRICE // 4, 0)


async def test_what_is_attached_keeps_the_request_ids_of_its_submit(database: Database) -> None:
    await database.run(partial(open_submit, a_submit(1), now=NOW))
    ids = RequestIds(provider="req_1", relay="relay_1")
    await database.run(partial(record_orphan, "vid_1", reason="broken", request_ids=ids, now=NOW))
    await database.run(partial(attach_orphan, a_change(), "vid_1", upstream_id="up_1"))
    kept = partial(rows, "SELECT provider_request_id, relay_request_id FROM videos")
    assert await database.read(kept) == [
        {"provider_request_id": "req_1", "relay_request_id": "relay_1"}
    ]


async def test_an_orphan_cannot_be_attached_to_another_videos_id(database: Database) -> None:
    await database.run(followed)
    await database.run(partial(an_orphan, 2))
    attach = partial(attach_orphan, a_change(), "vid_2", upstream_id="up_1")
    assert await database.run(attach) is Recorded.DUPLICATE
    assert [row["id"] for row in await database.read(list_orphans)] == ["vid_2"]
    assert await database.read(organization) == (0, 2 * PRICE)


async def test_an_orphan_whose_id_is_known_is_not_attached_again(database: Database) -> None:
    await database.run(partial(followed, now=FREE_AT))
    await database.run(lose)
    with pytest.raises(NoOrphan):
        await database.run(
            partial(attach_orphan, a_change(now=FREE_AT), "vid_1", upstream_id="up_9")
        )


@pytest.mark.parametrize("first", ["settle", "release"])
@pytest.mark.parametrize("second", ["settle", "release"])
async def test_what_a_person_says_last_counts_also_when_the_hold_had_ended(
    database: Database, first: str, second: str
) -> None:
    actions = {"settle": settle_orphan, "release": release_orphan}
    await database.run(an_orphan)
    await database.run(partial(actions[first], a_change("first", now=FREE_AT), "vid_1"))
    late = partial(record_accepted, "vid_1", accepted("up_1"), first_poll_at=FREE_AT, now=FREE_AT)
    await database.run(late)
    assert await database.read(organization) == (PRICE, 0)
    await database.run(lose)
    await database.run(partial(actions[second], a_change("second", now=FREE_AT + 600), "vid_1"))
    assert await database.read(organization) == (PRICE if second == "settle" else 0, 0)
    # Only the end of a video whose hold is settled is still of interest.
    polled = [{"id": "vid_1"}] if (first, second) == ("settle", "settle") else []
    assert await database.read(partial(rows, "SELECT id FROM videos WHERE due_at > 0")) == polled


async def test_a_settled_orphan_whose_id_is_known_is_followed_to_its_end(
    database: Database,
) -> None:
    await database.run(partial(followed, now=FREE_AT))
    await database.run(lose)
    await database.run(partial(settle_orphan, a_change(now=FREE_AT), "vid_1"))
    assert await database.read(organization) == (PRICE, 0)
    assert await database.read(list_orphans) == []
    claim = await database.run(partial(claim_one, now=FREE_AT))
    assert (claim.orphaned, claim.missing_polls, claim.settled_at) == (False, 0, FREE_AT)
    script = partial(
        write_completed,
        claim,
        Completed(list_micros=PRICE // 4, above_hold=False, has_content=True),
        {"status": "completed", "seconds": "1"},
        assets={"video": "asset_1"},
        retention_seconds=60,
        now=FREE_AT,
    )
    ended = await database.run(script)
    assert ended.correction_micros == PRICE // 4 - PRICE
    assert await database.read(organization) == (PRICE // 4, 0)
    assert await database.read(partial(rows, "SELECT id FROM assets")) == [{"id": "asset_1"}]


async def test_what_is_given_up_is_no_orphan_and_stays_settled(database: Database) -> None:
    await database.run(partial(followed, now=FREE_AT))
    await database.run(lose)
    await database.run(partial(settle_orphan, a_change(now=FREE_AT), "vid_1"))
    claim = await database.run(partial(claim_one, now=FREE_AT))
    assert await database.run(partial(write_given_up, claim, now=FREE_AT))
    assert await database.read(organization) == (PRICE, 0)
    assert await database.read(list_orphans) == []
    (video,) = await database.read(partial(rows, "SELECT status, due_at, object FROM videos"))
    assert (video["status"], video["due_at"]) == ("failed", None)
    assert "outcome_unknown" in video["object"]
