"""How does all content of a project get into a folder?

File by file, each compared with its record while it streams through; what is there already and is
right is not written again, so an export that was broken off goes on where it was. The manifest says
what is there; it is written last, and whole.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

from gateway.db.database import Database
from gateway.db.script import Row
from gateway.errors import StoreUnavailable
from gateway.mirror.export_folder import Folder, NameTaken
from gateway.mirror.kept import Kept, is_unchanged, list_kept
from gateway.mirror.manifest import MANIFEST, exported_name, manifest_line, read_videos
from gateway.mirror.rereading import Damaged, reread
from gateway.mirror.throttle import Throttle
from gateway.mirror.walk import Patience, at_once, pages
from gateway.store import ContentStore

NAME_TAKEN: Final = "name_taken"
UNAVAILABLE: Final = "store_unavailable"


class Outcome(Enum):
    """What came of exporting one asset."""

    WRITTEN = "written"
    THERE = "there"  # it was there already
    FAILED = "failed"
    CHANGED = "changed"  # mirrored anew or removed meanwhile


@dataclass(frozen=True, slots=True)
class Exported:
    """What became of one asset.

    Attributes:
        name: of its file.
        failure: a fixed word, where it is not there.
    """

    asset: Kept
    name: str
    outcome: Outcome
    failure: str | None = None


@dataclass(frozen=True, slots=True)
class Exporting:
    """What is exported with.

    Attributes:
        throttle: lets the bytes that are read pass.
        concurrency: files written at once.
        told: told of each asset when something has become of it.
    """

    database: Database
    store: ContentStore
    folder: Folder
    throttle: Throttle
    concurrency: int
    told: Callable[[Exported], None]


async def export(exporting: Exporting, *, project_id: str) -> None:
    """Write all that is kept of a project into the folder, then the manifest of what is there.

    Raises:
        FolderFailed: the folder cannot be written to; there is no new manifest.
        StoreUnavailable: the store has failed several times in a row; there is no new manifest.
    """
    patience = Patience()
    listing = partial(list_kept, project_id=project_id)
    with exporting.folder.writing(MANIFEST) as manifest:
        async with aclosing(pages(exporting.database, listing)) as found:
            async for page in found:
                videos = await exporting.database.read(
                    partial(read_videos, list({asset.video_id for asset in page}))
                )
                work = partial(_export_one, exporting, patience, videos=videos)
                for one in await at_once(page, work, concurrency=exporting.concurrency):
                    if one.outcome in {Outcome.WRITTEN, Outcome.THERE}:
                        line = manifest_line(one.asset, videos[one.asset.video_id], name=one.name)
                        manifest.write(line.encode())
        await asyncio.to_thread(manifest.commit)


async def _export_one(
    exporting: Exporting, patience: Patience, asset: Kept, *, videos: Mapping[str, Row]
) -> Exported:
    name = exported_name(asset, namesakes=videos[asset.video_id]["namesakes"])
    unavailable: StoreUnavailable | None = None
    try:
        exported = Exported(asset, name, await _write(exporting, asset, name=name))
    except Damaged as error:
        exported = await _failed(exporting, asset, name, error.found)
    except NameTaken:
        exported = Exported(asset, name, Outcome.FAILED, NAME_TAKEN)
    except StoreUnavailable as error:
        exported = await _failed(exporting, asset, name, UNAVAILABLE)
        unavailable = error
    exporting.told(exported)
    if unavailable is None:
        patience.answered()
    elif exported.outcome is Outcome.FAILED:
        patience.failed(unavailable)
    return exported


async def _write(exporting: Exporting, asset: Kept, *, name: str) -> Outcome:
    folder = exporting.folder
    has = partial(folder.has, name, size_bytes=asset.size_bytes, sha256=asset.sha256)
    if await asyncio.to_thread(has):
        return Outcome.THERE
    with folder.writing(name) as writing:
        async with aclosing(reread(exporting.store, asset)) as chunks:
            async for chunk in chunks:
                writing.write(chunk)
                await exporting.throttle.take(len(chunk))
        await asyncio.to_thread(writing.commit)
    return Outcome.WRITTEN


async def _failed(exporting: Exporting, asset: Kept, name: str, failure: str) -> Exported:
    if await exporting.database.read(partial(is_unchanged, asset)):
        return Exported(asset, name, Outcome.FAILED, failure)
    return Exported(asset, name, Outcome.CHANGED)
