"""Is the outcome of a submit written down once, however late and however often it comes?"""

import json
from collections.abc import AsyncIterator
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
    claim_one,
    limited,
    opened,
    organization,
    rows,
)

from gateway.billing.audit import audit
from gateway.billing.balances import Refusal
from gateway.billing.keys import revoke_key
from gateway.db.database import Database
from gateway.errors import InvalidApiKey
from gateway.upstream.envelopes import RequestIds
from gateway.upstream.replies import Accepted
from gateway.videos.admission import Admitted
from gateway.videos.attempts import Earlier
from gateway.videos.lifecycle import Completed, Failed
from gateway.videos.opening import open_submit
from gateway.videos.orphans import RELEASE_MARGIN_SECONDS, release_orphan, settle_orphan
from gateway.videos.polls import write_completed, write_failed
from gateway.videos.reading import find_content, find_video, list_videos
from gateway.videos.records import (
    Lapsed,
    Recorded,
    orphan_lapsed,
    record_accepted,
    record_orphan,
    record_refused,
)

PRICE = 4 * RATE_MICROS
LATER = NOW + LEASE_SECONDS + RELEASE_MARGIN_SECONDS


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database
        assert await database.read(audit) == []


async def open_one(database: Database, number: int = 1, *, key_id: str = "key_a") -> None:
    submit = a_submit(number, a_hold(number, key_id=key_id))
    await database.run(partial(open_submit, submit, now=NOW))


async def accept(
    database: Database, upstream_id: str = "up_1", number: int = 1, *, now: int = NOW
) -> Recorded:
    return await database.run(
        partial(
            record_accepted,
            f"vid_{number}",
            accepted(upstream_id),
            first_poll_at=now + 10,
            now=now,
        )
    )


async def orphan(database: Database, *, reason: str = "broken", ids: RequestIds = NO_IDS) -> bool:
    return await database.run(
        partial(record_orphan, "vid_1", reason=reason, request_ids=ids, now=NOW)
    )


async def refuse(database: Database) -> bool:
    return await database.run(partial(record_refused, "vid_1", reason="refused:400", now=NOW))


async def video(database: Database, number: int = 1) -> dict[str, Any]:
    (row,) = await database.read(
        partial(rows, "SELECT * FROM videos WHERE id = $1", f"vid_{number}")
    )
    return row


async def test_a_submit_is_written_with_its_hold_before_anything_is_forwarded(
    database: Database,
) -> None:
    await open_one(database)
    row = await video(database)
    assert (row["status"], row["upstream_id"], row["due_at"]) == (
        "queued",
        None,
        NOW + LEASE_SECONDS,
    )
    assert json.loads(row["fields"])["prompt"] == "a cat"
    assert await database.read(organization) == (0, PRICE)


async def test_the_same_submit_is_written_once(database: Database) -> None:
    await open_one(database)
    before = await video(database)
    await open_one(database)
    assert await video(database) == before
    assert await database.read(organization) == (0, PRICE)


async def test_a_refused_hold_leaves_no_row(database: Database) -> None:
    await database.run(partial(limited, a_level("key", "key_a"), "day", 1))
    with pytest.raises(Refusal):
        await open_one(database)
    assert await database.read(partial(rows, "SELECT id FROM videos")) == []
    assert await database.read(partial(rows, "SELECT id FROM holds")) == []


async def test_a_key_that_was_revoked_a_moment_ago_buys_nothing(database: Database) -> None:
    await database.run(partial(revoke_key, a_change(), key_id="key_a"))
    with pytest.raises(InvalidApiKey):
        await open_one(database)
    assert await database.read(organization) == (0, 0)


async def test_an_accepted_video_has_its_id_and_is_polled_from_then_on(database: Database) -> None:
    await open_one(database)
    assert await accept(database) is Recorded.FOLLOWED
    row = await video(database)
    assert (row["upstream_id"], row["recorded_at"], row["due_at"]) == ("up_1", NOW, NOW + 10)
    assert json.loads(row["object"])["prompt"] == "a cat"
    assert await database.read(organization) == (0, PRICE)


async def test_a_refused_submit_costs_nothing_once(database: Database) -> None:
    await open_one(database)
    assert await refuse(database)
    assert not await refuse(database)
    row = await video(database)
    assert (row["refused_at"], row["due_at"]) == (NOW, None)
    assert await database.read(organization) == (0, 0)


async def test_an_unknown_outcome_keeps_the_hold(database: Database) -> None:
    await open_one(database)
    assert await orphan(database, ids=RequestIds(provider="req_1", relay="relay_1"))
    assert not await orphan(database, reason="again")
    row = await video(database)
    assert (row["orphaned_at"], row["orphan_reason"], row["due_at"]) == (NOW, "broken", None)
    assert (row["provider_request_id"], row["relay_request_id"]) == ("req_1", "relay_1")
    assert await database.read(organization) == (0, PRICE)


async def test_a_submit_becomes_an_orphan_only_when_its_lease_has_lapsed(
    database: Database,
) -> None:
    for number in range(1, 5):
        await open_one(database, number)
    await accept(database, "up_2", number=2)
    await database.run(partial(record_refused, "vid_3", reason="", now=NOW))
    await orphan_four(database)
    end = NOW + LEASE_SECONDS
    assert await database.run(partial(orphan_lapsed, now=end - 1)) == []
    assert await database.run(partial(orphan_lapsed, now=end)) == [
        Lapsed("vid_1", "proj_a", "key_a", "default", None, "sora-2", PRICE)
    ]
    assert await database.run(partial(orphan_lapsed, now=end + 1)) == []
    assert (await video(database))["orphan_reason"] == "lease_lapsed"
    assert (await video(database, 4))["orphan_reason"] == "broken"


async def orphan_four(database: Database) -> None:
    await database.run(
        partial(record_orphan, "vid_4", reason="broken", request_ids=NO_IDS, now=NOW)
    )


async def test_a_late_reason_replaces_that_of_the_lapsed_lease(database: Database) -> None:
    await open_one(database)
    await database.run(partial(orphan_lapsed, now=LATER))
    assert await orphan(database)
    assert (await video(database))["orphan_reason"] == "broken"


async def test_a_late_id_is_accepted_on_an_orphan(database: Database) -> None:
    await open_one(database)
    await database.run(partial(orphan_lapsed, now=LATER))
    assert await accept(database, now=LATER) is Recorded.FOLLOWED
    row = await video(database)
    assert (row["orphaned_at"], row["orphan_reason"], row["due_at"]) == (None, None, LATER + 10)
    assert await database.read(organization) == (0, PRICE)


async def test_a_late_refusal_releases_an_orphan(database: Database) -> None:
    await open_one(database)
    await database.run(partial(orphan_lapsed, now=LATER))
    assert await refuse(database)
    assert (await video(database))["orphaned_at"] is None
    assert await database.read(organization) == (0, 0)


async def test_a_late_id_after_a_release_charges_the_price_once(database: Database) -> None:
    await open_one(database)
    await orphan(database)
    await database.run(partial(release_orphan, a_change(now=LATER), "vid_1"))
    for _ in range(2):
        assert await accept(database, now=LATER) is Recorded.AFTER_RELEASE
        assert await database.read(organization) == (PRICE, 0)


async def test_a_late_refusal_after_a_person_settled_gives_the_money_back(
    database: Database,
) -> None:
    await open_one(database)
    await orphan(database)
    await database.run(partial(settle_orphan, a_change(now=LATER), "vid_1"))
    assert await database.read(organization) == (PRICE, 0)
    for _ in range(2):
        assert not await refuse(database)
        assert await database.read(organization) == (0, 0)


async def test_an_id_that_another_video_owns_makes_an_orphan_and_leaves_the_owner_alone(
    database: Database,
) -> None:
    await open_one(database)
    await open_one(database, 2)
    await accept(database)
    owner = await video(database)
    for _ in range(2):
        assert await accept(database, "up_1", number=2) is Recorded.DUPLICATE
        second = await video(database, 2)
        assert (second["upstream_id"], second["orphan_reason"]) == (None, "duplicate_upstream_id")
        assert await video(database) == owner
    assert await database.read(organization) == (0, 2 * PRICE)


async def test_one_id_of_two_upstreams_is_two_videos(database: Database) -> None:
    await open_one(database)
    submit = a_submit(2)
    other = type(submit)(
        video_id=submit.video_id,
        intent=submit.intent,
        hold=submit.hold,
        upstream="other",
        kind=submit.kind,
        fields=submit.fields,
        lease_ends_at=submit.lease_ends_at,
    )
    await database.run(partial(open_submit, other, now=NOW))
    assert await accept(database) is Recorded.FOLLOWED
    assert await accept(database, "up_1", number=2) is Recorded.FOLLOWED


async def test_a_second_id_for_a_video_changes_nothing_and_is_free_for_its_owner(
    database: Database,
) -> None:
    await open_one(database)
    await open_one(database, 2)
    await accept(database)
    before = await video(database)
    assert await accept(database, "up_2") is Recorded.DUPLICATE
    assert await video(database) == before
    assert await accept(database, "up_2", number=2) is Recorded.FOLLOWED


@pytest.mark.parametrize("end", ["completed", "failed"])
async def test_a_record_that_is_replayed_after_the_end_changes_nothing(
    database: Database, end: str
) -> None:
    await open_one(database)
    await accept(database)
    claim = await database.run(partial(claim_one, now=NOW + 10))
    seen = {"id": "up_1", "status": end}
    if end == "completed":
        await database.run(
            partial(
                write_completed,
                claim,
                Completed(list_micros=PRICE, above_hold=False, has_content=True),
                seen,
                assets={"video": "asset_1"},
                retention_seconds=60,
                now=NOW + 20,
            )
        )
    else:
        await database.run(
            partial(write_failed, claim, Failed("no", list_micros=0), seen, now=NOW + 20)
        )
    before, money = await video(database), await database.read(organization)
    assert await accept(database, now=NOW + 30) is Recorded.FOLLOWED
    assert await video(database) == before
    assert await database.read(organization) == money


async def test_a_video_is_found_by_its_project_only(database: Database) -> None:
    await open_one(database)
    await accept(database, "up/../1?")
    find = partial(find_video, upstream_id="up/../1?")
    found = await database.read(partial(find, project_id="proj_a"))
    assert found is not None
    assert (found["id"], found["cost_micros"]) == ("vid_1", PRICE)
    assert await database.read(partial(find, project_id="proj_b")) is None
    content = partial(find_content, upstream_id="up/../1?", variant="video")
    row = await database.read(partial(content, project_id="proj_a"))
    assert row is not None
    assert (row["status"], row["asset_id"]) == ("queued", None)
    assert await database.read(partial(content, project_id="proj_b")) is None


async def test_a_relays_own_word_never_reaches_the_record(database: Database) -> None:
    await open_one(database)
    answer = Accepted(
        upstream_id="up_1", object={"id": "x", "status": "submitted"}, request_ids=NO_IDS
    )
    await database.run(partial(record_accepted, "vid_1", answer, first_poll_at=NOW, now=NOW))
    shown = json.loads((await video(database))["object"])
    assert (shown["id"], shown["status"]) == ("up_1", "queued")


async def test_an_operators_list_is_newest_first_and_says_what_was_spent(
    database: Database,
) -> None:
    for number in range(1, 4):
        submit = a_submit(number, now=NOW + number)
        await database.run(partial(open_submit, submit, now=NOW + number))
    await orphan(database)
    await database.run(partial(settle_orphan, a_change(now=LATER), "vid_1"))
    listed = await database.read(partial(list_videos, limit=2))
    assert [row["id"] for row in listed] == ["vid_3", "vid_2"]
    last = (await database.read(partial(list_videos, limit=9)))[-1]
    assert (last["hold_state"], last["spent_micros"]) == ("settled", PRICE)
    assert last["project"] == "name of proj_a"


async def test_a_submit_whose_script_runs_twice_is_its_own_and_not_its_own_retry(
    database: Database,
) -> None:
    """As after a commit whose outcome was lost: the same script is run again whole."""
    await database.run(partial(open_submit, a_submit(1), now=NOW))
    intent = replace(a_submit(1).intent, retry_count=1)
    retry = replace(a_submit(2), intent=intent)
    claimed = await database.run(partial(open_submit, retry, now=NOW))
    assert isinstance(claimed, Earlier)
    assert await database.run(partial(open_submit, retry, now=NOW)) == claimed
    newer = replace(a_submit(3), intent=intent)
    held = await database.run(partial(open_submit, newer, now=NOW))
    assert isinstance(held, Admitted)
    again = await database.run(partial(open_submit, newer, now=NOW))
    assert isinstance(again, Admitted)
    assert [row["id"] for row in await database.read(partial(rows, "SELECT id FROM holds"))] == [
        "hold_1",
        "hold_3",
    ]
