"""What is wrong with a value?

Each check returns what is to be said after the setting's name, or None. Secrets are never repeated.
"""

import base64
from collections.abc import Callable
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from gateway.alerts.failed import DeliveryFailed
from gateway.alerts.mail import sender_address
from gateway.billing.key_values import ADMIN, well_formed
from gateway.db.url import DatabaseUrlError, parse_database_url
from gateway.store.url import StoreUrlError, parse_store_url
from gateway.upstream.requests import OPERATIONS

_MAX_PRESIGNED_SECONDS: Final = 7 * 24 * 3600
_MAX_PORT: Final = 65_535
_PPM: Final = 1_000_000
# Beyond these somebody has mistaken the unit: whole per cents, or a factor.
_LEAST_MULTIPLIER_PPM: Final = 10_000
_MAX_MULTIPLIER_PPM: Final = 100_000_000
# https://github.com/standard-webhooks/standard-webhooks/blob/main/spec/standard-webhooks.md
_WEBHOOK_PREFIX: Final = "whsec_"
_LEAST_SECRET_BYTES: Final = 24
_MAX_SECRET_BYTES: Final = 64


def one_of(*choices: str) -> Callable[[str], str | None]:
    """Return the check that a value is one of these."""
    complaint = f"must be {', '.join(choices[:-1])} or {choices[-1]}"
    return lambda value: None if value in choices else complaint


def http_url(value: str) -> str | None:
    """Look at a URL that paths are added to."""
    return None if _is_http(value) else "must be an http(s) URL such as https://api.apiyi.com/v1"


def http_url_or_none(value: str) -> str | None:
    """Look at a URL that need not be given."""
    if not value or _is_http(value):
        return None
    return "must be empty, or an http(s) URL such as https://api.apiyi.com"


def trace_url(value: str) -> str | None:
    """Look at where traces go, which need not be given; the complaint does not repeat it."""
    if not value or (_is_http(value) and "@" not in urlsplit(value).netloc):
        return None
    return (
        "must be empty, or an http(s) URL such as http://127.0.0.1:4318/v1/traces (credentials go"
        " into the variable OTEL_EXPORTER_OTLP_HEADERS)"
    )


def _is_http(value: str) -> bool:
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises where it is no port
    except ValueError:
        return False
    known = parts.scheme in {"http", "https"} and bool(parts.hostname)
    # A login has no place in it: URLs are logged, and the key goes into a header of its own.
    return known and not parts.query and not parts.fragment and "@" not in parts.netloc


def port(value: int) -> str | None:
    """Look at the upper end; the lower is the setting's `least`."""
    return None if value <= _MAX_PORT else f"must be at most {_MAX_PORT}, not {value}"


def upstream_secret(value: str) -> str | None:
    """Look at what goes into a header; the complaint does not repeat it."""
    # One that no header can hold would fail at the first purchase, after its hold.
    if all("!" <= character <= "~" for character in value):
        return None
    return "must be printable ASCII characters without spaces"


def share(value: int) -> str | None:
    """Look at the upper end of a share in millionths; the lower is the setting's `least`."""
    return None if value <= _PPM else f"must be at most {_PPM} (all of them), not {value}"


def cost_multiplier(value: int) -> str | None:
    """Look at what a list price is multiplied with, in millionths."""
    if _LEAST_MULTIPLIER_PPM <= value <= _MAX_MULTIPLIER_PPM:
        return None
    return (
        f"must be from {_LEAST_MULTIPLIER_PPM} to {_MAX_MULTIPLIER_PPM} (1 % to 100 times), not"
        f" {value}"
    )


def database_url(value: str) -> str | None:
    """Look at a database's URL, in SQLAlchemy's form."""
    try:
        parse_database_url(value)
    except DatabaseUrlError as error:
        return str(error)
    return None


def server_url_or_none(value: str) -> str | None:
    """Look at the URL of a database server that need not be given."""
    if not value or isinstance(_named(value), str):
        return None
    return "must be postgresql://user@host:port/name, past the pooler"


def _named(value: str) -> Path | str | None:
    try:
        return parse_database_url(value)
    except DatabaseUrlError:
        return None


def store_url(value: str) -> str | None:
    """Look at the URL of a folder or of a bucket."""
    try:
        parse_store_url(value)
    except StoreUrlError as error:
        return str(error)
    return None


def operations(value: tuple[str, ...]) -> str | None:
    """Look at the names of operations."""
    unknown = [one for one in value if one not in OPERATIONS]
    return f"has unknown operations: {', '.join(map(repr, unknown))}" if unknown else None


def admin_key(value: str) -> str | None:
    """Look at an admin key that need not be given; the complaint does not repeat it."""
    if not value or well_formed(value, ADMIN):
        return None
    return "is not an admin key: vga_ and 36 letters and digits, the last six a checksum"


def webhook_secret(value: str) -> str | None:
    """Look at a secret of Standard Webhooks that need not be given; the complaint is without it."""
    if not value:
        return None
    complaint = f"must be whsec_ and base64 of {_LEAST_SECRET_BYTES} to {_MAX_SECRET_BYTES} bytes"
    if not value.startswith(_WEBHOOK_PREFIX):
        return complaint
    try:
        secret = base64.b64decode(value.removeprefix(_WEBHOOK_PREFIX), validate=True)
    except ValueError:
        return complaint
    return None if _LEAST_SECRET_BYTES <= len(secret) <= _MAX_SECRET_BYTES else complaint


def mail_sender(value: str) -> str | None:
    """Look at the sender of mails, which need not be given."""
    if not value:
        return None
    try:
        sender_address(value)
    except DeliveryFailed:
        return "must be an address: alerts@example.com, or Alerts <alerts@example.com>"
    return None


def database(*, database_url: str, password: str, direct_url: str) -> str | None:
    """Look at what only a database server has."""
    direct = isinstance(_named(direct_url), str)  # what is no such URL is complained of by itself
    for name, given in (("database_password", bool(password)), ("database_direct_url", direct)):
        if given and isinstance(_named(database_url), Path):
            return f"{name} is for a database server, and database_url names a file"
    return None


def several(*, workers: int, database_url: str) -> str | None:
    """Look at whether the database is one for several processes."""
    if workers > 1 and isinstance(_named(database_url), Path):
        return (
            f"workers must be 1 with SQLite, not {workers}: several need PostgreSQL, such as"
            " database_url = postgresql://user@host/name"
        )
    return None


def mail(*, smtp_host: str, smtp_from: str) -> str | None:
    """Look at what mail needs together."""
    if smtp_host and not smtp_from:
        return "smtp_from must be set, because smtp_host is: an alert mail has a sender"
    return None


def presigned_seconds(value: int) -> str | None:
    """Look at how long a URL is good for."""
    if value <= _MAX_PRESIGNED_SECONDS:
        return None
    return f"must be at most {_MAX_PRESIGNED_SECONDS}, not {value}: S3 signs for no longer"


def serving(*, store_url: str, front_server: str, redirect_seconds: int) -> str | None:
    """Look at whether the store can be served in the way that is asked for."""
    is_folder = store_url.startswith("file:")
    if front_server and not is_folder:
        return "front_server needs a folder: no server in front can read an object store's files"
    if redirect_seconds and is_folder:
        return "store_redirect_seconds needs an object store: a folder has no URLs"
    return None
