"""Is every row of the outcome table in upstream/replies.py as it says?"""

import json
from collections.abc import Mapping
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.errors import (
    GatewayError,
    UpstreamAuth,
    UpstreamBalance,
    UpstreamMisconfigured,
    UpstreamRateLimited,
    UpstreamRefused,
)
from gateway.upstream.envelopes import MAX_REPLY_BYTES, RequestIds, request_ids
from gateway.upstream.replies import (
    Accepted,
    Found,
    Missing,
    OutcomeRules,
    Refused,
    Unclear,
    Unknown,
    is_usable_id,
    judge_retrieve,
    judge_submit,
)

RULES = OutcomeRules()
NO_HEADERS: Mapping[str, str] = {}
HTML = b"<!DOCTYPE html><html><body><h1>502 Bad Gateway</h1></body></html>"
SHELL_TEXT = (
    b"[&{{write tcp 10.0.0.1:443: connection reset by peer Unknown error shell_api_error "
    b"write_response_body_failed} 500 }]"
)
VIDEO = {"id": "video_1", "object": "video", "status": "queued", "progress": 0}


def nested(code: Any = None, message: Any = "no", **more: Any) -> bytes:
    return json.dumps({"error": {"message": message, "code": code, **more}}).encode()


def flat(code: str, message: str = "no") -> bytes:
    return json.dumps({"code": code, "message": message, "data": None}).encode()


def judge(
    status: int,
    body: bytes,
    *,
    rules: OutcomeRules = RULES,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Accepted | Refused | Unknown:
    return judge_submit(status=status, headers=headers, body=body, rules=rules)


def refused(
    status: int,
    body: bytes,
    *,
    rules: OutcomeRules = RULES,
    headers: Mapping[str, str] = NO_HEADERS,
) -> Refused:
    outcome = judge(status, body, rules=rules, headers=headers)
    assert isinstance(outcome, Refused)
    return outcome


@pytest.mark.parametrize("status", [200, 201, 202])
def test_a_success_with_a_usable_id_is_accepted_as_it_came(status: int) -> None:
    body = json.dumps({**VIDEO, "quality": "standard"}).encode()
    ids = {"x-request-id": "req_1", "x-shellapi-request-id": "2024"}
    outcome = judge(status, body, headers=ids)
    assert outcome == Accepted(
        "video_1", {**VIDEO, "quality": "standard"}, RequestIds("req_1", "2024")
    )


@pytest.mark.parametrize(
    ("body", "reason"),
    [
        (b"", "not_json"),
        (HTML, "not_json"),
        (b"\xff\xfe\xfd", "not_json"),
        (b"[" * 200_000, "not_json"),
        (b"[]", "not_an_object"),
        (b'"video_1"', "not_an_object"),
        (b"{}", "unusable_id"),
        (nested("oops"), "unusable_id"),
        (b'{"task_id":"task_1"}', "unusable_id"),
        (b'{"id":null}', "unusable_id"),
        (b'{"id":7}', "unusable_id"),
        (b'{"id":""}', "unusable_id"),
        (b'{"id":"a\\nb"}', "unusable_id"),
        (b'{"id":"a\\u0085b"}', "unusable_id"),
        (json.dumps({"id": "x" * 257}).encode(), "unusable_id"),
        (json.dumps({"id": "é" * 129}).encode(), "unusable_id"),
        (json.dumps({"id": "v", "prompt": "x" * MAX_REPLY_BYTES}).encode(), "too_large"),
    ],
)
def test_a_success_without_a_usable_id_is_unknown(body: bytes, reason: str) -> None:
    assert judge(200, body) == Unknown(reason, request_ids=RequestIds())


@pytest.mark.parametrize("usable", ["a", "a/b?c d", "..", "x" * 256, "é" * 128, "任务"])
def test_an_id_may_be_any_short_text(usable: str) -> None:
    assert is_usable_id(usable)
    assert isinstance(judge(200, json.dumps({"id": usable}).encode()), Accepted)


def test_an_accepted_object_can_be_written_as_json_again() -> None:
    outcome = judge(200, b'{"id":"v","a":NaN,"b":1e999,"c":"\\ud800x","d":"\\ud83d\\ude00"}')
    assert isinstance(outcome, Accepted)
    assert outcome.object == {"id": "v", "a": None, "b": None, "c": "?x", "d": "😀"}
    assert json.dumps(outcome.object, ensure_ascii=False, allow_nan=False).encode()


@pytest.mark.parametrize("body", [b"", HTML, nested("x"), flat("x"), SHELL_TEXT])
@pytest.mark.parametrize(
    ("status", "reason", "timed_out"),
    [
        (301, "redirect", False),
        (308, "redirect", False),
        (408, "request_timeout", True),
        (499, "client_closed", False),
        (502, "bad_gateway", False),
        (504, "gateway_timeout", True),
        (520, "server_error", False),
        (524, "server_error", False),
        (599, "server_error", False),
        (501, "server_error", False),
        (101, "unexpected_status", False),
        (999, "unexpected_status", False),
    ],
)
def test_these_statuses_are_unknown_whatever_the_body(
    *, status: int, reason: str, timed_out: bool, body: bytes
) -> None:
    assert judge(status, body) == Unknown(reason, timed_out=timed_out, request_ids=RequestIds())


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize(
    "body",
    [b"", HTML, b"{}", b"[]", SHELL_TEXT, b'{"error":"Internal Server Error"}', b'{"detail":"x"}'],
)
def test_a_5xx_without_an_envelope_is_unknown(status: int, body: bytes) -> None:
    assert judge(status, body) == Unknown("server_error", request_ids=RequestIds())


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize("body", [nested("server_error"), nested(message=""), flat("fail")])
def test_a_5xx_with_an_envelope_is_a_refusal_that_may_be_retried(status: int, body: bytes) -> None:
    error = refused(status, body).error
    assert isinstance(error, UpstreamRefused)
    assert (error.status, error.may_retry) == (status, True)


@pytest.mark.parametrize("status", [500, 503])
@pytest.mark.parametrize(
    "body",
    [
        nested("write_response_body_failed"),
        flat("write_response_body_failed"),
        nested(None, SHELL_TEXT.decode()),
    ],
)
def test_a_5xx_with_an_unknown_code_is_unknown(status: int, body: bytes) -> None:
    assert judge(status, body) == Unknown("unknown_code", request_ids=RequestIds())


def test_which_codes_are_unknown_is_a_setting() -> None:
    rules = OutcomeRules(unknown_codes=frozenset({"bad_response_status_code"}))
    assert isinstance(judge(500, nested("bad_response_status_code")), Refused)
    assert isinstance(judge(500, nested("bad_response_status_code"), rules=rules), Unknown)
    assert isinstance(judge(500, nested("write_response_body_failed"), rules=rules), Refused)


def test_a_bad_gateway_is_a_refusal_where_a_setting_says_so() -> None:
    rules = OutcomeRules(bad_gateway_is_refusal=True)
    assert refused(502, HTML, rules=rules).error.status == 502
    assert isinstance(judge(502, nested("write_response_body_failed"), rules=rules), Unknown)
    assert isinstance(judge(504, HTML, rules=rules), Unknown)
    assert isinstance(judge(500, HTML, rules=rules), Unknown)


@pytest.mark.parametrize(
    ("status", "body", "expected"),
    [
        (401, nested("invalid_api_key"), UpstreamAuth),
        (401, HTML, UpstreamAuth),
        (402, b"", UpstreamBalance),
        (403, nested("insufficient_user_quota"), UpstreamBalance),
        (429, nested("insufficient_user_quota"), UpstreamBalance),
        (429, nested("insufficient_quota"), UpstreamBalance),
        (403, flat("quota_not_enough"), UpstreamBalance),
        (503, nested("insufficient_user_quota"), UpstreamBalance),
        (403, nested(), UpstreamMisconfigured),
        (403, HTML, UpstreamMisconfigured),
        (403, b'{"message":"wrong group"}', UpstreamMisconfigured),
        (503, nested(message="该模型无可用渠道"), UpstreamMisconfigured),
        (503, "当前分组下对于模型 sora-2 无可用渠道".encode(), UpstreamMisconfigured),
        (403, nested("moderation_blocked"), UpstreamRefused),
        (403, nested("content_policy_violation"), UpstreamRefused),
        (403, nested(None, "Blocked by our moderation system."), UpstreamRefused),
        (429, nested("rate_limit_exceeded"), UpstreamRateLimited),
        (429, HTML, UpstreamRateLimited),
        (400, nested("invalid_value"), UpstreamRefused),
        (404, b"", UpstreamRefused),
        (418, b"", UpstreamRefused),
    ],
)
def test_a_refusal_is_told_apart_by_whose_matter_it_is(
    status: int, body: bytes, expected: type[GatewayError]
) -> None:
    error = refused(status, body).error
    assert type(error) is expected
    assert error.may_retry is (expected is UpstreamRateLimited)
    if expected is UpstreamRefused:
        assert error.status == status


@pytest.mark.parametrize(
    ("headers", "kept"),
    [
        ({"retry-after": "7"}, {"retry-after": "7"}),
        ({"retry-after-ms": "1500"}, {"retry-after-ms": "1500"}),
        (
            {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"},
            {"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"},
        ),
        ({"retry-after": "soon", "retry-after-ms": "-1"}, {}),
        ({"retry-after": "7\r\nx: y"}, {}),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00\r\nGMT"}, {}),
        ({}, {}),
    ],
)
def test_a_rate_limit_keeps_its_retry_after(headers: dict[str, str], kept: dict[str, str]) -> None:
    assert refused(429, nested("rate_limit_exceeded"), headers=headers).error.headers == kept


@pytest.mark.parametrize(
    ("body", "message", "type_", "param", "code"),
    [
        (
            nested("invalid_value", "Invalid value: '5'.", type="bad", param="seconds"),
            *("Invalid value: '5'.", "bad", "seconds", "invalid_value"),
        ),
        (
            nested("bad_response_status_code", "x", type="shell_api_error", param="502"),
            *("x", "shell_api_error", None, "bad_response_status_code"),
        ),
        (
            nested("", "无效 (request id: 1)", type="shell_api_error"),
            *("无效 (request id: 1)", "shell_api_error", None, None),
        ),
        (nested(400, "x"), "x", "invalid_request_error", None, "400"),
        (
            flat("missing_model", "model is required"),
            *("model is required", "invalid_request_error", None, "missing_model"),
        ),
        (b'{"error":"no such size"}', "no such size", "invalid_request_error", None, None),
        (b'{"code":"c","error":"no"}', "no", "invalid_request_error", None, "c"),
        (b'{"detail":"Not Found"}', "Not Found", "invalid_request_error", None, None),
        (
            b'{"detail":[{"loc":["body","seconds"],"msg":"field required","type":"missing"}]}',
            *("field required", "invalid_request_error", "seconds", None),
        ),
        (
            b"parse_request_failed: cannot unmarshal number",
            *("parse_request_failed: cannot unmarshal number", "invalid_request_error"),
            *(None, None),
        ),
        (b'"no"', "no", "invalid_request_error", None, None),
        (nested(None, "a\x00b\nc"), "a b c", "invalid_request_error", None, None),
        (nested(None, "x" * 9_000), "x" * 4_096, "invalid_request_error", None, None),
    ],
)
def test_every_shape_of_an_error_is_passed_on_in_one(
    *, body: bytes, message: str, type_: str, param: str | None, code: str | None
) -> None:
    outcome = refused(400, body)
    assert outcome.upstream_message == message
    assert outcome.error.envelope() == {
        "error": {"message": message, "type": type_, "param": param, "code": code}
    }


@pytest.mark.parametrize(
    "body",
    [
        *(b"", HTML, b"  <xml/>", nested(message=""), nested(message=HTML.decode())),
        *(nested(message=7), b"{}", b"null", b"\xff", b'{"detail":[]}', b'{"error":{}}'),
    ],
)
def test_a_refusal_without_words_has_fixed_ones_and_never_html(body: bytes) -> None:
    outcome = refused(400, body)
    assert outcome.upstream_message is None
    expected = "The upstream refused the request with status 400 and gave no reason."
    assert outcome.error.message == expected


def test_text_marked_as_html_is_not_passed_on() -> None:
    assert refused(400, b"oops", headers={"content-type": "text/HTML"}).upstream_message is None


def test_a_request_id_that_could_not_stand_in_a_header_is_dropped() -> None:
    headers = {"x-request-id": "a b", "x-shellapi-request-id": "x" * 257}
    assert request_ids(headers) == RequestIds(None, None)


@pytest.mark.parametrize("status", ["queued", "NOT_START", ""])
def test_only_a_200_with_a_status_is_found(status: str) -> None:
    body = json.dumps({"id": "v", "status": status}).encode()
    outcome = judge_retrieve(status=200, headers={"x-request-id": "r"}, body=body)
    assert outcome == Found({"id": "v", "status": status}, RequestIds("r"))


@pytest.mark.parametrize("status", [404, 410])
def test_a_video_the_upstream_does_not_know_is_missing(status: int) -> None:
    assert judge_retrieve(status=status, headers={}, body=HTML) == Missing(RequestIds())


@pytest.mark.parametrize(
    ("status", "body", "reason"),
    [
        (200, HTML, "not_json"),
        (200, b"[]", "not_an_object"),
        (200, b"{}", "no_status"),
        (200, b'{"status":3}', "no_status"),
        (200, b" " * (MAX_REPLY_BYTES + 1), "too_large"),
        (201, b'{"status":"completed"}', "unexpected_status"),
        (302, b"", "redirect"),
        (400, nested(), "client_error"),
        (401, nested(), "auth"),
        (403, nested(), "forbidden"),
        (408, b"", "request_timeout"),
        (429, b"", "rate_limited"),
        (500, nested(), "server_error"),
        (599, b"", "server_error"),
        (999, b"", "unexpected_status"),
    ],
)
def test_everything_else_is_unclear(status: int, body: bytes, reason: str) -> None:
    outcome = judge_retrieve(status=status, headers={}, body=body)
    assert outcome == Unclear(reason, RequestIds(), None)


@pytest.mark.parametrize(
    ("headers", "seconds"),
    [
        ({"retry-after": "7"}, 7),
        ({"retry-after": "0.2"}, 1),
        ({"retry-after-ms": "1500", "retry-after": "9"}, 2),
        ({"retry-after": "999999999"}, 86_400),
        ({"retry-after": "Wed, 21 Oct 2026 07:28:00 GMT"}, None),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:28:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            30,
        ),
        (
            {
                "retry-after": "Wed, 21 Oct 2026 07:27:30 GMT",
                "date": "Wed, 21 Oct 2026 07:28:00 GMT",
            },
            0,
        ),
        ({"retry-after": "later"}, None),
    ],
)
def test_how_long_to_wait_is_read_in_every_form(headers: dict[str, str], seconds: int) -> None:
    outcome = judge_retrieve(status=503, headers=headers, body=b"")
    assert outcome == Unclear("server_error", RequestIds(), seconds)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(
            st.sampled_from(["error", "code", "message", "detail", "id", "status", "loc", "param"]),
            inner,
            max_size=4,
        )
    ),
    max_leaves=12,
)
BODIES = st.binary(max_size=200) | JSON.map(lambda value: json.dumps(value).encode())
HEADERS = st.dictionaries(
    st.sampled_from(["x-request-id", "retry-after", "retry-after-ms", "date", "content-type"]),
    st.text(max_size=40),
)


@given(status=st.integers(0, 1_000), headers=HEADERS, body=BODIES, trusted=st.booleans())
def test_no_reply_is_too_strange_to_be_judged(
    *, status: int, headers: dict[str, str], body: bytes, trusted: bool
) -> None:
    rules = OutcomeRules(bad_gateway_is_refusal=trusted)
    outcome = judge_submit(status=status, headers=headers, body=body, rules=rules)
    may_refuse = (400 <= status < 500 and status not in (408, 499)) or (
        status in (500, 503) or (trusted and status == 502)
    )
    assert isinstance(outcome, Accepted) <= (200 <= status < 300)
    assert isinstance(outcome, Refused) <= may_refuse
    if 400 <= status < 500 and may_refuse:
        assert isinstance(outcome, Refused)
    if isinstance(outcome, Accepted):
        assert is_usable_id(outcome.upstream_id)
        json.dumps(outcome.object, ensure_ascii=False, allow_nan=False).encode()
    if isinstance(outcome, Refused):
        envelope = outcome.error.envelope()["error"]
        assert envelope["message"]
        assert envelope["type"]
        assert "\n" not in "".join(outcome.error.headers.values())
        assert "<html" not in outcome.error.message.lower()


@given(status=st.integers(0, 1_000), headers=HEADERS, body=BODIES)
def test_no_poll_is_too_strange_to_be_judged(
    status: int, headers: dict[str, str], body: bytes
) -> None:
    outcome = judge_retrieve(status=status, headers=headers, body=body)
    assert isinstance(outcome, Found) <= (status == 200)
    assert isinstance(outcome, Missing) == (status in (404, 410))


def test_bytes_that_are_no_utf_8_lose_no_id_and_can_be_written_again() -> None:
    body = b'{"id": "video_1", "status": "completed", "prompt": "\xed\xa0\x80\xff"}'
    accepted = judge_submit(status=200, headers={}, body=body, rules=OutcomeRules())
    assert isinstance(accepted, Accepted)
    assert accepted.upstream_id == "video_1"
    json.dumps(accepted.object, ensure_ascii=False).encode()
    found = judge_retrieve(status=200, headers={}, body=body)
    assert isinstance(found, Found)
    assert found.object["status"] == "completed"
