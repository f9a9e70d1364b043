"""What did the upstream refuse, or leave unknown?"""

from collections.abc import Mapping
from typing import ClassVar

from gateway.errors.base import NO_HEADERS, GatewayError


class UpstreamRefused(GatewayError):
    """The upstream said no to the request itself, in its own words; nothing is billed."""

    type = "invalid_request_error"
    CLIENT_STATUSES: ClassVar[range] = range(400, 500)

    def __init__(
        self,
        message: str,
        *,
        status: int,
        type: str | None = None,  # noqa: A002 - OpenAI's own name for the field
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        super().__init__(message, param=param, code=code, headers=headers)
        self.status = status
        self.may_retry = status not in self.CLIENT_STATUSES
        self.type = type or ("server_error" if self.may_retry else "invalid_request_error")


class UpstreamUnreachable(GatewayError):
    """Nothing was sent: no connection to the upstream came about; the hold is released."""

    status = 502
    type = "upstream_error"
    code = "upstream_unreachable"
    may_retry = True


class UpstreamAuth(GatewayError):
    """The upstream does not accept the gateway's own key."""

    status = 502
    type = "upstream_error"
    code = "upstream_auth"


class UpstreamMisconfigured(GatewayError):
    """The upstream key lacks the group or the usage-based billing that these models need."""

    status = 502
    type = "upstream_error"
    code = "upstream_misconfigured"


class UpstreamBalance(GatewayError):
    """The account at the upstream has run out of money."""

    status = 503
    type = "upstream_error"
    code = "upstream_balance"


class UpstreamRateLimited(GatewayError):
    """The upstream's own rate limit; its Retry-After is passed on."""

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"
    may_retry = True


class OutcomeUnknown(GatewayError):
    """Whether the upstream made the video could not be found out; the hold is kept."""

    status = 502
    type = "upstream_error"
    code = "outcome_unknown"

    def __init__(
        self,
        message: str,
        *,
        timed_out: bool = False,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        super().__init__(message, headers=headers)
        self.status = 504 if timed_out else 502
