"""Does the simulator refuse and bill what the relay refuses and bills?"""

import json
from collections.abc import Mapping
from typing import Any

import pytest

from gateway.simulator.answers import RefusedError
from gateway.simulator.models import MODELS
from gateway.simulator.rules import check_create, price_micros

_PRICES = [
    ("sora-2", "720x1280", {"4": 400_000, "8": 800_000, "12": 1_200_000}),
    ("sora-2-2025-12-08", "1280x720", {"4": 400_000, "8": 800_000, "12": 1_200_000}),
    ("sora-2-pro", "1280x720", {"4": 1_200_000, "8": 2_400_000, "12": 3_600_000}),
    ("sora-2-pro", "1024x1792", {"4": 2_000_000, "8": 4_000_000, "12": 6_000_000}),
    ("sora-2-pro", "1792x1024", {"4": 2_000_000, "8": 4_000_000, "12": 6_000_000}),
    ("sora-2-pro", "1080x1920", {"4": 2_800_000, "8": 5_600_000, "12": 8_400_000}),
    ("sora-2-pro", "1920x1080", {"4": 2_800_000, "8": 5_600_000, "12": 8_400_000}),
    ("grok-imagine-video", "854x480", {"1": 50_000, "15": 750_000}),
    ("grok-imagine-video-1.5", "1920x1080", {"1": 250_000, "8": 2_000_000}),
    ("grok-imagine-video-1.5-lite", "1280x720", {"10": 300_000}),
    ("veo-3.1-fast-generate-preview", "1280x720", {"4": 300_000, "8": 300_000}),
    ("veo-3.1-generate-preview", "3840x2160", {"8": 1_200_000}),
]


@pytest.mark.parametrize(("model", "size", "prices"), _PRICES)
def test_prices_are_those_of_the_published_tables(
    model: str, size: str, prices: Mapping[str, int]
) -> None:
    for seconds, micros in prices.items():
        fields = {"prompt": "a cat", "model": model, "size": size, "seconds": seconds}
        assert price_micros(check_create(fields, images=0)) == micros


def test_an_input_image_costs_extra_with_grok_only() -> None:
    grok = {"prompt": "a cat", "model": "grok-imagine-video", "seconds": "1"}
    assert price_micros(check_create(grok, images=1)) == 52_000
    assert price_micros(check_create({"prompt": "a cat"}, images=1)) == 400_000


@pytest.mark.parametrize("model", MODELS)
def test_every_model_has_defaults_it_accepts(model: str) -> None:
    asked = check_create({"prompt": "a cat", "model": model}, images=0)
    assert asked.clip_seconds == int(MODELS[model].default_seconds)
    assert price_micros(asked) > 0


def test_without_a_model_it_is_sora_2_four_seconds_portrait() -> None:
    asked = check_create({"prompt": "a cat"}, images=0)
    assert (asked.model, asked.clip_seconds, asked.size) == ("sora-2", 4, "720x1280")


_REFUSALS: list[tuple[dict[str, Any], str, str | None]] = [
    (
        {"prompt": "a cat", "seconds": "5"},
        "Invalid value: '5'. Supported values are: '4', '8', and '12'.",
        "seconds",
    ),
    (
        {"prompt": "a cat", "size": "640x360"},
        (
            "Invalid value: '640x360'. Supported values are: "
            "'720x1280', '1280x720', '1024x1792', and '1792x1024'."
        ),
        "size",
    ),
    (
        {"prompt": "a cat", "size": "1920x1080"},
        "Invalid value: '1920x1080'. Supported values are: '720x1280' and '1280x720'.",
        "size",
    ),
    (
        {"prompt": "a cat", "seconds": 8},
        (
            "Invalid type for 'seconds': expected one of '4', '8', or '12', "
            "but got an integer instead."
        ),
        "seconds",
    ),
    ({"prompt": "a cat", "width": "720"}, "Unknown parameter: 'width'", "width"),
    ({"model": "sora-2"}, "Missing required parameter: 'prompt'.", "prompt"),
    (
        {"prompt": ""},
        "Invalid 'prompt': empty string. Expected a string with minimum length 1.",
        "prompt",
    ),
    (
        {"prompt": "a cat", "model": "grok-imagine-video", "size": "1920x1080"},
        "Invalid value: '1920x1080'. Supported values are: '480p' and '720p'.",
        "size",
    ),
    (
        {
            "prompt": "a cat",
            "model": "veo-3.1-generate-preview",
            "size": "1920x1080",
            "seconds": "4",
        },
        "Invalid value: '4'. Supported value is: '8'.",
        "seconds",
    ),
]


@pytest.mark.parametrize(("fields", "message", "param"), _REFUSALS)
def test_a_refusal_uses_the_words_that_are_known(
    fields: dict[str, Any], message: str, param: str | None
) -> None:
    status, error = _refusal(fields)
    assert status == 400
    assert (error["message"], error["param"]) == (message, param)
    assert error["type"] == "invalid_request_error"


def test_a_prompt_has_at_most_32000_characters() -> None:
    check_create({"prompt": "å" * 32_000}, images=0)
    assert _refusal({"prompt": "å" * 32_001})[1]["code"] == "string_above_max_length"


def test_a_number_of_seconds_is_a_parse_error_outside_sora() -> None:
    fields = {"prompt": "a cat", "model": "veo-3.1-generate-preview", "seconds": 8}
    assert _refusal(fields)[1]["code"] == "parse_request_failed"


def test_veo_drops_what_it_does_not_know() -> None:
    fields = {"prompt": "a cat", "model": "veo-3.1-generate-preview", "duration": "8"}
    assert check_create(fields, images=0).clip_seconds == 4


def test_an_unknown_model_has_no_channel() -> None:
    status, error = _refusal({"prompt": "a cat", "model": "sora-9"})
    assert status == 503
    assert "无可用渠道" in error["message"]


def _refusal(fields: dict[str, Any]) -> tuple[int, dict[str, Any]]:
    with pytest.raises(RefusedError) as refused:
        check_create(fields, images=0)
    answer = refused.value.answer
    return answer.status, json.loads(answer.body)["error"]
