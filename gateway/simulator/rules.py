"""Which requests does the relay accept, and what are they billed?

The models, their values and rates are in models.py; here is the code that reads that table, with
OpenAI's and the relay's own words for each refusal.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from gateway.simulator.answers import Answer, RefusedError, no_channel, openai_error, shell_error
from gateway.simulator.models import MODELS, VEO_LONG_ONLY, VEO_LONG_SECONDS, VEO_SIZES, Model

LONGEST_PROMPT = 32_000
MOST_CHARACTERS = 2

_SIZE = re.compile(r"([1-9][0-9]{1,3})x([1-9][0-9]{1,3})")
_OPENAI_SIZES = ("720x1280", "1280x720", "1024x1792", "1792x1024")
_SORA_FIELDS = frozenset({"prompt", "model", "seconds", "size", "input_reference", "characters"})


@dataclass(frozen=True, slots=True)
class Asked:
    """A request that the rules accept.

    Attributes:
        model: the model as named in the request.
        prompt: the prompt.
        clip_seconds: how long the clip is to be.
        size: "WIDTHxHEIGHT".
        images: how many input images there are.
    """

    model: str
    prompt: str
    clip_seconds: int
    size: str
    images: int


def check_create(fields: Mapping[str, Any], *, images: int) -> Asked:
    """Return what is asked, defaults filled in.

    Raises:
        RefusedError: with the relay's words, if the rules do not admit it.
    """
    name = fields.get("model", "sora-2")
    model = MODELS.get(name) if isinstance(name, str) else None
    if model is None:
        raise RefusedError(no_channel())
    if model.family == "sora":
        refuse_unknown(fields, known=_SORA_FIELDS)
    if "generateAudio" in fields and model.family == "veo":
        raise RefusedError(openai_error("INVALID_ARGUMENT: generateAudio", code="INVALID_ARGUMENT"))
    prompt = check_prompt(fields)
    seconds = check_seconds(fields.get("seconds", model.default_seconds), model=model)
    size = check_size(fields.get("size", model.default_size), model=model)
    if size in VEO_LONG_ONLY and model.family == "veo" and seconds != VEO_LONG_SECONDS:
        raise RefusedError(_unsupported(seconds, (VEO_LONG_SECONDS,), param="seconds"))
    _check_characters(fields.get("characters", []))
    return Asked(name, prompt, int(seconds), size, images)


def check_prompt(fields: Mapping[str, Any]) -> str:
    """Return the prompt, 1 to LONGEST_PROMPT characters long.

    Raises:
        RefusedError: it is missing, no string, empty or too long.
    """
    if "prompt" not in fields:
        message = "Missing required parameter: 'prompt'."
        raise RefusedError(openai_error(message, param="prompt", code="missing_required_parameter"))
    prompt = fields["prompt"]
    if not isinstance(prompt, str):
        message = "Invalid type for 'prompt': expected a string."
        raise RefusedError(openai_error(message, param="prompt", code="invalid_type"))
    if not prompt:
        message = "Invalid 'prompt': empty string. Expected a string with minimum length 1."
        raise RefusedError(openai_error(message, param="prompt", code="empty_string"))
    if len(prompt) > LONGEST_PROMPT:
        message = (
            f"Invalid 'prompt': string too long. Expected a string with maximum length "
            f"{LONGEST_PROMPT}, but got a string with length {len(prompt)} instead."
        )
        answer = openai_error(message, param="prompt", code="string_above_max_length")
        raise RefusedError(answer)
    return prompt


def check_seconds(seconds: Any, *, model: Model) -> str:
    """Return `seconds` if this model makes clips of that length.

    Raises:
        RefusedError: it is no string, or not among the model's values.
    """
    if isinstance(seconds, str):
        if seconds not in model.seconds:
            raise RefusedError(_unsupported(seconds, model.seconds, param="seconds"))
        return seconds
    if model.family != "sora":
        message = (
            "json: cannot unmarshal number into Go struct field "
            "VideoRequest.duration of type string"
        )
        raise RefusedError(shell_error(message, status=400, code="parse_request_failed"))
    kind = "an integer" if isinstance(seconds, int) else "another type"
    listed = _listed(model.seconds, word="or")
    message = f"Invalid type for 'seconds': expected one of {listed}, but got {kind} instead."
    raise RefusedError(openai_error(message, param="seconds", code="invalid_type"))


def check_size(size: Any, *, model: Model) -> str:
    """Return `size` if this model makes clips of that size.

    Raises:
        RefusedError: it is not among the model's sizes.
    """
    text = size if isinstance(size, str) else ""
    match model.family:
        case "sora":
            supported = tuple(model.rates)
            fits = text in supported
        case "veo":
            supported = VEO_SIZES
            fits = text in supported
        case _:
            supported = tuple(f"{tier}p" for tier in model.rates)
            fits = _shorter_side(text) in model.rates
    if fits:
        return text
    if model.family == "sora" and text not in MODELS["sora-2-pro"].rates:
        supported = _OPENAI_SIZES
    raise RefusedError(_unsupported(size, supported, param="size"))


def refuse_unknown(fields: Mapping[str, Any], *, known: frozenset[str]) -> None:
    """Return if every field is known.

    Raises:
        RefusedError: naming the first that is not.
    """
    for name in fields:
        if name not in known:
            message = f"Unknown parameter: '{name}'"
            raise RefusedError(openai_error(message, param=name, code="unknown_parameter"))


def price_micros(asked: Asked) -> int:
    """Return what a completed video of this kind is billed, in micros."""
    model = MODELS[asked.model]
    images = asked.images * model.image_micros
    if model.request_micros is not None:
        return model.request_micros + images
    rate = model.rates[asked.size if model.family == "sora" else _shorter_side(asked.size)]
    return asked.clip_seconds * rate + images


def _shorter_side(size: str) -> str:
    match = _SIZE.fullmatch(size)
    return str(min(int(match[1]), int(match[2]))) if match else ""


def _check_characters(characters: Any) -> None:
    if not isinstance(characters, list) or len(characters) > MOST_CHARACTERS:
        message = f"Invalid 'characters': expected at most {MOST_CHARACTERS} characters."
        raise RefusedError(openai_error(message, param="characters", code="invalid_value"))


def _unsupported(value: Any, supported: tuple[str, ...], *, param: str) -> Answer:
    listed = _listed(supported, word="and")
    plural = "Supported values are" if len(supported) > 1 else "Supported value is"
    message = f"Invalid value: '{value}'. {plural}: {listed}."
    return openai_error(message, param=param, code="invalid_value")


def _listed(values: tuple[str, ...], *, word: str) -> str:
    quoted = [f"'{value}'" for value in values]
    comma = "," if len(quoted) > 2 else ""  # noqa: PLR2004 - "a and b", but "a, b, and c"
    return f"{', '.join(quoted[:-1])}{comma} {word} {quoted[-1]}" if quoted[1:] else quoted[0]
