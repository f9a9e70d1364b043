"""How is the simulator steered and questioned from outside?

No key is needed, and these answers come even when all else is dark. JSON in, JSON out.

| method and path              | body or query                    | what it does                   |
|------------------------------|----------------------------------|--------------------------------|
| GET /_simulator/state        |                                  | everything, see `_state`       |
| GET /_simulator/totals       |                                  | the counts alone               |
| GET /_simulator/requests     | ?operation=                      | requests received, oldest first|
| GET /_simulator/content      | ?id=&variant=                    | the true content, not counted  |
| POST /_simulator/faults      | name, operation, times, value,   | adds a fault (faults.py)       |
|                              | video, arguments                 |                                |
| DELETE /_simulator/faults    |                                  | removes all faults             |
| POST /_simulator/clock       | advance_seconds, or now          | moves time                     |
| POST /_simulator/settings    | fields of Settings               | changes them                   |
| POST /_simulator/expire      | id                               | its content is gone now        |
| POST /_simulator/change      | id                               | its content is another now     |
| POST /_simulator/go-on       |                                  | what pauses goes on            |
| POST /_simulator/forget      | id                               | the video is unknown from now  |
| POST /_simulator/dark        | dark: true or false              | cut every connection, or not   |
| POST /_simulator/log-drop    | id                               | the account's log has no row   |
|                              |                                  | of this video                  |
| POST /_simulator/log-change  | id, micros                       | the log says it was charged so |
| POST /_simulator/log-add     | model, micros, created_at,       | a row that belongs to no video |
|                              | task_id, request_id              | (negative micros: a refund)    |
| POST /_simulator/reset       |                                  | back to the beginning          |
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import asdict, fields, replace
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from gateway.simulator.content import CONTENT_TYPES, content_bytes
from gateway.simulator.faults import THIS_REQUEST, Fault
from gateway.simulator.life import Video, billed_micros, content_expired, status_of
from gateway.simulator.rows import CHARGE, REFUND, LogRow
from gateway.simulator.world import Received, Settings, World, forget_everything

_Act = Callable[[World, Mapping[str, Any]], None]


def build_steering(world: World, *, settings: Settings) -> Starlette:
    """Return the application that serves `/_simulator/…`."""

    def reset(world: World, said: Mapping[str, Any]) -> None:
        del said
        forget_everything(world, settings=settings)

    acts: dict[str, _Act] = {
        "clock": _move_clock,
        "settings": _change_settings,
        "faults": _add_fault,
        "expire": _expire,
        "change": _change_content,
        "go-on": _go_on,
        "forget": _forget,
        "dark": _darken,
        "log-drop": _drop_rows,
        "log-change": _change_charge,
        "log-add": _add_row,
        "reset": reset,
    }
    posts = [_post(world, name=name, act=act) for name, act in acts.items()]

    async def tell_state(request: Request) -> Response:
        del request
        return JSONResponse(_state(world))

    async def tell_totals(request: Request) -> Response:
        del request
        return JSONResponse(_totals(world))

    async def tell_requests(request: Request) -> Response:
        wanted = request.query_params.get("operation")
        return JSONResponse(
            [_told(one) for one in world.received if wanted in {None, one.operation}]
        )

    async def tell_content(request: Request) -> Response:
        video = world.videos.get(request.query_params.get("id", ""))
        variant = request.query_params.get("variant", "video")
        if video is None or variant not in CONTENT_TYPES:
            return Response(status_code=404)
        data = await asyncio.to_thread(content_bytes, world, video, variant=variant)
        return Response(data, media_type=CONTENT_TYPES[variant])

    async def clear_faults(request: Request) -> Response:
        del request
        world.faults.clear()
        return JSONResponse({})

    return Starlette(
        routes=[
            *posts,
            Route("/_simulator/faults", clear_faults, methods=["DELETE"]),
            Route("/_simulator/state", tell_state),
            Route("/_simulator/totals", tell_totals),
            Route("/_simulator/requests", tell_requests),
            Route("/_simulator/content", tell_content),
        ]
    )


def _post(world: World, *, name: str, act: _Act) -> Route:
    async def endpoint(request: Request) -> Response:
        try:
            said = await request.json() if await request.body() else {}
            act(world, said)
        except (KeyError, TypeError, ValueError) as error:
            return JSONResponse({"error": repr(error)}, status_code=400)
        return JSONResponse({})

    handler: Callable[[Request], Awaitable[Response]] = endpoint
    return Route(f"/_simulator/{name}", handler, methods=["POST"])


def _move_clock(world: World, said: Mapping[str, Any]) -> None:
    if "now" in said:
        world.clock.offset_seconds = float(said["now"]) - world.clock.source()
    else:
        world.clock.offset_seconds += float(said["advance_seconds"])


def _change_settings(world: World, said: Mapping[str, Any]) -> None:
    kinds = {field.name: type(getattr(world.settings, field.name)) for field in fields(Settings)}
    changed = {name: kinds[name](value) for name, value in said.items()}
    world.settings = replace(world.settings, **changed)


def _add_fault(world: World, said: Mapping[str, Any]) -> None:
    arguments = {name: str(value) for name, value in said.get("arguments", {}).items()}
    value = said.get("value")
    text = None if value is None else str(value)
    fault = Fault(**{**said, "arguments": arguments, "value": text})
    if fault.operation == THIS_REQUEST:
        raise ValueError("a fault from here names its operation, or any")
    world.faults.append(fault)


def _expire(world: World, said: Mapping[str, Any]) -> None:
    world.videos[said["id"]].expired_by_hand = True


def _change_content(world: World, said: Mapping[str, Any]) -> None:
    world.videos[said["id"]].edition += 1


def _go_on(world: World, said: Mapping[str, Any]) -> None:
    del said
    world.go_on.set()
    world.go_on = asyncio.Event()


def _forget(world: World, said: Mapping[str, Any]) -> None:
    world.videos[said["id"]].gone = True


def _darken(world: World, said: Mapping[str, Any]) -> None:
    world.dark = bool(said["dark"])


def _drop_rows(world: World, said: Mapping[str, Any]) -> None:
    world.unlogged.add(world.videos[said["id"]].id)


def _change_charge(world: World, said: Mapping[str, Any]) -> None:
    world.logged_micros[world.videos[said["id"]].id] = int(said["micros"])


def _add_row(world: World, said: Mapping[str, Any]) -> None:
    micros = int(said["micros"])
    world.foreign_rows.append(
        LogRow(
            type=REFUND if micros < 0 else CHARGE,
            created_at=int(said.get("created_at") or world.clock.now()),
            model=str(said["model"]),
            micros=micros,
            task_id=str(said.get("task_id", "")),
            request_id=str(said.get("request_id", "")),
        )
    )


def _totals(world: World) -> dict[str, Any]:
    now = world.clock.now()
    return {
        "now": now,
        "dark": world.dark,
        "requests": dict(world.requests),
        "delivering": dict(+world.delivering),
        "executions": len(world.executed),
        "billed_micros": sum(billed_micros(video, now=now) for video in world.executed),
    }


def _state(world: World) -> dict[str, Any]:
    executed = [_facts(video, now=world.clock.now()) for video in world.executed]
    first = {facts["id"]: facts for facts in reversed(executed)}
    return {
        **_totals(world),
        "videos": first,
        "executed": executed,
        "characters": world.characters,
        "faults": [asdict(fault) for fault in world.faults],
        "settings": asdict(world.settings),
        "last": {one.operation: _told(one) for one in world.received},
    }


def _facts(video: Video, *, now: float) -> dict[str, Any]:
    return {
        "id": video.id,
        "operation": video.operation,
        "model": video.asked.model,
        "prompt": video.asked.prompt,
        "seconds": video.asked.clip_seconds,
        "shown_seconds": video.shown_seconds,
        "size": video.asked.size,
        "images": video.asked.images,
        "source": video.source,
        "relay_id": video.relay_id,
        "status": status_of(video, now=now),
        "created_at": video.created_at,
        "ends_at": video.ends_at,
        "content_expired": content_expired(video, now=now),
        "gone": video.gone,
        "retrieves": video.retrieves,
        "contents": dict(video.contents),
        "billed_micros": billed_micros(video, now=now),
    }


def _told(received: Received) -> dict[str, Any]:
    return asdict(received)
