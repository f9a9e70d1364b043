"""`video-gateway mirror status`: how much content is kept, waits, or was lost?"""

from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.cli.common import (
    database_command,
    moment,
    read_script,
    read_settings,
    show,
    show_json,
)
from gateway.clock import system_clock
from gateway.db.script import Row
from gateway.mirror.status import STATES, Status, read_status


@click.command("status")
@database_command
def status(*, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Show counts and bytes by state and project, what waits longest, and why."""
    settings = read_settings(config, database_url=database_url)
    now = system_clock().now()
    found = read_script(settings, partial(read_status, now=now))
    if as_json:
        show_json(_facts(found, now=now))
    else:
        _show(found, now=now)


def _facts(found: Status, *, now: int) -> dict[str, Any]:
    return {
        "states": _states(found),
        "oldest_unmirrored": [_waiting(row, now=now) for row in found.oldest],
        "next_expiry": found.next_expiry and _waiting(found.next_expiry, now=now),
        "failures": _failures(found),
        "projects": _projects(found),
        "verified_longest_ago_at": found.verified_at,
    }


def _show(found: Status, *, now: int) -> None:
    show(_states(found), columns=("state", "assets", "size_bytes"), as_json=False, empty="")
    _section("waiting longest", [_waiting(row, now=now) for row in found.oldest])
    if found.next_expiry:
        _section("expires first at the upstream", [_waiting(found.next_expiry, now=now)])
    _section("not mirrored, because", _failures(found))
    _section("largest projects", _projects(found))
    if found.verified_at is not None:
        click.echo(f"\nall that is kept was verified after {moment(found.verified_at)}")


def _section(title: str, rows: list[dict[str, Any]]) -> None:
    if rows:
        click.echo(f"\n{title}:")
        show(rows, columns=tuple(rows[0]), as_json=False, empty="")


def _states(found: Status) -> list[dict[str, Any]]:
    return [
        {"state": state, "assets": found.assets[state], "size_bytes": found.size_bytes[state]}
        for state in STATES
    ]


def _waiting(row: Row, *, now: int) -> dict[str, Any]:
    return {
        "video": row["video_id"],
        "upstream_id": row["upstream_id"],
        "project_id": row["project_id"],
        "project": row["project"],
        "variant": row["variant"],
        "age_seconds": now - row["waiting_since"],
        "expires_in_minutes": (row["expires_at"] - now) // 60,
        "attempts": row["attempts"],
        "failure": row["failure"],
    }


def _failures(found: Status) -> list[dict[str, Any]]:
    return [
        {"state": state, "failure": failure, "assets": assets}
        for (state, failure), assets in found.failures.most_common()
    ]


def _projects(found: Status) -> list[dict[str, Any]]:
    return [
        {
            "project_id": row["project_id"],
            "project": row["project"],
            "assets": row["assets"],
            "size_bytes": row["size_bytes"],
        }
        for row in found.projects
    ]
