"""What is not mirrored yet, and how long will the upstream's copies last?"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.db.database import Database
from gateway.db.script import Row, Script, Sql
from gateway.errors import DatabaseUnavailable
from gateway.mirror.keeping import IS_KEPT

TURN_SECONDS: Final = 5.0
# Rung in one turn: the others ring in the next.
_ALARMS: Final = 100

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Backlog:
    """What is waiting to be mirrored; times are Unix seconds, None where nothing waits.

    Attributes:
        oldest_at: when the one that has waited longest was completed, or found damaged.
        next_expiry_at: when the first of the upstream's copies goes.
    """

    assets: int
    oldest_at: int | None
    next_expiry_at: int | None


@dataclass(frozen=True, slots=True)
class Kept:
    """What the store keeps."""

    assets: int
    size_bytes: int


@dataclass(frozen=True, slots=True)
class Watching:
    """What an eye is kept on the backlog with.

    Attributes:
        alarm_seconds: how long before its upstream's copy goes an asset rings.
    """

    database: Database
    clock: Clock
    alarm_seconds: int
    turn_seconds: float = TURN_SECONDS


def read_backlog() -> Script[Backlog]:
    """Return what is waiting."""
    ((assets, oldest_at, next_expiry_at),) = yield Sql(
        "SELECT COUNT(*), MIN(COALESCE(damaged_at, created_at)), MIN(expires_at) FROM assets"
        " WHERE due_at IS NOT NULL"
    )
    return Backlog(assets, oldest_at, next_expiry_at)


def read_kept() -> Script[Kept]:
    """Return what is kept; it reads all of an index, so not too often."""
    ((assets, size_bytes),) = yield Sql(
        f"SELECT COUNT(*), CAST(COALESCE(SUM(size_bytes), 0) AS BIGINT) FROM assets WHERE {IS_KEPT}"
    )
    return Kept(assets, size_bytes)


def ring(*, before: int, now: int) -> Script[list[Row]]:
    """Mark what is not mirrored and goes before a moment; return it, each only once.

    Columns: video_id, variant, asset_id, project_id, expires_at, attempts, failure.
    """
    rows = yield Sql(
        "UPDATE assets SET alarmed_at = $1 WHERE id IN (SELECT id FROM assets"
        " WHERE due_at IS NOT NULL AND alarmed_at IS NULL AND expires_at < $2"
        " ORDER BY expires_at, id LIMIT $3)"
        " RETURNING video_id, variant, id AS asset_id, project_id, expires_at, attempts, failure",
        (now, before, _ALARMS),
    )
    return list(rows)


async def watch_forever(watching: Watching) -> None:
    """Ring for everything that may be lost soon, until cancelled."""
    while True:
        await asyncio.sleep(watching.turn_seconds)
        try:
            await _ring(watching)
        except DatabaseUnavailable as error:
            _log.warning("backlog_not_read", cause=repr(error.__cause__))
        except Exception:  # noqa: BLE001 - one turn; the log has it
            _log.exception("backlog_watch_failed")


async def _ring(watching: Watching) -> None:
    now = watching.clock.now()
    before = now + watching.alarm_seconds
    for row in await watching.database.run(partial(ring, before=before, now=now)):
        _log.error(
            "content_at_risk",
            video_id=row["video_id"],
            variant=row["variant"],
            asset_id=row["asset_id"],
            project_id=row["project_id"],
            left_seconds=row["expires_at"] - now,
            attempts=row["attempts"],
            failure=row["failure"],
        )
