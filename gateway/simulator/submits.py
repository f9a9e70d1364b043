"""Which requests make a video, and from what?

Four operations are billed: create, remix, edit and extend. Remix and edit are billed as their
source's seconds and size, an extension as the seconds it adds, although its object tells the
stitched total. Each returns the unspoiled answer or raises RefusedError.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from gateway.simulator.answers import Answer, RefusedError, openai_error, told
from gateway.simulator.body import Body
from gateway.simulator.faults import Fault
from gateway.simulator.life import Video, status_of, video_object
from gateway.simulator.models import MODELS
from gateway.simulator.mp4 import LONGEST_SECONDS
from gateway.simulator.rules import (
    Asked,
    check_create,
    check_prompt,
    check_seconds,
    check_size,
    refuse_unknown,
)
from gateway.simulator.uploads import check_reference, clip_seconds_of, clip_size_of
from gateway.simulator.world import World, execute, find

_NO_BODY = Body("none", {}, {})


@dataclass(slots=True)
class Call:
    """One request, read.

    Attributes:
        operation: a name of faults.OPERATIONS, or "redirected".
        target: the id in the path, or "".
        query: the query's parameters.
        wanted_range: the Range header.
        if_range: the If-Range header.
        body: the parsed body of a POST.
        life: faults that change what becomes of the video.
        later: faults that break later requests for the video.
        relay_id: what the relay calls this request.
    """

    operation: str
    target: str
    query: Mapping[str, str]
    wanted_range: str | None
    if_range: str | None
    body: Body = _NO_BODY
    life: list[Fault] = field(default_factory=list)
    later: list[Fault] = field(default_factory=list)
    relay_id: str = ""


def create(world: World, call: Call) -> Answer:
    """Make a video from a prompt, and a reference image if there is one."""
    fields, files = call.body.fields, call.body.files
    reference = files.get("input_reference")
    if "input_reference" in fields:
        kind = "a string" if isinstance(fields["input_reference"], str) else "an object"
        message = f"Invalid type for 'input_reference': expected a file, but got {kind} instead."
        raise RefusedError(openai_error(message, param="input_reference", code="invalid_type"))
    asked = check_create(fields, images=0 if reference is None else 1)
    sora = MODELS[asked.model].family == "sora"
    if sora:
        refuse_unknown(files, known=frozenset({"input_reference"}))
    if reference is not None:
        check_reference(reference, size=asked.size if sora else None)
    for character in fields.get("characters", []):
        find_character(world, character.get("id", "") if isinstance(character, dict) else "")
    return _executed(world, call, asked=asked, shown_seconds=asked.clip_seconds)


def remix(world: World, call: Call) -> Answer:
    """Make a video like the one named in the path, with another prompt."""
    source = _completed(world, call.target)
    refuse_unknown(call.body.fields, known=frozenset({"prompt"}))
    prompt, seconds = check_prompt(call.body.fields), source.shown_seconds
    asked = Asked(source.asked.model, prompt, seconds, source.asked.size, images=0)
    return _executed(world, call, asked=asked, shown_seconds=seconds, source=source.id)


def edit(world: World, call: Call) -> Answer:
    """Make a video like the one named in the body, or like an uploaded one."""
    refuse_unknown(call.body.fields, known=frozenset({"prompt", "video", "model"}))
    prompt, origin = check_prompt(call.body.fields), _origin(world, call)
    asked = Asked(origin.model, prompt, origin.seconds, origin.size, images=0)
    return _executed(world, call, asked=asked, shown_seconds=origin.seconds, source=origin.id)


def extend(world: World, call: Call) -> Answer:
    """Make a video that goes on where the one named in the body, or an uploaded one, ends."""
    fields = call.body.fields
    refuse_unknown(fields, known=frozenset({"prompt", "seconds", "video", "model"}))
    prompt, origin = check_prompt(fields), _origin(world, call)
    if "seconds" not in fields:
        raise _missing("seconds")
    seconds = int(check_seconds(fields["seconds"], model=MODELS[origin.model]))
    stitched = origin.seconds + seconds
    if stitched > LONGEST_SECONDS:
        message = f"The extended video would be longer than {LONGEST_SECONDS} seconds."
        raise RefusedError(openai_error(message, param="seconds", code="invalid_value"))
    asked = Asked(origin.model, prompt, seconds, origin.size, images=0)
    return _executed(world, call, asked=asked, shown_seconds=stitched, source=origin.id)


def find_character(world: World, character_id: str) -> dict[str, Any]:
    """Return the character.

    Raises:
        RefusedError: 404, there is none.
    """
    if character_id not in world.characters:
        message = f"Character with id '{character_id}' not found."
        raise RefusedError(openai_error(message, status=404))
    return world.characters[character_id]


def _executed(
    world: World, call: Call, *, asked: Asked, shown_seconds: int, source: str | None = None
) -> Answer:
    video = execute(
        world,
        operation=call.operation,
        asked=asked,
        shown_seconds=shown_seconds,
        life=call.life,
        later=call.later,
        source=source,
        relay_id=call.relay_id,
    )
    return told(video_object(video, now=world.clock.now()))


@dataclass(frozen=True, slots=True)
class _Origin:
    id: str | None
    model: str
    seconds: int
    size: str


def _origin(world: World, call: Call) -> _Origin:
    fields, upload = call.body.fields, call.body.files.get("video")
    if upload is None:
        source = _completed(world, _referenced(fields))
        return _Origin(source.id, source.asked.model, source.shown_seconds, source.asked.size)
    if "model" not in fields:
        raise _missing("model")
    usual = check_create({"prompt": "uploaded", "model": fields["model"]}, images=0)
    seconds = clip_seconds_of(upload)
    size = check_size(clip_size_of(upload), model=MODELS[usual.model])
    return _Origin(None, usual.model, seconds, size)


def _missing(name: str) -> RefusedError:
    message = f"Missing required parameter: '{name}'."
    return RefusedError(openai_error(message, param=name, code="missing_required_parameter"))


def _completed(world: World, video_id: str) -> Video:
    video = find(world, video_id)
    if status_of(video, now=world.clock.now()) != "completed":
        message = f"Video with id '{video_id}' is not completed."
        raise RefusedError(openai_error(message, param="video", code="invalid_value"))
    return video


def _referenced(fields: Mapping[str, Any]) -> str:
    video = fields.get("video")
    if not isinstance(video, dict) or not isinstance(video.get("id"), str):
        message = "Invalid type for 'video': expected a file or an object with an id."
        raise RefusedError(openai_error(message, param="video", code="invalid_type"))
    return str(video["id"])
