"""What is counted of the life of videos?"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

from gateway.telemetry.metrics.labels import NONE, OTHER, Known, Sold, one_of

GENERATION_BUCKETS: Final = (30, 60, 90, 120, 180, 240, 300, 420, 600, 900, 1200, 1800, 3600)
COMPLETED: Final = "completed"
FAILED: Final = "failed"
FAILED_BILLED: Final = "failed_billed"
REFUSED: Final = "refused"
NOT_SENT: Final = "not_sent"
ORPHANED: Final = "orphaned"
ENDS: Final = (COMPLETED, FAILED, FAILED_BILLED, REFUSED, NOT_SENT, ORPHANED)
PENDING: Final = "pending"
NOTHING: Final = "nothing"
POLLED: Final = (PENDING, COMPLETED, FAILED, NOTHING)
# Codes that OpenAI and relays are known to give a failed video.
FAILURES: Final = (
    "moderation_blocked",
    "content_policy_violation",
    "sentinel_block",
    "invalid_request",
    "rate_limit_exceeded",
    "server_error",
    "generation_failed",
    "video_generation_failed",
    "timeout",
    "cancelled",
    "unspecified",
)


class VideoMetrics:
    """Purchases, ends, and polls in between."""

    def __init__(self, registry: CollectorRegistry, known: Known) -> None:
        self._known = known
        self._sold = frozenset(known.sold)
        self._bought = Counter(
            "video_gateway_videos_bought",
            "Billable requests whose price was held.",
            ["operation", "model", "size", "seconds"],
            registry=registry,
        )
        self._ended = Counter(
            "video_gateway_videos_ended",
            "Videos that came to their end: completed; failed (costs nothing), failed_billed;"
            " refused by the upstream, not_sent to it; orphaned: nobody knows.",
            ["model", "outcome"],
            registry=registry,
        )
        self._failures = Counter(
            "video_gateway_video_failures",
            "Failed videos, by what the upstream gave as the reason.",
            ["model", "reason"],
            registry=registry,
        )
        self._generation_seconds = Histogram(
            "video_gateway_video_generation_seconds",
            "From the record of the upstream's id to the poll that found a video completed.",
            ["model"],
            buckets=GENERATION_BUCKETS,
            registry=registry,
        )
        self._polls = Counter(
            "video_gateway_polls",
            "Polls, by what they found: pending, completed, failed, or nothing that could be used.",
            ["outcome"],
            registry=registry,
        )
        self._show_zeros()

    def _show_zeros(self) -> None:
        for outcome in POLLED:
            self._polls.labels(outcome)
        for one in self._sold:
            self._bought.labels("create", one.model, one.size, one.seconds)
        for model in self._known.models:
            self._generation_seconds.labels(model)
            for outcome in ENDS:
                self._ended.labels(model, outcome)
            for reason in (*FAILURES, OTHER):
                self._failures.labels(model, reason)

    def bought(self, operation: str, *, model: str, size: str, clip_seconds: int) -> None:
        """Count a request whose price was held; a character has no model."""
        if not model:
            self._bought.labels(operation, NONE, NONE, NONE).inc()
            return
        one = Sold(model, size, str(clip_seconds))
        if one not in self._sold:
            # A remix has what its source has, an upload any length.
            one = Sold(self._known.model(model), OTHER, OTHER)
        self._bought.labels(operation, one.model, one.size, one.seconds).inc()

    def ended(self, model: str, outcome: str) -> None:
        """Count a video's end, one of ENDS."""
        self._ended.labels(self._known.model(model), outcome).inc()

    def completed(self, model: str, *, seconds: float) -> None:
        """Count a completed video, and how long it took since its upstream id was recorded."""
        self.ended(model, COMPLETED)
        self._generation_seconds.labels(self._known.model(model)).observe(seconds)

    def failed(self, model: str, *, reason: str, is_billed: bool) -> None:
        """Count a failed video, and why it failed."""
        self.ended(model, FAILED_BILLED if is_billed else FAILED)
        self._failures.labels(self._known.model(model), one_of(FAILURES, reason)).inc()

    def polled(self, outcome: str) -> None:
        """Count a poll, by one of POLLED."""
        self._polls.labels(outcome).inc()
