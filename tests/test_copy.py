"""Does all content get into another store, whole and right, however often it is broken off?"""

import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import environ_for, world
from object_servers import ACCESS_KEY_ID, BUCKET, SECRET_ACCESS_KEY, moto_server
from shelf import Shelf, ended, flip, killed_once, mirror_command, shelf

from gateway.store.folder import FolderStore

KEYS = {
    "GATEWAY_STORE_ACCESS_KEY_ID": ACCESS_KEY_ID,
    "GATEWAY_STORE_SECRET_ACCESS_KEY": SECRET_ACCESS_KEY,
}


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with shelf(tmp_path) as made:
        yield made


def other(made: Shelf) -> str:
    return f"file://{made.folder / 'other'}"


def files(made: Shelf) -> dict[str, Path]:
    return {path.name: path for path in (made.folder / "other").glob("[0-9a-f]*/asset_*")}


async def test_everything_kept_is_copied_and_nothing_else(kept: Shelf) -> None:
    items = [await kept.put(number, project_id=f"proj_{'ab'[number % 2]}") for number in range(6)]
    await kept.change("UPDATE assets SET removed_at = 1 WHERE id = 'asset_4'")
    await kept.change("UPDATE assets SET mirrored_at = NULL, due_at = 1 WHERE id = 'asset_5'")
    ran = await kept.mirror("copy", kept.store_url, other(kept))
    assert (ran.code, ran.err) == (0, "")
    assert "copied 4 assets" in ran.out
    assert f"GATEWAY_STORE_URL='{other(kept)}'" in ran.out
    copied = files(kept)
    assert set(copied) == {item.asset_id for item in items[:4]}
    for item in items[:4]:
        assert copied[item.asset_id].read_bytes() == item.content
        assert kept.file(item).read_bytes() == item.content
    assert await FolderStore(kept.folder / "other").size(items[0].asset_id) is not None


async def test_what_is_there_is_not_copied_again(kept: Shelf) -> None:
    items = [await kept.put(number) for number in range(4)]
    assert (await kept.mirror("copy", kept.store_url, other(kept))).code == 0
    late = await kept.put(4, at=9)
    before = {name: path.stat().st_ino for name, path in files(kept).items()}
    files(kept)[items[1].asset_id].unlink()
    flip(files(kept)[items[2].asset_id])
    ran = await kept.mirror("copy", kept.store_url, other(kept), "--json")
    assert (ran.code, ran.json["there"], ran.json["copied"]) == (0, 3, 2)
    assert files(kept)[late.asset_id].read_bytes() == late.content
    # The same length is believed, unless it is to be read again.
    assert files(kept)[items[2].asset_id].read_bytes() != items[2].content
    ran = await kept.mirror("copy", kept.store_url, other(kept), "--verify", "--json")
    assert (ran.code, ran.json["there"], ran.json["copied"]) == (0, 4, 1)
    assert files(kept)[items[2].asset_id].read_bytes() == items[2].content
    assert files(kept)[items[0].asset_id].stat().st_ino == before[items[0].asset_id]


async def test_a_copy_that_was_killed_goes_on_where_it_was(kept: Shelf) -> None:
    items = [await kept.put(number, os.urandom(300_000)) for number in range(12)]
    words = ("copy", kept.store_url, other(kept))

    def some() -> bool:
        return bool(files(kept))

    async with kept.running(*words, "--bytes-per-second=1000000") as process:
        await killed_once(process, some)
    there = {name: path.stat().st_ino for name, path in files(kept).items()}
    assert 0 < len(there) < 12
    for name, path in files(kept).items():
        assert path.read_bytes() == items[int(name.removeprefix("asset_"))].content
    ran = await kept.mirror(*words, "--json")
    assert (ran.code, ran.json["there"], ran.json["copied"]) == (0, len(there), 12 - len(there))
    after = {name: path.stat().st_ino for name, path in files(kept).items()}
    assert there.items() <= after.items()
    assert len(after) == 12


async def test_what_is_damaged_is_reported_and_not_copied(kept: Shelf) -> None:
    items = [await kept.put(number) for number in range(4)]
    flip(kept.file(items[1]))
    os.truncate(kept.file(items[2]), 10)
    kept.file(items[3]).unlink()
    ran = await kept.mirror("copy", kept.store_url, other(kept), "--json")
    assert (ran.code, ran.json["copied"], ran.json["damaged"]) == (1, 1, 3)
    assert {one["asset_id"]: one["found"] for one in ran.json["assets"]} == {
        "asset_1": "store_wrong_bytes",
        "asset_2": "store_wrong_length",
        "asset_3": "store_missing",
    }
    assert set(files(kept)) == {"asset_0"}
    # Only `mirror verify` changes records.
    assert {(await kept.row(item))["damaged_at"] for item in items} == {None}
    told = await kept.mirror("copy", kept.store_url, other(kept))
    assert "vid_1 video (video_1) could not be copied: store_wrong_bytes" in told.err
    assert "GATEWAY_STORE_URL" not in told.out


async def test_a_store_that_takes_nothing_ends_the_copy(kept: Shelf) -> None:
    for number in range(8):
        await kept.put(number)
    (kept.folder / "other").mkdir()
    (kept.folder / "other" / "tmp").symlink_to("tmp")
    ran = await kept.mirror("copy", kept.store_url, other(kept), "--json")
    assert (ran.code, ran.json["copied"]) == (1, 0)
    assert "content store could not be" in ran.json["stopped"]


async def test_content_moves_into_a_bucket_and_is_served_from_there(tmp_path: Path) -> None:
    with moto_server() as server:
        url = server.url()
        async with world(tmp_path) as made:
            key = await made.key()
            video_id = await made.buy(key)
            await made.mirrored(video_id)
            whole = await made.control.content(video_id)
            environ = environ_for(made.folder, made.simulator.base_url) | KEYS
            words = ("copy", made.settings.store_url, url, "--json")
            async with mirror_command(*words, **environ) as process:
                ran = await ended(process)
            assert (ran.code, ran.json["copied"]) == (0, 1)
            (stored,) = server.admin().list_objects_v2(Bucket=BUCKET)["Contents"]
            about = server.admin().head_object(Bucket=BUCKET, Key=stored["Key"])
            assert about["ContentType"] == "video/mp4"
            assert about["ContentDisposition"] == f'attachment; filename="{video_id}.mp4"'
        keys: dict[str, Any] = {
            "store_access_key_id": ACCESS_KEY_ID,
            "store_secret_access_key": SECRET_ACCESS_KEY,
        }
        async with (
            world(tmp_path, store_url=url, **keys) as made,
            made.client(key) as client,
        ):
            answer = await client.get(f"/videos/{video_id}/content")
            assert answer.content == whole


@pytest.mark.parametrize(
    ("source", "target", "complaint"),
    [
        ("content", "other", "a store must be file:///absolute/path"),
        ("file:content", "file:./content", "FROM and TO are the same store"),
        ("s3://bucket/a", "s3://bucket/a", "FROM and TO are the same store"),
        ("ftp://host/a", "file:other", "a store must be"),
        ("s3://key:secret@bucket/a", "file:other", "must not hold credentials"),
    ],
)
async def test_stores_that_cannot_be_are_a_usage_error(
    kept: Shelf, source: str, target: str, complaint: str
) -> None:
    ran = await kept.mirror("copy", source, target)
    assert (ran.code, ran.out) == (2, "")
    assert complaint in ran.err
    assert "key:secret" not in ran.err


async def test_a_folder_that_is_not_there_is_not_copied_from(kept: Shelf) -> None:
    await kept.put(1)
    nowhere = kept.folder / "nowhere"
    ran = await kept.mirror("copy", f"file://{nowhere}", other(kept))
    assert ran.code == 1
    assert f"there is no content at {nowhere}" in ran.err
    assert not nowhere.exists()
