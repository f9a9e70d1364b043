"""How is every video followed to its end?

One turn: claim what is due, ask the upstream about each, judge the answer by the lifecycle table,
write status and money in one transaction. It may die at any line: the lease ends, and whoever runs
next asks again. Clients are served from the record, so their number costs the upstream nothing.
"""

import asyncio
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.db.database import Database
from gateway.db.script import Script
from gateway.telemetry.metrics import videos as counted
from gateway.telemetry.metrics.videos import VideoMetrics
from gateway.telemetry.traces import UNTRACED, Tracer, traced_turn
from gateway.turns import LEASE_SECONDS, Loop, Turns
from gateway.upstream.client import Upstream
from gateway.upstream.envelopes import RequestIds
from gateway.upstream.replies import Found, Missing, Unclear
from gateway.videos.claims import Claim, claim_due, give_back, renew
from gateway.videos.lifecycle import Completed, Failed, Pending, judge
from gateway.videos.polls import (
    Ended,
    write_completed,
    write_failed,
    write_given_up,
    write_nothing,
    write_orphan,
    write_pending,
)
from gateway.videos.schedule import ORPHAN_INTERVAL_SECONDS, is_out_of_patience, next_poll

STEPS: Final = ("poll.claimed", "poll.answered", "poll.recorded")
# How often the database is asked for due videos; due_at has whole seconds.
TURN_SECONDS: Final = 0.25
# An upstream that has lost a video says so every time; one that was restarted, for a while.
MISSING_POLLS_LIMIT: Final = 10

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Polling:
    """What the poller works with.

    Attributes:
        interval_seconds: between two polls of one video, give or take a tenth.
        typical_seconds: how long each model takes at least, typically.
        concurrency: polls under way at once.
        patience_seconds: after which a video without an end becomes an orphan.
        on_completed: called once a completed video is recorded, so that the mirror starts.
        on_step: told the name of each of STEPS as it is reached.
    """

    database: Database
    upstreams: Mapping[str, Upstream]
    clock: Clock
    interval_seconds: int
    typical_seconds: Mapping[str, int]
    concurrency: int
    patience_seconds: int
    on_completed: Callable[[], None]
    on_step: Callable[[str], None]
    metrics: VideoMetrics
    tracer: Tracer = UNTRACED


async def poll_forever(polling: Polling) -> None:
    """Follow videos until cancelled."""
    turns = Turns(
        Loop(
            name="poll",
            concurrency=polling.concurrency,
            idle_seconds=TURN_SECONDS,
            wake=asyncio.Event(),
            claim=partial(_claim, polling),
            renew=partial(_renew, polling),
            turn=traced_turn(polling.tracer, "poll", partial(poll, polling)),
            give_back=partial(_give_back, polling),
        )
    )
    await turns.run()


async def _claim(polling: Polling, limit: int) -> list[Claim]:
    now = polling.clock.now()
    return await polling.database.run_beside(
        partial(claim_due, limit=limit, lease_ends_at=now + LEASE_SECONDS, now=now)
    )


async def _renew(polling: Polling, claim: Claim) -> bool:
    lease_ends_at = polling.clock.now() + LEASE_SECONDS
    return await polling.database.run_beside(partial(renew, claim, lease_ends_at=lease_ends_at))


async def _give_back(polling: Polling, claims: Sequence[Claim]) -> None:
    await polling.database.run_beside(partial(give_back, claims, now=polling.clock.now()))


async def poll(polling: Polling, claim: Claim) -> None:
    """Ask once about one claimed video, and write down what the answer means."""
    polling.on_step("poll.claimed")
    begun = polling.clock.elapsed()
    upstream = polling.upstreams.get(claim.upstream)
    if upstream is None:
        # Taken out of the settings: nobody can be asked until it is back.
        reply: Found | Missing | Unclear = Unclear("no_such_upstream", request_ids=RequestIds())
    else:
        reply = await upstream.retrieve(claim.upstream_id)
    polling.on_step("poll.answered")
    log = _log.bind(
        **claim.log_facts,
        **reply.request_ids.known(),
        duration_seconds=round(polling.clock.elapsed() - begun, 3),
    )
    match reply:
        case Found():
            await _found(polling, claim, reply, log=log)
        case Missing():
            await _said_nothing(polling, claim, "missing", missing=True, log=log)
        case Unclear(reason=reason, retry_after_seconds=wait):
            await _said_nothing(
                polling, claim, reason, missing=False, wait_seconds=wait or 0, log=log
            )
    polling.on_step("poll.recorded")


async def _found(
    polling: Polling, claim: Claim, reply: Found, *, log: structlog.typing.FilteringBoundLogger
) -> None:
    now = polling.clock.now()
    settings = polling.upstreams[claim.upstream].settings
    match judge(reply.object, claim.terms):
        case None:
            await _said_nothing(polling, claim, "unknown_status", missing=False, log=log)
        case Pending() as pending if _out_of_patience(polling, claim, now=now):
            log.debug("poll_pending", status=pending.status)
            await _said_nothing(polling, claim, "never_ended", missing=False, log=log)
        case Pending() as pending:
            # An orphan that is remembered is none any more, and is polled as often as any other.
            due_at = _next_poll(polling, claim, now=now)
            script = partial(write_pending, claim, pending, reply.object, due_at=due_at, now=now)
            # What a person may be deciding about is written in turn with that.
            run = polling.database.run if claim.orphaned else polling.database.run_beside
            polling.metrics.polled(counted.PENDING)
            if not await run(script):
                log.warning("lease_lost", loop="poll")
        case Completed() as completed:
            end = partial(
                write_completed,
                claim,
                completed,
                reply.object,
                assets={variant: polling.clock.new_id("asset") for variant in settings.variants},
                retention_seconds=settings.retention_seconds,
                now=now,
            )
            ended = await _end(polling, claim, end, name="settle")
            polling.on_completed()
            polling.metrics.polled(counted.COMPLETED)
            if ended.written:
                polling.metrics.completed(claim.model, seconds=now - claim.recorded_at)
            log = log.bind(
                list_micros=completed.list_micros, generation_seconds=now - claim.recorded_at
            )
            _report_end(log, ended, "video_completed")
            if ended.written and completed.above_hold:
                log.error(
                    "settled_above_hold",
                    held_list_micros=claim.terms.list_micros,
                    held_micros=claim.held_micros,
                    **ended.money,
                )
        case Failed() as failed:
            end = partial(write_failed, claim, failed, reply.object, now=now)
            name = "settle" if failed.list_micros else "release"
            ended = await _end(polling, claim, end, name=name)
            polling.metrics.polled(counted.FAILED)
            if ended.written:
                polling.metrics.failed(
                    claim.model, reason=failed.reason, is_billed=failed.list_micros > 0
                )
            _report_end(log.bind(reason=failed.reason), ended, "video_failed")


async def _end(
    polling: Polling, claim: Claim, script: Callable[[], Script[Ended]], *, name: str
) -> Ended:
    with polling.tracer.span(name, about=claim.traceparent):
        return await polling.database.run(script)


async def _said_nothing(
    polling: Polling,
    claim: Claim,
    reason: str,
    *,
    missing: bool,
    wait_seconds: int = 0,
    log: structlog.typing.FilteringBoundLogger,
) -> None:
    now = polling.clock.now()
    lost = missing and claim.missing_polls + 1 >= MISSING_POLLS_LIMIT
    over = not claim.orphaned and (lost or _out_of_patience(polling, claim, now=now))
    # What a person has settled needs no person again.
    given_up = over and claim.settled_at is not None
    orphaned = over and not given_up
    if given_up:
        script = partial(write_given_up, claim, now=now)
    elif orphaned:
        due_at = now + ORPHAN_INTERVAL_SECONDS
        script = partial(write_orphan, claim, reason=reason, due_at=due_at, now=now)
    else:
        is_orphan = claim.orphaned
        due_at = now + ORPHAN_INTERVAL_SECONDS if is_orphan else _next_poll(polling, claim, now=now)
        # An upstream that asks for time gets it, within reason.
        due_at = max(due_at, now + min(wait_seconds, ORPHAN_INTERVAL_SECONDS))
        script = partial(write_nothing, claim, missing=missing, due_at=due_at, now=now)
    run = polling.database.run if over or claim.orphaned else polling.database.run_beside
    polling.metrics.polled(counted.NOTHING)
    if not await run(script):
        log.warning("lease_lost", loop="poll")
    elif given_up:
        log.warning("poll_given_up", reason=reason)
    elif orphaned:
        polling.metrics.ended(claim.model, counted.ORPHANED)
        log.error("video_orphaned", reason=reason, held_micros=claim.held_micros)
    else:
        log.warning("poll_said_nothing", reason=reason)


def _report_end(log: structlog.typing.FilteringBoundLogger, ended: Ended, event: str) -> None:
    if not ended.written:
        log.warning("lease_lost", loop="poll")
    elif ended.correction_micros:
        log.error("ended_hold_corrected", **ended.money)
    else:
        log.info(event, **ended.money)


def _out_of_patience(polling: Polling, claim: Claim, *, now: int) -> bool:
    return is_out_of_patience(claim, patience_seconds=polling.patience_seconds, now=now)


def _next_poll(polling: Polling, claim: Claim, *, now: int) -> int:
    return next_poll(
        claim,
        interval_seconds=polling.interval_seconds,
        typical_seconds=polling.typical_seconds,
        chance=polling.clock.chance(),
        now=now,
    )
