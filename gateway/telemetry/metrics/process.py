"""What does the process say of itself: its version, its health, what it uses?"""

import asyncio
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram

LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)
LOOK_SECONDS: Final = 0.5
# Reading what the process uses takes longer than looking at the loop.
_LOOKS_PER_READING: Final = 10
_SELF: Final = Path("/proc/self")


class ProcessMetrics:
    """One process; those of several workers are added up, and so are those of replicas."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._loop_lag = Histogram(
            "video_gateway_event_loop_lag_seconds",
            "How much later than asked for the event loop came round, measured twice a second.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self._cpu = Counter(
            "video_gateway_process_cpu_seconds",
            "CPU time, user and system, of all workers.",
            registry=registry,
        )
        self._memory = _gauge(
            registry, "process_resident_memory_bytes", "Memory in use, of all workers."
        )
        self._files = _gauge(registry, "process_open_fds", "Open files, of all workers.")
        self._processes = _gauge(registry, "processes", "Processes that serve.")
        self._started = Gauge(
            "video_gateway_start_timestamp_seconds",
            "When the process began; of several workers, the latest.",
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._checks = Gauge(
            "video_gateway_check_passing",
            "1 if a check of /readyz?verbose passes, else 0; of several workers, the worst.",
            ["check"],
            multiprocess_mode="livemin",
            registry=registry,
        )
        self._build = Gauge(
            "video_gateway_build_info",
            "1, with the version of the program and the catalogue in force.",
            ["version", "catalogue_sha256"],
            multiprocess_mode="livemax",
            registry=registry,
        )
        self._cpu_seconds = 0.0

    def built(self, *, version: str, catalogue_sha256: str, now: int) -> None:
        """Say what runs, since now (Unix seconds)."""
        self._started.set(now)
        self._build.labels(version, catalogue_sha256).set(1)
        self._processes.set(1)

    def checked(self, checks: Mapping[str, bool]) -> None:
        """Say which checks pass."""
        for name, passes in checks.items():
            self._checks.labels(name).set(passes)

    async def watch(self) -> None:
        """Look at the event loop, and at what the process uses, until cancelled."""
        loop = asyncio.get_running_loop()
        while True:
            self._read()
            for _ in range(_LOOKS_PER_READING):
                due = loop.time() + LOOK_SECONDS
                await asyncio.sleep(LOOK_SECONDS)
                self._loop_lag.observe(max(0.0, loop.time() - due))

    def _read(self) -> None:
        # Not by the library: it wants /proc/stat, which a hardened unit hides.
        cpu_seconds = sum(os.times()[:2])
        self._cpu.inc(max(0.0, cpu_seconds - self._cpu_seconds))
        self._cpu_seconds = cpu_seconds
        with suppress(OSError):  # where there is no /proc
            pages = int((_SELF / "statm").read_text().split()[1])
            self._memory.set(pages * os.sysconf("SC_PAGE_SIZE"))
            self._files.set(sum(1 for _ in (_SELF / "fd").iterdir()))


def _gauge(registry: CollectorRegistry, name: str, text: str) -> Gauge:
    return Gauge(f"video_gateway_{name}", text, multiprocess_mode="livesum", registry=registry)
