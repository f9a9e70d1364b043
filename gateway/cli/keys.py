"""`video-gateway keys`: make, list and revoke virtual keys."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.billing.budgets import KEY, PERIODS, set_budget
from gateway.billing.keys import (
    VIRTUAL,
    NewKey,
    ProjectArchived,
    create_key,
    list_keys,
    new_value,
    revoke_key,
)
from gateway.billing.money import format_usd
from gateway.cli.common import (
    Usd,
    database_command,
    fail,
    moment,
    read_settings,
    run_script,
    show,
    show_json,
)
from gateway.clock import system_clock
from gateway.db.script import Script


@click.group()
def keys() -> None:
    """Virtual keys: what callers use instead of the upstream key."""


@keys.command("create")
@click.option("--project", required=True, help="Its project; made if there is none of that name.")
@click.option("--name", required=True, help="What the key is for.")
@click.option("--budget", type=Usd(), help="A limit for this key, in US dollars.")
@click.option("--period", type=click.Choice(PERIODS), default="month", show_default=True)
@database_command
def create(
    *,
    project: str,
    name: str,
    budget: int | None,
    period: str,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Make a key. Its value is shown once, now, and is stored nowhere."""
    if not project.strip() or not name.strip():
        raise click.UsageError("--project and --name must not be blank")
    settings = read_settings(config, database_url=database_url)
    clock = system_clock()
    script = partial(
        _create,
        project=project,
        name=name,
        value=new_value(VIRTUAL),
        budget_micros=budget,
        period=period,
        key_id=clock.new_id("key"),
        project_id=clock.new_id("proj"),
        now=clock.now(),
    )
    try:
        made = run_script(settings, script, make=True)
    except ProjectArchived as error:
        raise fail(f"the project {project!r} is archived") from error
    facts: dict[str, Any] = {
        "id": made.id,
        "value": made.value,
        "name": name,
        "project": project,
        "project_id": made.project_id,
        "budget_usd": None if budget is None else format_usd(budget),
        "period": None if budget is None else period,
    }
    if as_json:
        show_json(facts)
        return
    for label, text in facts.items():
        if text is not None:
            click.echo(f"{label:<11} {text}")
    click.echo("\nThe value is not stored and cannot be shown again.")


def _create(
    *,
    project: str,
    name: str,
    value: str,
    budget_micros: int | None,
    period: str,
    key_id: str,
    project_id: str,
    now: int,
) -> Script[NewKey]:
    made = yield from create_key(
        project_name=project,
        name=name,
        value=value,
        key_id=key_id,
        project_id=project_id,
        now=now,
    )
    if budget_micros is not None:
        yield from set_budget(
            level=KEY, level_id=made.id, period=period, limit_micros=budget_micros, now=now
        )
    return made


@keys.command("list")
@database_command
def list_(*, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """List all keys, without their values."""
    settings = read_settings(config, database_url=database_url)
    rows = [
        {
            "id": row["id"],
            "project": row["project"],
            "name": row["name"],
            "value": f"{VIRTUAL}_…{row['value_hint']}",
            "created_at": row["created_at"] if as_json else moment(row["created_at"]),
            "revoked_at": row["revoked_at"] if as_json else moment(row["revoked_at"]),
        }
        for row in run_script(settings, list_keys)
    ]
    columns = ("id", "project", "name", "value", "created_at", "revoked_at")
    show(rows, columns=columns, as_json=as_json, empty="There are no keys yet.")


@keys.command("revoke")
@click.argument("key_id")
@database_command
def revoke(*, key_id: str, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """End a key for good. What it has in flight still settles."""
    settings = read_settings(config, database_url=database_url)
    now = system_clock().now()
    if not run_script(settings, partial(revoke_key, key_id=key_id, now=now)):
        raise fail("there is no key with that id; `keys list` shows the ids, key_…")
    if as_json:
        show_json({"id": key_id, "revoked": True})
    else:
        click.echo(f"revoked {key_id}")
