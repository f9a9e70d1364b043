"""`video-gateway mirror verify`: does the store still have what was mirrored?

Exits with 0 if all that was read again is right, 1 if something is damaged or could not be read, 2
on wrong usage or settings. It may be stopped at any time: what was verified is not read again by
the next run, because it was verified last.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gateway.cli.assets import asset_facts, id_of_project
from gateway.cli.common import (
    EXIT_FAILED,
    LIST_ROWS,
    database_command,
    fail,
    read_settings,
    show_facts,
    with_database,
)
from gateway.cli.progress import Bar, progress
from gateway.cli.stores import CONCURRENCY, open_at, rate_option, store_option
from gateway.clock import system_clock
from gateway.config import Settings
from gateway.db.database import Database
from gateway.errors import StoreUnavailable
from gateway.mirror.kept import count_to_verify
from gateway.mirror.throttle import Throttle
from gateway.mirror.verify import (
    Verdict,
    Verified,
    Verifying,
    WrongStore,
    look_for_lost,
    verify,
)

DAY_SECONDS: Final = 86_400
_WORDS: Final = {
    Verdict.DAMAGED: "damaged, and fetched again while the upstream has it",
    Verdict.LOST: "damaged, and the upstream's copy has gone: it is lost",
    Verdict.FOUND_AGAIN: "was lost, and is in the store again",
    Verdict.NOT_CHECKED: "could not be read",
}
_CHECKED: Final = (Verdict.RIGHT, Verdict.DAMAGED, Verdict.LOST)
_BAD: Final = (Verdict.DAMAGED, Verdict.LOST, Verdict.NOT_CHECKED)


@click.command("verify")
@click.option("--project", help="Only of the project with this id or name.")
@click.option(
    "--older-than-days",
    "days",
    type=click.IntRange(min=0),
    default=0,
    help="Only what was not verified within so many days.",
)
@click.option("--limit", type=click.IntRange(min=1), help="At most so many assets.")
@rate_option
@store_option
@database_command
def verify_(
    *,
    project: str | None,
    days: int,
    limit: int | None,
    bytes_per_second: int,
    store_url: str | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Read mirrored content again, that verified longest ago first, and compare its SHA-256.

    What is damaged is served no more, and a gateway that runs fetches it again while the upstream
    has it. What was lost before and is in the store again is served again.

    Exits with 1 if something is damaged or could not be read.
    """
    settings = read_settings(config, database_url=database_url, store_url=store_url)
    errand = _Errand(settings, project, days, limit, bytes_per_second, as_json=as_json)
    summary = with_database(settings, partial(_run, errand))
    show_facts(_facts(summary), text=_text(summary), as_json=as_json)
    if summary.stopped is not None or any(summary.assets[bad] for bad in _BAD):
        raise SystemExit(EXIT_FAILED)


@dataclass(frozen=True, slots=True)
class _Errand:
    """What is to be verified."""

    settings: Settings
    project: str | None
    days: int
    limit: int | None
    bytes_per_second: int
    as_json: bool


@dataclass(slots=True)
class _Summary:
    """What was found out.

    Attributes:
        assets: by verdict.
        size_bytes: of what was checked.
        not_right: up to LIST_ROWS of what is not as it should be.
        stopped: why the rest was not looked at; None: there is no rest.
    """

    bar: Bar
    assets: Counter[Verdict] = field(default_factory=Counter)
    size_bytes: int = 0
    not_right: list[Verified] = field(default_factory=list)
    stopped: str | None = None

    def told(self, verified: Verified) -> None:
        """Take what was found out about one asset."""
        asset, verdict = verified.asset, verified.verdict
        self.assets[verdict] += 1
        if verdict is not Verdict.FOUND_AGAIN:
            self.bar.moved(items=1, size_bytes=asset.size_bytes)
        if verdict in _CHECKED:
            self.size_bytes += asset.size_bytes
        if verdict in _WORDS:
            if len(self.not_right) < LIST_ROWS:
                self.not_right.append(verified)
            about = f"{asset.video_id} {asset.variant} ({asset.upstream_id})"
            why = verified.cause or verified.found
            self.bar.say(f"{about}: {_WORDS[verdict]}{f': {why}' if why else ''}")


async def _run(errand: _Errand, database: Database) -> _Summary:
    settings, clock = errand.settings, system_clock()
    named = errand.project
    project_id = None if named is None else await id_of_project(named, database)
    before = clock.now() - errand.days * DAY_SECONDS
    amount = await database.read(partial(count_to_verify, before=before, project_id=project_id))
    items = amount.assets if errand.limit is None else min(amount.assets, errand.limit)
    size_bytes = amount.size_bytes if errand.limit is None else None
    async with open_at(settings.store_url, settings) as store:
        with progress(
            "verifying", as_json=errand.as_json, items=items, size_bytes=size_bytes
        ) as bar:
            summary = _Summary(bar)
            verifying = Verifying(
                database=database,
                store=store,
                clock=clock,
                throttle=Throttle(errand.bytes_per_second, elapsed=clock.elapsed),
                concurrency=CONCURRENCY,
                told=summary.told,
            )
            try:
                await verify(verifying, before=before, project_id=project_id, limit=errand.limit)
                if errand.limit is None:
                    await look_for_lost(verifying, project_id=project_id)
            except StoreUnavailable as error:
                summary.stopped = str(error)
            except WrongStore as error:
                raise fail(
                    f"{settings.store_url} has nothing of what the database says was mirrored: is"
                    " it the right store? Nothing was changed"
                ) from error
    return summary


def _facts(summary: _Summary) -> dict[str, Any]:
    return {
        "checked": sum(summary.assets[verdict] for verdict in _CHECKED),
        "size_bytes": summary.size_bytes,
        **{verdict.value: summary.assets[verdict] for verdict in Verdict},
        "stopped": summary.stopped,
        "assets": [
            {
                **asset_facts(one.asset),
                "project_id": one.asset.project_id,
                "verdict": one.verdict.value,
                "found": one.found,
                "cause": one.cause,
            }
            for one in summary.not_right
        ],
    }


def _text(summary: _Summary) -> str:
    assets = summary.assets
    right, damaged, lost = (assets[verdict] for verdict in _CHECKED)
    text = (
        f"checked {right + damaged + lost} assets, {summary.size_bytes} bytes: {right} right,"
        f" {damaged} damaged and to be fetched again, {lost} damaged and lost;"
        f" {assets[Verdict.NOT_CHECKED]} could not be read"
    )
    if assets[Verdict.FOUND_AGAIN]:
        text += f"\nfound again {assets[Verdict.FOUND_AGAIN]} that were lost"
    if summary.stopped is not None:
        text += f"\nstopped, the rest was not looked at: {summary.stopped}"
    return text
