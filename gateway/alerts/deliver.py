"""How does a spend alert get out of the outbox, once at least?

One turn: claim a delivery, send it, write down that it was received. What is true if the process
dies at each step:

| step             | the receiver has  | what happens then                                      |
|---|---|---|
| alert.claimed    | perhaps the alert | the lease ends, it is sent under the same id           |
| alert.sent       | the alert         | the same                                               |
| alert.recorded   | the alert         | nothing is left to do                                  |

A failure is tried again, ever more rarely, for three days; then an alarm rings.
"""

import asyncio
import ssl
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Final

import structlog

from gateway.alerts.failed import DeliveryFailed
from gateway.alerts.mail import MAIL_SECONDS, MailSettings, send_mail
from gateway.alerts.message import Channel, Email, read_channel
from gateway.alerts.outbox import (
    DeliveryClaim,
    claim_due,
    give_back,
    renew,
    write_delivered,
    write_failed,
    write_given_up,
)
from gateway.alerts.webhook import WEBHOOK_SECONDS, post_event
from gateway.clock import Clock
from gateway.db.database import Database
from gateway.errors import DatabaseUnavailable
from gateway.telemetry.metrics.alerts import DELIVERED, FAILED, GIVEN_UP, AlertMetrics
from gateway.telemetry.traces import UNTRACED, Tracer, traced_turn
from gateway.turns import LEASE_SECONDS, Loop, Turns

STEPS: Final = ("alert.claimed", "alert.sent", "alert.recorded")
CONCURRENCY: Final = 8
TURN_SECONDS: Final = 1.0
FIRST_WAIT_SECONDS: Final = 10
MAX_WAIT_SECONDS: Final = 3600
_DOUBLINGS: Final = 9
# Of the wait, added by chance: receivers that failed together are not asked together.
_JITTER: Final = 0.2
GIVE_UP_SECONDS: Final = 72 * 3600
# Why it failed, where nobody foresaw why.
DEFECT: Final = "defect"

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Delivering:
    """What deliveries are made with.

    Attributes:
        mail: None where no SMTP server is configured.
        webhook_secret: `whsec_` and base64; empty where none is configured.
        wake: set when a row has been put into the outbox.
        on_step: told the name of each of STEPS as it is reached.
        jitter: a float in [0, 1).
        tls: makes a context that verifies servers. Each delivery has its own: httpx writes its
            ALPN protocol into the context it is given, and a mail server may refuse that.
        mail_seconds, webhook_seconds: deadlines.
    """

    database: Database
    clock: Clock
    mail: MailSettings | None
    webhook_secret: str = field(repr=False)
    wake: asyncio.Event
    on_step: Callable[[str], None]
    jitter: Callable[[], float]
    metrics: AlertMetrics
    tracer: Tracer = UNTRACED
    tls: Callable[[], ssl.SSLContext] = ssl.create_default_context
    mail_seconds: float = MAIL_SECONDS
    webhook_seconds: float = WEBHOOK_SECONDS


async def deliver_forever(delivering: Delivering) -> None:
    """Deliver alerts until cancelled."""
    turns = Turns(
        Loop(
            name="alerts",
            concurrency=CONCURRENCY,
            idle_seconds=TURN_SECONDS,
            wake=delivering.wake,
            claim=partial(_claim, delivering),
            renew=partial(_renew, delivering),
            turn=traced_turn(delivering.tracer, "alert", partial(deliver, delivering)),
            give_back=partial(_give_back, delivering),
        )
    )
    await turns.run()


async def _claim(delivering: Delivering, limit: int) -> list[DeliveryClaim]:
    now = delivering.clock.now()
    return await delivering.database.run_beside(
        partial(claim_due, limit=limit, lease_ends_at=now + LEASE_SECONDS, now=now)
    )


async def _renew(delivering: Delivering, claim: DeliveryClaim) -> bool:
    lease_ends_at = delivering.clock.now() + LEASE_SECONDS
    return await delivering.database.run_beside(partial(renew, claim, lease_ends_at=lease_ends_at))


async def _give_back(delivering: Delivering, claims: Sequence[DeliveryClaim]) -> None:
    await delivering.database.run_beside(partial(give_back, claims, now=delivering.clock.now()))


async def deliver(delivering: Delivering, claim: DeliveryClaim) -> None:
    """Make one claimed delivery, or write down why it failed and when it is tried again."""
    delivering.on_step("alert.claimed")
    begun = delivering.clock.elapsed()

    def timed() -> structlog.typing.FilteringBoundLogger:
        return _log.bind(
            **claim.log_facts,
            attempt=claim.attempts,
            duration_seconds=round(delivering.clock.elapsed() - begun, 3),
        )

    try:
        note = await _send(delivering, claim, _channel(claim))
        await _delivered(delivering, claim, note, log=timed())
    except DeliveryFailed as error:
        await _fail(delivering, claim, error.reason, log=timed())
    except DatabaseUnavailable:
        # The lease ends, and it is tried again once there is a database to write into.
        raise
    # One turn: a defect would else come again at the end of every lease, for ever and unheard.
    except Exception:
        log = timed()
        if claim.failure != DEFECT:
            log.exception("alert_defect")
        await _fail(delivering, claim, DEFECT, log=log)


def next_due(*, attempts: int, created_at: int, now: int, chance: float) -> int | None:
    """Return when a delivery that failed is tried again, or None when it is given up.

    The last try is GIVE_UP_SECONDS after the alert, or the first one after that.
    """
    gives_up_at = created_at + GIVE_UP_SECONDS
    if now >= gives_up_at:
        return None
    wait_seconds = min(FIRST_WAIT_SECONDS << min(attempts - 1, _DOUBLINGS), MAX_WAIT_SECONDS)
    return min(now + wait_seconds + int(wait_seconds * _JITTER * chance), gives_up_at)


async def _delivered(
    delivering: Delivering,
    claim: DeliveryClaim,
    note: str | None,
    *,
    log: structlog.typing.FilteringBoundLogger,
) -> None:
    delivering.on_step("alert.sent")
    script = partial(write_delivered, claim, note=note, now=delivering.clock.now())
    if await delivering.database.run(script):
        delivering.metrics.tried(DELIVERED)
        log.info("alert_delivered", failure=note)
    delivering.on_step("alert.recorded")


def _channel(claim: DeliveryClaim) -> Channel:
    try:
        return read_channel(claim.channel)
    except ValueError as error:
        raise DeliveryFailed("channel_unknown") from error


async def _send(delivering: Delivering, claim: DeliveryClaim, channel: Channel) -> str | None:
    tls = await asyncio.to_thread(delivering.tls)  # it reads the certificates of the system
    if isinstance(channel, Email):
        if delivering.mail is None:
            raise DeliveryFailed("smtp_host_missing")
        return await send_mail(
            claim.crossing,
            channel,
            settings=delivering.mail,
            tls=tls,
            seconds=delivering.mail_seconds,
        )
    await post_event(
        claim.crossing,
        channel.url,
        secret=delivering.webhook_secret,
        now=delivering.clock.now(),
        tls=tls,
        seconds=delivering.webhook_seconds,
    )
    return None


async def _fail(
    delivering: Delivering,
    claim: DeliveryClaim,
    failure: str,
    *,
    log: structlog.typing.FilteringBoundLogger,
) -> None:
    now = delivering.clock.now()
    due_at = next_due(
        attempts=claim.attempts,
        created_at=claim.crossing.created_at,
        now=now,
        chance=delivering.jitter(),
    )
    if due_at is None:
        # Somebody wanted to know that money is spent and never will: a person has to tell them.
        delivering.metrics.tried(GIVEN_UP)
        log.error("alert_not_delivered", failure=failure)
        await delivering.database.run(partial(write_given_up, claim, failure=failure, now=now))
        return
    delivering.metrics.tried(FAILED)
    if failure != claim.failure:
        # The first of its kind: three days of the same reason are one line.
        log.warning("alert_delivery_failed", failure=failure, retry_seconds=due_at - now)
    await delivering.database.run(partial(write_failed, claim, failure=failure, due_at=due_at))
