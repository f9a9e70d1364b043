"""GET /metrics on the ops port: what does Prometheus get to read?

What this process, or all workers together, have counted; the room on the machine's disks; and what
the records say. A database that does not answer takes away the last of these only: that is when the
others are wanted most.
"""

import asyncio
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import Response

from gateway.api.metrics.disks import DiskMetrics, folders_of
from gateway.api.metrics.families import RecordedMetrics
from gateway.api.metrics.reading import Read, Records
from gateway.api.parts import Parts
from gateway.errors import DatabaseUnavailable
from gateway.telemetry.metrics.sharing import counted

# Less than Prometheus waits for a scrape (10 s): a database that says nothing must not take the
# counters with it.
READ_SECONDS: Final = 5.0


def metrics_endpoint(parts: Parts) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint. Beyond `metrics_max_projects`, those that spent least are one, other."""
    settings = parts.settings
    records = Records(parts.database, clock=parts.clock, max_keys=settings.metrics_max_keys)
    disks = DiskMetrics(folders_of(settings, temporary=Path(tempfile.gettempdir())))
    own = counted(parts.metrics.registry)

    async def endpoint(_: Request) -> Response:
        recorded = RecordedMetrics(await _read(records), settings)
        # A thousand lines of text: the loop has something better to do.
        text = await asyncio.to_thread(_text, own, disks, recorded)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return endpoint


async def _read(records: Records) -> Read | None:
    try:
        async with asyncio.timeout(READ_SECONDS):
            return await records.read()
    except (DatabaseUnavailable, TimeoutError):
        return None


def _text(*collectors: Collector) -> bytes:
    registry = CollectorRegistry(auto_describe=False)
    for collector in collectors:
        registry.register(collector)
    return generate_latest(registry)
