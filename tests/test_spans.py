"""Is what is under way known to those who should know, and is only told what may be?"""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
from conftest import LogLines
from test_upstream_client import head_of, moved, read, settings_for
from test_upstream_server import answer, close_unread, reply
from test_upstream_server import serving as upstream_server
from trace_tools import Receiver, Told, receiver

from gateway.errors import DatabaseUnavailable, InvalidRequest
from gateway.telemetry.exporting import exporting
from gateway.telemetry.traceparent import read_traceparent, trace_id_of
from gateway.telemetry.traces import (
    UNTRACED,
    Tracer,
    trace_id_under_way,
    traceparent_under_way,
)
from gateway.upstream.client import Upstream

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
SPAN_ID = "b7ad6b7169203331"
SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-01"
NOT_SAMPLED = f"00-{TRACE_ID}-{SPAN_ID}-00"
ABOUT = "00-11111111111111111111111111111111-2222222222222222-01"
ABOUT_ID = trace_id_of(ABOUT)
ALL = 1_000_000
SECRET = "a purple walrus"


@asynccontextmanager
async def telling(told: Receiver, *, sample_ppm: int = ALL) -> AsyncIterator[Tracer]:
    """Make a tracer; once the context is left, everything was received."""
    async with exporting(told.url, sample_ppm=sample_ppm, service={}) as tracer:
        yield tracer


@pytest.fixture(params=["untraced", "exporting"])
async def tracer(request: pytest.FixtureRequest) -> AsyncIterator[Tracer]:
    if request.param == "untraced":
        yield UNTRACED
        return
    async with receiver() as told, telling(told) as made:
        yield made


async def in_a_task(look: Callable[[], str | None]) -> str | None:
    async def looking() -> str | None:
        return look()

    async with asyncio.TaskGroup() as group:
        task = group.create_task(looking())
    return task.result()


async def test_within_request_the_callers_trace_is_under_way_also_for_the_tasks_that_it_starts(
    tracer: Tracer,
) -> None:
    with tracer.request("GET", traceparent=SAMPLED):
        inside = traceparent_under_way()
        assert inside is not None
        assert trace_id_of(inside) == trace_id_under_way() == TRACE_ID
        assert await in_a_task(traceparent_under_way) == inside
        assert await in_a_task(trace_id_under_way) == TRACE_ID


async def test_within_turn_nothing_of_before_is_under_way_but_the_log_names_what_it_is_about(
    tracer: Tracer,
) -> None:
    with tracer.request("GET", traceparent=SAMPLED), tracer.turn("poll", about=ABOUT, facts={}):
        own = traceparent_under_way()
        assert own is None or trace_id_of(own) not in {TRACE_ID, ABOUT_ID}
        assert trace_id_under_way() == ABOUT_ID


@pytest.mark.parametrize("about", [None, "", "spoiled", SAMPLED.upper()])
async def test_a_turn_about_nothing_known_goes_on_all_the_same(
    tracer: Tracer, about: str | None
) -> None:
    with tracer.turn("poll", about=about, facts={}):
        own = traceparent_under_way()
        assert trace_id_under_way() == (None if own is None else trace_id_of(own))


async def test_span_changes_nothing_for_the_log(tracer: Tracer) -> None:
    with tracer.request("GET", traceparent=SAMPLED), tracer.span("x", about=ABOUT):
        assert trace_id_under_way() == TRACE_ID
    with tracer.turn("poll", about=ABOUT, facts={}), tracer.span("x"):
        assert trace_id_under_way() == ABOUT_ID


async def test_after_each_of_them_what_was_under_way_before_is_again(tracer: Tracer) -> None:
    def looking() -> tuple[str | None, str | None]:
        return traceparent_under_way(), trace_id_under_way()

    assert looking() == (None, None)
    with tracer.request("GET", traceparent=SAMPLED):
        before = looking()
        with tracer.turn("poll", about=ABOUT, facts={}):
            pass
        assert looking() == before
        with pytest.raises(ZeroDivisionError), tracer.span("x"):
            _ = 1 / 0
        assert looking() == before
        with tracer.request("GET", traceparent=None):
            pass
        assert looking() == before
    assert looking() == (None, None)


@pytest.mark.parametrize(
    ("text", "read_as"),
    [
        (SAMPLED, SAMPLED),
        (NOT_SAMPLED, NOT_SAMPLED),
        (f"00-{TRACE_ID}-{SPAN_ID}-ff", f"00-{TRACE_ID}-{SPAN_ID}-03"),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01", SAMPLED),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01-what-comes-later", SAMPLED),
        (f"cc-{TRACE_ID}-{SPAN_ID}-01.what-comes-later", None),
        (f"{SAMPLED}-more", None),
        (f"{SAMPLED}-", None),
        (f"ff-{TRACE_ID}-{SPAN_ID}-01", None),
        (f"00-{'0' * 32}-{SPAN_ID}-01", None),
        (f"00-{TRACE_ID}-{'0' * 16}-01", None),
        (f"00-{TRACE_ID[1:]}-{SPAN_ID}-01", None),
        (f"00-{TRACE_ID}-{SPAN_ID}0-01", None),
        (f"00-{TRACE_ID}-{SPAN_ID}-1", None),
        (f"0-{TRACE_ID}-{SPAN_ID}-01", None),
        (f"00-{TRACE_ID}-{SPAN_ID}", None),
        (f"00_{TRACE_ID}_{SPAN_ID}_01", None),
        (SAMPLED.upper(), None),
        (SAMPLED.replace("a", "g"), None),
        (SAMPLED.replace("7", "\N{ARABIC-INDIC DIGIT SEVEN}"), None),
        (f" {SAMPLED}", None),
        (f"{SAMPLED}\n", None),
        ("", None),
    ],
)
def test_a_traceparent_that_is_wrong_anywhere_is_none(text: str, read_as: str | None) -> None:
    assert read_traceparent(text) == read_as


async def test_what_begins_here_is_recorded_by_its_share_and_the_rest_as_others_have_decided() -> (
    None
):
    async with receiver() as told:
        async with telling(told, sample_ppm=0) as tracer:
            for name, traceparent in (("ours", None), ("told", SAMPLED), ("not told", NOT_SAMPLED)):
                with tracer.request(name, traceparent=traceparent) as span:
                    assert span.is_recorded == (name == "told")
                    with tracer.span(f"{name}, within"):
                        pass
            with tracer.turn("of one recorded", about=ABOUT, facts={}):
                pass
            with tracer.turn("of one not recorded", about=NOT_SAMPLED, facts={}):
                # It is passed on that nobody records it.
                assert int((traceparent_under_way() or "")[-1]) % 2 == 0
            with tracer.turn("of nobody", about=None, facts={}):
                pass
        assert {span.name for span in told.spans} == {"told", "told, within", "of one recorded"}
        told.spans.clear()
        async with telling(told) as tracer:
            with tracer.turn("of one not recorded", about=NOT_SAMPLED, facts={}):
                pass
            with tracer.turn("of nobody", about=None, facts={}):
                pass
        assert {span.name for span in told.spans} == {"of nobody"}


async def test_a_failure_is_told_by_its_kind_and_a_refusal_is_none() -> None:
    async with receiver() as told:
        async with telling(told) as tracer:
            for error in (
                InvalidRequest(SECRET, param="prompt"),
                DatabaseUnavailable(SECRET),
                RuntimeError(SECRET),
                asyncio.CancelledError(SECRET),
            ):
                with (
                    pytest.raises(type(error)),
                    tracer.request("GET", traceparent=None),
                    tracer.span(type(error).__name__),
                ):
                    raise error
        failed = {
            span.name: span.facts["error.type"] for span in told.spans if "error.type" in span.facts
        }
        assert failed == {
            **{name: name for name in ("DatabaseUnavailable", "RuntimeError", "CancelledError")},
            "GET": "CancelledError",
        }
        assert len([span for span in told.spans if span.is_error]) == 6
        assert [body for body in told.bodies if b"walrus" in body] == []


async def test_an_upstream_is_told_the_trace_and_whoever_it_redirects_to_is_not() -> None:
    async with receiver() as told, upstream_server([]) as first, upstream_server([]) as other:
        first.acts[:] = [moved(f"{other.url}/{SECRET[2:8]}?sig=walrus"), close_unread]
        other.acts[:] = [answer(reply(body=b"x"))]
        hosts = frozenset({"127.0.0.1"})
        settings = settings_for(first.url, private_hosts=hosts, send_traceparent=True)
        async with telling(told) as tracer, Upstream(settings, tracer=tracer) as upstream:
            with tracer.request("GET /v1/videos/{video_id}/content", traceparent=SAMPLED):
                assert await read(upstream, offset=0) == (0, b"x")
            with tracer.turn("poll", about=None, facts={}):
                await upstream.retrieve("../video/1")
            await upstream.retrieve("within nothing")
        asked, followed = told.one("GET /videos/{id}/content"), told.one("GET")
        sent = head_of(first.requests[0])[1]["traceparent"]
        assert sent == f"00-{TRACE_ID}-{asked.span_id}-01"
        assert "traceparent" not in head_of(other.requests[0])[1]
        check_asked(asked, followed, port=other.port)
        (broken,) = told.named("GET /videos/{id}")
        assert (broken.is_error, broken.facts["error.type"]) == (True, "connection_lost")
        for hidden in (b"walrus", SECRET[2:8].encode(), b"sk-secret", b"video/1", b"video%2F1"):
            assert [body for body in told.bodies if hidden in body] == []


def check_asked(asked: Told, followed: Told, *, port: int) -> None:
    assert [span.kind for span in (asked, followed)] == ["client", "client"]
    assert asked.facts["http.response.status_code"] == 302
    assert followed.facts == {
        "http.request.method": "GET",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "server.port": port,
        "video_gateway.upstream": "relay",
    }
    assert not asked.is_error


async def test_an_upstream_is_told_no_trace_unless_that_is_set() -> None:
    async with receiver() as told, upstream_server([answer()]) as server:
        settings = settings_for(server.url)
        async with telling(told) as tracer, Upstream(settings, tracer=tracer) as upstream:
            with tracer.request("GET", traceparent=SAMPLED):
                await upstream.retrieve("video_1")
        assert "traceparent" not in head_of(server.requests[0])[1]
        assert told.one("GET /videos/{id}").trace_id == TRACE_ID


async def test_a_fact_is_cut_and_a_receiver_that_refuses_is_said_once(logged: LogLines) -> None:
    async with receiver() as told:
        async with telling(told) as tracer:
            with tracer.request("GET", traceparent=None) as span:
                span.note({"long": "x" * 10_000})
        assert told.one("GET").facts["long"] == "x" * 256
    async with receiver() as told:
        url = told.url.replace("traces", "nothing")
        async with exporting(url, sample_ppm=ALL, service={}) as tracer:
            for _ in range(2_000):
                with tracer.request("GET", traceparent=None):
                    pass
    (line,) = logged.lines()
    assert (line["event"], line["level"]) == ("traces_not_exported", "warning")
    assert "404" in line["cause"]
