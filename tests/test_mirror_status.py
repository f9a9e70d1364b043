"""Does an operator see how it stands with all content, however much there is?"""

import re
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from databases import look, url_of
from shelf import FAR, Shelf, now, shelf

from gateway.db.script import Script
from gateway.mirror.status import OLDEST, PROJECTS, STATES, Status, read_status

NOW = 10_000


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with shelf(tmp_path) as made:
        yield made


async def every_state(made: Shelf) -> None:
    """Put two assets of each state on the shelf, each of 1000 bytes where bytes are known."""
    states = {
        "mirrored": "verified_at = 500",
        "waiting": "mirrored_at = NULL, sha256 = NULL, size_bytes = NULL, due_at = 9000,"
        " failure = 'http_status'",
        "mirroring": "mirrored_at = NULL, size_bytes = NULL, leased_at = 9990, due_at = 10080",
        "damaged": "mirrored_at = NULL, damaged_at = 9990, due_at = 9990,"
        " failure = 'store_wrong_bytes'",
        "lost": "mirrored_at = NULL, gone_at = 9990, size_bytes = NULL, failure = 'http_status'",
        "absent": "mirrored_at = NULL, absent_at = 9990, failure = 'http_status'",
        "removed": "removed_at = 9990, removed_for = 'age'",
        "purged": "removed_at = 9990, removed_for = 'age', purged_at = 9995",
    }
    number = 0
    for change in states.values():
        for _ in range(2):
            item = await made.put(
                number,
                b"x" * 1000,
                at=1000 + number,
                expires_at=20_000 - number,
                project_id="proj_a" if number % 4 else "proj_b",
            )
            await made.change(f"UPDATE assets SET {change} WHERE id = $1", item.asset_id)
            number += 1


async def status_of(made: Shelf) -> Status:
    return await made.database.read(lambda: read_status(now=NOW))


async def test_every_state_is_counted_once(kept: Shelf) -> None:
    await every_state(kept)
    status = await status_of(kept)
    assert dict(status.assets) == dict.fromkeys(STATES, 2)
    with_bytes = {"mirrored", "damaged", "removed"}
    assert {state for state in STATES if status.size_bytes[state]} == with_bytes
    assert {status.size_bytes[state] for state in with_bytes} == {2000}
    assert status.verified_at == 500


async def test_failures_are_counted_by_reason_but_not_what_the_upstream_never_had(
    kept: Shelf,
) -> None:
    await every_state(kept)
    assert dict((await status_of(kept)).failures) == {
        ("waiting", "http_status"): 2,
        ("damaged", "store_wrong_bytes"): 2,
        ("lost", "http_status"): 2,
    }


async def test_a_lease_that_has_ended_is_no_mirroring(kept: Shelf) -> None:
    await every_state(kept)
    await kept.change("UPDATE assets SET due_at = $1 WHERE leased_at IS NOT NULL", NOW)
    status = await status_of(kept)
    assert (status.assets["mirroring"], status.assets["waiting"]) == (0, 4)


async def test_what_waits_longest_and_what_expires_first_are_named(kept: Shelf) -> None:
    for number in range(OLDEST + 2):
        await kept.put(number, at=1000 + number, expires_at=20_000 - number)
    await kept.change("UPDATE assets SET mirrored_at = NULL, due_at = 9000, attempts = 3")
    # Damaged just now: it has not waited since it was made.
    await kept.change("UPDATE assets SET damaged_at = 9999 WHERE id = 'asset_0'")
    status = await status_of(kept)
    expected = [(f"vid_{one}", 1000 + one) for one in range(1, OLDEST + 1)]
    assert [(row["video_id"], row["waiting_since"]) for row in status.oldest] == expected
    assert status.next_expiry is not None
    assert status.next_expiry["upstream_id"] == f"video_{OLDEST + 1}"


async def test_the_largest_projects_come_first_and_all_are_added_up(kept: Shelf) -> None:
    for number in range(PROJECTS + 3):
        await kept.put(number, b"x" * (number + 1), project_id=f"proj_{number:02}")
    status = await status_of(kept)
    assert [row["size_bytes"] for row in status.projects] == list(range(13, 3, -1))
    assert (status.assets["mirrored"], status.size_bytes["mirrored"]) == (13, sum(range(14)))


async def test_nothing_at_all_is_a_status_too(kept: Shelf) -> None:
    status = await status_of(kept)
    assert dict(status.assets) == dict.fromkeys(STATES, 0)
    assert (status.verified_at, status.next_expiry, status.failures) == (None, None, {})
    ran = await kept.mirror("status")
    assert ran.code == 0
    assert "waiting longest" not in ran.out


async def test_the_command_says_it_to_people_and_to_programs(kept: Shelf) -> None:
    await every_state(kept)
    waiting = await kept.put(99, at=now() - 600, expires_at=now() + 3600, upstream_id="video/[b]")
    await kept.change(
        "UPDATE assets SET mirrored_at = NULL, due_at = $1 WHERE id = $2", FAR, waiting.asset_id
    )
    await kept.change("UPDATE assets SET due_at = NULL WHERE id != $1", waiting.asset_id)
    facts = (await kept.mirror("status", "--json")).json
    counted = {one["state"]: one["assets"] for one in facts["states"]}
    assert counted == {
        "mirrored": 2,
        "waiting": 1,
        "mirroring": 0,
        "damaged": 0,
        "lost": 2,
        "absent": 2,
        "removed": 2,
    }
    (oldest,) = facts["oldest_unmirrored"]
    assert oldest == facts["next_expiry"]
    assert (oldest["video"], oldest["upstream_id"]) == ("vid_99", "video/[b]")
    assert 600 <= oldest["age_seconds"] < 660
    assert 58 <= oldest["expires_in_minutes"] <= 60
    assert oldest["project"] == "name of proj_a"
    assert facts["failures"] == [{"state": "lost", "failure": "http_status", "assets": 2}]
    assert facts["projects"][0]["size_bytes"] == 1000
    assert facts["verified_longest_ago_at"] == 500
    shown = (await kept.mirror("status")).out
    assert re.search(r"^mirrored +2 +2000$", shown, re.MULTILINE)
    assert "video/[b]" in shown
    assert "all that is kept was verified after 1970-01-01 00:08:20" in shown


@pytest.mark.sqlite("it reads the plans of SQLite")
async def test_no_question_about_the_status_reads_the_table_itself(kept: Shelf) -> None:
    texts: list[str] = []

    def watched() -> Script[Status]:
        script = read_status(now=NOW)
        statement = next(script)
        try:
            while True:
                texts.append(statement.text)
                statement = script.send((yield statement))
        except StopIteration as end:
            return end.value  # type: ignore[no-any-return]

    await kept.database.read(watched)
    for text in texts:
        for *_, step in look(url_of(kept.folder / "gateway.db"), f"EXPLAIN QUERY PLAN {text}", 1):
            assert "assets" not in step or "INDEX" in step, (text, step)
    assert len(texts) >= 7
