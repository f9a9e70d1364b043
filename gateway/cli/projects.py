"""`video-gateway projects`: make, list, rename and archive projects."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.billing.audit_log import Change
from gateway.billing.projects import (
    archive_project,
    create_project,
    find_project,
    list_projects,
    rename_project,
)
from gateway.cli.common import (
    a_change,
    database_command,
    fail,
    read_rows,
    read_script,
    read_settings,
    run_script,
    show,
    show_facts,
    when,
)
from gateway.cli.values import Text
from gateway.clock import system_clock
from gateway.db.script import Row, Script


@click.group()
def projects() -> None:
    """Projects: what keys and videos belong to."""


@projects.command("create")
@click.option("--name", type=Text(), required=True, help="Several projects may have one name.")
@database_command
def create(*, name: str, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Make a project."""
    settings = read_settings(config, database_url=database_url)
    clock = system_clock()
    made = run_script(
        settings,
        partial(create_project, a_change(clock), project_id=clock.new_id("proj"), name=name),
        make=True,
    )
    text = f"made the project {made['name']!r}: {made['id']}"
    show_facts(_facts(made, as_json=as_json), text=text, as_json=as_json)


@projects.command("list")
@click.option("--all", "include_archived", is_flag=True, help="Archived ones too.")
@database_command
def list_(
    *, include_archived: bool, config: Path | None, database_url: str | None, as_json: bool
) -> None:
    """List projects, the oldest first."""
    settings = read_settings(config, database_url=database_url)
    found = read_rows(settings, partial(list_projects, include_archived=include_archived))
    rows = [_facts(row, as_json=as_json) for row in found]
    columns = ("id", "name", "created_at", "archived_at")
    show(rows, columns=columns, as_json=as_json, empty="There are no projects yet.")


@projects.command("rename")
@click.argument("project")
@click.option("--name", type=Text(), required=True, help="Its new name.")
@database_command
def rename(
    *, project: str, name: str, config: Path | None, database_url: str | None, as_json: bool
) -> None:
    """Give PROJECT, an id or a name, another name. Its keys, spend and videos stay."""
    settings = read_settings(config, database_url=database_url)
    change = a_change(system_clock())
    renamed = run_script(settings, partial(_rename, change, project, name=name))
    text = f"renamed {renamed['id']} to {name!r}"
    show_facts(_facts(renamed, as_json=as_json), text=text, as_json=as_json)


def _rename(change: Change, named: str, *, name: str) -> Script[Row]:
    found = yield from _existing(named)
    renamed = yield from rename_project(change, project_id=found["id"], name=name)
    return renamed or found


@projects.command("archive")
@click.argument("project")
@click.option("--yes", is_flag=True, help="Do not ask.")
@database_command
def archive(
    *, project: str, yes: bool, config: Path | None, database_url: str | None, as_json: bool
) -> None:
    """End PROJECT, an id or a name, for good, and all its keys. What is in flight still settles."""
    if as_json and not yes:
        raise click.UsageError("--json asks nothing: say --yes, too")
    settings = read_settings(config, database_url=database_url)
    found = read_script(settings, partial(_existing, project))
    question = f"End the project {found['name']!r} ({found['id']}) and all its keys, for good?"
    if not yes and not click.confirm(question, err=True):
        raise fail("nothing was changed")
    change = a_change(system_clock())
    archived = run_script(settings, partial(archive_project, change, project_id=found["id"]))
    facts = _facts(archived or found, as_json=as_json)
    show_facts(facts, text=f"archived {found['id']}", as_json=as_json)


def _existing(named: str) -> Script[Row]:
    found = yield from find_project(named)
    if found is None:
        raise fail(f"there is no project {named!r}; `projects list` shows them")
    return found


def _facts(row: Row, *, as_json: bool) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "created_at": when(row["created_at"], as_json=as_json),
        "archived_at": when(row["archived_at"], as_json=as_json),
    }
