"""How is stored content sent, whole or in part, to a reader however slow?

Read a chunk, send it, and again. uvicorn's `send` waits until the connection has taken what was
written before, so that no more than two chunks are ever held for a reader. What
cannot be finished is broken off, never ended as if it were whole.
"""

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from contextlib import aclosing
from functools import partial
from typing import Literal, Protocol

from gateway.api.connection import PART_BYTES, ClientStalled, Connection, connection_of
from gateway.api.content_answer import (
    NOTHING,
    ContentAnswer,
    Message,
    Scope,
    content_answer,
    described,
)
from gateway.errors import GatewayError
from gateway.store import OpenFile

STALLED_SECONDS = 60.0

Send = Callable[[Message], Awaitable[None]]
Deliver = Callable[[Message], Awaitable[None]]
Ending = Literal["sent", "client_left", "client_stalled"]


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
    answer = content_answer(
        scope,
        size=source.size,
        etag=etag,
        headers={**described(content_type, filename=filename, etag=etag), **headers},
    )
    deliver = partial(_deliver, send, stalled_seconds=stalled_seconds)
    try:
        if source.file is not None and answer.span != NOTHING:
            return await _send_file(
                answer, source.file, deliver, connection, taken, stalled_seconds=stalled_seconds
            )
        return await _stream(answer, source, deliver, connection, taken)
    except ClientStalled:
        await connection.break_off()
        return "client_stalled"


async def _send_file(
    answer: ContentAnswer,
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
    await deliver(answer.head())
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
    answer: ContentAnswer,
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
                    await deliver(answer.head())
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
        await deliver(answer.head())
    # A message of its own waits, within the deadline, until the last chunk is taken.
    await deliver({"type": "http.response.body", "body": answer.instead, "more_body": False})
    return "sent"


async def _deliver(send: Send, message: Message, *, stalled_seconds: float) -> None:
    try:
        async with asyncio.timeout(stalled_seconds):
            await send(message)
    except TimeoutError as stalled:
        raise ClientStalled from stalled
