"""Which database does a URL name?

    sqlite:///relative/path, sqlite:////absolute/path     a file
    postgresql://user@host:5432/name?sslmode=verify-full    a server; several hosts with commas
    postgresql:///name?host=/var/run/postgresql             a server behind a Unix socket

A password may stand in the URL of a server; `shown` leaves it out. A URL of a server is read as
libpq reads it: https://www.postgresql.org/docs/current/libpq-connect.html#LIBPQ-CONNSTRING-URIS
"""

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final, NamedTuple
from urllib.parse import parse_qsl, unquote, urlsplit

_FILE: Final = "sqlite:///"
_SERVERS: Final = ("postgresql", "postgres")
_FORMS: Final = (
    "must be sqlite:///relative/path, sqlite:////absolute/path or postgresql://user@host:port/name"
)
# The forms that SQLAlchemy has for its drivers.
_WITH_DRIVER: Final = re.compile(r"(postgres|postgresql|sqlite)\+\w+:")
_HOST: Final = re.compile(r"(\[[^\[\]]*\]|[^\[\]:]*)(?::(\d*))?")
_MAX_PORT: Final = 65_535


class DatabaseUrlError(ValueError):
    """A URL names no database; the text goes after the name of the setting."""


class Host(NamedTuple):
    """Where one server listens: a name, an address or the folder of a socket; None is usual."""

    name: str | None
    port: int | None


class _Server(NamedTuple):
    user: str
    has_password: bool
    where: str
    path: str
    query: str
    hosts: tuple[Host, ...]


def parse_database_url(url: str) -> Path | str:
    """Return the file, or the URL of the server as its library takes it.

    Raises:
        DatabaseUrlError: with what it must be; nothing that could be a secret is repeated.
    """
    path = url.removeprefix(_FILE)
    if path not in {url, "", ":memory:"}:
        return Path(path)
    if driver := _WITH_DRIVER.match(url):
        raise DatabaseUrlError(f"must begin with {driver[1]}:, without the name of a driver")
    _parse_server(url)
    return url


def shown(url: str) -> str:
    """Return the URL as logs and messages may have it: without a password; a file absolute."""
    named = parse_database_url(url)
    if isinstance(named, Path):
        return f"{_FILE}{named.absolute()}"
    server = _parse_server(url)
    pairs = [pair for pair in server.query.split("&") if not _is_secret(pair.partition("=")[0])]
    user = f"{server.user}@" if server.user else ""
    query = f"?{'&'.join(pairs)}" if any(pairs) else ""
    return f"postgresql://{user}{server.where}{server.path}{query}"


def hosts_of(url: str) -> tuple[Host, ...]:
    """Return where the server of a URL may be, in the order in which to try; at least one."""
    return _parse_server(url).hosts


def has_password(url: str) -> bool:
    """Tell whether a password stands in the URL of a server."""
    return _parse_server(url).has_password


def _parse_server(url: str) -> _Server:
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DatabaseUrlError(_FORMS) from error
    if parts.scheme not in _SERVERS or "://" not in url:
        raise DatabaseUrlError(_FORMS)
    if any(character <= " " for character in url) or parts.fragment or "@" in parts.path:
        raise DatabaseUrlError("must have spaces and @ : / ? # [ ] in names and passwords as %XX")
    who, _, where = parts.netloc.rpartition("@")
    user, _, password = who.partition(":")
    if "@" in who:
        raise DatabaseUrlError("must have @ in a password as %40")
    options = _parse_query(parts.query)
    name = parts.path.removeprefix("/") or options.get("dbname") or options.get("database")
    if not name or "/" in name:
        raise DatabaseUrlError(f"{_FORMS}, with one name for the database")
    return _Server(
        user=user,
        has_password=bool(password or options.get("password")),
        where=where,
        path=parts.path,
        query=parts.query,
        hosts=_parse_hosts(where, options),
    )


def _parse_query(query: str) -> Mapping[str, str]:
    try:
        pairs = parse_qsl(query, keep_blank_values=True, strict_parsing=bool(query))
    except ValueError as error:
        raise DatabaseUrlError("must have name=value after the ?, joined by &") from error
    return dict(pairs)


def _parse_hosts(where: str, options: Mapping[str, str]) -> tuple[Host, ...]:
    ports = [_parse_port(port) for port in options.get("port", "").split(",")]
    if where:
        hosts = [_parse_host(one) for one in where.split(",")]
    else:
        hosts = [Host(name or None, None) for name in options.get("host", "").split(",")]
    if len(ports) == 1:
        ports *= len(hosts)
    if len(ports) != len(hosts):
        raise DatabaseUrlError("must have one port for all hosts, or one for each")
    return tuple(
        Host(host.name, host.port or port) for host, port in zip(hosts, ports, strict=True)
    )


def _parse_host(text: str) -> Host:
    match = _HOST.fullmatch(text)
    if match is None:
        raise DatabaseUrlError("must have hosts as name:port, 192.0.2.1:port or [2001:db8::1]:port")
    return Host(unquote(match[1].strip("[]")) or None, _parse_port(match[2] or ""))


def _parse_port(text: str) -> int | None:
    if not text:
        return None
    # What does not fit may be half of a password, so it is not repeated.
    if not text.isdecimal() or not 0 < int(text) <= _MAX_PORT:
        raise DatabaseUrlError(f"must have a port from 1 to {_MAX_PORT}")
    return int(text)


def _is_secret(name: str) -> bool:
    return "password" in unquote(name).lower()
