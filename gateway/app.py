"""How is the whole put together?

The composition root: settings become a database, a store, upstreams, background loops and two
listening ports; everything is made once, here, and passed on.
"""

import asyncio
import contextlib
import importlib.resources
import socket
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import structlog
import uvicorn
from starlette.types import ASGIApp

from gateway import __version__
from gateway.api.auth import Authenticator
from gateway.api.health import Health, health_app, watch
from gateway.api.parts import Parts
from gateway.api.routes import api_app
from gateway.api.sending import AbortableHttp
from gateway.billing.catalogue import Catalogue
from gateway.billing.catalogue_file import CatalogueError, read_catalogue
from gateway.clock import Clock, system_clock
from gateway.config import Settings, SettingsError, UpstreamConfig
from gateway.db.database import Database
from gateway.db.migrate import migrate
from gateway.db.sqlite import open_sqlite
from gateway.store import ContentStore
from gateway.store.folder import FolderStore
from gateway.upstream.client import Upstream, UpstreamSettings
from gateway.upstream.replies import OutcomeRules
from gateway.videos.janitor import Cleaning, clean_forever
from gateway.videos.mirror import Mirroring, mirror_forever
from gateway.videos.poller import Polling, poll_forever
from gateway.videos.submit import Means
from gateway.videos.work import Work

_BACKLOG: Final = 2048
# How often the Date header is made anew.
_TICK_SECONDS: Final = 1.0
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
) -> AsyncIterator[Running]:
    """Run a gateway while the context is open; leaving it drains, then stops.

    `on_step` is told the name of every step of submit, poll and mirror as it is reached.

    Raises:
        SettingsError: the catalogue is wrong, or a port cannot be had.
        SchemaError: the database is newer than this program.
        DatabaseUnavailable: the database cannot be opened.
    """
    clock = clock or system_clock()
    catalogue = load_catalogue(settings)
    async with AsyncExitStack() as stack:
        api_socket = stack.enter_context(_listen(settings.host, settings.port))
        ops_socket = stack.enter_context(_listen(settings.ops_host, settings.ops_port))
        database = await stack.enter_async_context(open_database(settings, clock=clock))
        store = FolderStore(settings.store_path)
        upstreams = {
            one.name: await stack.enter_async_context(Upstream(upstream_settings(one)))
            for one in settings.all_upstreams()
        }
        group = await stack.enter_async_context(asyncio.TaskGroup())
        parts = _parts(
            settings,
            catalogue=catalogue,
            clock=clock,
            database=database,
            store=store,
            upstreams=upstreams,
            work=Work(group),
            on_step=on_step,
        )
        loops = [group.create_task(loop) for loop in _loops(parts, on_step=on_step)]
        servers = [
            await _serve(group, app, listening, settings=settings)
            for app, listening in (
                (api_app(parts), api_socket),
                (health_app(parts.health), ops_socket),
            )
        ]
        started = Running(
            host=settings.host,
            port=api_socket.getsockname()[1],
            ops_port=ops_socket.getsockname()[1],
        )
        _log.info(
            "gateway_started",
            version=__version__,
            base_url=started.base_url,
            port=started.port,
            database=str(settings.database_path.absolute()),
            content=str(settings.store_path.absolute()),
            upstreams={one.name: one.base_url for one in settings.all_upstreams()},
            ops_port=started.ops_port,
            catalogue_sha256=catalogue.sha256,
        )
        try:
            yield started
        finally:
            await _drain(parts, servers)
            for loop in loops:
                loop.cancel()
            _log.info("gateway_stopped")


def load_catalogue(settings: Settings) -> Catalogue:
    """Return the catalogue in force: the operator's file, or the packaged one.

    Raises:
        SettingsError: with every mistake in it.
    """
    try:
        text = (
            Path(settings.catalogue).read_text(encoding="utf-8")
            if settings.catalogue
            else importlib.resources.files("gateway.billing").joinpath("catalogue.toml").read_text()
        )
        catalogue = read_catalogue(text)
    except (OSError, UnicodeDecodeError) as error:
        raise SettingsError([f"catalogue: {error}"]) from error
    except CatalogueError as error:
        raise SettingsError([f"catalogue: {one}" for one in error.problems]) from error
    names = {one.name for one in settings.all_upstreams()}
    wanted = {f"models.{model.id}": model.upstream for model in catalogue.models.values()}
    if catalogue.characters is not None:
        wanted["characters"] = catalogue.characters.upstream
    missing = [
        f"catalogue: {where}: there is no upstream named {name!r}"
        for where, name in wanted.items()
        if name not in names
    ]
    if missing:
        raise SettingsError(missing)
    return catalogue


@asynccontextmanager
async def open_database(settings: Settings, *, clock: Clock) -> AsyncIterator[Database]:
    """Yield the database of the settings, migrated to what this program needs."""
    async with open_sqlite(settings.database_path) as database:
        await migrate(database, now=clock.now())
        yield database


def upstream_settings(config: UpstreamConfig) -> UpstreamSettings:
    """Return how the client is to speak to one configured upstream."""
    return UpstreamSettings(
        name=config.name,
        base_url=config.base_url.rstrip("/"),
        api_key=config.api_key,
        post_seconds=config.post_seconds,
        offers=frozenset(config.offers),
        retention_seconds=config.retention_seconds,
        pass_unknown_parameters=config.pass_unknown_parameters,
        rules=OutcomeRules(
            unknown_codes=frozenset(config.unknown_codes),
            bad_gateway_is_refusal=config.bad_gateway_is_refusal,
        ),
    )


def _parts(
    settings: Settings,
    *,
    catalogue: Catalogue,
    clock: Clock,
    database: Database,
    store: ContentStore,
    upstreams: Mapping[str, Upstream],
    work: Work,
    on_step: Callable[[str], None],
) -> Parts:
    return Parts(
        settings=settings,
        catalogue=catalogue,
        clock=clock,
        database=database,
        store=store,
        upstreams=upstreams,
        authenticator=Authenticator(database=database, clock=clock),
        health=Health(clock=clock),
        work=work,
        submitting=Means(
            database=database,
            work=work,
            clock=clock,
            on_step=on_step,
            reply_seconds=settings.reply_seconds,
            first_poll_seconds=settings.poll_interval_seconds,
            disclose_budgets=settings.disclose_budgets,
        ),
    )


async def _drain(parts: Parts, servers: Sequence["_Server"]) -> None:
    """Be unready, let requests and submits finish, then stop; health is answered to the end."""
    api, ops = servers
    parts.health.draining = True
    until = parts.clock.elapsed() + parts.settings.shutdown_seconds
    await _stop(api)
    left = await parts.work.drain(seconds=until - parts.clock.elapsed())
    if left:
        _log.error("shutdown_with_work_left", submits=left)
    await _stop(ops)


def _loops(parts: Parts, *, on_step: Callable[[str], None]) -> Iterator[Coroutine[Any, Any, None]]:
    settings = parts.settings
    mirror_wake = asyncio.Event()
    yield poll_forever(
        Polling(
            database=parts.database,
            upstreams=parts.upstreams,
            clock=parts.clock,
            interval_seconds=settings.poll_interval_seconds,
            typical_seconds={
                model.id: model.typical_generation_seconds[0]
                for model in parts.catalogue.models.values()
            },
            concurrency=settings.poll_concurrency,
            patience_seconds=settings.patience_seconds,
            on_completed=mirror_wake.set,
            on_step=on_step,
        )
    )
    yield mirror_forever(
        Mirroring(
            database=parts.database,
            store=parts.store,
            upstreams=parts.upstreams,
            clock=parts.clock,
            concurrency=settings.mirror_concurrency,
            max_content_bytes=settings.max_content_bytes,
            wake=mirror_wake,
            on_step=on_step,
        )
    )
    yield clean_forever(Cleaning(database=parts.database, store=parts.store, clock=parts.clock))
    yield watch(parts.health, database=parts.database, store=parts.store)


class _Server(uvicorn.Server):
    """uvicorn without its signal handlers: the process decides when it drains."""

    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.listening = asyncio.Event()
        self.stopped = asyncio.Event()
        self._stopping = asyncio.Event()

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        await super().startup(sockets)
        self.listening.set()

    async def main_loop(self) -> None:
        # uvicorn looks ten times a second whether to stop; a stop is to be noticed at once.
        while not await self.on_tick(0):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_TICK_SECONDS):
                    await self._stopping.wait()

    def stop(self) -> None:
        """Stop listening, and end once what is in flight is answered."""
        self.should_exit = True
        self._stopping.set()

    async def serve(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().serve(sockets)
        finally:
            self.stopped.set()


async def _serve(
    group: asyncio.TaskGroup, app: ASGIApp, listening: socket.socket, *, settings: Settings
) -> _Server:
    config = uvicorn.Config(
        app,
        http=AbortableHttp,
        ws="none",
        lifespan="off",
        access_log=False,
        log_config=None,
        server_header=False,
        proxy_headers=False,
        backlog=_BACKLOG,
        timeout_graceful_shutdown=settings.shutdown_seconds,
    )
    server = _Server(config)
    group.create_task(server.serve([listening]))
    await server.listening.wait()
    return server


async def _stop(server: _Server) -> None:
    server.stop()
    await server.stopped.wait()


@contextlib.contextmanager
def _listen(host: str, port: int) -> Iterator[socket.socket]:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listening = socket.create_server((host, port), family=family, backlog=_BACKLOG)
    except OSError as error:
        raise SettingsError([f"cannot listen on {host}:{port}: {error.strerror}"]) from error
    with listening:
        yield listening
