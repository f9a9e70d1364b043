"""What do all commands share: settings, a database, who is asking, tables and JSON?"""

import asyncio
import json
import os
import pwd
import sys
from collections.abc import Callable, Coroutine, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Final, ParamSpec, TextIO, TypeVar

import click
from prometheus_client import CollectorRegistry
from rich.console import Console
from rich.table import Table
from rich.text import Text

from gateway.billing.audit_log import COMMAND, Change
from gateway.billing.comparisons import Comparison, write_comparison
from gateway.billing.projects import ProjectArchived, SeveralProjects
from gateway.clock import Clock, system_clock
from gateway.config import Settings, SettingsError, load
from gateway.db.database import Database, in_words
from gateway.db.migrate import SchemaError
from gateway.db.paging import Cursor, Page
from gateway.db.script import Row, Script
from gateway.errors import GatewayError
from gateway.setup import open_database
from gateway.telemetry.logs import configure_logs
from gateway.telemetry.metrics.log import LogMetrics

P = ParamSpec("P")
T = TypeVar("T")

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
# What is listed whole is listed up to here.
LIST_ROWS: Final = 10_000
_TABLE_WIDTH: Final = 1000
# Where getpass.getuser looks, which always asks for this process and can be told of no other.
_USER_VARIABLES: Final = ("LOGNAME", "USER", "LNAME", "USERNAME")
_NUMBERS: Final = frozenset({"count", "videos", "seconds", "attempts"})


class WrongSettings(click.ClickException):
    """Everything that is wrong with the settings; each problem is a line."""

    exit_code = EXIT_USAGE

    def __init__(self, error: SettingsError) -> None:
        super().__init__("\n".join(error.problems))

    def show(self, file: IO[Any] | None = None) -> None:
        """Print one line per problem."""
        for problem in self.message.splitlines():
            click.echo(f"video-gateway: {problem}", file=file, err=True)


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
    """Return the settings in force.

    Raises:
        WrongSettings: with every mistake in them.
    """
    try:
        return load(file=file_of(config), environ=os.environ, flags=flags, serving=serving)
    except SettingsError as error:
        raise WrongSettings(error) from error


def file_of(config: Path | None) -> Path | None:
    """Return the TOML file with settings: the one of --config, or of the environment."""
    if config is None and "GATEWAY_CONFIG" in os.environ:
        return Path(os.environ["GATEWAY_CONFIG"])
    return config


def a_change(clock: Clock) -> Change:
    """Return what a changing script is told: who is at this shell, and what time it is."""
    return Change(
        id=clock.new_id("audit_log"),
        now=clock.now(),
        actor_kind=COMMAND,
        actor_id=user_at_shell(os.environ, uid=os.getuid()),
    )


def user_at_shell(environ: Mapping[str, str], *, uid: int) -> str:
    """Return a user's name: the one that the shell knows, else the one that the system has."""
    for variable in _USER_VARIABLES:
        if name := environ.get(variable):
            return name
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        # In a container a user need not have a name.
        return f"uid {uid}"


def begin_logs(log_format: str, *, stream: TextIO = sys.stdout) -> CollectorRegistry:
    """Begin the log of a process that serves; return the registry in which its lines count."""
    registry = CollectorRegistry()
    configure_logs(log_format, stream=stream, told=LogMetrics(registry).line)
    return registry


def run_script(settings: Settings, script: Callable[[], Script[T]], *, make: bool = False) -> T:
    """Run one script on the database of the settings, while a server may be running on it."""
    return with_database(settings, lambda database: database.run(script), make=make)


def read_script(settings: Settings, script: Callable[[], Script[T]]) -> T:
    """Run one script that only reads: it waits for nobody who writes."""
    return with_database(settings, lambda database: database.read(script))


def keep_comparison(settings: Settings, comparison: Comparison) -> None:
    """Keep what was found for /metrics; a database that only lets itself be read is left alone."""
    with suppress(click.ClickException):
        run_script(settings, partial(write_comparison, comparison))


def read_rows(settings: Settings, script: Callable[[Cursor], Script[Page]]) -> Sequence[Row]:
    """Return a whole list, the oldest first, up to LIST_ROWS."""
    page = read_script(settings, lambda: script(Cursor(limit=LIST_ROWS, newest_first=False)))
    if page.has_more:
        click.echo(f"only the first {LIST_ROWS} are shown", err=True)
    return page.rows


def with_database(
    settings: Settings,
    work: Callable[[Database], Coroutine[Any, Any, T]],
    *,
    make: bool = False,
) -> T:
    """Do some work on the database of the settings; what a person can mend is said in words.

    Only with `make` is a database made where there is none: a command run in the wrong folder must
    not answer from an empty one.
    """
    if settings.database_path is not None:
        look_for(settings.database_path.absolute(), make=make)

    async def once() -> T:
        async with open_database(settings, clock=system_clock()) as database:
            return await work(database)

    try:
        return asyncio.run(once())
    except SeveralProjects as error:
        raise fail(f"several projects have that name; say which by its id: {error}") from error
    except ProjectArchived as error:
        raise fail(
            f"the project {str(error)!r} is archived, which is for good: nothing can be made or"
            " changed in it; `projects list` shows those that are not"
        ) from error
    except SettingsError as error:
        raise WrongSettings(error) from error
    except (GatewayError, SchemaError) as error:
        raise fail(in_words(error)) from error


def look_for(path: Path, *, make: bool) -> None:
    """End the command where there is no database and none is to be made."""
    try:
        there = path.exists()
    except OSError as error:
        raise fail(f"cannot look at {path}: {error.strerror}") from error
    if there:
        return
    if not make:
        raise fail(
            f"there is no database at {path}: is this the folder that `serve` runs in, or is"
            " --database-url missing?"
        )
    click.echo(f"a new database: {path}", err=True)


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
        numeric = column.endswith(("_usd", "_bytes")) or column in _NUMBERS
        table.add_column(
            column.replace("_", " "), justify="right" if numeric else "left", no_wrap=True
        )
    for row in rows:
        # As text: in a plain str, a name such as `[/b]` would be read as markup.
        table.add_row(
            *(Text("" if row[column] is None else str(row[column])) for column in columns)
        )
    # Ids are there to be copied: a row too long for the terminal is wrapped by it, never folded.
    Console(width=_TABLE_WIDTH, soft_wrap=True).print(table)


def show_facts(facts: Mapping[str, Any], *, text: str, as_json: bool) -> None:
    """Print what a command has done: facts as JSON, or a text for people."""
    if as_json:
        show_json(facts)
    else:
        click.echo(text)


def show_json(value: Any) -> None:
    """Print one JSON value."""
    click.echo(json.dumps(value, ensure_ascii=False, indent=2))


def moment(seconds: int | None) -> str | None:
    """Return Unix seconds as UTC text to the second."""
    if seconds is None:
        return None
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%d %H:%M:%S")


def when(seconds: int | None, *, as_json: bool) -> int | str | None:
    """Return Unix seconds as a table or JSON shows them."""
    return seconds if as_json else moment(seconds)
