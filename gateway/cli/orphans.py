"""`video-gateway orphans`: holds whose upstream outcome is unknown, and what a person does."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import click

from gateway.billing.money import format_usd
from gateway.cli.common import (
    database_command,
    fail,
    moment,
    read_settings,
    run_script,
    show,
    show_json,
)
from gateway.clock import system_clock
from gateway.config import Settings
from gateway.db.script import Script
from gateway.upstream.replies import is_usable_id
from gateway.videos.orphans import (
    NoOrphan,
    TooEarly,
    attach_orphan,
    list_orphans,
    release_orphan,
    settle_orphan,
)

T = TypeVar("T")


@click.group()
def orphans() -> None:
    """Holds that only evidence or a person ends: look at the upstream's account first."""


@orphans.command("list")
@database_command
def list_(*, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """List all orphans, oldest first."""
    settings = read_settings(config, database_url=database_url)
    rows = [
        {
            "video": row["id"],
            "upstream_id": row["upstream_id"],
            "project": row["project"],
            "key_id": row["key_id"],
            "model": row["model"],
            "size": row["size"],
            "clip_seconds": row["clip_seconds"],
            "held_usd": format_usd(row["amount_micros"]),
            "reason": row["orphan_reason"],
            "upstream_request_id": row["relay_request_id"] or row["provider_request_id"],
            "created_at": row["created_at"] if as_json else moment(row["created_at"]),
        }
        for row in run_script(settings, list_orphans)
    ]
    columns = (
        "video",
        "project",
        "model",
        "size",
        "clip_seconds",
        "held_usd",
        "reason",
        "upstream_id",
        "upstream_request_id",
        "created_at",
    )
    show(rows, columns=columns, as_json=as_json, empty="There are no orphans.")


@orphans.command("settle")
@click.argument("video")
@click.option("--upstream-id", help="Which of the upstream's videos it is: follow that one.")
@database_command
def settle(
    *,
    video: str,
    upstream_id: str | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Say that the upstream made the video: charge what is held, or follow it by its id."""
    if upstream_id is not None and not is_usable_id(upstream_id):
        raise click.UsageError("--upstream-id must be 1 to 256 bytes without control characters")
    settings = read_settings(config, database_url=database_url)
    now = system_clock().now()
    if upstream_id is not None:
        recorded = _end(
            settings, partial(attach_orphan, video, upstream_id=upstream_id, now=now), video
        )
        facts = {"video": video, "upstream_id": upstream_id, "outcome": recorded.value}
        text = f"{video} is {upstream_id}: {recorded.value}"
    else:
        amount = format_usd(_end(settings, partial(settle_orphan, video, now=now), video))
        facts = {"video": video, "settled_usd": amount}
        text = f"settled {video}: ${amount}"
    if as_json:
        show_json(facts)
    else:
        click.echo(text)


@orphans.command("release")
@click.argument("video")
@database_command
def release(*, video: str, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Say that the upstream made and billed nothing: charge nothing."""
    settings = read_settings(config, database_url=database_url)
    now = system_clock().now()
    amount = format_usd(_end(settings, partial(release_orphan, video, now=now), video))
    if as_json:
        show_json({"video": video, "released_usd": amount})
    else:
        click.echo(f"released {video}: ${amount}")


def _end(settings: Settings, script: Callable[[], Script[T]], video: str) -> T:
    try:
        return run_script(settings, script)
    except NoOrphan as error:
        raise fail(f"there is no orphan {video!r}; `orphans list` shows them, vid_…") from error
    except TooEarly as error:
        raise fail(
            f"{video} may still be under way: wait {error.seconds} seconds, then look again at the"
            " upstream's account"
        ) from error
