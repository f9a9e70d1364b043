"""Does the log say what happened, one line a request, and never a secret?"""

import asyncio
import logging
from typing import Any

import pytest
import structlog
from conftest import LogLines, World, eventually

from gateway.telemetry.logs import configure_logs

SECRET = "a purple walrus"
UPSTREAM_KEY = "sk-upstream-secret-0123456789"


async def test_a_request_leaves_one_line_with_its_facts(studio: World, logged: LogLines) -> None:
    key = await studio.key()
    async with studio.client(key) as client:
        answer = await client.post("/videos", json={"prompt": "a cat", "seconds": "8"})
    facts = await studio.facts(answer.json()["id"])
    (line,) = logged.lines("request")
    duration_seconds = line.pop("duration_seconds")
    assert 0 < duration_seconds < 10
    assert line.pop("timestamp").endswith("Z")
    assert line == {
        "event": "request",
        "level": "info",
        "request_id": answer.headers["x-request-id"],
        "method": "POST",
        "route": "/v1/videos",
        "status": 200,
        "project": "studio",
        "project_id": facts["project_id"],
        "key_id": key.id,
        "video_id": facts["id"],
        "upstream": "default",
        "upstream_id": answer.json()["id"],
        "held_micros": 800_000,
        "cost_micros": 800_000,
        "past_sunset": True,
        **await upstream_ids(studio, facts["id"]),
    }


@pytest.mark.parametrize(
    ("method", "path", "route", "status", "code"),
    [
        ("GET", "/videos/video_1", "/v1/videos/{video_id}", 404, "invalid_request_error"),
        (
            "HEAD",
            "/videos/video_1/content",
            "/v1/videos/{video_id}/content",
            404,
            "invalid_request_error",
        ),
        ("GET", "/nowhere", None, 404, "unknown_url"),
        ("POST", "/videos", "/v1/videos", 400, "missing_required_parameter"),
        ("PUT", "/videos", "/v1/videos", 405, "method_not_allowed"),
    ],
)
async def test_the_line_names_the_template_of_the_route_and_the_error(
    studio: World,
    logged: LogLines,
    method: str,
    path: str,
    route: str | None,
    status: int,
    code: str,
) -> None:
    key = await studio.key()
    async with studio.client(key) as client:
        await client.request(method, path)
    (line,) = logged.lines("request")
    assert (line["method"], line["route"], line["status"]) == (method, route, status)
    assert line["error_code"] == code


async def test_a_download_says_how_it_ended(studio: World, logged: LogLines) -> None:
    key = await studio.key()
    video_id = await studio.buy(key)
    await studio.mirrored(video_id)
    async with studio.client(key) as client:
        await client.get(f"/videos/{video_id}/content")
        await client.get(f"/videos/{video_id}/content", headers={"range": "bytes=10-19"})
    whole, part = logged.lines("request")[-2:]
    assert (whole["status"], whole["source"], whole["ending"]) == (200, "store", "sent")
    assert (part["status"], part["sent_bytes"]) == (206, 10)
    facts, asset = await studio.facts(video_id), await studio.asset(video_id)
    assert asset is not None
    assert whole["sent_bytes"] == asset["size_bytes"]
    assert (whole["video_id"], whole["upstream_id"], whole["variant"]) == (
        *(facts["id"], video_id, "video"),
    )


async def test_a_create_that_failed_after_its_hold_names_video_and_upstream_request(
    studio: World, logged: LogLines
) -> None:
    key = await studio.key()
    async with studio.client(key) as client:
        for prompt in ("[[500-executed]]", "[[refuse]]"):
            await client.post("/videos", json={"prompt": prompt})
    unknown, refused = logged.lines("request")
    (orphan,) = logged.lines("submit_outcome_unknown")
    (no,) = logged.lines("submit_refused")
    for line, end in ((unknown, orphan), (refused, no)):
        ids = await upstream_ids(studio, line["video_id"])
        assert line.items() >= {"upstream": "default", "held_micros": 400_000}.items()
        assert "cost_micros" not in line
        for name in ("request_id", "video_id", "project", "project_id", "key_id", "upstream"):
            assert end[name] == line[name]
        assert end["relay_request_id"] == line["relay_request_id"] is not None
        assert end["provider_request_id"] == line["provider_request_id"] is not None
        assert 0 < end["duration_seconds"] <= line["duration_seconds"]
        assert ids in ({}, {name: line[name] for name in ids})  # a refusal records none
    assert (unknown["reason"], orphan["reason"]) == ("unknown_code", "unknown_code")
    assert "released_micros" not in orphan
    assert no["released_micros"] == 400_000


async def test_what_happens_in_the_background_says_whose_it_is_and_what_has_moved(
    studio: World, logged: LogLines
) -> None:
    key = await studio.key()
    good = await studio.buy(key, "[[retrieve:500*1]] [[content:503*1]]")
    bad = await studio.buy(key, "[[fail]]")
    await studio.ended(bad)
    await studio.mirrored(good)
    facts = {video_id: await studio.facts(video_id) for video_id in (good, bad)}
    events = {
        "submit_accepted": good,
        "poll_said_nothing": good,
        "video_completed": good,
        "mirror_failed": good,
        "video_mirrored": good,
        "video_failed": bad,
    }
    said = {}
    for event, video_id in events.items():
        (line,) = (
            line for line in logged.lines(event) if line["video_id"] == facts[video_id]["id"]
        )
        whose = {
            "upstream": "default",
            "upstream_id": video_id,
            "project_id": facts[video_id]["project_id"],
            "key_id": key.id,
        }
        assert line.items() >= whose.items()
        assert line["duration_seconds"] >= 0
        said[event] = line
    for event in ("submit_accepted", "poll_said_nothing", "video_completed", "mirror_failed"):
        assert said[event]["relay_request_id"].isdecimal()
        assert said[event]["provider_request_id"].startswith("req_")
    assert said["video_completed"]["settled_micros"] == 400_000
    assert said["video_completed"]["generation_seconds"] >= 0
    assert said["video_failed"]["released_micros"] == 400_000
    assert said["video_mirrored"]["size_bytes"] > 0


async def upstream_ids(made: World, video_id: str) -> dict[str, str]:
    """Return what the upstream calls the request that a video was submitted with."""
    ((provider, relay),) = await made.rows(
        "SELECT provider_request_id, relay_request_id FROM videos WHERE id = $1", video_id
    )
    ids = {"provider_request_id": provider, "relay_request_id": relay}
    return {name: value for name, value in ids.items() if value is not None}


@pytest.mark.parametrize(
    ("log_format", "kind"), [("json", "json"), ("auto", "json"), ("console", "text")]
)
def test_the_log_is_json_on_a_pipe_and_text_where_that_is_asked_for(
    logged: LogLines, log_format: str, kind: str
) -> None:
    configure_logs(log_format, stream=logged)
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    log.debug("left_out")
    log.info("event_name", video_id="vid_1")
    (line,) = logged.getvalue().splitlines()
    assert "event_name" in line
    assert line.startswith("{") is (kind == "json")


def test_a_defect_is_one_line_of_json_with_its_traceback(logged: LogLines) -> None:
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    try:
        int("no number")
    except ValueError:
        log.exception("turn_failed")
    (line,) = logged.lines("turn_failed")
    assert line["level"] == "error"
    assert "ValueError: invalid literal" in line["exception"]


@pytest.mark.parametrize("log_format", ["json", "console"])
def test_a_defect_shows_where_and_no_data_of_any_frame_or_message(
    logged: LogLines, log_format: str
) -> None:
    configure_logs(log_format, stream=logged)
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()

    def fails(prompt: str) -> None:
        secret = f"{prompt} and {UPSTREAM_KEY}"
        try:
            int(secret)
        except ValueError as error:
            # As the driver of a database says it: cut off, and with a detail.
            driver = LookupError(f"argument $1: '{prompt}...\nDETAIL: {secret}")
            raise ExceptionGroup("several", [driver, KeyError(secret)]) from error

    try:
        fails(SECRET)
    except ExceptionGroup:
        log.exception("turn_failed")
    printed = logged.getvalue()
    for shown in (
        "in fails",
        "ValueError: invalid literal for int() with base 10: '...'",
        "LookupError: argument $1: ...",
        "ExceptionGroup: several (2 sub-exceptions)",
        "KeyError: '...'",
    ):
        assert shown in printed
    for secret in (SECRET, "walrus", UPSTREAM_KEY):
        assert secret not in printed


def test_a_defect_of_the_program_itself_is_named_in_full(logged: LogLines) -> None:
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    nothing: Any = None
    try:
        nothing.no_such_thing()
    except AttributeError:
        log.exception("turn_failed")
    (line,) = logged.lines("turn_failed")
    assert "no attribute 'no_such_thing'" in line["exception"]


def test_what_libraries_say_is_a_line_of_the_log_too(logged: LogLines) -> None:
    library = logging.getLogger("some.library")
    library.info("left out")
    library.warning("Odd request from '%s'", SECRET)
    try:
        int(SECRET)
    except ValueError:
        library.exception("Task exception was never retrieved\nfuture: %s", SECRET)
    (warned,), (failed,) = logged.lines("library_warned"), logged.lines("library_failed")
    assert (warned["level"], warned["library"]) == ("warning", "some.library")
    assert warned["message"] == "Odd request from '...'"
    assert (failed["level"], failed["message"]) == ("error", "Task exception was never retrieved")
    assert "in test_what_libraries_say" in failed["exception"]
    assert "walrus" not in logged.getvalue()


def test_a_code_that_is_no_word_is_left_out(logged: LogLines) -> None:
    log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
    log.info("submit_refused", code=f"no {SECRET}", reason="refused:bad_word", error_code=None)
    (line,) = logged.lines()
    assert (line["code"], line["reason"]) == ("no_word", "refused:bad_word")
    assert line["error_code"] is None


async def test_of_two_requests_sent_at_once_on_one_connection_each_has_its_own_trace(
    studio: World, logged: LogLines
) -> None:
    key = await studio.key()
    trace_id = "0af7651916cd43dd8448eb211c80319c"
    head = f"host: gateway\r\nauthorization: Bearer {key.value}\r\n"
    traced = f"traceparent: 00-{trace_id}-b7ad6b7169203331-01\r\n"
    _, writer = await asyncio.open_connection("127.0.0.1", studio.gateway.port)
    first = f"GET /v1/videos HTTP/1.1\r\n{head}{traced}\r\n"
    writer.write(f"{first}GET /v1/models HTTP/1.1\r\n{head}\r\n".encode())

    async def both() -> bool:
        return len(logged.lines("request")) == 2

    await eventually(both)
    writer.close()
    await writer.wait_closed()
    found = {line["route"]: line.get("trace_id") for line in logged.lines("request")}
    assert found == {"/v1/videos": trace_id, "/v1/models": None}
