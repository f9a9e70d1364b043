"""`video-gateway videos pin` and `unpin`: which videos are kept whatever retention says?"""

from functools import partial
from pathlib import Path
from typing import Any

import click

from gateway.billing.audit_log import Change
from gateway.cli.common import (
    a_change,
    database_command,
    fail,
    moment,
    read_settings,
    run_script,
    show_facts,
)
from gateway.cli.video_ids import named_video
from gateway.clock import system_clock
from gateway.db.script import Row, Script
from gateway.mirror.pins import get_pin, pin_video, unpin_video


@click.command("pin")
@click.argument("video")
@database_command
def pin(*, video: str, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Keep the content of VIDEO (vid_…, or the upstream's id) whatever retention says."""
    settings = read_settings(config, database_url=database_url)
    facts = run_script(settings, partial(_pin, a_change(system_clock()), video))
    text = f"{facts['video']} is pinned since {moment(facts['pinned_at'])}"
    show_facts(facts, text=text, as_json=as_json)


def _pin(change: Change, named: str) -> Script[dict[str, Any]]:
    video = yield from _existing(named)
    found = yield from get_pin(video["id"])
    if found["deleted_at"] is not None:
        raise fail(f"{video['id']} was deleted: its content is not kept")
    if found["removed_assets"] and not found["kept_assets"]:
        raise fail(f"the content of {video['id']} is no longer kept: a pin does not bring it back")
    pinned_at = yield from pin_video(change, video["id"])
    return _facts(video) | {"pinned_at": pinned_at, "kept_bytes": found["kept_bytes"]}


@click.command("unpin")
@click.argument("video")
@database_command
def unpin(*, video: str, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Let retention have the content of VIDEO (vid_…, or the upstream's id) again."""
    settings = read_settings(config, database_url=database_url)
    facts = run_script(settings, partial(_unpin, a_change(system_clock()), video))
    show_facts(facts, text=f"{facts['video']} is not pinned any more", as_json=as_json)


def _unpin(change: Change, named: str) -> Script[dict[str, Any]]:
    video = yield from _existing(named)
    if not (yield from unpin_video(change, video["id"])):
        raise fail(f"{video['id']} is not pinned")
    return _facts(video) | {"pinned_at": None}


def _existing(named: str) -> Script[Row]:
    video = yield from named_video(named)
    if video is None:
        raise fail(f"there is no video {named!r}; `videos list` shows them")
    return video


def _facts(video: Row) -> dict[str, Any]:
    return {
        "video": video["id"],
        "upstream_id": video["upstream_id"],
        "project_id": video["project_id"],
    }
