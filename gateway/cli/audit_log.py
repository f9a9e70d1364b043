"""`video-gateway audit-log`: who changed what, and when?"""

import json
from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.billing.audit_log import Asked, list_lines
from gateway.billing.balances import PROJECT
from gateway.cli.common import (
    LIST_ROWS,
    database_command,
    read_script,
    read_settings,
    show,
    when,
)
from gateway.cli.levels import existing_level
from gateway.db.paging import Cursor, Page
from gateway.db.script import Row, Script


@click.group("audit-log")
def audit_log() -> None:
    """The audit log: every change of who may spend how much."""


@audit_log.command("list")
@click.option("--limit", default=50, show_default=True, type=click.IntRange(min=1, max=LIST_ROWS))
@click.option("--project", help="Only changes of the project with this id or name.")
@database_command
def list_(
    *,
    limit: int,
    project: str | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """List changes, the newest first: by admin keys, by commands, by the settings."""
    settings = read_settings(config, database_url=database_url)
    page = read_script(settings, partial(_list, project, Cursor(limit=limit)))
    rows = [_facts(row, as_json=as_json) for row in page.rows]
    columns = ("effective_at", "type", "actor", "project", "resource_id", "change")
    show(rows, columns=columns, as_json=as_json, empty="Nothing was changed yet.")


def _list(project: str | None, cursor: Cursor) -> Script[Page]:
    ids: tuple[str, ...] = ()
    if project is not None:
        level = yield from existing_level(PROJECT, project)
        ids = (level.id,)
    return (yield from list_lines(Asked(project_ids=ids), cursor))


def _facts(row: Row, *, as_json: bool) -> dict[str, Any]:
    before = None if row["facts_before"] is None else json.loads(row["facts_before"])
    after = None if row["facts_after"] is None else json.loads(row["facts_after"])
    facts = {
        "effective_at": when(row["effective_at"], as_json=as_json),
        "type": row["type"],
        "project": row["project_name"],
        "resource_id": row["resource_id"],
    }
    if not as_json:
        actor = f"{row['actor_kind']} {row['actor_id']}"
        return {**facts, "actor": actor, "change": _change(before or {}, after or {})}
    return {
        "id": row["id"],
        **facts,
        "project_id": row["project_id"],
        "resource": row["resource"],
        "actor_kind": row["actor_kind"],
        "actor_id": row["actor_id"],
        "request_id": row["request_id"],
        "before": before,
        "after": after,
    }


def _change(before: dict[str, Any], after: dict[str, Any]) -> str:
    return ", ".join(
        f"{name}: {_text(before.get(name))} → {_text(after.get(name))}"
        for name in {**before, **after}
        if before.get(name) != after.get(name)
    )


def _text(value: Any) -> str:
    return "none" if value is None else json.dumps(value, ensure_ascii=False)
