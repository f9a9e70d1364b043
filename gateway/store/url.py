"""Which store does a URL name?

    file:///absolute/path, file:relative/path    a local folder (RFC 8089, or relative)
    s3://bucket/prefix?endpoint=…&region=…&virtual_hosted_style=true
    gs://bucket/prefix
    az://container/prefix?account=…&endpoint=…

Credentials have no place in it: URLs are logged and shown.
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, parse_qsl, urlsplit

_FORMS: Final = (
    "must be file:///absolute/path, file:relative/path, s3://bucket/prefix, gs://bucket/prefix or"
    " az://container/prefix"
)
_CREDENTIALS: Final = (
    "must not hold credentials: set store_access_key_id and store_secret_access_key for s3, or what"
    " the libraries of the store's maker look at, such as AWS_ACCESS_KEY_ID"
)
_BUCKET: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{1,221}", re.ASCII)
_PREFIX: Final = re.compile(r"(/[A-Za-z0-9_-][A-Za-z0-9._-]*)*/?", re.ASCII)
_WORD: Final = re.compile(r"[A-Za-z0-9-]+", re.ASCII)
_MAX_PREFIX_CHARACTERS: Final = 512


class StoreUrlError(ValueError):
    """A URL names no store; the text goes after the name of the setting."""


@dataclass(frozen=True, slots=True)
class BucketUrl:
    """Where in an object store content is.

    Attributes:
        scheme: s3, gs or az.
        prefix: in front of every path, without slashes around it; empty for none.
        parameters: by name, each known to the scheme and well formed.
    """

    scheme: str
    bucket: str
    prefix: str
    parameters: Mapping[str, str]


def parse_store_url(url: str) -> Path | BucketUrl:
    """Return the folder or the bucket that a URL names.

    Raises:
        StoreUrlError: with what is wrong; nothing that could be a secret is repeated.
    """
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises where it is no port
    except ValueError as error:
        raise StoreUrlError(_FORMS) from error
    if parts.scheme in _PARAMETERS:
        return _bucket(parts)
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
        return Path(parts.path)
    raise StoreUrlError(_FORMS)


def _bucket(parts: SplitResult) -> BucketUrl:
    if "@" in parts.netloc:
        raise StoreUrlError(_CREDENTIALS)
    if not _BUCKET.fullmatch(parts.netloc):
        raise StoreUrlError(f"must name a bucket: {parts.scheme}://bucket/prefix")
    if not _PREFIX.fullmatch(parts.path) or len(parts.path) > _MAX_PREFIX_CHARACTERS:
        raise StoreUrlError(
            "must have a prefix of letters, digits, '.', '_' and '-' between single slashes"
        )
    if parts.fragment:
        raise StoreUrlError("must not have a fragment (#)")
    return BucketUrl(
        scheme=parts.scheme,
        bucket=parts.netloc,
        prefix=parts.path.strip("/"),
        parameters=_parameters(parts),
    )


def _parameters(parts: SplitResult) -> Mapping[str, str]:
    known = _PARAMETERS[parts.scheme]
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name not in known:
            raise StoreUrlError(
                f"has an unknown parameter {name!r}; {parts.scheme}:// has"
                f" {', '.join(known) or 'none'}, and never credentials"
            )
        if name in found:
            raise StoreUrlError(f"has its parameter {name!r} twice")
        complaint = known[name](value)
        if complaint is not None:
            raise StoreUrlError(f"has a parameter {name!r} that {complaint}")
        found[name] = value
    return found


def _endpoint(value: str) -> str | None:
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises where it is no port
    except ValueError:
        return "must be an http(s) URL"
    if "@" in parts.netloc:
        return _CREDENTIALS
    if parts.scheme not in {"http", "https"} or not parts.hostname:
        return "must be an http(s) URL"
    return "must not have a query or a fragment" if parts.query or parts.fragment else None


def _word(value: str) -> str | None:
    return None if _WORD.fullmatch(value) else "must be letters, digits and '-'"


def _switch(value: str) -> str | None:
    return None if value in {"true", "false"} else "must be true or false"


_PARAMETERS: Final[Mapping[str, Mapping[str, Callable[[str], str | None]]]] = {
    "s3": {"endpoint": _endpoint, "region": _word, "virtual_hosted_style": _switch},
    "gs": {},
    "az": {"account": _word, "endpoint": _endpoint},
}
