"""Does content get into the store whole, or stay invisible and be tried again?"""

import asyncio
import bisect
import hashlib
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conftest import LogLines, World, eventually, world

from gateway.db.script import Row
from gateway.mirror.failures import ABSENT_SECONDS
from gateway.mirror.turn import STEPS
from gateway.simulator.world import Settings as SimulatorSettings
from gateway.turns import LEASE_SECONDS

pytestmark = pytest.mark.asyncio(loop_scope="module")

# Each breaks the first download only; the word is what is then written down.
BREAKING_ONCE = {
    "truncate*1 0": "truncated",
    "half-headers*1": "truncated",
    "cut*1": "not_a_whole_mp4",
    "cut*1 0": "not_a_whole_mp4",
    "unsized*1": "not_a_whole_mp4",
    "html*1": "not_an_mp4",
    "garbage*1": "not_an_mp4",
    "empty*1": "not_a_whole_mp4",
    "drop*1": "connection_lost",
    "404*1": "http_status",
    "400*1": "http_status",
    "401*1": "http_status",
    "410*1": "http_status",
    "429*1": "http_status",
    "502*1": "http_status",
    "503*1": "http_status",
    "relocate*1 ftp://127.0.0.1/video": "redirect_refused",
}

OFFERS = ("create", "retrieve", "content", "thumbnail", "spritesheet", "delete")
TYPES = {"video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(place: Path) -> AsyncIterator[World]:
    folder = place / "mirror"
    async with world(folder, content_wait_seconds=0) as made:
        yield made


async def failed(made: World, video_id: str, *, attempts: int = 1) -> dict[str, Any]:
    """Wait until so many downloads have failed, and return the asset."""

    async def written() -> dict[str, Any] | None:
        asset = await made.asset(video_id)
        if not asset or not asset["failure"] or asset["attempts"] < attempts:
            return None
        under_way = asset["due_at"] > made.timeline.clock().now() + LEASE_SECONDS / 2
        return None if under_way else asset

    found: dict[str, Any] = await eventually(written)
    return found


async def pausing(made: World) -> bool:
    """Tell whether the upstream is in the middle of sending content."""
    return bool((await made.control.totals())["delivering"].get("content"))


async def until_row(made: World, video_id: str, variant: str, column: str) -> Row:
    """Wait until a column of an asset has a value, and return its row."""

    async def there() -> Row | None:
        rows = await made.rows(
            "SELECT assets.* FROM assets JOIN videos ON videos.id = assets.video_id"
            " WHERE videos.upstream_id = $1 AND assets.variant = $2",
            video_id,
            variant,
        )
        return rows[0] if rows and rows[0][column] is not None else None

    found: Row = await eventually(there)
    return found


def stored(made: World, asset: dict[str, Any]) -> list[Path]:
    return list(made.settings.store_path.glob(f"*/{asset['id']}"))


async def test_content_that_came_broken_is_never_visible_and_is_fetched_again(
    tmp_path: Path, logged: LogLines
) -> None:
    async with world(tmp_path, content_wait_seconds=0, mirror_concurrency=32) as made:
        key = await made.key()
        bought = {
            fault: await made.buy(key, f"[[content:{fault}]] [[content:502*2]]")
            for fault in BREAKING_ONCE
        }
        first_failures, looks = {}, 0
        async with made.client(key) as client:
            for fault, video_id in bought.items():
                await failed(made, video_id)
                answer = await client.get(f"/videos/{video_id}/content")
                asset = await made.asset(video_id)
                assert asset is not None
                files = stored(made, asset)
                if asset["mirrored_at"] is None:
                    assert files == [], fault
                    looks += answer.status_code == 409
            assert looks > 0
            for fault, video_id in bought.items():
                made.timeline.offset_seconds += 10
                asset = await made.mirrored(video_id)
                answer = await client.get(f"/videos/{video_id}/content")
                assert answer.content == await made.control.content(video_id), fault
                assert asset["sha256"] == hashlib.sha256(answer.content).hexdigest()
                assert asset["size_bytes"] == len(answer.content)
                # A client that left at once may have used one of the faults up.
                assert (asset["attempts"] in {3, 4}, asset["failure"]) == (True, None), fault
                own_id = (await made.facts(video_id))["id"]
                lines = logged.lines("mirror_failed")
                failures = [line["failure"] for line in lines if line["video_id"] == own_id]
                first_failures[fault] = failures[0]
        assert first_failures == BREAKING_ONCE


@pytest.mark.costly
@pytest.mark.parametrize("status", [400, 404])
async def test_content_that_is_late_is_waited_for(shared: World, status: int) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, f"[[late 30 status={status}]]")
    assert (await failed(shared, video_id))["failure"] == "http_status"
    await shared.control.advance(31)
    shared.timeline.offset_seconds += 31
    assert (await shared.mirrored(video_id))["attempts"] == 2


@pytest.mark.costly
async def test_the_tries_become_rarer_but_do_not_cease(shared: World, logged: LogLines) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[content:404*5]]")
    for tries in range(1, 6):

        async def written(tries: int = tries) -> bool:
            return len(logged.lines("mirror_failed")) == tries

        await eventually(written)
        shared.timeline.offset_seconds += 2**tries
    await shared.mirrored(video_id)
    waits = [line["retry_seconds"] for line in logged.lines("mirror_failed")]
    assert waits == [1, 2, 4, 8, 16]


async def test_content_without_a_length_is_taken_when_it_is_whole(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[content:unsized 100000000]]")
    asset = await shared.mirrored(video_id)
    assert asset["attempts"] == 1
    assert asset["size_bytes"] == len(await shared.control.content(video_id))


async def test_a_redirect_on_the_upstream_itself_is_followed(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[content:relocate path]]")
    assert (await shared.mirrored(video_id))["attempts"] == 1


async def test_a_download_that_broke_behind_a_redirect_is_taken_up_there(shared: World) -> None:
    key = await shared.key()
    faults = "[[content:relocate path]] [[redirected:truncate*1 5000]]"
    video_id = await shared.buy(key, faults)
    asset = await shared.mirrored(video_id)
    assert asset["attempts"] == 1
    assert stored(shared, asset)[0].read_bytes() == await shared.control.content(video_id)
    asked = [one for one in await shared.control.received("redirected") if video_id in one["path"]]
    assert [one["headers"].get("range") for one in asked] == [None, "bytes=5000-"]


async def test_a_redirect_to_a_private_address_is_refused(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[content:relocate*1 origin]]")
    assert (await failed(shared, video_id))["failure"] == "private_address"


async def test_content_that_was_never_there_is_an_alarm_once_it_has_expired(
    shared: World, logged: LogLines
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[content:404*1000]] [[retention 3000]]")
    await failed(shared, video_id)
    assert logged.lines("content_lost") == []
    shared.timeline.offset_seconds += 3001

    async def gone() -> bool:
        asset = await shared.asset(video_id)
        return asset is not None and asset["gone_at"] is not None

    await eventually(gone)
    facts = await shared.facts(video_id)
    (alarm,) = logged.lines("content_lost")
    assert (alarm["level"], alarm["video_id"]) == ("error", facts["id"])
    assert facts["hold_state"] == "settled"


@pytest.mark.parametrize("prompt", ["a cat", "[[content:delay 0 sized=0]]"])
async def test_content_over_the_limit_is_not_kept(tmp_path: Path, prompt: str) -> None:
    async with world(tmp_path, max_content_bytes=1000) as made:
        key = await made.key()
        video_id = await made.buy(key, prompt)
        asset = await failed(made, video_id)
        assert asset["failure"] == "too_large"
        assert stored(made, asset) == []


@pytest.mark.costly
async def test_no_more_downloads_are_under_way_than_the_setting_allows(tmp_path: Path) -> None:
    bound, delay_seconds = 3, 0.4
    async with world(tmp_path, mirror_concurrency=bound) as made:
        key = await made.key()
        async with asyncio.TaskGroup() as group:
            tasks = [
                group.create_task(made.buy(key, f"[[content:delay {delay_seconds}]]"))
                for _ in range(3 * bound)
            ]
        for task in tasks:
            await made.mirrored(task.result())
        arrivals = sorted(one["at"] for one in await made.control.received("content"))
    assert len(arrivals) == 3 * bound
    busiest = max(
        bisect.bisect_left(arrivals, at + delay_seconds * 0.9) - place
        for place, at in enumerate(arrivals)
    )
    assert busiest == bound


@pytest.mark.parametrize("fault", ["truncate*1 5000", "truncate*1 5000 sized=0"])
async def test_a_download_that_broke_is_taken_up_where_it_broke(shared: World, fault: str) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, f"[[content:{fault}]]")
    asset = await shared.mirrored(video_id)
    assert (asset["attempts"], asset["failure"]) == (1, None)
    path = f"/v1/videos/{video_id}/content"
    asked = [one for one in await shared.control.received("content") if one["path"] == path]
    assert [one["headers"].get("range") for one in asked] == [None, "bytes=5000-"]
    assert stored(shared, asset)[0].read_bytes() == await shared.control.content(video_id)


@pytest.mark.costly
@pytest.mark.parametrize("ranges", [True, False])
async def test_what_changed_before_it_came_whole_is_fetched_anew(
    tmp_path: Path, logged: LogLines, *, ranges: bool
) -> None:
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=0, ranges=ranges)
    async with world(tmp_path, simulated=simulated) as made:
        key = await made.key()
        video_id = await made.buy(key, "[[content:break*1]]")
        await eventually(lambda: pausing(made))
        await made.control.change(video_id)
        await made.control.go_on()
        asset = await made.mirrored(video_id)
        assert [line["failure"] for line in logged.lines("mirror_failed")] == ["changed"]
        assert stored(made, asset)[0].read_bytes() == await made.control.content(video_id)
        assert asset["attempts"] == 2


async def test_every_variant_is_mirrored_as_what_it_is(tmp_path: Path) -> None:
    async with world(tmp_path, upstream_offers=OFFERS) as made:
        key = await made.key()
        video_id = await made.buy(key)
        for variant, content_type in TYPES.items():
            row = await until_row(made, video_id, variant, "mirrored_at")
            assert row["content_type"] == content_type
            content = await made.control.content(video_id, variant=variant)
            assert row["sha256"] == hashlib.sha256(content).hexdigest()
            async with made.client(key) as client:
                path = f"/videos/{video_id}/content"
                answer = await client.get(path, params={"variant": variant})
            assert (answer.content, answer.headers["content-type"]) == (content, content_type)
            assert answer.headers["etag"] == f'"{row["sha256"]}"'


@pytest.mark.costly
@pytest.mark.parametrize("status", [400, 404, 410])
async def test_a_variant_that_the_upstream_has_not_is_a_fact_after_five_minutes(
    tmp_path: Path, logged: LogLines, status: int
) -> None:
    simulated = SimulatorSettings(
        queue_seconds=0, generation_seconds=0, variants=("video",), absent_status=status
    )
    settings = {"upstream_offers": OFFERS, "content_wait_seconds": 0}
    async with world(tmp_path, simulated=simulated, **settings) as made:
        key = await made.key()
        video_id = await made.buy(key)
        path = f"/videos/{video_id}/content"
        async with made.client(key) as client:
            for variant in ("thumbnail", "spritesheet"):
                row = await until_row(made, video_id, variant, "failure")
                assert (row["failure"], row["absent_at"]) == ("http_status", None)
                answer = await client.get(path, params={"variant": variant})
                assert (answer.status_code, answer.json()["error"]["code"]) == (
                    409,
                    "content_pending",
                )
            made.timeline.offset_seconds += ABSENT_SECONDS
            for variant in ("thumbnail", "spritesheet"):
                row = await until_row(made, video_id, variant, "absent_at")
                assert (row["due_at"], row["gone_at"]) == (None, None)
            asked = await made.control.received("content")
            for variant in ("thumbnail", "spritesheet"):
                answer = await client.get(path, params={"variant": variant})
                assert (answer.status_code, answer.json()["error"]["param"]) == (404, "variant")
                assert answer.headers["x-should-retry"] == "false"
            assert (await client.get(path)).content == await made.control.content(video_id)
        assert await made.control.received("content") == asked
    assert logged.lines("content_lost") == []
    assert {line["variant"] for line in logged.lines("variant_absent")} == {
        "thumbnail",
        "spritesheet",
    }


@pytest.mark.costly
async def test_a_page_of_html_is_no_picture(tmp_path: Path) -> None:
    async with world(tmp_path, upstream_offers=OFFERS) as made:
        await made.control.fault("html", operation="content", times=3)
        key = await made.key()
        video_id = await made.buy(key)
        failures = {
            variant: (await until_row(made, video_id, variant, "failure"))["failure"]
            for variant in TYPES
        }
        assert failures == {
            "video": "not_an_mp4",
            "thumbnail": "not_an_image",
            "spritesheet": "not_an_image",
        }
        for variant in TYPES:
            await until_row(made, video_id, variant, "mirrored_at")


@pytest.mark.costly
async def test_a_redirect_to_what_is_no_host_breaks_one_download_and_nothing_else(
    shared: World,
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[content:relocate*1 http://a..b/video]]")
    await failed(shared, video_id)
    assert (await shared.mirrored(video_id))["attempts"] == 2


async def test_a_video_deleted_while_it_is_on_its_way_leaves_nothing_in_the_store(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as made:
        key = await made.key()
        video_id = await made.buy(key, "[[content:pause]]")
        await eventually(lambda: pausing(made))
        asset = await made.asset(video_id)
        assert asset is not None
        async with made.client(key) as client:
            assert (await client.delete(f"/videos/{video_id}")).status_code == 200
        await made.control.go_on()

        async def over() -> bool:
            purged = await made.one("SELECT COUNT(*) FROM assets WHERE purged_at IS NOT NULL")
            return purged == 1 and not await pausing(made)

        await eventually(over)
        assert stored(made, asset) == []
        assert (await made.asset(video_id) or {})["mirrored_at"] is None


async def test_what_is_in_the_store_already_is_recorded_without_another_download(
    shared: World,
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key)
    first = await shared.mirrored(video_id)
    await shared.change(
        "UPDATE assets SET mirrored_at = NULL, sha256 = NULL, size_bytes = NULL, due_at = $2"
        " WHERE id = $1",
        first["id"],
        shared.timeline.clock().now(),
    )
    second = await shared.mirrored(video_id)
    assert (second["sha256"], second["size_bytes"]) == (first["sha256"], first["size_bytes"])
    assert (await shared.control.state())["videos"][video_id]["contents"] == {"video": 1}


@pytest.mark.costly
@pytest.mark.parametrize("refuses", [False, True])
async def test_a_store_that_fails_is_an_alarm_and_the_content_is_fetched_once_it_is_back(
    tmp_path: Path, logged: LogLines, *, refuses: bool
) -> None:
    async with world(tmp_path) as made:
        key = await made.key()
        video_id = await made.buy(key, "[[queue 5]]")
        # The folder is not there; or it is, and nothing can be written into it.
        store = made.settings.store_path / "tmp" if refuses else made.settings.store_path
        away = tmp_path / "unmounted"
        store.rename(away)
        if refuses:
            store.touch()
        await made.control.advance(5)
        made.timeline.offset_seconds += 5
        asset = await failed(made, video_id)
        assert asset["failure"] == "store_unavailable"
        # It is long until the next try; the upstream has it all the same.
        long = 30
        await made.change(f"UPDATE assets SET due_at = due_at + {long}")
        async with made.client(key) as client:
            answer = await client.get(f"/videos/{video_id}/content")
        assert answer.content == await made.control.content(video_id)
        if refuses:
            store.unlink()
        away.rename(store)
        made.timeline.offset_seconds += long + LEASE_SECONDS
        await made.mirrored(video_id)
    assert {line["level"] for line in logged.lines("mirror_store_failed")} == {"error"}


async def test_every_step_of_a_mirror_is_reached(shared: World) -> None:
    key = await shared.key()
    await shared.mirrored(await shared.buy(key))
    assert set(STEPS) <= set(shared.steps)


@pytest.mark.costly
async def test_one_fault_of_the_network_after_the_expiry_is_not_the_end(
    shared: World, logged: LogLines
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[content:503*1]] [[content:503*1]] [[retention 5]]")
    await failed(shared, video_id)
    shared.timeline.offset_seconds += 60
    asset = await shared.mirrored(video_id)
    assert asset["gone_at"] is None
    assert logged.lines("content_lost") == []


@pytest.mark.costly
async def test_an_expiry_that_is_no_moment_is_not_believed(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[retrieve:set key=expires_at 3600]] [[content:503*1]]")
    asset = await shared.mirrored(video_id)
    assert asset["mirrored_at"] is not None
    (row,) = await shared.rows("SELECT expires_at FROM assets WHERE id = $1", asset["id"])
    assert row["expires_at"] > shared.timeline.clock().now()
