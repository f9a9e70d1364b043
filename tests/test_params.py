"""Is exactly what the relay sells let through, at exactly its price?"""

from collections.abc import Mapping
from importlib.resources import files

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.billing.catalogue import Catalogue
from gateway.billing.catalogue_file import read_catalogue
from gateway.errors import InvalidRequest
from gateway.videos.images import Image
from gateway.videos.order import Attachment, Order
from gateway.videos.params import check_create

CATALOGUE = read_catalogue(
    files("gateway.billing").joinpath("catalogue.toml").read_text(encoding="utf-8")
)
# The relay's own price table, in micros for 4, 8 and 12 seconds.
TABLE = {
    ("sora-2", "720x1280"): (400_000, 800_000, 1_200_000),
    ("sora-2", "1280x720"): (400_000, 800_000, 1_200_000),
    ("sora-2-pro", "720x1280"): (1_200_000, 2_400_000, 3_600_000),
    ("sora-2-pro", "1280x720"): (1_200_000, 2_400_000, 3_600_000),
    ("sora-2-pro", "1024x1792"): (2_000_000, 4_000_000, 6_000_000),
    ("sora-2-pro", "1792x1024"): (2_000_000, 4_000_000, 6_000_000),
    ("sora-2-pro", "1080x1920"): (2_800_000, 5_600_000, 8_400_000),
    ("sora-2-pro", "1920x1080"): (2_800_000, 5_600_000, 8_400_000),
}
SIZES = sorted({size for _, size in TABLE})


def check(
    values: Mapping[str, object], image: Image | None = None, catalogue: Catalogue = CATALOGUE
) -> Order:
    return check_create({"prompt": "a cat", **values}, image=image, catalogue=catalogue)


def refused(values: Mapping[str, object], image: Image | None = None) -> InvalidRequest:
    with pytest.raises(InvalidRequest) as caught:
        check(values, image)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.parametrize("place", [0, 1, 2])
@pytest.mark.parametrize(("model", "size"), TABLE)
def test_every_price_is_the_one_in_the_relays_table(model: str, size: str, place: int) -> None:
    order = check({"model": model, "size": size, "seconds": ("4", "8", "12")[place]})
    assert order.price_micros == TABLE[model, size][place]
    assert order.clip_seconds == (4, 8, 12)[place]


def test_twelve_seconds_of_sora_2_pro_at_1080p_cost_8_40_dollars() -> None:
    order = check({"model": "sora-2-pro", "size": "1920x1080", "seconds": "12"})
    assert order.price_micros == 8_400_000


@given(
    model=st.sampled_from(["sora-2", "sora-2-pro"]),
    size=st.sampled_from(SIZES) | st.from_regex(r"[0-9]{1,4}x[0-9]{1,4}", fullmatch=True),
    seconds=st.sampled_from(["4", "8", "12"]) | st.text(max_size=3),
)
def test_what_is_not_in_the_table_is_refused(model: str, size: str, seconds: str) -> None:
    values = {"prompt": "a cat", "model": model, "size": size, "seconds": seconds}
    if (model, size) in TABLE and seconds in {"4", "8", "12"}:
        order = check_create(values, image=None, catalogue=CATALOGUE)
        assert order.fields == values
    else:
        with pytest.raises(InvalidRequest) as caught:
            check_create(values, image=None, catalogue=CATALOGUE)
        assert caught.value.param in {"size", "seconds"}


def test_what_leaves_has_the_defaults_filled_in() -> None:
    order = check({"model": None, "size": None, "seconds": None, "input_reference": None})
    assert order.fields == {
        "prompt": "a cat",
        "model": "sora-2",
        "seconds": "4",
        "size": "720x1280",
    }
    assert order.price_micros == 400_000


def test_a_snapshot_is_priced_as_its_model_and_forwarded_under_its_own_name() -> None:
    order = check({"model": "sora-2-pro-2025-10-06", "seconds": "8"})
    assert order.model is CATALOGUE.models["sora-2-pro"]
    assert (order.model.id, order.fields["model"]) == ("sora-2-pro", "sora-2-pro-2025-10-06")
    assert order.price_micros == 2_400_000


@pytest.mark.parametrize(
    ("values", "param", "code", "message"),
    [
        (
            {"seconds": "5"},
            "seconds",
            "invalid_value",
            "Invalid value: '5'. Supported values are: '4', '8', and '12'.",
        ),
        (
            {"seconds": "10"},
            "seconds",
            "invalid_value",
            (
                "Invalid value: '10'. Supported values are: '4', '8', and '12'. '10' belonged"
                " to the"
                " retired reverse-engineered channel: use '8' or '12'."
            ),
        ),
        (
            {"seconds": "15"},
            "seconds",
            "invalid_value",
            (
                "Invalid value: '15'. Supported values are: '4', '8', and '12'. '15' belonged"
                " to the"
                " retired reverse-engineered channel: use '8' or '12'."
            ),
        ),
        (
            {"seconds": 8},
            "seconds",
            "invalid_type",
            (
                "Invalid type for 'seconds': expected one of '4', '8', or '12', but got an integer"
                " instead."
            ),
        ),
        (
            {"size": "1920x1080"},
            "size",
            "invalid_value",
            (
                "Invalid value: '1920x1080'. Supported values are: '720x1280' and '1280x720'."
                " sora-2-pro offers 1920x1080 at $0.70 per second."
            ),
        ),
        (
            {"size": "640x360", "model": "sora-2-pro"},
            "size",
            "invalid_value",
            (
                "Invalid value: '640x360'. Supported values are: '720x1280', '1280x720',"
                " '1024x1792',"
                " '1792x1024', '1080x1920', and '1920x1080'."
            ),
        ),
        (
            {"size": ["720x1280"]},
            "size",
            "invalid_type",
            (
                "Invalid type for 'size': expected one of '720x1280' or '1280x720', but got an"
                " array"
                " instead."
            ),
        ),
        (
            {"model": "sora-3"},
            "model",
            "model_not_found",
            (
                "The model 'sora-3' does not exist here. Supported models are: 'sora-2',"
                " 'sora-2-2025-12-08', 'sora-2-2025-10-06', 'sora-2-pro',"
                " 'sora-2-pro-2025-10-06', 'grok-imagine-video', 'grok-imagine-video-1.5',"
                " 'grok-imagine-video-1.5-lite', 'veo-3.1-fast-generate-preview', and"
                " 'veo-3.1-generate-preview'."
            ),
        ),
        (
            {"width": 720},
            "width",
            "unknown_parameter",
            (
                "Unknown parameter: 'width'. Known parameters are: 'prompt', 'model', 'seconds',"
                " 'size', 'input_reference', and 'characters'."
            ),
        ),
        (
            {"prompt": None},
            "prompt",
            "missing_required_parameter",
            "Missing required parameter: 'prompt'.",
        ),
        (
            {"prompt": " \n"},
            "prompt",
            "empty_string",
            "Invalid 'prompt': empty string. Expected a string with at least 1 character.",
        ),
        (
            {"prompt": True},
            "prompt",
            "invalid_type",
            "Invalid type for 'prompt': expected a string, but got a boolean instead.",
        ),
        (
            {"prompt": "x" * 32_001},
            "prompt",
            "string_above_max_length",
            (
                "Invalid 'prompt': string too long. Expected a string with maximum length"
                " 32000, but"
                " got a string with length 32001 instead."
            ),
        ),
        (
            {"input_reference": "https://example.com/a.png"},
            "input_reference",
            "invalid_type",
            (
                "Invalid type for 'input_reference': expected a file, but got a string instead."
                " Send the image as a file of a multipart/form-data request; decode base64"
                " first, for example with base64.b64decode."
            ),
        ),
    ],
)
def test_a_refusal_names_the_parameter_and_what_would_be_right(
    values: dict[str, object], param: str, code: str, message: str
) -> None:
    error = refused(values)
    assert (error.param, error.code, error.message) == (param, code, message)


@pytest.mark.parametrize("name", ["prompt", "model", "seconds", "size", "colour\ud800"])
def test_text_that_utf_8_cannot_carry_is_the_clients_mistake(name: str) -> None:
    error = refused({name: "a \udc80 cat"})
    assert error.param == name.replace("\ud800", "?")
    error.message.encode()


def test_the_longest_prompt_counts_characters_and_not_bytes() -> None:
    assert check({"prompt": "猫" * 32_000}).fields["prompt"] == "猫" * 32_000


def test_an_image_of_the_requested_size_goes_with_the_order() -> None:
    image = Image(content_type="image/webp", width=1280, height=720)
    attachment = check({"size": "1280x720"}, image).attachment
    assert attachment == Attachment("input_reference", "image/webp", "webp")


def test_an_image_of_another_size_is_refused_with_both_sizes() -> None:
    image = Image(content_type="image/png", width=1280, height=720)
    error = refused({}, image)
    assert error.param == "input_reference"
    assert error.message == (
        "Inpaint image must match the requested width and height: the image is 1280x720, the"
        " requested size is 720x1280. Crop it to 405x720 from (437, 0), then resize it to"
        " 720x1280."
    )


MODEL = """
[models.m]
unit = "second"
seconds = ["4"]
default_seconds = "4"
default_size = "720x1280"
prompt_max_characters = 10
typical_generation_seconds = [1, 2]
rates = [{ tier = "t", sizes = ["720x1280"], usd = "0.1" }]
"""


@pytest.mark.parametrize(
    ("rules", "message"),
    [
        ("", "The model 'm' does not take an 'input_reference'."),
        (
            '[models.m.image]\ntypes = ["image/png"]\nmust_equal_size = false',
            (
                "Invalid file 'input_reference': unsupported mimetype ('image/webp'). Supported"
                " file"
                " formats are 'image/png'."
            ),
        ),
    ],
)
def test_an_image_that_the_model_does_not_take_is_refused(rules: str, message: str) -> None:
    image = Image(content_type="image/webp", width=1, height=1)
    with pytest.raises(InvalidRequest) as caught:
        check({}, image, read_catalogue(MODEL + rules))
    assert caught.value.message == message


def test_an_image_of_any_size_is_taken_where_the_rules_allow_it() -> None:
    rules = '[models.m.image]\ntypes = ["image/png"]\nmust_equal_size = false'
    image = Image(content_type="image/png", width=1, height=1)
    assert check({}, image, read_catalogue(MODEL + rules)).attachment is not None
