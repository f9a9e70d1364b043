"""Is the mirror's progress written down only by the one whose turn it is?"""

from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ledger_tools import NOW, claim_one, followed, opened, rows

from gateway.db.database import Database
from gateway.db.script import Script
from gateway.mirror.assets import (
    AssetClaim,
    claim_asset,
    claim_assets,
    give_back,
    is_removed,
    renew,
    write_absent,
    write_failure,
    write_gone,
    write_mirrored,
)
from gateway.mirror.fetched import Wanted
from gateway.videos.lifecycle import Completed
from gateway.videos.polls import write_completed

LEASE_SECONDS = 60


def an_asset(number: int, *, expires_at: int) -> Script[None]:
    yield from followed(number)
    claim = yield from claim_one()
    yield from write_completed(
        claim,
        Completed(list_micros=1, above_hold=False, has_content=True),
        {"status": "completed", "expires_at": expires_at},
        assets={"video": f"asset_{number}"},
        retention_seconds=0,
        now=NOW,
    )


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        await database.run(partial(an_asset, 1, expires_at=NOW + 900))
        yield database


async def claim(database: Database, *, now: int = NOW) -> AssetClaim:
    (claimed,) = await database.run(
        partial(claim_assets, limit=1, lease_ends_at=now + LEASE_SECONDS, now=now)
    )
    return claimed


async def asset(database: Database) -> dict[str, Any]:
    (row,) = await database.read(partial(rows, "SELECT * FROM assets WHERE id = 'asset_1'"))
    return row


async def test_an_asset_is_claimed_with_what_is_needed_to_fetch_it(database: Database) -> None:
    assert await claim(database) == AssetClaim(
        asset_id="asset_1",
        video_id="vid_1",
        claim_number=1,
        variant="video",
        upstream="default",
        upstream_id="up_1",
        created_at=NOW,
        expires_at=NOW + 900,
        attempts=1,
        sha256=None,
        project_id="proj_a",
        key_id="key_a",
        traceparent=None,
    )


async def test_a_claim_says_what_is_to_be_downloaded_and_what_the_log_calls_it(
    database: Database,
) -> None:
    mine = await claim(database)
    assert mine.wanted == Wanted("asset_1", "default", "up_1", "video")
    assert mine.log_facts == {
        "video_id": "vid_1",
        "variant": "video",
        "asset_id": "asset_1",
        "upstream": "default",
        "upstream_id": "up_1",
        "project_id": "proj_a",
        "key_id": "key_a",
    }


async def test_one_asset_is_claimed_only_while_it_is_due(database: Database) -> None:
    await database.run(partial(an_asset, 2, expires_at=NOW + 500))
    take = partial(claim_asset, "asset_1", lease_ends_at=NOW + LEASE_SECONDS, now=NOW)
    (mine,) = await database.run(take)
    assert mine.asset_id == "asset_1"
    assert await database.run(take) == []
    assert await database.run(partial(claim_asset, "other", lease_ends_at=NOW, now=NOW)) == []


@pytest.mark.parametrize("end", ["give_back", "mirrored", "failure", "gone", "absent"])
async def test_a_lease_is_seen_from_its_claim_to_its_end(database: Database, end: str) -> None:
    assert (await asset(database))["leased_at"] is None
    mine = await claim(database)
    assert (await asset(database))["leased_at"] == NOW
    await database.run(writes(mine)[end])
    assert (await asset(database))["leased_at"] is None


async def test_the_asset_nearest_to_its_expiry_is_claimed_first(database: Database) -> None:
    for number, expires_at in [(2, NOW + 500), (3, NOW + 100), (4, NOW + 700)]:
        await database.run(partial(an_asset, number, expires_at=expires_at))
    take = partial(claim_assets, limit=3, lease_ends_at=NOW + LEASE_SECONDS, now=NOW)
    assert [one.asset_id for one in await database.run(take)] == ["asset_3", "asset_2", "asset_4"]
    assert [one.asset_id for one in await database.run(take)] == ["asset_1"]
    assert await database.run(take) == []


async def test_a_claim_ends_with_its_lease_and_is_counted(database: Database) -> None:
    await claim(database)
    again = await claim(database, now=NOW + LEASE_SECONDS)
    assert (again.claim_number, again.attempts) == (2, 2)


async def test_a_renewed_claim_is_nobody_elses(database: Database) -> None:
    mine = await claim(database)
    assert await database.run(partial(renew, mine, lease_ends_at=NOW + 2 * LEASE_SECONDS))
    take = partial(claim_assets, limit=1, lease_ends_at=NOW + 999, now=NOW + LEASE_SECONDS)
    assert await database.run(take) == []


async def test_a_mirrored_asset_is_never_due_again(database: Database) -> None:
    mine = await claim(database)
    await database.run(partial(write_failure, mine, failure="wrong_length", due_at=NOW))
    mine = await claim(database)
    script = partial(
        write_mirrored, mine, content_type="video/mp4", size_bytes=9, sha256="ab", now=NOW + 1
    )
    for _ in range(2):
        assert await database.run(script)
        row = await asset(database)
        assert (row["content_type"], row["size_bytes"], row["sha256"]) == ("video/mp4", 9, "ab")
        assert (row["mirrored_at"], row["due_at"], row["failure"]) == (NOW + 1, None, None)


async def test_a_failure_says_why_and_when_it_is_tried_again(database: Database) -> None:
    mine = await claim(database)
    await database.run(partial(write_failure, mine, failure="wrong_length", due_at=NOW + 4))
    row = await asset(database)
    assert (row["failure"], row["due_at"], row["mirrored_at"]) == ("wrong_length", NOW + 4, None)
    assert (await claim(database, now=NOW + 4)).attempts == 2


async def test_content_that_is_lost_is_not_fetched_any_more(database: Database) -> None:
    mine = await claim(database)
    await database.run(partial(write_gone, mine, failure="missing", now=NOW + 901))
    row = await asset(database)
    assert (row["gone_at"], row["due_at"], row["failure"]) == (NOW + 901, None, "missing")


async def test_a_variant_that_is_not_there_is_not_asked_for_any_more(database: Database) -> None:
    mine = await claim(database)
    await database.run(partial(write_absent, mine, failure="http_status", now=NOW + 301))
    row = await asset(database)
    assert (row["absent_at"], row["due_at"], row["gone_at"]) == (NOW + 301, None, None)


async def test_what_was_damaged_is_claimed_with_the_hash_it_once_had(database: Database) -> None:
    mine = await claim(database)
    await database.run(writes(mine)["mirrored"])
    damage = "UPDATE assets SET mirrored_at = NULL, damaged_at = $1, due_at = $1"
    await database.run(partial(rows, f"{damage} RETURNING id", NOW))
    assert (await claim(database)).sha256 == "ab"


async def test_what_was_removed_is_said_to_be(database: Database) -> None:
    assert not await database.read(partial(is_removed, "asset_1"))
    await database.run(partial(rows, "UPDATE assets SET removed_at = $1 RETURNING id", NOW))
    assert await database.read(partial(is_removed, "asset_1"))


async def test_what_is_given_back_is_due_at_once_but_not_what_is_mirrored(
    database: Database,
) -> None:
    mine = await claim(database)
    await database.run(partial(give_back, [mine], now=NOW + 5))
    again = await claim(database, now=NOW + 5)
    assert again.asset_id == mine.asset_id
    await database.run(partial(give_back, [mine], now=NOW + 6))
    assert (await asset(database))["due_at"] == NOW + 5 + LEASE_SECONDS
    await database.run(
        partial(write_mirrored, again, content_type="a/b", size_bytes=1, sha256="", now=NOW + 6)
    )
    await database.run(partial(give_back, [again], now=NOW + 6))
    assert (await asset(database))["due_at"] is None


def writes(claimed: AssetClaim) -> dict[str, Callable[[], Script[Any]]]:
    """Everything that may be written under a claim."""
    return {
        "renew": partial(renew, claimed, lease_ends_at=1),
        "give_back": partial(give_back, [claimed], now=NOW),
        "mirrored": partial(
            write_mirrored, claimed, content_type="video/mp4", size_bytes=1, sha256="ab", now=NOW
        ),
        "failure": partial(write_failure, claimed, failure="late", due_at=1),
        "gone": partial(write_gone, claimed, failure="late", now=NOW),
        "absent": partial(write_absent, claimed, failure="late", now=NOW),
    }


@pytest.mark.parametrize("write", ["renew", "give_back", "mirrored", "failure", "gone", "absent"])
async def test_a_write_under_a_lost_claim_changes_nothing(database: Database, write: str) -> None:
    stale = await claim(database)
    await claim(database, now=NOW + LEASE_SECONDS)
    before = await asset(database)
    assert not await database.run(writes(stale)[write])
    assert await asset(database) == before
