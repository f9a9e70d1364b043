"""What may be asked of each model, and what does it cost? Pure.

The catalogue is data: a TOML text becomes frozen records here, and every mistake in it is reported
at once. No other code knows a model's name. A size without a rate cannot be asked for, so nothing
is ever priced at zero by omission; an explicit rate of "0" is a rate.

The default model, the one that a request without `model` gets, is the first in the file.
"""

import hashlib
import re
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.billing.money import charge, parse_usd

UNITS: Final = ("second", "request")
IMAGE_TYPES: Final = ("image/jpeg", "image/png", "image/webp")
DEFAULT_UPSTREAM: Final = "default"
_SIZE = re.compile(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}")
_SECONDS = re.compile(r"[1-9][0-9]{0,2}")


class CatalogueError(Exception):
    """The catalogue has mistakes; `problems` lists all of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


@dataclass(frozen=True, slots=True)
class Rate:
    """What one unit of one tier costs.

    Attributes:
        unit: `second` (clip seconds) or `request` (flat).
        micros: per unit.
    """

    tier: str
    unit: str
    micros: int

    def price_micros(self, clip_seconds: int) -> int:
        """Return the price of a clip in micros."""
        return charge(rate_micros=self.micros, units=clip_seconds if self.unit == "second" else 1)


@dataclass(frozen=True, slots=True)
class ImageRules:
    """What a reference image has to be."""

    types: tuple[str, ...]
    must_equal_size: bool


@dataclass(frozen=True, slots=True)
class Model:
    """One model: what may be asked of it, and its rate for each size."""

    id: str
    upstream: str
    seconds: tuple[str, ...]
    default_seconds: str
    default_size: str
    prompt_max_characters: int
    typical_generation_seconds: tuple[int, int]
    snapshots: tuple[str, ...]
    deprecated_snapshots: tuple[str, ...]
    image: ImageRules | None
    rates: Mapping[str, Rate]

    def offers(self) -> Iterator[tuple[str, str, int]]:
        """Yield every (size, seconds, price in micros) that may be asked for."""
        for size, rate in self.rates.items():
            for seconds in self.seconds:
                yield size, seconds, rate.price_micros(int(seconds))


@dataclass(frozen=True, slots=True)
class Catalogue:
    """All models, by name and by snapshot name.

    Attributes:
        sha256: of the text it was read from; stored with every hold.
        models: by model id, in the file's order.
        names: every name a client may use, snapshots included.
    """

    sha256: str
    models: Mapping[str, Model]
    names: Mapping[str, Model]

    @property
    def default(self) -> Model:
        """The model of a request that names none."""
        return next(iter(self.models.values()))

    def with_size(self, size: str) -> Iterator[Model]:
        """Yield the models that offer a size."""
        return (model for model in self.models.values() if size in model.rates)


def read_catalogue(text: str) -> Catalogue:
    """Return the catalogue that a TOML text describes.

    Raises:
        CatalogueError: with every mistake found.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError([f"not TOML: {error}"]) from error
    problems: list[str] = [f"unknown table {name!r}" for name in document if name != "models"]
    tables = document.get("models")
    if not isinstance(tables, dict) or not tables:
        raise CatalogueError([*problems, "there must be at least one [models.NAME]"])
    models = {name: _model(name, table, problems) for name, table in tables.items()}
    names: dict[str, Model] = {}
    for model in models.values():
        for name in (model.id, *model.snapshots):
            if name in names:
                problems.append(f"models.{model.id}: the name {name!r} is taken twice")
            names[name] = model
    if problems:
        raise CatalogueError(problems)
    return Catalogue(sha256=hashlib.sha256(text.encode()).hexdigest(), models=models, names=names)


class _Table:
    """One TOML table, read key by key; what is missing, wrong or left over becomes a problem."""

    def __init__(self, where: str, table: object, problems: list[str]) -> None:
        self.where = where
        self.problems = problems
        self.rest: dict[str, Any] = dict(table) if isinstance(table, dict) else {}
        if not isinstance(table, dict):
            self.problem("must be a table")

    def problem(self, what: str) -> None:
        self.problems.append(f"{self.where}: {what}")

    def text(self, key: str, default: str | None = None) -> str:
        value = self.rest.pop(key, default)
        if isinstance(value, str) and value:
            return value
        self.problem(f"{key} must be a text")
        return ""

    def texts(self, key: str, default: list[str] | None = None) -> tuple[str, ...]:
        value = self.rest.pop(key, default)
        if isinstance(value, list) and all(isinstance(item, str) and item for item in value):
            if len(set(value)) < len(value):
                self.problem(f"{key} has a value twice")
            return tuple(value)
        self.problem(f"{key} must be a list of texts")
        return ()

    def one_of(self, key: str, choices: tuple[str, ...]) -> str:
        value = self.text(key)
        if value not in choices:
            self.problem(f"{key} must be one of {', '.join(choices)}")
        return value

    def flag(self, key: str) -> bool:
        value = self.rest.pop(key, None)
        if not isinstance(value, bool):
            self.problem(f"{key} must be true or false")
        return bool(value)

    def count(self, key: str) -> int:
        value = self.rest.pop(key, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        self.problem(f"{key} must be a whole number above 0")
        return 1

    def usd(self, key: str) -> int:
        value = self.rest.pop(key, None)
        if not isinstance(value, str):
            self.problem(f'{key} must be a text such as "0.10"')
            return 0
        try:
            return parse_usd(value)
        except ValueError as error:
            self.problem(f"{key}: {error}")
            return 0

    def nothing_else(self) -> None:
        for key in self.rest:
            self.problem(f"unknown key {key!r}")


def _model(name: str, table: object, problems: list[str]) -> Model:
    read = _Table(f"models.{name}", table, problems)
    unit = read.one_of("unit", UNITS)
    image = read.rest.pop("image", None)
    model = Model(
        id=name,
        upstream=read.text("upstream", DEFAULT_UPSTREAM),
        seconds=read.texts("seconds"),
        default_seconds=read.text("default_seconds"),
        default_size=read.text("default_size"),
        prompt_max_characters=read.count("prompt_max_characters"),
        typical_generation_seconds=_span(read),
        snapshots=read.texts("snapshots", []),
        deprecated_snapshots=read.texts("deprecated_snapshots", []),
        image=None if image is None else _image(f"models.{name}.image", image, problems),
        rates=_rates(read, unit),
    )
    for value in model.seconds:
        if not _SECONDS.fullmatch(value):
            read.problem(f"seconds: {value!r} is not a whole number of seconds")
    if model.default_seconds not in model.seconds:
        read.problem("default_seconds must be one of seconds")
    if model.default_size not in model.rates:
        read.problem("default_size must be a size that has a rate")
    if not set(model.deprecated_snapshots) <= set(model.snapshots):
        read.problem("deprecated_snapshots must be among snapshots")
    read.nothing_else()
    return model


def _span(read: _Table) -> tuple[int, int]:
    value = read.rest.pop("typical_generation_seconds", None)
    match value:
        case [int(shortest), int(longest)] if 0 < shortest <= longest:
            return shortest, longest
    read.problem("typical_generation_seconds must be [shortest, longest]")
    return 1, 1


def _image(where: str, table: object, problems: list[str]) -> ImageRules:
    read = _Table(where, table, problems)
    types = read.texts("types")
    for value in types:
        if value not in IMAGE_TYPES:
            read.problem(f"types: {value!r} is none of {', '.join(IMAGE_TYPES)}")
    rules = ImageRules(types=types, must_equal_size=read.flag("must_equal_size"))
    read.nothing_else()
    return rules


def _rates(model: _Table, unit: str) -> dict[str, Rate]:
    tables = model.rest.pop("rates", None)
    if not isinstance(tables, list) or not tables:
        model.problem("there must be at least one [[rates]]")
        return {}
    rates: dict[str, Rate] = {}
    for number, table in enumerate(tables, start=1):
        read = _Table(f"{model.where}.rates[{number}]", table, model.problems)
        rate = Rate(tier=read.text("tier"), unit=unit, micros=read.usd("usd"))
        for size in read.texts("sizes"):
            if not _SIZE.fullmatch(size):
                read.problem(f"sizes: {size!r} is not WIDTHxHEIGHT")
            if size in rates:
                read.problem(f"sizes: {size} has a rate already")
            rates[size] = rate
        read.nothing_else()
    return rates
