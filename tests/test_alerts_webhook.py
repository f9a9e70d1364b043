"""Does a webhook get what it can verify, and is only a 2xx a receipt?"""

import asyncio
import json
import ssl
import time
from collections.abc import Callable, Coroutine
from typing import Any

import httpx
import openai
import pytest
import trustme
import uvloop
from mail_tools import NOW, SECRET
from test_alerts_message import crossing
from test_upstream_server import (
    Act,
    Server,
    answer_and_close,
    close_unread,
    reply,
    reset,
    serving,
    silence,
)

from gateway.alerts.failed import DeliveryFailed
from gateway.alerts.message import Crossing, event
from gateway.alerts.webhook import is_hook, post_event, secret_key

LOOPS = [asyncio.new_event_loop, uvloop.new_event_loop]


def run(loop: Callable[[], asyncio.AbstractEventLoop], case: Coroutine[Any, Any, None]) -> None:
    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(case)


async def post(
    url: str,
    *,
    of: Crossing | None = None,
    secret: str = SECRET,
    tls: ssl.SSLContext | None = None,
    now: int = NOW,
    seconds: float = 20.0,
) -> None:
    await post_event(
        of or crossing(),
        url,
        secret=secret,
        now=now,
        tls=tls or ssl.create_default_context(),
        seconds=seconds,
    )


def received(request: bytes) -> tuple[dict[str, str], bytes]:
    """Return headers and body of a request."""
    head, _, body = request.partition(b"\r\n\r\n")
    lines = [line.partition(":") for line in head.decode().split("\r\n")[1:]]
    return {name.lower(): value.strip() for name, _, value in lines}, body


async def test_the_official_sdk_unwraps_what_is_posted() -> None:
    now = int(time.time())
    async with serving([answer_and_close(reply())]) as server:
        await post(f"{server.url}/hook?a=b", of=crossing(name="Stüdio\n"), now=now)
    (request,) = server.requests
    assert request.startswith(b"POST /hook?a=b HTTP/1.1\r\n")
    headers, body = received(request)
    client = openai.OpenAI(api_key="sk-none")
    got: Any = client.webhooks.unwrap(body, headers, secret=SECRET)
    assert got.to_dict() == json.loads(event(crossing(name="Stüdio\n")))
    assert (headers["webhook-id"], headers["webhook-timestamp"]) == (got.id, str(now))
    assert "." not in got.id
    assert headers["content-type"] == "application/json"
    for spoilt in (body + b" ", body.replace(b"10.00", b"90.00")):
        with pytest.raises(openai.InvalidWebhookSignatureError):
            client.webhooks.unwrap(spoilt, headers, secret=SECRET)
    client.close()


@pytest.mark.parametrize("status", ["200 OK", "202 Accepted", "204 No Content", "299 Fine"])
async def test_a_2xx_is_a_receipt_whatever_follows(status: str) -> None:
    # Announced and never sent: nobody waits for the body.
    head = f"HTTP/1.1 {status}\r\ncontent-length: 1000000000\r\n\r\n".encode()
    whole = f"HTTP/1.1 {status}\r\nconnection: close\r\n\r\n".encode()
    async with serving([answer_and_close(head), answer_and_close(whole)]) as server:
        await post(server.url)
        await post(server.url)
    assert len(server.requests) == 2


@pytest.mark.parametrize("status", [199, 301, 302, 303, 307, 308, 400, 404, 410, 429, 500, 503])
async def test_every_other_status_is_a_failure(status: int) -> None:
    async with serving([answer_and_close(reply(f"{status} Something"))]) as server:
        with pytest.raises(DeliveryFailed) as failure:
            await post(server.url)
    # 1xx is no answer yet, and none followed.
    assert failure.value.reason == (
        "webhook_broken_off" if status < 200 else f"webhook_status {status}"
    )


async def test_a_redirect_is_never_followed() -> None:
    async with serving([answer_and_close(reply())]) as elsewhere:
        moved = reply("307 Temporary Redirect", headers=f"location: {elsewhere.url}/\r\n")
        async with serving([answer_and_close(moved)]) as server:
            with pytest.raises(DeliveryFailed, match="webhook_status 307"):
                await post(server.url)
    assert elsewhere.connections == 0


async def endless(peer: Any) -> None:
    """Answer with headers that never end."""
    await peer.read_request()
    await peer.send(b"HTTP/1.1 200 OK\r\n")
    while not peer.writer.is_closing():
        await peer.send(b"x-more: " + b"a" * 1000 + b"\r\n")


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("act", "reason"),
    [
        (silence, "webhook_timeout"),
        (reset, "webhook_broken_off"),
        (close_unread, "webhook_broken_off"),
        (answer_and_close(b""), "webhook_broken_off"),
        (answer_and_close(b"220 mail.example.com ESMTP\r\n"), "webhook_broken_off"),
        (endless, "webhook_broken_off"),
    ],
)
def test_no_answer_is_a_failure(
    act: Act, reason: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def case() -> None:
        async with serving([act]) as server:
            with pytest.raises(DeliveryFailed) as failure:
                await post(server.url, seconds=1.0 if act is silence else 20.0)
            assert failure.value.reason == reason

    run(loop, case())


@pytest.mark.parametrize("loop", LOOPS)
@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://127.0.0.1:1/", "webhook_unreachable"),
        ("http://nowhere.invalid/", "webhook_unreachable"),
        (f"http://{'a' * 70}.invalid/", "webhook_unreachable"),
        ("http://127.0.0.1:99999/", "webhook_url"),
        ("http://[::1", "webhook_url"),
        ("http:///path", "webhook_url"),
        ("http://127.0.0.1/\r\nx-evil: 1", "webhook_url"),
        ("ftp://127.0.0.1/", "webhook_url"),
        ("http://xn--a/", "webhook_url"),
        ("file:///etc/passwd", "webhook_url"),
        ("hook", "webhook_url"),
        ("", "webhook_url"),
    ],
)
def test_a_url_that_leads_nowhere_is_a_failure(
    url: str, reason: str, loop: Callable[[], asyncio.AbstractEventLoop]
) -> None:
    async def case() -> None:
        with pytest.raises(DeliveryFailed) as failure:
            await post(url)
        assert failure.value.reason == reason

    run(loop, case())


async def test_the_environment_names_no_proxy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    monkeypatch.setenv("ALL_PROXY", "http://127.0.0.1:1")
    async with serving([answer_and_close(reply())]) as server:
        await post(server.url)
    assert len(server.requests) == 1


@pytest.mark.parametrize("loop", LOOPS)
def test_a_certificate_nobody_vouches_for_is_refused(
    loop: Callable[[], asyncio.AbstractEventLoop],
) -> None:
    async def case() -> None:
        authority = trustme.CA()
        context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
        authority.issue_cert("localhost").configure_cert(context)
        script = Server([answer_and_close(reply())])
        listener = await asyncio.start_server(script.serve, "127.0.0.1", 0, ssl=context)
        port = listener.sockets[0].getsockname()[1]
        trusting = ssl.create_default_context()
        authority.configure_trust(trusting)
        with pytest.raises(DeliveryFailed, match="webhook_certificate"):
            await post(f"https://localhost:{port}/")
        with pytest.raises(DeliveryFailed, match="webhook_certificate"):
            await post(f"https://127.0.0.1:{port}/", tls=trusting)
        assert script.requests == []
        await post(f"https://localhost:{port}/", tls=trusting)
        assert len(script.requests) == 1
        listener.close()
        await script.until(lambda: script.closed == script.connections)

    run(loop, case())


@pytest.mark.parametrize(
    ("secret", "reason"),
    [
        ("", "webhook_secret_missing"),
        (SECRET.removeprefix("whsec_"), "webhook_secret_invalid"),
        ("whsec_", "webhook_secret_invalid"),
        ("whsec_MDEy", "webhook_secret_invalid"),
        ("whsec_not base64, not at all, never", "webhook_secret_invalid"),
        ("whsec_äöü", "webhook_secret_invalid"),
    ],
)
async def test_nothing_is_sent_unsigned(secret: str, reason: str) -> None:
    async with serving([]) as server:
        with pytest.raises(DeliveryFailed) as failure:
            await post(server.url, secret=secret)
    assert failure.value.reason == reason
    assert server.connections == 0
    if secret:
        with pytest.raises(ValueError, match="must be whsec_"):
            secret_key(secret)


async def test_a_password_in_the_url_is_sent_as_a_login() -> None:
    async with serving([answer_and_close(reply())]) as server:
        await post(f"http://ann:secret@127.0.0.1:{server.port}/")
    headers, _ = received(server.requests[0])
    assert headers["authorization"] == httpx.BasicAuth("ann", "secret")._auth_header


@pytest.mark.parametrize(
    ("url", "answer"),
    [
        ("https://example.com/hook?to=us", True),
        ("HTTP://example.com", True),
        ("http://[::1]:8080/", True),
        ("https://müller.example/", True),
        ("http://xn--a/", False),
        ("http://\u200d/", False),
        ("http://[::1", False),
        ("http://a b/", False),
        ("http://a:b/", False),
        ("http://a:99999/", False),
        ("http://a/\n", False),
        ("http:///path", False),
        ("ftp://a/", False),
        ("https://ann:secret@example.com/", False),
        ("https://ann@example.com/", False),
        ("https://:@example.com/", False),
        ("https://@example.com/", False),
        ("http://ann\\@example.com/", False),
        ("", False),
    ],
)
def test_a_hook_is_a_url_that_can_be_posted_to_and_holds_no_login(url: str, answer: bool) -> None:  # noqa: FBT001 - a table of cases
    assert is_hook(url) is answer
