"""How are dollars counted, rounded and written? Pure.

Money is a whole number of micros, millionths of a US dollar, from the rate card to the last
report. Rounding happens once, here, upward: an amount that is not a whole number of micros is
never charged too low.
"""

import re
from dataclasses import dataclass
from decimal import ROUND_CEILING, Context, Decimal
from typing import Final

MICROS_PER_USD: Final = 1_000_000
MICROS_PER_CENT: Final = 10_000
# Ten billion dollars: far above any budget, far below what a BIGINT holds.
MAX_MICROS: Final = 10_000_000_000 * MICROS_PER_USD
PPM: Final = 1_000_000
_DECIMALS: Final = 6
_PLAIN: Final = re.compile(r"[0-9]+(?:\.[0-9]+)?", re.ASCII)
# A product of more digits than it keeps would else be rounded to the nearest, before the ceiling.
_UPWARD: Final = Context(rounding=ROUND_CEILING)


LIST: Final = "list"
COST: Final = "cost"


@dataclass(frozen=True, slots=True)
class Basis:
    """What a list price is to a budget.

    Attributes:
        name: LIST (the price itself) or COST (what it really costs).
        multiplier_ppm: what of a list price it really costs, in millionths.
    """

    name: str = LIST
    multiplier_ppm: int = PPM

    def amount(self, list_micros: int) -> int:
        """Return what counts against a budget."""
        return list_micros if self.name == LIST else self.cost(list_micros)

    def cost(self, list_micros: int) -> int:
        """Return what a list price really costs, rounded up."""
        return -(-list_micros * self.multiplier_ppm // PPM)


AT_LIST: Final = Basis()


def parse_usd(text: str) -> int:
    """Return the micros of an amount such as `2.50`.

    Raises:
        ValueError: it is no plain decimal number, negative, finer than a micro, or over
            MAX_MICROS.
    """
    if not _PLAIN.fullmatch(text):
        raise ValueError(f"{text!r} is not an amount in US dollars, such as 2.50")
    dollars, _, rest = text.partition(".")
    rest = rest.rstrip("0")
    if len(rest) > _DECIMALS:
        raise ValueError(f"{text!r} is finer than a millionth of a dollar")
    if Decimal(text) > MAX_MICROS // MICROS_PER_USD:
        raise ValueError(f"{text!r} is more than {format_usd(MAX_MICROS)} dollars")
    return int(dollars) * MICROS_PER_USD + int(rest.ljust(_DECIMALS, "0"))


def format_usd(micros: int) -> str:
    """Return dollars with at least two and at most six decimals: 1200000 is `1.20`."""
    sign = "-" if micros < 0 else ""
    dollars, rest = divmod(abs(micros), MICROS_PER_USD)
    decimals = f"{rest:06d}".rstrip("0").ljust(2, "0")
    return f"{sign}{dollars}.{decimals}"


def charge(*, rate_micros: int, units: Decimal | int) -> int:
    """Return what `units` (seconds, requests) cost at a rate in micros per unit, rounded up."""
    cost = _UPWARD.multiply(Decimal(rate_micros), Decimal(units))
    return int(cost.to_integral_value(rounding=ROUND_CEILING))
