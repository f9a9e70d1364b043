"""How does a gateway come to its end, so that nobody notices and nothing is left behind?

    told to end → unready, goes on with everything (drain_delay_seconds)
                → accepts nothing more, finishes what is in flight (shutdown_seconds)
                → loops give back what they had claimed → exit code 0

Health is answered to the end. What is cut off at the end of `shutdown_seconds` is left as a kill
would leave it.
"""

import asyncio
import contextlib
from collections.abc import Sequence

import structlog

from gateway.api.parts import Parts
from gateway.errors import DatabaseUnavailable
from gateway.server import Server, stop, wait_unless

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


async def go_on(parts: Parts, servers: Sequence[Server], *, hurried: asyncio.Event) -> None:
    """Be unready, and do everything as before for as long as others may take to notice."""
    api, _ = servers
    delay_seconds = parts.settings.drain_delay_seconds
    parts.health.draining = True
    parts.metrics.process.checked(parts.health.everything())
    api.keep_no_connection()
    _log.info("gateway_draining", delay_seconds=delay_seconds)
    await wait_unless(hurried, seconds=delay_seconds)


async def drain(parts: Parts, servers: Sequence[Server]) -> None:
    """Take nothing more, let requests and submits finish; health is answered to the end."""
    api, ops = servers
    parts.health.draining = parts.health.refusing = True
    until = parts.clock.elapsed() + parts.settings.shutdown_seconds
    await stop(api)
    with contextlib.suppress(DatabaseUnavailable):
        await parts.authenticator.write_used()
    left = await parts.work.drain(seconds=until - parts.clock.elapsed())
    if left:
        _log.error("shutdown_with_work_left", submits=left)
    await stop(ops)
