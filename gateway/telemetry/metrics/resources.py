"""What is counted of the database and the store: how long they take, and when they cannot?"""

from collections.abc import Sequence
from time import perf_counter
from types import TracebackType
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10)
SCRIPTS: Final = ("run", "run_beside", "read")
OPERATIONS: Final = ("write", "commit", "read", "delete", "size", "check", "sweep")


class ResourceMetrics:
    """Durations and errors of one resource, by what it was asked to do."""

    def __init__(self, durations: Histogram, errors: Counter, kinds: Sequence[str]) -> None:
        self._durations = {kind: durations.labels(kind) for kind in kinds}
        self._errors = {kind: errors.labels(kind) for kind in kinds}

    def doing(self, kind: str, *, failure: type[Exception]) -> "Doing":
        """Count how long the context takes, and whether it ends with such a failure.

        A refusal is an answer; of what was cancelled nothing is known.
        """
        return Doing(self._durations[kind], self._errors[kind], failure)

    def failed(self, kind: str) -> None:
        """Count a failure by itself."""
        self._errors[kind].inc()


class Doing:
    """One thing that is being done; a generator would take longer than it measures."""

    __slots__ = ("_begun", "_durations", "_errors", "_failure")

    def __init__(self, durations: Histogram, errors: Counter, failure: type[Exception]) -> None:
        self._durations = durations
        self._errors = errors
        self._failure = failure

    def __enter__(self) -> None:
        self._begun = perf_counter()

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self._durations.observe(perf_counter() - self._begun)
        if isinstance(exc, self._failure):
            self._errors.inc()


def database_metrics(registry: CollectorRegistry) -> ResourceMetrics:
    """Return what is counted of the database, by SCRIPTS."""
    durations = Histogram(
        "video_gateway_database_duration_seconds",
        "Until a script was answered, its wait included: run, run_beside, read.",
        ["kind"],
        buckets=BUCKETS,
        registry=registry,
    )
    errors = Counter(
        "video_gateway_database_errors",
        "Scripts that the database could not run.",
        ["kind"],
        registry=registry,
    )
    return ResourceMetrics(durations, errors, SCRIPTS)


def store_metrics(registry: CollectorRegistry) -> ResourceMetrics:
    """Return what is counted of the store, by OPERATIONS."""
    durations = Histogram(
        "video_gateway_store_duration_seconds",
        "Until the store had done it: write is one piece, commit makes all of them visible, read"
        " opens.",
        ["operation"],
        buckets=BUCKETS,
        registry=registry,
    )
    errors = Counter(
        "video_gateway_store_errors",
        "What the store could not do.",
        ["operation"],
        registry=registry,
    )
    return ResourceMetrics(durations, errors, OPERATIONS)
