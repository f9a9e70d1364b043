"""Why did a budget refuse, and what would still fit? Pure.

A key holder sees the figures of its own project and key. Of the organization it learns only that
it refused, unless the operator discloses budgets: others' spend can be read off that figure.
"""

from typing import Final

from gateway.billing.balances import ORGANIZATION, Standing
from gateway.billing.catalogue import Model
from gateway.billing.money import AT_LIST, Basis, format_usd

_PERIOD: Final = {"day": "daily", "month": "monthly", "total": "total"}


def refusal_message(
    refusing: tuple[Standing, ...],
    *,
    price_micros: int,
    model: Model | None,
    disclose: bool,
    basis: Basis = AT_LIST,
) -> str:
    """Return what a client is told: price, level, limit, spent, held, reset, what would fit.

    `price_micros` is on the basis, like the standings.
    """
    price = f"This request costs ${format_usd(price_micros)}"
    tightest = min(refusing, key=lambda standing: standing.available_micros)
    if tightest.level == ORGANIZATION and not disclose:
        return (
            f"{price}, and the organization's {_PERIOD[tightest.period]} budget does not have that"
            f" much left{_reset(tightest)}. Ask whoever manages the organization's budgets."
        )
    left = format_usd(max(0, tightest.available_micros))
    spent, held = format_usd(tightest.spent_micros), format_usd(tightest.held_micros)
    return (
        f"{price}, but the {tightest.level}'s {_PERIOD[tightest.period]} budget of"
        f" ${format_usd(tightest.limit_micros)} has ${left} left (spent ${spent},"
        f" held ${held}){_reset(tightest)}. {suggestion(tightest.available_micros, model, basis)}"
    )


def remaining(standings: tuple[Standing, ...], *, disclose: bool) -> Standing | None:
    """Return the tightest limit that a key holder may see, or None if there is none."""
    seen = [one for one in standings if disclose or one.level != ORGANIZATION]
    return min(seen, key=lambda standing: standing.available_micros, default=None)


def _reset(standing: Standing) -> str:
    return "" if standing.resets_on is None else f"; it resets on {standing.resets_on} at 00:00 UTC"


def suggestion(available_micros: int, model: Model | None, basis: Basis) -> str:
    """Return the dearest that a model offers for so much."""
    if model is None:
        return "Nothing was held."
    offers = [(size, seconds, basis.amount(micros)) for size, seconds, micros in model.offers()]
    fitting = [offer for offer in offers if offer[2] <= available_micros]
    if not fitting:
        return f"Nothing that {model.id} offers would fit."
    size, seconds, price_micros = max(fitting, key=lambda offer: offer[2])
    price = format_usd(price_micros)
    return f"Would still fit: {model.id} at {size} for {seconds} seconds (${price})."
