"""Who is asking, and may they?

A virtual key is `vgk_`, 30 random base62 characters (about 178 bits) and 6 base62 characters of a
CRC-32 over what stands before them, so that a mistyped key is refused before any look-up. It is
stored as its SHA-256 alone: at that entropy a plain hash cannot be searched. Admin keys have the
same form and begin with `vga_`.
"""

import hashlib
import hmac
import re
import secrets
import zlib
from dataclasses import dataclass
from typing import Final

from gateway.db.script import Row, Script, Sql

VIRTUAL: Final = "vgk"
ADMIN: Final = "vga"
_RANDOM_CHARACTERS: Final = 30
_CHECK_CHARACTERS: Final = 6
_BASE62: Final = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_FORM: Final = re.compile(r"vg[ka]_[0-9A-Za-z]{36}")


class ProjectArchived(Exception):
    """A key cannot be made in an archived project."""


@dataclass(frozen=True, slots=True)
class Key:
    """A virtual key that may be used now."""

    id: str
    project_id: str
    project_name: str


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the only moment at which its value is known."""

    id: str
    value: str
    project_id: str


def new_value(kind: str) -> str:
    """Return a fresh key value of a kind (VIRTUAL or ADMIN) from the system's secure randomness."""
    body = "".join(secrets.choice(_BASE62) for _ in range(_RANDOM_CHARACTERS))
    return f"{kind}_{body}{_check(f'{kind}_{body}')}"


def well_formed(value: str, kind: str) -> bool:
    """Tell whether a text can be a key of a kind at all: form and check digits."""
    if not _FORM.fullmatch(value) or not value.startswith(f"{kind}_"):
        return False
    return hmac.compare_digest(_check(value[:-_CHECK_CHARACTERS]), value[-_CHECK_CHARACTERS:])


def digest(value: str) -> str:
    """Return what is stored of a key value: its SHA-256 in hex."""
    return hashlib.sha256(value.encode()).hexdigest()


def create_key(
    *, project_name: str, name: str, value: str, key_id: str, project_id: str, now: int
) -> Script[NewKey]:
    """Make a key in a project, and the project with id `project_id` if its name is new.

    Raises:
        ProjectArchived: the project was archived.
    """
    project = yield from ensure_project(name=project_name, project_id=project_id, now=now)
    yield Sql(
        "INSERT INTO keys (id, project_id, name, value_sha256, value_hint, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6) ON CONFLICT DO NOTHING",
        (key_id, project, name, digest(value), value[-4:], now),
    )
    return NewKey(id=key_id, value=value, project_id=project)


def ensure_project(*, name: str, project_id: str, now: int) -> Script[str]:
    """Return the id of the project with a name, which is made if there is none.

    Raises:
        ProjectArchived: it was archived.
    """
    yield Sql(
        "INSERT INTO projects (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        (project_id, name, now),
    )
    ((found, archived_at),) = yield Sql(
        "SELECT id, archived_at FROM projects WHERE name = $1", (name,)
    )
    if archived_at is not None:
        raise ProjectArchived(name)
    return str(found)


def find_key(value_sha256: str) -> Script[Key | None]:
    """Return the key with a digest, unless it was revoked or its project archived."""
    rows = yield Sql(
        "SELECT keys.id, keys.project_id, projects.name, keys.value_sha256 FROM keys"
        " JOIN projects ON projects.id = keys.project_id"
        " WHERE keys.value_sha256 = $1 AND keys.revoked_at IS NULL"
        " AND projects.archived_at IS NULL",
        (value_sha256,),
    )
    for key_id, project_id, project_name, stored in rows:
        if hmac.compare_digest(stored, value_sha256):
            return Key(id=key_id, project_id=project_id, project_name=project_name)
    return None


def usable(*, key_id: str) -> Script[bool]:
    """Tell whether a key may buy at this very moment: money never rests on a cache."""
    rows = yield Sql(
        "SELECT 1 AS usable FROM keys JOIN projects ON projects.id = keys.project_id"
        " WHERE keys.id = $1 AND keys.revoked_at IS NULL AND projects.archived_at IS NULL",
        (key_id,),
    )
    return bool(rows)


def list_keys() -> Script[list[Row]]:
    """Return all keys, oldest first, without their values."""
    rows = yield Sql(
        "SELECT keys.id, projects.name AS project, keys.name, keys.value_hint, keys.created_at,"
        " keys.revoked_at FROM keys JOIN projects ON projects.id = keys.project_id"
        " ORDER BY keys.created_at, keys.id"
    )
    return list(rows)


def revoke_key(*, key_id: str, now: int) -> Script[bool]:
    """End a key for good; tell whether there is such a key. What is in flight still settles."""
    rows = yield Sql(
        "UPDATE keys SET revoked_at = COALESCE(revoked_at, $2) WHERE id = $1 RETURNING id",
        (key_id, now),
    )
    return bool(rows)


def _check(text: str) -> str:
    number = zlib.crc32(text.encode())
    return "".join(
        _BASE62[number // 62**place % 62] for place in range(_CHECK_CHARACTERS - 1, -1, -1)
    )
