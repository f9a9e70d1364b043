"""Is the process alive, and should requests be sent to it?

`/livez` looks at nothing but the process. `/readyz` says no while the process drains, once the
database has not answered for 10 seconds, and while this machine's clock and that of the database
server are too far apart for leases to be trusted; an upstream or a store that is down does not make
it unready, since everything recorded and mirrored can still be read.
"""

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, PlainTextResponse, Response
from starlette.routing import Route, Router

from gateway.clock import Clock
from gateway.db.database import Database
from gateway.db.script import Script, Sql
from gateway.db.server_time import ServerTime
from gateway.errors import DatabaseUnavailable, StoreUnavailable
from gateway.store import ContentStore
from gateway.telemetry.metrics.process import ProcessMetrics

CHECK_SECONDS: Final = 2.0
DATABASE_PATIENCE_SECONDS: Final = 10.0
MAX_SKEW_SECONDS: Final = 2.0

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(slots=True)
class Health:
    """What the last look found.

    Attributes:
        draining: the process is to end: nobody should send it anything more.
        refusing: the drain delay is over: what comes all the same buys nothing.
    """

    clock: Clock
    server_time: ServerTime
    draining: bool = False
    refusing: bool = False
    store_works: bool = True
    database_failing_since: float | None = None

    def checks(self) -> dict[str, bool]:
        """Return each check by name; the process is ready when all are true."""
        since = self.database_failing_since
        return {
            "not_draining": not self.draining,
            "database": since is None or self.clock.elapsed() - since < DATABASE_PATIENCE_SECONDS,
            "clock": abs(self.server_time.ahead_seconds) <= MAX_SKEW_SECONDS,
        }

    def everything(self) -> dict[str, bool]:
        """Return the checks, and what is looked at besides."""
        return {**self.checks(), "store": self.store_works}


async def watch(
    health: Health, *, database: Database, store: ContentStore, metrics: ProcessMetrics
) -> None:
    """Look at database and store until cancelled; at a store that is down more often."""
    looked_at_store = -math.inf
    while True:
        try:
            await _look_at_database(health, database)
            wait_seconds = store.check_every_seconds if health.store_works else CHECK_SECONDS
            if health.clock.elapsed() - looked_at_store >= wait_seconds:
                looked_at_store = health.clock.elapsed()
                await _look_at_store(health, store)
        except Exception:  # noqa: BLE001 - one turn; the log has it
            _log.exception("health_check_failed")
        metrics.checked(health.everything())
        await asyncio.sleep(CHECK_SECONDS)


async def _look_at_database(health: Health, database: Database) -> None:
    try:
        await database.read(_ping)
        health.database_failing_since = None
    except DatabaseUnavailable as error:
        if health.database_failing_since is None:
            health.database_failing_since = health.clock.elapsed()
            _log.error("database_unavailable", cause=repr(error.__cause__))


async def _look_at_store(health: Health, store: ContentStore) -> None:
    try:
        await store.check()
        health.store_works = True
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
            return JSONResponse({"ready": ready, "checks": health.everything()}, status_code=status)
        return PlainTextResponse("ok" if ready else "not ready", status_code=status)

    return Router([Route("/livez", livez), Route("/readyz", readyz), Route("/metrics", metrics)])


def _ping() -> Script[None]:
    # A row, not a constant: SQLite answers `SELECT 1` without a look at its file.
    yield Sql("SELECT COUNT(*) AS applied FROM schema_migrations")
