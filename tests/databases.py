"""Which database does a test stand on: a file, or one on a server?

Tests name a database by a path. On SQLite that is the file; on PostgreSQL each path has a database
of its own, made with all its tables the first time that it is named. conftest chooses.
"""

import asyncio
import os
import shutil
import sqlite3
from collections.abc import AsyncIterator, Coroutine, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, asynccontextmanager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Final, TypeVar

import asyncpg
from postgres_tools import PostgresServer

from gateway.db.database import Database
from gateway.db.migrate import migrate
from gateway.db.postgres import BOOKS_LOCK, open_postgres
from gateway.db.sqlite import open_sqlite
from gateway.db.url import parse_database_url

T = TypeVar("T")

SQLITE: Final = "sqlite"
POSTGRES: Final = "postgres"
CONNECTIONS: Final = 5  # of one gateway; the server takes 300
LOOK_SECONDS: Final = 30
_EMPTY: Final = "template1"
_MIGRATED: Final = "migrated"


def url_of(path: Path, *, like: Path | None = None, migrated: bool = True, locale: str = "") -> str:
    """Return the URL of the database that a path names.

    Args:
        path: of the file, also where there is none.
        like: a database of which it begins as a copy; nobody may have that one open.
        migrated: False for one without tables.
        locale: of a server: by whose rules texts are compared, such as en-US; without tables.
    """
    if _chosen.server is not None:
        return _chosen.server.url_of(path, like=like, migrated=migrated, locale=locale)
    if like is not None and not path.exists():
        shutil.copy(like, path)
    return f"sqlite:///{path}"


def engine() -> str:
    """Return which engine url_of speaks of now."""
    return SQLITE if _chosen.server is None else POSTGRES


@asynccontextmanager
async def opened_at(
    path: Path, *, migrated: bool = True, busy_seconds: float | None = None
) -> AsyncIterator[Database]:
    """Open the database that a path names, as a process of its own would."""
    url = url_of(path, migrated=migrated)
    waits: Any = {} if busy_seconds is None else {"busy_seconds": busy_seconds}
    async with (
        open_sqlite(path, **waits)
        if engine() == SQLITE
        else open_postgres(url, connections=CONNECTIONS, **waits)
    ) as database:
        yield database


@asynccontextmanager
async def writing(url: str) -> AsyncIterator[None]:
    """Write, as another process, and do not come to the end before the context is left."""
    named = parse_database_url(url)
    if isinstance(named, str):
        async with AsyncExitStack() as stack:
            connection = await asyncpg.connect(named)
            stack.push_async_callback(connection.close)
            await stack.enter_async_context(connection.transaction())
            await connection.execute(f"SELECT pg_advisory_xact_lock({BOOKS_LOCK})")
            yield
    else:
        with closing(sqlite3.connect(named, isolation_level=None)) as file:
            file.execute("BEGIN IMMEDIATE")
            yield
            file.execute("ROLLBACK")


@asynccontextmanager
async def refusing(url: str) -> AsyncIterator[None]:
    """Let a server end all connections to a database and take no others, while the context lasts.

    As its neighbours see it, it has gone.
    """
    server, _, name = url.rpartition("/")
    allow = f"ALTER DATABASE {name} ALLOW_CONNECTIONS"
    neighbour = await asyncpg.connect(f"{server}/postgres")
    try:
        await neighbour.execute(f"{allow} false")
        await neighbour.fetch(
            "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE datname = $1", name
        )
        yield
        await neighbour.execute(f"{allow} true")
    finally:
        await neighbour.close()


def look(url: str, text: str, *args: str | int | None) -> list[Any]:
    """Run one statement behind the gateway's back, and return its rows; for tests without a loop.

    On SQLite it waits for locks as long as others do; foreign keys are not looked at.
    """
    named = parse_database_url(url)
    if isinstance(named, str):
        return _apart(_asked(named, text, *args))
    with closing(sqlite3.connect(named, timeout=10)) as connection, connection:
        connection.row_factory = sqlite3.Row
        marks = {str(place): arg for place, arg in enumerate(args, 1)}
        return connection.execute(text, marks).fetchall()


def bytes_of(url: str) -> bytes:
    """Return everything that a database has kept, which nobody has open."""
    named = parse_database_url(url)
    if isinstance(named, Path):
        return named.read_bytes()
    assert _chosen.server is not None
    return _chosen.server.server.run("pg_dump", named).encode()


@contextmanager
def a_folder() -> Iterator[Path]:
    """A folder whose databases are gone with it."""
    with TemporaryDirectory() as name:
        try:
            yield Path(name)
        finally:
            drop(Path(name))


def drop(folder: Path) -> None:
    """Drop the databases whose paths are below a folder, where they are on a server."""
    if _chosen.server is not None:
        _chosen.server.drop(folder)


@contextmanager
def on_server(server: "DatabaseServer | None") -> Iterator[None]:
    """Let paths name databases of a server, or files again; what is made meanwhile is dropped."""
    before, _chosen.server = _chosen.server, server
    try:
        yield
    finally:
        _chosen.server = before
        if server is not None:
            server.drop(Path("/"))


class DatabaseServer:
    """Databases of a PostgreSQL server, by path; made once, with a template to copy them from."""

    def __init__(self, server: PostgresServer) -> None:
        self.server = server
        self._names: dict[Path, str] = {}
        self._made = 0
        _apart(self._make_template())

    async def _make_template(self) -> None:
        await self._do(f"CREATE DATABASE {_MIGRATED} TEMPLATE {_EMPTY}")
        async with open_postgres(self.server.url(_MIGRATED), connections=3) as database:
            await migrate(database, now=0)

    def url_of(self, path: Path, *, like: Path | None, migrated: bool, locale: str) -> str:
        path = path.absolute()
        if path not in self._names:
            self._made += 1
            name = f"test_{os.getpid()}_{self._made}"
            template = f"TEMPLATE {_MIGRATED if migrated else _EMPTY}"
            if like is not None:
                template = f"TEMPLATE {self._names[like.absolute()]}"
            if locale:
                template = f"TEMPLATE template0 LOCALE_PROVIDER icu ICU_LOCALE '{locale}'"
            # Beside the other strategy it takes two thirds of the time.
            _apart(self._do(f"CREATE DATABASE {name} {template} STRATEGY FILE_COPY"))
            self._names[path] = name
        return self.server.url(self._names[path])

    def drop(self, folder: Path) -> None:
        """Drop every database whose path is below a folder, whoever is connected to it."""
        for path in [one for one in self._names if one.is_relative_to(folder)]:
            _apart(self._do(f"DROP DATABASE {self._names.pop(path)} WITH (FORCE)"))

    async def _do(self, text: str) -> None:
        await _asked(self.server.url(), text)


async def _asked(url: str, text: str, *args: str | int | None) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return list(await connection.fetch(text, *args))
    finally:
        await connection.close()


def _apart(work: Coroutine[Any, Any, T]) -> T:
    """Run it on a thread of its own, because whoever asks may stand in a loop already."""
    with ThreadPoolExecutor(max_workers=1) as pool:
        return pool.submit(asyncio.run, work).result(LOOK_SECONDS)


@dataclass
class _Chosen:
    server: DatabaseServer | None = None


_chosen: Final = _Chosen()
