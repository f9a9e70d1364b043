"""What is known after the upstream has answered a submit or a retrieve?

"No" and "could not find out" are different answers, because the first releases money and the
second must not. A submit's reply is judged by its status, then by its body:

    status                       body                                outcome
    2xx                          JSON object with a usable id        Accepted
    2xx                          anything else                       Unknown
    4xx except 408 and 499       anything                            Refused
    500, 503                     error envelope, code not one of     Refused
                                 `unknown_codes`
    502, if `bad_gateway_is_     code not one of `unknown_codes`     Refused
    refusal`
    503                          says that no channel serves the     Refused
                                 model, enveloped or not
    anything else                anything                            Unknown

A refusal is then told apart by whose matter it is: the gateway's own key, group, balance or rate
limit at the upstream (fixed words to the client), or the request itself (the upstream's words).

A retrieve's reply counts only if it is a 200 with a JSON object that has a `status`; 404 and 410
are Missing; everything else is Unclear and changes nothing but the time of the next poll.
"""

import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any, Final

from gateway.errors import GatewayError
from gateway.upstream.envelopes import (
    MAX_REPLY_BYTES,
    RequestIds,
    Said,
    read_error,
    read_json,
    request_ids,
    retry_after_seconds,
    says,
)
from gateway.upstream.refusals import refusal, says_no_channel

MAX_ID_BYTES: Final = 256

_UNANSWERED: Final = {408: "request_timeout", 499: "client_closed"}
_TIMED_OUT: Final = frozenset({408, 504})
_NO_ENVELOPE_NO_REFUSAL: Final = frozenset({500, 503})
_SUCCESS, _REFUSAL = 2, 4  # status // 100
_DOUBTFUL: Final = {
    3: "redirect",
    5: "server_error",
    HTTPStatus.BAD_GATEWAY: "bad_gateway",
    HTTPStatus.GATEWAY_TIMEOUT: "gateway_timeout",
}


@dataclass(frozen=True, slots=True)
class OutcomeRules:
    """What differs from one upstream to the next.

    Attributes:
        unknown_codes: codes of 5xx envelopes after which the video may exist nevertheless.
        bad_gateway_is_refusal: a 502 is never sent after the request was executed.
    """

    unknown_codes: frozenset[str] = frozenset({"write_response_body_failed"})
    bad_gateway_is_refusal: bool = False


@dataclass(frozen=True, slots=True)
class Accepted:
    """The upstream has the video; `object` is its JSON as it came."""

    upstream_id: str
    object: dict[str, Any]
    request_ids: RequestIds


@dataclass(frozen=True, slots=True)
class Refused:
    """The upstream said no: nothing is billed.

    Attributes:
        error: what the client is told.
        upstream_message: the upstream's own words, for the log: the relay keeps no copy.
    """

    error: GatewayError
    request_ids: RequestIds
    upstream_message: str | None


@dataclass(frozen=True, slots=True)
class NotSent:
    """Not one byte left: it may be tried again. `reason` is a fixed word."""

    reason: str


@dataclass(frozen=True, slots=True)
class Unknown:
    """The upstream may have the video. `reason` is a fixed word."""

    reason: str
    timed_out: bool = False
    request_ids: RequestIds | None = None


@dataclass(frozen=True, slots=True)
class Found:
    """The video as the upstream sees it; `object["status"]` is a string in its dialect."""

    object: dict[str, Any]
    request_ids: RequestIds


@dataclass(frozen=True, slots=True)
class Missing:
    """The upstream says that it has no such video."""

    request_ids: RequestIds


@dataclass(frozen=True, slots=True)
class Unclear:
    """Nothing was learnt. `reason` is a fixed word."""

    reason: str
    request_ids: RequestIds
    retry_after_seconds: int | None = None


def judge_submit(
    *, status: int, headers: Mapping[str, str], body: bytes, rules: OutcomeRules
) -> Accepted | Refused | Unknown:
    """Return what a submit's reply proves. Never raises; header names are in lower case."""
    ids = request_ids(headers)
    if status // 100 == _SUCCESS:
        return _judge_success(body, ids=ids)
    said = read_error(body, headers=headers)
    reason = _doubt(status=status, said=said, rules=rules)
    if reason is not None:
        return Unknown(reason, timed_out=status in _TIMED_OUT, request_ids=ids)
    error = refusal(status=status, headers=headers, said=said)
    return Refused(error, request_ids=ids, upstream_message=said.message)


def judge_retrieve(
    *, status: int, headers: Mapping[str, str], body: bytes
) -> Found | Missing | Unclear:
    """Return what a retrieve's reply proves. Never raises; header names are in lower case."""
    ids = request_ids(headers)
    if status in (404, 410):
        return Missing(ids)
    wait = retry_after_seconds(headers)
    if status != HTTPStatus.OK:
        return Unclear(_unclear_status(status), request_ids=ids, retry_after_seconds=wait)
    found = _object(body)
    if isinstance(found, str):
        return Unclear(found, request_ids=ids, retry_after_seconds=wait)
    if not isinstance(found.get("status"), str):
        return Unclear("no_status", request_ids=ids, retry_after_seconds=wait)
    return Found(found, request_ids=ids)


def is_usable_id(value: Any) -> bool:
    """Return whether a video can be asked for by this id: text, short, no control characters."""
    return (
        isinstance(value, str)
        and 0 < len(value.encode("utf-8", "surrogatepass")) <= MAX_ID_BYTES
        and not any(unicodedata.category(character) in ("Cc", "Cs") for character in value)
    )


def _judge_success(body: bytes, *, ids: RequestIds) -> Accepted | Unknown:
    found = _object(body)
    if isinstance(found, str):
        return Unknown(found, request_ids=ids)
    upstream_id = found.get("id")
    if not isinstance(upstream_id, str) or not is_usable_id(upstream_id):
        return Unknown("unusable_id", request_ids=ids)
    return Accepted(upstream_id, object=found, request_ids=ids)


def _object(body: bytes) -> dict[str, Any] | str:
    if len(body) > MAX_REPLY_BYTES:
        return "too_large"
    try:
        value = read_json(body)
    except ValueError:
        return "not_json"
    return value if isinstance(value, dict) else "not_an_object"


def _doubt(*, status: int, said: Said, rules: OutcomeRules) -> str | None:
    """Return why the outcome is unknown, or None: the upstream said no."""
    if status // 100 == _REFUSAL:
        return _UNANSWERED.get(status)
    if status == HTTPStatus.SERVICE_UNAVAILABLE and says_no_channel(said):
        return None
    trusted_bad_gateway = status == HTTPStatus.BAD_GATEWAY and rules.bad_gateway_is_refusal
    if trusted_bad_gateway or (status in _NO_ENVELOPE_NO_REFUSAL and said.enveloped):
        # Shell API also writes the code into a message: `… write_response_body_failed} 500 }]`.
        return "unknown_code" if says(said, rules.unknown_codes) else None
    return _DOUBTFUL.get(status) or _DOUBTFUL.get(status // 100, "unexpected_status")


def _unclear_status(status: int) -> str:
    named = {401: "auth", 403: "forbidden", 408: "request_timeout", 429: "rate_limited"}
    families = {3: "redirect", 4: "client_error", 5: "server_error"}
    return named.get(status) or families.get(status // 100, "unexpected_status")
