"""Which keys are there, and how does one come to be, change and end? Scripts only.

A key and its value are two things: budget, spend and limits belong to the key, and a rotation gives
it another value.
"""

from dataclasses import dataclass
from typing import Final

from gateway.billing.audit_log import Change, write_line
from gateway.billing.key_values import VIRTUAL, digest, redacted
from gateway.billing.service_accounts import get_service_account
from gateway.db.paging import Cursor, Listed, Page, read_page
from gateway.db.script import Row, Script, Sql

ALL: Final = "all"
READ: Final = "read"
# Beside `keys`, in FROM: whose a key is.
OWNERS: Final = (
    " JOIN projects ON projects.id = keys.project_id"
    " JOIN service_accounts ON service_accounts.id = keys.service_account_id"
)
_COLUMNS: Final = (
    "keys.id, keys.project_id, keys.name, keys.scope, keys.created_at, keys.expires_at,"
    " keys.revoked_at, keys.last_used_at, keys.service_account_id, projects.name AS project_name,"
    " projects.archived_at AS project_archived_at, service_accounts.name AS account_name,"
    " service_accounts.role AS account_role, service_accounts.created_at AS account_created_at,"
    " (SELECT value_hint FROM key_values WHERE key_values.key_id = keys.id"
    " ORDER BY CASE WHEN ends_at IS NULL THEN 0 ELSE 1 END, created_at DESC LIMIT 1) AS value_hint"
)


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key just made: the only moment at which its value is known."""

    id: str
    value: str
    project_id: str


def create_key(
    change: Change,
    *,
    project_id: str,
    account_id: str,
    key_id: str,
    name: str,
    value: str,
    scope: str = ALL,
    expires_at: int | None = None,
) -> Script[NewKey | None]:
    """Make a key of a service account; None: the project has no such account."""
    if (yield from get_service_account(project_id=project_id, account_id=account_id)) is None:
        return None
    yield Sql(
        "INSERT INTO keys (id, project_id, service_account_id, name, scope, created_at, expires_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        (key_id, project_id, account_id, name, scope, change.now, expires_at),
    )
    yield _insert_value(key_id, value, now=change.now)
    yield from write_line(
        change,
        "api_key.created",
        resource="api_key",
        resource_id=key_id,
        project_id=project_id,
        after={"name": name, "scope": scope, "expires_at": expires_at},
    )
    return NewKey(id=key_id, value=value, project_id=project_id)


def rotate_key(
    change: Change, *, key_id: str, value: str, grace_seconds: int
) -> Script[NewKey | None]:
    """Give a key another value; those it had end after the grace. None: no key to rotate.

    The key stays the same: budget, spend, limits and videos are untouched.
    """
    found = yield from get_key(key_id=key_id)
    if found is None or found["revoked_at"] is not None:
        return None
    yield Sql(
        "UPDATE key_values SET ends_at = $2 WHERE key_id = $1 AND value_sha256 <> $3"
        " AND (ends_at IS NULL OR ends_at > $2)",
        (key_id, change.now + grace_seconds, digest(value)),
    )
    yield _insert_value(key_id, value, now=change.now)
    yield from write_line(
        change,
        "api_key.updated",
        resource="api_key",
        resource_id=key_id,
        project_id=found["project_id"],
        before={"value": redacted(VIRTUAL, found["value_hint"])},
        after={"value": redacted(VIRTUAL, value[-4:]), "grace_seconds": grace_seconds},
    )
    return NewKey(id=key_id, value=value, project_id=found["project_id"])


def get_key(*, key_id: str, project_id: str | None = None) -> Script[Row | None]:
    """Return a key without its value, of any project or of this one; None: there is none.

    Columns: those of keys, value_hint, project_name, project_archived_at, account_name,
    account_role, account_created_at.
    """
    rows = yield Sql(
        f"SELECT {_COLUMNS} FROM keys{OWNERS} WHERE keys.id = $1"
        " AND (CAST($2 AS TEXT) IS NULL OR keys.project_id = $2)",
        (key_id, project_id),
    )
    return rows[0] if rows else None


def list_keys(
    cursor: Cursor, *, project_id: str | None = None, with_access: bool | None = None
) -> Script[Page]:
    """Return a page of keys (columns as get_key), those of one project without the revoked ones.

    Args:
        cursor: which page.
        project_id: None lists the keys of all projects, revoked ones too.
        with_access: only keys whose service account has (or has not) a role.
    """
    where, args = "true", ()  # type: tuple[str, tuple[str, ...]]
    if project_id is not None:
        where, args = "keys.project_id = $1 AND keys.revoked_at IS NULL", (project_id,)
    if with_access is not None:
        where += f" AND service_accounts.role {'<>' if with_access else '='} 'none'"
    listed = Listed(columns=_COLUMNS, source=f"keys{OWNERS}", table="keys", where=where, args=args)
    return (yield from read_page(listed, cursor))


def update_key(
    change: Change,
    *,
    project_id: str,
    key_id: str,
    scope: str | None,
    expires_at: int | None,
) -> Script[Row | None]:
    """Change what is not None; return the key, None: the project has no such key."""
    before = yield from get_key(key_id=key_id, project_id=project_id)
    if before is None or before["revoked_at"] is not None:
        return None
    after = {
        "scope": before["scope"] if scope is None else scope,
        "expires_at": before["expires_at"] if expires_at is None else expires_at,
    }
    yield Sql(
        "UPDATE keys SET scope = $2, expires_at = $3 WHERE id = $1",
        (key_id, after["scope"], after["expires_at"]),
    )
    yield from write_line(
        change,
        "api_key.updated",
        resource="api_key",
        resource_id=key_id,
        project_id=project_id,
        before={"scope": before["scope"], "expires_at": before["expires_at"]},
        after=after,
    )
    return (yield from get_key(key_id=key_id))


def revoke_key(change: Change, *, key_id: str, project_id: str | None = None) -> Script[bool]:
    """End a key for good; tell whether there is such a key. What is in flight still settles."""
    found = yield from get_key(key_id=key_id, project_id=project_id)
    if found is None:
        return False
    if found["revoked_at"] is None:
        yield Sql("UPDATE keys SET revoked_at = $2 WHERE id = $1", (key_id, change.now))
        yield from write_line(
            change,
            "api_key.deleted",
            resource="api_key",
            resource_id=key_id,
            project_id=found["project_id"],
            before={"name": found["name"]},
        )
    return True


def _insert_value(key_id: str, value: str, *, now: int) -> Sql:
    return Sql(
        "INSERT INTO key_values (value_sha256, key_id, value_hint, created_at)"
        " VALUES ($1, $2, $3, $4) ON CONFLICT DO NOTHING",
        (digest(value), key_id, value[-4:], now),
    )
