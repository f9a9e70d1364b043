"""What would a request cost, and would it be admitted? Nothing is held, counted or sent."""

from functools import partial

from starlette.responses import JSONResponse, Response

from gateway.api.parts import Parts
from gateway.billing.balances import Account, Refusal, Standing, accounting_day
from gateway.billing.explain import remaining
from gateway.billing.keys import Key
from gateway.billing.money import Basis, format_usd
from gateway.db.script import Script
from gateway.videos.admission import NOT_ADMITTED, Admitted, NotAdmitted, refused, would_admit
from gateway.videos.order import Order


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
