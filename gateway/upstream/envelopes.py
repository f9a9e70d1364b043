"""What did the upstream say, in whichever shape it said it?

OpenAI nests an error: `{"error": {"message", "type", "param", "code"}}`. Relays and the servers
behind them also send it flat (`{"code", "message"}`), as a string (`{"error": "…"}`), as
FastAPI's `{"detail"}`, as plain text, as an HTML page, or with empty fields. All of them are
read into one record; only the first two are *envelopes*: an answer that the application itself
composed to say no. The others are what frameworks and proxies send when something broke
(Spring's crash page is `{"error": "Internal Server Error"}`), possibly after the request had been
executed.
"""

import json
import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from email.utils import parsedate_to_datetime
from typing import Any, Final

MAX_REPLY_BYTES: Final = 1_048_576
"""A reply longer than this is not read as JSON: a video object has under 40 KB of prompt."""

MAX_MESSAGE_CHARACTERS: Final = 4_096
MAX_WORD_CHARACTERS: Final = 128
MAX_REQUEST_ID_CHARACTERS: Final = 256
MAX_NUMERIC_CODE: Final = 999_999
MAX_RETRY_AFTER_SECONDS: Final = 86_400

_HTML: Final = re.compile(r"<\s*(!doctype|html|head|body|title|center|h1)\b", re.IGNORECASE)
_CONTROL: Final = re.compile(r"[\x00-\x1f\x7f-\x9f]+")
_REQUEST_ID: Final = re.compile(r"[\x21-\x7e]+")
_DATE: Final = re.compile(r"[A-Za-z0-9:, +-]{1,40}")
_SECONDS: Final = re.compile(r"[0-9]{1,9}(\.[0-9]{1,6})?")


@dataclass(frozen=True, slots=True)
class RequestIds:
    """What the two companies on the other side call this request.

    Attributes:
        provider: `x-request-id`, the id of whoever made the video.
        relay: `x-shellapi-request-id`, the only one that can be searched in the relay's log.
    """

    provider: str | None = None
    relay: str | None = None

    def known(self) -> dict[str, str]:
        """Return those that there are, as the log and the records call them."""
        both = {"provider_request_id": self.provider, "relay_request_id": self.relay}
        return {name: text for name, text in both.items() if text is not None}


@dataclass(frozen=True, slots=True)
class Said:
    """An error reply, read; every field is None where the upstream left it out or empty.

    Attributes:
        enveloped: the application composed it (nested, or flat with code and message).
        message: text without control characters, never HTML, cut at MAX_MESSAGE_CHARACTERS.
    """

    enveloped: bool = False
    message: str | None = None
    type: str | None = None
    param: str | None = None
    code: str | None = None


def request_ids(headers: Mapping[str, str]) -> RequestIds:
    """Return the upstream's ids of a request, each None unless printable and of bounded length."""
    return RequestIds(
        provider=_request_id(headers.get("x-request-id")),
        relay=_request_id(headers.get("x-shellapi-request-id")),
    )


def read_json(body: bytes, *, max_bytes: int = MAX_REPLY_BYTES) -> Any:
    """Return the JSON value of a reply; it can be written as UTF-8 JSON again.

    NaN and infinities, which JSON does not have, become None; lone surrogates become `?`, and bytes
    that are no UTF-8 become U+FFFD: an id among them must not be lost.

    Raises:
        ValueError: it is not JSON, nested too deeply, or longer than `max_bytes`.
    """
    if len(body) > max_bytes:
        raise ValueError("the reply is too long")
    try:
        text = body.decode("utf-8-sig", "replace")
        value = json.loads(text, parse_constant=lambda _: None, parse_float=_finite)
        if b"\\u" in body:
            text = json.dumps(value, ensure_ascii=False)
            value = json.loads(text.encode("utf-8", "replace"))
    except RecursionError as error:
        raise ValueError("the reply is nested too deeply") from error
    return value


def read_error(body: bytes, *, headers: Mapping[str, str]) -> Said:
    """Return what an error reply says, whatever its shape."""
    try:
        value = read_json(body)
    except ValueError:
        return Said() if _is_html(body, headers) else Said(message=_text(_decoded(body)))
    if not isinstance(value, dict):
        return Said(message=_text(value))
    error = value.get("error")
    if isinstance(error, dict):
        return _said(error, enveloped=True)
    if isinstance(error, str):
        return _said({**value, "message": error}, enveloped=False)
    if "detail" in value:
        return _detail(value["detail"])
    flat = _word(value.get("code")) is not None and isinstance(value.get("message"), str)
    return _said(value, enveloped=flat)


def says(said: Said, words: Iterable[str]) -> bool:
    """Return whether code, type or message contain one of these words, in any case."""
    spoken = " ".join(part for part in (said.code, said.type, said.message) if part).lower()
    return any(word.lower() in spoken for word in words)


def retry_after_headers(headers: Mapping[str, str]) -> dict[str, str]:
    """Return those of `retry-after` and `retry-after-ms` that can be passed on as they are."""
    kept = {}
    for name in ("retry-after", "retry-after-ms"):
        value = headers.get(name, "").strip()
        if _SECONDS.fullmatch(value) or (name == "retry-after" and _date(value) is not None):
            kept[name] = value
    return kept


def retry_after_seconds(headers: Mapping[str, str]) -> int | None:
    """Return how long the upstream wants to be left alone, at most MAX_RETRY_AFTER_SECONDS.

    A date is counted from the reply's own Date header, so that no clock is needed.
    """
    milliseconds = headers.get("retry-after-ms", "").strip()
    seconds = headers.get("retry-after", "").strip()
    if _SECONDS.fullmatch(milliseconds):
        wait = float(milliseconds) / 1_000
    elif _SECONDS.fullmatch(seconds):
        wait = float(seconds)
    else:
        until, now = _date(seconds), _date(headers.get("date", ""))
        if until is None or now is None:
            return None
        wait = until - now
    return max(0, min(math.ceil(wait), MAX_RETRY_AFTER_SECONDS))


def _said(error: Mapping[str, Any], *, enveloped: bool) -> Said:
    param = _word(error.get("param"))
    return Said(
        enveloped=enveloped,
        message=_text(error.get("message")),
        type=_word(error.get("type")),
        # Shell API puts the status of the reply behind it there.
        param=None if param is None or param.isdigit() else param,
        code=_word(error.get("code")),
    )


def _detail(detail: Any) -> Said:
    # FastAPI: a string, or [{"loc": ["body", "seconds"], "msg": "…", "type": "…"}].
    first = detail[0] if isinstance(detail, list) and detail else detail
    if not isinstance(first, dict):
        return Said(message=_text(first))
    place = first.get("loc")
    param = place[-1] if isinstance(place, list) and place else None
    return Said(
        message=_text(first.get("msg")) or _text(first.get("message")),
        param=_word(param) if isinstance(param, str) else None,
        code=_word(first.get("code")),
    )


def _text(value: Any) -> str | None:
    if not isinstance(value, str) or _HTML.search(value):
        return None
    return _CONTROL.sub(" ", value).strip()[:MAX_MESSAGE_CHARACTERS] or None


def _word(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool):
        value = str(value) if abs(value) <= MAX_NUMERIC_CODE else None
    word = _text(value)
    return word if word is not None and len(word) <= MAX_WORD_CHARACTERS else None


def _request_id(value: str | None) -> str | None:
    value = (value or "").strip()
    fits = len(value) <= MAX_REQUEST_ID_CHARACTERS and _REQUEST_ID.fullmatch(value)
    return value if fits else None


def _is_html(body: bytes, headers: Mapping[str, str]) -> bool:
    return "html" in headers.get("content-type", "").lower() or body.lstrip().startswith(b"<")


def _decoded(body: bytes) -> str | None:
    if len(body) > MAX_REPLY_BYTES:
        return None
    try:
        return body.decode()
    except UnicodeDecodeError:
        return None


def _finite(digits: str) -> float | None:
    value = float(digits)
    return value if math.isfinite(value) else None


def _date(value: str) -> float | None:
    if not _DATE.fullmatch(value):
        return None
    try:
        return parsedate_to_datetime(value).timestamp()
    except (ValueError, TypeError, OverflowError, OSError, IndexError):
        return None
