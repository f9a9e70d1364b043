"""What do headers tell, beside the body? Our facts travel there: the body stays OpenAI's."""

from datetime import UTC, datetime, time
from email.utils import format_datetime
from typing import Final

from gateway.api.parts import Parts
from gateway.billing.explain import remaining
from gateway.billing.money import format_usd
from gateway.videos.admission import Admitted, rate_limit_headers
from gateway.videos.order import Order

_MILLISECONDS: Final = 1000


def cost(micros: int) -> dict[str, str]:
    """Return what the video costs: what is held for it, or what it came to."""
    return {"x-gateway-cost-usd": format_usd(micros)}


def poll_after(parts: Parts) -> dict[str, str]:
    """Return the header that tells an SDK how fast to poll."""
    return {"openai-poll-after-ms": str(parts.settings.poll_interval_seconds * _MILLISECONDS)}


def limits_left(parts: Parts, admitted: Admitted) -> dict[str, str]:
    """Return what is left of the tightest budget that a key holder may see, and of its rates."""
    headers = rate_limit_headers(admitted.usages, now=parts.clock.now())
    left = remaining(admitted.standings, disclose=parts.settings.disclose_budgets)
    if left is not None:
        headers["x-gateway-budget-remaining-usd"] = format_usd(left.available_micros)
        headers["x-gateway-budget-level"] = left.level
    return headers


def notices(order: Order, *, now: int) -> dict[str, str]:
    """Return RFC 8594's Sunset, and RFC 9745's Deprecation once that day has come."""
    if order.model is None or order.model.sunset is None:
        return {}
    begins = datetime.combine(order.model.sunset, time(), UTC)
    headers = {"sunset": format_datetime(begins, usegmt=True)}
    if now >= begins.timestamp():
        headers["deprecation"] = f"@{int(begins.timestamp())}"
    return headers
