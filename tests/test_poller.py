"""Is every video followed to its end, and is its money moved by evidence alone?"""

import asyncio
import bisect
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conftest import LogLines, Timeline, World, eventually, world
from prometheus_client import CollectorRegistry

from gateway.billing.audit_log import COMMAND, Change
from gateway.billing.balances import Account, accounting_day
from gateway.billing.keys import NewKey
from gateway.billing.ledger import Hold
from gateway.db.script import Row, Script
from gateway.simulator.rules import Asked
from gateway.simulator.world import Settings as SimulatorSettings
from gateway.simulator.world import execute
from gateway.telemetry.metrics.labels import Known
from gateway.telemetry.metrics.videos import VideoMetrics
from gateway.upstream.client import Upstream, UpstreamSettings
from gateway.upstream.envelopes import RequestIds
from gateway.upstream.replies import Accepted
from gateway.videos.attempts import Intent
from gateway.videos.opening import Submit, open_submit
from gateway.videos.orphans import list_orphans, settle_orphan
from gateway.videos.poller import (
    MISSING_POLLS_LIMIT,
    STEPS,
    Polling,
    poll_forever,
)
from gateway.videos.records import record_accepted
from gateway.videos.schedule import ORPHAN_INTERVAL_SECONDS

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Longer than any of these tests: a poll takes place when the test moves the time, and only then.
INTERVAL_SECONDS = 60
FOREVER_SECONDS = 10_000_000


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(place: Path) -> AsyncIterator[World]:
    folder = place / "poller"
    async with world(
        folder, poll_interval_seconds=INTERVAL_SECONDS, patience_seconds=FOREVER_SECONDS
    ) as made:
        yield made


async def all_polled(
    made: World, bought: dict[str, str], *, after_seconds: int = INTERVAL_SECONDS + 1
) -> dict[str, dict[str, Any]]:
    """Let time pass, wait until the polls that are then due are recorded, and return the facts."""
    first = {name: await made.facts(bought[name]) for name in bought}
    # What is over is polled no more.
    before = {name: one["polled_at"] if one["due_at"] else None for name, one in first.items()}
    made.timeline.offset_seconds += after_seconds

    async def recorded() -> dict[str, dict[str, Any]] | None:
        found = {name: await made.facts(bought[name]) for name in bought}
        done = all(found[name]["polled_at"] != before[name] for name in bought)
        return found if done else None

    found: dict[str, dict[str, Any]] = await eventually(recorded)
    return found


async def polled(
    made: World, video_id: str, *, after_seconds: int = INTERVAL_SECONDS + 1
) -> dict[str, Any]:
    """Let time pass, wait until the poll that is then due is recorded, and return the facts."""
    return (await all_polled(made, {"": video_id}, after_seconds=after_seconds))[""]


async def shown(made: World, key: NewKey, video_id: str) -> dict[str, Any]:
    async with made.client(key) as client:
        answer = await client.get(f"/videos/{video_id}")
    assert answer.status_code == 200
    video: dict[str, Any] = answer.json()
    return video


async def almost_lost(made: World, video_id: str, *, polls_left: int) -> None:
    """Let the upstream have said so often that there is no such video, that so many are left."""
    missing = MISSING_POLLS_LIMIT - polls_left
    await made.change(
        "UPDATE videos SET missing_polls = $2 WHERE upstream_id = $1", video_id, missing
    )


async def orphans(made: World) -> dict[str, Row]:
    return {row["upstream_id"]: row for row in await made.database.read(list_orphans)}


PROVING_NOTHING = [
    "401*1",
    "403*1",
    "404*1",
    "410*1",
    "429*1 1",
    "500*1",
    "502*1",
    "503*1",
    "504*1",
    "500-envelope*1",
    "no-channel*1",
    "302*1",
    "html*1",
    "empty*1",
    "garbage*1",
    "drop*1",
    "half-body*1",
    "status*1 unknown",
    "status*1 expired",
    "unset*1 status",
    "set*1 7 key=status",
    "answer*1 null",
    'answer*1 {"status":"failed"} status=202',
    'answer*1 {"status":"failed"} status=404',
]


async def test_a_poll_that_proves_nothing_moves_no_money_and_a_later_one_does(
    shared: World,
) -> None:
    key = await shared.key()
    bought = {
        fault: await shared.buy(key, f"[[queue 1]] [[retrieve:{fault}]]")
        for fault in PROVING_NOTHING
    }
    await shared.control.advance(1)
    first = await all_polled(shared, bought)
    assert {
        fault: (facts["hold_state"], facts["status"]) for fault, facts in first.items()
    } == dict.fromkeys(PROVING_NOTHING, ("held", "queued"))
    for video_id in bought.values():
        assert (await shown(shared, key, video_id))["status"] == "queued"
    second = await all_polled(shared, bought)
    assert {
        fault: (facts["hold_settled_micros"], facts["status"]) for fault, facts in second.items()
    } == dict.fromkeys(PROVING_NOTHING, (400_000, "completed"))


DIALECTS = {
    "submitted": ("queued", "held"),
    "NOT_START": ("queued", "held"),
    "pending": ("queued", "held"),
    "processing": ("in_progress", "held"),
    "generating": ("in_progress", "held"),
    "running": ("in_progress", "held"),
    "success": ("completed", "settled"),
    "SUCCEEDED": ("completed", "settled"),
    "done": ("completed", "settled"),
    "finished": ("completed", "settled"),
    "failure": ("failed", "released"),
    "error": ("failed", "released"),
    "cancelled": ("failed", "released"),
}


async def test_the_words_of_relays_become_the_four_of_openai(shared: World) -> None:
    key = await shared.key()
    bought = {
        word: await shared.buy(key, f"[[queue {FOREVER_SECONDS}]] [[retrieve:status {word}]]")
        for word in DIALECTS
    }
    found = await all_polled(shared, bought)
    assert {
        word: (facts["status"], facts["hold_state"]) for word, facts in found.items()
    } == DIALECTS
    for word, video_id in bought.items():
        assert (await shown(shared, key, video_id))["status"] == DIALECTS[word][0]


SETTLED_MICROS = {
    "no-seconds": 800_000,
    "seconds many": 800_000,
    "seconds 0": 800_000,
    "seconds -4": 800_000,
    "set true key=seconds": 800_000,
    "set 8 key=seconds": 800_000,
    "seconds 4": 400_000,
    "seconds 7.5": 750_000,
}


async def test_the_actual_seconds_are_settled_and_the_held_amount_where_they_are_unreadable(
    shared: World, logged: LogLines
) -> None:
    key = await shared.key()
    bought = {
        fault: await shared.buy(key, f"[[retrieve:{fault}]]", seconds="8")
        for fault in SETTLED_MICROS
    }
    found = await all_polled(shared, bought)
    assert {fault: facts["hold_settled_micros"] for fault, facts in found.items()} == SETTLED_MICROS
    assert logged.lines("settled_above_hold") == []
    assert await shared.adds_up()


async def test_more_seconds_than_were_held_are_settled_and_reported_as_an_error(
    shared: World, logged: LogLines
) -> None:
    key = await shared.key(budget="0.50")
    video_id = await shared.buy(key, "[[longer 12]]")
    facts = await polled(shared, video_id)
    assert facts["hold_settled_micros"] == 1_200_000
    (alarm,) = logged.lines("settled_above_hold")
    assert (alarm["level"], alarm["held_list_micros"], alarm["list_micros"]) == (
        "error",
        400_000,
        1_200_000,
    )
    assert await shared.adds_up()


async def test_a_video_the_upstream_has_lost_is_an_orphan_until_it_is_remembered(
    shared: World, logged: LogLines
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, f"[[queue 1]] [[retrieve:404*{MISSING_POLLS_LIMIT}]]")
    await shared.control.advance(1)
    for _ in range(MISSING_POLLS_LIMIT - 1):
        facts = await polled(shared, video_id)
        assert facts["orphaned_at"] is None
    facts = await polled(shared, video_id)
    assert (facts["orphan_reason"], facts["hold_state"]) == ("missing", "held")
    assert video_id in await orphans(shared)
    video = await shown(shared, key, video_id)
    assert (video["status"], video["error"]["code"]) == ("failed", "outcome_unknown")
    assert [line["level"] for line in logged.lines("video_orphaned")] == ["error"]
    facts = await polled(shared, video_id, after_seconds=ORPHAN_INTERVAL_SECONDS + 1)
    assert (facts["hold_state"], facts["orphaned_at"]) == ("settled", None)
    video = await shown(shared, key, video_id)
    assert (video["status"], video["error"]) == ("completed", None)
    assert video_id not in await orphans(shared)
    assert await shared.adds_up()


async def test_a_404_now_and_then_does_not_add_up_to_a_loss(shared: World) -> None:
    key = await shared.key()
    faults = "[[retrieve:404*1]] [[retrieve:delay*1 0.01]] [[retrieve:404]]"
    video_id = await shared.buy(key, f"[[queue {FOREVER_SECONDS}]] {faults}")
    await almost_lost(shared, video_id, polls_left=2)
    assert (await polled(shared, video_id))["missing_polls"] == MISSING_POLLS_LIMIT - 1
    assert (await polled(shared, video_id))["missing_polls"] == 0
    facts = await polled(shared, video_id)
    assert (facts["missing_polls"], facts["orphaned_at"]) == (1, None)


async def test_a_lost_video_that_turns_up_in_the_queue_is_polled_as_any_other(
    shared: World,
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, f"[[queue {FOREVER_SECONDS}]] [[retrieve:404*1]]")
    await almost_lost(shared, video_id, polls_left=1)
    assert (await polled(shared, video_id))["orphaned_at"] is not None
    facts = await polled(shared, video_id, after_seconds=ORPHAN_INTERVAL_SECONDS + 1)
    assert (facts["orphaned_at"], facts["status"]) == (None, "queued")
    assert facts["due_at"] - facts["polled_at"] <= INTERVAL_SECONDS
    assert (await shown(shared, key, video_id))["status"] == "queued"


async def test_a_video_without_an_end_is_an_orphan_once_patience_is_over(
    tmp_path: Path, logged: LogLines
) -> None:
    async with world(
        tmp_path, poll_interval_seconds=INTERVAL_SECONDS, patience_seconds=1000
    ) as made:
        key = await made.key()
        video_id = await made.buy(key, "[[queue 5000]]")
        assert (await polled(made, video_id, after_seconds=900))["orphaned_at"] is None
        facts = await polled(made, video_id, after_seconds=200)
        assert (facts["orphan_reason"], facts["hold_state"]) == ("never_ended", "held")
        assert (await orphans(made))[video_id]["orphan_reason"] == "never_ended"
        video = await shown(made, key, video_id)
        assert (video["status"], video["error"]["code"]) == ("failed", "outcome_unknown")
        assert await made.total() == (0, 400_000)
        facts = await polled(made, video_id, after_seconds=ORPHAN_INTERVAL_SECONDS + 1)
        assert facts["hold_state"] == "held"
        await made.control.advance(5000)
        facts = await polled(made, video_id, after_seconds=ORPHAN_INTERVAL_SECONDS + 1)
        assert (facts["hold_state"], facts["orphaned_at"]) == ("settled", None)
        assert (await shown(made, key, video_id))["status"] == "completed"
        assert await made.total() == (400_000, 0)
        assert await made.adds_up()
    (alarm,) = logged.lines("video_orphaned")
    assert (alarm["level"], alarm["reason"]) == ("error", "never_ended")


async def settled_by_a_person(made: World, upstream_id: str) -> None:
    orphan = (await orphans(made))[upstream_id]
    change = Change(f"settle {upstream_id}", made.timeline.clock().now(), COMMAND, "tests")
    await made.database.run(partial(settle_orphan, change, orphan["id"]))


async def test_an_orphan_that_a_person_settled_is_still_found_to_be_completed(
    shared: World,
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[queue 1]] [[retrieve:404*1]] [[retrieve:seconds 2]]")
    await shared.control.advance(1)
    await almost_lost(shared, video_id, polls_left=1)
    assert (await polled(shared, video_id))["orphaned_at"] is not None
    await settled_by_a_person(shared, video_id)
    facts = await polled(shared, video_id)
    assert (facts["status"], facts["hold_settled_micros"]) == ("completed", 200_000)
    assert (await shown(shared, key, video_id))["status"] == "completed"
    assert await shared.adds_up()


async def test_a_settled_orphan_that_stays_lost_is_given_up_and_stays_settled(
    shared: World, logged: LogLines
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, f"[[queue 1]] [[retrieve:404*{2 * MISSING_POLLS_LIMIT}]]")
    await shared.control.advance(1)
    await almost_lost(shared, video_id, polls_left=1)
    assert (await polled(shared, video_id))["orphaned_at"] is not None
    await settled_by_a_person(shared, video_id)
    assert (await polled(shared, video_id))["due_at"] is not None
    await almost_lost(shared, video_id, polls_left=1)
    facts = await polled(shared, video_id)
    assert (facts["due_at"], facts["orphaned_at"], facts["status"]) == (None, None, "failed")
    assert facts["hold_settled_micros"] == 400_000
    assert video_id not in await orphans(shared)
    video = await shown(shared, key, video_id)
    assert (video["status"], video["error"]["code"]) == ("failed", "outcome_unknown")
    assert [line["level"] for line in logged.lines("poll_given_up")] == ["warning"]
    assert await shared.adds_up()


async def test_a_settled_orphan_has_patience_anew_and_is_then_given_up(tmp_path: Path) -> None:
    async with world(
        tmp_path, poll_interval_seconds=INTERVAL_SECONDS, patience_seconds=1000
    ) as made:
        key = await made.key()
        video_id = await made.buy(key, "[[queue 90000]]")
        assert (await polled(made, video_id, after_seconds=1100))["orphaned_at"] is not None
        await settled_by_a_person(made, video_id)
        facts = await polled(made, video_id)
        assert (facts["status"], facts["orphaned_at"]) == ("queued", None)
        facts = await polled(made, video_id, after_seconds=1100)
        assert (facts["status"], facts["due_at"], facts["orphaned_at"]) == ("failed", None, None)
        assert await made.total() == (400_000, 0)
        assert await made.adds_up()


async def test_an_upstream_that_is_silent_for_longer_than_patience_makes_an_orphan(
    tmp_path: Path,
) -> None:
    async with world(
        tmp_path, poll_interval_seconds=INTERVAL_SECONDS, patience_seconds=1000
    ) as made:
        key = await made.key()
        video_id = await made.buy(key, "[[queue 1]]")
        await made.control.go_dark()
        facts = await polled(made, video_id, after_seconds=1001)
        assert (facts["orphan_reason"], facts["hold_state"]) == ("connection_lost", "held")


async def test_a_poll_that_hangs_holds_up_no_other_and_is_made_again(tmp_path: Path) -> None:
    async with world(tmp_path, poll_interval_seconds=INTERVAL_SECONDS) as made:
        key = await made.key()
        hanging = await made.buy(key, "[[retrieve:hang*1]] [[queue 100]]")
        other = await made.buy(key, "[[queue 100]]")
        await made.control.advance(1000)
        upstream = UpstreamSettings(
            name="default",
            base_url=made.simulator.base_url,
            api_key="sk-simulator",
            retrieve_seconds=0.5,
        )
        async with Upstream(upstream) as impatient, asyncio.TaskGroup() as group:
            polling = Polling(
                database=made.database,
                upstreams={"default": impatient},
                # Ahead of the gateway, for whose own loop nothing is due.
                clock=Timeline(offset_seconds=2 * INTERVAL_SECONDS).clock(),
                interval_seconds=1,
                concurrency=2,
                patience_seconds=1000,
                typical_seconds={},
                on_completed=lambda: None,
                on_step=lambda _: None,
                metrics=VideoMetrics(CollectorRegistry(), Known()),
            )
            loop = group.create_task(poll_forever(polling))
            await made.ended(other)
            await made.ended(hanging)
            loop.cancel()
        ended = {
            row["upstream_id"]: row["ended_at"]
            for row in await made.rows(
                "SELECT videos.upstream_id, holds.ended_at FROM videos"
                " JOIN holds ON holds.id = videos.hold_id"
            )
        }
        # It is asked again a second after it was given up, whatever this machine has to do.
        assert ended[other] < ended[hanging]


@pytest.mark.costly
async def test_fifty_clients_of_one_video_cost_the_upstream_one_request_an_interval(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, poll_interval_seconds=2) as made:
        key = await made.key()
        video_id = await made.buy(key, f"[[queue {FOREVER_SECONDS}]]")
        begun = time.monotonic()
        answered = 0

        async def watch() -> None:
            nonlocal answered
            async with made.client(key) as client:
                while time.monotonic() - begun < 5:
                    answer = await client.get(f"/videos/{video_id}")
                    assert answer.status_code == 200
                    assert answer.headers["openai-poll-after-ms"] == "2000"
                    answered += 1

        async with asyncio.TaskGroup() as group:
            for _ in range(50):
                group.create_task(watch())
        intervals = (time.monotonic() - begun) / 2
        video = (await made.control.state())["videos"][video_id]
        assert 1 <= video["retrieves"] <= intervals + 1
        assert answered > 500


async def in_flight(made: World, *, videos: int) -> None:
    """Have so many videos bought, all at once."""
    key = await made.key()
    now = made.timeline.clock().now()
    asked = Asked("sora-2", "a cat", 4, "720x1280", images=0)
    at_upstream = [
        execute(
            made.simulator.world,
            operation="create",
            asked=asked,
            shown_seconds=4,
            life=[],
            later=[],
        )
        for _ in range(videos)
    ]

    def buy() -> Script[None]:
        for number, video in enumerate(at_upstream):
            hold = Hold(
                id=f"hold_{number}",
                account=Account(key.project_id, key.id, accounting_day(now)),
                operation="create",
                model="sora-2",
                size="720x1280",
                clip_seconds=4,
                unit="second",
                rate_micros=100_000,
                rate_card_sha256="",
                images_micros=0,
                moderated_is_billed=False,
                list_micros=400_000,
            )
            submit = Submit(
                video_id=f"vid_{number}",
                intent=Intent(fields_sha256=str(number)),
                hold=hold,
                upstream="default",
                kind="video",
                fields={},
                lease_ends_at=now + 60,
            )
            yield from open_submit(submit, now=now)
            accepted = Accepted(video.id, {"status": "queued"}, RequestIds())
            yield from record_accepted(
                submit.video_id, accepted, first_poll_at=now + INTERVAL_SECONDS, now=now
            )

    await made.database.run(buy)


@pytest.mark.costly
async def test_a_thousand_videos_are_polled_side_by_side_within_the_bound(tmp_path: Path) -> None:
    bound, delay_seconds = 200, 0.5
    simulated = SimulatorSettings(queue_seconds=FOREVER_SECONDS)
    async with world(
        tmp_path,
        simulated=simulated,
        poll_interval_seconds=INTERVAL_SECONDS,
        poll_concurrency=bound,
    ) as made:
        await in_flight(made, videos=1000)
        await made.control.fault("delay", operation="retrieve", times=None, value=delay_seconds)
        made.timeline.offset_seconds += INTERVAL_SECONDS + 1
        begun = time.monotonic()

        async def all_recorded() -> bool:
            found = await made.one("SELECT COUNT(*) FROM videos WHERE polled_at IS NOT NULL")
            return bool(found == 1000)

        await eventually(all_recorded)
        assert time.monotonic() - begun < 10
        arrivals = sorted(one["at"] for one in await made.control.received("retrieve"))
        assert len(arrivals) == 1000
        busiest = max(
            bisect.bisect_left(arrivals, at + delay_seconds * 0.9) - place
            for place, at in enumerate(arrivals)
        )
        assert bound / 2 < busiest <= bound


async def test_every_step_of_a_poll_is_reached(shared: World) -> None:
    key = await shared.key()
    await polled(shared, await shared.buy(key))
    assert set(STEPS) <= set(shared.steps)


async def test_an_orphan_cannot_be_deleted_with_the_evidence_that_ends_its_hold(
    shared: World,
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[queue 5]] [[retrieve:404*1]]")
    await almost_lost(shared, video_id, polls_left=1)
    facts = await polled(shared, video_id)
    assert (facts["status"], facts["hold_state"]) == ("failed", "held")
    async with shared.client(key) as client:
        refused = await client.delete(f"/videos/{video_id}")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "video_not_finished")
    await shared.control.advance(10)
    await polled(shared, video_id, after_seconds=ORPHAN_INTERVAL_SECONDS + 1)
    assert (await shared.ended(video_id))["hold_state"] == "settled"
    async with shared.client(key) as client:
        assert (await client.delete(f"/videos/{video_id}")).status_code == 200
