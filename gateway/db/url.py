"""Which database does a URL name?

    sqlite:///relative/path, sqlite:////absolute/path     a file
    postgresql://user@host:5432/name?sslmode=verify-full    a server; several hosts with commas

A password may stand in the URL of a server; `shown` leaves it out.
"""

from pathlib import Path
from typing import Final
from urllib.parse import parse_qsl, urlencode, urlsplit, urlunsplit

_FILE: Final = "sqlite:///"
_SERVERS: Final = ("postgresql", "postgres")
_FORMS: Final = (
    "must be sqlite:///relative/path, sqlite:////absolute/path or postgresql://user@host:port/name"
)


class DatabaseUrlError(ValueError):
    """A URL names no database; the text goes after the name of the setting."""


def parse_database_url(url: str) -> Path | str:
    """Return the file, or the URL of the server as its library takes it.

    Raises:
        DatabaseUrlError: with what it must be; nothing that could be a secret is repeated.
    """
    path = url.removeprefix(_FILE)
    if path not in {url, "", ":memory:"}:
        return Path(path)
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise DatabaseUrlError(_FORMS) from error
    if parts.scheme in _SERVERS and parts.netloc and parts.path.strip("/"):
        return url
    raise DatabaseUrlError(_FORMS)


def shown(url: str) -> str:
    """Return the URL as logs and messages may have it: without a password; a file absolute."""
    named = parse_database_url(url)
    if isinstance(named, Path):
        return f"{_FILE}{named.absolute()}"
    parts = urlsplit(named)
    who, at, where = parts.netloc.rpartition("@")
    query = [(name, value) for name, value in parse_qsl(parts.query) if name != "password"]
    netloc = f"{who.partition(':')[0]}{at}{where}"
    return urlunsplit(parts._replace(netloc=netloc, query=urlencode(query, safe="/")))
