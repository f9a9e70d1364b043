"""Does a poll move status and money together, and only while its claim holds?"""

import json
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ledger_tools import NOW, RATE_MICROS, a_change, claim_one, followed, opened, organization, rows

from gateway.billing.audit import audit
from gateway.db.database import Database
from gateway.db.script import Script
from gateway.videos.claims import Claim, claim_due, give_back
from gateway.videos.lifecycle import Completed, Failed, Pending
from gateway.videos.orphans import release_orphan
from gateway.videos.polls import (
    Ended,
    write_completed,
    write_failed,
    write_nothing,
    write_orphan,
    write_pending,
)

PRICE = 4 * RATE_MICROS
RETENTION_SECONDS = 3600


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        await database.run(followed)
        yield database
        assert await database.read(audit) == []


def completed(
    claim: Claim, *, micros: int = PRICE, now: int = NOW, **fields: object
) -> Script[Ended]:
    return write_completed(
        claim,
        Completed(list_micros=micros, above_hold=micros > PRICE, has_content=True),
        {"id": claim.upstream_id, "status": "completed", **fields},
        assets={"video": "asset_1"},
        retention_seconds=RETENTION_SECONDS,
        now=now,
    )


def failed(claim: Claim, *, now: int = NOW) -> Script[Ended]:
    seen = {"id": claim.upstream_id, "status": "failed"}
    return write_failed(claim, Failed("moderation_blocked", list_micros=0), seen, now=now)


async def one(database: Database, table: str) -> dict[str, Any]:
    (row,) = await database.read(partial(rows, f"SELECT * FROM {table}"))
    return row


async def test_a_claim_takes_what_is_due_for_the_length_of_a_lease(database: Database) -> None:
    await database.run(partial(followed, 2, now=NOW + 1))
    claim = partial(claim_due, limit=9, lease_ends_at=NOW + 60, now=NOW)
    (claimed,) = await database.run(claim)
    assert (claimed.video_id, claimed.claim_number, claimed.upstream_id) == ("vid_1", 2, "up_1")
    assert claimed.terms.list_micros == PRICE
    assert await database.run(claim) == []
    again = await database.run(partial(claim_due, limit=9, lease_ends_at=NOW + 99, now=NOW + 60))
    assert {(one.video_id, one.claim_number) for one in again} == {("vid_1", 3), ("vid_2", 2)}


async def test_a_claim_takes_the_longest_due_first(database: Database) -> None:
    for number in range(2, 6):
        await database.run(partial(followed, number, now=NOW - number))
    claimed = await database.run(partial(claim_due, limit=2, lease_ends_at=NOW + 60, now=NOW))
    assert {one.video_id for one in claimed} == {"vid_5", "vid_4"}


async def test_a_pending_video_stays_held_and_is_polled_again(database: Database) -> None:
    claim = await database.run(claim_one)
    seen = {"id": "up_1", "status": "running", "progress": 40}
    pending = Pending("in_progress")
    assert await database.run(
        partial(write_pending, claim, pending, seen, due_at=NOW + 10, now=NOW)
    )
    row = await one(database, "videos")
    assert (row["status"], row["due_at"], row["polled_at"]) == ("in_progress", NOW + 10, NOW)
    assert json.loads(row["object"])["progress"] == 40
    assert await database.read(organization) == (0, PRICE)


async def test_an_answer_that_says_nothing_moves_only_the_next_poll(database: Database) -> None:
    claim = await database.run(claim_one)
    before = await one(database, "videos")
    assert await database.run(
        partial(write_nothing, claim, missing=False, due_at=NOW + 10, now=NOW)
    )
    assert await one(database, "videos") == before | {"due_at": NOW + 10, "polled_at": NOW}


async def test_missing_polls_are_counted_once_each_until_the_video_is_seen(
    database: Database,
) -> None:
    for expected in (1, 2):
        claim = await database.run(claim_one)
        script = partial(write_nothing, claim, missing=True, due_at=NOW, now=NOW)
        await database.run(script)
        await database.run(script)
        assert (await one(database, "videos"))["missing_polls"] == expected
    claim = await database.run(claim_one)
    await database.run(
        partial(write_pending, claim, Pending("queued"), {}, due_at=NOW + 10, now=NOW)
    )
    assert (await one(database, "videos"))["missing_polls"] == 0


async def test_a_completed_video_is_settled_and_its_content_is_due_at_once(
    database: Database,
) -> None:
    claim = await database.run(claim_one)
    assert await database.run(partial(completed, claim)) == Ended(
        written=True, settled_micros=PRICE
    )
    row = await one(database, "videos")
    assert (row["status"], row["completed_at"], row["due_at"]) == ("completed", NOW, None)
    asset = await one(database, "assets")
    assert (asset["id"], asset["due_at"], asset["expires_at"]) == (
        "asset_1",
        NOW,
        NOW + RETENTION_SECONDS,
    )
    assert await database.read(organization) == (PRICE, 0)


@pytest.mark.parametrize("micros", [1, PRICE // 2, 2 * PRICE])
async def test_a_completed_video_costs_what_was_judged(database: Database, micros: int) -> None:
    claim = await database.run(claim_one)
    await database.run(partial(completed, claim, micros=micros))
    assert await database.read(organization) == (micros, 0)


@pytest.mark.parametrize(
    ("expires_at", "kept"),
    [
        (NOW + 77, NOW + 77),
        (None, NOW + RETENTION_SECONDS),
        (0, NOW + RETENTION_SECONDS),
        (-1, NOW + RETENTION_SECONDS),
        (True, NOW + RETENTION_SECONDS),
        ("soon", NOW + RETENTION_SECONDS),
        (NOW * 1000, NOW + RETENTION_SECONDS),
        (10**30, NOW + RETENTION_SECONDS),
    ],
)
async def test_content_expires_when_the_object_says_so_in_unix_seconds(
    database: Database, expires_at: object, kept: int
) -> None:
    claim = await database.run(claim_one)
    await database.run(partial(completed, claim, expires_at=expires_at))
    assert (await one(database, "assets"))["expires_at"] == kept
    assert (await one(database, "videos"))["expires_at"] == kept


async def test_a_failed_video_costs_nothing(database: Database) -> None:
    claim = await database.run(claim_one)
    assert await database.run(partial(failed, claim)) == Ended(written=True, released_micros=PRICE)
    row = await one(database, "videos")
    assert (row["status"], row["failed_at"], row["due_at"]) == ("failed", NOW, None)
    assert json.loads(row["object"])["error"]["code"] == "unspecified"
    assert await database.read(organization) == (0, 0)
    assert await database.read(partial(rows, "SELECT id FROM assets")) == []


async def test_a_lost_video_is_an_orphan_whose_hold_stays_until_it_is_seen_again(
    database: Database,
) -> None:
    claim = await database.run(claim_one)
    await database.run(partial(write_orphan, claim, reason="missing", due_at=NOW + 9, now=NOW))
    row = await one(database, "videos")
    assert (row["status"], row["orphan_reason"], row["due_at"]) == ("failed", "missing", NOW + 9)
    assert json.loads(row["object"])["error"]["code"] == "outcome_unknown"
    assert await database.read(organization) == (0, PRICE)
    again = await database.run(partial(claim_one, now=NOW + 9))
    assert again.orphaned
    await database.run(partial(completed, again, now=NOW + 9))
    row = await one(database, "videos")
    assert (row["status"], row["orphaned_at"], row["orphan_reason"]) == ("completed", None, None)
    assert json.loads(row["object"])["error"] is None
    assert await database.read(organization) == (PRICE, 0)


async def test_what_is_given_back_is_due_at_once_but_not_what_has_ended(database: Database) -> None:
    for number in (2, 3):
        await database.run(partial(followed, number, now=NOW))
    take = partial(claim_due, limit=3, lease_ends_at=NOW + 60, now=NOW)
    one, two, three = sorted(await database.run(take), key=lambda claim: claim.video_id)
    await database.run(partial(completed, two))
    (stale,) = await database.run(
        partial(claim_due, limit=1, lease_ends_at=NOW + 120, now=NOW + 60)
    )
    await database.run(partial(give_back, [one, two, three], now=NOW + 61))
    again = await database.run(partial(claim_due, limit=3, lease_ends_at=NOW + 99, now=NOW + 61))
    assert {claim.video_id for claim in again} == {"vid_1", "vid_3"} - {stale.video_id}


@pytest.mark.parametrize("write", ["pending", "nothing", "orphan", "completed", "failed"])
async def test_a_write_under_a_lost_claim_changes_nothing(database: Database, write: str) -> None:
    stale = await database.run(claim_one)
    await database.run(partial(claim_one, now=NOW + 60))
    scripts: dict[str, Callable[[], Script[bool | Ended]]] = {
        "pending": partial(write_pending, stale, Pending("queued"), {}, due_at=1, now=NOW),
        "nothing": partial(write_nothing, stale, missing=True, due_at=1, now=NOW),
        "orphan": partial(write_orphan, stale, reason="missing", due_at=1, now=NOW),
        "completed": partial(completed, stale),
        "failed": partial(failed, stale),
    }
    before = await one(database, "videos")
    answer = await database.run(scripts[write])
    assert answer in (False, Ended(written=False))
    assert await one(database, "videos") == before
    assert await database.read(organization) == (0, PRICE)


@pytest.mark.parametrize("end", ["completed", "failed"])
async def test_an_end_that_is_written_twice_counts_once(database: Database, end: str) -> None:
    claim = await database.run(claim_one)
    script = partial(completed if end == "completed" else failed, claim)
    await database.run(script)
    before = [await one(database, table) for table in ("videos", "holds")]
    assert await database.run(script) == Ended(written=True, correction_micros=0)
    assert [await one(database, table) for table in ("videos", "holds")] == before
    assert await database.read(organization) == (PRICE if end == "completed" else 0, 0)


async def test_a_poll_in_flight_cannot_undo_what_a_person_decided(database: Database) -> None:
    claim = await database.run(claim_one)
    await database.run(partial(write_orphan, claim, reason="missing", due_at=NOW, now=NOW))
    polling = await database.run(claim_one)
    await database.run(partial(release_orphan, a_change(now=NOW + 10**6), "vid_1"))
    assert await database.run(partial(completed, polling)) == Ended(written=False)
    assert await database.read(organization) == (0, 0)
