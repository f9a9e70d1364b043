"""What can go wrong, and what does the client see of it?

A closed set; each class fixes HTTP status, type, code and whether a client may retry.

    GatewayError
    ├── the client's: InvalidRequest 400 · InvalidApiKey 401 · NotFound 404 ·
    │     MethodNotAllowed 405 · OperationNotOffered 400 · RequestTimeout 408 ·
    │     RequestTooLarge 413 · IdempotencyKeyReused 422 · BudgetExceeded 429 · ContentExpired 410
    ├── the upstream's: UpstreamRefused (passed on) · UpstreamUnreachable 502 · UpstreamAuth 502 ·
    │     UpstreamMisconfigured 502 · UpstreamBalance 503 · UpstreamRateLimited 429 ·
    │     OutcomeUnknown 502/504
    └── ours: DatabaseUnavailable 503 · StoreUnavailable 503 · ContentPending 409 ·
          Draining 503 · InternalError 500

"No" and "could not find out" are different answers: only OutcomeUnknown and DatabaseUnavailable
say the second. Fixed words go to the client, the detail goes to the log.
"""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any, ClassVar

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})


class GatewayError(Exception):
    """An answer that is not a success, in OpenAI's envelope.

    Attributes:
        status: the HTTP status.
        type: OpenAI's error type.
        code: OpenAI's error code, or None.
        param: the parameter at fault, or None.
        may_retry: False puts `x-should-retry: false` on the answer, because the SDKs send
            408, 409, 429 and 5xx again by themselves.
        headers: further headers of the answer.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = None
    may_retry: bool = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers
        if code is not None:
            self.code = code

    def envelope(self) -> dict[str, Any]:
        """Return OpenAI's error object: message, type, param and code, always all four."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


class _ClientError(GatewayError):
    type = "invalid_request_error"


class InvalidRequest(_ClientError):
    """A parameter is wrong; nothing was held and nothing forwarded."""

    status = 400
    code = "invalid_value"


class InvalidApiKey(_ClientError):
    """No such key, or a key of the wrong kind: never a hint which."""

    status = 401
    code = "invalid_api_key"


class NotFound(_ClientError):
    """No such path, or no such video in this project."""

    status = 404


class MethodNotAllowed(_ClientError):
    """The path exists, the method does not."""

    status = 405
    code = "method_not_allowed"


class OperationNotOffered(_ClientError):
    """The API, or the upstream behind it, has no such operation; nothing was forwarded."""

    status = 400
    code = "operation_not_offered"


class RequestTimeout(_ClientError):
    """The body stopped coming; nothing was held and nothing forwarded."""

    status = 408
    code = "request_timeout"
    may_retry = True


class RequestTooLarge(_ClientError):
    """The body is over its limit; it was refused while it streamed."""

    status = 413
    code = "request_too_large"


class IdempotencyKeyReused(_ClientError):
    """An idempotency key was used for other fields; nothing was held and nothing forwarded."""

    status = 422
    code = "idempotency_key_reused"


class ContentExpired(_ClientError):
    """The content was evicted, or was never mirrored before the upstream's copy expired."""

    status = 410
    code = "content_expired"


class BudgetExceeded(GatewayError):
    """A budget refused the hold; nothing was held and nothing forwarded."""

    status = 429
    type = "insufficient_quota"
    code = "insufficient_quota"


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
        headers: Mapping[str, str] = _NO_HEADERS,
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
        headers: Mapping[str, str] = _NO_HEADERS,
    ) -> None:
        super().__init__(message, headers=headers)
        self.status = 504 if timed_out else 502


class DatabaseUnavailable(GatewayError):
    """The database could not be reached or could not write."""

    status = 503
    code = "database_unavailable"
    may_retry = True


class StoreUnavailable(GatewayError):
    """The content store could not be reached or could not write."""

    status = 503
    code = "store_unavailable"
    may_retry = True


class ContentPending(GatewayError):
    """The video is completed and its content is still being mirrored: ask again."""

    status = 409
    type = "invalid_request_error"
    code = "content_pending"
    may_retry = True


class Draining(GatewayError):
    """The process is going down; another one will answer."""

    status = 503
    code = "draining"
    may_retry = True


class InternalError(GatewayError):
    """A defect of the gateway; the log has the rest."""

    status = 500
    code = "internal_error"
