"""Is content let go in two phases, whatever dies or fails in between, and never what is wanted?"""

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from functools import partial
from pathlib import Path

import pytest
from conftest import DAY_SECONDS, LogLines, World, eventually
from databases import opened_at, writing
from ledger_tools import NOW, opened
from processes import Process, Scene, scene
from retention_tools import (
    DELETED,
    Content,
    a_retaining,
    asset_of,
    clock_at,
    files,
    purged,
    put,
    retained,
)

from gateway.billing.audit_log import Change
from gateway.billing.keys import NewKey
from gateway.db.database import Database
from gateway.db.script import Script, Sql
from gateway.mirror import purge as purging
from gateway.mirror.keeping import Retention, set_retention
from gateway.mirror.pins import pin_video, unpin_video
from gateway.mirror.purge import OVERDUE_SECONDS, Pass, Purging, purge
from gateway.mirror.retention import STEPS, evict, retain_forever
from gateway.store.folder import FolderStore

KILLED = -signal.SIGKILL
SENTENCE = "The content of this video is no longer kept."


def change(made: World, name: str) -> Change:
    clock = made.timeline.clock()
    return Change(clock.new_id(name), clock.now(), "command", "tests")


async def statuses(made: World, key: NewKey, video_id: str) -> tuple[int, int, bool]:
    """Return what retrieve and content answer, and whether the video is listed."""
    async with made.client(key) as client:
        shown = await client.get(f"/videos/{video_id}")
        content = await client.get(f"/videos/{video_id}/content")
        listed = [one["id"] for one in (await client.get("/videos")).json()["data"]]
    if content.status_code == 410:
        error = content.json()["error"]
        assert (error["code"], error["message"]) == ("content_expired", SENTENCE)
    if shown.status_code == 200:
        assert shown.json()["status"] == "completed"
    return shown.status_code, content.status_code, video_id in listed


@pytest.mark.costly
async def test_what_is_too_old_is_gone_from_the_store_and_is_still_retrieved_and_listed(
    studio: World, logged: LogLines
) -> None:
    key = await studio.key()
    old = await studio.buy(key)
    await studio.mirrored(old)
    studio.timeline.offset_seconds += 100
    young = await studio.buy(key)
    await studio.mirrored(young)
    async with retained(studio, keep_seconds=90):
        asset = await purged(studio, old)
        assert asset["removed_for"] == "age"
        assert await statuses(studio, key, old) == (200, 410, True)
        assert await statuses(studio, key, young) == (200, 200, True)
    assert files(studio) == {(await asset_of(studio, young))["id"]}
    assert await studio.adds_up()
    (line,) = logged.lines("content_evicted")
    assert line["reason"] == "age"
    assert (line["assets"], line["size_bytes"]) == (1, asset["size_bytes"])
    assert logged.lines("retention_turn_failed") == []


async def test_what_a_client_deletes_is_404_at_once_and_soon_out_of_the_store(
    studio: World,
) -> None:
    key = await studio.key()
    deleted, other = await studio.buy(key), await studio.buy(key, "another")
    for video_id in (deleted, other):
        await studio.mirrored(video_id)
    await studio.database.run(
        partial(pin_video, change(studio, "pin"), (await studio.facts(deleted))["id"])
    )
    async with studio.client(key) as client:
        assert (await client.delete(f"/videos/{deleted}")).status_code == 200
    assert await statuses(studio, key, deleted) == (404, 404, False)
    # By the gateway itself, within seconds; a pin is for retention, not for the client.
    assert (await purged(studio, deleted))["removed_for"] == "deletion"
    assert files(studio) == {(await asset_of(studio, other))["id"]}
    assert await statuses(studio, key, other) == (200, 200, True)


async def test_a_project_keeps_as_long_as_it_says_itself(studio: World) -> None:
    keys = {name: await studio.key(project=name) for name in ("short", "forever", "default")}
    videos = {name: await studio.buy(key) for name, key in keys.items()}
    for video_id in videos.values():
        await studio.mirrored(video_id)
    for name, seconds in (("short", 50), ("forever", 0)):
        await studio.database.run(
            partial(
                set_retention,
                change(studio, name),
                project_id=keys[name].project_id,
                retention=Retention(keep_seconds=seconds),
            )
        )
    studio.timeline.offset_seconds += 60
    async with retained(studio, keep_seconds=100):
        await purged(studio, videos["short"])
        assert (await asset_of(studio, videos["default"]))["removed_at"] is None
        studio.timeline.offset_seconds += 60
        await purged(studio, videos["default"])
    assert await statuses(studio, keys["forever"], videos["forever"]) == (200, 200, True)


async def test_what_is_pinned_is_kept_until_it_is_not(studio: World) -> None:
    key = await studio.key()
    pinned, other = await studio.buy(key), await studio.buy(key, "another")
    for video_id in (pinned, other):
        await studio.mirrored(video_id)
    own_id = (await studio.facts(pinned))["id"]
    await studio.database.run(partial(pin_video, change(studio, "pin"), own_id))
    studio.timeline.offset_seconds += 100
    async with retained(studio, keep_seconds=90):
        await purged(studio, other)
        assert await statuses(studio, key, pinned) == (200, 200, True)
        await studio.database.run(partial(unpin_video, change(studio, "unpin"), own_id))
        await purged(studio, pinned)


@pytest.mark.costly
async def test_beyond_the_bytes_the_oldest_goes_of_a_project_and_then_of_all(
    studio: World,
) -> None:
    keys = [await studio.key(project=name) for name in ("one", "two")]
    videos = []
    for number in range(6):
        videos.append(await studio.buy(keys[number % 2], f"number {number}"))
        await studio.mirrored(videos[-1])
        studio.timeline.offset_seconds += 10
    sizes = [(await asset_of(studio, video_id))["size_bytes"] for video_id in videos]
    retention = Retention(keep_bytes=sizes[3] + sizes[5])
    await studio.database.run(
        partial(
            set_retention,
            change(studio, "two"),
            project_id=keys[1].project_id,
            retention=retention,
        )
    )
    async with retained(studio):
        assert (await purged(studio, videos[1]))["removed_for"] == "space"
    assert len(files(studio)) == 5
    async with retained(studio, keep_bytes=sum(sizes[3:])):
        for number in (0, 2):
            assert (await purged(studio, videos[number]))["removed_for"] == "space"
    shown = [(await statuses(studio, keys[number % 2], videos[number])) for number in range(6)]
    assert [status for _, status, _ in shown] == [410, 410, 410, 200, 200, 200]
    assert all(one[0] == 200 and one[2] for one in shown)


async def test_what_pins_keep_beyond_a_limit_rings_once_for_each_time_it_becomes_so(
    tmp_path: Path, logged: LogLines
) -> None:
    store = FolderStore(tmp_path / "content")
    async with opened(tmp_path / "gateway.db") as database:
        contents = [Content(one, size_bytes=5, pinned=one < 2) for one in range(4)]
        await database.run(partial(put, contents))
        retaining = a_retaining(database, store, keep_bytes=9)
        crowded: frozenset[str] = frozenset()
        for _ in range(3):
            crowded = await evict(retaining, crowded=crowded)
        (alarm,) = logged.lines("pins_exceed_limit")
        assert (alarm["level"], alarm["project_id"]) == ("error", None)
        assert (alarm["kept_bytes"], alarm["keep_bytes"]) == (10, 9)
        roomy = a_retaining(database, store, keep_bytes=10)
        assert await evict(roomy, crowded=crowded) == frozenset()
        await evict(retaining, crowded=frozenset())
        assert len(logged.lines("pins_exceed_limit")) == 2


async def test_while_the_store_is_down_what_was_removed_stays_removed_and_is_deleted_afterwards(
    studio: World, logged: LogLines, tmp_path: Path
) -> None:
    key = await studio.key()
    videos = [await studio.buy(key, f"number {number}") for number in range(3)]
    for video_id in videos:
        await studio.mirrored(video_id)
    folder, away = studio.settings.store_path, tmp_path / "away"
    async with retained(studio, keep_seconds=90):
        folder.rename(away)
        studio.timeline.offset_seconds += 100

        async def failed() -> bool:
            return len(logged.lines("content_not_purged")) > 3

        await eventually(failed)
        for video_id in videos:
            assert await statuses(studio, key, video_id) == (200, 410, True)
            assert (await asset_of(studio, video_id))["purged_at"] is None
        away.rename(folder)
        for video_id in videos:
            await purged(studio, video_id)
    assert files(studio) == set()
    assert {line["level"] for line in logged.lines("content_not_purged")} == {"warning"}


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


def all_purged() -> Script[set[str]]:
    rows = yield Sql("SELECT id FROM assets WHERE purged_at IS NOT NULL")
    return {row["id"] for row in rows}


async def test_what_cannot_be_deleted_does_not_keep_the_rest_from_it_and_rings_after_an_hour(
    database: Database, tmp_path: Path, logged: LogLines
) -> None:
    contents = [Content(number, state=DELETED) for number in range(3 * purging.BATCH)]
    await database.run(partial(put, contents))
    store = FolderStore(tmp_path / "content")
    stuck = {one.id for one in contents[: purging.BATCH + 1]}
    for asset_id in stuck:
        (tmp_path / "content" / store.path(asset_id)).mkdir(parents=True)
    made, steps = Pass("deletion"), list[str]()
    early, late = (
        Purging(database, store, clock_at(now), steps.append)
        for now in (NOW + OVERDUE_SECONDS - 1, NOW + OVERDUE_SECONDS)
    )
    assert not await purge(early, made)
    assert await database.read(all_purged) == set()
    assert not await purge(early, made)
    rest = {one.id for one in contents} - stuck
    assert await database.read(all_purged) == rest
    assert logged.lines("purge_overdue") == []
    for _ in range(4):
        assert not await purge(late, made)
    (alarm,) = logged.lines("purge_overdue")
    assert (alarm["level"], alarm["removed_at"]) == ("error", NOW)
    for asset_id in stuck:
        (tmp_path / "content" / store.path(asset_id)).rmdir()
    while not await purge(late, made):
        pass
    assert await database.read(all_purged) == {one.id for one in contents}
    assert made == Pass("deletion")
    assert steps.count("retention.deleted") == steps.count("retention.purged")


async def test_a_turn_without_the_database_is_made_again(studio: World, logged: LogLines) -> None:
    key = await studio.key()
    video_id = await studio.buy(key)
    await studio.mirrored(video_id)
    studio.timeline.offset_seconds += 100
    clock, store = studio.timeline.clock(), FolderStore(studio.settings.store_path)
    path = studio.folder / "gateway.db"
    async with AsyncExitStack() as other:
        await other.enter_async_context(writing(studio.settings.database_url))
        async with (
            opened_at(path, busy_seconds=0.05) as impatient,
            asyncio.TaskGroup() as group,
        ):
            loop = group.create_task(
                retain_forever(a_retaining(impatient, store, clock, keep_seconds=90))
            )

            async def failed() -> bool:
                return bool(logged.lines("retention_turn_failed"))

            await eventually(failed)
            await other.aclose()
            await purged(studio, video_id)
            loop.cancel()
    assert {line["level"] for line in logged.lines("retention_turn_failed")} == {"warning"}


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Scene]:
    async with scene(tmp_path) as made:
        yield made


async def answers(stage: Scene, process: Process, video_id: str) -> tuple[int, int]:
    async with stage.client(process) as client:
        shown = await client.get(f"/videos/{video_id}")
        content = await client.get(f"/videos/{video_id}/content")
    return shown.status_code, content.status_code


def in_store(stage: Scene) -> int:
    return len(list(stage.settings.store_path.glob("[0-9a-f][0-9a-f]/*")))


@pytest.mark.costly
async def test_every_named_step_is_reached_in_order(stage: Scene) -> None:
    async with stage.process() as process:
        await mirrored(stage, process)
    stage.jump(2 * DAY_SECONDS)
    async with stage.process(keep_days=1) as process:
        await process.reached("retention.purged")
        assert process.steps == [*STEPS]


@pytest.mark.costly
@pytest.mark.parametrize("step", STEPS)
async def test_killed_at_a_step_what_is_removed_is_not_served_and_soon_out_of_the_store(
    stage: Scene, step: str
) -> None:
    async with stage.process() as process:
        video_id = await mirrored(stage, process)
    stage.jump(2 * DAY_SECONDS)
    async with stage.process(step, keep_days=1) as process:
        assert await process.died() == KILLED
    there = {"retention.removed": 1, "retention.deleted": 0, "retention.purged": 0}
    assert in_store(stage) == there[step]
    # Whoever comes next need not let go of anything by itself: the record says what to do.
    async with stage.process() as process:
        assert await answers(stage, process, video_id) == (200, 410)
        await stage.counted("SELECT id FROM assets WHERE purged_at IS NOT NULL", 1)
        assert in_store(stage) == 0
        assert await answers(stage, process, video_id) == (200, 410)
        await stage.adds_up()


@pytest.mark.costly
async def test_killed_after_a_delete_was_answered_the_bytes_go_with_the_next_process(
    stage: Scene,
) -> None:
    async with stage.process("retention.deleted") as process:
        video_id = await mirrored(stage, process)
        async with stage.client(process) as client:
            assert (await client.delete(f"/videos/{video_id}")).status_code == 200
        assert await process.died() == KILLED
    async with stage.process() as process:
        await stage.counted("SELECT id FROM assets WHERE purged_at IS NOT NULL", 1)
        assert await answers(stage, process, video_id) == (404, 404)
        assert in_store(stage) == 0


async def test_two_processes_let_go_of_the_same_and_of_nothing_twice(stage: Scene) -> None:
    async with stage.process() as process:
        for _ in range(6):
            await mirrored(stage, process)
        await stage.mirrored(6)
    stage.jump(2 * DAY_SECONDS)
    async with stage.process(keep_days=1) as one, stage.process(keep_days=1) as other:
        await stage.counted("SELECT id FROM assets WHERE purged_at IS NOT NULL", 6)
        assert in_store(stage) == 0
        evicted = [
            line["assets"] for process in (one, other) for line in process.said("content_evicted")
        ]
        assert sum(evicted) == 6
        for process in (one, other):
            assert process.said("retention_turn_failed") == []
            assert process.said("content_not_purged") == []


async def mirrored(stage: Scene, process: Process) -> str:
    """Let a client buy a video, and wait until its content is in the store."""
    before = len(stage.rows("SELECT id FROM assets WHERE mirrored_at IS NOT NULL"))
    answer = await stage.create(process)
    assert answer.status_code == 200, answer.text
    await stage.mirrored(before + 1)
    return str(answer.json()["id"])
