"""How are videos taken over that were made before the gateway, or by another key?

Each is asked for at the upstream. One that is completed, and whose content is still there, gets a
row and its assets in one transaction (adoption_records.py); the mirror of the running gateway does
the rest. It may die at any video and be run again: what was adopted is known then.

| what is found                              | outcome          | written            |
|---|---|---|
| a video here has that id already           | known            | nothing            |
| completed                                  | adopted          | the video is there |
| the same, in a dry run                     | adoptable        | nothing            |
| queued or in progress                      | `not_finished`   | nothing            |
| failed                                     | failed           | nothing            |
| completed, and moderation left no content  | `no_content`     | nothing            |
| completed, and its content has gone        | expired          | nothing            |
| a submit of about its time has no id yet   | `perhaps_bought` | nothing            |
| the upstream has no such video             | missing          | nothing            |
| no answer, or one that says nothing        | unclear          | nothing            |
| nothing can be asked for by this id        | `unusable_id`    | nothing            |

Content whose time is over, by its object or by what is known of the upstream, is asked for: only
its absence is proof. Where it is there, the mirror has its hour of grace to fetch it in.
"""

import asyncio
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

from gateway.billing.audit_log import Change
from gateway.clock import Clock
from gateway.db.database import Database
from gateway.upstream.client import Upstream
from gateway.upstream.content import ContentUnavailable
from gateway.upstream.patience import patiently
from gateway.upstream.replies import Missing, Unclear, is_usable_id
from gateway.videos.adoption_records import (
    Known,
    Stray,
    Unended,
    adopt_video,
    find_known,
    in_the_way,
)
from gateway.videos.lifecycle import COMPLETED, FAILED, MODERATED, failure_code, normalise
from gateway.videos.objects import Facts, visible
from gateway.videos.polls import expires_at_of, moment_of

KNOWN: Final = "known"
ADOPTED: Final = "adopted"
ADOPTABLE: Final = "adoptable"
FINE: Final = frozenset({KNOWN, ADOPTED, ADOPTABLE})

AT_ONCE: Final = 8
LOOKED_UP_AT_ONCE: Final = 100
_GONE: Final = frozenset({404, 410})
_WORD_CHARACTERS: Final = 80


@dataclass(frozen=True, slots=True)
class Adopting:
    """What is needed to take videos over.

    Attributes:
        project_id: whose they become.
        a_change: says who adopts, anew for each video.
        dry_run: nothing is written.
        on_one: called after each video.
    """

    database: Database
    upstream: Upstream
    clock: Clock
    project_id: str
    a_change: Callable[[], Change]
    dry_run: bool
    on_one: Callable[[], None]


@dataclass(frozen=True, slots=True)
class Adoption:
    """What came of one video.

    Attributes:
        upstream_id: its id there; of one that is unusable, what can be shown.
        outcome: a word of the table above.
        detail: for the operator; None: the outcome says it all.
        video_id: of an adopted or a known one: the video here.
        project: of a known one: its project's name.
        expires_at: of an adopted one: when the upstream's copy goes.
    """

    upstream_id: str
    outcome: str
    detail: str | None = None
    video_id: str | None = None
    project: str | None = None
    expires_at: int | None = None


async def adopt(adopting: Adopting, upstream_ids: Sequence[str]) -> list[Adoption]:
    """Take videos over, each once, and return what came of them, in the order of their ids.

    Raises:
        DatabaseUnavailable, ProjectArchived: some may have been adopted, none by half.
    """
    found: dict[str, Adoption] = {}
    wanted = list(dict.fromkeys(upstream_ids))
    for begin in range(0, len(wanted), LOOKED_UP_AT_ONCE):
        some = wanted[begin : begin + LOOKED_UP_AT_ONCE]
        usable = [one for one in some if is_usable_id(one)]
        known = await adopting.database.read(partial(find_known, usable))
        for one in some:
            if one in known:
                found[one] = _known(adopting, one, known[one])
            elif one not in usable:
                found[one] = Adoption(_word(one), "unusable_id")
            else:
                continue
            adopting.on_one()
        await _adopt_unknown(adopting, [one for one in some if one not in found], found)
    return [found[one] for one in wanted]


async def _adopt_unknown(
    adopting: Adopting, upstream_ids: Sequence[str], found: dict[str, Adoption]
) -> None:
    waiting = iter(upstream_ids)

    async def work() -> None:
        for upstream_id in waiting:
            found[upstream_id] = await _adopt_one(adopting, upstream_id)
            adopting.on_one()

    try:
        async with asyncio.TaskGroup() as group:
            for _ in range(AT_ONCE):
                group.create_task(work())
    except ExceptionGroup as failed:
        # One is like the other: the database is away, or the project was archived.
        raise failed.exceptions[0] from failed


async def _adopt_one(adopting: Adopting, upstream_id: str) -> Adoption:
    reply = await patiently(partial(adopting.upstream.retrieve, upstream_id))
    match reply:
        case Missing():
            return Adoption(upstream_id, "missing")
        case Unclear(reason=reason):
            return Adoption(upstream_id, "unclear", reason)
    refused = _refused(upstream_id, reply.object)
    if refused is not None:
        return refused
    stray = _stray(adopting, upstream_id, reply.object)
    now = adopting.clock.now()
    if stray.expires_at <= now:
        try:
            async with adopting.upstream.content(upstream_id, "video"):
                stray = replace(stray, expires_at=now)
        except ContentUnavailable as error:
            if error.status in _GONE:
                return Adoption(upstream_id, "expired", expires_at=stray.expires_at)
            return Adoption(upstream_id, "unclear", f"content: {error}")
    return await _write(adopting, stray)


def _refused(upstream_id: str, video: dict[str, Any]) -> Adoption | None:
    """Return why a video that the upstream has is not to be adopted; None: it may be."""
    named = video.get("id", upstream_id)
    if named != upstream_id:
        # Under a second name a project could be given what another one has.
        return Adoption(upstream_id, "unclear", f"the upstream calls it {_word(str(named))}")
    status = normalise(video["status"])
    code = failure_code(video)
    if status is None:
        return Adoption(upstream_id, "unclear", f"unknown status {_word(video['status'])}")
    if status == FAILED:
        return Adoption(upstream_id, "failed", _word(code))
    if status != COMPLETED:
        return Adoption(upstream_id, "not_finished", "not finished: adopt it again later")
    if code == MODERATED:
        return Adoption(upstream_id, "no_content", code)
    return None


def _stray(adopting: Adopting, upstream_id: str, video: Mapping[str, Any]) -> Stray:
    now = adopting.clock.now()
    settings = adopting.upstream.settings
    made_at = moment_of(video, "created_at")
    said_completed_at = moment_of(video, "completed_at")
    completed_at = now if said_completed_at is None else min(said_completed_at, now)
    facts = Facts(
        upstream_id=upstream_id,
        created_at=now if made_at is None else min(made_at, now),
        completed_at=completed_at,
        fields={},
    )
    # Where it does not say since when its content is kept, the earliest moment is the safe one.
    since = completed_at if said_completed_at is not None else facts.created_at
    return Stray(
        id=adopting.clock.new_id("vid"),
        project_id=adopting.project_id,
        upstream=settings.name,
        shown=json.dumps(visible(video, facts), ensure_ascii=False),
        facts=facts,
        made_at=made_at,
        expires_at=expires_at_of(video, otherwise=since + settings.retention_seconds),
        assets={variant: adopting.clock.new_id("asset") for variant in settings.variants},
    )


async def _write(adopting: Adopting, stray: Stray) -> Adoption:
    if adopting.dry_run:
        found = await adopting.database.read(partial(in_the_way, stray))
    else:
        found = await adopting.database.run(partial(adopt_video, adopting.a_change(), stray))
    upstream_id = stray.facts.upstream_id
    match found:
        case Known():
            return _known(adopting, upstream_id, found)
        case Unended(id=submit_id):
            return Adoption(
                upstream_id,
                "perhaps_bought",
                f"{submit_id} has no id yet and may be this video: look again when it has ended,"
                f" by itself or by `orphans settle {submit_id} --upstream-id …`",
            )
    if adopting.dry_run:
        return Adoption(upstream_id, ADOPTABLE, expires_at=stray.expires_at)
    return Adoption(upstream_id, ADOPTED, video_id=stray.id, expires_at=stray.expires_at)


def _known(adopting: Adopting, upstream_id: str, known: Known) -> Adoption:
    elsewhere = known.upstream != adopting.upstream.settings.name
    return Adoption(
        upstream_id,
        KNOWN,
        f"of the upstream {known.upstream}" if elsewhere else None,
        video_id=known.id,
        project=known.project,
    )


def _word(text: str) -> str:
    """Return what somebody else wrote so that a terminal can show it."""
    shown = text if text.isprintable() else ascii(text)
    return shown[:_WORD_CHARACTERS]
