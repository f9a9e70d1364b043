"""How is content let go, so that a crash leaves no dangling record and no orphaned object for long?

In two phases. First one transaction says that assets are removed: from then on they are answered
with 410 (a deleted video with 404), though the store still has them. Then the store deletes them,
and that is written down. A DELETE by a client is such a first phase too. What is true if the
process dies at each step:

| step              | the record says    | the store has | what happens then                       |
|---|---|---|---|
| none              | kept               | the content   | the next turn decides anew              |
| retention.removed | removed            | the content   | whoever runs next deletes it            |
| retention.deleted | removed            | nothing       | deleted again, which is no error        |
| retention.purged  | removed and purged | nothing       | nothing is left to do                   |

Any number of processes may do this at once: no step has an owner, and each may be done twice.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.db.database import Database
from gateway.errors import DatabaseUnavailable, StoreUnavailable
from gateway.mirror.eviction import (
    AGE,
    SPACE,
    find_aged,
    find_beyond,
    limited_projects,
    next_aged,
    remove,
)
from gateway.mirror.gc import REMOVED, Found, collect
from gateway.mirror.purge import Pass, Purging, purge
from gateway.store import ContentStore

STEPS: Final = ("retention.removed", "retention.deleted", "retention.purged")
DELETION: Final = "deletion"
EVICT_SECONDS: Final = 60.0
# How long after its DELETE content may still lie in the store.
PURGE_SECONDS: Final = 2.0
# After a turn that failed.
RETRY_SECONDS: Final = 30.0
# The store is looked through an hour after the start or a failure, and then once a day.
FIRST_GC_SECONDS: Final = 3600
GC_SECONDS: Final = 24 * 3600

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Retaining:
    """What retention works with.

    Attributes:
        keep_seconds: how long those projects keep content that do not say; 0: for ever.
        keep_bytes: what all keep together; 0: no limit.
        on_step: told the name of each of STEPS as it is reached.
    """

    database: Database
    store: ContentStore
    clock: Clock
    keep_seconds: int
    keep_bytes: int
    on_step: Callable[[str], None]
    evict_seconds: float = EVICT_SECONDS
    purge_seconds: float = PURGE_SECONDS
    retry_seconds: float = RETRY_SECONDS


async def retain_forever(retaining: Retaining) -> None:
    """Let go of what is no longer kept until cancelled; what fails is tried again."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_evict_forever(retaining))
        for reason in (DELETION, AGE, SPACE):
            group.create_task(_purge_forever(retaining, Pass(reason)))
        group.create_task(_collect_forever(retaining))


async def _evict_forever(retaining: Retaining) -> None:
    crowded: frozenset[str] = frozenset()

    async def turn() -> None:
        nonlocal crowded
        crowded = await evict(retaining, crowded=crowded)

    while True:
        await _safely(turn)
        await asyncio.sleep(retaining.evict_seconds)


async def _purge_forever(retaining: Retaining, made: Pass) -> None:
    purging = Purging(retaining.database, retaining.store, retaining.clock, retaining.on_step)

    async def turn() -> bool:
        return await purge(purging, made)

    while True:
        well = await _safely(turn)
        await asyncio.sleep(retaining.purge_seconds if well else retaining.retry_seconds)


async def _collect_forever(retaining: Retaining) -> None:
    due = retaining.clock.elapsed() + FIRST_GC_SECONDS

    async def turn() -> None:
        _say_found(
            await collect(
                retaining.database,
                retaining.store,
                delete=(REMOVED,),
                now=retaining.clock.now(),
            )
        )

    while True:
        await asyncio.sleep(retaining.evict_seconds)
        if retaining.clock.elapsed() >= due:
            well = await _safely(turn)
            due = retaining.clock.elapsed() + (GC_SECONDS if well else FIRST_GC_SECONDS)


async def _safely(turn: Callable[[], Awaitable[bool | None]]) -> bool:
    """Do one turn; tell whether it went well."""
    try:
        return await turn() is not False
    except (DatabaseUnavailable, StoreUnavailable) as error:
        _log.warning("retention_turn_failed", cause=repr(error.__cause__))
    except Exception:  # noqa: BLE001 - one turn; the log has it
        _log.exception("retention_turn_failed")
    return False


async def evict(retaining: Retaining, *, crowded: frozenset[str]) -> frozenset[str]:
    """Remove what is no longer kept.

    `crowded` are those, projects and "" for all together, that were over their limit after the
    turn before though nothing of theirs could be let go; those of this turn are returned. Each
    rings when it becomes so, not in every turn.
    """
    await _evict_aged(retaining)
    over: dict[str, tuple[int, int]] = {}
    after = ""
    while limited := await retaining.database.read(partial(limited_projects, after=after)):
        for project_id, keep_bytes in limited:
            over |= await _evict_beyond(retaining, project_id, keep_bytes)
        after = limited[-1]["project_id"]
    if retaining.keep_bytes:
        over |= await _evict_beyond(retaining, None, retaining.keep_bytes)
    for whose, (kept_bytes, keep_bytes) in over.items():
        if whose not in crowded:
            _log.error(
                "pins_exceed_limit",
                project_id=whose or None,
                kept_bytes=kept_bytes,
                keep_bytes=keep_bytes,
            )
    return frozenset(over)


async def _evict_aged(retaining: Retaining) -> None:
    now, after = retaining.clock.now(), ""
    while aged := await retaining.database.read(
        partial(next_aged, after=after, keep_seconds=retaining.keep_seconds, now=now)
    ):
        after = aged.project_id
        while asset_ids := await retaining.database.read(partial(find_aged, aged)):
            if not await _remove(retaining, asset_ids, reason=AGE, project_id=after):
                break


async def _evict_beyond(
    retaining: Retaining, project_id: str | None, keep_bytes: int
) -> dict[str, tuple[int, int]]:
    """Return what is kept, and the limit, where the rest is pinned."""
    while True:
        beyond = await retaining.database.read(
            partial(find_beyond, project_id=project_id, keep_bytes=keep_bytes)
        )
        if beyond.kept_bytes <= keep_bytes:
            return {}
        if not beyond.asset_ids:
            return {project_id or "": (beyond.kept_bytes, keep_bytes)}
        if not await _remove(retaining, beyond.asset_ids, reason=SPACE, project_id=project_id):
            return {}


async def _remove(
    retaining: Retaining, asset_ids: Sequence[str], *, reason: str, project_id: str | None
) -> int:
    """Return how many were still to be removed: none where another process was first."""
    removed = await retaining.database.run(
        partial(remove, asset_ids, reason=reason, now=retaining.clock.now())
    )
    if removed.assets:
        retaining.on_step("retention.removed")
        _log.info(
            "content_evicted",
            reason=reason,
            project_id=project_id,
            assets=removed.assets,
            size_bytes=removed.size_bytes,
        )
    return removed.assets


def _say_found(found: Found) -> None:
    deleted = found.strays[REMOVED]
    if deleted:
        _log.info("strays_deleted", assets=deleted, size_bytes=found.stray_bytes[REMOVED])
    others = {reason: count for reason, count in found.strays.items() if reason != REMOVED}
    if others:
        size_bytes = found.stray_bytes.total() - found.stray_bytes[REMOVED]
        _log.error("strays_found", size_bytes=size_bytes, **others)
