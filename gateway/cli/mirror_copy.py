"""`video-gateway mirror copy`: how does all content move to another store?

Exits with 0 if the other store has everything, 1 if something could not be copied, 2 on wrong usage
or settings. It may be stopped at any time and be run again: what is there is not copied again.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gateway.cli.assets import asset_facts
from gateway.cli.common import (
    EXIT_FAILED,
    LIST_ROWS,
    database_command,
    read_settings,
    show_facts,
    with_database,
)
from gateway.cli.progress import Bar, progress
from gateway.cli.stores import CONCURRENCY, open_at, rate_option
from gateway.clock import system_clock
from gateway.config import Settings
from gateway.db.database import Database
from gateway.errors import StoreUnavailable
from gateway.mirror.copy import Copied, Copying, Outcome
from gateway.mirror.copy import copy as copy_all
from gateway.mirror.kept import count_kept
from gateway.mirror.throttle import Throttle
from gateway.store.url import StoreUrlError, parse_store_url

_BAD: Final = (Outcome.DAMAGED, Outcome.FAILED)


@click.command("copy")
@click.argument("source", metavar="FROM")
@click.argument("target", metavar="TO")
@click.option(
    "--verify", "reread", is_flag=True, help="Also read again what is in TO already, all of it."
)
@rate_option
@database_command
def copy(
    *,
    source: str,
    target: str,
    reread: bool,
    bytes_per_second: int,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Copy all mirrored content from one store to another, such as file:data/content to s3://….

    What the database says is mirrored is copied and compared with its record on the way; nothing
    is deleted. Credentials are those of the settings.

    Exits with 1 if something could not be copied.
    """
    settings = read_settings(config, database_url=database_url)
    _insist_on_two(source, target)
    errand = _Errand(settings, source, target, bytes_per_second, reread=reread, as_json=as_json)
    summary = with_database(settings, partial(_run, errand))
    whole = summary.stopped is None and not any(summary.assets[bad] for bad in _BAD)
    show_facts(_facts(summary), text=_text(summary, target, whole=whole), as_json=as_json)
    if not whole:
        raise SystemExit(EXIT_FAILED)


def _insist_on_two(source: str, target: str) -> None:
    try:
        one, other = parse_store_url(source), parse_store_url(target)
    except StoreUrlError as error:
        raise click.UsageError(f"a store {error}") from error
    if isinstance(one, Path) and isinstance(other, Path):
        one, other = one.resolve(), other.resolve()
    if one == other:
        raise click.UsageError("FROM and TO are the same store")


@dataclass(frozen=True, slots=True)
class _Errand:
    """What is to be copied."""

    settings: Settings
    source: str
    target: str
    bytes_per_second: int
    reread: bool
    as_json: bool


@dataclass(slots=True)
class _Summary:
    """What was copied.

    Attributes:
        assets: by outcome.
        copied_bytes: what was copied just now.
        failed: up to LIST_ROWS of what could not be copied.
        stopped: why the rest was not looked at; None: there is no rest.
    """

    bar: Bar
    assets: Counter[Outcome] = field(default_factory=Counter)
    copied_bytes: int = 0
    failed: list[Copied] = field(default_factory=list)
    stopped: str | None = None

    def told(self, copied: Copied) -> None:
        """Take what became of one asset."""
        asset = copied.asset
        self.assets[copied.outcome] += 1
        self.bar.moved(items=1, size_bytes=asset.size_bytes)
        if copied.outcome is Outcome.COPIED:
            self.copied_bytes += asset.size_bytes
        if copied.outcome in _BAD:
            if len(self.failed) < LIST_ROWS:
                self.failed.append(copied)
            self.bar.say(
                f"{asset.video_id} {asset.variant} ({asset.upstream_id}) could not be copied:"
                f" {copied.found or copied.cause}"
            )


async def _run(errand: _Errand, database: Database) -> _Summary:
    amount = await database.read(partial(count_kept, project_id=None))
    async with (
        open_at(errand.source, errand.settings) as source,
        open_at(errand.target, errand.settings, make=True) as target,
    ):
        with progress(
            "copying", as_json=errand.as_json, items=amount.assets, size_bytes=amount.size_bytes
        ) as bar:
            summary = _Summary(bar)
            copying = Copying(
                database=database,
                source=source,
                target=target,
                reread_target=errand.reread,
                throttle=Throttle(errand.bytes_per_second, elapsed=system_clock().elapsed),
                concurrency=CONCURRENCY,
                told=summary.told,
            )
            try:
                await copy_all(copying)
            except StoreUnavailable as error:
                summary.stopped = str(error)
    return summary


def _facts(summary: _Summary) -> dict[str, Any]:
    return {
        **{outcome.value: summary.assets[outcome] for outcome in Outcome},
        "copied_bytes": summary.copied_bytes,
        "stopped": summary.stopped,
        "assets": [
            {
                **asset_facts(one.asset),
                "outcome": one.outcome.value,
                "found": one.found,
                "cause": one.cause,
            }
            for one in summary.failed
        ],
    }


def _text(summary: _Summary, target: str, *, whole: bool) -> str:
    assets = summary.assets
    text = (
        f"copied {assets[Outcome.COPIED]} assets, {summary.copied_bytes} bytes;"
        f" {assets[Outcome.THERE]} were there before; {assets[Outcome.DAMAGED]} are damaged in"
        f" FROM, {assets[Outcome.FAILED]} could not be copied"
    )
    if summary.stopped is not None:
        text += f"\nstopped, the rest was not looked at: {summary.stopped}"
    if assets[Outcome.DAMAGED]:
        text += "\n`mirror verify` has what is damaged fetched again: then copy once more"
    if whole:
        text += (
            "\nTo switch: stop the gateway, run this once more for what was mirrored meanwhile, and"
            f" start it with GATEWAY_STORE_URL='{target}'"
        )
    return text
