"""What do the settings mean: which catalogue, which database, which upstreams?"""

import importlib.resources
import os
import socket
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import cast

from gateway import __version__
from gateway.alerts.mail import MailSettings, Security
from gateway.billing.catalogue import Catalogue
from gateway.billing.catalogue_file import CatalogueError, read_catalogue
from gateway.clock import Clock
from gateway.config import Settings, SettingsError, UpstreamConfig
from gateway.db.copies import is_unfinished
from gateway.db.database import Database
from gateway.db.migrate import SchemaError, migrate, standing
from gateway.db.opening import ANSWER_SECONDS, open_database_url
from gateway.db.url import DatabaseUrlError
from gateway.store import ContentStore
from gateway.store.opening import open_store_url
from gateway.store.url import StoreUrlError
from gateway.telemetry.metrics.labels import Known, Sold
from gateway.telemetry.traces import UNTRACED, Fact, Tracer
from gateway.upstream.client import UpstreamSettings
from gateway.upstream.replies import OutcomeRules


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


def known_labels(settings: Settings, catalogue: Catalogue) -> Known:
    """Return what closes the lists of labels that differ from gateway to gateway."""
    return Known(
        upstreams=[one.name for one in settings.all_upstreams()],
        models=list(catalogue.models),
        sold=[
            Sold(model.id, size, seconds)
            for model in catalogue.models.values()
            for size, seconds, _ in model.offers()
        ],
    )


@asynccontextmanager
async def open_database(settings: Settings, *, clock: Clock) -> AsyncIterator[Database]:
    """Yield the database of the settings, migrated to what this program needs.

    Raises:
        SettingsError: the library for it is not installed.
        SchemaError: it is too new, or an unfinished copy, or lacks what `migrate` is to bring.
        DatabaseUnavailable: it cannot be opened.
    """
    async with open_as_it_is(settings) as database:
        if settings.migrate_at_start:
            await migrate(database, now=clock.now())
        elif missing := (await standing(database)).missing:
            number, name = missing[0]
            raise SchemaError(
                f"the database lacks migration {number}, {name}: run `video-gateway migrate`"
                " (the setting migrate_at_start is off)"
            )
        if await database.read(is_unfinished):
            raise SchemaError(
                "the database is an unfinished copy of another one: run `video-gateway database"
                " copy` again"
            )
        yield database


@asynccontextmanager
async def open_as_it_is(
    settings: Settings, *, answer_seconds: float = ANSWER_SECONDS, breaks_off: bool = False
) -> AsyncIterator[Database]:
    """Yield the database of the settings, whatever is in it.

    Raises:
        SettingsError: the library for it is not installed.
        DatabaseUnavailable: it cannot be opened.
    """
    async with AsyncExitStack() as stack:
        try:
            database = await stack.enter_async_context(
                open_database_url(
                    settings.database_url,
                    password=settings.database_password,
                    connections=settings.database_connections,
                    answer_seconds=answer_seconds,
                    breaks_off=breaks_off,
                )
            )
        except DatabaseUrlError as error:
            raise SettingsError([f"database_url {error}"]) from error
        yield database


@asynccontextmanager
async def open_tracer(settings: Settings, *, clock: Clock) -> AsyncIterator[Tracer]:
    """Yield what says where spans go; leaving it sends what is left, for a few seconds.

    Raises:
        SettingsError: the library for it is not installed.
    """
    if not settings.trace_url:
        yield UNTRACED
        return
    # Only here: a gateway that tells nobody needs no library for it.
    try:
        from gateway.telemetry.exporting import exporting  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "opentelemetry":
            raise
        raise SettingsError(
            ["trace_url needs OpenTelemetry: pip install 'video-gateway[traces]'"]
        ) from error
    service: dict[str, Fact] = {
        "service.name": "video-gateway",
        "service.version": __version__,
        "service.instance.id": clock.new_id("gateway"),
        "host.name": socket.gethostname(),
        "process.pid": os.getpid(),
    }
    url, sample_ppm = settings.trace_url, settings.trace_sample_ppm
    async with exporting(url, sample_ppm=sample_ppm, service=service) as tracer:
        yield tracer


@asynccontextmanager
async def open_store(settings: Settings) -> AsyncIterator[ContentStore]:
    """Yield the store of the settings; nothing is sent to it yet.

    Raises:
        SettingsError: there can be no such store, or its library is not installed.
    """
    async with AsyncExitStack() as stack:
        try:
            store = await stack.enter_async_context(
                open_store_url(
                    settings.store_url,
                    access_key_id=settings.store_access_key_id,
                    secret_access_key=settings.store_secret_access_key,
                )
            )
        except StoreUrlError as error:
            raise SettingsError([f"store_url {error}"]) from error
        yield store


def mail_settings(settings: Settings) -> MailSettings | None:
    """Return how mail is sent; None where no server is set."""
    if not settings.smtp_host:
        return None
    return MailSettings(
        host=settings.smtp_host,
        port=settings.smtp_port,
        security=cast("Security", settings.smtp_security),  # checked with the settings
        username=settings.smtp_username,
        password=settings.smtp_password,
        sender=settings.smtp_from,
    )


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
        cost_multiplier_ppm=config.cost_multiplier_ppm,
        send_traceparent=config.send_traceparent,
        rules=OutcomeRules(
            unknown_codes=frozenset(config.unknown_codes),
            bad_gateway_is_refusal=config.bad_gateway_is_refusal,
        ),
    )
