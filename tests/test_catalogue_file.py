"""Is all that a catalogue may say read as it was meant, or refused with its place?"""

from datetime import date

import pytest

from gateway.billing.catalogue import Catalogue, Characters, ImageRules
from gateway.billing.catalogue_file import CatalogueError, read_catalogue

HEAD = """
[models.small]
unit = "second"
default_seconds = "4"
default_size = "720x1280"
prompt_max_characters = 100
typical_generation_seconds = [1, 2]
"""
RATES = """
[[models.small.rates]]
tier = "720p"
sizes = ["720x1280"]
usd = "0.10"
"""
SECONDS = 'seconds = ["4", "8"]'
IMAGE = """
[models.small.image]
types = ["image/png"]
must_equal_size = true
"""

MISTAKES = """
surprise = 1

[characters]
usd = 0
upstream = ""
price = "1"

[models.small]
unit = "second"
seconds = { least = 4, most = 2 }
default_seconds = "4"
default_size = "720x1280"
prompt_max_characters = true
typical_generation_seconds = [1]
aliases = ["other", "little", "little"]
snapshots = "small-1"
moderated_is_billed = "no"
sunset = "2026-09-24"
upstream = 7

[models.small.image]
types = ["image/png"]
must_equal_size = true
references = ["image_url", "base64"]
usd = "-1"
pixels = 3

[[models.small.rates]]
tier = "720p"
sizes = ["720x1280"]
seconds = []
usd = "0.10"

[[models.small.rates]]
tier = "1080p"
sizes = ["1080x1920"]
seconds = ["99"]
usd = "0.0000001"

[models.other]
unit = "request"
seconds = ["4"]
default_seconds = "4"
default_size = "720x1280"
prompt_max_characters = 100
typical_generation_seconds = [1, 2]
snapshots = ["other"]
sunset = 2026-09-24T00:00:00Z

[[models.other.rates]]
tier = "720p"
sizes = ["720x1280"]
usd = "0.10"
"""


def small(
    *, seconds: str = SECONDS, more: str = "", rates: str = RATES, image: str = "", rest: str = ""
) -> Catalogue:
    return read_catalogue(f"{HEAD}{seconds}\n{more}\n{image}\n{rates}\n{rest}")


def problems(text: str) -> list[str]:
    with pytest.raises(CatalogueError) as caught:
        read_catalogue(text)
    return caught.value.problems


def test_every_mistake_in_every_key_is_reported_at_once() -> None:
    assert sorted(problems(MISTAKES)) == [
        "characters: unknown key 'price'",
        "characters: upstream must be a text",
        'characters: usd must be a text such as "0.10"',
        "models.other: sunset must be a date such as 2026-09-24, without quotes",
        "models.other: the name 'other' is taken twice",
        "models.other: the name 'other' is taken twice",
        "models.small.image: references: must be among image_url, file_id",
        "models.small.image: unknown key 'pixels'",
        "models.small.image: usd: '-1' is not an amount in US dollars, such as 2.50",
        "models.small.rates[1]: seconds must be among those of the model",
        "models.small.rates[2]: seconds must be among those of the model",
        "models.small.rates[2]: usd: '0.0000001' is finer than a millionth of a dollar",
        "models.small: aliases has a value twice",
        "models.small: default_seconds must be among the seconds of default_size",
        "models.small: default_seconds must be one of seconds",
        "models.small: moderated_is_billed must be true or false",
        "models.small: prompt_max_characters must be a whole number above 0",
        "models.small: seconds: least and most must be whole numbers from 1 to 999",
        "models.small: snapshots must be a list of texts",
        "models.small: sunset must be a date such as 2026-09-24, without quotes",
        "models.small: the name 'little' is taken twice",
        "models.small: typical_generation_seconds must be [shortest, longest]",
        "models.small: upstream must be a text",
        "unknown table 'surprise'",
    ]


def test_what_is_left_out_has_its_usual_value() -> None:
    model = small(image=IMAGE).default
    assert (model.upstream, model.aliases, model.snapshots) == ("default", (), ())
    assert (model.moderated_is_billed, model.sunset) == (False, None)
    assert model.image == ImageRules(
        types=("image/png",), must_equal_size=True, references=(), micros=0
    )
    assert small().default.image is None
    assert small().characters is None


def test_an_alias_means_the_same_model() -> None:
    catalogue = small(more='aliases = ["little", "tiny"]\nsnapshots = ["small-1"]')
    assert list(catalogue.names) == ["small", "little", "tiny", "small-1"]
    assert set(map(id, catalogue.names.values())) == {id(catalogue.default)}


def test_seconds_may_be_every_whole_second_of_a_span() -> None:
    model = small(seconds="seconds = { least = 3, most = 6 }").default
    assert model.seconds == ("3", "4", "5", "6")
    assert model.rates["720x1280"].seconds == model.seconds
    assert [price for _, _, price in model.offers()] == [300_000, 400_000, 500_000, 600_000]


@pytest.mark.parametrize(
    "seconds",
    [
        "{ least = 0, most = 6 }",
        "{ least = 6, most = 4 }",
        "{ least = 1, most = 1000 }",
        '{ least = "1", most = "6" }',
        "{ least = 1.0, most = 6.0 }",
        "{ least = 1 }",
        "{}",
        "{ least = 1, most = 6, step = 2 }",
    ],
)
def test_a_span_that_is_none_is_a_mistake_and_not_cut_to_fit(seconds: str) -> None:
    found = problems(f"{HEAD}seconds = {seconds}\n{RATES}")
    assert "models.small: seconds: least and most must be whole numbers from 1 to 999" in found


@pytest.mark.parametrize("seconds", ['["0"]', '["04"]', '["4.5"]', '["-4"]', '["1000"]', '[" 4"]'])
def test_seconds_are_whole_numbers_as_clients_write_them(seconds: str) -> None:
    assert any(
        "is not a whole number of seconds" in one
        for one in problems(f"{HEAD}seconds = {seconds}\n{RATES}")
    )


def test_a_tier_may_offer_fewer_seconds_than_its_model() -> None:
    long_only = RATES.replace("720p", "4k").replace("720x1280", "2160x3840")
    model = small(rates=f'{RATES}{long_only}seconds = ["8"]').default
    assert list(model.offers()) == [
        ("720x1280", "4", 400_000),
        ("720x1280", "8", 800_000),
        ("2160x3840", "8", 800_000),
    ]


def test_the_default_seconds_must_be_possible_at_the_default_size() -> None:
    found = problems(f'{HEAD}{SECONDS}\n{RATES}seconds = ["8"]')
    assert found == ["models.small: default_seconds must be among the seconds of default_size"]


def test_a_reference_image_has_a_price_and_ways_to_be_named() -> None:
    rules = small(
        image=f'{IMAGE}usd = "0.002"\nreferences = ["file_id", "image_url"]'
    ).default.image
    assert rules is not None
    assert (rules.micros, rules.references) == (2_000, ("file_id", "image_url"))


def test_a_sunset_is_a_day() -> None:
    assert small(more="sunset = 2026-09-24").default.sunset == date(2026, 9, 24)


def test_billing_what_moderation_blocked_is_said_outright() -> None:
    assert small(more="moderated_is_billed = true").default.moderated_is_billed


def test_characters_are_made_somewhere_at_some_price() -> None:
    catalogue = small(rest='[characters]\nusd = "0.25"\nupstream = "other"')
    assert catalogue.characters == Characters(upstream="other", micros=250_000)


def test_characters_without_a_price_are_a_mistake() -> None:
    text = f"{HEAD}{SECONDS}\n{RATES}\n[characters]\n"
    assert problems(text) == ['characters: usd must be a text such as "0.10"']
    assert problems(f"characters = 3\n{HEAD}{SECONDS}\n{RATES}")[0] == "characters: must be a table"
