"""Does a request only ask what it would cost, and what is it told?

Nothing is held, counted or sent.
"""

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.parts import Parts
from gateway.billing.balances import Account, Refusal, Standing, accounting_day
from gateway.billing.explain import remaining
from gateway.billing.money import Basis, format_usd
from gateway.billing.usable_keys import Key
from gateway.db.script import Script
from gateway.errors import InvalidRequest
from gateway.videos.admission import NOT_ADMITTED, Admitted, NotAdmitted, refused, would_admit
from gateway.videos.order import Order

_DRY_RUN: Final = "x-gateway-dry-run"
_OWN_HEADERS: Final = "x-gateway-"


def is_dry_run(request: Request) -> bool:
    """Tell whether a request only asks for its price.

    Raises:
        InvalidRequest: another `x-gateway-*` header, or another value: a misspelt one must not buy.
    """
    for name in request.headers:
        if name.startswith(_OWN_HEADERS) and name != _DRY_RUN:
            raise InvalidRequest(
                f"Unknown request header '{name}'. A misspelt header must not buy a video.",
                param=name,
                code="unknown_header",
            )
    value = request.headers.get(_DRY_RUN)
    if value not in {None, "true"}:
        raise InvalidRequest(
            f"Invalid value of '{_DRY_RUN}': '{value}'. The only value is 'true'.", param=_DRY_RUN
        )
    return value is not None


async def dry_run(parts: Parts, key: Key, order: Order, *, basis: Basis) -> Response:
    """Answer a billable request with its price, the verdict, and what budgets would have left."""
    now = parts.clock.now()
    price_micros = basis.amount(order.price_micros)
    account = Account(key.project_id, key.id, accounting_day(now))
    script = partial(_look, account, order, price_micros=price_micros, now=now)
    admitted, against = await parts.database.read(script)
    message = None
    if against is not None:
        disclose = parts.settings.disclose_budgets
        message = refused(against, order, basis=basis, disclose=disclose, now=now).message
    shown = {name: text for name, text in order.shown.items() if name != "prompt"}
    return JSONResponse(
        {
            "object": "video.dry_run",
            "operation": order.operation,
            **shown,
            "cost_usd": format_usd(price_micros),
            "allowed": against is None,
            "message": message,
            "budgets": [
                {
                    "level": one.level,
                    "period": one.period,
                    "remaining_usd": format_usd(one.available_micros - price_micros),
                }
                for one in admitted.standings
                if _may_see(parts, one)
            ],
            "rate_limits": [
                {
                    "level": one.level,
                    "model": one.model or None,
                    "window": one.window,
                    "limit": one.limit,
                    "remaining": one.remaining,
                }
                for one in admitted.usages
            ],
        }
    )


def _look(
    account: Account, order: Order, *, price_micros: int, now: int
) -> Script[tuple[Admitted, NotAdmitted | None]]:
    model = "" if order.model is None else order.model.id
    try:
        admitted = yield from would_admit(
            account, model=model, price_micros=order.price_micros, now=now
        )
    except NOT_ADMITTED as error:
        return Admitted((), ()), error
    refusing = tuple(one for one in admitted.standings if one.available_micros < price_micros)
    return admitted, Refusal(refusing) if refusing else None


def _may_see(parts: Parts, standing: Standing) -> bool:
    return remaining((standing,), disclose=parts.settings.disclose_budgets) is not None
