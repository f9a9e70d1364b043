"""What becomes of an asset that could not be mirrored?

| the upstream                                            | then                                |
|---|---|
| says for long that it has no such thumbnail             | absent: asked for no more           |
| says after the expiry that it has it no more            | lost: an alarm, asked for no more   |
| cannot be understood for an hour after the expiry       | the same                            |
| anything else, or our own store is down                 | tried again, ever more rarely       |
"""

from functools import partial
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.db.database import Database
from gateway.mirror.assets import AssetClaim, write_absent, write_failure, write_gone
from gateway.mirror.fetched import FetchFailed
from gateway.telemetry.metrics.mirror import ABSENT, FAILED, GONE

# How long after its expiry content is asked for, unless the upstream says that it is gone.
GRACE_SECONDS: Final = 3600
# The failure of an asset that the upstream has and our store did not take.
STORE_UNAVAILABLE: Final = "store_unavailable"
_GONE_STATUSES: Final = (404, 410)
# Content may be missing for seconds after completion; what is missing for longer is not there.
ABSENT_SECONDS: Final = 300
_ABSENT_STATUSES: Final = (400, 404, 410)
# A second, then twice as long each time.
_BACKOFF_LIMIT_SECONDS: Final = 300
_BACKOFF_DOUBLINGS: Final = 9


async def write_down(
    database: Database,
    clock: Clock,
    claim: AssetClaim,
    failed: FetchFailed,
    *,
    log: structlog.typing.FilteringBoundLogger,
) -> str:
    """Write down what is to become of an asset whose download failed; return how that counts."""
    now = clock.now()
    log = log.bind(**failed.request_ids.known())
    if _is_absent(claim, failed, now=now):
        log.info("variant_absent", failure=failed.reason)
        script = partial(write_absent, claim, failure=failed.reason, now=now)
        await database.run_beside(script)
        return ABSENT
    if _is_gone(claim, failed, now=now):
        # Paid for and never obtainable: a person decides whether the spend is adjusted.
        log.error("content_lost", failure=failed.reason, expires_at=claim.expires_at)
        await database.run_beside(partial(write_gone, claim, failure=failed.reason, now=now))
        return GONE
    await try_again(database, clock, claim, failed.reason, log=log)
    return FAILED


def _is_absent(claim: AssetClaim, failed: FetchFailed, *, now: int) -> bool:
    """Tell whether the upstream has no such variant; every video has its film."""
    long_since = now >= claim.created_at + ABSENT_SECONDS
    # What was mirrored once, and found damaged, is not absent but gone.
    never_had = claim.variant != "video" and claim.sha256 is None
    return never_had and failed.status in _ABSENT_STATUSES and long_since


def _is_gone(claim: AssetClaim, failed: FetchFailed, *, now: int) -> bool:
    """Tell whether the upstream's copy has gone: one fault of the network is not the end of it."""
    if now < claim.expires_at:
        return False
    return failed.status in _GONE_STATUSES or now >= claim.expires_at + GRACE_SECONDS


async def try_again(
    database: Database,
    clock: Clock,
    claim: AssetClaim,
    failure: str,
    *,
    log: structlog.typing.FilteringBoundLogger,
) -> None:
    """Write down why it is not mirrored yet, and try again, ever more rarely."""
    wait_seconds = min(2 ** min(claim.attempts - 1, _BACKOFF_DOUBLINGS), _BACKOFF_LIMIT_SECONDS)
    log.warning("mirror_failed", failure=failure, retry_seconds=wait_seconds)
    due_at = clock.now() + wait_seconds
    await database.run_beside(partial(write_failure, claim, failure=failure, due_at=due_at))
