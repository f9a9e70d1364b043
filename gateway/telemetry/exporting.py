"""How do spans get to an OTLP receiver?

By OpenTelemetry's SDK, an extra: this file and spans.py are imported only where tracing is on.

Nothing waits for the receiver: spans stand in a queue that is cut off at QUEUE_SPANS, a thread
sends them, and at the end they have FLUSH_SECONDS. When the receiver is down, the log says so once
in SAY_SECONDS.
"""

import asyncio
import logging
import threading
import time
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from contextlib import asynccontextmanager, contextmanager
from typing import Any, Final

import structlog
from opentelemetry.context import Context
from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
from opentelemetry.metrics import NoOpMeterProvider
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor
from opentelemetry.sdk.trace.sampling import (
    ALWAYS_OFF,
    ALWAYS_ON,
    ParentBased,
    Sampler,
    SamplingResult,
    TraceIdRatioBased,
)
from opentelemetry.trace import Link, SpanKind

from gateway.telemetry.spans import Spans
from gateway.telemetry.traces import Fact, Tracer

QUEUE_SPANS: Final = 8_192
BATCH_SPANS: Final = 512
BATCH_MILLISECONDS: Final = 2_000
EXPORT_SECONDS: Final = 5.0
FLUSH_SECONDS: Final = 3.0
SAY_SECONDS: Final = 60.0
CAUSE_CHARACTERS: Final = 300
_PPM: Final = 1_000_000

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@asynccontextmanager
async def exporting(
    url: str, *, sample_ppm: int, service: Mapping[str, Fact]
) -> AsyncIterator[Tracer]:
    """Yield a tracer whose spans are sent to a receiver.

    Args:
        url: where it takes OTLP over HTTP, with its path.
        sample_ppm: how many of the traces that begin here are recorded, in millionths.
        service: who we are; OTEL_SERVICE_NAME and OTEL_RESOURCE_ATTRIBUTES have the last word.
    """
    with _saying_what_went_wrong():
        exporter = OTLPSpanExporter(url, timeout=EXPORT_SECONDS, meter_provider=NoOpMeterProvider())
        processor = BatchSpanProcessor(
            exporter,
            max_queue_size=QUEUE_SPANS,
            max_export_batch_size=BATCH_SPANS,
            schedule_delay_millis=BATCH_MILLISECONDS,
            meter_provider=NoOpMeterProvider(),
        )
        provider = TracerProvider(
            sampler=ParentBased(_ByLink(TraceIdRatioBased(sample_ppm / _PPM))),
            resource=Resource.create({**service, **OTELResourceDetector().detect().attributes}),
            shutdown_on_exit=False,
            meter_provider=NoOpMeterProvider(),
        )
        provider.add_span_processor(processor)
        try:
            yield Spans(provider.get_tracer("gateway"))
        finally:
            await _close(processor)


async def _close(processor: BatchSpanProcessor) -> None:
    # By itself it would wait for a receiver that does not answer for half a minute.
    closing = threading.Thread(target=processor.shutdown, daemon=True)
    closing.start()
    await asyncio.to_thread(closing.join, FLUSH_SECONDS)
    if closing.is_alive():
        _log.warning("traces_not_exported", cause="no time was left")


class _ByLink(Sampler):
    """Records a turn if the span that it is done for was recorded; anything else by chance."""

    def __init__(self, otherwise: Sampler) -> None:
        self._otherwise = otherwise

    def should_sample(
        self,
        parent_context: Context | None,
        trace_id: int,
        name: str,
        kind: SpanKind | None = None,
        attributes: Any = None,
        links: Sequence[Link] | None = None,
        trace_state: Any = None,
    ) -> SamplingResult:
        """Decide about a span without a parent."""
        sampler = self._otherwise
        if links:
            is_recorded = any(link.context.trace_flags.sampled for link in links)
            sampler = ALWAYS_ON if is_recorded else ALWAYS_OFF
        return sampler.should_sample(
            parent_context, trace_id, name, kind, attributes, links, trace_state
        )

    def get_description(self) -> str:
        """Say what it does; the SDK wants to know."""
        return f"by link, else {self._otherwise.get_description()}"


class _Saying(logging.Handler):
    """Puts what OpenTelemetry complains of into our log, one line in SAY_SECONDS."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._silent_until = 0.0
        self._kept_back = 0

    def emit(self, record: logging.LogRecord) -> None:
        """Say it, or count it."""
        now = time.monotonic()
        if now < self._silent_until:
            self._kept_back += 1
            return
        self._silent_until = now + SAY_SECONDS
        _log.warning("traces_not_exported", cause=_words(record), kept_back=self._kept_back)
        self._kept_back = 0


def _words(record: logging.LogRecord) -> str:
    # Of an error its kind: what it says may quote a header, and in that a secret.
    if isinstance(record.args, tuple):
        record.args = tuple(
            type(one).__name__ if isinstance(one, BaseException) else one for one in record.args
        )
    return record.getMessage()[:CAUSE_CHARACTERS]


@contextmanager
def _saying_what_went_wrong() -> Iterator[None]:
    logger = logging.getLogger("opentelemetry")
    # For good: what a thread that was left behind says later is for nobody.
    logger.propagate = False
    if not logger.handlers:
        logger.addHandler(logging.NullHandler())
    saying = _Saying()
    logger.addHandler(saying)
    try:
        yield
    finally:
        logger.removeHandler(saying)
