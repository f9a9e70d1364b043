"""How is stored content sent, whole or in part, to a reader however slow?

Read a chunk, send it, and again. uvicorn's `send` waits until the connection has taken what was
written before, so that no more than two chunks are ever held for a reader. What
cannot be finished is broken off, never ended as if it were whole.
"""

import asyncio
import json
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, MutableMapping
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal, Protocol

from gateway.api.connection import PART_BYTES, ClientStalled, Connection, connection_of
from gateway.api.ranges import (
    UNSATISFIABLE,
    WHOLE,
    Span,
    content_range,
    has_already,
    range_applies,
    requested_range,
)
from gateway.errors import GatewayError, InvalidRequest
from gateway.store import OpenFile

STALLED_SECONDS = 60.0

Scope = MutableMapping[str, Any]
Message = MutableMapping[str, Any]
Send = Callable[[Message], Awaitable[None]]
Deliver = Callable[[Message], Awaitable[None]]
Ending = Literal["sent", "client_left", "client_stalled"]

_OF_CONTENT = frozenset({"content-type", "content-disposition"})
_NOTHING = Span(start=0, end=0)
_ALL_THAT_COMES = Span(start=0, end=sys.maxsize)


class Source(Protocol):
    """What is sent: a store's Reading, or content that is still on its way.

    Attributes:
        size: of the whole, in bytes; None where nobody knows yet, and then there are no parts.
    """

    @property
    def size(self) -> int | None:
        """See above."""
        ...

    @property
    def file(self) -> OpenFile | None:
        """The content as an open file, where it is one."""
        ...

    def chunks(self, *, start: int, end: int) -> AsyncGenerator[bytes, None]:
        """Yield the bytes from `start` to before `end`, in pieces of which none is empty.

        Where the size is not known `end` may lie behind the end of what comes.
        """
        ...


async def send_content(
    scope: Scope,
    send: Send,
    *,
    source: Source,
    content_type: str,
    sha256: str | None,
    filename: str,
    headers: Mapping[str, str],
    taken: Callable[[int], None],
    stalled_seconds: float = STALLED_SECONDS,
) -> Ending:
    """Answer a GET or HEAD with the content, a part of it, 304 or 416, and say how it ended.

    `taken` is told how many bytes of content the connection has taken, as it takes them.

    "sent" means that the connection has taken everything, but for a few KiB in its buffer. A client
    that leaves ends it quietly; one that does not take a chunk in `stalled_seconds` is
    disconnected. When the source fails its GatewayError is raised: at the first chunk nothing has
    been sent yet and any answer can be given; later the connection has been broken off, and
    whatever is sent after it goes nowhere. The server must run ConnectedHttp.

    Without the SHA-256 of the whole nothing is promised about it: no ETag, and a condition that
    needs one does not hold.
    """
    connection = connection_of(scope)
    etag = None if sha256 is None else f'"{sha256}"'
    answer = _answer(
        scope,
        size=source.size,
        etag=etag,
        headers={**described(content_type, filename=filename, etag=etag), **headers},
    )
    deliver = partial(_deliver, send, stalled_seconds=stalled_seconds)
    try:
        if source.file is not None and answer.span != _NOTHING:
            return await _send_file(
                answer, source.file, deliver, connection, taken, stalled_seconds=stalled_seconds
            )
        return await _stream(answer, source, deliver, connection, taken)
    except ClientStalled:
        await connection.break_off()
        return "client_stalled"


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
class _Answer:
    """What is said at once: the head, and then a span of the content or a few bytes instead."""

    status: int
    headers: Mapping[str, str]
    span: Span = _NOTHING
    instead: bytes = b""


def _answer(
    scope: Scope, *, size: int | None, etag: str | None, headers: Mapping[str, str]
) -> _Answer:
    is_get = scope["method"] == "GET"
    if size is None:
        return _Answer(200, headers, _ALL_THAT_COMES if is_get else _NOTHING)
    headers = {**headers, "accept-ranges": "bytes"}
    # Before Range, which then does not matter: RFC 9110, section 13.2.2.
    if has_already(_header(scope, b"if-none-match"), etag=etag):
        return _Answer(304, _without_content(headers))
    # A HEAD has no Range: RFC 9110, section 14.2.
    ranged = is_get and range_applies(_header(scope, b"if-range"), etag=etag)
    part = requested_range(_header(scope, b"range") if ranged else None, size=size)
    if part is UNSATISFIABLE:
        return _unsatisfiable(_without_content(headers), size=size)
    span = Span(start=0, end=size) if part is WHOLE else part
    headers["content-length"] = str(span.end - span.start)
    if part is not WHOLE:
        return _Answer(206, {**headers, "content-range": content_range(span, size=size)}, span)
    return _Answer(200, headers, span if is_get else _NOTHING)


def _without_content(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: text for name, text in headers.items() if name not in _OF_CONTENT}


def _unsatisfiable(headers: Mapping[str, str], *, size: int) -> _Answer:
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
    return _Answer(416, {**headers, **about}, instead=body)


def _header(scope: Scope, name: bytes) -> str | None:
    """Return a header, repeated ones joined as one list (RFC 9110, section 5.3)."""
    values = [value.decode("latin-1") for key, value in scope["headers"] if key == name]
    return ", ".join(values) if values else None


async def _send_file(
    answer: _Answer,
    file: OpenFile,
    deliver: Deliver,
    connection: Connection,
    taken: Callable[[int], None],
    *,
    stalled_seconds: float,
) -> Ending:
    span = answer.span
    # Before the head: a store that is down can still be answered for.
    await file.at_hand(span.start, min(span.end, span.start + PART_BYTES))
    await deliver(_head(answer))
    try:
        reached = await connection.send_file(
            file.descriptor,
            start=span.start,
            end=span.end,
            at_hand=file.at_hand,
            taken=taken,
            stalled_seconds=stalled_seconds,
        )
    except GatewayError:
        await connection.break_off()
        raise
    if reached < span.end:
        await connection.break_off()
        return "client_left"
    await deliver({"type": "http.response.body", "body": b"", "more_body": False})
    return "sent"


async def _stream(
    answer: _Answer,
    source: Source,
    deliver: Deliver,
    connection: Connection,
    taken: Callable[[int], None],
) -> Ending:
    at, end = answer.span.start, answer.span.end
    begun = False
    async with aclosing(source.chunks(start=at, end=end)) as chunks:
        try:
            async for chunk in chunks:
                # Only now: a store that is down can still be answered for.
                if not begun:
                    await deliver(_head(answer))
                    begun = True
                await deliver({"type": "http.response.body", "body": chunk, "more_body": True})
                taken(len(chunk))
                at += len(chunk)
                # Who leaves with the last byte has had everything.
                if at < end and connection.is_closing:
                    await connection.break_off()
                    return "client_left"
        except GatewayError:
            if begun:
                await connection.break_off()
            raise
    if not begun:
        await deliver(_head(answer))
    # A message of its own waits, within the deadline, until the last chunk is taken.
    await deliver({"type": "http.response.body", "body": answer.instead, "more_body": False})
    return "sent"


def _head(answer: _Answer) -> Message:
    headers = [
        (name.encode("latin-1"), text.encode("latin-1")) for name, text in answer.headers.items()
    ]
    return {"type": "http.response.start", "status": answer.status, "headers": headers}


async def _deliver(send: Send, message: Message, *, stalled_seconds: float) -> None:
    try:
        async with asyncio.timeout(stalled_seconds):
            await send(message)
    except TimeoutError as stalled:
        raise ClientStalled from stalled
