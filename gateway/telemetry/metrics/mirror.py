"""What is counted of content on its way into the store?"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram

LAG_BUCKETS: Final = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
VARIANTS: Final = ("video", "thumbnail", "spritesheet")
MIRRORED: Final = "mirrored"
FAILED: Final = "failed"
ABSENT: Final = "absent"
GONE: Final = "gone"
STORE_FAILED: Final = "store_failed"
OUTCOMES: Final = (MIRRORED, FAILED, ABSENT, GONE, STORE_FAILED)


class MirrorMetrics:
    """Turns of the mirror, and how far it lags behind."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._turns = Counter(
            "video_gateway_mirror_turns",
            "Turns of the mirror: mirrored; failed, store_failed (tried again); absent (the"
            " upstream has no such variant); gone (lost before it was mirrored).",
            ["variant", "outcome"],
            registry=registry,
        )
        self._bytes = Counter(
            "video_gateway_mirrored_bytes",
            "Bytes of content that were mirrored.",
            registry=registry,
        )
        self._lag_seconds = Histogram(
            "video_gateway_mirror_lag_seconds",
            "From the completion of a video, as recorded, to its content in the store.",
            ["variant"],
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        for variant in VARIANTS:
            for outcome in OUTCOMES:
                self._turns.labels(variant, outcome)
        self._lag_seconds.labels(VARIANTS[0])

    def mirrored(self, variant: str, *, size_bytes: int, lag_seconds: float) -> None:
        """Count content that is in the store."""
        self.turn(variant, MIRRORED)
        self._bytes.inc(size_bytes)
        self._lag_seconds.labels(variant).observe(max(0.0, lag_seconds))

    def turn(self, variant: str, outcome: str) -> None:
        """Count a turn, by one of OUTCOMES."""
        self._turns.labels(variant, outcome).inc()
