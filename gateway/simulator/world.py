"""What does the simulator know?

Everything is in memory and in one World: settings, clock, videos, faults that wait, and what was
asked so far. Finding a video, making one and counting a request cost the same however many videos
there are.
"""

import asyncio
import secrets
import time
from collections import Counter, deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.simulator.answers import RefusedError, unknown_video
from gateway.simulator.faults import Fault
from gateway.simulator.life import Plan, Video, planned
from gateway.simulator.models import MODELS
from gateway.simulator.rows import LogRow
from gateway.simulator.rules import Asked

RECEIVED_KEPT = 1000

_STRANGE_IDS: Mapping[str, str] = {
    "slash": "video/{}",
    "dots": "../{}",
    "query": "video_{}?variant=thumbnail",
    "space": "video {}",
    "long": "video_{}" + "a" * 300,
    "control": "video_\r\n\x00{}",
}


@dataclass(frozen=True, slots=True)
class Settings:
    """How this simulator behaves.

    Attributes:
        keys: the accepted upstream keys.
        no_channel_keys: keys that are known, but find no channel: 503.
        queue_seconds: from creation to in_progress.
        generation_seconds: from there to completed.
        retention_seconds: from there until the content expires; the relay says one day.
        expired_status: what expired content answers: 404 or 410, the relay says both.
        ranges: whether content answers Range with 206.
        content_bytes: content is filled up to this size.
        variants: what of a video there is; the rest answers absent_status.
        absent_status: 404, or 400 as for what is late.
        account_token: what the account's own endpoints accept, bare; no key of `keys` works there.
        account_quota: what the account holds before anything is charged.
        log_ids: where a row of the account's log has the video's id: content, other or task_id.
    """

    keys: tuple[str, ...] = ("sk-simulator",)
    no_channel_keys: tuple[str, ...] = ("sk-no-channel",)
    queue_seconds: float = 1
    generation_seconds: float = 3
    retention_seconds: float = 86_400
    expired_status: int = 404
    ranges: bool = True
    content_bytes: int = 0
    variants: tuple[str, ...] = ("video", "thumbnail", "spritesheet")
    absent_status: int = 404
    account_token: str = "account-simulator"  # noqa: S105 - it opens nothing but this
    account_quota: int = 50_000_000
    log_ids: str = "content"


@dataclass(slots=True)
class Clock:
    """Unix time that can be moved.

    Attributes:
        source: where time comes from.
        offset_seconds: how far it was moved since.
    """

    source: Callable[[], float] = time.time
    offset_seconds: float = 0

    def now(self) -> float:
        """Return Unix seconds."""
        return self.source() + self.offset_seconds


@dataclass(slots=True)
class Received:
    """One request as it arrived.

    Attributes:
        operation: what it asked for.
        method: the HTTP method.
        path: as sent, still percent-encoded.
        query: as sent.
        headers: names in lower case; the authorization only says which known key it holds.
        encoding: "json", "multipart", or None where no body was read.
        fields: the body's fields.
        files: what is known of each file: filename, content_type, bytes, sha256.
        at: Unix seconds.
    """

    operation: str
    method: str
    path: str
    query: str
    headers: dict[str, str]
    at: float
    encoding: str | None = None
    fields: dict[str, Any] = field(default_factory=dict)
    files: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class World:
    """All that is known.

    Attributes:
        settings: how it behaves now.
        clock: its time.
        videos: by id; those that are gone too.
        executed: every video ever made, in order; a duplicate id stands here twice.
        characters: character objects by id.
        faults: those from the control endpoint, in order.
        requests: how often each operation was asked for.
        received: the last requests, oldest first.
        delivering: how many answers of each operation are on their way to their clients.
        go_on: set, and replaced, when what pauses is to go on.
        dark: every request is answered by a cut connection.
        unlogged: videos of which the account's log has no row.
        logged_micros: what the log says a video was charged, where that is not its price.
        foreign_rows: rows of the log that belong to no video.
    """

    settings: Settings = field(default_factory=Settings)
    clock: Clock = field(default_factory=Clock)
    videos: dict[str, Video] = field(default_factory=dict)
    executed: list[Video] = field(default_factory=list)
    characters: dict[str, dict[str, Any]] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: Counter[str] = field(default_factory=Counter)
    received: deque[Received] = field(default_factory=lambda: deque(maxlen=RECEIVED_KEPT))
    delivering: Counter[str] = field(default_factory=Counter)
    go_on: asyncio.Event = field(default_factory=asyncio.Event)
    dark: bool = False
    unlogged: set[str] = field(default_factory=set)
    logged_micros: dict[str, int] = field(default_factory=dict)
    foreign_rows: list[LogRow] = field(default_factory=list)


def find(world: World, video_id: str) -> Video:
    """Return the video.

    Raises:
        RefusedError: 404, there is none, or it is gone.
    """
    video = world.videos.get(video_id)
    if video is None or video.gone:
        raise RefusedError(unknown_video(video_id))
    return video


def execute(
    world: World,
    *,
    operation: str,
    asked: Asked,
    shown_seconds: int,
    life: Iterable[Fault],
    later: list[Fault],
    source: str | None = None,
    relay_id: str = "",
) -> Video:
    """Make a video, which is what the relay bills for, and return it."""
    life = list(life)
    for fault in life:
        if fault.name == "longer":
            longer = int(fault.number(default=asked.clip_seconds))
            shown_seconds += longer - asked.clip_seconds
            asked = replace(asked, clip_seconds=longer)
    settings = world.settings
    usual = Plan(settings.queue_seconds, settings.generation_seconds, settings.retention_seconds)
    video = Video(
        id=_new_id(world, asked=asked, life=life),
        operation=operation,
        asked=asked,
        shown_seconds=shown_seconds,
        plan=planned(usual, life),
        created_at=world.clock.now(),
        index=len(world.executed),
        faults=later,
        source=source,
        relay_id=relay_id,
    )
    world.executed.append(video)
    world.videos.setdefault(video.id, video)
    return video


def forget_everything(world: World, *, settings: Settings) -> None:
    """Return to the beginning, with these settings: no videos, faults, counts; time as it comes."""
    fresh = World(settings=settings, clock=Clock(world.clock.source))
    for name in World.__slots__:
        setattr(world, name, getattr(fresh, name))


def _new_id(world: World, *, asked: Asked, life: list[Fault]) -> str:
    for fault in life:
        if fault.name == "id" and fault.value:
            strange = _STRANGE_IDS.get(fault.value)
            return strange.format(secrets.token_hex(8)) if strange else fault.value
        if fault.name == "duplicate-id" and (fault.value or world.executed):
            return fault.value or world.executed[-1].id
    if MODELS[asked.model].family == "veo":
        return f"task_{secrets.token_hex(16)}"
    return f"video_{secrets.token_hex(24)}"
