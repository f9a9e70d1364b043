"""What does the log look like?

One line per request, at its end, and one per background decision: event names are fixed words,
values are fields. JSON on a pipe, coloured text on a terminal. Never a prompt, a body or a key.

What libraries say by Python's own logging becomes such lines, too: `library_warned`, and
`library_failed` for what they call an error, mostly a defect that nobody has caught.
"""

import logging
import re
import sys
from collections.abc import Callable, Mapping, MutableMapping
from contextlib import suppress
from typing import Any, Final, TextIO, cast

import structlog

from gateway.telemetry.tracebacks import traceback_of, without_quotes
from gateway.telemetry.traces import trace_id_under_way

_CODES: Final = frozenset({"code", "error_code", "reason"})
_WORD: Final = re.compile(r"[\w.:-]{1,64}", re.ASCII)
_NO_WORD: Final = "no_word"

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
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer(
            # In the order in which they are said, the most telling first.
            sort_keys=False,
            exception_formatter=structlog.dev.plain_traceback,
        )
        if console
        else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _name_trace,
            structlog.processors.add_log_level,
            _leave_out_sentences,
            tell,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _show_traceback,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.INFO),
        # A line is one write: several processes may share the stream.
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Unfailing(stream))),
        cache_logger_on_first_use=False,
    )
    root = logging.getLogger()
    for handler in [one for one in root.handlers if isinstance(one, _Libraries)]:
        root.removeHandler(handler)
    root.addHandler(_Libraries(logging.WARNING))


def leave_out_sentences(facts: MutableMapping[str, Any]) -> None:
    """Take out of facts whatever should be a word and is none.

    The codes of an upstream are passed on as they come. One that is no word may quote a prompt.
    """
    for name in _CODES & facts.keys():
        if isinstance(facts[name], str) and not _WORD.fullmatch(facts[name]):
            facts[name] = _NO_WORD


def _leave_out_sentences(_logger: Any, _method: str, facts: structlog.typing.EventDict) -> Any:
    leave_out_sentences(facts)
    return facts


def _show_traceback(_logger: Any, _method: str, facts: structlog.typing.EventDict) -> Any:
    # structlog's own ways show messages as they are, and on a terminal the locals of every frame.
    told = facts.pop("exc_info", None)
    error = told[1] if isinstance(told, tuple) else told
    if error is True:
        error = sys.exception()
    if isinstance(error, BaseException):
        facts["exception"] = traceback_of(error)
    return facts


class _Libraries(logging.Handler):
    """Writes what libraries say into our log."""

    def emit(self, record: logging.LogRecord) -> None:
        """Write one line; asyncio's further ones may show anything."""
        facts = {
            "library": record.name,
            "message": without_quotes(record.getMessage()),
            "exc_info": record.exc_info,
        }
        log: structlog.typing.FilteringBoundLogger = structlog.get_logger()
        if record.levelno < logging.ERROR:
            log.warning("library_warned", **facts)
        else:
            log.error("library_failed", **facts)


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
