"""What is the client's to change?"""

from collections.abc import Mapping
from typing import Final

from gateway.errors.base import NO_HEADERS, GatewayError

# Told of a longer wait, JavaScript's SDK comes back on its own backoff, too early, only to be
# refused again; Python's waits up to two minutes, and above that does not come back at all.
LONGEST_RETRY_WAIT_MS: Final = 60_000


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


class InsufficientPermissions(_ClientError):
    """A key that may only read asked for something billable; nothing was held."""

    status = 403
    code = "insufficient_permissions"


class ModelNotAllowed(_ClientError):
    """The model exists, and this key or its project may not buy it; nothing was held."""

    status = 403
    code = "model_not_found"


class PriceLimitExceeded(_ClientError):
    """The request costs more than this key or its project may spend on one; nothing was held."""

    status = 403
    code = "price_limit_exceeded"


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


class RateLimitExceeded(GatewayError):
    """A limit per minute was reached; nothing was held and nothing forwarded.

    The answer says when there is room again, in `retry-after-ms` and, rounded up, `retry-after`.
    """

    status = 429
    type = "rate_limit_error"
    code = "rate_limit_exceeded"

    def __init__(
        self, message: str, *, retry_after_ms: int, headers: Mapping[str, str] = NO_HEADERS
    ) -> None:
        wait = {
            "retry-after-ms": str(retry_after_ms),
            "retry-after": str(-(-retry_after_ms // 1000)),
        }
        super().__init__(message, headers={**headers, **wait})
        self.may_retry = retry_after_ms <= LONGEST_RETRY_WAIT_MS
