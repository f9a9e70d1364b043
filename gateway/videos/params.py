"""What is asked for, is it allowed, and what does it cost? Pure.

Every parameter is checked against the catalogue before anything is held or forwarded. The messages
are the upstream's own where they are known, so that a client cannot tell who refused; each names
the parameter and what would be right. What leaves is rebuilt from the checked values, defaults
filled in, so that the upstream bills exactly what was priced.
"""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Final

from gateway.billing.catalogue import Catalogue, Model, Rate
from gateway.billing.money import format_usd
from gateway.errors import InvalidRequest
from gateway.videos.images import Image

CREATE: Final = "create"
_KNOWN: Final = ("prompt", "model", "seconds", "size", "input_reference")
_JSON_NAMES: Final = {bool: "a boolean", int: "an integer", float: "a number", list: "an array"}
# Durations of the relay's older channel, which clients still ask for.
_RETIRED_SECONDS: Final = ("10", "15")
# JSON can spell one (backslash, ud800); UTF-8 cannot.
_SURROGATE: Final = re.compile("[\\ud800-\\udfff]")


@dataclass(frozen=True, slots=True)
class Order:
    """A request that may be forwarded: checked, with its price.

    Attributes:
        fields: the text parameters as they are forwarded, defaults included.
        image: the reference image that goes with them, if any.
        price_micros: what will be held.
    """

    operation: str
    model: Model
    size: str
    clip_seconds: int
    rate: Rate
    price_micros: int
    fields: Mapping[str, str]
    image: Image | None


def check_create(
    values: Mapping[str, object], *, image: Image | None, catalogue: Catalogue
) -> Order:
    """Return the order that the parameters of POST /videos describe.

    Args:
        values: the parameters by name; text where they came as multipart.
        image: what was uploaded as `input_reference`, already recognised.
        catalogue: what may be asked for.

    Raises:
        InvalidRequest: naming the parameter, and what would be right.
    """
    _check_unicode(values)
    _check_names(values)
    if values.get("input_reference") is not None:
        raise _not_a_file(values["input_reference"])
    model = _model(values, catalogue)
    prompt = _prompt(values, model)
    size = _size(values, model, catalogue)
    seconds = _seconds(values, model)
    if image is not None:
        _check_image(image, model, size)
    rate = model.rates[size]
    return Order(
        operation=CREATE,
        model=model,
        size=size,
        clip_seconds=int(seconds),
        rate=rate,
        price_micros=rate.price_micros(int(seconds)),
        fields={
            "prompt": prompt,
            "model": str(values.get("model") or model.id),
            "seconds": seconds,
            "size": size,
        },
        image=image,
    )


def _check_unicode(values: Mapping[str, object]) -> None:
    for name, value in values.items():
        for text in (name, value):
            if isinstance(text, str) and _SURROGATE.search(text):
                readable = _SURROGATE.sub("?", name)
                raise InvalidRequest(
                    f"Invalid '{readable}': a lone surrogate is not Unicode text, and cannot be"
                    " sent on as UTF-8.",
                    param=readable,
                )


def _check_names(values: Mapping[str, object]) -> None:
    for name in values:
        if name not in _KNOWN:
            raise InvalidRequest(
                f"Unknown parameter: '{name}'. Known parameters are: {_listed(_KNOWN, 'and')}.",
                param=name,
                code="unknown_parameter",
            )


def _model(values: Mapping[str, object], catalogue: Catalogue) -> Model:
    name = _text(values, "model", "a model's name")
    if name is None:
        return catalogue.default
    model = catalogue.names.get(name)
    if model is None:
        raise InvalidRequest(
            f"The model '{name}' does not exist here. Supported models are:"
            f" {_listed(catalogue.names, 'and')}.",
            param="model",
            code="model_not_found",
        )
    return model


def _prompt(values: Mapping[str, object], model: Model) -> str:
    prompt = _text(values, "prompt", "a string")
    if prompt is None:
        raise InvalidRequest(
            "Missing required parameter: 'prompt'.",
            param="prompt",
            code="missing_required_parameter",
        )
    if not prompt.strip():
        raise InvalidRequest(
            "Invalid 'prompt': empty string. Expected a string with at least 1 character.",
            param="prompt",
            code="empty_string",
        )
    if len(prompt) > model.prompt_max_characters:
        raise InvalidRequest(
            f"Invalid 'prompt': string too long. Expected a string with maximum length"
            f" {model.prompt_max_characters}, but got a string with length {len(prompt)} instead.",
            param="prompt",
            code="string_above_max_length",
        )
    return prompt


def _seconds(values: Mapping[str, object], model: Model) -> str:
    supported = _listed(model.seconds, "and")
    seconds = _text(values, "seconds", f"one of {_listed(model.seconds, 'or')}")
    if seconds is None:
        return model.default_seconds
    if seconds in model.seconds:
        return seconds
    hint = ""
    if seconds in _RETIRED_SECONDS:
        near = sorted(model.seconds, key=lambda one: abs(int(one) - int(seconds)))[:2]
        hint = (
            f" '{seconds}' belonged to the retired reverse-engineered channel: use"
            f" {_listed(sorted(near, key=int), 'or')}."
        )
    raise InvalidRequest(
        f"Invalid value: '{seconds}'. Supported values are: {supported}.{hint}", param="seconds"
    )


def _size(values: Mapping[str, object], model: Model, catalogue: Catalogue) -> str:
    size = _text(values, "size", f"one of {_listed(model.rates, 'or')}")
    if size is None:
        return model.default_size
    if size in model.rates:
        return size
    elsewhere = "".join(
        f" {other.id} offers {size} at ${format_usd(other.rates[size].micros)}"
        f" per {other.rates[size].unit}."
        for other in catalogue.with_size(size)
    )
    raise InvalidRequest(
        f"Invalid value: '{size}'. Supported values are: {_listed(model.rates, 'and')}.{elsewhere}",
        param="size",
    )


def _check_image(image: Image, model: Model, size: str) -> None:
    rules = model.image
    if rules is None:
        raise InvalidRequest(
            f"The model '{model.id}' does not take an 'input_reference'.", param="input_reference"
        )
    if image.content_type not in rules.types:
        raise InvalidRequest(
            f"Invalid file 'input_reference': unsupported mimetype ('{image.content_type}')."
            f" Supported file formats are {_listed(rules.types, 'and')}.",
            param="input_reference",
        )
    if rules.must_equal_size and f"{image.width}x{image.height}" != size:
        raise InvalidRequest(
            "Inpaint image must match the requested width and height: the image is"
            f" {image.width}x{image.height}, the requested size is {size}.",
            param="input_reference",
        )


def _not_a_file(value: object) -> InvalidRequest:
    got = "a string" if isinstance(value, str) else "an object"
    return InvalidRequest(
        f"Invalid type for 'input_reference': expected a file, but got {got} instead. Send it as a"
        " file of a multipart/form-data request; decode base64 first.",
        param="input_reference",
        code="invalid_type",
    )


def _text(values: Mapping[str, object], name: str, expected: str) -> str | None:
    value = values.get(name)
    if value is None or isinstance(value, str):
        return value
    raise InvalidRequest(
        f"Invalid type for '{name}': expected {expected}, but got"
        f" {_JSON_NAMES.get(type(value), 'an object')} instead.",
        param=name,
        code="invalid_type",
    )


def _listed(values: Iterable[str], last: str) -> str:
    quoted = [f"'{value}'" for value in values]
    if len(quoted) == 1:
        return quoted[0]
    if len(quoted) == 2:  # noqa: PLR2004 - two values take no comma
        return f"{quoted[0]} {last} {quoted[1]}"
    return f"{', '.join(quoted[:-1])}, {last} {quoted[-1]}"
