"""A receiver of traces, OTLP over HTTP, and what it was told."""

import asyncio
from collections.abc import AsyncIterator, Iterable, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web
from conftest import eventually
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest
from opentelemetry.proto.trace.v1 import trace_pb2

_DRIBBLE_SECONDS = 0.2
_ERROR = trace_pb2.Status.StatusCode.STATUS_CODE_ERROR


@dataclass(frozen=True)
class Told:
    """A span as it was told; ids are hexadecimal, `links` are trace and span ids."""

    name: str
    kind: str
    trace_id: str
    span_id: str
    parent_id: str
    links: list[tuple[str, str]]
    facts: Mapping[str, str | int]
    is_error: bool
    service: Mapping[str, str | int]

    @property
    def place(self) -> tuple[str, str]:
        """What a link to it says."""
        return self.trace_id, self.span_id


@dataclass
class Receiver:
    """What was received; while `answering` is clear, an answer goes on for ever."""

    url: str = ""
    spans: list[Told] = field(default_factory=list)
    bodies: list[bytes] = field(default_factory=list)
    answering: asyncio.Event = field(default_factory=asyncio.Event)

    def named(self, name: str) -> list[Told]:
        return [span for span in self.spans if span.name == name]

    def one(self, name: str) -> Told:
        (span,) = self.named(name)
        return span

    async def until(self, *names: str) -> None:
        """Wait until spans of all of these names have come."""

        async def there() -> bool:
            return set(names) <= {span.name for span in self.spans}

        await eventually(there)

    async def take(self, request: web.Request) -> web.StreamResponse:
        body = await request.read()
        if not self.answering.is_set():
            return await self._dribble(request)
        self.bodies.append(body)
        for resource in ExportTraceServiceRequest.FromString(body).resource_spans:
            service = _facts(resource.resource.attributes)
            for scope in resource.scope_spans:
                self.spans += [_told(span, service) for span in scope.spans]
        return web.Response()

    async def _dribble(self, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse()
        await answer.prepare(request)
        while not self.answering.is_set():
            with suppress(TimeoutError):
                async with asyncio.timeout(_DRIBBLE_SECONDS):
                    await self.answering.wait()
            await answer.write(b".")
        return answer


@asynccontextmanager
async def receiver(*, answering: bool = True) -> AsyncIterator[Receiver]:
    """Run a receiver of traces."""
    made = Receiver()
    if answering:
        made.answering.set()
    app = web.Application()
    app.router.add_post("/v1/traces", made.take)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    made.url = f"http://127.0.0.1:{runner.addresses[0][1]}/v1/traces"
    try:
        yield made
    finally:
        made.answering.set()
        await runner.cleanup()


def _told(span: trace_pb2.Span, service: Mapping[str, str | int]) -> Told:
    return Told(
        name=span.name,
        kind=trace_pb2.Span.SpanKind.Name(span.kind).removeprefix("SPAN_KIND_").lower(),
        trace_id=span.trace_id.hex(),
        span_id=span.span_id.hex(),
        parent_id=span.parent_span_id.hex(),
        links=[(link.trace_id.hex(), link.span_id.hex()) for link in span.links],
        facts=_facts(span.attributes),
        is_error=span.status.code == _ERROR,
        service=service,
    )


def _facts(attributes: Iterable[Any]) -> dict[str, str | int]:
    return {one.key: getattr(one.value, one.value.WhichOneof("value")) for one in attributes}
