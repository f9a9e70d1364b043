"""How is a PostgreSQL server spoken to, and what do its errors mean?"""

import asyncio
import re
import socket
from collections import deque
from typing import Final

import asyncpg
from asyncpg.connect_utils import SessionAttribute

from gateway.db.url import Host, has_password, hosts_of, shown

OLDEST_VERSION: Final = 15
CONNECT_SECONDS: Final = 5.0  # with one host
_CACHED_STATEMENTS: Final = 1_000

# What comes of a server that cannot be spoken to.
_UNREACHABLE: Final = (
    asyncpg.PostgresError,
    asyncpg.InterfaceError,
    asyncpg.InternalClientError,
    OSError,  # TimeoutError is one
)
# A peer that has vanished without a word is given up after so long, whether something was sent to
# it that it does not acknowledge, or an answer is waited for. Milliseconds: tcp(7).
_WATCH: Final = (
    ("SOL_SOCKET", "SO_KEEPALIVE", 1),
    ("IPPROTO_TCP", "TCP_KEEPIDLE", 2),
    ("IPPROTO_TCP", "TCP_KEEPINTVL", 2),
    ("IPPROTO_TCP", "TCP_KEEPCNT", 3),
    ("IPPROTO_TCP", "TCP_USER_TIMEOUT", 6_000),
)

# Error codes by class: https://www.postgresql.org/docs/current/errcodes-appendix.html
# 0A unsupported, 21 cardinality, 22 data, 23 integrity, 42 syntax or access, 54 too large.
_FAULTS_OF_STATEMENT: Final = ("0A", "21", "22", "23", "42", "54")
# 08 connection, 40 rolled back (serialization, deadlock), 57P shutdown or not yet started; too many
# connections, too long in a transaction, a server that takes no writes by now, a lock not had.
_PASSING: Final = ("08", "40", "57P", "53300", "25P03", "25P04", "25006", "55P03")
_IN_READ_ONLY: Final = "25006"

# Compared byte by byte as SQLite does, whatever the locale of the database is.
_TEXT_COLUMN: Final = re.compile(r"\bTEXT\b")
_TABLE: Final = re.compile(r"\s*(CREATE|ALTER) TABLE ")


class CannotConnect(Exception):
    """No connection can be made; the text says for whom, where, and why, without a password."""

    def __init__(self, message: str, *, may_pass: bool) -> None:
        super().__init__(message)
        self.may_pass = may_pass


class Connecting:
    """Makes connections to the server at a URL."""

    def __init__(
        self, url: str, *, password: str, connect_seconds: float = CONNECT_SECONDS
    ) -> None:
        self._url = url
        self._connect_seconds = connect_seconds
        self._password = None if has_password(url) else password or None
        self._hosts = deque(hosts_of(url))
        self._pooled: bool | None = None

    async def connect(self) -> asyncpg.Connection:
        """Return a new connection to a server that takes writes.

        Of several hosts, those that failed last are asked last.

        Raises:
            CannotConnect: none can be made at the moment.
        """
        errors: list[Exception] = []
        for host in tuple(self._hosts):
            try:
                connection = await self._connect(host)
            except (*_UNREACHABLE, ValueError) as error:
                errors.append(error)
                if self._hosts[0] == host:
                    self._hosts.rotate(-1)
            else:
                return connection
        why = "; ".join(dict.fromkeys(map(_in_words, errors)))
        raise CannotConnect(
            f"cannot connect to {shown(self._url)}: {why}",
            may_pass=any(map(may_pass, errors)),
        ) from errors[-1]

    async def _connect(self, host: Host) -> asyncpg.Connection:
        if self._pooled is None:
            self._pooled = await self._is_pooled(host)
        connection = await self._open(host, 0 if self._pooled else _CACHED_STATEMENTS)
        if lacking := _lacking(connection):
            connection.terminate()
            raise asyncpg.UnsupportedServerFeatureError(lacking)
        _watch(connection)
        return connection

    async def _is_pooled(self, host: Host) -> bool:
        """Tell whether a pooler stands in between, where a session may change its server.

        A pooler makes up the process id by which a query may be cancelled. Statements prepared in
        one transaction may be unknown in the next one there, so none are kept.
        """
        connection = await self._open(host, 0)
        try:
            async with asyncio.timeout(self._connect_seconds):
                pid = await connection.fetchval("SELECT pg_backend_pid()")
            return bool(pid != connection.get_server_pid())
        finally:
            connection.terminate()

    async def _open(self, host: Host, statements: int) -> asyncpg.Connection:
        # The hosts are gone through here, each with a deadline of its own: asyncpg has one for
        # all, and a first host that has vanished would use it up.
        return await asyncpg.connect(
            self._url,
            host=host.name,
            port=host.port,
            password=self._password,
            timeout=self._connect_seconds,
            statement_cache_size=statements,
            max_cached_statement_lifetime=0,
            target_session_attrs=SessionAttribute.primary,
        )


def _lacking(connection: asyncpg.Connection) -> str | None:
    version = connection.get_server_version()
    if version.major < OLDEST_VERSION:
        return f"it is PostgreSQL {version.major}, and {OLDEST_VERSION} or later is needed"
    encoding = getattr(connection.get_settings(), "server_encoding", "UTF8")
    return None if encoding == "UTF8" else f"the database has the encoding {encoding}, not UTF8"


def _watch(connection: asyncpg.Connection) -> None:
    # asyncpg has neither an option for it nor a public way to its socket.
    transport: asyncio.Transport = connection._transport  # type: ignore[attr-defined]  # noqa: SLF001
    sock = transport.get_extra_info("socket")
    if sock.family == socket.AF_UNIX:
        return
    for level, option, value in _WATCH:
        if hasattr(socket, option):  # not every system has all
            sock.setsockopt(getattr(socket, level), getattr(socket, option), value)


def _in_words(error: Exception) -> str:
    if isinstance(error, TimeoutError):
        return "no answer in time"
    if isinstance(error, asyncpg.TargetServerAttributeNotMatched):
        return "it is a standby, which takes no writes"
    if isinstance(error, socket.gaierror):
        return f"no such host ({error.strerror})"
    return str(error) or repr(error)


def worded(text: str) -> str:
    """Return a statement as PostgreSQL is to have it: text columns compare byte by byte."""
    return _TEXT_COLUMN.sub('TEXT COLLATE "C"', text) if _TABLE.match(text) else text


def is_fault_of_statement(
    error: BaseException, connection: asyncpg.Connection, *, reading: bool
) -> bool:
    """Tell whether one statement is to blame, not the database."""
    if isinstance(error, asyncpg.InvalidCachedStatementError):
        return False  # a table was changed since it was prepared
    if isinstance(error, asyncpg.PostgresError):
        code = error.sqlstate or ""
        return code.startswith(_FAULTS_OF_STATEMENT) or (reading and code == _IN_READ_ONLY)
    # Arguments that fit no parameter, refused before anything was sent.
    return isinstance(error, asyncpg.InterfaceError) and not connection.is_closed()


def may_pass(error: BaseException | None) -> bool:
    """Tell whether the same transaction, begun anew on another connection, may succeed."""
    if isinstance(error, CannotConnect):
        return error.may_pass
    if isinstance(error, asyncpg.PostgresError):
        return isinstance(error, asyncpg.InvalidCachedStatementError) or (
            (error.sqlstate or "").startswith(_PASSING)
        )
    # A certificate that is not trusted is an OSError, too; a library may cancel what it waited for.
    return isinstance(error, (*_UNREACHABLE, asyncio.CancelledError)) and not isinstance(
        error, ValueError
    )
