"""How is the whole put together?

The composition root: settings become a database, a store, upstreams, background loops and two
listening ports; everything is made once, here, and passed on.
"""

import asyncio
import os
import time
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import structlog
from prometheus_client import CollectorRegistry
from starlette.types import ASGIApp

from gateway import __version__
from gateway.api.auth import Authenticator
from gateway.api.content import MIRRORED_SECONDS
from gateway.api.health import Health, ops_app
from gateway.api.metrics.endpoint import metrics_endpoint
from gateway.api.parts import Parts
from gateway.api.reads import Reads
from gateway.api.recent import Recent
from gateway.api.routes import api_app
from gateway.billing.admin_keys import set_admin_key_of_settings
from gateway.billing.audit_log import GATEWAY, Change
from gateway.billing.catalogue import Catalogue
from gateway.clock import Clock, system_clock
from gateway.config import Settings
from gateway.db.database import Database
from gateway.db.measured import Measured as MeasuredDatabase
from gateway.db.server_time import ServerTime
from gateway.db.traced import traced
from gateway.db.url import shown
from gateway.draining import drain, go_on
from gateway.loops import loops as background
from gateway.mirror.fetches import Fetches
from gateway.mirror.throttle import Throttle
from gateway.mirror.turn import Mirror, Mirroring
from gateway.server import Ports, Server, open_ports, port_of, serve
from gateway.setup import (
    known_labels,
    load_catalogue,
    open_database,
    open_store,
    open_tracer,
    upstream_settings,
)
from gateway.store import ContentStore
from gateway.store.measured import Measured as MeasuredStore
from gateway.telemetry.metrics import Metrics
from gateway.telemetry.traces import Tracer
from gateway.upstream.client import Upstream
from gateway.videos.submit import Means
from gateway.work import Work

# What the last questions about health and metrics have to be answered in.
_OPS_SECONDS: Final = 5

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Running:
    """A gateway that accepts requests.

    Attributes:
        port: of the API, also where the setting said 0.
        ops_port: of health.
    """

    host: str
    port: int
    ops_port: int

    @property
    def base_url(self) -> str:
        """What an SDK's `base_url` is set to."""
        return f"http://{self.host}:{self.port}/v1"


@asynccontextmanager
async def running(
    settings: Settings,
    *,
    clock: Clock | None = None,
    on_step: Callable[[str], None] = lambda _: None,
    shared: Ports | None = None,
    registry: CollectorRegistry | None = None,
    hurried: asyncio.Event | None = None,
) -> AsyncIterator[Running]:
    """Run a gateway while the context is open; leaving it drains, then stops.

    Args:
        settings: what it is to be.
        clock: instead of the system's.
        on_step: told the name of every step of submit, poll and mirror as it is reached.
        shared: listening sockets that other processes accept from, too, instead of its own.
        registry: what /metrics shows has more in it already, such as what the log counts.
        hurried: ends the drain delay when it is set.

    Raises:
        SettingsError: the catalogue is wrong, or a port cannot be had.
        SchemaError: the database is newer than this program.
        DatabaseUnavailable: the database cannot be opened.
    """
    server_time = ServerTime(time.time)
    clock = clock or system_clock(lambda: server_time.ahead_seconds)
    catalogue = load_catalogue(settings)
    metrics = Metrics.of(registry or CollectorRegistry(), known_labels(settings, catalogue))
    async with AsyncExitStack() as stack:
        tracer = await stack.enter_async_context(open_tracer(settings, clock=clock))
        ports = shared or stack.enter_context(open_ports(settings))
        opened = await stack.enter_async_context(open_database(settings, clock=clock))
        database = traced(
            MeasuredDatabase(opened, metrics.database), tracer, url=settings.database_url
        )
        if settings.database_path is None:
            await server_time.measure(database)
        await _take_admin_key(settings.admin_key, database=database, clock=clock)
        store = MeasuredStore(await stack.enter_async_context(open_store(settings)), metrics.store)
        upstreams = {
            one.name: await stack.enter_async_context(
                Upstream(upstream_settings(one), metrics.upstream, tracer)
            )
            for one in settings.all_upstreams()
        }
        group = await stack.enter_async_context(asyncio.TaskGroup())
        parts = _assembled(
            settings,
            catalogue=catalogue,
            clock=clock,
            server_time=server_time,
            database=database,
            store=store,
            upstreams=upstreams,
            group=group,
            on_step=on_step,
            metrics=metrics,
            tracer=tracer,
        )
        loops = [group.create_task(loop) for loop in background(parts, on_step=on_step)]
        servers = await _serve(parts, group, ports, shared=shared is not None)
        started = Running(settings.host, port=port_of(ports.api), ops_port=port_of(ports.ops))
        _say_started(started, parts)
        try:
            yield started
            await go_on(parts, servers, hurried=hurried or asyncio.Event())
        finally:
            await drain(parts, servers)
            for loop in loops:
                loop.cancel()
            _log.info("gateway_stopped")


def _assembled(
    settings: Settings,
    *,
    catalogue: Catalogue,
    clock: Clock,
    server_time: ServerTime,
    database: Database,
    store: ContentStore,
    upstreams: Mapping[str, Upstream],
    group: asyncio.TaskGroup,
    on_step: Callable[[str], None],
    metrics: Metrics,
    tracer: Tracer,
) -> Parts:
    """Return what handlers and loops use, made of what was opened."""
    work = Work(group)
    fetches = _fetches(settings, group=group, upstreams=upstreams, clock=clock)
    mirroring = Mirroring(
        *(database, store, fetches, clock, settings.mirror_concurrency),
        wake=asyncio.Event(),
        on_step=on_step,
        metrics=metrics.mirror,
        tracer=tracer,
    )
    return Parts(
        settings=settings,
        catalogue=catalogue,
        clock=clock,
        database=database,
        store=store,
        upstreams=upstreams,
        mirror=Mirror(mirroring),
        mirrored=Recent(clock, seconds=MIRRORED_SECONDS),
        authenticator=Authenticator(database=database, clock=clock),
        reads=Reads(clock=clock, default_per_minute=settings.read_requests_per_minute),
        health=Health(clock=clock, server_time=server_time),
        work=work,
        submitting=_means(
            settings,
            database=database,
            work=work,
            clock=clock,
            on_step=on_step,
            metrics=metrics,
        ),
        metrics=metrics,
        tracer=tracer,
    )


async def _serve(
    parts: Parts, group: asyncio.TaskGroup, ports: Ports, *, shared: bool
) -> list[Server]:
    shutdown_seconds = parts.settings.shutdown_seconds
    return [
        await serve(group, app, listening, shutdown_seconds=seconds, shared=shared)
        for app, listening, seconds in (
            (api_app(parts), ports.api, shutdown_seconds),
            # Asked to the end, and then by nobody whom the end has to wait for.
            (_ops(parts), ports.ops, min(shutdown_seconds, _OPS_SECONDS)),
        )
    ]


async def _take_admin_key(value: str, *, database: Database, clock: Clock) -> None:
    """Let the admin key of the settings be the only one that comes from there."""
    change = Change(clock.new_id("audit_log"), clock.now(), GATEWAY, "settings")
    await database.run(
        partial(set_admin_key_of_settings, change, value=value, key_id=clock.new_id("key"))
    )


def _means(
    settings: Settings,
    *,
    database: Database,
    work: Work,
    clock: Clock,
    on_step: Callable[[str], None],
    metrics: Metrics,
) -> Means:
    return Means(
        database=database,
        work=work,
        clock=clock,
        on_step=on_step,
        reply_seconds=settings.reply_seconds,
        first_poll_seconds=settings.poll_interval_seconds,
        disclose_budgets=settings.disclose_budgets,
        budget_basis=settings.budget_basis,
        metrics=metrics.videos,
    )


def _fetches(
    settings: Settings,
    *,
    group: asyncio.TaskGroup,
    upstreams: Mapping[str, Upstream],
    clock: Clock,
) -> Fetches:
    return Fetches(
        group=group,
        upstreams=upstreams,
        concurrency=settings.fetch_concurrency,
        max_content_bytes=settings.max_content_bytes,
        throttle=Throttle(settings.fetch_bytes_per_second, elapsed=clock.elapsed),
        spool_folder=Path(settings.spool_path) if settings.spool_path else None,
    )


def _ops(parts: Parts) -> ASGIApp:
    return ops_app(parts.health, metrics_endpoint(parts))


def _say_started(started: Running, parts: Parts) -> None:
    settings = parts.settings
    parts.metrics.process.built(
        version=__version__,
        catalogue_sha256=parts.catalogue.sha256,
        now=parts.clock.now(),
    )
    _log.info(
        "gateway_started",
        version=__version__,
        pid=os.getpid(),
        base_url=started.base_url,
        port=started.port,
        database=shown(settings.database_url),
        content=settings.store_url,
        upstreams={one.name: one.base_url for one in settings.all_upstreams()},
        ops_port=started.ops_port,
        catalogue_sha256=parts.catalogue.sha256,
    )
