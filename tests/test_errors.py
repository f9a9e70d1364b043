"""Does each error say what the client is to hear, and may do?"""

import json

import pytest
from prometheus_client import CollectorRegistry
from starlette.types import Message, Receive, Scope, Send

from gateway import errors
from gateway.api.edge import Edge
from gateway.clock import system_clock
from gateway.errors import (
    GatewayError,
    InsufficientPermissions,
    ModelNotAllowed,
    PriceLimitExceeded,
    RateLimitExceeded,
)
from gateway.telemetry.metrics.edge import HttpMetrics


async def answer(error: GatewayError) -> tuple[int, dict[str, str], dict[str, object]]:
    """Return status, headers and error object of a request that raises an error."""
    sent: list[Message] = []

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        del scope, receive, send
        raise error

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        sent.append(message)

    scope = {"type": "http", "method": "POST", "raw_path": b"/v1/videos", "headers": []}
    edge = Edge(app, clock=system_clock(), metrics=HttpMetrics(CollectorRegistry()))
    await edge(scope, receive, send)
    start, body = sent
    headers = {name.decode(): value.decode() for name, value in start["headers"]}
    found: dict[str, object] = json.loads(body["body"])["error"]
    return start["status"], headers, found


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (InsufficientPermissions("No."), "insufficient_permissions"),
        (ModelNotAllowed("No.", param="model"), "model_not_found"),
        (PriceLimitExceeded("No."), "price_limit_exceeded"),
    ],
)
async def test_what_a_key_may_not_do_is_a_403_that_no_sdk_repeats(
    error: GatewayError, code: str
) -> None:
    status, headers, found = await answer(error)
    assert (status, headers["x-should-retry"]) == (403, "false")
    assert found == {
        "message": "No.",
        "type": "invalid_request_error",
        "param": error.param,
        "code": code,
    }


@pytest.mark.parametrize(
    ("retry_after_ms", "seconds", "may_retry"),
    [
        (0, "0", True),
        (1, "1", True),
        (1_000, "1", True),
        (1_001, "2", True),
        (60_000, "60", True),
        (60_001, "61", False),
        (86_400_000, "86400", False),
    ],
)
async def test_a_rate_limit_says_when_to_come_back_and_whether_an_sdk_should_wait(
    retry_after_ms: int, seconds: str, *, may_retry: bool
) -> None:
    error = RateLimitExceeded(
        "Slower.", retry_after_ms=retry_after_ms, headers={"x-ratelimit-limit-requests": "5"}
    )
    status, headers, found = await answer(error)
    assert (status, found["type"], found["code"]) == (
        429,
        "rate_limit_error",
        "rate_limit_exceeded",
    )
    assert (headers["retry-after-ms"], headers["retry-after"]) == (str(retry_after_ms), seconds)
    assert headers["x-ratelimit-limit-requests"] == "5"
    assert headers.get("x-should-retry") == (None if may_retry else "false")


def test_the_drawing_names_every_error_with_its_status() -> None:
    drawing = errors.__doc__ or ""
    for name in errors.__all__:
        made: type[GatewayError] = getattr(errors, name)
        varies = made in {GatewayError, errors.UpstreamRefused}
        assert (name if varies else f"{name} {made.status}") in drawing
    classes = {name for name, found in vars(errors).items() if isinstance(found, type)}
    assert classes == set(errors.__all__)
