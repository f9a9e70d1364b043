"""`video-gateway serve`: run the gateway until it is told to stop."""

import asyncio
import signal
from collections.abc import Callable, Coroutine
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, TypeVar

import click
import uvloop
from prometheus_client import CollectorRegistry

from gateway.app import running
from gateway.cli.common import WrongSettings, begin_logs, fail, read_settings
from gateway.clock import Clock
from gateway.config import Settings, SettingsError, settings_fields
from gateway.db.database import in_words
from gateway.db.migrate import SchemaError
from gateway.errors import DatabaseUnavailable
from gateway.server import Stop, open_ports
from gateway.telemetry.metrics.sharing import share
from gateway.workers import PARENT, run_workers

T = TypeVar("T")


class _List(click.ParamType[tuple[str, ...]]):
    """Texts with commas between them."""

    name = "list"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the texts."""
        del param, ctx
        return tuple(part.strip() for part in str(value).split(",") if part.strip())


_LIST = _List()


def _options(command: Callable[..., None]) -> Callable[..., None]:
    for one in reversed(list(settings_fields())):
        if one.metadata["secret"]:
            continue
        flag = one.name.replace("_", "-")
        if isinstance(one.default, bool):
            option = click.option(
                f"--{flag}/--no-{flag}", one.name, default=None, help=one.metadata["help"]
            )
        else:
            listed = isinstance(one.default, tuple)
            shown = ",".join(one.default) if listed else one.default
            option = click.option(
                f"--{flag}",
                one.name,
                type=_LIST if listed else type(one.default),
                default=None,
                help=f"{one.metadata['help']} [default: {shown}]",
            )
        command = option(command)
    return command


@click.command()
@click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings.")
@_options
def serve(config: Path | None, **flags: Any) -> None:
    """Run the gateway. Settings: defaults < TOML file < environment < flags.

    Secrets are no flags: GATEWAY_UPSTREAM_API_KEY and the like, or the same with _FILE.
    """
    settings = read_settings(config, serving=True, **flags)
    if settings.workers == 1:
        run(serve_until_signal(settings, registry=begin_logs(settings.log_format)))
        return
    with TemporaryDirectory(prefix="video-gateway-metrics-") as folder:
        counting = Path(folder)
        share(counting, worker=PARENT)
        begin_logs(settings.log_format)
        code = run(_serve_with_workers(settings, counting=counting))
    if code:
        raise SystemExit(code)


def run(serving: Coroutine[Any, Any, T]) -> T:
    """Run a gateway to its end; what keeps it from beginning is said in words.

    Raises:
        click.ClickException: it could not begin.
    """
    try:
        return uvloop.run(serving)
    except SettingsError as error:
        raise WrongSettings(error) from error
    except (SchemaError, DatabaseUnavailable) as error:
        raise fail(in_words(error)) from error


async def serve_until_signal(
    settings: Settings,
    *,
    clock: Clock | None = None,
    on_step: Callable[[str], None] = lambda _: None,
    registry: CollectorRegistry | None = None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight."""
    stop = stop_on_signals()
    async with running(
        settings, clock=clock, on_step=on_step, registry=registry, hurried=stop.hurried
    ):
        await stop.asked.wait()


async def _serve_with_workers(settings: Settings, *, counting: Path) -> int:
    """Serve with several processes until SIGTERM or SIGINT; return the exit code."""
    stop = stop_on_signals()
    with open_ports(settings) as ports:
        return await run_workers(settings, ports, stop=stop, counting=counting)


def stop_on_signals() -> Stop:
    """Return what signals will set: SIGTERM and SIGINT that it is to end; SIGINT then also hurries.

    A second SIGTERM changes nothing: supervisors send one to a group and to its first process, and
    what a load balancer needs must not depend on that. A second Ctrl-C is a person who waits.
    """
    stop = Stop()
    loop = asyncio.get_running_loop()

    def interrupted() -> None:
        if stop.asked.is_set():
            stop.hurried.set()
        stop.asked.set()

    loop.add_signal_handler(signal.SIGTERM, stop.asked.set)
    loop.add_signal_handler(signal.SIGINT, interrupted)
    return stop
