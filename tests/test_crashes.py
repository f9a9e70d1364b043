"""Is anything bought twice, charged twice or lost, wherever the process dies?"""

import asyncio
import json
import os
import random
import resource
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
from databases import refusing, writing
from processes import PAST_A_TURN_SECONDS, PRICE_MICROS, Process, Scene, scene

from gateway.mirror import turn
from gateway.videos import poller, submit
from gateway.videos.orphans import RELEASE_MARGIN_SECONDS, attach_orphan, release_orphan

KILLED = -signal.SIGKILL
POST_SECONDS = 5
LEASE_SECONDS = POST_SECONDS + submit.LEASE_MARGIN_SECONDS
# How often the content is fetched when the process dies at a step, in both lives together.
DOWNLOADS = {"mirror.claimed": 1, "mirror.written": 2, "mirror.stored": 1, "mirror.recorded": 1}
# What happened, though its answer said nothing of the kind.
HAPPENED = (
    *("[[502 executed=1]]", "[[504]]", "[[520]]", "[[408]]", "[[307 executed=1]]", "[[hang]]"),
    *("[[drop]]", "[[half-headers]]", "[[half-body]]", "[[html]]", "[[empty]]", "[[no-id]]"),
    "[[500-executed]]",
)
CHAOS_ROUNDS = int(os.environ.get("CHAOS_ROUNDS", "6"))
CHAOS_SEED = int(os.environ.get("CHAOS_SEED", "1"))
CHAOS_CLIENTS = 5
CHAOS_FAULTS = (
    *("", "", "", "", "[[502 executed=1]]", "[[503]]", "[[drop]]", "[[half-body]]", "[[400]]"),
    *("[[fail]]", "[[retrieve:404*2]]", "[[retrieve:garbage*1]]", "[[retrieve:drop*1]]"),
    *("[[content:truncate*1]]", "[[content:503*1]]", "[[late 1]]", "[[delay 0.5]]"),
)


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path, upstream_post_seconds=POST_SECONDS) as made:
        yield made


@pytest.mark.costly
async def test_every_named_step_is_reached_in_order(stage: Scene) -> None:
    async with stage.process() as process:
        await bought(stage, process)
        await process.reached("mirror.recorded")
        assert list(dict.fromkeys(process.steps)) == [*submit.STEPS, *poller.STEPS, *turn.STEPS]


@pytest.mark.costly
async def test_killed_before_the_record_the_hold_is_kept_until_a_person_has_looked(
    stage: Scene,
) -> None:
    await killed_at(stage, "submit.held", prompt="held")
    await killed_at(stage, "submit.sending", prompt="sending")
    await killed_while_the_answer_is_on_its_way(stage, prompt="[[hang]] sent")
    await killed_at(stage, "submit.answered", prompt="answered")
    await killed_at(stage, "submit.answered", prompt="[[400]] refused")
    happened = {"[[hang]] sent", "answered"}
    async with stage.process() as process:
        assert await stage.orphans() == []
        stage.jump(LEASE_SECONDS)
        await stage.orphaned(5)
        orphans = await stage.orphans()
        assert {orphan["reason"] for orphan in orphans} == {"lease_lapsed"}
        assert {video["prompt"] for video in await stage.executed()} == happened
        assert stage.money() == (0, 5 * PRICE_MICROS)
        await stage.adds_up()
        code, text = await stage.command("orphans", "release", orphans[0]["video"])
        assert (code, "may still be under way" in text) == (1, True)
        await judged(stage)
        await finished(stage, process, count=2)
        assert stage.entries() == {"hold": 5, "settle": 2, "release": 3}
        assert await stage.orphans() == []


@pytest.mark.costly
async def test_killed_after_the_record_the_video_is_followed_to_its_end(stage: Scene) -> None:
    await killed_at(stage, "submit.recorded")
    async with stage.process() as process:
        await finished(stage, process)
        assert await stage.orphans() == []


def test_every_step_of_a_submit_has_a_test_that_dies_there() -> None:
    assert submit.STEPS == ("submit.held", "submit.sending", "submit.answered", "submit.recorded")


@pytest.mark.costly
@pytest.mark.parametrize("step", poller.STEPS)
async def test_killed_at_a_step_of_a_poll_the_video_is_settled_once_and_mirrored(
    stage: Scene, step: str
) -> None:
    async with stage.process(step) as process:
        await bought(stage, process)
        assert await process.died() == KILLED
    stage.jump(PAST_A_TURN_SECONDS)
    async with stage.process() as process:
        await finished(stage, process)


@pytest.mark.costly
@pytest.mark.parametrize("step", turn.STEPS)
async def test_killed_at_a_step_of_the_mirror_what_is_in_the_store_is_adopted_not_fetched_again(
    stage: Scene, step: str
) -> None:
    async with stage.process(step) as process:
        video_id = await bought(stage, process)
        assert await process.died() == KILLED
    if step in {"mirror.stored", "mirror.recorded"}:
        await stage.control.expire(video_id)
    stage.jump(PAST_A_TURN_SECONDS)
    async with stage.process() as process:
        await finished(stage, process)
        (video,) = await stage.executed()
        assert video["contents"]["video"] == DOWNLOADS[step]


@pytest.mark.costly
async def test_what_is_stopped_past_its_lease_buys_nothing_more_and_its_late_answer_counts(
    stage: Scene,
) -> None:
    async with (
        stage.process("submit.held", act="stop") as held,
        stage.process("submit.sending", act="stop") as sending,
        stage.process("submit.answered", act="stop") as answered,
        asyncio.TaskGroup() as group,
    ):
        never = group.create_task(stage.create(held, "held"))
        late = group.create_task(stage.create(sending, "sending"))
        known = group.create_task(stage.create(answered, "answered"))
        for process in (held, sending, answered):
            await process.stopped()
        async with stage.process() as other:
            stage.jump(LEASE_SECONDS)
            await stage.orphaned(3)
            await released(stage, prompt="answered")
            for process in (held, sending, answered):
                process.resume()
            refusal = await never
            assert (refusal.status_code, code_of(refusal)) == (502, "upstream_unreachable")
            assert {(await late).status_code, (await known).status_code} == {200}
            alarm = await answered.logged("submit_contradicted")
            assert alarm["how"] == "after_release"
            await finished(stage, other, count=2)
            assert stage.entries() == {"hold": 3, "release": 2, "adjust": 1, "settle": 1}
            assert {video["prompt"] for video in await stage.executed()} == {"sending", "answered"}
            assert await stage.orphans() == []


@pytest.mark.costly
async def test_a_submit_with_less_than_its_deadline_left_of_its_lease_buys_nothing(
    stage: Scene,
) -> None:
    async with stage.process("submit.held", act="stop") as process, asyncio.TaskGroup() as group:
        buying = group.create_task(stage.create(process))
        await process.stopped()
        stage.jump(LEASE_SECONDS - POST_SECONDS + 1)
        process.resume()
        assert code_of(await buying) == "upstream_unreachable"
        assert await stage.executed() == []
        assert stage.money() == (0, 0)
        await stage.adds_up()


@pytest.mark.parametrize("stale", ["completed", "in_progress", "failed"])
async def test_a_poll_that_is_stopped_past_its_lease_changes_nothing(
    stage: Scene, stale: str
) -> None:
    await stage.control.fault("status", operation="retrieve", value=stale)
    async with stage.process("poll.answered", act="stop") as stopped:
        video_id = await bought(stage, stopped)
        await stopped.stopped()
        stage.jump(PAST_A_TURN_SECONDS)
        async with stage.process() as other:
            await stage.mirrored()
            before = await shown(stage, other, video_id)
            stopped.resume()
            await stopped.reached("poll.recorded")
            await stopped.logged("lease_lost")
            await finished(stage, other)
            assert await shown(stage, stopped, video_id) == before
            assert before["status"] == "completed"
            assert stage.entries() == {"hold": 1, "settle": 1}


@pytest.mark.costly
@pytest.mark.parametrize("step", ["mirror.written", "mirror.stored"])
async def test_a_mirror_that_is_stopped_past_its_lease_leaves_the_content_whole(
    stage: Scene, step: str
) -> None:
    async with stage.process(step, act="stop") as stopped:
        await bought(stage, stopped)
        await stopped.stopped()
        stage.jump(PAST_A_TURN_SECONDS)
        async with stage.process() as other:
            await stage.mirrored()
            stopped.resume()
            await stopped.logged("lease_lost")
            assert stopped.said("video_mirrored") == []
            await finished(stage, other)
            for video in await stage.executed():
                await stage.downloads(stopped, video["id"])


@pytest.mark.costly
async def test_what_failed_but_did_happen_is_bought_once_and_held_until_its_id_is_found(
    stage: Scene,
) -> None:
    async with stage.process(upstream_post_seconds=1) as process:
        answers = await asyncio.gather(*(stage.create(process, fault) for fault in HAPPENED))
        for fault, answer in zip(HAPPENED, answers, strict=True):
            assert (fault, answer.status_code in {502, 504}) == (fault, True)
            assert (fault, code_of(answer)) == (fault, "outcome_unknown")
            assert (fault, answer.headers.get("x-should-retry")) == (fault, "false")
        assert sorted(video["prompt"] for video in await stage.executed()) == sorted(HAPPENED)
        assert stage.money() == (0, len(HAPPENED) * PRICE_MICROS)
        orphans = await stage.orphans()
        assert len(orphans) == len(HAPPENED)
        await settled_by_command(stage, orphans[0]["video"])
        await judged(stage)
        await finished(stage, process, count=len(HAPPENED))
        assert await stage.orphans() == []


@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
async def test_the_official_sdk_does_not_send_again_what_may_have_happened(stage: Scene) -> None:
    async with (
        stage.process() as process,
        openai.AsyncOpenAI(base_url=process.base_url, api_key=stage.key) as client,
    ):
        with pytest.raises(openai.APIStatusError) as caught:
            await client.videos.create(model="sora-2", prompt="[[502 executed=1]]", seconds="4")
        assert caught.value.code == "outcome_unknown"
        assert len(await stage.executed()) == 1
        assert stage.entries() == {"hold": 1}


@asynccontextmanager
async def full(process: Process, stage: Scene) -> AsyncIterator[None]:
    """Let the process write to no file: the kernel refuses, as it does where a disk is full.

    A server, which has files of its own, refuses connections.
    """
    if stage.settings.database_path is None:
        async with refusing(stage.settings.database_url):
            yield
        return
    before = resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE)
    resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, (0, before[1]))
    yield
    if process.popen.poll() is None:
        resource.prlimit(process.popen.pid, resource.RLIMIT_FSIZE, before)


@asynccontextmanager
async def locked(process: Process, stage: Scene) -> AsyncIterator[None]:
    """Let another process write, and not come to its end."""
    del process
    async with writing(stage.settings.database_url):
        yield


@pytest.mark.parametrize("broken", [full, locked])
@pytest.mark.parametrize("draining", [False, True])
async def test_an_id_that_the_database_cannot_take_is_recorded_when_it_can(
    stage: Scene, broken: Any, *, draining: bool
) -> None:
    # Longer than the longest wait between two tries to record it.
    async with (
        stage.process(
            "submit.answered", act="stop", reply_seconds=1, shutdown_seconds=30
        ) as process,
        asyncio.TaskGroup() as group,
    ):
        buying = group.create_task(stage.create(process))
        await process.stopped()
        async with broken(process, stage):
            process.resume()
            answer = await buying
            assert (answer.status_code, code_of(answer)) == (504, "outcome_unknown")
            assert answer.headers["x-should-retry"] == "false"
            if broken is full:
                (video,) = await stage.executed()
                alarm = await process.logged("submit_not_recorded")
                assert alarm["upstream_id"] == video["id"]
            if draining:
                process.terminate()
                await deaf(stage, process)
                assert process.popen.poll() is None
        if draining:
            assert await process.died() == 0
            assert process.said("shutdown_with_work_left") == []
            async with stage.process() as other:
                await finished(stage, other)
        else:
            await finished(stage, process)


@pytest.mark.costly
async def test_a_log_that_cannot_be_written_does_not_stop_a_record_or_its_reply(
    stage: Scene,
) -> None:
    async with stage.process("submit.sending", act="mute") as process:
        await bought(stage, process)
        await finished(stage, process)


@pytest.mark.costly
async def test_told_to_end_while_the_upstream_answers_it_records_and_replies_first(
    stage: Scene,
) -> None:
    await stage.control.fault("delay", operation="create", value=1)
    async with stage.process() as process, asyncio.TaskGroup() as group:
        buying = group.create_task(bought(stage, process))
        await stage.happened()
        process.terminate()
        video_id = await buying
        assert await process.died() == 0
    async with stage.process() as process:
        await finished(stage, process)
        await stage.downloads(process, video_id)


@pytest.mark.costly
async def test_told_to_end_it_waits_for_a_record_that_begins_only_then(stage: Scene) -> None:
    await stage.control.fault("delay", operation="create", value=1)
    async with stage.process(reply_seconds=1) as process, asyncio.TaskGroup() as group:
        buying = group.create_task(stage.create(process))
        await stage.happened()
        async with locked(process, stage):
            process.terminate()
            assert code_of(await buying) == "outcome_unknown"
            assert process.popen.poll() is None
        assert await process.died() == 0
        assert process.said("shutdown_with_work_left") == []
    async with stage.process() as process:
        await finished(stage, process)


async def test_told_to_end_while_the_database_stays_away_it_ends_in_time_and_its_log_has_the_id(
    stage: Scene,
) -> None:
    async with (
        stage.process(
            "submit.answered", act="stop", reply_seconds=1, shutdown_seconds=2
        ) as process,
        asyncio.TaskGroup() as group,
    ):
        buying = group.create_task(stage.create(process))
        await process.stopped()
        async with full(process, stage):
            process.resume()
            process.terminate()
            assert code_of(await buying) == "outcome_unknown"
            assert await process.died(seconds=8) == 0
        (video,) = await stage.executed()
        assert process.said("submit_not_recorded")[0]["upstream_id"] == video["id"]
        assert process.said("shutdown_with_work_left")[0]["submits"] == 1
        assert stage.money() == (0, PRICE_MICROS)


@pytest.mark.costly
async def test_told_to_end_while_the_upstream_does_not_answer_a_poll_the_next_process_asks_at_once(
    stage: Scene,
) -> None:
    await stage.control.fault("delay", operation="retrieve", value=60)
    async with stage.process() as process:
        video_id = await bought(stage, process)
        await process.reached("poll.claimed")
        process.terminate()
        assert await process.died() == 0
    async with stage.process() as process:
        # Within less than the lease of the poll that was cut off.
        await finished(stage, process)
        await stage.downloads(process, video_id)


async def test_two_processes_on_one_database_poll_and_mirror_each_video_once(
    stage: Scene,
) -> None:
    async with stage.process() as old, stage.process() as new:
        both = (old, new)
        ids = await asyncio.gather(*(bought(stage, both[number % 2]) for number in range(12)))
        await finished(stage, old, count=12)
        for video in await stage.executed():
            assert (video["retrieves"], video["contents"]) == (1, {"video": 1})
        old.terminate()
        assert await old.died() == 0
        for video_id in ids:
            await stage.downloads(new, video_id)


@pytest.mark.costly
@pytest.mark.timeout(60 + 20 * CHAOS_ROUNDS)
async def test_killed_again_and_again_nothing_is_bought_twice_and_nothing_is_lost(
    stage: Scene,
) -> None:
    chance = random.Random(CHAOS_SEED)
    answered: set[str] = set()
    for number in range(CHAOS_ROUNDS):
        answered |= await chaos(stage, chance, number=number)
        stage.jump(PAST_A_TURN_SECONDS)
    async with stage.process() as process:
        stage.jump(LEASE_SECONDS)
        await stage.counted(
            "SELECT id FROM videos"
            " WHERE upstream_id IS NULL AND refused_at IS NULL AND orphaned_at IS NULL",
            0,
        )
        await stage.adds_up()
        bought_of_us(stage, executed=await stage.executed(), answered=answered)
        await judged(stage)
        await settled_in_time(stage)
        executed = await stage.executed()
        billed = [video for video in executed if video["billed_micros"]]
        assert stage.money() == (sum(video["billed_micros"] for video in billed), 0)
        entries = stage.entries()
        assert entries["settle"] == len(billed)
        assert entries["settle"] + entries["release"] == entries["hold"]
        await stage.adds_up()
        assert await stage.orphans() == []
        for video in billed:
            await stage.downloads(process, video["id"])


async def chaos(stage: Scene, chance: random.Random, *, number: int) -> set[str]:
    """Let clients buy from a process that dies somewhere; return the ids they were given."""
    prompts = [f"{chance.choice(CHAOS_FAULTS)} {number}.{one}" for one in range(CHAOS_CLIENTS)]
    step = chance.choice([*submit.STEPS, *poller.STEPS, *turn.STEPS])
    async with stage.process(step, nth=chance.randint(1, CHAOS_CLIENTS)) as process:

        async def buy(prompt: str) -> str | None:
            try:
                answer = await stage.create(process, prompt)
            except httpx.TransportError:
                return None
            return str(answer.json()["id"]) if answer.status_code == 200 else None

        ids = await asyncio.gather(*map(buy, prompts))
        with suppress(TimeoutError):
            await process.died(seconds=chance.uniform(0, 2.5))
        process.kill()
        assert await process.died() == KILLED
    return {one for one in ids if one is not None}


def bought_of_us(stage: Scene, *, executed: list[dict[str, Any]], answered: set[str]) -> None:
    """Insist that what the upstream has made is what was held and is known, or an orphan."""
    prompts = [video["prompt"] for video in executed]
    assert len(prompts) == len(set(prompts))
    rows = {
        prompt_of(row): row
        for row in stage.rows(
            "SELECT videos.*, holds.state FROM videos JOIN holds ON holds.id = videos.hold_id"
        )
    }
    for video in executed:
        row = rows[video["prompt"]]
        if row["upstream_id"] is None:
            assert (row["orphaned_at"] is not None, row["state"]) == (True, "held")
        else:
            assert row["upstream_id"] == video["id"]
    for prompt in rows.keys() - set(prompts):
        assert rows[prompt]["upstream_id"] is None
        assert rows[prompt]["state"] == ("held" if rows[prompt]["orphaned_at"] else "released")
    assert answered <= {row["upstream_id"] for row in rows.values()}


async def settled_in_time(stage: Scene) -> None:
    """Let time pass until every hold has ended and all content is mirrored."""
    async with asyncio.timeout(30):
        while stage.rows("SELECT id FROM holds WHERE state = 'held'") or stage.rows(
            "SELECT id FROM assets WHERE mirrored_at IS NULL"
        ):
            stage.jump(PAST_A_TURN_SECONDS)
            await asyncio.sleep(0.5)  # for the turns that have become due in another process


async def finished(stage: Scene, process: Process, *, count: int = 1) -> None:
    """Insist that so many videos were bought once, charged once, mirrored, and can be had."""
    await stage.mirrored(count)
    executed = await stage.executed()
    assert len(executed) == count
    assert stage.money() == (count * PRICE_MICROS, 0)
    await stage.adds_up()
    for video in executed:
        await stage.downloads(process, video["id"])


async def bought(stage: Scene, process: Process) -> str:
    answer = await stage.create(process)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def killed_at(stage: Scene, step: str, *, prompt: str = "a heron") -> None:
    """Let a client buy, and the process die at a step of that."""
    async with stage.process(step) as process:
        await broken_off(stage, process, prompt=prompt)
        assert await process.died() == KILLED


async def killed_while_the_answer_is_on_its_way(stage: Scene, *, prompt: str) -> None:
    async with stage.process() as process, asyncio.TaskGroup() as group:
        buying = group.create_task(broken_off(stage, process, prompt=prompt))
        await stage.happened()
        process.kill()
        await buying


async def broken_off(stage: Scene, process: Process, *, prompt: str) -> None:
    with pytest.raises(httpx.TransportError):
        await stage.create(process, prompt)


async def judged(stage: Scene) -> None:
    """End every orphan as a person does who finds in the upstream's account what happened."""
    ids = {video["prompt"]: video["id"] for video in await stage.executed()}
    stage.jump(RELEASE_MARGIN_SECONDS)
    for row in stage.rows("SELECT * FROM videos WHERE orphaned_at IS NOT NULL"):
        if row["upstream_id"] is not None:
            continue
        change = stage.change()
        if prompt_of(row) in ids:
            upstream_id = ids[prompt_of(row)]
            await stage.run(partial(attach_orphan, change, row["id"], upstream_id=upstream_id))
        else:
            await stage.run(partial(release_orphan, change, row["id"]))


async def settled_by_command(stage: Scene, orphan: str) -> None:
    (row,) = stage.rows("SELECT * FROM videos WHERE id = $1", orphan)
    ids = {video["prompt"]: video["id"] for video in await stage.executed()}
    upstream_id = ids[prompt_of(row)]
    code, text = await stage.command("orphans", "settle", orphan, "--upstream-id", upstream_id)
    assert (code, text.strip()) == (0, f"{orphan} is {upstream_id}: followed")


async def released(stage: Scene, *, prompt: str) -> None:
    stage.jump(RELEASE_MARGIN_SECONDS)
    (row,) = [row for row in stage.rows("SELECT * FROM videos") if prompt_of(row) == prompt]
    released = await stage.run(partial(release_orphan, stage.change(), row["id"]))
    assert released == PRICE_MICROS


async def shown(stage: Scene, process: Process, video_id: str) -> dict[str, Any]:
    async with stage.client(process) as client:
        return dict((await client.get(f"/videos/{video_id}")).json())


async def deaf(stage: Scene, process: Process) -> None:
    """Wait until the process accepts no new connections."""
    async with asyncio.timeout(10), stage.client(process) as client:
        with suppress(httpx.TransportError):
            while True:
                await client.get("/videos/none", headers={"connection": "close"})


def prompt_of(row: Any) -> str:
    return str(json.loads(row["fields"])["prompt"])


def code_of(answer: httpx.Response) -> str | None:
    code: str | None = answer.json()["error"]["code"]
    return code
