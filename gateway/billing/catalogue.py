"""What may be asked of each model, and what does it cost? Pure.

The catalogue is data, read from TOML by catalogue_file.py. No other code knows a model's name. A
size without a rate cannot be asked for, so nothing is ever priced at zero by omission; an explicit
rate of "0" is a rate. A price is

    per second:   seconds x rate of the size + images x price of an image
    per request:  rate of the size           + images x price of an image

The default model, the one that a request without `model` gets, is the first in the file.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from typing import Final

from gateway.billing.money import charge

UNITS: Final = ("second", "request")
REFERENCES: Final = ("image_url", "file_id")
IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/webp")
DEFAULT_UPSTREAM: Final = "default"


@dataclass(frozen=True, slots=True)
class Rate:
    """What one unit of one tier costs.

    Attributes:
        unit: `second` (clip seconds) or `request` (flat).
        micros: per unit.
        seconds: the durations that this tier can make.
    """

    tier: str
    unit: str
    micros: int
    seconds: tuple[str, ...]

    def price_micros(self, clip_seconds: int) -> int:
        """Return the price of a clip in micros."""
        return charge(rate_micros=self.micros, units=clip_seconds if self.unit == "second" else 1)


@dataclass(frozen=True, slots=True)
class ImageRules:
    """What a reference image has to be, and what it costs.

    Attributes:
        references: ways to name one instead of uploading it: `image_url`, `file_id`. The files of
            an upstream are shared by all projects, so `file_id` gives each what others uploaded.
        micros: for each image.
    """

    types: tuple[str, ...]
    must_equal_size: bool
    references: tuple[str, ...]
    micros: int


@dataclass(frozen=True, slots=True)
class Model:
    """One model: what may be asked of it, and its rate for each size.

    Attributes:
        aliases: other names that mean the same.
        snapshots: dated names; the deprecated ones are still accepted, and marked.
        moderated_is_billed: whether the upstream bills what its moderation blocked.
        sunset: the day from which the upstream may refuse it, or None.
    """

    id: str
    upstream: str
    seconds: tuple[str, ...]
    default_seconds: str
    default_size: str
    prompt_max_characters: int
    typical_generation_seconds: tuple[int, int]
    aliases: tuple[str, ...]
    snapshots: tuple[str, ...]
    deprecated_snapshots: tuple[str, ...]
    moderated_is_billed: bool
    sunset: date | None
    image: ImageRules | None
    rates: Mapping[str, Rate]

    def offers(self) -> Iterator[tuple[str, str, int]]:
        """Yield every (size, seconds, price in micros) that may be asked for, without images."""
        for size, rate in self.rates.items():
            for seconds in rate.seconds:
                yield size, seconds, rate.price_micros(int(seconds))


@dataclass(frozen=True, slots=True)
class Characters:
    """Where characters are made, and what one costs."""

    upstream: str
    micros: int


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All models, by name and by every name a client may use.

    Attributes:
        sha256: of the text it was read from; stored with every hold.
        models: by model id, in the file's order.
        names: every name a client may use, aliases and snapshots included.
        characters: None where no character is sold.
    """

    sha256: str
    models: Mapping[str, Model]
    names: Mapping[str, Model]
    characters: Characters | None

    @property
    def default(self) -> Model:
        """The model of a request that names none."""
        return next(iter(self.models.values()))

    def with_size(self, size: str) -> Iterator[Model]:
        """Yield the models that offer a size."""
        return (model for model in self.models.values() if size in model.rates)
