"""What of the records is shown to Prometheus? One script, which reads one state of all of them."""

import asyncio
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import date, timedelta
from functools import partial
from typing import Final

from gateway.alerts.outbox import read_pending
from gateway.billing.balances import PERIODS, accounting_day
from gateway.billing.comparisons import Comparison, read_comparisons
from gateway.billing.costs import MODEL, OPERATION, SIZE, Asked, read_costs
from gateway.billing.spend import spend_by_key, spend_by_level
from gateway.clock import Clock
from gateway.db.database import Database
from gateway.db.script import Row, Script
from gateway.mirror.backlog import Backlog, Kept, read_backlog, read_kept
from gateway.videos.progress import Progress, read_progress

# How old the sum over everything that is kept may be: it takes longer the more that is.
KEPT_SECONDS: Final = 60.0
KEPT_READ_SECONDS: Final = 2.0
_ITEM: Final = (MODEL, SIZE, OPERATION)


@dataclass(frozen=True, slots=True)
class Read:
    """What the records said; the lists are by period.

    Attributes:
        spend: balances of organization and projects.
        keys: balances of the keys that spent most.
        costs: settled spend by model, size and operation, of the day and the month.
        pending: alerts not delivered yet, and when the oldest rang.
        kept: what the store keeps, at most KEPT_SECONDS old; None where that takes too long.
    """

    spend: Mapping[str, Sequence[Row]]
    keys: Mapping[str, Sequence[Row]]
    costs: Mapping[str, Sequence[Row]]
    comparisons: Sequence[Comparison]
    progress: Progress
    backlog: Backlog
    pending: tuple[int, int | None]
    kept: Kept | None


class Records:
    """The records, as /metrics reads them."""

    def __init__(self, database: Database, *, clock: Clock, max_keys: int) -> None:
        self._database = database
        self._clock = clock
        self._max_keys = max_keys
        self._kept: Kept | None = None
        self._look_again_at = -math.inf
        self._one_at_a_time = asyncio.Lock()

    async def read(self) -> Read:
        """Return what the records say now.

        Raises:
            DatabaseUnavailable: they cannot be read.
        """
        # Somebody who scrapes too often waits for himself, and for nobody else.
        async with self._one_at_a_time:
            await self._look_at_kept()
            now = self._clock.now()
            script = partial(_read, now=now, max_keys=self._max_keys, kept=self._kept)
            return await self._database.read(script)

    async def _look_at_kept(self) -> None:
        elapsed = self._clock.elapsed()
        if elapsed < self._look_again_at:
            return
        self._look_again_at = elapsed + KEPT_SECONDS
        # What takes too long is as it was, or not shown; the rest must not be missing for it.
        with suppress(TimeoutError):
            async with asyncio.timeout(KEPT_READ_SECONDS):
                self._kept = await self._database.read(read_kept)


def _read(*, now: int, max_keys: int, kept: Kept | None) -> Script[Read]:
    today = date.fromisoformat(accounting_day(now))
    spend, keys = {}, {}
    for period in PERIODS:
        spend[period] = yield from spend_by_level(period=period, day=today, with_keys=False)
        if max_keys:
            keys[period] = yield from spend_by_key(period=period, day=today, keys=max_keys)
    costs = {}
    for period, (first, last) in (("day", (today, today)), ("month", _month(today))):
        costs[period] = yield from read_costs(Asked(first, last, group_by=_ITEM))
    return Read(
        spend=spend,
        keys=keys,
        costs=costs,
        comparisons=(yield from read_comparisons()),
        progress=(yield from read_progress(now=now)),
        backlog=(yield from read_backlog()),
        pending=(yield from read_pending()),
        kept=kept,
    )


def _month(day: date) -> tuple[date, date]:
    first = day.replace(day=1)
    return first, (first + timedelta(days=31)).replace(day=1) - timedelta(days=1)
