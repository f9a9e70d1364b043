"""How much room is left where the gateway writes?"""

import shutil
from collections.abc import Iterator, Mapping
from pathlib import Path

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.config import Settings


class DiskMetrics(Collector):
    """The disks of this machine; of what stands on a server nothing is known here."""

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = folders

    def collect(self) -> Iterator[Metric]:
        """Yield size and room; a folder that cannot be asked about has no sample."""
        free = GaugeMetricFamily(
            "video_gateway_disk_free_bytes",
            "Room left on the disk of: database (a file), store (a folder), spool.",
            labels=["disk"],
        )
        size = GaugeMetricFamily(
            "video_gateway_disk_size_bytes", "Size of that disk.", labels=["disk"]
        )
        for name, folder in self._folders.items():
            try:
                usage = shutil.disk_usage(folder)
            except OSError:
                continue
            free.add_metric([name], usage.free)
            size.add_metric([name], usage.total)
        yield from (free, size)


def folders_of(settings: Settings, *, temporary: Path) -> dict[str, Path]:
    """Return the folders that a gateway writes into, by name."""
    found = {"spool": Path(settings.spool_path) if settings.spool_path else temporary}
    if settings.database_path is not None:
        found["database"] = settings.database_path.parent
    if settings.store_url.startswith("file:"):
        found["store"] = settings.store_path
    return found
