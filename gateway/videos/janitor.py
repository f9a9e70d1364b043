"""What has to be put right from time to time?

Submits whose lease has lapsed without an outcome become orphans; attempts too old to answer for a
retry are forgotten, and counts of minutes and days gone by; abandoned temporary files go. It is a
periodic turn, never a part of starting up: at start another process may be in the middle of the
very submit that looks abandoned.
"""

import asyncio
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from gateway.billing.limits import forget_counts
from gateway.clock import Clock
from gateway.db.database import Database
from gateway.errors import DatabaseUnavailable, StoreUnavailable
from gateway.store import ContentStore
from gateway.telemetry.metrics.videos import ORPHANED, VideoMetrics
from gateway.videos.attempts import forget_old
from gateway.videos.records import orphan_lapsed

TURN_SECONDS: Final = 5.0
SWEEP_SECONDS: Final = 3600
ABANDONED_SECONDS: Final = 24 * 3600

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Cleaning:
    """What the janitor works with."""

    database: Database
    store: ContentStore
    clock: Clock
    metrics: VideoMetrics
    turn_seconds: float = TURN_SECONDS


async def clean_forever(cleaning: Cleaning) -> None:
    """Put things right until cancelled; what fails is tried again in the next turn."""
    swept = cleaning.clock.elapsed()
    while True:
        await asyncio.sleep(cleaning.turn_seconds)
        try:
            await _orphan_lapsed(cleaning)
            if cleaning.clock.elapsed() - swept > SWEEP_SECONDS:
                await _forget_attempts(cleaning)
                await _sweep(cleaning)
                swept = cleaning.clock.elapsed()
        except (DatabaseUnavailable, StoreUnavailable) as error:
            _log.warning("janitor_turn_failed", cause=repr(error.__cause__))
        except Exception:  # noqa: BLE001 - one turn; the log has it
            _log.exception("janitor_turn_failed")


async def _orphan_lapsed(cleaning: Cleaning) -> None:
    now = cleaning.clock.now()
    for orphan in await cleaning.database.run(partial(orphan_lapsed, now=now)):
        cleaning.metrics.ended(orphan.model, ORPHANED)
        _log.error("video_orphaned", reason="lease_lapsed", **orphan.log_facts)


async def _forget_attempts(cleaning: Cleaning) -> None:
    now = cleaning.clock.now()
    forgotten = await cleaning.database.run(partial(forget_old, now=now))
    counts = await cleaning.database.run(partial(forget_counts, now=now))
    if forgotten or counts:
        _log.info("attempts_forgotten", attempts=forgotten, request_counts=counts)


async def _sweep(cleaning: Cleaning) -> None:
    removed = await cleaning.store.sweep(
        older_than_seconds=ABANDONED_SECONDS, now=cleaning.clock.now()
    )
    if removed:
        _log.info("store_swept", files=removed)
