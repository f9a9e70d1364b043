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
from typing import Any, Final

import structlog

from gateway.billing.money import Basis
from gateway.billing.usable_keys import Key
from gateway.clock import Clock
from gateway.db.database import Database
from gateway.errors import DatabaseUnavailable, OutcomeUnknown
from gateway.telemetry.metrics.videos import VideoMetrics
from gateway.telemetry.traces import traceparent_under_way
from gateway.upstream.client import Body, Upstream
from gateway.upstream.replies import Accepted, NotSent
from gateway.videos.admission import NOT_ADMITTED, Admitted, refused
from gateway.videos.attempts import Earlier, Intent
from gateway.videos.forwarding import forward
from gateway.videos.opening import Submit, open_submit, submit_of
from gateway.videos.order import Order
from gateway.videos.outcomes import UNKNOWN_MESSAGE, Outcome, end_of, known_of, record, refusal
from gateway.videos.records import Recorded, first_answer
from gateway.work import Work

STEPS: Final = ("submit.held", "submit.sending", "submit.answered", "submit.recorded")
# Beyond the deadline of the POST itself: tries to connect, a slow upload, the record.
LEASE_MARGIN_SECONDS: Final = 120

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Means:
    """What a submit works with.

    Attributes:
        reply_seconds: how long a client waits for the record once the upstream has answered.
        first_poll_seconds: how long after the record the first poll is due.
        disclose_budgets: whether a key holder may see the organization's figures.
        budget_basis: money.LIST or money.COST.
        on_step: told the name of each of STEPS as it is reached.
    """

    database: Database
    work: Work
    clock: Clock
    on_step: Callable[[str], None]
    reply_seconds: float
    first_poll_seconds: int
    disclose_budgets: bool
    budget_basis: str
    metrics: VideoMetrics

    def basis(self, upstream: Upstream) -> Basis:
        """Return what budgets act on where an upstream is paid."""
        return Basis(self.budget_basis, upstream.settings.cost_multiplier_ppm)


@dataclass(frozen=True, slots=True)
class Submitted:
    """A video that was bought and written down.

    Attributes:
        answer: what the client gets, JSON.
        price_micros: what was held, on the basis that budgets act on.
        admitted: how the limits stood when the hold was taken.
    """

    video_id: str
    accepted: Accepted
    answer: str
    price_micros: int
    admitted: Admitted


async def submit(
    means: Means,
    order: Order,
    body: Body,
    *,
    key: Key,
    video_id: str,
    intent: Intent,
    upstream: Upstream,
    rate_card_sha256: str,
    facts: dict[str, Any],
) -> Submitted | Earlier:
    """Hold the price, forward the order, write down what happened.

    On return the video is bought, its hold durable and its id recorded; or an earlier attempt
    answers for this one, and nothing was held and nothing sent. What the line of the request is to
    say of it is added to `facts` as it becomes known, whatever the end.

    Raises:
        BudgetExceeded, RateLimitExceeded, ModelNotAllowed, PriceLimitExceeded, InvalidApiKey,
            IdempotencyKeyReused: nothing was held and nothing sent.
        UpstreamUnreachable, or what the upstream refused with: the hold is released.
        OutcomeUnknown: the hold is kept.
        DatabaseUnavailable: nothing was sent.
    """
    # After that less of the lease is left than the POST may take.
    begin_by = means.clock.elapsed() + LEASE_MARGIN_SECONDS
    now = means.clock.now()
    opened = submit_of(
        order,
        key=key,
        video_id=video_id,
        hold_id=means.clock.new_id("hold"),
        intent=intent,
        upstream=upstream.settings.name,
        basis=means.basis(upstream),
        rate_card_sha256=rate_card_sha256,
        lease_seconds=int(upstream.settings.post_seconds + LEASE_MARGIN_SECONDS),
        traceparent=traceparent_under_way(),
        now=now,
    )
    log = _log.bind(**opened.log_facts, project=key.project_name)
    admitted = await _take_hold(means, opened, order, now=now, log=log)
    if isinstance(admitted, Earlier):
        return admitted
    facts |= opened.log_facts
    _count_bought(means, opened)
    means.on_step("submit.held")
    begun = means.clock.elapsed()
    outcome = await forward(
        upstream,
        order.path,
        body,
        clock=means.clock,
        on_step=means.on_step,
        begin_by=begin_by,
        log=log,
    )
    facts |= known_of(outcome)
    log = log.bind(duration_seconds=round(means.clock.elapsed() - begun, 3))
    means.on_step("submit.answered")
    recording = means.work.start(_recorded(means, opened, outcome, log=log))
    recorded = await _within(recording, means.reply_seconds)
    means.on_step("submit.recorded")
    if isinstance(outcome, Accepted) and recorded is not Recorded.DUPLICATE:
        answer = first_answer(outcome, kind=order.kind, fields=opened.fields, created_at=now)
        price_micros = opened.hold.amount_micros
        return Submitted(opened.video_id, outcome, answer, price_micros, admitted)
    raise refusal(outcome)


async def _take_hold(
    means: Means,
    opened: Submit,
    order: Order,
    *,
    now: int,
    log: structlog.typing.FilteringBoundLogger,
) -> Admitted | Earlier:
    try:
        return await means.database.run(partial(open_submit, opened, now=now))
    except DatabaseUnavailable:
        # The hold may have been taken all the same; nothing was or will be sent for it.
        outcome = NotSent("hold_not_confirmed")
        means.work.start(_recorded(means, opened, outcome, log=log))
        raise
    except NOT_ADMITTED as error:
        raise refused(
            error, order, basis=opened.hold.basis, disclose=means.disclose_budgets, now=now
        ) from error


async def _recorded(
    means: Means, opened: Submit, outcome: Outcome, *, log: structlog.typing.FilteringBoundLogger
) -> Recorded | bool:
    recorded = await record(
        opened.video_id,
        outcome,
        database=means.database,
        clock=means.clock,
        first_poll_seconds=means.first_poll_seconds,
        held_micros=opened.hold.amount_micros,
        log=log,
    )
    end = end_of(outcome, recorded=recorded)
    if end is not None:
        means.metrics.ended(opened.hold.model, end)
    return recorded


def _count_bought(means: Means, opened: Submit) -> None:
    hold = opened.hold
    means.metrics.bought(
        hold.operation, model=hold.model, size=hold.size, clip_seconds=hold.clip_seconds
    )


async def _within(recording: "asyncio.Future[Recorded | bool]", seconds: float) -> Recorded | bool:
    done, _ = await asyncio.wait([recording], timeout=seconds)
    if not done:
        raise OutcomeUnknown(UNKNOWN_MESSAGE, timed_out=True)
    return recording.result()
