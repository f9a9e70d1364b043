"""What is the gateway itself unable to do?"""

from gateway.errors.base import GatewayError


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
