"""What is counted of spend alerts on their way out?"""

from typing import Final

from prometheus_client import CollectorRegistry, Counter

DELIVERED: Final = "delivered"
FAILED: Final = "failed"
GIVEN_UP: Final = "given_up"
OUTCOMES: Final = (DELIVERED, FAILED, GIVEN_UP)


class AlertMetrics:
    """Tries to deliver an alert."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._deliveries = Counter(
            "video_gateway_alert_deliveries",
            "Tries to deliver a spend alert: delivered; failed (tried again); given_up.",
            ["outcome"],
            registry=registry,
        )
        for outcome in OUTCOMES:
            self._deliveries.labels(outcome)

    def tried(self, outcome: str) -> None:
        """Count a try, by one of OUTCOMES."""
        self._deliveries.labels(outcome).inc()
