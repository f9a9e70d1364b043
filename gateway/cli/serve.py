"""`video-gateway serve`: run the gateway until it is told to stop."""

import asyncio
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click
import uvloop

from gateway.app import running
from gateway.cli.common import WrongSettings, fail, read_settings
from gateway.clock import Clock
from gateway.config import Settings, SettingsError, settings_fields
from gateway.db.migrate import SchemaError
from gateway.errors import DatabaseUnavailable
from gateway.telemetry.logs import configure_logs


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
    configure_logs(settings.log_format)
    try:
        uvloop.run(serve_until_signal(settings))
    except SettingsError as error:
        raise WrongSettings(error) from error
    except (SchemaError, DatabaseUnavailable) as error:
        raise fail(str(error)) from error


async def serve_until_signal(
    settings: Settings,
    *,
    clock: Clock | None = None,
    on_step: Callable[[str], None] = lambda _: None,
) -> None:
    """Serve until SIGTERM or SIGINT, then finish what is in flight."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    async with running(settings, clock=clock, on_step=on_step):
        await stop.wait()
