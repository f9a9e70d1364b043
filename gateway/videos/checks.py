"""Which checks do all billable operations share? Pure."""

import re
from collections.abc import Iterable, Mapping
from typing import Final

from gateway.billing.catalogue import Catalogue, Model
from gateway.errors import InvalidRequest

_SURROGATE: Final = re.compile(r"[\ud800-\udfff]")
_JSON_NAMES: Final = {
    bool: "a boolean",
    int: "an integer",
    float: "a number",
    list: "an array",
    str: "a string",
}


def check_names(
    values: Mapping[str, object], known: tuple[str, ...], *, pass_unknown: bool = False
) -> dict[str, object]:
    """Return the parameters that nobody here knows.

    Raises:
        InvalidRequest: there is one, and they are not to pass; `stream` never does. Also: a name
            or a text cannot be sent on.
    """
    _check_unicode(values)
    unknown = {name: value for name, value in values.items() if name not in known}
    if "stream" in unknown:
        raise InvalidRequest(
            "The Videos API has no streaming: 'stream' is not a parameter. Create the video, poll"
            " GET /v1/videos/{video_id}, then download its content.",
            param="stream",
            code="unknown_parameter",
        )
    if unknown and not pass_unknown:
        name = next(iter(unknown))
        raise InvalidRequest(
            f"Unknown parameter: '{name}'. Known parameters are: {listed(known, 'and')}.",
            param=name,
            code="unknown_parameter",
        )
    return unknown


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


def model_named(name: str | None, catalogue: Catalogue) -> Model:
    """Return the model of a name, or the default where none was given."""
    if name is None:
        return catalogue.default
    model = catalogue.names.get(name)
    if model is None:
        raise InvalidRequest(
            f"The model '{name}' does not exist here. Supported models are:"
            f" {listed(catalogue.names, 'and')}.",
            param="model",
            code="model_not_found",
        )
    return model


def prompt_of(values: Mapping[str, object], max_characters: int) -> str:
    """Return the prompt: there is one, it is not blank, and not too long."""
    return bounded_text(values, "prompt", max_characters)


def bounded_text(values: Mapping[str, object], name: str, max_characters: int) -> str:
    """Return a required text of 1 to `max_characters` characters that is not blank."""
    text = text_of(values, name, "a string")
    if text is None:
        raise missing(name)
    if not text.strip():
        raise InvalidRequest(
            f"Invalid '{name}': empty string. Expected a string with at least 1 character.",
            param=name,
            code="empty_string",
        )
    if len(text) > max_characters:
        raise InvalidRequest(
            f"Invalid '{name}': string too long. Expected a string with maximum length"
            f" {max_characters}, but got a string with length {len(text)} instead.",
            param=name,
            code="string_above_max_length",
        )
    return text


def text_of(values: Mapping[str, object], name: str, expected: str) -> str | None:
    """Return a text, or None where it is missing or null."""
    value = values.get(name)
    if value is None or isinstance(value, str):
        return value
    raise wrong_type(name, expected, value)


def wrong_type(name: str, expected: str, value: object) -> InvalidRequest:
    """Return the refusal of a value of the wrong type, in the upstream's words."""
    got = _JSON_NAMES.get(type(value), "an object")
    return InvalidRequest(
        f"Invalid type for '{name}': expected {expected}, but got {got} instead.",
        param=name,
        code="invalid_type",
    )


def missing(name: str) -> InvalidRequest:
    """Return the refusal of a request without a required parameter."""
    return InvalidRequest(
        f"Missing required parameter: '{name}'.", param=name, code="missing_required_parameter"
    )


def listed(values: Iterable[str], last: str) -> str:
    """Return values in quotes, with `and` or `or` before the last."""
    quoted = [f"'{value}'" for value in values]
    if len(quoted) == 1:
        return quoted[0]
    if len(quoted) == 2:  # noqa: PLR2004 - two values take no comma
        return f"{quoted[0]} {last} {quoted[1]}"
    return f"{', '.join(quoted[:-1])}, {last} {quoted[-1]}"
