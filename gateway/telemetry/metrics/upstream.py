"""What is counted of the requests that go to upstreams?"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from time import perf_counter
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.telemetry.metrics.edge import BUCKETS
from gateway.telemetry.metrics.labels import Known

OK: Final = "ok"
NOT_SENT: Final = "not_sent"
UNKNOWN: Final = "unknown"
MISSING: Final = "missing"
UNCLEAR: Final = "unclear"
REFUSED: Final = "refused"
# What an upstream's refusal means (upstream/refusals.py), by the reason of the error.
REFUSALS: Final = {
    "upstream_auth": "auth",
    "upstream_misconfigured": "misconfigured",
    "upstream_balance": "balance",
    "upstream_rate_limited": "rate_limited",
}
# What a running gateway asks; commands are not scraped.
ENDPOINTS: Final = ("submit", "retrieve", "content", "delete")
OUTCOMES: Final = (OK, REFUSED, *REFUSALS.values(), NOT_SENT, UNKNOWN, MISSING, UNCLEAR)


@dataclass(slots=True)
class Asked:
    """One question; `outcome`, of OUTCOMES, is what is known of it in the end."""

    outcome: str


class UpstreamMetrics:
    """Questions by upstream, endpoint and what is known afterwards."""

    def __init__(self, registry: CollectorRegistry, known: Known) -> None:
        self._requests = Counter(
            "video_gateway_upstream_requests",
            "Requests to an upstream, by what is known afterwards: ok, refused, our key's fault"
            " (auth, misconfigured, balance), rate_limited, not_sent, unknown, missing, unclear.",
            ["upstream", "endpoint", "outcome"],
            registry=registry,
        )
        self._seconds = Histogram(
            "video_gateway_upstream_request_duration_seconds",
            "Until an upstream's answer was read; of a download, until its first byte.",
            ["upstream", "endpoint"],
            buckets=(*BUCKETS, 60, 120),
            registry=registry,
        )
        for upstream in known.upstreams:
            for endpoint in ENDPOINTS:
                for outcome in OUTCOMES:
                    self._requests.labels(upstream, endpoint, outcome)

    @contextmanager
    def asking(self, upstream: str, endpoint: str, *, otherwise: str = UNCLEAR) -> Iterator[Asked]:
        """Count a question at the end of the context; `otherwise` where no outcome was set."""
        asked = Asked(otherwise)
        begun = perf_counter()
        try:
            yield asked
        finally:
            self._requests.labels(upstream, endpoint, asked.outcome).inc()
            self._seconds.labels(upstream, endpoint).observe(perf_counter() - begun)
