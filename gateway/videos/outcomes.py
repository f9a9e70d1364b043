"""What is written down, and what is said, about the outcome of a submit?

The upstream's answer is evidence that nobody else has, so writing it down is tried for as long as
the process lives, whether or not the client is still there.
"""

import asyncio
from functools import partial
from typing import Any, Final, TypeAlias

import structlog

from gateway.clock import Clock
from gateway.db.database import Database
from gateway.db.script import Script
from gateway.errors import DatabaseUnavailable, GatewayError, OutcomeUnknown, UpstreamUnreachable
from gateway.telemetry.metrics.videos import NOT_SENT, ORPHANED, REFUSED
from gateway.upstream.envelopes import RequestIds
from gateway.upstream.replies import Accepted, NotSent, Refused, Unknown
from gateway.videos.records import (
    Recorded,
    record_accepted,
    record_orphan,
    record_refused,
    says_over,
)

Outcome: TypeAlias = Accepted | Refused | NotSent | Unknown
UNKNOWN_MESSAGE: Final = (
    "Whether the upstream made this video is not known. Its price stays on hold until that is"
    " found out. Do not send the request again: the video may exist."
)
_RECORD_BACKOFF_SECONDS: Final = (0.1, 0.5, 1.0, 2.0, 5.0)


async def record(
    video_id: str,
    outcome: Outcome,
    *,
    database: Database,
    clock: Clock,
    first_poll_seconds: int,
    held_micros: int,
    log: structlog.typing.FilteringBoundLogger,
) -> Recorded | bool:
    """Write the outcome down, for as long as it takes while the process lives."""
    attempt, facts = 0, _facts(outcome)
    while True:
        now = clock.now()
        try:
            recorded = await database.run(
                partial(_script, video_id, outcome, first_poll=first_poll_seconds, now=now)
            )
        except DatabaseUnavailable as error:
            if attempt == 0:
                log.error("submit_not_recorded", **facts, cause=repr(error.__cause__))
            await asyncio.sleep(
                _RECORD_BACKOFF_SECONDS[min(attempt, len(_RECORD_BACKOFF_SECONDS) - 1)]
            )
            attempt += 1
        except Exception:
            # Not the database's fault: nobody but this line knows the id now.
            log.exception("submit_not_recorded", **facts)
            raise
        else:
            if recorded is True and isinstance(outcome, Refused | NotSent):
                facts["released_micros"] = held_micros
            _report(log.bind(**facts), outcome, recorded=recorded)
            return recorded


def _script(
    video_id: str, outcome: Outcome, *, first_poll: int, now: int
) -> Script[Recorded | bool]:
    match outcome:
        case Accepted():
            return (
                yield from record_accepted(
                    video_id,
                    outcome,
                    first_poll_at=now if says_over(outcome) else now + first_poll,
                    now=now,
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
    match outcome:
        case Accepted() if recorded is Recorded.FOLLOWED:
            log.info("submit_accepted")
        case Accepted():
            # A person must look: two videos claim one id, or one was billed after its release.
            log.error("submit_contradicted", how=Recorded(recorded).value)
        case Refused(error=error) if error.status >= 500:  # noqa: PLR2004 - server errors
            log.error("submit_refused")
        case Refused():
            log.info("submit_refused")
        case NotSent():
            log.warning("submit_not_sent")
        case Unknown():
            log.error("submit_outcome_unknown")


def _facts(outcome: Outcome) -> dict[str, Any]:
    facts = known_of(outcome)
    if isinstance(outcome, Refused):
        facts |= {"status": outcome.error.status, "code": outcome.error.code}
    return facts


def known_of(outcome: Outcome) -> dict[str, Any]:
    """Return what the log can say of an outcome: the upstream's ids, or why there are none."""
    match outcome:
        case Accepted(upstream_id=upstream_id, request_ids=ids):
            return {"upstream_id": upstream_id, **ids.known()}
        case Refused(request_ids=ids):
            return ids.known()
        case NotSent(reason=reason):
            return {"reason": reason}
        case Unknown(reason=reason, request_ids=ids):
            return {"reason": reason, **(ids or RequestIds()).known()}


def end_of(outcome: Outcome, *, recorded: Recorded | bool) -> str | None:
    """Return which end a submit was for its video, as it is counted; None: it goes on."""
    match outcome:
        case Refused():
            return REFUSED
        case NotSent():
            return NOT_SENT
        case Unknown():
            return ORPHANED
    return ORPHANED if recorded is Recorded.DUPLICATE else None


def refusal(outcome: Outcome) -> GatewayError:
    """Return what the client of an unsuccessful submit is told."""
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
