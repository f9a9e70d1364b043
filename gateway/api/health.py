"""Is the process alive, and should requests be sent to it?

`/livez` looks at nothing but the process. `/readyz` says no while the process drains, once the
database has not answered for 10 seconds, while the database has not the tables of this program (a
newer one may have changed them under it), and while this machine's clock and that of the database
server are too far apart for leases to be trusted; an upstream or a store that is down does not make
it unready, since everything recorded and mirrored can still be read.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Final

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router

from gateway.clock import Clock
from gateway.db.database import Database
from gateway.db.migrate import Migration, SchemaError, Standing, read_migrations, stand
from gateway.db.server_time import ServerTime
from gateway.errors import DatabaseUnavailable, StoreUnavailable
from gateway.store import ContentStore
from gateway.telemetry.metrics.process import ProcessMetrics

CHECK_SECONDS: Final = 2.0
DATABASE_PATIENCE_SECONDS: Final = 10.0
MAX_SKEW_SECONDS: Final = 2.0
_MILLISECOND_DIGITS: Final = 3

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(slots=True)
class Health:
    """What the last look found; moments are those of `clock.elapsed`.

    Attributes:
        migrations: those that this program knows.
        draining: the process is to end: nobody should send it anything more.
        refusing: the drain delay is over: what comes all the same buys nothing.
        store_works: whether what is bought now could be kept.
        unfit: why the database's tables are not those of this program, in words; None: they are.
        database_asked_at: since when an answer is waited for; None: there is nothing to wait for.
        database_answered_at: of the last answer, as store_answered_at of the store's.
    """

    clock: Clock
    server_time: ServerTime
    migrations: list[Migration] = field(default_factory=read_migrations)
    draining: bool = False
    refusing: bool = False
    store_works: bool = True
    unfit: str | None = None
    database_asked_at: float | None = None
    database_answered_at: float | None = None
    store_answered_at: float | None = None

    def checks(self) -> dict[str, bool]:
        """Return each check by name; the process is ready when all are true."""
        since = self.database_asked_at
        return {
            "not_draining": not self.draining,
            "database": since is None or self.clock.elapsed() - since < DATABASE_PATIENCE_SECONDS,
            "migrations": self.unfit is None,
            "clock": abs(self.server_time.ahead_seconds) <= MAX_SKEW_SECONDS,
        }

    def everything(self) -> dict[str, bool]:
        """Return the checks, and what is looked at besides."""
        return {**self.checks(), "store": self.store_works}

    def found(self) -> dict[str, dict[str, Any]]:
        """Return what each check has found, by its name; nothing that is secret."""
        return {
            "database": {"since_answer_seconds": self.since(self.database_answered_at)},
            "migrations": {"known": len(self.migrations), "unfit": self.unfit},
            "clock": {"ahead_seconds": round(self.server_time.ahead_seconds, _MILLISECOND_DIGITS)},
            "store": {"since_answer_seconds": self.since(self.store_answered_at)},
        }

    def since(self, answered_at: float | None) -> float | None:
        """Return how long ago something answered last, None if it never did."""
        if answered_at is None:
            return None
        return round(self.clock.elapsed() - answered_at, _MILLISECOND_DIGITS)


async def watch(
    health: Health, *, database: Database, store: ContentStore, metrics: ProcessMetrics
) -> None:
    """Look at database and store until cancelled; neither has to wait for the other."""
    async with asyncio.TaskGroup() as group:
        group.create_task(_watch_database(health, database))
        group.create_task(_watch_store(health, store))
        while True:
            metrics.checked(health.everything())
            await asyncio.sleep(CHECK_SECONDS)


async def _watch_database(health: Health, database: Database) -> None:
    silent = False
    while True:
        try:
            silent = not await _database_answers(health, database, silent=silent)
        except Exception:  # noqa: BLE001 - one turn; the log has it
            _log.exception("health_check_failed")
        await asyncio.sleep(CHECK_SECONDS)


async def _watch_store(health: Health, store: ContentStore) -> None:
    """Look at a store as often as it likes; at one that is down more often."""
    looked_at = -math.inf
    while True:
        wait_seconds = store.check_every_seconds if health.store_works else CHECK_SECONDS
        try:
            if health.clock.elapsed() - looked_at >= wait_seconds:
                looked_at = health.clock.elapsed()
                await _look_at_store(health, store)
        except Exception:  # noqa: BLE001 - one turn; the log has it
            _log.exception("health_check_failed")
        await asyncio.sleep(CHECK_SECONDS)


async def _database_answers(health: Health, database: Database, *, silent: bool) -> bool:
    """Look once and tell whether it answered; rings unless it was `silent` before."""
    if health.database_asked_at is None:
        health.database_asked_at = health.clock.elapsed()
    try:
        # Rows, not a constant: SQLite answers `SELECT 1` without a look at its file.
        async with asyncio.timeout(DATABASE_PATIENCE_SECONDS):
            unfit = _unfit(await database.read(partial(stand, health.migrations)))
    except SchemaError as error:
        unfit = str(error)
    except (DatabaseUnavailable, TimeoutError) as error:
        if not silent:
            _log.error("database_unavailable", cause=repr(error.__cause__ or error))
        return False
    now = health.clock.elapsed()
    if silent:
        silent_seconds = round(now - health.database_asked_at, _MILLISECOND_DIGITS)
        _log.info("database_available", duration_seconds=silent_seconds)
    health.database_asked_at, health.database_answered_at = None, now
    if unfit not in {None, health.unfit}:
        _log.error("migrations_unfit", cause=unfit)
    health.unfit = unfit
    return True


def _unfit(standing: Standing) -> str | None:
    if not standing.missing:
        return None
    number, name = standing.missing[0]
    return f"the database lacks migration {number}, {name}"


async def _look_at_store(health: Health, store: ContentStore) -> None:
    try:
        await store.check()
        if not health.store_works:
            _log.info("store_available", duration_seconds=health.since(health.store_answered_at))
        health.store_works = True
        health.store_answered_at = health.clock.elapsed()
    except StoreUnavailable as error:
        if health.store_works:
            _log.error("store_unavailable", cause=repr(error.__cause__))
        health.store_works = False


def ops_app(health: Health, metrics: Callable[[Request], Awaitable[Response]]) -> Router:
    """Return the ASGI application of the ops port: health, and the endpoint of metrics."""

    async def livez(_: Request) -> Response:
        return PlainTextResponse("ok")

    async def readyz(request: Request) -> Response:
        checks = health.checks()
        ready = all(checks.values())
        status = 200 if ready else 503
        if "verbose" in request.query_params:
            found = {"ready": ready, "checks": health.everything(), "found": health.found()}
            return JSONResponse(found, status_code=status)
        return PlainTextResponse("ok" if ready else "not ready", status_code=status)

    return Router([Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])
