"""What do the tests of retention stand on? Rows of content, and a retention of short turns."""

import asyncio
from collections.abc import AsyncIterator, Iterable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from conftest import World, eventually
from ledger_tools import NOW

from gateway.clock import Clock, system_clock
from gateway.db.database import Database
from gateway.db.script import Script, Sql
from gateway.mirror.retention import Retaining, retain_forever
from gateway.store import ContentStore
from gateway.store.folder import FolderStore

KEPT, DUE, DELETED = "kept", "due", "deleted"


@dataclass(frozen=True)
class Content:
    """The only asset of a video, `asset_NUMBER` of `vid_NUMBER`."""

    number: int
    project_id: str = "proj_a"
    mirrored_at: int = NOW
    size_bytes: int = 1
    pinned: bool = False
    state: str = KEPT

    @property
    def id(self) -> str:
        return f"asset_{self.number:04}"


def put(contents: Iterable[Content]) -> Script[None]:
    """Write rows of content, and of videos that nobody bought."""
    for one in contents:
        yield Sql(
            "INSERT INTO videos (id, project_id, upstream, kind, fields, status, created_at,"
            " submit_lease_ends_at, pinned_at, missing_polls, claim_number)"
            " VALUES ($1, $2, 'default', 'video', '{}', 'completed', $3, $3, $4, 0, 0)",
            (f"vid_{one.number}", one.project_id, NOW, NOW if one.pinned else None),
        )
        yield Sql(
            "INSERT INTO assets (id, video_id, project_id, variant, created_at, expires_at,"
            " attempts, claim_number, size_bytes, mirrored_at, due_at, removed_at, removed_for)"
            " VALUES ($1, $2, $3, 'video', $4, $4, 0, 0, $5, $6, $7, $8, $9)",
            (
                *(one.id, f"vid_{one.number}", one.project_id, NOW),
                None if one.state == DUE else one.size_bytes,
                None if one.state == DUE else one.mirrored_at,
                NOW if one.state == DUE else None,
                NOW if one.state == DELETED else None,
                "deletion" if one.state == DELETED else None,
            ),
        )


def removed() -> Script[dict[str, str]]:
    """Why each asset is no longer kept, by its id."""
    found = yield Sql("SELECT id, removed_for FROM assets WHERE removed_at IS NOT NULL")
    return {row["id"]: row["removed_for"] for row in found}


def clock_at(now: int) -> Clock:
    """A clock that stands still."""
    system = system_clock()
    return Clock(now=lambda: now, elapsed=lambda: now, new_id=system.new_id, chance=system.chance)


def a_retaining(
    database: Database, store: ContentStore, clock: Clock | None = None, /, **changes: Any
) -> Retaining:
    defaults: dict[str, Any] = {
        "keep_seconds": 0,
        "keep_bytes": 0,
        "on_step": lambda _: None,
        "evict_seconds": 0.02,
        "purge_seconds": 0.02,
        "retry_seconds": 0.02,
    }
    return Retaining(
        database=database, store=store, clock=clock or clock_at(NOW), **(defaults | changes)
    )


@asynccontextmanager
async def retained(made: World, **changes: Any) -> AsyncIterator[None]:
    """Run a second retention beside the gateway's own, with shorter turns and other limits."""
    store, clock = FolderStore(made.settings.store_path), made.timeline.clock()
    async with asyncio.TaskGroup() as group:
        loop = group.create_task(
            retain_forever(a_retaining(made.database, store, clock, **changes))
        )
        for _ in range(3):
            await asyncio.sleep(0)  # it begins to count the time to the next turns
        yield
        loop.cancel()
    store.close()


async def asset_of(made: World, video_id: str) -> dict[str, Any]:
    """Return the row of a video's content."""
    (row,) = await made.rows(
        "SELECT assets.* FROM assets JOIN videos ON videos.id = assets.video_id"
        " WHERE videos.upstream_id = $1 AND assets.variant = 'video'",
        video_id,
    )
    return {name: row[name] for name in row.keys()}  # type: ignore[attr-defined] # noqa: SIM118


async def purged(made: World, video_id: str) -> dict[str, Any]:
    """Wait until a video's content is out of the store, and return its row."""

    async def gone() -> dict[str, Any] | None:
        asset = await asset_of(made, video_id)
        return asset if asset["purged_at"] is not None else None

    found: dict[str, Any] = await eventually(gone)
    return found


def files(made: World) -> set[str]:
    """Return the keys that the store has."""
    return {path.name for path in made.settings.store_path.glob("[0-9a-f][0-9a-f]/*")}
