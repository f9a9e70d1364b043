"""Who may manage the gateway? Scripts only.

Admin keys have the form of virtual keys and begin with `vga_`; they open `/v1/organization/…` and
nothing else. The setting `admin_key` is the first of them: its row says that it comes from there,
and ends when the setting names another value or none.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.billing.audit_log import Change, already_made, write_line
from gateway.billing.key_values import ADMIN, digest, redacted
from gateway.db.paging import Cursor, Listed, Page, read_page
from gateway.db.script import Row, Script, Sql

SETTING_NAME: Final = "setting admin_key"
_COLUMNS: Final = (
    "admin_keys.id, admin_keys.name, admin_keys.value_hint, admin_keys.from_settings,"
    " admin_keys.created_at, admin_keys.expires_at, admin_keys.last_used_at"
)


class FromSettings(Exception):
    """The key stands in the settings: only there can it be ended."""


@dataclass(frozen=True, slots=True)
class AdminKey:
    """An admin key that may be used now; ends_at as in keys.Key."""

    id: str
    name: str
    ends_at: int | None


def create_admin_key(
    change: Change,
    *,
    key_id: str,
    name: str,
    value: str,
    expires_at: int | None,
    from_settings: bool = False,
) -> Script[Row]:
    """Make an admin key, and return it without its value."""
    yield Sql(
        "INSERT INTO admin_keys (id, name, value_sha256, value_hint, from_settings, created_at,"
        " expires_at) VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        (key_id, name, digest(value), value[-4:], int(from_settings), change.now, expires_at),
    )
    yield from write_line(
        change,
        "tenant.admin_api_key.created",
        resource="admin_api_key",
        resource_id=key_id,
        after={"name": name, "expires_at": expires_at},
    )
    (row,) = yield Sql(f"SELECT {_COLUMNS} FROM admin_keys WHERE id = $1", (key_id,))
    return row


def find_admin_key(value_sha256: str, *, now: int) -> Script[AdminKey | None]:
    """Return the admin key that a digest belongs to, if it may be used now."""
    rows = yield Sql(
        "SELECT id, name, expires_at, value_sha256 FROM admin_keys WHERE value_sha256 = $1"
        " AND revoked_at IS NULL AND (expires_at IS NULL OR expires_at > $2)",
        (value_sha256, now),
    )
    for row in rows:
        if hmac.compare_digest(row["value_sha256"], value_sha256):
            return AdminKey(id=row["id"], name=row["name"], ends_at=row["expires_at"])
    return None


def get_admin_key(key_id: str) -> Script[Row | None]:
    """Return an admin key without its value, unless it was revoked.

    Columns: id, name, value_hint, from_settings, created_at, expires_at, last_used_at.
    """
    rows = yield Sql(
        f"SELECT {_COLUMNS} FROM admin_keys WHERE id = $1 AND revoked_at IS NULL", (key_id,)
    )
    return rows[0] if rows else None


def list_admin_keys(cursor: Cursor) -> Script[Page]:
    """Return a page of the admin keys that were not revoked."""
    listed = Listed(
        columns=_COLUMNS,
        source="admin_keys",
        table="admin_keys",
        where="admin_keys.revoked_at IS NULL",
    )
    return (yield from read_page(listed, cursor))


def revoke_admin_key(change: Change, *, key_id: str) -> Script[bool]:
    """End an admin key; tell whether there was one.

    Raises:
        FromSettings: it stands in the settings.
    """
    if (yield from already_made(change)) is not None:
        return True
    found = yield from get_admin_key(key_id)
    if found is None:
        return False
    if found["from_settings"]:
        raise FromSettings(key_id)
    yield from _revoke(change, found)
    return True


def set_admin_key_of_settings(change: Change, *, value: str, key_id: str) -> Script[None]:
    """Make the value of the setting the only one that comes from there; "" ends them all."""
    wanted = digest(value) if value else ""
    rows = yield Sql(
        f"SELECT {_COLUMNS}, admin_keys.value_sha256 FROM admin_keys"
        " WHERE from_settings = 1 AND revoked_at IS NULL ORDER BY id"
    )
    there = False
    for number, row in enumerate(rows, start=1):
        if row["value_sha256"] == wanted:
            there = True
        else:
            yield from _revoke(change.part(number), row)
    if value and not there:
        taken = yield from _take_up(change, wanted)
        if not taken:
            yield from create_admin_key(
                change,
                key_id=key_id,
                name=SETTING_NAME,
                value=value,
                expires_at=None,
                from_settings=True,
            )


def _take_up(change: Change, value_sha256: str) -> Script[bool]:
    """Let a value that was ended before, or was made by the API, be the one of the setting."""
    taken = yield Sql(
        "UPDATE admin_keys SET revoked_at = NULL, expires_at = NULL, from_settings = 1"
        " WHERE value_sha256 = $1 RETURNING id, name",
        (value_sha256,),
    )
    for row in taken:
        yield from write_line(
            change,
            "tenant.admin_api_key.created",
            resource="admin_api_key",
            resource_id=row["id"],
            after={"name": row["name"], "expires_at": None},
        )
    return bool(taken)


def write_admin_used(used: Mapping[str, int]) -> Script[None]:
    """Write down when admin keys were last used: Unix seconds by key id."""
    for key_id, moment in sorted(used.items()):
        yield Sql(
            "UPDATE admin_keys SET last_used_at = $2"
            " WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
            (key_id, moment),
        )


def _revoke(change: Change, row: Row) -> Script[None]:
    yield Sql("UPDATE admin_keys SET revoked_at = $2 WHERE id = $1", (row["id"], change.now))
    yield from write_line(
        change,
        "tenant.admin_api_key.deleted",
        resource="admin_api_key",
        resource_id=row["id"],
        before={"name": row["name"], "value": redacted(ADMIN, row["value_hint"])},
    )
