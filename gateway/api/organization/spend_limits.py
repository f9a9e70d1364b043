"""…/spend_limit: how much may the organization or a project spend in a month?

It is the monthly budget of that level, in cents. A budget that was set finer than that is shown
rounded down, and exactly in `threshold_usd`.
"""

from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.organization.asking import admin, change, fields_of
from gateway.api.organization.checks import one_of, whole
from gateway.api.organization.levels import level_of, level_to_change
from gateway.api.parts import Parts
from gateway.billing.audit_log import Change
from gateway.billing.balances import Level, Standing
from gateway.billing.budgets import get_budget, remove_budget, set_budget
from gateway.billing.money import MAX_MICROS, MICROS_PER_CENT, format_usd
from gateway.db.script import Script
from gateway.errors import NotFound

MONTH: Final = "month"
_CHECKS: Final = {
    "threshold_amount": whole(least=0, most=MAX_MICROS // MICROS_PER_CENT),
    "currency": one_of("USD"),
    "interval": one_of(MONTH),
}


async def retrieve(parts: Parts, request: Request) -> Response:
    """Answer with the limit and whether it refuses everything now."""
    await admin(parts, request)
    level, standing = await parts.database.read(partial(_get, request, now=parts.clock.now()))
    if standing is None:
        raise _no_limit(level)
    return JSONResponse(_shown(level, standing))


async def update(parts: Parts, request: Request) -> Response:
    """Set the limit, in force at once: what is spent and held already counts against it."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _CHECKS, required=tuple(_CHECKS))
    limit_micros = fields["threshold_amount"] * MICROS_PER_CENT

    def script(made: Change) -> Script[tuple[Level, Standing]]:
        level = yield from level_to_change(request)
        standing = yield from set_budget(made, level, period=MONTH, limit_micros=limit_micros)
        return level, standing

    return JSONResponse(_shown(*await change(parts, request, admin_key_id, script)))


async def delete(parts: Parts, request: Request) -> Response:
    """Take the limit away."""
    admin_key_id = await admin(parts, request)

    def script(made: Change) -> Script[Level]:
        level = yield from level_to_change(request)
        if not (yield from remove_budget(made, level, period=MONTH)):
            raise _no_limit(level)
        return level

    level = await change(parts, request, admin_key_id, script)
    return JSONResponse({"object": f"{level.name}.spend_limit.deleted", "deleted": True})


def _get(request: Request, *, now: int) -> Script[tuple[Level, Standing | None]]:
    level = yield from level_of(request)
    return level, (yield from get_budget(level, period=MONTH, now=now))


def _shown(level: Level, standing: Standing) -> dict[str, Any]:
    status = "enforcing" if standing.available_micros <= 0 else "inactive"
    return {
        "object": f"{level.name}.spend_limit",
        "threshold_amount": standing.limit_micros // MICROS_PER_CENT,
        "threshold_usd": format_usd(standing.limit_micros),
        "currency": "USD",
        "interval": MONTH,
        "enforcement": {"status": status},
    }


def _no_limit(level: Level) -> NotFound:
    return NotFound(f"No spend limit is set for this {level.name}.")
