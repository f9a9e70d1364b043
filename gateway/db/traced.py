"""Which scripts does a request, or a turn, wait for? Told as spans, around any database."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from functools import partial
from pathlib import Path
from typing import Any, Final, TypeVar

from gateway.db.database import Database
from gateway.db.script import Script
from gateway.db.url import parse_database_url
from gateway.telemetry.traces import OURS, UNTRACED, Span, Tracer

T = TypeVar("T")

SQLITE: Final = "sqlite"
POSTGRESQL: Final = "postgresql"


def traced(database: Database, tracer: Tracer, *, url: str) -> Database:
    """Return the database at a URL, so that its scripts are told of, if anybody is to be told."""
    if tracer is UNTRACED:
        return database
    is_file = isinstance(parse_database_url(url), Path)
    return Traced(database, tracer, system=SQLITE if is_file else POSTGRESQL)


class Traced:
    """A database as good as the one within, whose scripts are spans, waiting included.

    They are called by their functions, so there are as many names as scripts; never by their SQL,
    and nothing of what is passed to them is told.
    """

    def __init__(self, database: Database, tracer: Tracer, *, system: str) -> None:
        self._database = database
        self._tracer = tracer
        self._system = system

    async def run(self, script: Callable[[], Script[T]]) -> T:
        """See Database."""
        with self._span("run", script):
            return await self._database.run(script)

    async def run_beside(self, script: Callable[[], Script[T]]) -> T:
        """See Database."""
        with self._span("run_beside", script):
            return await self._database.run_beside(script)

    async def read(self, script: Callable[[], Script[T]]) -> T:
        """See Database."""
        with self._span("read", script):
            return await self._database.read(script)

    def _span(self, kind: str, script: Callable[..., Any]) -> AbstractContextManager[Span]:
        module, name = _names(script)
        facts = {
            "db.system.name": self._system,
            "code.function.name": f"{module}.{name}",
            f"{OURS}kind": kind,
        }
        short = f"{module.rpartition('.')[2]}.{name}"
        return self._tracer.span(short, kind="client", facts=facts)


def _names(script: Callable[..., Any]) -> tuple[str, str]:
    """Return a script's module and its function; a lambda is the function that it stands in."""
    while isinstance(script, partial):
        script = script.func
    name: str = getattr(script, "__qualname__", type(script).__qualname__)
    return script.__module__, name.partition(".<locals>")[0]
