"""How are dollars counted, rounded and written? Pure.

Money is a whole number of micros, millionths of a US dollar, from the rate card to the last
report. Rounding happens once, here, upward: an amount that is not a whole number of micros is
never charged too low.
"""

from decimal import ROUND_CEILING, Decimal, InvalidOperation
from typing import Final

MICROS_PER_USD: Final = 1_000_000
# Ten billion dollars: far above any budget, far below what a BIGINT holds.
MAX_MICROS: Final = 10_000_000_000 * MICROS_PER_USD


def parse_usd(text: str) -> int:
    """Return the micros of an amount such as `2.50`.

    Raises:
        ValueError: it is no plain decimal number, negative, finer than a micro, or over
            MAX_MICROS.
    """
    try:
        micros = Decimal(text) * MICROS_PER_USD
    except InvalidOperation as error:
        raise ValueError(f"{text!r} is not an amount in US dollars, such as 2.50") from error
    if not micros.is_finite() or micros < 0:
        raise ValueError(f"{text!r} is not an amount in US dollars, such as 2.50")
    if micros != micros.to_integral_value():
        raise ValueError(f"{text!r} is finer than a millionth of a dollar")
    if micros > MAX_MICROS:
        raise ValueError(f"{text!r} is more than {format_usd(MAX_MICROS)} dollars")
    return int(micros)


def format_usd(micros: int) -> str:
    """Return dollars with at least two and at most six decimals: 1200000 is `1.20`."""
    sign = "-" if micros < 0 else ""
    dollars, rest = divmod(abs(micros), MICROS_PER_USD)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{dollars}.{decimals}"


def charge(*, rate_micros: int, units: Decimal | int) -> int:
    """Return what `units` (seconds, requests) cost at a rate in micros per unit, rounded up."""
    return int((Decimal(rate_micros) * units).to_integral_value(rounding=ROUND_CEILING))
