"""Who changed what, and when? Append-only: nothing here updates or deletes a row.

Every change of who may spend how much is one script, and the line about it is written in the same
transaction: there is no change without its line and no line without its change. The types are
OpenAI's own event names; what stood before and after is ours.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final, TypeAlias

from gateway.db.paging import Cursor, Listed, Page, read_page
from gateway.db.script import CHANGED, Row, Script, Sql

ADMIN_KEY: Final = "admin_key"
COMMAND: Final = "command"
GATEWAY: Final = "gateway"

Facts: TypeAlias = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Change:
    """Somebody changes something, once: what every changing script is told.

    Attributes:
        id: of the line that it leaves in the audit log.
        now: Unix seconds.
        actor_kind: ADMIN_KEY, COMMAND (somebody at a shell) or GATEWAY (its own settings).
        actor_id: the admin key's id, or the user's name at that shell.
        request_id: of the API request it came with.
    """

    id: str
    now: int
    actor_kind: str
    actor_id: str
    request_id: str | None = None

    def part(self, number: int) -> "Change":
        """Return a part of this change, which leaves a line of its own."""
        return replace(self, id=f"{self.id}.{number}")


@dataclass(frozen=True, slots=True)
class Asked:
    """Which lines of the audit log are asked for; empty: all.

    Attributes:
        since: at this Unix second or later.
        until: before this Unix second.
    """

    types: Sequence[str] = ()
    actor_ids: Sequence[str] = ()
    project_ids: Sequence[str] = ()
    resource_ids: Sequence[str] = ()
    since: int | None = None
    until: int | None = None


def write_line(
    change: Change,
    event: str,
    *,
    resource: str,
    resource_id: str,
    project_id: str | None = None,
    before: Facts | None = None,
    after: Facts | None = None,
) -> Script[None]:
    """Append the line about a change, and tell the other processes that there is one.

    The same change counts once, however often it runs.
    """
    yield Sql(
        "INSERT INTO audit_log (id, effective_at, type, actor_kind, actor_id, request_id,"
        " project_id, resource, resource_id, facts_before, facts_after)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) ON CONFLICT DO NOTHING",
        (
            change.id,
            change.now,
            event,
            change.actor_kind,
            change.actor_id,
            change.request_id,
            project_id,
            resource,
            resource_id,
            _json(before),
            _json(after),
        ),
    )
    yield CHANGED


def already_made(change: Change) -> Script[Row | None]:
    """Return the line of a change that was made before (resource_id, facts_after); None: it is new.

    A script whose COMMIT was not answered is run again whole. What ends something finds it ended
    then, by this very change: that is a success, and nothing is left to be done.
    """
    rows = yield Sql("SELECT resource_id, facts_after FROM audit_log WHERE id = $1", (change.id,))
    return rows[0] if rows else None


def list_lines(asked: Asked, cursor: Cursor) -> Script[Page]:
    """Return a page of the audit log: its columns, and project_name."""
    where, args = ["true"], []  # type: tuple[list[str], list[str | int | None]]
    for column, values in (
        ("type", asked.types),
        ("actor_id", asked.actor_ids),
        ("project_id", asked.project_ids),
        ("resource_id", asked.resource_ids),
    ):
        if values:
            marks = ", ".join(f"${len(args) + number}" for number in range(1, len(values) + 1))
            where.append(f"audit_log.{column} IN ({marks})")
            args += values
    for sign, moment in ((">=", asked.since), ("<", asked.until)):
        if moment is not None:
            args.append(moment)
            where.append(f"audit_log.effective_at {sign} ${len(args)}")
    listed = Listed(
        columns="audit_log.id, audit_log.effective_at, audit_log.type, audit_log.actor_kind,"
        " audit_log.actor_id, audit_log.request_id, audit_log.project_id, audit_log.resource,"
        " audit_log.resource_id, audit_log.facts_before, audit_log.facts_after,"
        " projects.name AS project_name",
        source="audit_log LEFT JOIN projects ON projects.id = audit_log.project_id",
        table="audit_log",
        where=" AND ".join(where),
        args=tuple(args),
        time_column="effective_at",
    )
    return (yield from read_page(listed, cursor))


def _json(facts: Facts | None) -> str | None:
    return None if facts is None else json.dumps(dict(facts), ensure_ascii=False, sort_keys=True)
