"""`video-gateway mirror export`: how does a project get all its content as files?

Exits with 0 if every file is there and right, 1 if one could not be exported, 2 on wrong usage or
settings. It may be stopped at any time and be run again: what is there is not written again.
"""

from collections import Counter
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

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
from gateway.mirror.export import Exported, Exporting, Outcome
from gateway.mirror.export import export as export_project
from gateway.mirror.export_folder import FolderFailed, open_folder
from gateway.mirror.kept import count_kept
from gateway.mirror.manifest import MANIFEST
from gateway.mirror.throttle import Throttle


@click.command("export")
@click.argument("project")
@click.argument("folder", metavar="DIR", type=click.Path(path_type=Path))
@rate_option
@store_option
@database_command
def export(
    *,
    project: str,
    folder: Path,
    bytes_per_second: int,
    store_url: str | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Write all mirrored content of PROJECT (an id or a name) into DIR, with a manifest.

    Every file is compared with its record before it gets its name; manifest.jsonl is written last.
    What is in DIR already and is right is not written again.

    Exits with 1 if something could not be exported.
    """
    settings = read_settings(config, database_url=database_url, store_url=store_url)
    errand = _Errand(settings, project, folder, bytes_per_second, as_json=as_json)
    summary = with_database(settings, partial(_run, errand))
    show_facts(_facts(summary, folder), text=_text(summary, folder), as_json=as_json)
    if summary.stopped is not None or summary.files[Outcome.FAILED]:
        raise SystemExit(EXIT_FAILED)


@dataclass(frozen=True, slots=True)
class _Errand:
    """What is to be exported."""

    settings: Settings
    project: str
    folder: Path
    bytes_per_second: int
    as_json: bool


@dataclass(slots=True)
class _Summary:
    """What was exported.

    Attributes:
        files: by outcome.
        size_bytes: of the files that are there.
        failed: up to LIST_ROWS of what could not be exported.
        stopped: why it ended early, without a manifest.
    """

    bar: Bar
    files: Counter[Outcome] = field(default_factory=Counter)
    size_bytes: int = 0
    failed: list[Exported] = field(default_factory=list)
    stopped: str | None = None

    def told(self, exported: Exported) -> None:
        """Take what became of one asset."""
        asset = exported.asset
        self.files[exported.outcome] += 1
        self.bar.moved(items=1, size_bytes=asset.size_bytes)
        if exported.outcome in {Outcome.WRITTEN, Outcome.THERE}:
            self.size_bytes += asset.size_bytes
        if exported.outcome is Outcome.FAILED:
            if len(self.failed) < LIST_ROWS:
                self.failed.append(exported)
            self.bar.say(
                f"{asset.video_id} {asset.variant} ({asset.upstream_id}) could not be exported:"
                f" {exported.failure}"
            )


async def _run(errand: _Errand, database: Database) -> _Summary:
    settings = errand.settings
    project_id = await id_of_project(errand.project, database)
    amount = await database.read(partial(count_kept, project_id=project_id))
    try:
        async with open_at(settings.store_url, settings) as store:
            with (
                open_folder(errand.folder) as folder,
                progress(
                    "exporting",
                    as_json=errand.as_json,
                    items=amount.assets,
                    size_bytes=amount.size_bytes,
                ) as bar,
            ):
                summary = _Summary(bar)
                exporting = Exporting(
                    database=database,
                    store=store,
                    folder=folder,
                    throttle=Throttle(errand.bytes_per_second, elapsed=system_clock().elapsed),
                    concurrency=CONCURRENCY,
                    told=summary.told,
                )
                try:
                    await export_project(exporting, project_id=project_id)
                except StoreUnavailable as error:
                    summary.stopped = str(error)
    except FolderFailed as error:
        raise fail(str(error)) from error
    return summary


def _facts(summary: _Summary, folder: Path) -> dict[str, Any]:
    files = summary.files
    return {
        "folder": str(folder),
        "manifest": None if summary.stopped is not None else MANIFEST,
        "files": files[Outcome.WRITTEN] + files[Outcome.THERE],
        "size_bytes": summary.size_bytes,
        **{outcome.value: files[outcome] for outcome in Outcome},
        "stopped": summary.stopped,
        "assets": [
            {
                **asset_facts(one.asset),
                "failure": one.failure,
            }
            for one in summary.failed
        ],
    }


def _text(summary: _Summary, folder: Path) -> str:
    files = summary.files
    text = (
        f"{files[Outcome.WRITTEN] + files[Outcome.THERE]} files, {summary.size_bytes} bytes, are in"
        f" {folder}: {files[Outcome.WRITTEN]} written, {files[Outcome.THERE]} there before;"
        f" {files[Outcome.FAILED]} could not be exported"
    )
    if files[Outcome.FAILED]:
        text += "; `mirror verify` looks at what is damaged"
    if summary.stopped is not None:
        text += f"\nstopped, without a manifest: {summary.stopped}"
    return text
