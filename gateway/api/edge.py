"""What happens to every request, whatever it asks?

It gets a request id, its errors become OpenAI's envelope, it is counted, and it leaves one line in
the log. The path is routed as it was sent, percent-encoding and all: an id may hold a slash.
"""

import json
import re
from dataclasses import dataclass, field
from typing import Any, Final

import structlog
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from gateway.clock import Clock
from gateway.errors import GatewayError, InternalError, MethodNotAllowed, NotFound
from gateway.telemetry.metrics.edge import HttpMetrics

REQUEST_ID: Final = re.compile(r"[\w.-]{1,128}", re.ASCII)
_CALL: Final = "gateway.call"
_MILLISECOND_DIGITS: Final = 3
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(slots=True)
class Call:
    """One request on its way through.

    Attributes:
        request_id: the client's if it was well formed, else ours.
        facts: what its log line will say; handlers add to it.
        status: of the answer, once it has begun.
    """

    request_id: str
    facts: dict[str, Any] = field(default_factory=dict)
    status: int | None = None

    def headers(self) -> dict[str, str]:
        """Return the headers that every answer carries."""
        return {"x-request-id": self.request_id}


def call(request: Request) -> Call:
    """Return the Call of a request."""
    found: Call = request.scope[_CALL]
    return found


class Edge:
    """The outermost ASGI application of the API."""

    def __init__(self, app: ASGIApp, *, clock: Clock, metrics: HttpMetrics) -> None:
        self._app = app
        self._clock = clock
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass a request on, and answer what it raises."""
        begun = self._clock.elapsed()
        self._metrics.begun()
        current = Call(request_id=self._request_id(scope))
        scope[_CALL] = current
        # Of every line that the request leads to, also by work that outlives it.
        structlog.contextvars.bind_contextvars(request_id=current.request_id)
        # Starlette raises its 404 and 405, instead of answering in plain text, under an app.
        scope["app"] = self
        scope["path"] = scope["raw_path"].decode("ascii", "replace")

        async def answer(message: Message) -> None:
            if message["type"] == "http.response.start":
                current.status = message["status"]
                names = {name for name, _ in message["headers"]}
                message["headers"] = [
                    *message["headers"],
                    *(
                        (name.encode(), value.encode())
                        for name, value in current.headers().items()
                        if name.encode() not in names
                    ),
                ]
            await send(message)

        try:
            await self._app(scope, receive, answer)
        except ClientDisconnect:
            current.facts["ending"] = "client_left"
        except (GatewayError, HTTPException) as error:
            await self._answer_error(current, _told(error), answer)
        except Exception:  # noqa: BLE001 - one of the two edges; the log has it
            _log.exception("request_failed", request_id=current.request_id)
            await self._answer_error(
                current, InternalError("The gateway has a defect; its log says more."), answer
            )
        finally:
            seconds = self._clock.elapsed() - begun
            route = scope["route"].path if "route" in scope else None
            self._metrics.ended(scope["method"], route, current.status, seconds=seconds)
            _log.info(
                "request",
                request_id=current.request_id,
                method=scope["method"],
                route=route,
                status=current.status,
                duration_seconds=round(seconds, _MILLISECOND_DIGITS),
                **current.facts,
            )

    async def _answer_error(self, current: Call, error: GatewayError, send: Send) -> None:
        current.facts["error_code"] = error.code or error.type
        self._metrics.refused(error.reason())
        await _send_error(current, error, send)

    def _request_id(self, scope: Scope) -> str:
        for name, value in scope["headers"]:
            if name == b"x-request-id" and REQUEST_ID.fullmatch(value.decode("latin-1")):
                return str(value.decode("latin-1"))
        return self._clock.new_id("req")


def _told(error: GatewayError | HTTPException) -> GatewayError:
    if isinstance(error, GatewayError):
        return error
    if error.status_code == MethodNotAllowed.status:
        return MethodNotAllowed(
            "This path does not take that method.", headers=dict(error.headers or {})
        )
    return NotFound(
        "Unknown path. The API is at /v1/videos and /v1/organization, described at /openapi.json.",
        code="unknown_url",
    )


async def _send_error(current: Call, error: GatewayError, send: Send) -> None:
    if current.status is not None:
        return
    # The message may quote what the client sent: half a surrogate pair is no UTF-8.
    body = json.dumps(error.envelope(), ensure_ascii=False).encode(errors="replace")
    headers = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        **error.headers,
    }
    if not error.may_retry:
        headers["x-should-retry"] = "false"
    await send(
        {
            "type": "http.response.start",
            "status": error.status,
            "headers": [(name.lower().encode(), text.encode()) for name, text in headers.items()],
        }
    )
    await send({"type": "http.response.body", "body": body})
