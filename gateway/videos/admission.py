"""May this request be bought, and if not, what is its client told?

The one script that every purchase goes through: permission, budgets, limits, in the transaction
that writes the video's row. What refuses is raised, so that nothing is kept of it; `refused` turns
it into the answer. A dry run looks at the same and changes nothing.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

from gateway.billing import ledger
from gateway.billing.balances import KEY, Account, Refusal, Standing, look
from gateway.billing.explain import refusal_message, suggestion
from gateway.billing.ledger import Hold
from gateway.billing.limits import (
    DAY,
    WINDOW_SECONDS,
    TooDear,
    TooManyInFlight,
    TooManyRequests,
    Usage,
    look_at_limits,
    take_limits,
)
from gateway.billing.money import AT_LIST, Basis, format_usd
from gateway.billing.permissions import NotPermitted, check_permitted
from gateway.db.script import Script
from gateway.errors import (
    BudgetExceeded,
    GatewayError,
    ModelNotAllowed,
    PriceLimitExceeded,
    RateLimitExceeded,
)
from gateway.videos.order import Order

# When a place among the videos in flight comes free cannot be known.
_IN_FLIGHT_WAIT_SECONDS: Final = 10
_MILLISECONDS: Final = 1000

NotAdmitted: TypeAlias = Refusal | NotPermitted | TooDear | TooManyInFlight | TooManyRequests
NOT_ADMITTED: Final = (Refusal, NotPermitted, TooDear, TooManyInFlight, TooManyRequests)


@dataclass(frozen=True, slots=True)
class Admitted:
    """How the limits stand once a request is admitted.

    Attributes:
        standings: the limited balances of its account.
        usages: the limits on requests that it counts against.
    """

    standings: tuple[Standing, ...]
    usages: tuple[Usage, ...]


def admit(hold: Hold, *, now: int) -> Script[Admitted]:
    """Take the hold, and count the request.

    Raises:
        NOT_ADMITTED: the transaction must not be kept.
    """
    if hold.model:
        yield from check_permitted(
            project_id=hold.account.project_id, key_id=hold.account.key_id, model=hold.model
        )
    standings = yield from ledger.hold(hold, now=now)
    if standings is None:  # this very request was admitted before
        return Admitted((yield from look(hold.account)), ())
    usages = yield from take_limits(
        hold.account, model=hold.model, price_micros=hold.list_micros, now=now
    )
    return Admitted(standings, usages)


def would_admit(account: Account, *, model: str, price_micros: int, now: int) -> Script[Admitted]:
    """Tell how the limits stand for a request of a list price that changes nothing.

    Raises:
        NOT_ADMITTED but for Refusal: which balances are too small can be read off the standings.
    """
    if model:
        yield from check_permitted(
            project_id=account.project_id, key_id=account.key_id, model=model
        )
    standings = yield from look(account)
    usages = yield from look_at_limits(account, model=model, price_micros=price_micros, now=now)
    return Admitted(standings, tuple(usage for _, usage in usages))


def refused(
    error: NotAdmitted, order: Order, *, basis: Basis, disclose: bool, now: int
) -> GatewayError:
    """Return what the client of a request that was not admitted is told."""
    match error:
        case Refusal(refusing=refusing):
            return BudgetExceeded(
                refusal_message(
                    refusing,
                    price_micros=basis.amount(order.price_micros),
                    model=order.model,
                    disclose=disclose,
                    basis=basis,
                )
            )
        case NotPermitted(level=level, model=model):
            return ModelNotAllowed(
                f"The {level} that this request belongs to does not have access to model"
                f" '{model}'.",
                param="model",
            )
        case TooDear(level=level, limit_micros=limit):
            return PriceLimitExceeded(
                f"This request costs ${format_usd(order.price_micros)} at list price, and one"
                f" request of this {level} may cost ${format_usd(limit)}."
                f" {suggestion(limit, order.model, AT_LIST)}"
            )
        case TooManyInFlight(level=level, limit=limit):
            return RateLimitExceeded(
                f"This {level} may have {limit} videos in the making at once, and has as many."
                " Come back once one of them is finished.",
                retry_after_ms=_IN_FLIGHT_WAIT_SECONDS * _MILLISECONDS,
            )
        case TooManyRequests(usage=usage):
            return _rate_limited(usage, now=now)


def rate_limit_headers(usages: tuple[Usage, ...], *, now: int) -> dict[str, str]:
    """Return OpenAI's rate limit headers for the limit that is nearest; none where none is set."""
    if not usages:
        return {}
    nearest = min(usages, key=lambda usage: (usage.remaining, usage.resets_at))
    return {
        "x-ratelimit-limit-requests": str(nearest.limit),
        "x-ratelimit-remaining-requests": str(nearest.remaining),
        "x-ratelimit-reset-requests": _duration(nearest.resets_at - now),
    }


def _rate_limited(usage: Usage, *, now: int) -> RateLimitExceeded:
    whose = "key" if usage.level == KEY else "project"
    what = f" for {usage.model}" if usage.model else ""
    if usage.limit == 0:
        return RateLimitExceeded(
            f"This {whose} may make no billable requests{what}: its limit is 0.",
            retry_after_ms=WINDOW_SECONDS[DAY] * _MILLISECONDS,
            headers=rate_limit_headers((usage,), now=now),
        )
    wait_seconds = max(1, usage.resets_at - now)
    return RateLimitExceeded(
        f"This {whose} may make {usage.limit} billable requests per {usage.window}{what}, and has"
        f" made as many. The count begins again in {_duration(wait_seconds)}.",
        retry_after_ms=wait_seconds * _MILLISECONDS,
        headers=rate_limit_headers((usage,), now=now),
    )


def _duration(seconds: int) -> str:
    """Return seconds as OpenAI writes them in its headers: 6m0s, 1h0m30s, 12s."""
    hours, rest = divmod(seconds, WINDOW_SECONDS["minute"] * 60)
    minutes, rest = divmod(rest, WINDOW_SECONDS["minute"])
    if hours:
        return f"{hours}h{minutes}m{rest}s"
    return f"{minutes}m{rest}s" if minutes else f"{rest}s"
