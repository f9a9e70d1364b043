"""Who is asking, and may they? Scripts only.

A key may be used while it is not revoked and not expired, its service account has a role and was
not deleted, and its project is not archived.
"""

import hmac
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.billing.keys import OWNERS
from gateway.db.script import Script, Sql

_USABLE: Final = (
    "keys.revoked_at IS NULL AND (keys.expires_at IS NULL OR keys.expires_at > $2)"
    " AND projects.archived_at IS NULL AND service_accounts.deleted_at IS NULL"
    " AND service_accounts.role <> 'none'"
)


@dataclass(frozen=True, slots=True)
class Key:
    """A virtual key that may be used now.

    Attributes:
        scope: ALL, or READ for a key that buys nothing.
        ends_at: Unix seconds from which this value may be used no more, None: no end is known.
        reads_per_minute: the limits of the project and of the key, None where there is none.
    """

    id: str
    value_sha256: str
    project_id: str
    project_name: str
    scope: str
    ends_at: int | None
    project_reads_per_minute: int | None
    reads_per_minute: int | None


def find_key(value_sha256: str, *, now: int) -> Script[Key | None]:
    """Return the key that a digest belongs to, if it may be used now."""
    rows = yield Sql(
        "SELECT keys.id, keys.project_id, projects.name AS project_name, keys.scope,"
        " keys.expires_at, key_values.ends_at, key_values.value_sha256,"
        " (SELECT reads_per_minute FROM limits WHERE level = 'project'"
        " AND level_id = keys.project_id AND model = '') AS project_reads_per_minute,"
        " (SELECT reads_per_minute FROM limits WHERE level = 'key'"
        " AND level_id = keys.id AND model = '') AS reads_per_minute"
        f" FROM key_values JOIN keys ON keys.id = key_values.key_id{OWNERS}"
        f" WHERE key_values.value_sha256 = $1 AND {_USABLE}"
        " AND (key_values.ends_at IS NULL OR key_values.ends_at > $2)",
        (value_sha256, now),
    )
    for row in rows:
        if hmac.compare_digest(row["value_sha256"], value_sha256):
            ends = [row[name] for name in ("expires_at", "ends_at") if row[name] is not None]
            return Key(
                id=row["id"],
                value_sha256=value_sha256,
                project_id=row["project_id"],
                project_name=row["project_name"],
                scope=row["scope"],
                ends_at=min(ends, default=None),
                project_reads_per_minute=row["project_reads_per_minute"],
                reads_per_minute=row["reads_per_minute"],
            )
    return None


def usable(*, key_id: str, now: int, value_sha256: str | None = None) -> Script[bool]:
    """Tell whether a key may buy at this very moment: money never rests on a cache.

    With the value that it was found by, if any: one that a rotation ended buys nothing either.
    """
    rows = yield Sql(
        f"SELECT 1 AS usable FROM keys{OWNERS}"
        f" WHERE keys.id = $1 AND keys.scope = 'all' AND {_USABLE} AND (CAST($3 AS TEXT) IS NULL"
        " OR EXISTS (SELECT 1 FROM key_values WHERE value_sha256 = $3 AND key_id = $1"
        " AND (ends_at IS NULL OR ends_at > $2)))",
        (key_id, now, value_sha256),
    )
    return bool(rows)


def write_used(used: Mapping[str, int]) -> Script[None]:
    """Write down when keys were last used: Unix seconds by key id."""
    for key_id, moment in sorted(used.items()):
        yield Sql(
            "UPDATE keys SET last_used_at = $2"
            " WHERE id = $1 AND (last_used_at IS NULL OR last_used_at < $2)",
            (key_id, moment),
        )
