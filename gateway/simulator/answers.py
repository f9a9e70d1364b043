"""What does the relay answer, word for word?

Bodies are as quoted by clients of the relay and of OpenAI; where no public text exists the shape
is theirs and the words are ours. An Answer also says in which manner it reaches the socket
(deliver.py), because an upstream that breaks does so below its own JSON.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

JSON = "application/json"
HTML = "text/html; charset=utf-8"

_HTML_PAGE = "<html><head><title>{0}</title></head><body><h1>{0}</h1></body></html>"
_MODERATION = "Your request was blocked by our moderation system."
_OUT_OF_QUOTA = "user [25359] quota [50264897] preConsumedQuota [154753475] is not enough"


@dataclass(frozen=True, slots=True)
class Answer:
    """One HTTP answer and the manner in which it is delivered.

    Attributes:
        status: 200 to 599.
        body: the whole body, also where only a part of it will be sent.
        content_type: the Content-Type.
        headers: further headers.
        manner: a name of deliver.py's table.
        delay_seconds: how long the answer is held back.
        bytes_per_second: pace of the body, None for as fast as it goes.
        sent_bytes: how much of the body a cut manner sends, None for half.
        sized: whether it says how long the body is.
    """

    status: int = 200
    body: bytes = b""
    content_type: str = JSON
    headers: tuple[tuple[str, str], ...] = ()
    manner: str = "whole"
    delay_seconds: float = 0
    bytes_per_second: float | None = None
    sent_bytes: int | None = None
    sized: bool = True


class RefusedError(Exception):
    """The request is refused: nothing was executed, and `answer` says why."""

    def __init__(self, answer: Answer) -> None:
        super().__init__(answer.body.decode(errors="replace"))
        self.answer = answer


def told(value: Mapping[str, Any], *, status: int = 200) -> Answer:
    """Return a JSON answer."""
    return Answer(status=status, body=_encoded(value))


def _encoded(value: Mapping[str, Any]) -> bytes:
    # A lone surrogate, which JSON may carry, has no UTF-8.
    return json.dumps(value, ensure_ascii=False).encode(errors="replace")


def openai_error(
    message: str, *, status: int = 400, param: str | None = None, code: str | None = None
) -> Answer:
    """Return an error in OpenAI's own envelope: the relay passes these through."""
    error = {"message": message, "type": "invalid_request_error", "param": param, "code": code}
    return told({"error": error}, status=status)


def shell_error(message: str, *, status: int, code: str, param: str = "") -> Answer:
    """Return an error that the relay makes itself."""
    error = {"message": message, "type": "shell_api_error", "param": param, "code": code}
    return told({"error": error}, status=status)


def bad_token(request_id: str) -> Answer:
    """Return the relay's 401: an envelope with neither param nor code."""
    message = f"无效的令牌 (request id: {request_id})"
    return told({"error": {"message": message, "type": "shell_api_error"}}, status=401)


def no_channel(request_id: str = "2026112218000000000000000000000") -> Answer:
    """Return the relay's 503 for a key without the group, or in the wrong billing mode."""
    message = f"该模型无可用渠道 (request id: {request_id})"
    return told({"error": {"message": message, "type": "shell_api_error"}}, status=503)


def unknown_video(video_id: str) -> Answer:
    """Return OpenAI's 404 for an id it does not know."""
    return openai_error(f"Video with id '{video_id}' not found.", status=404)


def not_ready() -> Answer:
    """Return OpenAI's 404 for the content of a video that is not completed."""
    message = "Video is not ready yet, use GET /v1/videos/{video_id} to check status."
    return openai_error(message, status=404)


def page(status: int, title: str) -> Answer:
    """Return an HTML page, as proxies in front of the relay do."""
    return Answer(status=status, body=_HTML_PAGE.format(title).encode(), content_type=HTML)


def canned(name: str, *, value: str | None) -> Answer:
    """Return the answer that a fault of this name gives; the names are listed in faults.py.

    Args:
        name: a name of stage "answer".
        value: the fault's argument: Retry-After of 429, Location of redirects, and so on.

    Raises:
        KeyError: no answer has this name.
    """
    if name == "429":
        limited = shell_error("Rate limit reached for requests", status=429, code="rate_limited")
        return _with_header(limited, "retry-after", value or "2")
    if name in {"301", "302", "303", "307", "308"}:
        moved = page(int(name), f"{name} Moved")
        return _with_header(moved, "location", value or "/v1/elsewhere")
    return _CANNED[name]


def _with_header(answer: Answer, name: str, value: str) -> Answer:
    return Answer(answer.status, answer.body, answer.content_type, ((name, value),))


_CANNED: Mapping[str, Answer] = {
    "refuse": openai_error("The request was refused.", code="invalid_request"),
    "moderate": openai_error(_MODERATION, code="moderation_blocked"),
    "moderate-403": openai_error(_MODERATION, status=403, code="content_policy_violation"),
    "unverified": openai_error(
        "Your organization must be verified to use the model `sora-2`. "
        "Please go to: https://platform.openai.com/settings/organization/general",
        status=403,
    ),
    "400": openai_error("Bad request."),
    "401": bad_token("2024031818293511967485424587671"),
    "402": told({"message": "账户余额不足"}, status=402),
    "403": shell_error("This key may not do that.", status=403, code="forbidden"),
    "404": openai_error("Not found.", status=404),
    "410": openai_error("The content has expired.", status=410),
    "balance": told(
        {
            "error": {
                "message": _OUT_OF_QUOTA,
                "localized_message": "Insufficient user quota",
                "type": "shell_api_error",
                "param": "",
                "code": "insufficient_user_quota",
            }
        },
        status=429,
    ),
    "balance-403": shell_error(_OUT_OF_QUOTA, status=403, code="insufficient_user_quota"),
    "balance-flat": told({"code": "quota_not_enough", "message": _OUT_OF_QUOTA}, status=403),
    "insufficient-quota": told(
        {
            "error": {
                "message": "You exceeded your current quota.",
                "type": "insufficient_quota",
                "param": None,
                "code": "insufficient_quota",
            }
        },
        status=429,
    ),
    "no-channel": no_channel(),
    "flat": told(
        {"code": "invalid_request", "message": "seconds invalid", "data": None}, status=400
    ),
    "500": page(500, "500 Internal Server Error"),
    "500-envelope": shell_error("do request failed", status=500, code="do_request_failed"),
    "500-executed": shell_error(
        "[&{{write tcp 10.0.0.1:3000: connection reset by peer Unknown error "
        "shell_api_error write_response_body_failed} 500 }]",
        status=500,
        code="write_response_body_failed",
    ),
    "502": page(502, "502 Bad Gateway"),
    "502-envelope": shell_error("", status=502, code="bad_response_status_code", param="502"),
    "503": page(503, "503 Service Temporarily Unavailable"),
    "503-envelope": shell_error("upstream is at capacity", status=503, code="capacity"),
    "408": page(408, "408 Request Timeout"),
    "499": page(499, "499 Client Closed Request"),
    "504": page(504, "504 Gateway Time-out"),
    "520": page(520, "520 Web server returned an unknown error"),
    "html": page(200, "Welcome"),
    "empty": Answer(),
    "garbage": Answer(body=b'{"id": "video_'),
}
CANNED_NAMES = frozenset(_CANNED) | {"429", "301", "302", "303", "307", "308"}
