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
    a_submit,
    accepted,
    claim_one,
    followed,
    opened,
    organization,
    rows,
)

from gateway.billing.ledger import audit
from gateway.db.database import Database
from gateway.db.script import Script
from gateway.videos.lifecycle import Completed
from gateway.videos.orphans import (
    RELEASE_MARGIN_SECONDS,
    NoOrphan,
    TooEarly,
    attach_orphan,
    list_orphans,
    release_orphan,
    settle_orphan,
)
from gateway.videos.polls import write_completed, write_orphan
from gateway.videos.records import Recorded, open_submit, record_accepted, record_orphan

PRICE = 4 * RATE_MICROS
FREE_AT = NOW + LEASE_SECONDS + RELEASE_MARGIN_SECONDS


def an_orphan(number: int = 1, *, now: int = NOW) -> Script[None]:
    yield from open_submit(a_submit(number, now=now), now=now)
    yield from record_orphan(f"vid_{number}", reason="broken", request_ids=NO_IDS, now=now)


def lose() -> Script[None]:
    """The upstream no longer tells about the video that is due."""
    claim = yield from claim_one(now=FREE_AT)
    yield from write_orphan(claim, reason="missing", due_at=FREE_AT + 3600, now=FREE_AT)


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
    assert await database.run(partial(settle_orphan, "vid_1", now=NOW)) == PRICE
    assert await database.read(organization) == (PRICE, 0)
    assert await database.read(list_orphans) == []


async def test_a_released_orphan_costs_nothing(database: Database) -> None:
    await database.run(an_orphan)
    assert await database.run(partial(release_orphan, "vid_1", now=FREE_AT)) == PRICE
    assert await database.read(organization) == (0, 0)
    assert await database.read(list_orphans) == []


async def test_a_release_waits_for_the_lease_of_the_submit_and_a_margin(
    database: Database,
) -> None:
    await database.run(an_orphan)
    with pytest.raises(TooEarly) as refusal:
        await database.run(partial(release_orphan, "vid_1", now=FREE_AT - 7))
    assert refusal.value.seconds == 7
    assert await database.read(organization) == (0, PRICE)


async def test_an_orphan_is_ended_once(database: Database) -> None:
    await database.run(an_orphan)
    await database.run(partial(settle_orphan, "vid_1", now=FREE_AT))
    for script in (
        partial(settle_orphan, "vid_1", now=FREE_AT),
        partial(release_orphan, "vid_1", now=FREE_AT),
        partial(attach_orphan, "vid_1", upstream_id="up_9", now=FREE_AT),
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
        await database.run(partial(settle_orphan, video_id, now=FREE_AT))
    with pytest.raises(NoOrphan):
        await database.run(partial(release_orphan, video_id, now=FREE_AT))
    assert await database.read(organization) == (0, PRICE)


async def test_an_attached_orphan_is_followed_to_its_end(database: Database) -> None:
    await database.run(an_orphan)
    attach = partial(attach_orphan, "vid_1", upstream_id="up_1", now=NOW)
    assert await database.run(attach) is Recorded.FOLLOWED
    claim = await database.run(claim_one)
    assert (claim.upstream_id, claim.orphaned) == ("up_1", False)
    script = partial(
        write_completed,
        claim,
        Completed(amount_micros=PRICE // 4, above_hold=False, has_content=True),
        {"status": "completed", "seconds": "1"},
        assets={"video": "asset_1"},
        retention_seconds=60,
        now=NOW,
    )
    await database.run(script)
    assert await database.read(organization) == (PRICE // 4, 0)


async def test_an_orphan_cannot_be_attached_to_another_videos_id(database: Database) -> None:
    await database.run(followed)
    await database.run(partial(an_orphan, 2))
    attach = partial(attach_orphan, "vid_2", upstream_id="up_1", now=NOW)
    assert await database.run(attach) is Recorded.DUPLICATE
    assert [row["id"] for row in await database.read(list_orphans)] == ["vid_2"]
    assert await database.read(organization) == (0, 2 * PRICE)


async def test_an_orphan_whose_id_is_known_is_not_attached_again(database: Database) -> None:
    await database.run(partial(followed, now=FREE_AT))
    await database.run(lose)
    with pytest.raises(NoOrphan):
        await database.run(partial(attach_orphan, "vid_1", upstream_id="up_9", now=FREE_AT))


@pytest.mark.parametrize("first", ["settle", "release"])
@pytest.mark.parametrize("second", ["settle", "release"])
async def test_what_a_person_says_last_counts_also_when_the_hold_had_ended(
    database: Database, first: str, second: str
) -> None:
    actions = {"settle": settle_orphan, "release": release_orphan}
    await database.run(an_orphan)
    await database.run(partial(actions[first], "vid_1", now=FREE_AT))
    late = partial(record_accepted, "vid_1", accepted("up_1"), first_poll_at=FREE_AT, now=FREE_AT)
    await database.run(late)
    assert await database.read(organization) == (PRICE, 0)
    await database.run(lose)
    await database.run(partial(actions[second], "vid_1", now=FREE_AT + 600))
    assert await database.read(organization) == (PRICE if second == "settle" else 0, 0)
    assert await database.read(partial(rows, "SELECT id FROM videos WHERE due_at > 0")) == []
