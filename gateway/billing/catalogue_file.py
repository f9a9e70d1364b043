"""How is a catalogue read, with every mistake in it reported at once? Pure."""

import hashlib
import re
import tomllib
from datetime import date, datetime
from typing import Any, Final

from gateway.billing.catalogue import (
    DEFAULT_UPSTREAM,
    IMAGE_TYPES,
    REFERENCES,
    UNITS,
    Catalogue,
    Characters,
    ImageRules,
    Model,
    Rate,
)
from gateway.billing.money import parse_usd

_TABLES: Final = ("models", "characters")
_SIZE: Final = re.compile(r"[1-9][0-9]{1,4}x[1-9][0-9]{1,4}")
_SECONDS: Final = re.compile(r"[1-9][0-9]{0,2}")
_MAX_SECONDS: Final = 999


class CatalogueError(Exception):
    """The catalogue has mistakes; `problems` lists all of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def read_catalogue(text: str) -> Catalogue:
    """Return the catalogue that a TOML text describes.

    Raises:
        CatalogueError: with every mistake found.
    """
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise CatalogueError([f"not TOML: {error}"]) from error
    problems = [f"unknown table {name!r}" for name in document if name not in _TABLES]
    tables = document.get("models")
    if not isinstance(tables, dict) or not tables:
        raise CatalogueError([*problems, "there must be at least one [models.NAME]"])
    models = {name: _model(name, table, problems) for name, table in tables.items()}
    names: dict[str, Model] = {}
    for model in models.values():
        for name in (model.id, *model.aliases, *model.snapshots):
            if name in names:
                problems.append(f"models.{model.id}: the name {name!r} is taken twice")
            names[name] = model
    table = document.get("characters")
    characters = None if table is None else _characters(table, problems)
    if problems:
        raise CatalogueError(problems)
    return Catalogue(
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        models=models,
        names=names,
        characters=characters,
    )


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

    def flag(self, key: str, *, default: bool | None = None) -> bool:
        value = self.rest.pop(key, default)
        if not isinstance(value, bool):
            self.problem(f"{key} must be true or false")
        return bool(value)

    def count(self, key: str) -> int:
        value = self.rest.pop(key, None)
        if isinstance(value, int) and not isinstance(value, bool) and value > 0:
            return value
        self.problem(f"{key} must be a whole number above 0")
        return 1

    def day(self, key: str) -> date | None:
        value = self.rest.pop(key, None)
        if value is None or (isinstance(value, date) and not isinstance(value, datetime)):
            return value
        self.problem(f"{key} must be a date such as 2026-09-24, without quotes")
        return None

    def usd(self, key: str, default: str | None = None) -> int:
        value = self.rest.pop(key, default)
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
    seconds = _seconds(read)
    image = read.rest.pop("image", None)
    model = Model(
        id=name,
        upstream=read.text("upstream", DEFAULT_UPSTREAM),
        seconds=seconds,
        default_seconds=read.text("default_seconds"),
        default_size=read.text("default_size"),
        prompt_max_characters=read.count("prompt_max_characters"),
        typical_generation_seconds=_span(read),
        aliases=read.texts("aliases", []),
        snapshots=read.texts("snapshots", []),
        deprecated_snapshots=read.texts("deprecated_snapshots", []),
        moderated_is_billed=read.flag("moderated_is_billed", default=False),
        sunset=read.day("sunset"),
        image=None if image is None else _image(f"models.{name}.image", image, problems),
        rates=_rates(read, unit=unit, seconds=seconds),
    )
    if model.default_seconds not in model.seconds:
        read.problem("default_seconds must be one of seconds")
    if model.default_size not in model.rates:
        read.problem("default_size must be a size that has a rate")
    elif model.default_seconds not in model.rates[model.default_size].seconds:
        read.problem("default_seconds must be among the seconds of default_size")
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


def _seconds(read: _Table) -> tuple[str, ...]:
    """Return the durations: a list of texts, or every whole second of {least, most}."""
    if isinstance(read.rest.get("seconds"), dict):
        match read.rest.pop("seconds"):
            case {"least": int(least), "most": int(most), **rest} if not rest and (
                0 < least <= most <= _MAX_SECONDS
            ):
                return tuple(str(number) for number in range(least, most + 1))
        read.problem(f"seconds: least and most must be whole numbers from 1 to {_MAX_SECONDS}")
        return ()
    values = read.texts("seconds")
    for value in values:
        if not _SECONDS.fullmatch(value):
            read.problem(f"seconds: {value!r} is not a whole number of seconds")
    return values


def _characters(table: object, problems: list[str]) -> Characters:
    read = _Table("characters", table, problems)
    found = Characters(upstream=read.text("upstream", DEFAULT_UPSTREAM), micros=read.usd("usd"))
    read.nothing_else()
    return found


def _image(where: str, table: object, problems: list[str]) -> ImageRules:
    read = _Table(where, table, problems)
    types = read.texts("types")
    for value in types:
        if value not in IMAGE_TYPES:
            read.problem(f"types: {value!r} is none of {', '.join(IMAGE_TYPES)}")
    rules = ImageRules(
        types=types,
        must_equal_size=read.flag("must_equal_size"),
        references=read.texts("references", []),
        micros=read.usd("usd", "0"),
    )
    if not set(rules.references) <= set(REFERENCES):
        read.problem(f"references: must be among {', '.join(REFERENCES)}")
    read.nothing_else()
    return rules


def _rates(model: _Table, *, unit: str, seconds: tuple[str, ...]) -> dict[str, Rate]:
    tables = model.rest.pop("rates", None)
    if not isinstance(tables, list) or not tables:
        model.problem("there must be at least one [[rates]]")
        return {}
    rates: dict[str, Rate] = {}
    for number, table in enumerate(tables, start=1):
        read = _Table(f"{model.where}.rates[{number}]", table, model.problems)
        rate = Rate(
            tier=read.text("tier"),
            unit=unit,
            micros=read.usd("usd"),
            seconds=read.texts("seconds", list(seconds)),
        )
        if not rate.seconds or not set(rate.seconds) <= set(seconds):
            read.problem("seconds must be among those of the model")
        sizes = read.texts("sizes")
        if not sizes:
            read.problem("sizes must name at least one size")
        for size in sizes:
            if not _SIZE.fullmatch(size):
                read.problem(f"sizes: {size!r} is not WIDTHxHEIGHT")
            if size in rates:
                read.problem(f"sizes: {size} has a rate already")
            rates[size] = rate
        read.nothing_else()
    return rates
