"""What is said of content before its first byte: whole, a part, nothing new, or no such part?"""

import json
import sys
from collections.abc import Mapping, MutableMapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.api.ranges import (
    UNSATISFIABLE,
    WHOLE,
    Span,
    content_range,
    has_already,
    range_applies,
    requested_range,
)
from gateway.errors import InvalidRequest

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]

NOTHING: Final = Span(start=0, end=0)
_OF_CONTENT: Final = frozenset({"content-type", "content-disposition"})
_ALL_THAT_COMES: Final = Span(start=0, end=sys.maxsize)


def described(content_type: str, *, filename: str, etag: str | None) -> dict[str, str]:
    """Return the headers that say what content is, whoever sends it."""
    headers = {
        "cache-control": "private",
        "x-content-type-options": "nosniff",
        "content-type": content_type,
        "content-disposition": f'attachment; filename="{filename}"',
    }
    return headers if etag is None else {**headers, "etag": etag}


@dataclass(frozen=True, slots=True)
class ContentAnswer:
    """What is said at once: the head, and then a span of the content or a few bytes instead."""

    status: int
    headers: Mapping[str, str]
    span: Span = NOTHING
    instead: bytes = b""

    def head(self) -> Message:
        """Return the ASGI message that begins it."""
        headers = [
            (name.encode("latin-1"), text.encode("latin-1")) for name, text in self.headers.items()
        ]
        return {"type": "http.response.start", "status": self.status, "headers": headers}


def content_answer(
    scope: Scope, *, size: int | None, etag: str | None, headers: Mapping[str, str]
) -> ContentAnswer:
    """Return the answer to a GET or HEAD of content; the length may not be known yet."""
    is_get = scope["method"] == "GET"
    if size is None:
        return ContentAnswer(200, headers, _ALL_THAT_COMES if is_get else NOTHING)
    headers = {**headers, "accept-ranges": "bytes"}
    # Before Range, which then does not matter: RFC 9110, section 13.2.2.
    if has_already(_header(scope, b"if-none-match"), etag=etag):
        return ContentAnswer(304, _without_content(headers))
    # A HEAD has no Range: RFC 9110, section 14.2.
    ranged = is_get and range_applies(_header(scope, b"if-range"), etag=etag)
    part = requested_range(_header(scope, b"range") if ranged else None, size=size)
    if part is UNSATISFIABLE:
        return _unsatisfiable(_without_content(headers), size=size)
    span = Span(start=0, end=size) if part is WHOLE else part
    headers["content-length"] = str(span.end - span.start)
    if part is not WHOLE:
        return ContentAnswer(
            206, {**headers, "content-range": content_range(span, size=size)}, span
        )
    return ContentAnswer(200, headers, span if is_get else NOTHING)


def _without_content(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in headers.items() if name not in _OF_CONTENT}


def _unsatisfiable(headers: Mapping[str, str], *, size: int) -> ContentAnswer:
    refusal = InvalidRequest(
        f"The content has {size} bytes; the requested range lies outside.",
        param="Range",
        code="range_not_satisfiable",
    )
    body = json.dumps(refusal.envelope()).encode()
    about = {
        "content-type": "application/json",
        "content-length": str(len(body)),
        "content-range": content_range(None, size=size),
        "x-should-retry": "false",
    }
    return ContentAnswer(416, {**headers, **about}, instead=body)


def _header(scope: Scope, name: bytes) -> str | None:
    """Return a header, repeated ones joined as one list (RFC 9110, section 5.3)."""
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return ", ".join(values) if values else None
