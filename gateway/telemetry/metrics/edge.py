"""What is counted of the requests that come in?"""

from collections.abc import Iterable
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

from gateway.telemetry.metrics.labels import NONE, one_of

BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
METHODS: Final = frozenset({"GET", "HEAD", "POST", "DELETE"})
STATUSES: Final = ("queued", "in_progress", "completed", "failed")
SOURCES: Final = ("store", "upstream")
_OK: Final = "200"


class HttpMetrics:
    """Requests by route template, what was refused, and what was answered without the upstream."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._requests = Counter(
            "video_gateway_http_requests",
            "Requests by route template (none: no such path) and status (none: its client left"
            " first).",
            ["method", "route", "code"],
            registry=registry,
        )
        self._seconds = Histogram(
            "video_gateway_http_request_duration_seconds",
            "From the request's head to the answer's last byte, by route template.",
            ["method", "route"],
            buckets=BUCKETS,
            registry=registry,
        )
        self._in_flight = Gauge(
            "video_gateway_http_requests_in_flight",
            "Requests that are being answered.",
            multiprocess_mode="livesum",
            registry=registry,
        )
        self._refused = Counter(
            "video_gateway_requests_refused",
            "Requests answered with an error, by its kind, such as budget_exceeded.",
            ["reason"],
            registry=registry,
        )
        self._status_reads = Counter(
            "video_gateway_status_reads",
            "Times a client was told a video's status, from the record: no upstream was asked.",
            ["status"],
            registry=registry,
        )
        self._content_bytes = Counter(
            "video_gateway_content_sent_bytes",
            "Bytes of content sent to clients: from the store, or as they came from the upstream.",
            ["source"],
            registry=registry,
        )
        # Looking a child up costs more than counting in it.
        self._ended: dict[tuple[str, str, str], tuple[Counter, Histogram]] = {}
        self._told = {status: self._status_reads.labels(status) for status in STATUSES}
        self._sent = {source: self._content_bytes.labels(source) for source in SOURCES}

    def know(self, *, routes: Iterable[tuple[str, str]], reasons: Iterable[str]) -> None:
        """Show zeros for what there is: methods with their routes, and kinds of errors."""
        for method, route in routes:
            self._requests.labels(method, route, _OK)
        for reason in reasons:
            self._refused.labels(reason)

    def begun(self) -> None:
        """Count a request that has come in."""
        self._in_flight.inc()

    def ended(self, method: str, route: str | None, status: int | None, *, seconds: float) -> None:
        """Count the end of a request; without a route there was no such path."""
        self._in_flight.dec()
        told = (
            one_of(METHODS, method),
            route or NONE,
            NONE if status is None else str(status),
        )
        found = self._ended.get(told)
        if found is None:
            found = self._requests.labels(*told), self._seconds.labels(*told[:2])
            self._ended[told] = found
        requests, durations = found
        requests.inc()
        durations.observe(seconds)

    def refused(self, reason: str) -> None:
        """Count an answer that is an error."""
        self._refused.labels(reason).inc()

    def told_status(self, status: str) -> None:
        """Count that a client was told the status of a video, one of STATUSES."""
        self._told[status].inc()

    def sent(self, source: str, size_bytes: int) -> None:
        """Count bytes of content that a client was sent, from one of SOURCES."""
        self._sent[source].inc(size_bytes)
