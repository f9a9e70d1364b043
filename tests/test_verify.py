"""Is damaged content found, never served, and fetched again; and is nothing else touched?"""

import asyncio
import contextlib
import os
import pty
import sys
from collections.abc import AsyncIterator, Callable
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from conftest import LogLines, World, environ_for, eventually, world
from databases import look, url_of
from object_servers import ACCESS_KEY_ID, SECRET_ACCESS_KEY, line_to, moto_server
from shelf import FAR, Ran, Shelf, ended, flip, mirror_command, now, shelf

from gateway.billing.keys import NewKey
from gateway.clock import system_clock
from gateway.mirror.assets import claim_assets, write_mirrored
from gateway.mirror.kept import Kept, list_kept, write_damaged, write_found_again, write_verified
from gateway.mirror.throttle import Throttle
from gateway.mirror.verify import (
    Verdict,
    Verified,
    Verifying,
    WrongStore,
    look_for_lost,
    verify,
)
from gateway.mirror.verify_turns import log_verified, verify_forever
from gateway.mirror.walk import GIVE_UP_AFTER
from gateway.store.folder import FolderStore
from gateway.store.layout import path_of

DAY_SECONDS = 86_400


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with shelf(tmp_path) as made:
        yield made


def verifying(made: Shelf, told: Callable[[Verified], None], **changes: Any) -> Verifying:
    clock = system_clock()
    defaults: dict[str, Any] = {
        "database": made.database,
        "store": made.store,
        "clock": clock,
        "throttle": Throttle(0, elapsed=clock.elapsed),
        "concurrency": 1,
        "told": told,
    }
    return Verifying(**(defaults | changes))


def truncate(path: Path) -> None:
    os.truncate(path, path.stat().st_size - 1)


def lengthen(path: Path) -> None:
    with path.open("ab") as file:
        file.write(b"\0")


HARMS: dict[str, tuple[Callable[[Path], None], str]] = {
    "a flipped bit": (flip, "store_wrong_bytes"),
    "a truncated file": (truncate, "store_wrong_length"),
    "a longer file": (lengthen, "store_wrong_length"),
    "a missing file": (Path.unlink, "store_missing"),
}


async def mirror_of(made: World, *words: str) -> Ran:
    """Run `video-gateway mirror …` on a gateway's database and store."""
    environ = environ_for(made.folder, made.simulator.base_url)
    async with mirror_command(*words, **environ) as process:
        return await ended(process)


async def content(made: World, key: NewKey, video_id: str) -> Any:
    async with made.client(key) as client:
        return await client.get(f"/videos/{video_id}/content")


def file_of(made: World, asset: dict[str, Any]) -> Path:
    (path,) = made.settings.store_path.glob(f"*/{asset['id']}")
    return path


@pytest.mark.costly
@pytest.mark.parametrize("harm", HARMS)
async def test_damaged_content_is_quarantined_fetched_again_and_served(
    tmp_path: Path, harm: str
) -> None:
    do, found = HARMS[harm]
    async with world(tmp_path) as made:
        key = await made.key()
        bought = [await made.buy(key) for _ in range(3)]
        assets = [await made.mirrored(video_id) for video_id in bought]
        do(file_of(made, assets[1]))
        ran = await mirror_of(made, "verify", "--json")
        assert ran.code == 1
        assert (ran.json["checked"], ran.json["right"], ran.json["damaged"]) == (3, 2, 1)
        (damage,) = ran.json["assets"]
        assert (damage["upstream_id"], damage["found"]) == (bought[1], found)
        again = await made.mirrored(bought[1])
        assert again["sha256"] == assets[1]["sha256"]
        answer = await content(made, key, bought[1])
        assert answer.content == await made.control.content(bought[1])
        fetched = (await made.control.state())["videos"]
        assert [fetched[one]["contents"]["video"] for one in bought] == [1, 2, 1]
        ran = await mirror_of(made, "verify", "--json")
        assert (ran.code, ran.json["right"]) == (0, 3)


@pytest.mark.costly
async def test_what_is_being_fetched_again_is_not_served_as_it_was(tmp_path: Path) -> None:
    async with world(tmp_path, content_wait_seconds=0) as made:
        key = await made.key()
        video_id = await made.buy(key)
        flip(file_of(made, await made.mirrored(video_id)))
        await made.control.go_dark()
        assert (await mirror_of(made, "verify")).code == 1
        answer = await content(made, key, video_id)
        assert (answer.status_code, answer.json()["error"]["code"]) == (409, "content_pending")
        await made.control.come_back()
        made.timeline.offset_seconds += 600
        await made.mirrored(video_id)
        answer = await content(made, key, video_id)
        assert answer.content == await made.control.content(video_id)


async def test_damage_that_the_upstream_cannot_mend_is_an_alarm_and_a_410_until_it_is_put_back(
    tmp_path: Path, logged: LogLines
) -> None:
    async with world(tmp_path) as made:
        key = await made.key()
        video_id = await made.buy(key)
        path = file_of(made, await made.mirrored(video_id))
        whole = path.read_bytes()
        flip(path)
        made.timeline.offset_seconds += 2 * DAY_SECONDS
        clock = made.timeline.clock()
        judged = Verifying(
            database=made.database,
            store=FolderStore(made.settings.store_path),
            clock=clock,
            throttle=Throttle(0, elapsed=clock.elapsed),
            concurrency=1,
            told=log_verified,
        )
        await verify(judged, before=clock.now())
        facts = await made.facts(video_id)
        (alarm,) = logged.lines("content_damaged")
        assert (alarm["level"], alarm["video_id"]) == ("error", facts["id"])
        assert (alarm["found"], alarm["variant"]) == ("store_wrong_bytes", "video")
        answer = await content(made, key, video_id)
        assert (answer.status_code, answer.json()["error"]["code"]) == (410, "content_expired")
        await look_for_lost(judged)
        assert (await content(made, key, video_id)).status_code == 410
        path.write_bytes(whole)
        ran = await mirror_of(made, "verify", "--json")
        assert (ran.code, ran.json["found_again"]) == (0, 1)
        assert (await content(made, key, video_id)).content == whole


async def test_what_is_right_is_verified_and_moves_to_the_end_of_the_queue(kept: Shelf) -> None:
    items = [await kept.put(number, at=1000 + number) for number in range(4)]
    ran = await kept.mirror("verify", "--limit=2", "--json")
    assert (ran.code, ran.json["checked"], ran.json["right"]) == (0, 2, 2)
    assert ran.json["size_bytes"] == sum(len(item.content) for item in items[:2])
    stamps = [(await kept.row(item))["verified_at"] for item in items]
    assert all(stamp >= now() - 60 for stamp in stamps[:2])
    assert stamps[2:] == [1002, 1003]
    rest = await kept.mirror("verify", "--older-than-days=1", "--json")
    assert (rest.code, rest.json["checked"]) == (0, 2)
    text = await kept.mirror("verify", "--older-than-days=1")
    assert (text.code, text.out.split(":")[0], text.err) == (0, "checked 0 assets, 0 bytes", "")


@pytest.mark.costly
async def test_only_the_project_asked_for_is_verified(kept: Shelf) -> None:
    await kept.put(1)
    other = await kept.put(2, project_id="proj_b")
    flip(kept.file(other))
    assert (await kept.mirror("verify", "--project=name of proj_a", "--json")).json["right"] == 1
    assert (await kept.mirror("verify", "--project=proj_b", "--json")).json["damaged"] == 1
    unknown = await kept.mirror("verify", "--project=nobody")
    assert (unknown.code, unknown.out) == (1, "")
    assert "there is no project 'nobody'" in unknown.err


@pytest.mark.costly
async def test_content_that_cannot_be_read_is_not_damaged(kept: Shelf) -> None:
    items = [await kept.put(number) for number in range(3)]
    bad = kept.file(items[1]).parent
    away = bad.rename(kept.folder / "away")
    bad.symlink_to(bad.name)  # to itself: whoever looks is told ELOOP
    ran = await kept.mirror("verify", "--json")
    in_it = [item for item in items if (away / item.asset_id).exists()]
    assert (ran.code, ran.json["not_checked"]) == (1, len(in_it))
    assert (ran.json["right"], ran.json["damaged"], ran.json["lost"]) == (3 - len(in_it), 0, 0)
    assert "Too many levels of symbolic links" in ran.json["assets"][0]["cause"]
    row = await kept.row(items[1])
    assert (row["verified_at"], row["mirrored_at"], row["damaged_at"]) == (0, 0, None)
    text = await kept.mirror("verify")
    assert "vid_1 video (video_1): could not be read" in text.err


async def test_a_store_that_is_down_is_no_damage_and_is_not_asked_for_ever(kept: Shelf) -> None:
    items = [await kept.put(number) for number in range(3 * GIVE_UP_AFTER)]
    seen: list[Verified] = []
    kept.content.rename(kept.folder / "unmounted")
    before = now()
    with pytest.raises(Exception, match="store could not be read"):
        await verify(verifying(kept, seen.append), before=before)
    assert [one.verdict for one in seen] == [Verdict.NOT_CHECKED] * GIVE_UP_AFTER
    assert {(await kept.row(item))["damaged_at"] for item in items} == {None}
    assert {(await kept.row(item))["mirrored_at"] for item in items} == {0}


@pytest.mark.costly
async def test_an_object_store_that_goes_down_is_no_damage(tmp_path: Path) -> None:
    with moto_server() as server:
        async with line_to(server) as line, shelf(tmp_path) as made:
            items = [await made.put(number) for number in range(8)]
            url = server.url(port=line.port)
            keys = {
                "GATEWAY_STORE_ACCESS_KEY_ID": ACCESS_KEY_ID,
                "GATEWAY_STORE_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
            }
            copied = await made.mirror("copy", made.store_url, url, "--json", **keys)
            assert (copied.code, copied.json["copied"]) == (0, 8)
            environ = keys | {"GATEWAY_STORE_URL": url}
            assert (await made.mirror("verify", "--json", **environ)).json["right"] == 8
            await line.go()
            ran = await made.mirror("verify", "--json", **environ)
            await line.come()
            assert (ran.code, ran.json["checked"]) == (1, 0)
            assert ran.json["stopped"]
            assert {(await made.row(item))["damaged_at"] for item in items} == {None}
            server.admin().delete_object(Bucket="content", Key=object_path(url, items[3].asset_id))
            ran = await made.mirror("verify", "--json", **environ)
            assert (ran.json["damaged"], ran.json["right"]) == (1, 7)


@pytest.mark.costly
async def test_the_wrong_store_is_not_believed(kept: Shelf, logged: LogLines) -> None:
    items = [await kept.put(number, expires_at=1) for number in range(3)]
    empty = kept.folder / "empty"
    empty.mkdir()
    ran = await kept.mirror("verify", f"--store-url=file://{empty}")
    assert (ran.code, ran.out) == (1, "")
    assert "is it the right store? Nothing was changed" in ran.err
    elsewhere = await kept.mirror("verify", f"--store-url=file://{kept.folder / 'nowhere'}")
    assert elsewhere.code == 1
    assert "there is no content at" in elsewhere.err
    assert not (kept.folder / "nowhere").exists()
    wrong = verifying(kept, log_verified, store=FolderStore(empty))
    with pytest.raises(WrongStore):
        await verify(wrong, before=now())
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(verify_forever(wrong, days=1, turn_seconds=0.01))

        async def rung() -> bool:
            return bool(logged.lines("store_without_content"))

        await eventually(rung)
        loop.cancel()
    assert {(await kept.row(item))["mirrored_at"] for item in items} == {0}
    assert logged.lines("content_damaged") == []


async def test_two_verifiers_at_once_find_each_damage_and_harm_nothing(kept: Shelf) -> None:
    items = [await kept.put(number, expires_at=1 if number % 2 else FAR) for number in range(12)]
    for item in items[:6]:
        flip(kept.file(item))
    both = await asyncio.gather(*(kept.mirror("verify", "--json") for _ in range(2)))
    assert all(ran.code in {0, 1} for ran in both)
    # It is written down once. Who find it in the same second both tell of it; nobody misses it.
    assert 3 <= sum(ran.json["damaged"] for ran in both) <= 6
    assert 3 <= sum(ran.json["lost"] for ran in both) <= 6
    for number, item in enumerate(items):
        row = await kept.row(item)
        assert (row["mirrored_at"] is None) == (number < 6)
        assert (row["gone_at"] is not None) == (number in {1, 3, 5})
        assert (row["due_at"] is not None) == (number in {0, 2, 4})
        assert (row["sha256"], row["failure"]) == (
            item.sha256,
            "store_wrong_bytes" if number < 6 else None,
        )


async def one_kept(made: Shelf) -> Kept:
    (asset,) = await made.database.read(partial(list_kept, project_id=None, after=None, limit=10))
    return asset


async def test_a_removal_or_another_mirroring_during_the_reading_wins(kept: Shelf) -> None:
    item = await kept.put(1)
    seen = await one_kept(kept)
    damaged = partial(write_damaged, seen, failure="store_missing", again=True, now=50)
    await kept.change("UPDATE assets SET removed_at = 40")
    assert not await kept.database.run(damaged)
    assert not await kept.database.run(partial(write_verified, seen, now=50))
    await kept.change("UPDATE assets SET removed_at = NULL")
    # Found damaged by another, and mirrored again within the same second.
    assert await kept.database.run(damaged)
    (claim,) = await kept.database.run(partial(claim_assets, limit=1, lease_ends_at=100, now=50))
    assert not await kept.database.run(damaged)
    mirrored = partial(
        write_mirrored, claim, content_type="video/mp4", size_bytes=1, sha256=item.sha256, now=0
    )
    assert await kept.database.run(mirrored)
    assert not await kept.database.run(damaged)
    assert not await kept.database.run(partial(write_verified, seen, now=50))
    assert (await kept.row(item))["mirrored_at"] == 0


async def test_a_script_that_runs_twice_still_knows_that_it_found_the_damage(kept: Shelf) -> None:
    item = await kept.put(1)
    seen = await one_kept(kept)
    lost = partial(write_damaged, seen, failure="store_missing", again=False, now=50)
    assert await kept.database.run(lost)
    assert await kept.database.run(lost)
    row = await kept.row(item)
    assert (row["gone_at"], row["due_at"], row["damaged_at"]) == (50, None, 50)
    again = partial(write_found_again, seen, now=60)
    for _ in range(2):
        await kept.database.run(again)
    row = await kept.row(item)
    assert (row["mirrored_at"], row["verified_at"], row["gone_at"]) == (60, 60, None)
    assert (row["damaged_at"], row["failure"]) == (None, None)


async def test_what_is_removed_while_others_are_read_is_no_damage(kept: Shelf) -> None:
    items = [await kept.put(number) for number in range(3)]
    seen: list[Verified] = []

    def told(verified: Verified) -> None:
        if not seen:
            # The whole page has been listed by now.
            url = url_of(kept.folder / "gateway.db")
            look(url, "UPDATE assets SET removed_at = 1 WHERE id = 'asset_1'")
            kept.file(items[1]).unlink()
        seen.append(verified)

    await verify(verifying(kept, told), before=now())
    assert [one.verdict for one in seen] == [Verdict.RIGHT, Verdict.CHANGED, Verdict.RIGHT]


async def test_all_that_is_read_goes_through_the_throttle(kept: Shelf) -> None:
    sizes = [1, 300_000, 700_001]
    for number, size in enumerate(sizes):
        await kept.put(number, os.urandom(size))
    rate = 1_000_000_000
    # By a clock that stands still, a throttle only adds up what it has let pass.
    throttle = Throttle(rate, elapsed=lambda: 0.0)
    await verify(verifying(kept, lambda _: None, throttle=throttle), before=now())
    assert throttle._free_at == pytest.approx(sum(sizes) / rate)


@pytest.mark.costly
async def test_in_the_background_everything_is_read_again_within_the_days_set(
    tmp_path: Path, logged: LogLines
) -> None:
    async with world(tmp_path) as made:
        key = await made.key()
        bought = [await made.buy(key) for _ in range(2)]
        assets = [await made.mirrored(video_id) for video_id in bought]
        old = made.timeline.clock().now() - 7 * DAY_SECONDS
        await made.change("UPDATE assets SET verified_at = $1 WHERE id = $2", old, assets[0]["id"])
        flip(file_of(made, assets[0]))
        flip(file_of(made, assets[1]))
        whole = await made.control.content(bought[0])
    # The same records and content, with the setting; the upstream of before is no longer there.
    async with world(tmp_path, verify_days=7) as made:

        async def quarantined() -> bool:
            return bool(logged.lines("content_quarantined"))

        await eventually(quarantined)
        (line,) = logged.lines("content_quarantined")
        assert (line["asset_id"], line["level"]) == (assets[0]["id"], "warning")
        row = await made.asset(bought[0])
        assert row is not None
        assert row["mirrored_at"] is None
        # Not its turn yet.
        assert (await made.mirrored(bought[1]))["sha256"] == assets[1]["sha256"]
        # What is not on the disk can be put back before the mirror has it from the upstream.
        path = file_of(made, assets[0])
        path.write_bytes(whole)
        made.timeline.offset_seconds += 600
        again = await made.mirrored(bought[0])
        assert again["sha256"] == assets[0]["sha256"]


@pytest.mark.costly
async def test_a_verify_that_was_killed_goes_on_with_what_was_not_read(kept: Shelf) -> None:
    items = [await kept.put(number, os.urandom(100_000), at=number + 1) for number in range(12)]
    async with kept.running("verify", "--bytes-per-second=400000") as process:

        async def some() -> bool:
            assert process.returncode is None
            return bool((await kept.row(items[0]))["verified_at"] > 1000)

        await eventually(some)
        process.kill()
        await process.wait()
    left = [item for item in items if (await kept.row(item))["verified_at"] < 1000]
    assert 0 < len(left) < 12
    rest = await kept.mirror("verify", "--older-than-days=1", "--json")
    assert (rest.code, rest.json["right"]) == (0, len(left))


@pytest.mark.costly
async def test_a_person_sees_a_bar_and_a_pipe_sees_none(kept: Shelf) -> None:
    for number in range(3):
        await kept.put(number)
    flip(kept.file(await kept.put(3)))
    environ = {"FORCE_COLOR": "1", "TERM": "xterm-256color"}
    piped = await kept.mirror("verify", "--limit=3", **environ)
    assert (piped.code, piped.err) == (0, "")
    await kept.change("UPDATE assets SET verified_at = 0")
    seen = await on_a_terminal(kept, "verify", **environ)
    assert "verifying" in seen
    assert "4/4" in seen
    assert "vid_3 video (video_3): damaged" in seen
    assert "verifying" not in await on_a_terminal(kept, "verify", "--json", **environ)


async def on_a_terminal(made: Shelf, *words: str, **environ: str) -> str:
    """Run `video-gateway mirror …` with standard error on a terminal, and return what it shows."""
    ours, theirs = pty.openpty()
    plain = {
        "GATEWAY_DATABASE_URL": url_of(made.folder / "gateway.db"),
        "GATEWAY_STORE_URL": made.store_url,
        "COLUMNS": "200",
    }
    inherited = {name: value for name, value in os.environ.items() if "GATEWAY_" not in name}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "mirror", *words),
        env=inherited | plain | environ,
        stdout=asyncio.subprocess.DEVNULL,
        stderr=theirs,
    )
    os.close(theirs)
    shown = await asyncio.to_thread(_all_of, ours)
    os.close(ours)
    await process.wait()
    return shown


def _all_of(number: int) -> str:
    shown = b""
    with contextlib.suppress(OSError):  # EIO: nobody has its other end any more
        while piece := os.read(number, 1 << 16):
            shown += piece
    return shown.decode()


def object_path(url: str, key: str) -> str:
    """Return the path of a key in the bucket that a URL names."""
    return f"{urlsplit(url).path.strip('/')}/{path_of(key)}"
