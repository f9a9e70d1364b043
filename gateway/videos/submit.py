"""How is a video bought, exactly once, and paid for exactly once?

Transaction, network, transaction. What is true if the process dies at each step:

| last step reached | money       | upstream         | what happens then                         |
|---|---|---|---|
| none              | nothing     | nothing          | the client sees a broken connection       |
| submit.held       | held        | nothing          | lease lapses: orphan, a person releases   |
| submit.sending    | held        | perhaps a video  | lease lapses: orphan                      |
| submit.answered   | held        | a video, or a no | lease lapses: orphan                      |
| submit.recorded   | as recorded | as recorded      | polled and settled by whoever runs next   |

The row is the lease: it lasts longer than the deadline of the POST, and a submit that finds less
than that deadline left right before its first byte stops, because by then somebody may have
decided what the orphan was. An answer that comes late is recorded all the same.

Nothing is sent again after a byte of it was sent: only what certainly never left is tried again.
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, TypeAlias

import structlog

from gateway.billing.budgets import Account, Refusal, Standing, accounting_day
from gateway.billing.explain import refusal_message
from gateway.billing.ledger import Hold
from gateway.clock import Clock
from gateway.db.database import Database
from gateway.db.script import Script
from gateway.errors import (
    BudgetExceeded,
    DatabaseUnavailable,
    GatewayError,
    OutcomeUnknown,
    UpstreamUnreachable,
)
from gateway.upstream.client import Body, Upstream
from gateway.upstream.envelopes import RequestIds
from gateway.upstream.replies import Accepted, NotSent, Refused, Unknown
from gateway.videos.attempts import Earlier, Intent
from gateway.videos.order import Order
from gateway.videos.records import (
    Recorded,
    Submit,
    first_answer,
    open_submit,
    record_accepted,
    record_orphan,
    record_refused,
)
from gateway.videos.work import Work

STEPS: Final = ("submit.held", "submit.sending", "submit.answered", "submit.recorded")
# Beyond the deadline of the POST itself: tries to connect, a slow upload, the record.
LEASE_MARGIN_SECONDS: Final = 120
# Waits before the second and the third try of a request of which nothing was sent.
_BACKOFF_SECONDS: Final = (0.25, 1.0)
_RECORD_BACKOFF_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0)

Outcome: TypeAlias = Accepted | Refused | NotSent | Unknown
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Means:
    """What a submit works with.

    Attributes:
        reply_seconds: how long a client waits for the record once the upstream has answered.
        first_poll_seconds: how long after the record the first poll is due.
        disclose_budgets: whether a key holder may see the organization's figures.
        on_step: told the name of each of STEPS as it is reached.
    """

    database: Database
    work: Work
    clock: Clock
    on_step: Callable[[str], None]
    reply_seconds: float
    first_poll_seconds: int
    disclose_budgets: bool


@dataclass(frozen=True, slots=True)
class Submitted:
    """A video that was bought and written down.

    Attributes:
        answer: what the client gets, JSON.
        standings: the limited balances of its account as they stood when the hold was taken.
    """

    video_id: str
    accepted: Accepted
    answer: str
    price_micros: int
    standings: tuple[Standing, ...]


class _LateError(Exception):
    """The lease is over, or too short for a POST: nothing was sent."""


async def submit(
    means: Means,
    order: Order,
    body: Body,
    *,
    project_id: str,
    key_id: str,
    video_id: str,
    intent: Intent,
    upstream: Upstream,
    rate_card_sha256: str,
) -> Submitted | Earlier:
    """Hold the price, forward the order, write down what happened.

    On return the video is bought, its hold durable and its id recorded; or an earlier attempt
    answers for this one, and nothing was held and nothing sent.

    Raises:
        BudgetExceeded, InvalidApiKey, IdempotencyKeyReused: nothing was held and nothing sent.
        UpstreamUnreachable, or what the upstream refused with: the hold is released.
        OutcomeUnknown: the hold is kept.
        DatabaseUnavailable: nothing was sent.
    """
    clock = means.clock
    begun = clock.elapsed()
    now = clock.now()
    lease_seconds = upstream.settings.post_seconds + LEASE_MARGIN_SECONDS
    account = Account(project_id=project_id, key_id=key_id, accounting_day=accounting_day(now))
    opened = Submit(
        video_id=video_id,
        intent=intent,
        hold=_hold(order, account, hold_id=clock.new_id("hold"), rate_card=rate_card_sha256),
        upstream=upstream.settings.name,
        kind=order.kind,
        fields=dict(order.shown),
        lease_ends_at=now + int(lease_seconds),
    )
    standings = await _take_hold(means, opened, order, now=now)
    if isinstance(standings, Earlier):
        return standings
    log = _log.bind(video_id=opened.video_id, upstream=opened.upstream)
    means.on_step("submit.held")

    def before_first_byte() -> None:
        if clock.elapsed() - begun > lease_seconds - upstream.settings.post_seconds:
            raise _LateError
        means.on_step("submit.sending")

    outcome = await _forward(upstream, order.path, body, before_first_byte=before_first_byte)
    means.on_step("submit.answered")
    recording = means.work.start(_record(means, opened.video_id, outcome, log=log))
    recorded = await _within(recording, means.reply_seconds)
    means.on_step("submit.recorded")
    if isinstance(outcome, Accepted) and recorded is not Recorded.DUPLICATE:
        return Submitted(
            video_id=opened.video_id,
            accepted=outcome,
            answer=first_answer(outcome, kind=order.kind, fields=opened.fields, created_at=now),
            price_micros=order.price_micros,
            standings=standings,
        )
    raise _refusal(outcome)


async def _take_hold(
    means: Means, opened: Submit, order: Order, *, now: int
) -> tuple[Standing, ...] | Earlier:
    try:
        return await means.database.run(partial(open_submit, opened, now=now))
    except DatabaseUnavailable:
        # The hold may have been taken all the same; nothing was or will be sent for it.
        outcome = NotSent("hold_not_confirmed")
        means.work.start(_record(means, opened.video_id, outcome, log=_log))
        raise
    except Refusal as refusal:
        message = refusal_message(
            refusal.refusing,
            price_micros=order.price_micros,
            model=order.model,
            disclose=means.disclose_budgets,
        )
        raise BudgetExceeded(message) from refusal


async def _forward(
    upstream: Upstream, path: str, body: Body, *, before_first_byte: Callable[[], None]
) -> Outcome:
    outcome: Outcome = NotSent("never_tried")
    for wait_seconds in (*_BACKOFF_SECONDS, None):
        try:
            outcome = await upstream.submit(path, body, before_first_byte=before_first_byte)
        except _LateError:
            return NotSent("lease_lapsed")
        if not isinstance(outcome, NotSent) or wait_seconds is None:
            break
        await asyncio.sleep(wait_seconds)
    return outcome


async def _record(
    means: Means, video_id: str, outcome: Outcome, *, log: structlog.typing.FilteringBoundLogger
) -> Recorded | bool:
    """Write the outcome down, for as long as it takes while the process lives."""
    attempt = 0
    while True:
        now = means.clock.now()
        try:
            recorded = await means.database.run(
                partial(_script, video_id, outcome, first_poll=means.first_poll_seconds, now=now)
            )
        except DatabaseUnavailable as error:
            if attempt == 0:
                log.error("submit_not_recorded", **_facts(outcome), cause=repr(error.__cause__))
            await asyncio.sleep(
                _RECORD_BACKOFF_SECONDS[min(attempt, len(_RECORD_BACKOFF_SECONDS) - 1)]
            )
            attempt += 1
        else:
            _report(log, outcome, recorded=recorded)
            return recorded


def _script(
    video_id: str, outcome: Outcome, *, first_poll: int, now: int
) -> Script[Recorded | bool]:
    match outcome:
        case Accepted():
            return (
                yield from record_accepted(
                    video_id, outcome, first_poll_at=now + first_poll, now=now
                )
            )
        case Refused(error=error):
            reason = f"refused:{error.code or error.status}"
            return (yield from record_refused(video_id, reason=reason, now=now))
        case NotSent(reason=reason):
            return (yield from record_refused(video_id, reason=f"not_sent:{reason}", now=now))
        case Unknown(reason=reason, request_ids=request_ids):
            return (
                yield from record_orphan(
                    video_id,
                    reason=reason,
                    request_ids=request_ids or RequestIds(provider=None, relay=None),
                    now=now,
                )
            )


def _report(
    log: structlog.typing.FilteringBoundLogger, outcome: Outcome, *, recorded: Recorded | bool
) -> None:
    facts = _facts(outcome)
    match outcome:
        case Accepted() if recorded is Recorded.FOLLOWED:
            log.info("submit_accepted", **facts)
        case Accepted():
            # A person must look: two videos claim one id, or one was billed after its release.
            log.error("submit_contradicted", how=Recorded(recorded).value, **facts)
        case Refused(error=error) if error.status >= 500:  # noqa: PLR2004 - server errors
            log.error("submit_refused", **facts)
        case Refused():
            log.info("submit_refused", **facts)
        case NotSent():
            log.warning("submit_not_sent", **facts)
        case Unknown():
            log.error("submit_outcome_unknown", **facts)


def _facts(outcome: Outcome) -> dict[str, Any]:
    match outcome:
        case Accepted(upstream_id=upstream_id, request_ids=ids):
            return {"upstream_id": upstream_id, **_ids(ids)}
        case Refused(error=error, request_ids=ids):
            return {"status": error.status, "code": error.code, **_ids(ids)}
        case NotSent(reason=reason):
            return {"reason": reason}
        case Unknown(reason=reason, request_ids=ids):
            return {"reason": reason, **_ids(ids)}


def _ids(ids: RequestIds | None) -> dict[str, str | None]:
    if ids is None:
        return {}
    return {"provider_request_id": ids.provider, "relay_request_id": ids.relay}


def _refusal(outcome: Outcome) -> GatewayError:
    match outcome:
        case Refused(error=error):
            return error
        case NotSent():
            return UpstreamUnreachable(
                "The upstream could not be reached. Nothing was sent and nothing is billed."
            )
        case Unknown(timed_out=timed_out):
            return OutcomeUnknown(UNKNOWN_MESSAGE, timed_out=timed_out)
    return OutcomeUnknown(UNKNOWN_MESSAGE)


async def _within(recording: "asyncio.Future[Recorded | bool]", seconds: float) -> Recorded | bool:
    done, _ = await asyncio.wait([recording], timeout=seconds)
    if not done:
        raise OutcomeUnknown(UNKNOWN_MESSAGE, timed_out=True)
    return recording.result()


def _hold(order: Order, account: Account, *, hold_id: str, rate_card: str) -> Hold:
    return Hold(
        id=hold_id,
        account=account,
        operation=order.operation,
        model="" if order.model is None else order.model.id,
        size=order.size,
        clip_seconds=order.clip_seconds,
        unit=order.rate.unit,
        rate_micros=order.rate.micros,
        rate_card_sha256=rate_card,
        images_micros=order.images_micros,
        moderated_is_billed=order.model is not None and order.model.moderated_is_billed,
        amount_micros=order.price_micros,
    )


UNKNOWN_MESSAGE: Final = (
    "Whether the upstream made this video is not known. Its price stays on hold until that is"
    " found out. Do not send the request again: the video may exist."
)
