"""How does an answer reach the socket, or fail to?

| manner  | on the wire                                                                        |
|---------|------------------------------------------------------------------------------------|
| whole   | status, headers, Content-Length, body                                              |
| drop    | nothing: the connection is cut                                                     |
| hang    | nothing, until the client leaves                                                   |
| headers | status and headers with the true Content-Length, then the connection is closed     |
| cut     | the same, and a part of the body                                                   |
| stall   | the same, but the connection stays open until the client leaves                    |
| pause   | the same, and the rest once the simulator is told to go on                         |
| break   | the same, but once it is told to go on the connection is closed                    |
| unsized | no length at all: a part of the body, and closing is what ends it                  |

Where the answer does not say its length there is no Content-Length, and the body comes in chunks.
Every wait ends when the client leaves or the server stops.
"""

import asyncio
from dataclasses import dataclass

from starlette.types import Receive, Send

from gateway.simulator.answers import Answer

CHUNK_BYTES = 256 * 1024
PACES_PER_SECOND = 20


@dataclass(frozen=True, slots=True)
class Wire:
    """One request's connection: ASGI's two ends, and the transport below them.

    Attributes:
        go_on: set when what pauses is to go on.
    """

    receive: Receive
    send: Send
    transport: asyncio.Transport
    go_on: asyncio.Event


async def deliver(answer: Answer, wire: Wire, *, headers: tuple[tuple[str, str], ...]) -> None:
    """Send the answer in its manner; returns when it is sent or the client has left."""
    if answer.delay_seconds and await _left_within(wire, seconds=answer.delay_seconds):
        return
    sent_bytes = len(answer.body) // 2 if answer.sent_bytes is None else answer.sent_bytes
    match answer.manner:
        case "drop":
            wire.transport.abort()
            await _left(wire)
        case "hang":
            await _left(wire)
        case "unsized":
            wire.transport.write(_head(answer, headers=headers) + answer.body[:sent_bytes])
            await _close(wire)
        case "headers":
            await _start(answer, wire, headers=headers)
            await _close(wire)
        case "cut" | "stall":
            await _start(answer, wire, headers=headers)
            await _body(answer, wire, upto=sent_bytes)
            await (_close(wire) if answer.manner == "cut" else _left(wire))
        case "pause" | "break":
            await _start(answer, wire, headers=headers)
            await _body(answer, wire, upto=sent_bytes)
            if await _told_to_go_on(wire):
                await _resume(answer, wire, begin=sent_bytes)
        case _:
            await _start(answer, wire, headers=headers)
            await _rest(answer, wire)


async def _start(answer: Answer, wire: Wire, *, headers: tuple[tuple[str, str], ...]) -> None:
    length = [("content-length", str(len(answer.body)))] if answer.sized else []
    lines = [("content-type", answer.content_type), *length, *headers, *answer.headers]
    encoded = [(name.encode(), value.encode()) for name, value in lines]
    await wire.send({"type": "http.response.start", "status": answer.status, "headers": encoded})


async def _resume(answer: Answer, wire: Wire, *, begin: int) -> None:
    if answer.manner == "break":
        await _close(wire)
    else:
        await _rest(answer, wire, begin=begin)


async def _rest(answer: Answer, wire: Wire, *, begin: int = 0) -> None:
    if await _body(answer, wire, begin=begin, upto=len(answer.body)):
        await wire.send({"type": "http.response.body", "body": b""})


async def _body(answer: Answer, wire: Wire, *, begin: int = 0, upto: int) -> bool:
    """Send the beginning of the body; return False if the client left meanwhile."""
    pace = answer.bytes_per_second
    step = CHUNK_BYTES if pace is None else max(1, int(pace / PACES_PER_SECOND))
    body = memoryview(answer.body)[begin:upto]
    for at in range(0, len(body), step):
        chunk = bytes(body[at : at + step])
        await wire.send({"type": "http.response.body", "body": chunk, "more_body": True})
        if pace is not None and await _left_within(wire, seconds=len(chunk) / pace):
            return False
    return True


def _head(answer: Answer, *, headers: tuple[tuple[str, str], ...]) -> bytes:
    lines = [("content-type", answer.content_type), ("connection", "close"), *headers]
    text = "".join(f"{name}: {value}\r\n" for name, value in lines)
    return f"HTTP/1.1 {answer.status} Simulated\r\n{text}\r\n".encode()


async def _close(wire: Wire) -> None:
    wire.transport.close()
    await _left(wire)


async def _told_to_go_on(wire: Wire) -> bool:
    async with asyncio.TaskGroup() as group:
        leaving, told = group.create_task(_left(wire)), group.create_task(wire.go_on.wait())
        done, waiting = await asyncio.wait({leaving, told}, return_when=asyncio.FIRST_COMPLETED)
        for task in waiting:
            task.cancel()
    return told in done


async def _left(wire: Wire) -> None:
    while (await wire.receive())["type"] != "http.disconnect":
        pass


async def _left_within(wire: Wire, *, seconds: float) -> bool:
    try:
        async with asyncio.timeout(seconds):
            await _left(wire)
    except TimeoutError:
        return False
    return True
