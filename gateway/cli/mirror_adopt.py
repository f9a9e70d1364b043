"""`video-gateway mirror adopt`: how does content get into the mirror that was not bought here?

Exits with 0 if every video is the gateway's now, 1 if one is not, or if it could not be found out
which there are, 2 on wrong usage or settings. It may be stopped at any time and be run again.
"""

import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gateway.billing.catalogue import DEFAULT_UPSTREAM
from gateway.billing.projects import ProjectArchived, find_project
from gateway.cli.common import (
    EXIT_FAILED,
    a_change,
    database_command,
    fail,
    read_settings,
    show,
    when,
    with_database,
)
from gateway.cli.progress import Bar, progress
from gateway.clock import system_clock
from gateway.config import Settings, UpstreamConfig
from gateway.db.database import Database
from gateway.setup import upstream_settings
from gateway.upstream.client import Upstream
from gateway.upstream.listing import ListFailed, listed
from gateway.videos.adoption import FINE, Adopting, Adoption, adopt

MAX_IDS: Final = 100_000
_STDIN: Final = "-"
_COLUMNS: Final = ("upstream_id", "outcome", "video", "project", "expires_at", "detail")


@click.command("adopt")
@click.argument("ids", nargs=-1, metavar="[ID]...")
@click.option("--project", required=True, help="Whose they become: an id or a name.")
@click.option("--upstream", "name", default=DEFAULT_UPSTREAM, show_default=True, help="Which one.")
@click.option("--from-upstream-list", "from_list", is_flag=True, help="All that it lists.")
@click.option("--dry-run", is_flag=True, help="Only say what would come of it.")
@database_command
def adopt_(
    *,
    ids: tuple[str, ...],
    project: str,
    name: str,
    from_list: bool,
    dry_run: bool,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Take over videos made before the gateway, or by another key, while they still exist.

    ID is the upstream's, video_…; `-` reads ids from standard input, one per line. Nothing of it
    stands in the ledger. The gateway that serves fetches their content, so let it run.

    Exits with 1 if one was neither adopted nor known before.
    """
    if from_list == bool(ids):
        raise click.UsageError("say either the ids or --from-upstream-list")
    settings = read_settings(config, database_url=database_url, serving=True)
    upstream = _upstream(settings, name)
    wanted = None if from_list else list(_said(ids))
    count = None if wanted is None else len(wanted)
    with progress("adopting", as_json=as_json, items=count) as bar:
        errand = _Errand(upstream, project, wanted, dry_run=dry_run, bar=bar)
        adoptions, failure = with_database(settings, partial(_run, errand))
    _show(adoptions, as_json=as_json)
    if failure is not None:
        raise fail(failure)
    if not all(one.outcome in FINE for one in adoptions):
        raise SystemExit(EXIT_FAILED)


def _upstream(settings: Settings, name: str) -> UpstreamConfig:
    for one in settings.all_upstreams():
        if one.name == name:
            return one
    known = ", ".join(one.name for one in settings.all_upstreams())
    raise click.UsageError(f"there is no upstream {name!r}; there is {known}")


def _said(ids: Sequence[str]) -> Iterator[str]:
    """Yield the ids, each once; `-` stands for those on standard input."""
    seen: set[str] = set()
    for one in _words(ids):
        if one in seen:
            continue
        seen.add(one)
        if len(seen) > MAX_IDS:
            raise click.UsageError(f"more than {MAX_IDS} ids: say fewer at once")
        yield one


def _words(ids: Sequence[str]) -> Iterator[str]:
    for one in ids:
        if one != _STDIN:
            yield one
            continue
        # Bytes that are no text make an id that is none, which is reported, not a crash.
        for line in sys.stdin.buffer:
            if text := line.decode(errors="surrogateescape").strip():
                yield text


@dataclass(frozen=True, slots=True)
class _Errand:
    """What is to be adopted; `wanted` is None for all that the upstream lists."""

    upstream: UpstreamConfig
    project: str
    wanted: Sequence[str] | None
    dry_run: bool
    bar: Bar


async def _run(errand: _Errand, database: Database) -> tuple[list[Adoption], str | None]:
    """Adopt; return what came of it, and why there is no more, or None: that is all."""
    project = await database.read(partial(find_project, errand.project))
    if project is None:
        raise fail(f"there is no project {errand.project!r}; `projects list` shows them")
    if project["archived_at"] is not None:
        raise ProjectArchived(errand.project)
    clock = system_clock()
    async with Upstream(upstream_settings(errand.upstream)) as upstream:
        adopting = Adopting(
            database,
            upstream,
            clock,
            project_id=project["id"],
            a_change=partial(a_change, clock),
            dry_run=errand.dry_run,
            on_one=partial(errand.bar.moved, items=1),
        )
        if errand.wanted is not None:
            return await adopt(adopting, errand.wanted), None
        return await _run_list(errand, adopting)


async def _run_list(errand: _Errand, adopting: Adopting) -> tuple[list[Adoption], str | None]:
    adoptions: list[Adoption] = []
    unusable = 0
    try:
        async for page in listed(adopting.upstream.list_videos):
            adoptions += await adopt(adopting, page.ids)
            unusable += page.unusable
    except ListFailed as error:
        return adoptions, _explained(error, errand.upstream.name)
    if unusable:
        return adoptions, f"{unusable} of the videos it lists have no id that they can be had by"
    return adoptions, None


def _explained(error: ListFailed, upstream: str) -> str:
    if error.reason == "not_offered":
        return (
            f"the upstream {upstream!r} does not list its videos (GET /v1/videos): relays need not."
            " Say the ids instead; `-` reads them from standard input"
        )
    return (
        f"the list of the upstream {upstream!r} could not be read to its end ({error.reason}): run"
        " it again; `upstream check` explains what stands in the way"
    )


def _show(adoptions: Sequence[Adoption], *, as_json: bool) -> None:
    rows: list[dict[str, Any]] = [
        {
            "upstream_id": one.upstream_id,
            "outcome": one.outcome,
            "video": one.video_id,
            "project": one.project,
            "expires_at": when(one.expires_at, as_json=as_json),
            "detail": one.detail,
        }
        for one in adoptions
    ]
    show(rows, columns=_COLUMNS, as_json=as_json, empty="There is nothing to adopt.")
    if rows and not as_json:
        counts = Counter(one.outcome for one in adoptions)
        click.echo(", ".join(f"{outcome} {count}" for outcome, count in sorted(counts.items())))
