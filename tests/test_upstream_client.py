"""What does the client put on the wire, and what does it make of what comes back?"""

import asyncio
import contextlib
import email
import io
import json
import socket
import tempfile
from collections.abc import AsyncIterator
from typing import Any

import pytest
from test_upstream_server import (
    Act,
    Peer,
    Server,
    answer,
    answer_and_close,
    reply,
    serving,
    silence,
)

from gateway import __version__
from gateway.upstream.addresses import is_public
from gateway.upstream.client import Body, FilePart, Upstream, UpstreamSettings
from gateway.upstream.content import ContentUnavailable
from gateway.upstream.envelopes import RequestIds
from gateway.upstream.replies import (
    Accepted,
    Found,
    Missing,
    NotSent,
    Refused,
    Unclear,
    Unknown,
)

SOON = 0.1
VIDEO = {"id": "video_1", "object": "video", "status": "queued"}
BODY = Body({"prompt": "a cat", "seconds": "8"})


def pass_on() -> None:
    """Have nothing against the first byte."""


def video(**more: Any) -> bytes:
    return reply(body=json.dumps({**VIDEO, **more}).encode(), headers="x-request-id: req_1\r\n")


def settings_for(url: str, **settings: Any) -> UpstreamSettings:
    return UpstreamSettings(name="relay", base_url=f"{url}/v1", api_key="sk-secret", **settings)


@contextlib.asynccontextmanager
async def started(*acts: Act, **settings: Any) -> AsyncIterator[tuple[Server, Upstream]]:
    async with (
        serving(acts) as server,
        Upstream(settings_for(server.url, **settings)) as upstream,
    ):
        yield server, upstream


def head_of(request: bytes) -> tuple[str, dict[str, str]]:
    first, *lines = request.split(b"\r\n\r\n")[0].decode().split("\r\n")
    return first, {name.lower(): value for name, value in (line.split(": ", 1) for line in lines)}


def test_the_key_is_not_shown() -> None:
    assert "sk-secret" not in repr(settings_for("http://relay.invalid"))


async def test_a_create_without_a_file_is_compact_json() -> None:
    body = Body({"prompt": '猫 "x"', "seconds": "8"})
    async with started(answer(video())) as (server, upstream):
        outcome = await upstream.create(body, before_first_byte=pass_on, request_id="req_ours")
    assert outcome == Accepted("video_1", VIDEO, RequestIds("req_1"))
    first, headers = head_of(server.requests[0])
    sent = server.requests[0].split(b"\r\n\r\n", 1)[1]
    assert first == "POST /v1/videos HTTP/1.1"
    assert sent == '{"prompt":"猫 \\"x\\"","seconds":"8"}'.encode()
    assert headers == {
        "host": f"127.0.0.1:{server.port}",
        "authorization": "Bearer sk-secret",
        "accept": "application/json",
        "accept-encoding": "identity",
        "user-agent": f"video-gateway/{__version__}",
        "content-type": "application/json",
        "content-length": str(len(sent)),
        "x-request-id": "req_ours",
    }


@pytest.mark.parametrize("size", [0, 5, 3_000_000])
async def test_a_create_with_a_file_is_a_form_of_known_length(size: int) -> None:
    image = bytes(range(256)) * (size // 256) + b"x" * (size % 256)
    with tempfile.TemporaryFile() as content:
        content.write(image)  # neither flushed nor rewound
        part = FilePart("input_reference", 'a"b猫.png', "image/png", content)
        async with started(answer(video())) as (server, upstream):
            outcome = await upstream.create(Body(BODY.fields, part), before_first_byte=pass_on)
    assert isinstance(outcome, Accepted)
    request = server.requests[0]
    _, headers = head_of(request)
    sent = request.split(b"\r\n\r\n", 1)[1]
    assert int(headers["content-length"]) == len(sent)
    assert "transfer-encoding" not in headers
    form = email.message_from_bytes(
        f"content-type: {headers['content-type']}\r\n\r\n".encode() + sent
    )
    parts: list[Any] = list(form.walk())[1:]
    assert [part.get_param("name", header="content-disposition") for part in parts] == [
        "prompt",
        "seconds",
        "input_reference",
    ]
    assert parts[2].get_content_type() == "image/png"
    assert 'filename="a%22b猫.png"'.encode() in sent
    assert image in sent


async def test_a_file_can_be_sent_twice() -> None:
    part = FilePart("input_reference", "a.png", "image/png", io.BytesIO(b"image"))
    async with started(answer(video()), answer(video())) as (server, upstream):
        for _ in range(2):
            await upstream.create(Body({}, part), before_first_byte=pass_on)
    assert all(b"\r\n\r\nimage\r\n--" in request for request in server.requests)


async def test_a_file_that_cannot_be_read_was_not_sent() -> None:
    content = io.BytesIO(b"image")
    content.close()
    part = FilePart("input_reference", "a.png", "image/png", content)
    async with Upstream(settings_for("http://127.0.0.1:9")) as upstream:
        outcome = await upstream.create(Body({}, part), before_first_byte=pass_on)
    assert outcome == NotSent("unreadable_body")


async def test_a_later_operation_has_its_own_path() -> None:
    async with started(answer(video())) as (server, upstream):
        await upstream.submit("/videos/video_1/remix", BODY, before_first_byte=pass_on)
    assert head_of(server.requests[0])[0] == "POST /v1/videos/video_1/remix HTTP/1.1"


async def test_a_create_that_was_not_sent_says_why() -> None:
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{bound.getsockname()[1]}"
        async with Upstream(settings_for(url)) as upstream:
            outcome = await upstream.create(BODY, before_first_byte=pass_on)
            assert outcome == NotSent("connect_refused")
    async with Upstream(settings_for("http://upstream.invalid")) as upstream:
        assert await upstream.create(BODY, before_first_byte=pass_on) == NotSent("dns")


@pytest.mark.parametrize(
    ("act", "expected"),
    [
        (answer_and_close(), Unknown("connection_lost")),
        (answer_and_close(b"no HTTP\r\n\r\n"), Unknown("bad_response")),
        (
            answer_and_close(b"HTTP/1.1 200 OK\r\nx-request-id: r\r\ncontent-length: 9\r\n\r\n{"),
            Unknown("truncated", request_ids=RequestIds("r")),
        ),
        (
            answer_and_close(b"HTTP/1.1 400 Bad\r\ncontent-length: 9\r\n\r\n{"),
            Unknown("truncated", request_ids=RequestIds()),
        ),
        (silence, Unknown("answer_timeout", timed_out=True)),
    ],
)
@pytest.mark.parametrize("reused", [False, True])
async def test_a_create_that_broke_is_unknown_and_not_repeated(
    *, act: Act, expected: Unknown, reused: bool
) -> None:
    async with started(
        *([answer(video())] if reused else []), act, answer(video()), post_seconds=SOON
    ) as (server, upstream):
        if reused:
            await upstream.create(BODY, before_first_byte=pass_on)
        assert await upstream.create(BODY, before_first_byte=pass_on) == expected
        assert server.connections == 1
        assert len(server.requests) == 1 + reused


async def test_a_create_is_judged_by_the_rules() -> None:
    error = b'{"error":{"message":"no","code":"invalid_value","param":"size"}}'
    async with started(answer(reply("400 Bad Request", error))) as (_, upstream):
        outcome = await upstream.create(BODY, before_first_byte=pass_on)
    assert isinstance(outcome, Refused)
    assert (outcome.error.status, outcome.error.param) == (400, "size")


async def test_a_late_create_stops_before_its_first_byte() -> None:
    class LateError(Exception):
        pass

    def late() -> None:
        raise LateError

    part = FilePart("input_reference", "a.png", "image/png", io.BytesIO(bytes(3_000_000)))
    async with started() as (server, upstream):
        with pytest.raises(LateError):
            await upstream.create(Body({}, part), before_first_byte=late)
        await server.until(lambda: server.closed == 1)
        assert server.begun == 0


async def test_an_answer_longer_than_the_limit_is_unknown_and_not_kept() -> None:
    long = reply(body=b'{"id":"v","x":"' + b"x" * 20_000_000 + b'"}')
    async with started(answer(long), answer(video())) as (server, upstream):
        outcome = await upstream.create(BODY, before_first_byte=pass_on)
        assert outcome == Unknown("too_large", request_ids=RequestIds())
        assert isinstance(await upstream.create(BODY, before_first_byte=pass_on), Accepted)
        assert server.connections == 2


@pytest.mark.parametrize(
    ("upstream_id", "path"),
    [
        ("video_1", "video_1"),
        ("a/b?c d#e", "a%2Fb%3Fc%20d%23e"),
        ("..", "%2E%2E"),
        (".", "%2E"),
        ("../../admin", "..%2F..%2Fadmin"),
        ("%2e%2e", "%252e%252e"),
        ("任务", "%E4%BB%BB%E5%8A%A1"),
        ("a\\b", "a%5Cb"),
    ],
)
async def test_an_id_stays_one_segment_of_the_path(upstream_id: str, path: str) -> None:
    async with started(answer(video()), answer(reply())) as (server, upstream):
        outcome = await upstream.retrieve(upstream_id)
        assert outcome == Found(VIDEO, RequestIds("req_1"))
        async with upstream.content(upstream_id, "thumbnail"):
            pass
    first, headers = head_of(server.requests[0])
    assert first == f"GET /v1/videos/{path} HTTP/1.1"
    assert headers["authorization"] == "Bearer sk-secret"
    assert headers["accept-encoding"] == "identity"
    assert "content-length" not in headers
    content = head_of(server.requests[1])[0]
    assert content == f"GET /v1/videos/{path}/content?variant=thumbnail HTTP/1.1"


async def test_a_retrieve_never_raises() -> None:
    acts = [
        answer(reply("404 Not Found")),
        answer(reply("503 Busy", headers="retry-after: 7\r\n")),
        answer_and_close(),
        silence,
    ]
    async with started(*acts, retrieve_seconds=SOON) as (_, upstream):
        assert await upstream.retrieve("v") == Missing(RequestIds())
        assert await upstream.retrieve("v") == Unclear("server_error", RequestIds(), 7)
        assert await upstream.retrieve("v") == Unclear("connection_lost", RequestIds())
        assert await upstream.retrieve("v") == Unclear("answer_timeout", RequestIds())


async def test_slow_polls_do_not_keep_a_create_waiting() -> None:
    async with (
        started(silence, answer(video()), max_connections=1) as (server, upstream),
        asyncio.TaskGroup() as group,
    ):
        poll = group.create_task(upstream.retrieve("v"))
        await server.until(lambda: len(server.requests) == 1)
        assert isinstance(await upstream.create(BODY, before_first_byte=pass_on), Accepted)
        poll.cancel()


async def test_content_comes_as_it_is() -> None:
    data = bytes(range(256)) * 4_000
    headers = "content-type: video/mp4\r\ncontent-encoding: gzip\r\n"
    async with (
        started(answer(reply(body=data, headers=headers))) as (server, upstream),
        upstream.content("v", "video") as stream,
    ):
        assert (stream.status, stream.offset, stream.size) == (200, 0, len(data))
        assert stream.content_type == "video/mp4"
        assert b"".join([chunk async for chunk in stream.chunks()]) == data
    first, sent = head_of(server.requests[0])
    assert first == "GET /v1/videos/v/content HTTP/1.1"
    assert (sent["accept"], sent["accept-encoding"]) == ("*/*", "identity")
    assert "range" not in sent


@pytest.mark.parametrize(
    ("status", "content_range", "expected"),
    [
        ("206 Partial Content", "bytes 5-6/7", 5),
        ("206 Partial Content", "bytes 5-6/*", 5),
        ("200 OK", "", 0),
        ("206 Partial Content", "bytes 0-6/7", None),
        ("206 Partial Content", "", None),
    ],
)
async def test_content_goes_on_where_it_broke_off_or_begins_anew(
    status: str, content_range: str, expected: int | None
) -> None:
    headers = f"content-range: {content_range}\r\n" if content_range else ""
    async with started(answer(reply(status, b"xx", headers=headers))) as (server, upstream):
        if expected is None:
            with pytest.raises(ContentUnavailable) as caught:
                await read(upstream, offset=5)
            assert caught.value.reason == "wrong_range"
        else:
            assert await read(upstream, offset=5) == (expected, b"xx")
    assert head_of(server.requests[0])[1]["range"] == "bytes=5-"


async def read(upstream: Upstream, *, offset: int = 0) -> tuple[int, bytes]:
    async with upstream.content("v", "video", offset=offset) as stream:
        return stream.offset, b"".join([chunk async for chunk in stream.chunks()])


@pytest.mark.parametrize(
    ("act", "status", "reason"),
    [
        (answer(reply("404 Not Found")), 404, "http_status"),
        (answer(reply("500 Oops")), 500, "http_status"),
        (answer_and_close(), None, "connection_lost"),
        (
            answer_and_close(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx"),
            *(200, "truncated"),
        ),
        (
            answer_and_close(b"HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n5\r\nxx"),
            *(200, "truncated"),
        ),
        (silence, None, "answer_timeout"),
    ],
)
async def test_content_that_cannot_be_had_whole_says_why(
    act: Act, status: int | None, reason: str
) -> None:
    async with started(act, content_idle_seconds=SOON) as (_, upstream):
        with pytest.raises(ContentUnavailable) as caught:
            await read(upstream)
    assert (caught.value.status, caught.value.reason) == (status, reason)


async def test_content_that_falls_silent_says_so() -> None:
    async def stop(peer: Peer) -> None:
        await peer.read_request()
        await peer.send(b"HTTP/1.1 200 OK\r\ncontent-length: 9\r\n\r\nx")
        await peer.until_gone()

    async with started(stop, content_idle_seconds=SOON) as (_, upstream):
        with pytest.raises(ContentUnavailable, match="answer_timeout"):
            await read(upstream)


async def test_a_download_that_is_left_early_gives_its_connection_back() -> None:
    long = reply(body=bytes(50_000_000))
    acts = [answer(long), answer(reply(body=b"x"))]
    async with started(*acts, max_connections=1) as (_, upstream):
        async with upstream.content("v", "video") as stream:
            assert await anext(stream.chunks())
        assert await read(upstream) == (0, b"x")


def moved(location: str, status: str = "302 Found") -> Act:
    return answer(reply(status, headers=f"location: {location}\r\n"))


@pytest.mark.parametrize("status", ["301 M", "302 F", "303 S", "307 T", "308 P"])
async def test_a_redirect_within_the_origin_keeps_the_key(status: str) -> None:
    acts = [moved("/files/a%2Fb?sig=c%2Bd+e", status), answer(reply(body=b"x"))]
    async with started(*acts) as (server, upstream):
        assert await read(upstream) == (0, b"x")
    first, headers = head_of(server.requests[1])
    assert first == "GET /files/a%2Fb?sig=c%2Bd+e HTTP/1.1"
    assert headers["authorization"] == "Bearer sk-secret"


async def test_a_redirect_off_the_origin_leaves_the_key_behind_for_good() -> None:
    async with serving([answer(reply())]) as first, serving([]) as elsewhere:
        first.acts[:] = [moved(f"{elsewhere.url}/x"), answer(reply(body=b"x"))]
        elsewhere.acts[:] = [moved(f"{first.url}/y")]
        settings = settings_for(first.url, private_hosts=frozenset({"127.0.0.1"}))
        async with Upstream(settings) as upstream:
            assert await read(upstream, offset=0) == (0, b"x")
        for request in (*elsewhere.requests, first.requests[1]):
            assert set(head_of(request)[1]) == {"host", "accept", "accept-encoding", "user-agent"}
        assert head_of(elsewhere.requests[0])[1]["host"] == f"127.0.0.1:{elsewhere.port}"


@pytest.mark.parametrize("count", [3, 4])
async def test_at_most_three_redirects_are_followed(count: int) -> None:
    acts = [moved("/again")] * count + [answer(reply(body=b"x"))]
    async with started(*acts) as (server, upstream):
        if count == 3:
            assert await read(upstream) == (0, b"x")
        else:
            with pytest.raises(ContentUnavailable, match="too_many_redirects"):
                await read(upstream)
        assert len(server.requests) == 4


@pytest.mark.parametrize(
    "host",
    ["127.0.0.1", "localhost", "[::1]", "127.1", "2130706433", "0.0.0.0", "[::ffff:127.0.0.1]"],
)
async def test_a_redirect_never_reaches_a_private_address(host: str) -> None:
    async with serving([answer(reply(body=b"secret"))]) as inside:
        async with started(moved(f"http://{host}:{inside.port}/x")) as (_, upstream):
            with pytest.raises(ContentUnavailable) as caught:
                await read(upstream)
        assert caught.value.reason in ("private_address", "bad_url")
        assert inside.connections == 0


@pytest.mark.parametrize(
    "location",
    [
        *("", "ftp://a.invalid/x", "file:///etc/passwd", "http://u:p@a.invalid/x"),
        "x" * 9_000,
    ],
)
async def test_a_redirect_that_leads_astray_is_refused(location: str) -> None:
    # A head of more than 8 KiB is no answer at all.
    expected = "redirect_refused" if len(location) < 8_000 else "bad_response"
    async with started(moved(location)) as (server, upstream):
        with pytest.raises(ContentUnavailable, match=expected):
            await read(upstream)
        assert server.connections == 1


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("8.8.8.8", True),
        ("2606:4700::1111", True),
        ("64:ff9b::808:808", True),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::", False),
        ("fe80::1", False),
        ("fe80::1%eth0", False),
        ("2606:4700::1%eth0", False),
        ("fd00::1", False),
        ("ff02::1", False),
        ("::ffff:10.0.0.1", False),
        ("2002:7f00:1::", False),
        ("64:ff9b::7f00:1", False),
        ("127.1", False),
        ("example.com", False),
        ("", False),
    ],
)
def test_only_public_addresses_are_public(*, address: str, public: bool) -> None:
    assert is_public(address) is public


MODELS = json.dumps({"data": [{"id": "sora-2"}, {"id": "sora-2-pro"}, 7]}).encode()


@pytest.mark.parametrize(
    ("act", "ok", "word", "says"),
    [
        (answer(reply(body=MODELS)), True, "fine", "accepts the key"),
        (answer(reply(body=b'{"data":[]}')), False, "wrong_group", "usage-based"),
        (answer(reply(body=b"<html>")), False, "unclear", "base_url"),
        (answer(reply(body=b"[]")), False, "unclear", "base_url"),
        (
            answer(reply("401 No", '{"error":{"message":"无效的令牌"}}'.encode())),
            *(False, "key_refused", "无效的令牌"),
        ),
        (answer(reply("403 No")), False, "wrong_group", "usage-based"),
        (
            answer(reply("503 No", '{"error":{"message":"无可用渠道"}}'.encode())),
            *(False, "wrong_group", "usage-based"),
        ),
        (answer(reply("429 Slow")), False, "rate_limited", "too often"),
        (
            answer(reply("404 No", b'{"error":{"message":"no route"}}')),
            *(True, "no_models_list", "no route"),
        ),
        (answer(reply("404 No", b"<html>")), False, "unclear", "base_url"),
        (answer_and_close(), False, "unreachable", "connection_lost"),
        (silence, False, "unreachable", "in time"),
    ],
)
async def test_a_check_explains_in_words(act: Act, *, ok: bool, word: str, says: str) -> None:
    async with started(act, retrieve_seconds=SOON) as (server, upstream):
        report = await upstream.check(["sora-2"])
    assert (report.ok, report.word) == (ok, word)
    assert says in report.explanation
    assert head_of(server.requests[0])[0] == "GET /v1/models HTTP/1.1"


async def test_a_check_names_the_models_that_the_key_may_not_use() -> None:
    async with started(answer(reply(body=MODELS))) as (_, upstream):
        report = await upstream.check(["sora-2", "grok-imagine-video"])
    assert report.missing == ("grok-imagine-video",)
    assert "grok-imagine-video" in report.explanation
