"""What is a span that is recorded? OpenTelemetry's, of which nothing global is used.

Which span is under way is kept by traces.py, and each is begun under it. OpenTelemetry's context
would do the same, but says in the log of whatever is not left by the task that entered it.
"""

from collections.abc import Mapping
from contextlib import AbstractContextManager
from types import TracebackType
from typing import Final, Self

from opentelemetry.context import Context
from opentelemetry.trace import (
    Link,
    NonRecordingSpan,
    SpanContext,
    SpanKind,
    StatusCode,
    TraceFlags,
    set_span_in_context,
)
from opentelemetry.trace import Span as SdkSpan
from opentelemetry.trace import Tracer as SdkTracer

from gateway.errors import GatewayError
from gateway.telemetry.traceparent import write_traceparent
from gateway.telemetry.traces import (
    UNTOLD,
    Fact,
    Kind,
    Span,
    UnderWay,
    under_way,
    well_formed,
)

FACT_CHARACTERS: Final = 256
_SERVER_ERRORS: Final = 500
_KINDS: Final = {"internal": SpanKind.INTERNAL, "client": SpanKind.CLIENT}


class Spans:
    """A tracer whose spans are recorded."""

    def __init__(self, tracer: SdkTracer) -> None:
        self._tracer = tracer

    def request(self, name: str, *, traceparent: str | None) -> AbstractContextManager[Span]:
        """See Tracer."""
        parent = None if traceparent is None else NonRecordingSpan(_context_of(traceparent))
        return self._begin(name, parent, kind=SpanKind.SERVER)

    def turn(
        self, name: str, *, about: str | None, facts: Mapping[str, Fact]
    ) -> AbstractContextManager[Span]:
        """See Tracer."""
        link = well_formed(about)
        return self._begin(name, None, link=link, about=link, facts=facts)

    def span(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        about: str | None = None,
        facts: Mapping[str, Fact] | None = None,
    ) -> AbstractContextManager[Span]:
        """See Tracer."""
        now = under_way.get()
        if now is None or now.span is None or not now.span.is_recording():
            return UNTOLD
        return self._begin(
            name,
            now.span,
            kind=_KINDS[kind],
            link=well_formed(about),
            about=now.about,
            facts=facts,
        )

    def _begin(
        self,
        name: str,
        parent: SdkSpan | None,
        *,
        kind: SpanKind = SpanKind.INTERNAL,
        link: str | None = None,
        about: str | None = None,
        facts: Mapping[str, Fact] | None = None,
    ) -> "_Recorded":
        span = self._tracer.start_span(
            name,
            context=Context() if parent is None else set_span_in_context(parent, Context()),
            kind=kind,
            attributes=_cut(facts or {}),
            links=() if link is None else (Link(_context_of(link)),),
        )
        return _Recorded(span, about=about)


class _Recorded:
    """A span, under way while its context is open."""

    __slots__ = ("_has_failed", "_now", "_span", "_token")

    def __init__(self, span: SdkSpan, *, about: str | None) -> None:
        self._span = span
        self._has_failed = False
        self._now = UnderWay(_text_of(span.get_span_context()), about, span)

    def __enter__(self) -> Self:
        self._token = under_way.set(self._now)
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        under_way.reset(self._token)
        # The kind alone: a message may quote what a client has sent.
        if exc_type is not None and not self._has_failed and not _is_refusal(exc):
            self.fail(exc_type.__name__)
        self._span.end()

    @property
    def is_recorded(self) -> bool:
        """See Span."""
        return self._span.is_recording()

    def rename(self, name: str) -> None:
        """See Span."""
        self._span.update_name(name)

    def note(self, facts: Mapping[str, Fact]) -> None:
        """See Span."""
        self._span.set_attributes(_cut(facts))

    def fail(self, reason: str) -> None:
        """See Span."""
        self._has_failed = True
        self._span.set_status(StatusCode.ERROR)
        self._span.set_attribute("error.type", reason)


def _cut(facts: Mapping[str, Fact]) -> dict[str, Fact]:
    # OpenTelemetry would do it, and complain of every one.
    return {
        name: fact[:FACT_CHARACTERS] if isinstance(fact, str) else fact
        for name, fact in facts.items()
    }


def _is_refusal(error: BaseException | None) -> bool:
    """Tell whether an error is an answer to a client, and no failure of what was done."""
    return isinstance(error, GatewayError) and error.status < _SERVER_ERRORS


def _context_of(traceparent: str) -> SpanContext:
    _, trace_id, span_id, flags = traceparent.split("-")
    return SpanContext(
        int(trace_id, 16), int(span_id, 16), is_remote=True, trace_flags=TraceFlags(int(flags, 16))
    )


def _text_of(context: SpanContext) -> str | None:
    if not context.is_valid:
        return None  # OTEL_SDK_DISABLED
    return write_traceparent(
        f"{context.trace_id:032x}", f"{context.span_id:016x}", flags=context.trace_flags
    )
