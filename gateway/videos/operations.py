"""What do remix, edit, extend and create character take, and what do they cost? Pure.

Neither OpenAI nor the relay states these prices; the safe reading is used: a remix or an edit costs
what its source cost to make (source seconds x the rate of the source's size), an extension costs
the new segment only, a character an explicit rate of the catalogue.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.billing.catalogue import Catalogue, Characters, Model, Rate
from gateway.errors import InvalidRequest
from gateway.videos.checks import (
    bounded_text,
    check_names,
    listed,
    missing,
    model_named,
    prompt_of,
    text_of,
    wrong_type,
)
from gateway.videos.lifecycle import COMPLETED
from gateway.videos.mp4 import Mp4Facts
from gateway.videos.order import CHARACTER, EDIT, EXTENSION, REMIX, Attachment, Order

VIDEO_FIELD: Final = "video"
_NAME_CHARACTERS: Final = 80
# Only an upload names its model; a video that there is has one.
_MODEL_OF_UPLOAD: Final = {True: ("model",), False: ()}
_MP4: Final = Attachment(field=VIDEO_FIELD, content_type="video/mp4", extension="mp4")


@dataclass(frozen=True, slots=True)
class Source:
    """The video that an operation begins with: one of the project's, or an uploaded file.

    Attributes:
        quoted_id: as it stands in a path; None for an upload.
        upstream_id: None for an upload.
        status: of the project's video; an upload counts as completed.
    """

    model: Model
    upstream: str
    size: str
    clip_seconds: int
    status: str = COMPLETED
    upstream_id: str | None = None
    quoted_id: str | None = None


def check_remix(values: Mapping[str, object], *, source: Source) -> Order:
    """Return the order of POST /videos/{id}/remix."""
    check_names(values, ("prompt",))
    prompt = prompt_of(values, source.model.prompt_max_characters)
    _check_finished(source, param="video_id")
    return _order(
        REMIX,
        f"/videos/{source.quoted_id}/remix",
        source=source,
        clip_seconds=source.clip_seconds,
        total_seconds=source.clip_seconds,
        fields={"prompt": prompt},
    )


def check_edit(values: Mapping[str, object], *, source: Source) -> Order:
    """Return the order of POST /videos/edits."""
    check_names(values, ("prompt", VIDEO_FIELD, *_MODEL_OF_UPLOAD[source.upstream_id is None]))
    prompt = prompt_of(values, source.model.prompt_max_characters)
    _check_finished(source, param=VIDEO_FIELD)
    return _order(
        EDIT,
        "/videos/edits",
        source=source,
        clip_seconds=source.clip_seconds,
        total_seconds=source.clip_seconds,
        fields={"prompt": prompt, **_of_source(source)},
    )


def check_extension(values: Mapping[str, object], *, source: Source) -> Order:
    """Return the order of POST /videos/extensions; only the new segment is billed."""
    known = ("prompt", "seconds", VIDEO_FIELD, *_MODEL_OF_UPLOAD[source.upstream_id is None])
    check_names(values, known)
    prompt = prompt_of(values, source.model.prompt_max_characters)
    supported = source.model.rates[source.size].seconds
    seconds = text_of(values, "seconds", f"one of {listed(supported, 'or')}")
    if seconds is None:
        raise missing("seconds")
    if seconds not in supported:
        raise InvalidRequest(
            f"Invalid value: '{seconds}'. Supported values are: {listed(supported, 'and')}.",
            param="seconds",
        )
    _check_finished(source, param=VIDEO_FIELD)
    return _order(
        EXTENSION,
        "/videos/extensions",
        source=source,
        clip_seconds=int(seconds),
        total_seconds=source.clip_seconds + int(seconds),
        fields={"prompt": prompt, "seconds": seconds, **_of_source(source)},
    )


def check_character(
    values: Mapping[str, object], *, video: Mp4Facts | None, rules: Characters
) -> Order:
    """Return the order of POST /videos/characters."""
    check_names(values, ("name", VIDEO_FIELD))
    name = bounded_text(values, "name", _NAME_CHARACTERS)
    if video is None:
        raise _no_file(values)
    _readable(video)
    micros = rules.micros
    rate = Rate(tier="character", unit="request", micros=micros, seconds=())
    return Order(
        operation=CHARACTER,
        path="/videos/characters",
        upstream=rules.upstream,
        model=None,
        size="",
        clip_seconds=0,
        rate=rate,
        images_micros=0,
        price_micros=micros,
        fields={"name": name},
        shown={"name": name},
        attachment=_MP4,
    )


def uploaded_source(
    values: Mapping[str, object], *, video: Mp4Facts, catalogue: Catalogue
) -> Source:
    """Return the source that an uploaded file is; length and size are read from its header.

    Raises:
        InvalidRequest: it cannot be read, its size has no rate, or no model was named.
    """
    if values.get(VIDEO_FIELD) is not None:
        raise InvalidRequest(f"'{VIDEO_FIELD}' was sent twice.", param=VIDEO_FIELD)
    name = text_of(values, "model", "a model's name")
    if name is None:
        raise missing("model")
    model = model_named(name, catalogue)
    seconds, size = _readable(video)
    if size not in model.rates:
        raise InvalidRequest(
            f"The uploaded video is {size}; '{model.id}' takes {listed(model.rates, 'or')}.",
            param=VIDEO_FIELD,
        )
    return Source(model=model, upstream=model.upstream, size=size, clip_seconds=seconds)


def source_id(values: Mapping[str, object]) -> str:
    """Return the id in `video: {"id": …}`.

    Raises:
        InvalidRequest: there is neither such an object nor a file.
    """
    value = values.get(VIDEO_FIELD)
    if value is None:
        raise _no_file(values)
    if not isinstance(value, dict):
        raise wrong_type(VIDEO_FIELD, "an object with an 'id', or a file", value)
    found = value.get("id")
    if not isinstance(found, str) or len(value) != 1:
        raise InvalidRequest(f"'{VIDEO_FIELD}' must be an object with an 'id'.", param=VIDEO_FIELD)
    return found


def _readable(video: Mp4Facts) -> tuple[int, str]:
    if not video.complete or video.duration_seconds is None or not video.width or not video.height:
        why = f" ({video.problem})" if video.problem else ""
        raise InvalidRequest(
            f"The uploaded video is not a readable MP4{why}: its length and size are needed to"
            " price the request.",
            param=VIDEO_FIELD,
        )
    return math.ceil(video.duration_seconds), f"{video.width}x{video.height}"


def _no_file(values: Mapping[str, object]) -> InvalidRequest:
    value = values.get(VIDEO_FIELD)
    return missing(VIDEO_FIELD) if value is None else wrong_type(VIDEO_FIELD, "a file", value)


def _check_finished(source: Source, *, param: str) -> None:
    if source.status != COMPLETED:
        raise InvalidRequest(
            f"The source video must be completed, but it is {source.status}.", param=param
        )


def _of_source(source: Source) -> dict[str, Any]:
    if source.upstream_id is None:
        return {"model": source.model.id}
    return {VIDEO_FIELD: {"id": source.upstream_id}}


def _order(
    operation: str,
    path: str,
    *,
    source: Source,
    clip_seconds: int,
    total_seconds: int,
    fields: dict[str, Any],
) -> Order:
    rate = source.model.rates[source.size]
    shown = {
        "prompt": fields["prompt"],
        "model": source.model.id,
        "seconds": str(total_seconds),
        "size": source.size,
    }
    if operation == REMIX and source.upstream_id is not None:
        shown["remixed_from_video_id"] = source.upstream_id
    return Order(
        operation=operation,
        path=path,
        upstream=source.upstream,
        model=source.model,
        size=source.size,
        clip_seconds=clip_seconds,
        rate=rate,
        images_micros=0,
        price_micros=rate.price_micros(clip_seconds),
        fields=fields,
        shown=shown,
        attachment=_MP4 if source.upstream_id is None else None,
    )
