"""`video-gateway admin-keys`: make, list and revoke keys of the admin API."""

from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.billing.admin_keys import (
    FromSettings,
    create_admin_key,
    list_admin_keys,
    revoke_admin_key,
)
from gateway.billing.key_values import ADMIN, new_value, redacted
from gateway.cli.common import (
    a_change,
    database_command,
    fail,
    read_rows,
    read_settings,
    run_script,
    show,
    show_facts,
    when,
)
from gateway.cli.values import MAX_EXPIRES_IN_SECONDS, Text
from gateway.clock import system_clock
from gateway.db.script import Row


@click.group("admin-keys")
def admin_keys() -> None:
    """Admin keys: they open /v1/organization/… and nothing else."""


@admin_keys.command("generate")
def generate() -> None:
    """Print a fresh value for the setting `admin_key`. Nothing is stored."""
    click.echo(new_value(ADMIN))


@admin_keys.command("create")
@click.option("--name", type=Text(), required=True, help="Who or what uses it.")
@click.option(
    "--expires-in-seconds",
    type=click.IntRange(min=1, max=MAX_EXPIRES_IN_SECONDS),
    help="After which it ends; never, if left out.",
)
@database_command
def create(
    *,
    name: str,
    expires_in_seconds: int | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Make an admin key. Its value is shown once, now, and is stored nowhere."""
    settings = read_settings(config, database_url=database_url)
    clock = system_clock()
    change = a_change(clock)
    value = new_value(ADMIN)
    made = run_script(
        settings,
        partial(
            create_admin_key,
            change,
            key_id=clock.new_id("key"),
            name=name,
            value=value,
            expires_at=None if expires_in_seconds is None else change.now + expires_in_seconds,
        ),
    )
    facts = {**_facts(made, as_json=as_json), "value": value}
    text = (
        f"id          {made['id']}\nvalue       {value}\n\n"
        "The value is not stored and cannot be shown again."
    )
    show_facts(facts, text=text, as_json=as_json)


@admin_keys.command("list")
@database_command
def list_(*, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """List admin keys that were not revoked, the oldest first, without their values."""
    settings = read_settings(config, database_url=database_url)
    rows = [_facts(row, as_json=as_json) for row in read_rows(settings, list_admin_keys)]
    columns = ("id", "name", "value", "created_at", "last_used_at", "expires_at")
    show(rows, columns=columns, as_json=as_json, empty="There are no admin keys yet.")


@admin_keys.command("revoke")
@click.argument("key_id")
@database_command
def revoke(*, key_id: str, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """End an admin key for good."""
    settings = read_settings(config, database_url=database_url)
    change = a_change(system_clock())
    try:
        revoked = run_script(settings, partial(revoke_admin_key, change, key_id=key_id))
    except FromSettings as error:
        raise fail(
            f"{key_id} is the setting admin_key: take it out of the settings, or change it, and"
            " start `serve` again"
        ) from error
    if not revoked:
        raise fail("there is no admin key with that id; `admin-keys list` shows the ids, key_…")
    show_facts({"id": key_id, "revoked": True}, text=f"revoked {key_id}", as_json=as_json)


def _facts(row: Row, *, as_json: bool) -> dict[str, Any]:
    return {
        "id": row["id"],
        "name": row["name"],
        "value": redacted(ADMIN, row["value_hint"]),
        "from_settings": bool(row["from_settings"]),
        "created_at": when(row["created_at"], as_json=as_json),
        "last_used_at": when(row["last_used_at"], as_json=as_json),
        "expires_at": when(row["expires_at"], as_json=as_json),
    }
