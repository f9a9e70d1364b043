"""How do the bytes of what is no longer served get out of the store?

Deleted first, and written down only then: whoever dies in between, or beside another who does the
same, has it deleted once more, which is no error. What cannot be deleted is tried again, and does
not keep the rest from it.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.db.database import Database
from gateway.db.script import Row, Script, Sql
from gateway.errors import StoreUnavailable
from gateway.store import ContentStore

# Deleted at once, and written down in one transaction.
BATCH: Final = 16
# What could not be deleted for so long rings.
OVERDUE_SECONDS: Final = 3600

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Purging:
    """What is worked with.

    Attributes:
        on_step: told `retention.deleted` and `retention.purged` as they are reached.
    """

    database: Database
    store: ContentStore
    clock: Clock
    on_step: Callable[[str], None]


@dataclass(slots=True)
class Pass:
    """How far the pass through all that was removed for one reason has come.

    Attributes:
        after: the last that was tried; None at the beginning.
        failed: whether something in it could not be deleted.
        rung: whether that has rung; the next pass without a failure takes it back.
    """

    removed_for: str
    after: Row | None = None
    failed: bool = False
    rung: bool = False


def find_to_purge(*, removed_for: str, after: Row | None, limit: int) -> Script[Sequence[Row]]:
    """Return what was removed and is still in the store (id, removed_at), longest ago first."""
    place, args = "", ()  # type: tuple[str, tuple[str | int, ...]]
    if after is not None:
        place, args = " AND (removed_at, id) > ($3, $4)", (after["removed_at"], after["id"])
    return (
        yield Sql(
            "SELECT id, removed_at FROM assets WHERE removed_at IS NOT NULL AND purged_at IS NULL"
            f" AND removed_for = $1{place} ORDER BY removed_at, id LIMIT $2",
            (removed_for, limit, *args),
        )
    )


def write_purged(asset_ids: Sequence[str], *, now: int) -> Script[None]:
    """Write down that the store no longer has what was removed."""
    marks = ", ".join(f"${number}" for number in range(2, len(asset_ids) + 2))
    yield Sql(
        f"UPDATE assets SET purged_at = $1 WHERE id IN ({marks})"
        " AND removed_at IS NOT NULL AND purged_at IS NULL",
        (now, *asset_ids),
    )


async def purge(purging: Purging, made: Pass) -> bool:
    """Delete what is left of a pass; tell whether everything in it could be deleted.

    It ends early where the store takes nothing at all; the next call goes on behind that, and
    after the end of a pass the next begins.
    """
    while True:
        batch = await purging.database.read(
            partial(find_to_purge, removed_for=made.removed_for, after=made.after, limit=BATCH)
        )
        if not batch:
            well = not made.failed
            made.after, made.failed, made.rung = None, False, made.rung and not well
            return well
        failed = await _delete_all(purging.store, batch)
        await _write(purging, made, [row["id"] for row in batch if row["id"] not in failed])
        made.after = batch[-1]
        if failed:
            made.failed = True
            _say_failed(purging, made, batch, failed)
        if len(failed) == len(batch):
            return False


async def _delete_all(store: ContentStore, batch: Sequence[Row]) -> Mapping[str, StoreUnavailable]:
    async with asyncio.TaskGroup() as group:
        tasks = {row["id"]: group.create_task(_delete(store, row["id"])) for row in batch}
    failures = {asset_id: task.result() for asset_id, task in tasks.items()}
    return {asset_id: error for asset_id, error in failures.items() if error is not None}


async def _delete(store: ContentStore, asset_id: str) -> StoreUnavailable | None:
    try:
        await store.delete(asset_id)
    except StoreUnavailable as error:
        return error
    return None


async def _write(purging: Purging, made: Pass, asset_ids: Sequence[str]) -> None:
    if not asset_ids:
        return
    purging.on_step("retention.deleted")
    await purging.database.run(partial(write_purged, asset_ids, now=purging.clock.now()))
    purging.on_step("retention.purged")
    _log.info("content_purged", removed_for=made.removed_for, assets=len(asset_ids))


def _say_failed(
    purging: Purging,
    made: Pass,
    batch: Sequence[Row],
    failed: Mapping[str, StoreUnavailable],
) -> None:
    asset_id, error = next(iter(failed.items()))
    removed_at = min(row["removed_at"] for row in batch if row["id"] in failed)
    facts = {
        "removed_for": made.removed_for,
        "assets": len(failed),
        "asset_id": asset_id,
        "removed_at": removed_at,
        "cause": repr(error.__cause__),
    }
    _log.warning("content_not_purged", **facts)
    if not made.rung and removed_at <= purging.clock.now() - OVERDUE_SECONDS:
        made.rung = True
        _log.error("purge_overdue", **facts)
