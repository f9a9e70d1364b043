"""`video-gateway keys`: make, list, rotate and revoke virtual keys."""

from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gateway.billing.audit_log import Change
from gateway.billing.balances import KEY, PERIODS, PROJECT, Level
from gateway.billing.budgets import set_budget
from gateway.billing.key_values import VIRTUAL, new_value, redacted
from gateway.billing.keys import NewKey, list_keys, revoke_key, rotate_key
from gateway.billing.levels import make_key
from gateway.billing.money import format_usd
from gateway.cli.common import (
    a_change,
    database_command,
    fail,
    moment,
    read_rows,
    read_script,
    read_settings,
    run_script,
    show,
    show_facts,
    show_json,
    when,
)
from gateway.cli.levels import existing_level
from gateway.cli.values import MAX_EXPIRES_IN_SECONDS, Text, Usd
from gateway.clock import system_clock
from gateway.db.script import Script

MAX_GRACE_SECONDS: Final = 90 * 86_400
_NOT_AGAIN: Final = "The value is not stored and cannot be shown again."


@click.group()
def keys() -> None:
    """Virtual keys: what callers use instead of the upstream key."""


@keys.command("create")
@click.option(
    "--project",
    type=Text(),
    required=True,
    help="Its project, by id or name; made if there is none of that name.",
)
@click.option("--name", type=Text(), required=True, help="What the key is for.")
@click.option(
    "--expires-in-seconds",
    type=click.IntRange(min=1, max=MAX_EXPIRES_IN_SECONDS),
    help="After which it ends; never, if left out.",
)
@click.option("--budget", type=Usd(), help="A limit for this key, in US dollars.")
@click.option("--period", type=click.Choice(PERIODS), default="month", show_default=True)
@database_command
def create(
    *,
    project: str,
    name: str,
    expires_in_seconds: int | None,
    budget: int | None,
    period: str,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Make a key. Its value is shown once, now, and is stored nowhere."""
    settings = read_settings(config, database_url=database_url)
    clock = system_clock()
    change = a_change(clock)
    expires_at = None if expires_in_seconds is None else change.now + expires_in_seconds
    new_project_id = clock.new_id("proj")
    make = partial(
        make_key,
        change,
        project=project,
        name=name,
        value=new_value(VIRTUAL),
        key_id=clock.new_id("key"),
        account_id=clock.new_id("svc_acct"),
        project_id=new_project_id,
        expires_at=expires_at,
    )
    made = run_script(
        settings,
        lambda: _with_budget(change, make(), period=period, limit_micros=budget),
        make=True,
    )
    if made.project_id == new_project_id:
        click.echo(f"a new project: {project}", err=True)
    facts: dict[str, Any] = {
        "id": made.id,
        "value": made.value,
        "name": name,
        "project": project,
        "project_id": made.project_id,
        "expires_at": when(expires_at, as_json=as_json),
        "budget_usd": None if budget is None else format_usd(budget),
        "period": None if budget is None else period,
    }
    if as_json:
        show_json(facts)
        return
    for label, text in facts.items():
        if text is not None:
            click.echo(f"{label:<11} {text}")
    click.echo(f"\n{_NOT_AGAIN}")


def _with_budget(
    change: Change, making: Script[NewKey], *, period: str, limit_micros: int | None
) -> Script[NewKey]:
    made = yield from making
    if limit_micros is not None:
        level = Level(KEY, made.id, made.project_id)
        # The parts before are the lines of the service account and of the key.
        yield from set_budget(change.part(3), level, period=period, limit_micros=limit_micros)
    return made


@keys.command("list")
@click.option("--project", help="Only those of the project with this id or name that still work.")
@database_command
def list_(
    *, project: str | None, config: Path | None, database_url: str | None, as_json: bool
) -> None:
    """List keys, the oldest first, without their values; revoked ones too if of all projects."""
    settings = read_settings(config, database_url=database_url)
    project_id = None
    if project is not None:
        project_id = read_script(settings, partial(existing_level, PROJECT, project)).id
    rows = [
        {
            "id": row["id"],
            "project": row["project_name"],
            "project_id": row["project_id"],
            "name": row["name"],
            "value": redacted(VIRTUAL, row["value_hint"]),
            "scope": row["scope"],
            "created_at": when(row["created_at"], as_json=as_json),
            "last_used_at": when(row["last_used_at"], as_json=as_json),
            "expires_at": when(row["expires_at"], as_json=as_json),
            "revoked_at": when(row["revoked_at"], as_json=as_json),
        }
        for row in read_rows(settings, partial(list_keys, project_id=project_id))
    ]
    columns = (
        *("id", "project", "name", "value", "scope"),
        *("created_at", "last_used_at", "expires_at", "revoked_at"),
    )
    show(rows, columns=columns, as_json=as_json, empty="There are no keys yet.")


@keys.command("rotate")
@click.argument("key_id")
@click.option(
    "--grace-seconds",
    type=click.IntRange(min=0, max=MAX_GRACE_SECONDS),
    default=0,
    show_default=True,
    help="How much longer the values it had may be used.",
)
@database_command
def rotate(
    *,
    key_id: str,
    grace_seconds: int,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Give a key another value, shown once. Its budget, spend, limits and videos stay."""
    settings = read_settings(config, database_url=database_url)
    change = a_change(system_clock())
    value = new_value(VIRTUAL)
    made = run_script(
        settings,
        partial(rotate_key, change, key_id=key_id, value=value, grace_seconds=grace_seconds),
    )
    if made is None:
        raise fail("there is no such key in force; `keys list` shows the ids and which are revoked")
    ends_at = change.now + grace_seconds
    ends = f"end at {moment(ends_at)} UTC" if grace_seconds else "have ended"
    show_facts(
        {"id": made.id, "value": made.value, "old_values_end_at": ends_at},
        text=f"id          {made.id}\nvalue       {made.value}\n\n{_NOT_AGAIN}"
        f" The values it had before {ends}.",
        as_json=as_json,
    )


@keys.command("revoke")
@click.argument("key_id")
@database_command
def revoke(*, key_id: str, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """End a key for good. What it has in flight still settles."""
    settings = read_settings(config, database_url=database_url)
    change = a_change(system_clock())
    if not run_script(settings, partial(revoke_key, change, key_id=key_id)):
        raise fail("there is no key with that id; `keys list` shows the ids, key_…")
    show_facts({"id": key_id, "revoked": True}, text=f"revoked {key_id}", as_json=as_json)
