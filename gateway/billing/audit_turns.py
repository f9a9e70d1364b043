"""Who makes sure that the books still add up, day after day?

A running gateway: it audits the ledger from time to time, over a connection of its own and in a
thread of its own, so that nobody waits for it, however many entries there are. Of several workers
and replicas one makes it: whoever writes down first that it has begun. One that was broken off is
begun anew after RETRY_SECONDS.
"""

import asyncio
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from gateway.billing.audit import Difference, differences_of, read_books
from gateway.billing.comparisons import (
    Comparison,
    begin_audit,
    read_comparisons,
    write_comparison,
)
from gateway.clock import Clock
from gateway.db.database import Database
from gateway.errors import DatabaseUnavailable

LOOK_SECONDS: Final = 60.0
# How long a script of its own may take: adding up a hundred million entries.
ANSWER_SECONDS: Final = 3_600.0
RETRY_SECONDS: Final = 3_600

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Auditing:
    """What audits are made with.

    Attributes:
        database: where results are kept.
        apart: opens the same database anew, for a script that takes its time; leaving it early
            breaks that script off.
        interval_seconds: how old the last audit may get.
    """

    database: Database
    apart: Callable[[], AbstractAsyncContextManager[Database]]
    clock: Clock
    interval_seconds: int
    look_seconds: float = LOOK_SECONDS


async def audit_forever(auditing: Auditing) -> None:
    """Audit whenever the last audit is too old, until cancelled."""
    while True:
        # Replicas that were started together do not look together.
        await asyncio.sleep(auditing.look_seconds * (0.5 + auditing.clock.chance()))
        try:
            await _audit_if_due(auditing)
        except DatabaseUnavailable as error:
            _log.warning("ledger_not_audited", cause=repr(error.__cause__))
        except Exception:  # noqa: BLE001 - one turn; the log has it
            _log.exception("audit_turn_failed")


async def _audit_if_due(auditing: Auditing) -> None:
    now = auditing.clock.now()
    older_than = now - auditing.interval_seconds
    found = await auditing.database.read(read_comparisons)
    if any(one.upstream is None and one.compared_at > older_than for one in found):
        return
    begin = partial(begin_audit, older_than=older_than, retry_at=now - RETRY_SECONDS, now=now)
    if not await auditing.database.run(begin):
        return
    begun = auditing.clock.elapsed()
    async with auditing.apart() as database:
        books = await database.read(read_books)
    # Years of days, keys and line items: the loop has others to serve meanwhile.
    differences = await asyncio.to_thread(differences_of, books)
    await auditing.database.run(partial(write_comparison, result_of(differences, now=now)))
    duration_seconds = round(auditing.clock.elapsed() - begun, 3)
    if differences:
        _log.error(
            "ledger_does_not_add_up",
            differences=len(differences),
            first=differences[0].what,
            duration_seconds=duration_seconds,
        )
    else:
        _log.info("ledger_audited", duration_seconds=duration_seconds)


def result_of(differences: list[Difference], *, now: int) -> Comparison:
    """Return what is kept of an audit."""
    return Comparison(None, compared_at=now, differences=len(differences), drift_micros=0)
