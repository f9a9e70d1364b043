"""Is what a process left behind put right, and nothing else touched?"""

import asyncio
import os
import time
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from conftest import LogLines, World, eventually
from databases import opened_at, writing
from prometheus_client import CollectorRegistry

from gateway.billing.balances import Account, accounting_day
from gateway.billing.keys import NewKey
from gateway.billing.ledger import Hold
from gateway.db.database import Database
from gateway.store.folder import FolderStore
from gateway.telemetry.metrics.labels import Known
from gateway.telemetry.metrics.videos import VideoMetrics
from gateway.videos.attempts import IDEMPOTENCY_SECONDS, Intent
from gateway.videos.janitor import ABANDONED_SECONDS, Cleaning, clean_forever
from gateway.videos.opening import Submit, open_submit
from gateway.videos.orphans import list_orphans
from gateway.videos.records import record_refused


@asynccontextmanager
async def cleaning(made: World, database: Database) -> AsyncIterator[None]:
    """Run a second janitor beside the gateway's own, with shorter turns."""
    store = FolderStore(made.settings.store_path)
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(
            clean_forever(
                Cleaning(
                    database=database,
                    store=store,
                    clock=made.timeline.clock(),
                    metrics=VideoMetrics(CollectorRegistry(), Known()),
                    turn_seconds=0.05,
                )
            )
        )
        await asyncio.sleep(0)  # it begins to count the time before the next sweep
        yield
        loop.cancel()


async def open_one(made: World, key: NewKey, video_id: str, *, lease_seconds: int) -> None:
    """Write what a submit writes before it forwards."""
    now = made.timeline.clock().now()
    hold = Hold(
        id=f"hold_{video_id}",
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
        video_id=video_id,
        intent=Intent(fields_sha256=video_id),
        hold=hold,
        upstream="default",
        kind="video",
        fields={},
        lease_ends_at=now + lease_seconds,
        traceparent=f"00-{'a' * 32}-{'b' * 16}-01",
    )
    await made.database.run(lambda: open_submit(submit, now=now))


async def orphan_reasons(made: World) -> dict[str, str]:
    return {row["id"]: row["orphan_reason"] for row in await made.database.read(list_orphans)}


async def test_a_submit_without_an_outcome_is_an_orphan_once_its_lease_has_lapsed(
    studio: World, logged: LogLines
) -> None:
    key = await studio.key()
    await open_one(studio, key, "vid_lapsed", lease_seconds=100)
    await open_one(studio, key, "vid_running", lease_seconds=1000)
    await open_one(studio, key, "vid_refused", lease_seconds=100)
    now = studio.timeline.clock().now()
    await studio.database.run(lambda: record_refused("vid_refused", reason="test", now=now))
    followed = await studio.buy(key, "[[queue 100000]]")
    async with cleaning(studio, studio.database):
        for _ in range(3):
            assert await orphan_reasons(studio) == {}
        studio.timeline.offset_seconds += 101

        async def orphaned() -> bool:
            return bool(await orphan_reasons(studio))

        await eventually(orphaned)
    assert await orphan_reasons(studio) == {"vid_lapsed": "lease_lapsed"}
    assert (await studio.facts(followed))["orphaned_at"] is None
    assert await studio.total() == (0, 3 * 400_000)
    assert await studio.adds_up()
    (alarm,) = logged.lines("video_orphaned")
    assert (alarm["level"], alarm["video_id"]) == ("error", "vid_lapsed")
    assert alarm["trace_id"] == "a" * 32


async def test_an_answer_that_comes_after_the_lease_has_lapsed_is_recorded_all_the_same(
    studio: World,
) -> None:
    key = await studio.key()
    async with (
        studio.client(key) as client,
        cleaning(studio, studio.database),
        asyncio.TaskGroup() as group,
    ):
        post = group.create_task(
            client.post("/videos", json={"prompt": "[[delay 1.5]] [[queue 100]]"})
        )

        async def forwarded() -> bool:
            return await studio.executions() == 1

        await eventually(forwarded)
        studio.timeline.offset_seconds += 1000

        async def orphaned() -> bool:
            return bool(await orphan_reasons(studio))

        await eventually(orphaned)
        answer = await post
        assert answer.status_code == 200
        assert await orphan_reasons(studio) == {}
        await studio.control.advance(100)
        assert (await studio.ended(answer.json()["id"]))["hold_state"] == "settled"


async def test_abandoned_temporary_files_go_and_young_ones_and_content_stay(
    studio: World, logged: LogLines
) -> None:
    key = await studio.key()
    asset = await studio.mirrored(await studio.buy(key))
    temporary = studio.settings.store_path / "tmp"
    old, young = temporary / "asset_old.x", temporary / "asset_young.x"
    for path, age_seconds in ((old, 0), (young, -ABANDONED_SECONDS)):
        path.write_bytes(b"half")
        written_at = time.time() - age_seconds
        os.utime(path, (written_at, written_at))
    async with cleaning(studio, studio.database):
        studio.timeline.offset_seconds += ABANDONED_SECONDS + 60

        async def swept() -> bool:
            return not old.exists()

        await eventually(swept)
    assert young.exists()
    (content,) = studio.settings.store_path.glob(f"*/{asset['id']}")
    assert content.stat().st_size == asset["size_bytes"]
    assert logged.lines("store_swept")[0]["files"] == 1


async def test_a_turn_without_the_store_is_made_again(
    studio: World, logged: LogLines, tmp_path: Path
) -> None:
    temporary, away = studio.settings.store_path / "tmp", tmp_path / "away"
    old = temporary / "asset_old.x"
    old.write_bytes(b"half")
    async with cleaning(studio, studio.database):
        temporary.rename(away)
        studio.timeline.offset_seconds += ABANDONED_SECONDS + 60

        async def failed() -> bool:
            return bool(logged.lines("janitor_turn_failed"))

        await eventually(failed)
        away.rename(temporary)

        async def swept() -> bool:
            return not old.exists()

        await eventually(swept)
    assert {line["level"] for line in logged.lines("janitor_turn_failed")} == {"warning"}


async def test_a_turn_without_the_database_is_made_again(studio: World, logged: LogLines) -> None:
    key = await studio.key()
    await open_one(studio, key, "vid_lapsed", lease_seconds=-1)
    path = studio.folder / "gateway.db"
    async with AsyncExitStack() as other:
        await other.enter_async_context(writing(studio.settings.database_url))
        async with opened_at(path, busy_seconds=0.05) as impatient, cleaning(studio, impatient):

            async def failed() -> bool:
                return bool(logged.lines("janitor_turn_failed"))

            await eventually(failed)
            await other.aclose()

            async def orphaned() -> bool:
                return bool(await orphan_reasons(studio))

            await eventually(orphaned)


async def test_attempts_too_old_to_answer_for_a_retry_are_forgotten(studio: World) -> None:
    key = await studio.key()
    old = await studio.facts(await studio.buy(key))
    async with cleaning(studio, studio.database):
        studio.timeline.offset_seconds += IDEMPOTENCY_SECONDS + 60
        young = await studio.facts(await studio.buy(key, "another"))

        async def forgotten() -> bool:
            rows = await studio.rows("SELECT video_id FROM attempts")
            return [row["video_id"] for row in rows] == [young["id"]]

        assert old["id"] != young["id"]
        await eventually(forgotten)
