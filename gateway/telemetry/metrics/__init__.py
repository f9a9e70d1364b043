"""What does this process count, in Prometheus' words?

Whoever does a thing counts it, with one call that says what happened; names, labels and buckets
stand here, one file for each who counts. Units are base units; every label comes from a closed list
(labels.py). What the records say is not counted but read from them at every scrape
(api/metrics.py): it is the same in every replica.

The composition root makes one Metrics and passes each part of it to those who count there. With
several workers, sharing.py lets all of them keep their values in one folder.
"""

from dataclasses import dataclass
from typing import Self

from prometheus_client import CollectorRegistry, disable_created_metrics

from gateway.telemetry.metrics.alerts import AlertMetrics
from gateway.telemetry.metrics.edge import HttpMetrics
from gateway.telemetry.metrics.labels import Known
from gateway.telemetry.metrics.mirror import MirrorMetrics
from gateway.telemetry.metrics.process import ProcessMetrics
from gateway.telemetry.metrics.resources import (
    ResourceMetrics,
    database_metrics,
    store_metrics,
)
from gateway.telemetry.metrics.upstream import UpstreamMetrics
from gateway.telemetry.metrics.videos import VideoMetrics


@dataclass(frozen=True, slots=True)
class Metrics:
    """Everything that a gateway counts."""

    registry: CollectorRegistry
    http: HttpMetrics
    upstream: UpstreamMetrics
    videos: VideoMetrics
    mirror: MirrorMetrics
    alerts: AlertMetrics
    database: ResourceMetrics
    store: ResourceMetrics
    process: ProcessMetrics

    @classmethod
    def of(cls, registry: CollectorRegistry, known: Known) -> Self:
        """Make all instruments in a registry, those with known labels at zero."""
        # When a series was made is of no use to anybody, and doubles their number.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        return cls(
            registry=registry,
            http=HttpMetrics(registry),
            upstream=UpstreamMetrics(registry, known),
            videos=VideoMetrics(registry, known),
            mirror=MirrorMetrics(registry),
            alerts=AlertMetrics(registry),
            database=database_metrics(registry),
            store=store_metrics(registry),
            process=ProcessMetrics(registry),
        )
