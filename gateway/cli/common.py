"""What do all commands share: settings, a database, tables and JSON?"""

import asyncio
import json
import os
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, ParamSpec, TypeVar

import click
from rich.console import Console
from rich.table import Table

from gateway.app import open_database
from gateway.billing.money import parse_usd
from gateway.clock import system_clock
from gateway.config import Settings, SettingsError, load
from gateway.db.migrate import SchemaError
from gateway.db.script import Script
from gateway.errors import GatewayError

P = ParamSpec("P")
T = TypeVar("T")

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
_TABLE_WIDTH: Final = 1000


def database_command(function: Callable[P, T]) -> Callable[P, T]:
    """Give a command the options that say which database it works on."""
    options = (
        click.option("--config", type=click.Path(path_type=Path), help="TOML file with settings."),
        click.option("--database-url", help="Where records live, such as sqlite:///gateway.db."),
        click.option("--json", "as_json", is_flag=True, help="Print JSON instead of a table."),
    )
    for option in reversed(options):
        function = option(function)
    return function


def read_settings(config: Path | None, *, serving: bool = False, **flags: Any) -> Settings:
    """Return the settings in force, or end the command with every problem on standard error."""
    file = config or (
        Path(os.environ["GATEWAY_CONFIG"]) if "GATEWAY_CONFIG" in os.environ else None
    )
    try:
        return load(file=file, environ=os.environ, flags=flags, serving=serving)
    except SettingsError as error:
        complain(error)
        raise SystemExit(EXIT_USAGE) from error


def complain(error: SettingsError) -> None:
    """Print every problem with the settings."""
    for problem in error.problems:
        click.echo(f"video-gateway: {problem}", err=True)


def run_script(settings: Settings, script: Callable[[], Script[T]], *, make: bool = False) -> T:
    """Run one script on the database of the settings, while a server may be running on it.

    Only with `make` is a database made where there is none: a command run in the wrong folder must
    not answer from an empty one.
    """
    path = settings.database_path.absolute()
    if not path.exists():
        if not make:
            raise fail(
                f"there is no database at {path}: is this the folder that `serve` runs in, or is"
                " --database-url missing?"
            )
        click.echo(f"a new database: {path}", err=True)

    async def once() -> T:
        async with open_database(settings, clock=system_clock()) as database:
            return await database.run(script)

    try:
        return asyncio.run(once())
    except (GatewayError, SchemaError) as error:
        raise fail(str(error)) from error


def fail(message: str) -> click.ClickException:
    """Return the exception that ends a command with a message and exit code 1."""
    return click.ClickException(message)


def show(
    rows: Sequence[Mapping[str, Any]], *, columns: Sequence[str], as_json: bool, empty: str
) -> None:
    """Print rows as a table, or as a JSON array."""
    if as_json:
        show_json(list(rows))
        return
    if not rows:
        click.echo(empty)
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        numeric = column.endswith(("_usd", "_bytes")) or column in {"spent", "held"}
        table.add_column(
            column.replace("_", " "), justify="right" if numeric else "left", no_wrap=True
        )
    for row in rows:
        table.add_row(*("" if row[column] is None else str(row[column]) for column in columns))
    # Ids are there to be copied: a row too long for the terminal is wrapped by it, never folded.
    Console(width=_TABLE_WIDTH, soft_wrap=True).print(table)


def show_json(value: Any) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def moment(seconds: int | None) -> str | None:
    """Return Unix seconds as UTC text to the second."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


class Usd(click.ParamType[int]):
    """An amount of US dollars, such as 2.50; becomes micros."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return micros."""
        if isinstance(value, int):
            return value
        try:
            return parse_usd(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)
