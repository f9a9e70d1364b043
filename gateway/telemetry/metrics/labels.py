"""Which values may a label have?

Every label comes from a closed list, never from a request, so that traffic adds no series. What a
gateway knows of itself (its upstreams, its catalogue) closes some of these lists at its start; what
is in none of them is OTHER.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Final

# Where a label is not one of its list, and where there is nothing to be named.
OTHER: Final = "other"
NONE: Final = "none"


@dataclass(frozen=True, slots=True)
class Sold:
    """One thing that the catalogue sells, as labels say it."""

    model: str
    size: str
    seconds: str


@dataclass(frozen=True, slots=True)
class Known:
    """What a gateway knows of itself.

    Attributes:
        upstreams: names of the settings.
        models: ids of the catalogue.
        sold: everything that may be asked for.
    """

    upstreams: Collection[str] = ()
    models: Collection[str] = ()
    sold: Collection[Sold] = ()

    def model(self, model: str) -> str:
        """Return the label of a model; a character has none."""
        if not model:
            return NONE
        return model if model in self.models else OTHER


def one_of(allowed: Collection[str], value: str) -> str:
    """Return the value if it is on the list."""
    return value if value in allowed else OTHER
