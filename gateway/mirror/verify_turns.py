"""How is all content verified in the background, and what does the log say of it?"""

import asyncio
from typing import Final

import structlog

from gateway.errors import DatabaseUnavailable, StoreUnavailable
from gateway.mirror.verify import Verdict, Verified, Verifying, WrongStore, verify

TURN_SECONDS: Final = 60.0
DAY_SECONDS: Final = 86_400
# Reading takes its time: what has to be read within so many days is due a tenth earlier.
_EARLY: Final = 10

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


async def verify_forever(
    verifying: Verifying, *, days: int, turn_seconds: float = TURN_SECONDS
) -> None:
    """Verify each asset within so many days, until cancelled; what fails is tried again."""
    period_seconds = days * DAY_SECONDS * (_EARLY - 1) // _EARLY
    while True:
        try:
            await verify(verifying, before=verifying.clock.now() - period_seconds)
        except WrongStore:
            _log.error("store_without_content")
        except (DatabaseUnavailable, StoreUnavailable) as error:
            _log.warning("verify_turn_failed", cause=repr(error.__cause__))
        except Exception:  # noqa: BLE001 - one turn; the log has it
            _log.exception("verify_turn_failed")
        await asyncio.sleep(turn_seconds)


def log_verified(verified: Verified) -> None:
    """Write into the log what was found out, where it is not as it should be."""
    asset = verified.asset
    log = _log.bind(
        asset_id=asset.asset_id,
        video_id=asset.video_id,
        variant=asset.variant,
        upstream_id=asset.upstream_id,
        project_id=asset.project_id,
        found=verified.found,
    )
    match verified.verdict:
        case Verdict.LOST:
            # Kept for a client, and now nobody has it: only a person may have another copy.
            log.error("content_damaged", expires_at=asset.expires_at)
        case Verdict.DAMAGED:
            log.warning("content_quarantined", expires_at=asset.expires_at)
        case Verdict.NOT_CHECKED:
            log.warning("content_not_verified", cause=verified.cause)
