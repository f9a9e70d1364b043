"""What can go wrong, and what does the client see of it?

A closed set; each class fixes HTTP status, type, code and whether a client may retry (of
RateLimitExceeded, the length of the wait decides that).

    GatewayError
    ├── client.py, the client's: InvalidRequest 400 · InvalidApiKey 401 ·
    │     InsufficientPermissions 403 · ModelNotAllowed 403 · PriceLimitExceeded 403 ·
    │     NotFound 404 · MethodNotAllowed 405 · OperationNotOffered 400 · RequestTimeout 408 ·
    │     RequestTooLarge 413 · IdempotencyKeyReused 422 · ContentExpired 410 ·
    │     BudgetExceeded 429 · RateLimitExceeded 429
    ├── upstream.py, the upstream's: UpstreamRefused (passed on) · UpstreamUnreachable 502 ·
    │     UpstreamAuth 502 · UpstreamMisconfigured 502 · UpstreamBalance 503 ·
    │     UpstreamRateLimited 429 · OutcomeUnknown 502/504
    └── own.py, ours: DatabaseUnavailable 503 · StoreUnavailable 503 · ContentPending 409 ·
          Draining 503 · InternalError 500

"No" and "could not find out" are different answers: only OutcomeUnknown and DatabaseUnavailable
say the second. Fixed words go to the client, the detail goes to the log.
"""

from gateway.errors.base import GatewayError
from gateway.errors.client import (
    BudgetExceeded,
    ContentExpired,
    IdempotencyKeyReused,
    InsufficientPermissions,
    InvalidApiKey,
    InvalidRequest,
    MethodNotAllowed,
    ModelNotAllowed,
    NotFound,
    OperationNotOffered,
    PriceLimitExceeded,
    RateLimitExceeded,
    RequestTimeout,
    RequestTooLarge,
)
from gateway.errors.own import (
    ContentPending,
    DatabaseUnavailable,
    Draining,
    InternalError,
    StoreUnavailable,
)
from gateway.errors.upstream import (
    OutcomeUnknown,
    UpstreamAuth,
    UpstreamBalance,
    UpstreamMisconfigured,
    UpstreamRateLimited,
    UpstreamRefused,
    UpstreamUnreachable,
)

__all__ = [
    "BudgetExceeded",
    "ContentExpired",
    "ContentPending",
    "DatabaseUnavailable",
    "Draining",
    "GatewayError",
    "IdempotencyKeyReused",
    "InsufficientPermissions",
    "InternalError",
    "InvalidApiKey",
    "InvalidRequest",
    "MethodNotAllowed",
    "ModelNotAllowed",
    "NotFound",
    "OperationNotOffered",
    "OutcomeUnknown",
    "PriceLimitExceeded",
    "RateLimitExceeded",
    "RequestTimeout",
    "RequestTooLarge",
    "StoreUnavailable",
    "UpstreamAuth",
    "UpstreamBalance",
    "UpstreamMisconfigured",
    "UpstreamRateLimited",
    "UpstreamRefused",
    "UpstreamUnreachable",
]
