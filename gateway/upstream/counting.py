"""As what is an answer of an upstream counted? One of telemetry's outcomes."""

import httpx

from gateway.telemetry.metrics.upstream import (
    MISSING,
    NOT_SENT,
    OK,
    REFUSALS,
    REFUSED,
    UNCLEAR,
    UNKNOWN,
)
from gateway.upstream.content import ContentUnavailable
from gateway.upstream.replies import Accepted, Found, Missing, NotSent, Refused, Unclear, Unknown

NEVER_SENT = (
    httpx.PoolTimeout,
    httpx.ConnectTimeout,
    httpx.ConnectError,
    httpx.UnsupportedProtocol,
)
_MISSING_STATUSES = (404, 410)
# A poll's reason is told by its status alone: what a 403 is about, only a submit finds out.
_REASONS = {"auth": "auth", "rate_limited": "rate_limited", "forbidden": "misconfigured"}


def of_submit(outcome: Accepted | Refused | NotSent | Unknown) -> str:
    """Return what became of a submit."""
    match outcome:
        case Accepted():
            return OK
        case Refused(error=error):
            return REFUSALS.get(error.reason(), REFUSED)
        case NotSent():
            return NOT_SENT
    return UNKNOWN


def of_retrieve(found: Found | Missing | Unclear) -> str:
    """Return what a poll was told."""
    match found:
        case Found():
            return OK
        case Missing():
            return MISSING
    return _REASONS.get(found.reason, UNCLEAR)


def of_failure(error: httpx.TransportError) -> str:
    """Return what is known of an unbilled question that was not answered."""
    return NOT_SENT if isinstance(error, NEVER_SENT) else UNCLEAR


def of_content(error: ContentUnavailable) -> str:
    """Return why a download did not begin."""
    if error.status in _MISSING_STATUSES:
        return MISSING
    cause = error.__cause__
    return of_failure(cause) if isinstance(cause, httpx.TransportError) else UNCLEAR
