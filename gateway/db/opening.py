"""How does a URL become a database?"""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from gateway.db.database import Database
from gateway.db.sqlite import open_sqlite
from gateway.db.url import DatabaseUrlError, parse_database_url

CONNECTIONS = 10
ANSWER_SECONDS = 30.0


@asynccontextmanager
async def open_database_url(
    url: str,
    *,
    password: str = "",
    connections: int = CONNECTIONS,
    answer_seconds: float = ANSWER_SECONDS,
    breaks_off: bool = False,
) -> AsyncIterator[Database]:
    """Yield the database that a URL names; see url.py.

    Args:
        url: of a file or a server.
        password: for a server, where the URL has none.
        connections: to a server, at least 3.
        answer_seconds: how long a caller waits for a script at all.
        breaks_off: whether leaving by an exception breaks off what is under way, for scripts that
            only read and take long, instead of waiting for it.

    Raises:
        DatabaseUrlError: it names none, or the library for it is not installed.
        DatabaseUnavailable: it cannot be opened.
    """
    named = parse_database_url(url)
    if isinstance(named, Path):
        async with open_sqlite(
            named, answer_seconds=answer_seconds, breaks_off=breaks_off
        ) as database:
            yield database
        return
    # Only here: a gateway with a file of its own needs no library for servers.
    try:
        from gateway.db.postgres import open_postgres  # noqa: PLC0415 - see above
    except ModuleNotFoundError as error:
        if error.name is None or error.name.partition(".")[0] != "asyncpg":
            raise
        raise DatabaseUrlError(
            "needs a library for PostgreSQL: pip install 'video-gateway[postgres]'"
        ) from error
    async with open_postgres(
        named,
        password=password,
        connections=connections,
        answer_seconds=answer_seconds,
        breaks_off=breaks_off,
    ) as server:
        yield server
