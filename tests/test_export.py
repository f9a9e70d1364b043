"""Is all content of a project written as files: whole, right, named, and nowhere else?"""

import fcntl
import hashlib
import json
import os
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from conftest import environ_for, world
from hypothesis import given
from hypothesis import strategies as st
from shelf import Shelf, ended, flip, killed_once, mirror_command, shelf

from gateway.mirror.export_folder import FolderFailed, open_folder
from gateway.mirror.kept import Kept
from gateway.mirror.manifest import MANIFEST, exported_name


@pytest.fixture
async def kept(tmp_path: Path) -> AsyncIterator[Shelf]:
    async with shelf(tmp_path) as made:
        yield made


def manifest(folder: Path) -> list[dict[str, Any]]:
    text = (folder / MANIFEST).read_text(encoding="utf-8")
    return [json.loads(line) for line in text.splitlines()]


def everything_below(folder: Path) -> set[Path]:
    return {path for path in folder.rglob("*") if not path.is_dir()}


async def test_every_file_is_in_the_folder_and_in_the_manifest(kept: Shelf) -> None:
    shown = {"model": "sora-2-pro", "size": "1792x1024", "seconds": "8", "prompt": "a secret"}
    item = await kept.put(1, at=1000, shown=shown)
    await kept.put(2, variant="thumbnail", video=1, at=1001)
    await kept.put(3, project_id="proj_b")
    removed = await kept.put(4)
    await kept.change("UPDATE assets SET removed_at = 1 WHERE id = $1", removed.asset_id)
    folder = kept.folder / "a" / "b"
    ran = await kept.mirror("export", "name of proj_a", str(folder), "--json")
    assert (ran.code, ran.json["written"], ran.json["files"]) == (0, 2, 2)
    assert {path.name for path in folder.iterdir()} == {
        *("video_1.mp4", "video_1.webp"),
        MANIFEST,
    }
    assert (folder / "video_1.mp4").read_bytes() == item.content
    video, thumbnail = manifest(folder)
    assert video == {
        "id": "vid_1",
        "upstream": "default",
        "upstream_id": "video_1",
        "model": "sora-2-pro",
        "size": "1792x1024",
        "seconds": "8",
        "created_at": 1000,
        "completed_at": 1060,
        "variant": "video",
        "file": "video_1.mp4",
        "size_bytes": len(item.content),
        "sha256": item.sha256,
        "content_type": "video/mp4",
    }
    assert (thumbnail["variant"], thumbnail["file"]) == ("thumbnail", "video_1.webp")


async def test_what_was_really_bought_is_exported_whatever_its_id(tmp_path: Path) -> None:
    async with world(tmp_path / "deep" / "gateway") as made:
        key = await made.key()
        bought = [
            await made.buy(key, prompt)
            for prompt in (
                "a cat",
                *(f"[[id {one}]]" for one in ("slash", "dots", "query", "space")),
            )
        ]
        for video_id in bought:
            await made.mirrored(video_id)
        before = everything_below(tmp_path)
        folder = tmp_path / "deep" / "export"
        environ = environ_for(made.folder, made.simulator.base_url)
        async with mirror_command("export", "studio", str(folder), "--json", **environ) as process:
            ran = await ended(process)
        assert (ran.code, ran.json["files"]) == (0, len(bought))
        new = {
            path for path in everything_below(tmp_path) - before if "gateway.db" not in path.name
        }
        assert {path.parent for path in new} == {folder}
        lines = manifest(folder)
        assert sorted(line["upstream_id"] for line in lines) == sorted(bought)
        assert len({line["file"] for line in lines}) == len(bought)
        for line in lines:
            data = (folder / line["file"]).read_bytes()
            assert data == await made.control.content(line["upstream_id"])
            assert line["sha256"] == hashlib.sha256(data).hexdigest()
            assert (line["model"], line["seconds"]) == ("sora-2", "4")


HOSTILE = (
    "../../outside",
    "/etc/cron.d/x",
    "..",
    ".",
    ".hidden",
    "-rf",
    "video/../../x",
    "a\\b",
    "~root",
    "manifest.jsonl",
    "manifest",
    "video_1.asset_2",
    "a" * 250,
    "video_ü",
    "video_ö",
    ".export-x.part",
)


async def test_hostile_ids_make_names_of_their_own_inside_the_folder(kept: Shelf) -> None:
    items = {
        hostile: await kept.put(number, upstream_id=hostile)
        for number, hostile in enumerate(HOSTILE)
    }
    folder = kept.folder / "export"
    before = everything_below(kept.folder)
    ran = await kept.mirror("export", "proj_a", str(folder))
    assert ran.code == 0
    new = everything_below(kept.folder) - before
    assert {path.parent for path in new} <= {folder, kept.folder}
    names = {line["upstream_id"]: line["file"] for line in manifest(folder)}
    assert len(set(names.values())) == len(HOSTILE)
    for hostile, item in items.items():
        assert (folder / names[hostile]).read_bytes() == item.content
        assert not names[hostile].startswith(".")


async def test_files_that_would_have_one_name_have_our_id_in_it(kept: Shelf) -> None:
    await kept.put(1, upstream_id="same")
    await kept.put(2, upstream_id="same", upstream="other")
    await kept.put(3, video=1, upstream_id="same", variant="thumbnail")
    await kept.put(4, video=1, upstream_id="same", variant="spritesheet")
    await kept.put(5, upstream_id="same", project_id="proj_b")
    await kept.change("UPDATE assets SET content_type = 'image/jpeg' WHERE id = 'asset_3'")
    folder = kept.folder / "export"
    assert (await kept.mirror("export", "proj_a", str(folder))).code == 0
    assert {path.name for path in folder.iterdir()} == {
        "same.asset_1.mp4",
        "same.asset_2.mp4",
        "same.asset_3.jpg",
        "same.asset_4.jpg",
        MANIFEST,
    }
    assert (await kept.mirror("export", "proj_b", str(folder))).code == 0
    assert (folder / "same.asset_5.mp4").exists()


_IDS = st.text(min_size=1, max_size=256).filter(
    lambda one: len(one.encode(errors="replace")) <= 256
)


@given(one=_IDS, other=_IDS, variant=st.sampled_from(["video", "thumbnail", "spritesheet"]))
def test_two_assets_never_have_one_name(one: str, other: str, variant: str) -> None:
    def named(upstream_id: str, number: int, variant: str) -> str:
        asset = Kept(
            asset_id=f"asset_{number}",
            video_id=f"vid_{number}",
            project_id="proj_a",
            upstream_id=upstream_id,
            variant=variant,
            content_type="video/mp4" if variant == "video" else "image/jpeg",
            size_bytes=1,
            sha256="",
            expires_at=0,
            mirrored_at=0,
            verified_at=0,
            claim_number=0,
        )
        return exported_name(asset, namesakes=2 if one == other else 1)

    names = [named(one, 1, variant), named(other, 2, variant), named(one, 3, "spritesheet")]
    assert len(set(names)) == 3
    for name in names:
        assert Path(name).name == name
        assert not name.startswith(".")
        assert len(name.encode()) < 240
        assert name != MANIFEST


async def test_what_is_there_and_right_is_not_written_again(kept: Shelf) -> None:
    items = [await kept.put(number) for number in range(4)]
    folder = kept.folder / "export"
    assert (await kept.mirror("export", "proj_a", str(folder))).code == 0
    before = {path.name: path.stat().st_ino for path in folder.iterdir()}
    flip(folder / "video_1.mp4")
    (folder / "video_2.mp4").unlink()
    outside = kept.folder / "outside"
    outside.write_bytes(b"x" * len(items[3].content))
    (folder / "video_3.mp4").unlink()
    (folder / "video_3.mp4").symlink_to(outside)
    ran = await kept.mirror("export", "proj_a", str(folder), "--json")
    assert (ran.code, ran.json["there"], ran.json["written"]) == (0, 1, 3)
    for number, item in enumerate(items):
        path = folder / f"video_{number}.mp4"
        assert path.read_bytes() == item.content
        assert not path.is_symlink()
    assert (folder / "video_0.mp4").stat().st_ino == before["video_0.mp4"]
    assert outside.read_bytes() == b"x" * len(items[3].content)


async def test_an_export_that_was_killed_goes_on_where_it_was(kept: Shelf) -> None:
    items = [await kept.put(number, os.urandom(300_000)) for number in range(12)]
    folder = kept.folder / "export"

    def some() -> bool:
        return bool(list(folder.glob("*.mp4"))) and bool(list(folder.glob(".export-*")))

    async with kept.running(
        "export", "proj_a", str(folder), "--bytes-per-second=1000000"
    ) as process:
        await killed_once(process, some)
    there = {path: path.stat().st_ino for path in folder.glob("*.mp4")}
    assert 0 < len(there) < 12
    assert not (folder / MANIFEST).exists()
    assert list(folder.glob(".export-*"))
    ran = await kept.mirror("export", "proj_a", str(folder), "--json")
    assert (ran.code, ran.json["there"]) == (0, len(there))
    assert {path: path.stat().st_ino for path in there} == there
    assert len(manifest(folder)) == 12
    assert {path.name for path in folder.iterdir()} == {
        *(f"{item.upstream_id}.mp4" for item in items),
        MANIFEST,
    }


async def test_what_cannot_be_exported_is_named_and_never_in_the_folder(kept: Shelf) -> None:
    items = [await kept.put(number) for number in range(5)]
    flip(kept.file(items[1]))
    kept.file(items[2]).unlink()
    folder = kept.folder / "export"
    (folder / "video_3.mp4").mkdir(parents=True)
    ran = await kept.mirror("export", "proj_a", str(folder), "--json")
    assert (ran.code, ran.json["files"], ran.json["failed"]) == (1, 2, 3)
    assert {one["upstream_id"]: one["failure"] for one in ran.json["assets"]} == {
        "video_1": "store_wrong_bytes",
        "video_2": "store_missing",
        "video_3": "name_taken",
    }
    assert {line["upstream_id"] for line in manifest(folder)} == {"video_0", "video_4"}
    assert not (folder / "video_1.mp4").exists()
    assert list(folder.glob(".export-*")) == []
    told = await kept.mirror("export", "proj_a", str(folder))
    assert "vid_2 video (video_2) could not be exported: store_missing" in told.err
    assert "3 could not be exported" in told.out


async def test_a_store_that_is_down_ends_the_export_without_a_manifest(kept: Shelf) -> None:
    for number in range(8):
        await kept.put(number)
    for shard in [*kept.content.iterdir()]:
        if shard.name != "tmp":
            shard.rename(kept.folder / f"away {shard.name}")
            shard.symlink_to(shard.name)
    folder = kept.folder / "export"
    ran = await kept.mirror("export", "proj_a", str(folder), "--json")
    assert (ran.code, ran.json["manifest"], ran.json["files"]) == (1, None, 0)
    assert "could not be read" in ran.json["stopped"]
    assert list(folder.iterdir()) == []


async def test_what_cannot_be_is_said_in_words(kept: Shelf) -> None:
    await kept.put(1)
    file = kept.folder / "file"
    file.write_bytes(b"mine")

    async def complaint(*words: str) -> str:
        ran = await kept.mirror("export", *words)
        assert (ran.code, ran.out) == (1, "")
        return ran.err

    assert "there is no project 'nobody'" in await complaint("nobody", str(kept.folder / "a"))
    assert not (kept.folder / "a").exists()
    assert f"{file} is no folder" in await complaint("proj_a", str(file))
    assert f"{file}/below is no folder" in await complaint("proj_a", f"{file}/below")
    assert file.read_bytes() == b"mine"
    busy = kept.folder / "busy"
    busy.mkdir()
    number = os.open(busy, os.O_RDONLY)
    fcntl.flock(number, fcntl.LOCK_EX)
    assert "another export is writing into" in await complaint("proj_a", str(busy))
    os.close(number)


def test_only_plain_names_get_into_a_folder(tmp_path: Path) -> None:
    with open_folder(tmp_path / "export") as folder:
        for name in ("", ".", "..", "a/b", "/a", "a\0"):
            with pytest.raises(ValueError, match="plain"), folder.writing(name):
                pass
        with folder.writing("a") as writing:
            writing.write(b"1")
        assert list((tmp_path / "export").iterdir()) == []
    with pytest.raises(FolderFailed), open_folder(Path("/proc/self/fd/no/such")):
        pass


async def test_an_empty_project_has_an_empty_manifest(kept: Shelf) -> None:
    folder = kept.folder / "export"
    ran = await kept.mirror("export", "proj_a", str(folder))
    assert (ran.code, manifest(folder)) == (0, [])
