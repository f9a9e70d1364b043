"""What is asked for, is it allowed, and what does it cost? Pure.

Every parameter is checked against the catalogue before anything is held or forwarded. The messages
are the upstream's own where they are known, so that a client cannot tell who refused; each names
the parameter and what would be right. What leaves is rebuilt from the checked values, defaults
filled in, so that the upstream bills exactly what was priced.

This file has what POST /videos takes; operations.py has what is done to a video there is.
"""

from collections.abc import Mapping
from typing import Any, Final

from gateway.billing.catalogue import Catalogue, Model
from gateway.billing.money import format_usd
from gateway.errors import InvalidRequest
from gateway.videos.checks import (
    check_names,
    listed,
    model_named,
    prompt_of,
    text_of,
    wrong_type,
)
from gateway.videos.images import Image
from gateway.videos.order import CREATE, Attachment, Order

IMAGE_FIELD: Final = "input_reference"
_KNOWN: Final = ("prompt", "model", "seconds", "size", IMAGE_FIELD, "characters")
_CHARACTERS_LIMIT: Final = 2
_REFERENCE_KEYS: Final = ("image_url", "file_id")
# Durations of the relay's older channel, which clients still ask for.
_RETIRED_SECONDS: Final = ("10", "15")


def check_create(
    values: Mapping[str, object],
    *,
    image: Image | None,
    catalogue: Catalogue,
    pass_unknown: bool = False,
) -> Order:
    """Return the order that the parameters of POST /videos describe.

    Args:
        values: the parameters by name; text where they came as multipart.
        image: what was uploaded as `input_reference`, already recognised.
        catalogue: what may be asked for.
        pass_unknown: forward parameters that nobody here knows.

    Raises:
        InvalidRequest: naming the parameter, and what would be right.
    """
    unknown = check_names(values, _KNOWN, pass_unknown=pass_unknown)
    model = model_named(text_of(values, "model", "a model's name"), catalogue)
    prompt = prompt_of(values, model.prompt_max_characters)
    size = _size(values, model, catalogue)
    seconds = _seconds(values, model, size)
    reference = _reference(values, model, uploaded=image is not None)
    if image is not None:
        _check_image(image, model, size)
    images_micros = model.image.micros if model.image and (image or reference) else 0
    rate = model.rates[size]
    fields: dict[str, Any] = {
        "prompt": prompt,
        "model": str(values.get("model") or model.id),
        "seconds": seconds,
        "size": size,
    }
    return Order(
        operation=CREATE,
        path="/videos",
        upstream=model.upstream,
        model=model,
        size=size,
        clip_seconds=int(seconds),
        rate=rate,
        images_micros=images_micros,
        price_micros=rate.price_micros(int(seconds)) + images_micros,
        fields={**fields, **_characters(values), **reference, **unknown},
        shown=fields,
        attachment=None
        if image is None
        else Attachment(
            field=IMAGE_FIELD,
            content_type=image.content_type,
            extension=image.content_type.removeprefix("image/"),
        ),
    )


def _seconds(values: Mapping[str, object], model: Model, size: str) -> str:
    supported = model.rates[size].seconds
    seconds = text_of(values, "seconds", f"one of {listed(supported, 'or')}")
    if seconds is None:
        return model.default_seconds if model.default_seconds in supported else supported[-1]
    if seconds in supported:
        return seconds
    hint = ""
    if seconds in model.seconds:
        hint = f" At {size} the model makes no other."
    elif seconds in _RETIRED_SECONDS:
        near = sorted(supported, key=lambda one: abs(int(one) - int(seconds)))[:2]
        hint = (
            f" '{seconds}' belonged to the retired reverse-engineered channel: use"
            f" {listed(sorted(near, key=int), 'or')}."
        )
    raise InvalidRequest(
        f"Invalid value: '{seconds}'. Supported values are: {listed(supported, 'and')}.{hint}",
        param="seconds",
    )


def _size(values: Mapping[str, object], model: Model, catalogue: Catalogue) -> str:
    size = text_of(values, "size", f"one of {listed(model.rates, 'or')}")
    if size is None:
        return model.default_size
    if size in model.rates:
        return size
    elsewhere = ""
    other = next(catalogue.with_size(size), None)
    if other is not None:
        rate = other.rates[size]
        elsewhere = f" {other.id} offers {size} at ${format_usd(rate.micros)} per {rate.unit}."
    raise InvalidRequest(
        f"Invalid value: '{size}'. Supported values are: {listed(model.rates, 'and')}.{elsewhere}",
        param="size",
    )


def _check_image(image: Image, model: Model, size: str) -> None:
    rules = model.image
    if rules is None:
        raise InvalidRequest(
            f"The model '{model.id}' does not take an '{IMAGE_FIELD}'.", param=IMAGE_FIELD
        )
    if image.content_type not in rules.types:
        raise InvalidRequest(
            f"Invalid file '{IMAGE_FIELD}': unsupported mimetype ('{image.content_type}')."
            f" Supported file formats are {listed(rules.types, 'and')}.",
            param=IMAGE_FIELD,
        )
    if rules.must_equal_size and f"{image.width}x{image.height}" != size:
        raise InvalidRequest(
            "Inpaint image must match the requested width and height: the image is"
            f" {image.width}x{image.height}, the requested size is {size}."
            f" {_crop(image, size)}",
            param=IMAGE_FIELD,
        )


def _crop(image: Image, size: str) -> str:
    width, height = (int(side) for side in size.split("x"))
    scale = min(image.width / width, image.height / height)
    fitting_width, fitting_height = int(width * scale), int(height * scale)
    return (
        f"Crop it to {fitting_width}x{fitting_height} from ({(image.width - fitting_width) // 2},"
        f" {(image.height - fitting_height) // 2}), then resize it to {size}."
    )


def _reference(
    values: Mapping[str, object], model: Model, *, uploaded: bool
) -> dict[str, dict[str, str]]:
    """Return a reference image that is named instead of uploaded, where the catalogue allows it."""
    value = values.get(IMAGE_FIELD)
    if value is None:
        return {}
    if uploaded:
        raise InvalidRequest(f"'{IMAGE_FIELD}' was sent twice.", param=IMAGE_FIELD)
    allowed = () if model.image is None else model.image.references
    if not isinstance(value, dict) or not allowed:
        got = "an object" if isinstance(value, dict) else "a string"
        raise InvalidRequest(
            f"Invalid type for '{IMAGE_FIELD}': expected a file, but got {got} instead. Send"
            " the image as a file of a multipart/form-data request; decode base64 first, for"
            " example with base64.b64decode.",
            param=IMAGE_FIELD,
            code="invalid_type",
        )
    given = [key for key in _REFERENCE_KEYS if value.get(key) is not None]
    if len(given) != 1 or len(value) > 1 or not isinstance(value[given[0]], str):
        raise InvalidRequest(
            f"'{IMAGE_FIELD}' must have exactly one of {listed(allowed, 'and')}, a string.",
            param=IMAGE_FIELD,
        )
    if given[0] not in allowed:
        raise InvalidRequest(
            f"'{IMAGE_FIELD}.{given[0]}' is not accepted for '{model.id}', but"
            f" {listed(allowed, 'and')} is.",
            param=IMAGE_FIELD,
        )
    return {IMAGE_FIELD: {given[0]: value[given[0]]}}


def _characters(values: Mapping[str, object]) -> dict[str, list[dict[str, str]]]:
    value = values.get("characters")
    if value is None:
        return {}
    if not isinstance(value, list):
        raise wrong_type("characters", "an array of objects with an 'id'", value)
    for one in value:
        if not isinstance(one, dict) or set(one) != {"id"} or not isinstance(one["id"], str):
            raise InvalidRequest(
                "Each of 'characters' must be an object with an 'id'.", param="characters"
            )
    if len(value) > _CHARACTERS_LIMIT:
        raise InvalidRequest(
            f"At most {_CHARACTERS_LIMIT} 'characters' are supported, but got {len(value)}.",
            param="characters",
        )
    return {"characters": value}
