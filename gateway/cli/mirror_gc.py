"""`video-gateway mirror gc`: what does the store have that no record wants?"""

from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gateway.cli.common import (
    database_command,
    fail,
    read_settings,
    show_facts,
    with_database,
)
from gateway.cli.stores import open_at, store_option
from gateway.clock import system_clock
from gateway.config import Settings
from gateway.db.database import Database
from gateway.mirror.gc import REASONS, Found, collect

_WORDS: Final = {
    "unknown": "without a record",
    "removed": "removed before",
    "absent": "that the upstream said it had not",
    "gone": "that was taken for lost",
}


@click.command("gc")
@click.option("--dry-run", is_flag=True, help="Only say what there is.")
@store_option
@database_command
def gc(
    *,
    dry_run: bool,
    store_url: str | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Delete what no record wants and is older than a day from the store."""
    settings = read_settings(config, database_url=database_url, store_url=store_url)
    found = with_database(settings, partial(_collect, settings, dry_run=dry_run))
    strays, size_bytes = found.strays.total(), found.stray_bytes.total()
    facts: dict[str, Any] = {
        "dry_run": dry_run,
        "looked_at": found.looked_at,
        "strays": strays,
        "stray_bytes": size_bytes,
        "by_reason": {reason: found.strays[reason] for reason in REASONS},
        "young": found.young,
    }
    show_facts(facts, text="\n".join(_lines(found, dry_run=dry_run)), as_json=as_json)


async def _collect(settings: Settings, database: Database, *, dry_run: bool) -> Found:
    now = system_clock().now()
    async with open_at(settings.store_url, settings) as store:
        found = await collect(database, store, delete=(), now=now)
        if dry_run:
            return found
        # The store of another gateway, or the wrong database: everything would be a stray.
        if found.strays and not found.known:
            raise fail(
                f"this database knows none of the {found.looked_at} objects in the store: is it the"
                " right one? Nothing was deleted; `mirror gc --dry-run` shows what there is"
            )
        return await collect(database, store, delete=REASONS, now=now)


def _lines(found: Found, *, dry_run: bool) -> list[str]:
    verb = "would delete" if dry_run else "deleted"
    strays, size_bytes = found.strays.total(), found.stray_bytes.total()
    lines = [f"{verb} {strays} of {found.looked_at} objects, {size_bytes} bytes"]
    lines += [
        f"  {found.strays[reason]} {_WORDS[reason]}, {found.stray_bytes[reason]} bytes"
        for reason in REASONS
        if found.strays[reason]
    ]
    if found.young:
        lines.append(f"left {found.young} that are not a day old")
    return lines
