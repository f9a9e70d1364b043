"""How is a PostgreSQL server spoken to, and what do its errors mean?"""

import re
from typing import Final

import asyncpg
from asyncpg.connect_utils import SessionAttribute

# What comes of a server that cannot be spoken to.
UNREACHABLE: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # TimeoutError is one
)
CONNECT_SECONDS: Final = 5.0
_CACHED_STATEMENTS: Final = 1_000

# Error codes by class: https://www.postgresql.org/docs/current/errcodes-appendix.html
# 0A unsupported, 21 cardinality, 22 data, 23 integrity, 42 syntax or access, 54 too large.
_FAULTS_OF_STATEMENT: Final = ("0A", "21", "22", "23", "42", "54")
# 08 connection, 40 rolled back (serialization, deadlock), 57P shutdown or not yet started; too many
# connections, stopped for too long in a transaction, a server that is a standby by now.
_PASSING: Final = ("08", "40", "57P", "53300", "25P03", "25006")
_IN_READ_ONLY: Final = "25006"

# Compared byte by byte as SQLite does, whatever the locale of the database is.
_TEXT_COLUMN: Final = re.compile(r"\bTEXT\b")
_TABLE: Final = re.compile(r"\s*(CREATE|ALTER) TABLE ")


class Connecting:
    """Makes connections to the server at a URL."""

    def __init__(self, url: str, *, password: str) -> None:
        self._url = url
        self._password = password or None
        self._pooled: bool | None = None

    async def connect(self) -> asyncpg.Connection:
        """Return a new connection to a server that takes writes.

        Raises:
            UNREACHABLE: none can be made at the moment.
        """
        if self._pooled is None:
            self._pooled = await self._is_pooled()
        return await self._connect(0 if self._pooled else _CACHED_STATEMENTS)

    async def _is_pooled(self) -> bool:
        """Tell whether a pooler stands in between, where a session may change its server.

        A pooler makes up the process id by which a query may be cancelled. Statements prepared in
        one transaction may be unknown in the next one there, so none are kept.
        """
        connection = await self._connect(0)
        try:
            pid = await connection.fetchval("SELECT pg_backend_pid()")
            return bool(pid != connection.get_server_pid())
        finally:
            connection.terminate()

    async def _connect(self, statements: int) -> asyncpg.Connection:
        return await asyncpg.connect(
            self._url,
            password=self._password,
            timeout=CONNECT_SECONDS,
            statement_cache_size=statements,
            max_cached_statement_lifetime=0,
            target_session_attrs=SessionAttribute.primary,
        )


def worded(text: str) -> str:
    """Return a statement as PostgreSQL is to have it: text columns compare byte by byte."""
    return _TEXT_COLUMN.sub('TEXT COLLATE "C"', text) if _TABLE.match(text) else text


def is_fault_of_statement(error: Exception, *, reading: bool) -> bool:
    """Tell whether one statement is to blame, not the database."""
    code = getattr(error, "sqlstate", None) or ""
    return code.startswith(_FAULTS_OF_STATEMENT) or (reading and code == _IN_READ_ONLY)


def may_pass(error: BaseException | None) -> bool:
    """Tell whether the same transaction, begun anew on another connection, may succeed."""
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, asyncpg.InvalidCachedStatementError) or (
            error.sqlstate.startswith(_PASSING)
        )
    return isinstance(error, UNREACHABLE)
