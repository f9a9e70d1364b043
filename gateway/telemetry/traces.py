"""What is told of the way that a request, or a turn of the background, takes through the gateway?

A span is one thing that is done: a request, a script on the database, a question to the upstream, a
poll. Spans in one another are a trace. A request continues the trace of its caller. A turn for a
video begins a trace of its own, because it may come days later, and links to the span that bought
the video.

The composition root makes one Tracer and passes it on: UNTRACED, or what the extra `traces` brings
(exporting.py). What is under way is known to the task that does it and to those that it starts; so
the log names its trace without being told, whether or not anybody records it.
"""

from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from contextvars import ContextVar
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Literal, Protocol, TypeAlias, TypeVar

from gateway.telemetry.traceparent import read_traceparent, trace_id_of

Kind: TypeAlias = Literal["internal", "client"]
Fact: TypeAlias = str | int | bool
# Before a name that is ours and none of OpenTelemetry's semantic conventions.
OURS: Final = "video_gateway."


@dataclass(frozen=True, slots=True)
class UnderWay:
    """What is being done in this task.

    Attributes:
        traceparent: what is begun on its behalf elsewhere belongs to this span.
        about: the trace that it is done for, where that is not its own.
        span: what the tracer keeps of it.
    """

    traceparent: str | None
    about: str | None = None
    span: Any = None

    @property
    def trace_id(self) -> str | None:
        """The trace that the log names: the one that it is about, else its own."""
        named = self.about or self.traceparent
        return None if named is None else trace_id_of(named)


under_way: Final[ContextVar[UnderWay | None]] = ContextVar("gateway.under_way", default=None)


class Span(Protocol):
    """One thing that is being done."""

    @property
    def is_recorded(self) -> bool:
        """Whether anybody is told; else facts need not be gathered."""
        ...

    def rename(self, name: str) -> None:
        """Call it by what has become known since it began."""
        ...

    def note(self, facts: Mapping[str, Fact]) -> None:
        """Add facts. Never a prompt, a body, a key, or an address with its query."""
        ...

    def fail(self, reason: str) -> None:
        """Say that it failed, with a fixed word."""
        ...


class Tracer(Protocol):
    """Says what is under way. Every sentence below has a test in the same words.

    - Within `request`, the caller's trace is under way, also for the tasks that it starts.
    - Within `turn`, nothing of what was under way before is, but the trace that it is about is
      named by the log.
    - `span` changes nothing for the log.
    - After each of them, what was under way before is again.
    """

    def request(self, name: str, *, traceparent: str | None) -> AbstractContextManager[Span]:
        """Do what somebody asks for, in the trace of the caller, if there is one."""
        ...

    def turn(
        self, name: str, *, about: str | None, facts: Mapping[str, Fact]
    ) -> AbstractContextManager[Span]:
        """Do a turn of the background, in a trace of its own; `about`: what it is done for."""
        ...

    def span(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        about: str | None = None,
        facts: Mapping[str, Fact] | None = None,
    ) -> AbstractContextManager[Span]:
        """Do a part of what is under way. Where nothing is, nobody is told of it.

        So the loops, which look for something to do several times a second, tell nobody.
        """
        ...


class _Untold:
    is_recorded = False

    def rename(self, name: str) -> None:
        """Tell nobody."""

    def note(self, facts: Mapping[str, Fact]) -> None:
        """Tell nobody."""

    def fail(self, reason: str) -> None:
        """Tell nobody."""


_UNTOLD: Final[Span] = _Untold()
UNTOLD: Final[AbstractContextManager[Span]] = nullcontext(_UNTOLD)


class _Doing:
    """What is under way, while the context is open; a generator would take four times as long."""

    __slots__ = ("_now", "_token")

    def __init__(self, now: UnderWay) -> None:
        self._now = now

    def __enter__(self) -> Span:
        self._token = under_way.set(self._now)
        return _UNTOLD

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        under_way.reset(self._token)


class _Untraced:
    """A tracer that tells nobody."""

    def request(self, name: str, *, traceparent: str | None) -> AbstractContextManager[Span]:
        """See Tracer."""
        del name
        # A pipelined request begins in the context of the one before it.
        if traceparent is None and under_way.get() is None:
            return UNTOLD
        return _Doing(UnderWay(traceparent))

    def turn(
        self, name: str, *, about: str | None, facts: Mapping[str, Fact]
    ) -> AbstractContextManager[Span]:
        """See Tracer."""
        del name, facts
        return _Doing(UnderWay(None, about=well_formed(about)))

    def span(
        self,
        name: str,
        *,
        kind: Kind = "internal",
        about: str | None = None,
        facts: Mapping[str, Fact] | None = None,
    ) -> AbstractContextManager[Span]:
        """See Tracer."""
        del name, kind, about, facts
        return UNTOLD


UNTRACED: Final[Tracer] = _Untraced()


def traceparent_under_way() -> str | None:
    """Return what is to be passed on by whoever does something on behalf of what is under way."""
    now = under_way.get()
    return None if now is None else now.traceparent


def trace_id_under_way() -> str | None:
    """Return the trace that the log is to name."""
    now = under_way.get()
    return None if now is None else now.trace_id


def well_formed(traceparent: str | None) -> str | None:
    """Return a traceparent as a row has it, if it is one: no turn may fail because of it."""
    return None if traceparent is None else read_traceparent(traceparent)


def about_trace(traceparent: str | None) -> Mapping[str, str]:
    """Return what a log line says of the trace that it is about."""
    named = well_formed(traceparent)
    return {} if named is None else {"trace_id": trace_id_of(named)}


class Claimed(Protocol):
    """A row that a turn is about; see turns.py."""

    @property
    def traceparent(self) -> str | None:
        """Of the span that it is done for."""
        ...

    @property
    def log_facts(self) -> Mapping[str, str]:
        """What the log says it is about."""
        ...


C = TypeVar("C", bound=Claimed)


def traced_turn(
    tracer: Tracer, name: str, turn: Callable[[C], Awaitable[None]]
) -> Callable[[C], Awaitable[None]]:
    """Return a turn of a loop as a span."""

    async def traced(claimed: C) -> None:
        facts = {f"{OURS}{fact}": value for fact, value in claimed.log_facts.items()}
        facts.pop(f"{OURS}trace_id", None)
        with tracer.turn(name, about=claimed.traceparent, facts=facts):
            await turn(claimed)

    return traced
