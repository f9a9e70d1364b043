"""What does the log look like?

One line per request, at its end, and one per background decision: event names are fixed words,
values are fields. JSON on a pipe, coloured text on a terminal. Never a prompt, a body or a key.
"""

import logging
import sys
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, TextIO, cast

import structlog

from gateway.telemetry.traces import trace_id_under_way

Told = Callable[[Mapping[str, Any]], None]


def configure_logs(
    log_format: str, *, stream: TextIO = sys.stdout, told: Told = lambda _: None
) -> None:
    """Send the log to a stream; `auto` is coloured text on a terminal and JSON elsewhere.

    `told` is given the facts of every line before it is written.
    """

    def tell(_logger: Any, _method: str, facts: structlog.typing.EventDict) -> Any:
        told(facts)
        return facts

    console = log_format == "console" or (log_format == "auto" and stream.isatty())
    # The default formatter is rich's where rich is installed, and shows the locals of every frame:
    # keys and prompts among them.
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(exception_formatter=structlog.dev.plain_traceback)
        if console
        else structlog.processors.JSONRenderer()
    )
    tracebacks = [] if console else [structlog.processors.format_exc_info]
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _name_trace,
            structlog.processors.add_log_level,
            tell,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            *tracebacks,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # A line is one write: several processes may share the stream.
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Unfailing(stream))),
        cache_logger_on_first_use=False,
    )


def _name_trace(_logger: Any, _method: str, facts: structlog.typing.EventDict) -> Any:
    """Say which trace a line belongs to, unless whoever writes it has said so."""
    trace_id = trace_id_under_way()
    if trace_id is not None:
        facts.setdefault("trace_id", trace_id)
    return facts


class _Unfailing:
    """A stream for the log: a full disk, or a reader that has left, must not break off money."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> None:
        with suppress(OSError, ValueError):
            self._stream.write(text)

    def flush(self) -> None:
        with suppress(OSError, ValueError):
            self._stream.flush()
