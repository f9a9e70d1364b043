"""Is a catalogue read exactly, and is every mistake in it reported at once?"""

import hashlib
import tomllib
from importlib.resources import files

import pytest

from gateway.billing.catalogue import Rate
from gateway.billing.catalogue_file import CatalogueError, read_catalogue

PACKAGED = files("gateway.billing").joinpath("catalogue.toml").read_text(encoding="utf-8")

ONE_MODEL = """
[models.small]
unit = "second"
seconds = ["4", "8"]
default_seconds = "4"
default_size = "720x1280"
prompt_max_characters = 100
typical_generation_seconds = [1, 2]
snapshots = ["small-1"]

[models.small.image]
types = ["image/png"]
must_equal_size = true

[[models.small.rates]]
tier = "720p"
sizes = ["720x1280", "1280x720"]
usd = "0.10"
"""

TEN_MISTAKES = """
surprise = 1

[models.wrong]
unit = "minute"
seconds = ["4", "four"]
default_seconds = "5"
default_size = "1x1"
prompt_max_characters = 0
typical_generation_seconds = [2, 1]
snapshots = ["a"]
deprecated_snapshots = ["b"]
colour = "red"

[models.wrong.image]
types = ["image/gif"]
must_equal_size = "yes"

[[models.wrong.rates]]
tier = "720p"
sizes = ["720x1280", "big"]
usd = 0.10

[[models.wrong.rates]]
tier = "again"
sizes = ["720x1280"]
usd = "1e3"
"""


def problems(text: str) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(text)
    return caught.value.problems


def test_every_mistake_is_reported_at_once() -> None:
    assert sorted(problems(TEN_MISTAKES)) == [
        "models.wrong.image: must_equal_size must be true or false",
        "models.wrong.image: types: 'image/gif' is none of image/jpeg, image/png, image/webp",
        "models.wrong.rates[1]: sizes: 'big' is not WIDTHxHEIGHT",
        'models.wrong.rates[1]: usd must be a text such as "0.10"',
        "models.wrong.rates[2]: sizes: 720x1280 has a rate already",
        "models.wrong.rates[2]: usd: '1e3' is not an amount in US dollars, such as 2.50",
        "models.wrong: default_seconds must be one of seconds",
        "models.wrong: default_size must be a size that has a rate",
        "models.wrong: deprecated_snapshots must be among snapshots",
        "models.wrong: prompt_max_characters must be a whole number above 0",
        "models.wrong: seconds: 'four' is not a whole number of seconds",
        "models.wrong: typical_generation_seconds must be [shortest, longest]",
        "models.wrong: unit must be one of second, request",
        "models.wrong: unknown key 'colour'",
        "unknown table 'surprise'",
    ]


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "there must be at least one [models.NAME]"),
        ("models = 3", "there must be at least one [models.NAME]"),
        ("[models]\nsmall = 3", "models.small: must be a table"),
        ("models = [", "not TOML"),
        (ONE_MODEL.replace('usd = "0.10"', ""), "models.small.rates[1]: usd must be a text"),
        (ONE_MODEL.replace('["small-1"]', '["small"]'), "the name 'small' is taken twice"),
        (ONE_MODEL.replace('["4", "8"]', '["4", "4"]'), "seconds has a value twice"),
        (ONE_MODEL.replace('["4", "8"]', "[4, 8]"), "seconds must be a list of texts"),
        (ONE_MODEL.partition("[[")[0], "there must be at least one [[rates]]"),
    ],
)
def test_a_mistake_is_named_with_its_place(text: str, problem: str) -> None:
    assert any(problem in one for one in problems(text)), problems(text)


def test_a_rate_of_zero_is_a_rate() -> None:
    catalogue = read_catalogue(ONE_MODEL.replace('"0.10"', '"0"'))
    assert catalogue.default.rates["720x1280"].price_micros(8) == 0


def test_a_rate_per_request_does_not_depend_on_the_seconds() -> None:
    catalogue = read_catalogue(ONE_MODEL.replace('"second"', '"request"'))
    assert [price for _, _, price in catalogue.default.offers()] == [100_000] * 4


def test_every_size_and_duration_is_offered_at_its_price() -> None:
    assert list(read_catalogue(ONE_MODEL).default.offers()) == [
        ("720x1280", "4", 400_000),
        ("720x1280", "8", 800_000),
        ("1280x720", "4", 400_000),
        ("1280x720", "8", 800_000),
    ]


def test_the_hash_is_that_of_the_text() -> None:
    catalogue = read_catalogue(ONE_MODEL)
    assert catalogue.sha256 == hashlib.sha256(ONE_MODEL.encode()).hexdigest()
    assert catalogue.sha256 != read_catalogue(f"{ONE_MODEL}\n").sha256


def test_a_model_is_found_by_its_snapshots_too() -> None:
    catalogue = read_catalogue(ONE_MODEL)
    assert catalogue.names["small-1"] is catalogue.names["small"] is catalogue.default


def test_the_packaged_catalogue_offers_what_the_relay_does() -> None:
    catalogue = read_catalogue(PACKAGED)
    assert list(catalogue.models)[:2] == ["sora-2", "sora-2-pro"]
    assert catalogue.default.id == "sora-2"
    assert catalogue.default.rates == {
        size: Rate("720p", "second", 100_000, ("4", "8", "12")) for size in ("720x1280", "1280x720")
    }
    assert next(catalogue.with_size("1080x1920")).id == "sora-2-pro"
    for model in (catalogue.models[name] for name in ("sora-2", "sora-2-pro")):
        assert model.seconds == ("4", "8", "12")
        assert (model.default_seconds, model.default_size) == ("4", "720x1280")
        assert model.image is not None
        assert model.image.must_equal_size


def test_every_table_of_the_packaged_catalogue_was_read() -> None:
    tables = tomllib.loads(PACKAGED)["models"]
    models = read_catalogue(PACKAGED).models
    for name, table in tables.items():
        sizes = [size for rate in table["rates"] for size in rate["sizes"]]
        assert list(models[name].rates) == sizes
