"""What does each operation of `/v1/videos`, and of the account, do?

Handlers are plain functions of the world and one call; they return the unspoiled answer or raise
RefusedError. Those that make a video are in submits.py, the account's in account.py.
"""

import secrets
from collections.abc import Callable, Mapping

from gateway.simulator import account
from gateway.simulator.answers import Answer, RefusedError, openai_error, told
from gateway.simulator.content import content_answer
from gateway.simulator.life import Video, status_of, video_object
from gateway.simulator.models import MODELS
from gateway.simulator.submits import Call, create, edit, extend, find_character, remix
from gateway.simulator.uploads import clip_seconds_of
from gateway.simulator.world import World, find

LONGEST_LIST = 100
LONGEST_NAME = 80

_USUAL_LIST = "20"


def answer_call(world: World, call: Call) -> Answer:
    """Carry the operation out and return its answer.

    Raises:
        RefusedError: the relay's rules do not admit it; nothing was executed.
    """
    return _HANDLERS[call.operation](world, call)


def _list(world: World, call: Call) -> Answer:
    limit = call.query.get("limit", _USUAL_LIST)
    if not limit.isdigit() or int(limit) > LONGEST_LIST:
        message = f"Invalid 'limit': expected an integer from 0 to {LONGEST_LIST}."
        raise RefusedError(openai_error(message, param="limit", code="invalid_value"))
    order = call.query.get("order", "desc")
    if order not in {"asc", "desc"}:
        message = f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'."
        raise RefusedError(openai_error(message, param="order", code="invalid_value"))
    step = 1 if order == "asc" else -1
    start = 0 if step > 0 else len(world.executed) - 1
    if "after" in call.query:
        last = world.videos.get(call.query["after"])
        # An unknown cursor is an empty page, not an error.
        start = last.index + step if last is not None else -1
    page: list[Video] = []
    while 0 <= start < len(world.executed) and len(page) <= int(limit):
        video = world.executed[start]
        if not video.gone and world.videos.get(video.id) is video:
            page.append(video)
        start += step
    shown = [video_object(video, now=world.clock.now()) for video in page[: int(limit)]]
    return told(
        {
            "object": "list",
            "data": shown,
            "first_id": shown[0]["id"] if shown else None,
            "last_id": shown[-1]["id"] if shown else None,
            "has_more": len(page) > int(limit),
        }
    )


def _retrieve(world: World, call: Call) -> Answer:
    return told(video_object(find(world, call.target), now=world.clock.now()))


def _delete(world: World, call: Call) -> Answer:
    video = find(world, call.target)
    if status_of(video, now=world.clock.now()) not in {"completed", "failed"}:
        message = "Only completed or failed videos can be deleted."
        raise RefusedError(openai_error(message, code="invalid_request"))
    video.gone = True
    return told({"id": video.id, "object": "video.deleted", "deleted": True})


def _content(world: World, call: Call) -> Answer:
    video = find(world, call.target)
    variant = call.query.get("variant", "video")
    return content_answer(
        world, video, variant=variant, wanted=call.wanted_range, unless_changed=call.if_range
    )


def _create_character(world: World, call: Call) -> Answer:
    name, upload = call.body.fields.get("name"), call.body.files.get("video")
    if not isinstance(name, str) or not 1 <= len(name) <= LONGEST_NAME:
        message = f"Invalid 'name': expected a string of 1 to {LONGEST_NAME} characters."
        raise RefusedError(openai_error(message, param="name", code="invalid_value"))
    if upload is None:
        message = "Invalid type for 'video': expected a file."
        raise RefusedError(openai_error(message, param="video", code="invalid_type"))
    clip_seconds_of(upload)
    character_id = f"char_{secrets.token_hex(16)}"
    made = {"id": character_id, "name": name, "created_at": int(world.clock.now())}
    world.characters[character_id] = made
    return told(made)


def _retrieve_character(world: World, call: Call) -> Answer:
    return told(find_character(world, call.target))


def _models(world: World, call: Call) -> Answer:
    del world, call
    data = [{"id": name, "object": "model", "owned_by": "custom"} for name in MODELS]
    return told({"object": "list", "data": data})


_HANDLERS: Mapping[str, Callable[[World, Call], Answer]] = {
    "create": create,
    "list": _list,
    "retrieve": _retrieve,
    "delete": _delete,
    "content": _content,
    "remix": remix,
    "edit": edit,
    "extend": extend,
    "create-character": _create_character,
    "retrieve-character": _retrieve_character,
    "models": _models,
    "redirected": _content,
    "account-user": account.user,
    "account-log": account.log,
    "account-tasks": account.tasks,
}
