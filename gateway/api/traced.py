"""What is told of a request, in OpenTelemetry's words?

Around everything else, so that all that a request does, and the line that it leaves in the log, is
within its span. The caller's trace is continued. Of the address the route's template is told, not
the path: that may hold anything. The facts are those of the log line.
"""

from http import HTTPStatus
from typing import Final

from starlette.requests import Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.api.edge import call
from gateway.telemetry.logs import leave_out_sentences
from gateway.telemetry.metrics.edge import METHODS
from gateway.telemetry.traceparent import HEADER, read_traceparent
from gateway.telemetry.traces import OURS, Fact, Span, Tracer

_HEADER: Final = HEADER.encode()
_OTHER_METHOD: Final = "_OTHER"
# What a span is called whose method is none of those.
_OTHER_NAME: Final = "HTTP"


class Traced:
    """An ASGI application as good as the one within, an Edge, whose requests are spans."""

    def __init__(self, app: ASGIApp, tracer: Tracer) -> None:
        self._app = app
        self._tracer = tracer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, within its span."""
        with self._tracer.request(_name(scope), traceparent=_traceparent(scope)) as span:
            try:
                await self._app(scope, receive, send)
            finally:
                if span.is_recorded:
                    _tell(span, scope)


def _traceparent(scope: Scope) -> str | None:
    # Two of them are none: nobody knows whom to follow.
    found = [value for name, value in scope["headers"] if name == _HEADER]
    return read_traceparent(found[0].decode("latin-1")) if len(found) == 1 else None


def _name(scope: Scope) -> str:
    return scope["method"] if scope["method"] in METHODS else _OTHER_NAME


def _tell(span: Span, scope: Scope) -> None:
    current = call(Request(scope))
    ours = dict(current.facts)
    leave_out_sentences(ours)
    facts: dict[str, Fact] = {
        "http.request.method": scope["method"] if scope["method"] in METHODS else _OTHER_METHOD,
        "url.scheme": scope["scheme"],
        f"{OURS}request_id": current.request_id,
    }
    facts |= {f"{OURS}{name}": fact for name, fact in ours.items() if fact is not None}
    if "route" in scope:
        route = scope["route"].path
        span.rename(f"{_name(scope)} {route}")
        facts["http.route"] = route
    if current.status is not None:
        facts["http.response.status_code"] = current.status
        if current.status >= HTTPStatus.INTERNAL_SERVER_ERROR:
            span.fail(str(current.status))
    span.note(facts)
