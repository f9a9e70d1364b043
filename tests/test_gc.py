"""Does the store keep everything that a record wants, and nothing else for long?"""

import os
import time
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import NamedTuple

import pytest
from cli_tools import Terminal, new_terminal
from conftest import LogLines, World, eventually
from ledger_tools import bench, opened
from retention_tools import DUE, Content, files, put, retained

from gateway.db.database import Database
from gateway.db.script import Script, Sql
from gateway.errors import StoreUnavailable
from gateway.mirror.gc import (
    ABSENT,
    BATCH,
    GONE,
    REASONS,
    REMOVED,
    STRAY_SECONDS,
    UNKNOWN,
    Found,
    collect,
)
from gateway.mirror.retention import FIRST_GC_SECONDS, GC_SECONDS
from gateway.store.folder import FolderStore

# By the number of its asset: what its record says, and why what the store has of it is a stray.
RECORDS: dict[int, tuple[str, str | None]] = {
    1: ("mirrored_at = 1", None),
    2: ("due_at = 1", None),
    3: ("due_at = 9, leased_at = 1", None),
    4: ("removed_at = 1, removed_for = 'deletion'", None),
    5: ("mirrored_at = 1, removed_at = 1, removed_for = 'age'", None),
    6: ("mirrored_at = 1, removed_at = 1, removed_for = 'age', purged_at = 1", REMOVED),
    7: ("removed_at = 1, removed_for = 'deletion', purged_at = 1", REMOVED),
    8: ("absent_at = 1", ABSENT),
    9: ("gone_at = 1", GONE),
    10: ("gone_at = 1, damaged_at = 1, sha256 = 'ab'", None),
    11: ("due_at = 1, damaged_at = 1, sha256 = 'ab'", None),
}
STRAYS = {number: reason for number, (_, reason) in RECORDS.items() if reason is not None}


class Stage(NamedTuple):
    """Records and a store beside them."""

    folder: Path
    database: Database
    store: FolderStore

    async def put(self, key: str, *, age_seconds: int) -> None:
        async with self.store.writing(key) as writing:
            await writing.write(b"12345")
            await writing.commit()
        changed_at = time.time() - age_seconds
        os.utime(self.folder / "content" / self.store.path(key), (changed_at, changed_at))

    async def keys(self) -> set[str]:
        return {one.key async for one in self.store.stored()}

    async def collect(self, *, delete: tuple[str, ...] = REASONS) -> Found:
        return await collect(self.database, self.store, delete=delete, now=int(time.time()))


@pytest.fixture
async def stage(tmp_path: Path) -> AsyncIterator[Stage]:
    async with opened(tmp_path / "gateway.db") as database:
        await database.run(partial(put, [Content(number, state=DUE) for number in RECORDS]))
        await database.run(recorded)
        yield Stage(tmp_path, database, FolderStore(tmp_path / "content"))


def recorded() -> Script[None]:
    for number, (facts, _) in RECORDS.items():
        yield Sql(f"UPDATE assets SET due_at = NULL WHERE id = 'asset_{number:04}'")
        yield Sql(f"UPDATE assets SET {facts} WHERE id = 'asset_{number:04}'")


async def test_only_what_no_record_wants_and_is_a_day_old_is_deleted(stage: Stage) -> None:
    for number in RECORDS:
        await stage.put(f"asset_{number:04}", age_seconds=STRAY_SECONDS + 60)
    await stage.put("asset_old", age_seconds=STRAY_SECONDS + 60)
    await stage.put("asset_young", age_seconds=STRAY_SECONDS - 60)
    before = await stage.keys()
    found = await stage.collect(delete=())
    assert await stage.keys() == before
    assert (found.looked_at, found.known, found.young) == (13, 11, 1)
    assert found.strays == {UNKNOWN: 1, REMOVED: 2, ABSENT: 1, GONE: 1}
    assert found.stray_bytes == {UNKNOWN: 5, REMOVED: 10, ABSENT: 5, GONE: 5}
    assert await stage.collect() == found
    wanted = {f"asset_{number:04}" for number in RECORDS.keys() - STRAYS.keys()}
    assert await stage.keys() == wanted | {"asset_young"}
    assert (await stage.collect()).strays == {}


async def test_what_is_young_stays_whatever_its_record_says(stage: Stage) -> None:
    for number in RECORDS:
        await stage.put(f"asset_{number:04}", age_seconds=0)
    found = await stage.collect()
    assert (found.strays, found.young) == ({}, len(STRAYS))
    assert len(await stage.keys()) == len(RECORDS)


async def test_more_than_a_batch_is_looked_through(stage: Stage) -> None:
    strays = {f"stray_{number}" for number in range(2 * BATCH + 10)}
    for number in (1, 2, 3):
        await stage.put(f"asset_{number:04}", age_seconds=STRAY_SECONDS + 60)
    for key in strays:
        path = stage.folder / "content" / stage.store.path(key)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"")
        os.utime(path, (0, 0))
    found = await stage.collect()
    assert (found.looked_at, found.strays) == (len(strays) + 3, {UNKNOWN: len(strays)})
    assert await stage.keys() == {f"asset_{number:04}" for number in (1, 2, 3)}


async def test_a_store_that_is_away_is_an_error_and_not_empty(stage: Stage) -> None:
    (stage.folder / "content").rename(stage.folder / "away")
    with pytest.raises(StoreUnavailable):
        await stage.collect()


async def test_content_of_the_gateway_is_wanted_however_old_it_is(studio: World) -> None:
    key = await studio.key()
    for number in range(3):
        await studio.mirrored(await studio.buy(key, f"number {number}"))
    store, now = FolderStore(studio.settings.store_path), studio.timeline.clock().now()
    found = await collect(studio.database, store, delete=REASONS, now=now + 10 * STRAY_SECONDS)
    assert found == Found(looked_at=3, known=3)
    assert len(files(studio)) == 3


async def test_once_a_day_the_gateway_deletes_what_it_has_removed_and_rings_for_the_rest(
    studio: World, logged: LogLines
) -> None:
    key = await studio.key()
    wanted, late = [await studio.mirrored(await studio.buy(key, one)) for one in ("a", "b")]
    await studio.change(
        "UPDATE assets SET removed_at = 1, removed_for = 'age', purged_at = 1 WHERE id = $1",
        late["id"],
    )
    store = FolderStore(studio.settings.store_path)
    async with store.writing("asset_of_nobody") as writing:
        await writing.write(b"12345")
        await writing.commit()
    there = {wanted["id"], late["id"], "asset_of_nobody"}
    async with retained(studio):
        assert files(studio) == there
        studio.timeline.offset_seconds += STRAY_SECONDS + FIRST_GC_SECONDS

        async def rung(times: int) -> bool:
            return len(logged.lines("strays_found")) == times

        await eventually(partial(rung, 1))
        assert files(studio) == there - {late["id"]}
        studio.timeline.offset_seconds += GC_SECONDS
        await eventually(partial(rung, 2))
    assert files(studio) == there - {late["id"]}
    (deleted,) = logged.lines("strays_deleted")
    assert (deleted["assets"], deleted["size_bytes"]) == (1, late["size_bytes"])
    for alarm in logged.lines("strays_found"):
        assert (alarm["level"], alarm["unknown"], alarm["size_bytes"]) == ("error", 1, 5)


async def test_a_look_through_the_store_that_failed_is_made_again_an_hour_later(
    studio: World, logged: LogLines, tmp_path: Path
) -> None:
    store, folder = FolderStore(studio.settings.store_path), studio.settings.store_path
    async with store.writing("asset_of_nobody") as writing:
        await writing.write(b"12345")
        await writing.commit()

    async def said(event: str) -> bool:
        return bool(logged.lines(event))

    async with retained(studio):
        folder.rename(tmp_path / "away")
        studio.timeline.offset_seconds += FIRST_GC_SECONDS + STRAY_SECONDS
        await eventually(partial(said, "retention_turn_failed"))
        (tmp_path / "away").rename(folder)
        assert not await said("strays_found")
        studio.timeline.offset_seconds += FIRST_GC_SECONDS
        await eventually(partial(said, "strays_found"))


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    with bench(tmp_path / "gateway.db") as made:
        made.run(partial(put, [Content(number, state=DUE) for number in RECORDS]))
        made.run(recorded)
    return Terminal(tmp_path / "gateway.db")


def objects(folder: Path, *keys: str, age_seconds: int = STRAY_SECONDS + 60) -> set[Path]:
    """Put objects of five bytes into the store; return their files."""
    store, paths = FolderStore(folder / "content"), set()
    for key in keys:
        path = folder / "content" / store.path(key)
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(b"12345")
        changed_at = time.time() - age_seconds
        os.utime(path, (changed_at, changed_at))
        paths.add(path)
    store.close()
    return paths


def words(folder: Path, *more: str) -> list[str]:
    """The command, on the store in a folder."""
    return ["mirror", "gc", f"--store-url=file://{folder}/content", *more]


def test_the_command_says_what_it_would_delete_and_deletes_it(
    terminal: Terminal, tmp_path: Path
) -> None:
    assert "there is no content at" in terminal.error(*words(tmp_path), exit_code=1)
    kept = objects(tmp_path, "asset_0001", "asset_0002")
    young = objects(tmp_path, "young", age_seconds=0)
    strays = objects(tmp_path, "asset_0006", "asset_0009", "nobodys")
    facts = {
        "dry_run": True,
        "looked_at": 6,
        "strays": 3,
        "stray_bytes": 15,
        "by_reason": {"unknown": 1, "removed": 1, "absent": 0, "gone": 1},
        "young": 1,
    }
    assert terminal.json(*words(tmp_path, "--dry-run")) == facts
    assert terminal.run(*words(tmp_path, "--dry-run")).output == (
        "would delete 3 of 6 objects, 15 bytes\n"
        "  1 without a record, 5 bytes\n"
        "  1 removed before, 5 bytes\n"
        "  1 that was taken for lost, 5 bytes\n"
        "left 1 that are not a day old\n"
    )
    assert all(path.exists() for path in kept | young | strays)
    assert terminal.json(*words(tmp_path)) == facts | {"dry_run": False}
    assert all(path.exists() for path in kept | young)
    assert not any(path.exists() for path in strays)


def test_with_a_database_that_knows_nothing_of_the_store_nothing_is_deleted(
    tmp_path: Path,
) -> None:
    terminal = new_terminal(tmp_path)
    paths = objects(tmp_path, "asset_0001", "asset_0002")
    assert terminal.json(*words(tmp_path, "--dry-run"))["strays"] == 2
    error = terminal.error(*words(tmp_path), exit_code=1)
    assert "knows none of the 2 objects in the store: is it the right one?" in error
    assert all(path.exists() for path in paths)


def test_without_the_store_the_command_fails(terminal: Terminal, tmp_path: Path) -> None:
    objects(tmp_path, "asset_0001")
    (tmp_path / "content" / "tmp").rmdir()
    (tmp_path / "content" / "tmp").symlink_to("nowhere")
    assert "The content store could not be read." in terminal.error(*words(tmp_path), exit_code=1)
