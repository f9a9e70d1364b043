"""What happens to a request, from the connection to the answer?

    route → dark? → count → take a fault → authorise → read the body → directives of the prompt
          → carry out (unless the fault forbids it) → spoil → deliver

A fault that lets nothing be executed answers before the rules are asked; with one that executes,
a request the rules refuse is refused, unspoiled. Every answer bears two ids: `x-request-id`, the
maker's, and `x-shellapi-request-id`, the relay's.
"""

import gzip
import hashlib
import secrets
from dataclasses import replace
from urllib.parse import parse_qsl, unquote

from starlette.requests import ClientDisconnect, Request
from starlette.types import ASGIApp, Receive, Scope, Send

from gateway.simulator.account import not_authorised
from gateway.simulator.answers import Answer, RefusedError, bad_token, no_channel, openai_error
from gateway.simulator.body import Body, read_body
from gateway.simulator.deliver import Wire, deliver
from gateway.simulator.faults import THIS_REQUEST, Fault, parse_directives, take
from gateway.simulator.operations import answer_call
from gateway.simulator.redirects import relocated
from gateway.simulator.spoil import spoil
from gateway.simulator.steering import build_steering
from gateway.simulator.submits import Call
from gateway.simulator.world import Received, Settings, World

TRANSPORT = "simulator.transport"  # where server.py puts the connection in the ASGI extensions

_ACCOUNT = frozenset({"account-user", "account-log", "account-tasks"})
_FIXED = {
    "/v1/models": "models",
    "/api/user/self": "account-user",
    "/api/log/self": "account-log",
    "/api/task/self": "account-tasks",
}
_MAKING = frozenset({"create", "remix", "edit", "extend"})
_AFTER_VIDEOS = {
    ("POST",): "create",
    ("GET",): "list",
    ("POST", "edits"): "edit",
    ("POST", "extensions"): "extend",
    ("POST", "characters"): "create-character",
}
_AFTER_ID = {
    ("GET",): "retrieve",
    ("DELETE",): "delete",
    ("GET", "content"): "content",
    ("POST", "remix"): "remix",
}


def build_app(world: World, *, settings: Settings) -> ASGIApp:
    """Return the ASGI application; `settings` are what a reset returns to."""
    steering = build_steering(world, settings=settings)

    async def app(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["path"].startswith("/_simulator/"):
            await steering(scope, receive, send)
            return
        transport = scope["extensions"][TRANSPORT]["transport"]
        wire = Wire(receive, send, transport, world.go_on)
        relay_id = f"{int(world.clock.now())}{secrets.randbelow(10**18):018d}"
        answer = Answer(manner="drop")
        request = Request(scope, receive)
        if not world.dark:
            answer = await _answer(world, request, relay_id=relay_id)
        ids = (
            ("x-request-id", f"req_{secrets.token_hex(16)}"),
            ("x-shellapi-request-id", relay_id),
        )
        operation, _ = route(request.method, request.scope["raw_path"].decode("ascii"))
        world.delivering[operation] += 1
        try:
            await deliver(answer, wire, headers=ids)
        finally:
            world.delivering[operation] -= 1

    return app


def route(method: str, raw_path: str) -> tuple[str, str]:
    """Return the operation and the id in the path, ("", "") where nothing is served.

    Segments are decoded after they are split: an id may hold a slash, percent-encoded.
    """
    if method == "GET" and raw_path in _FIXED:
        return _FIXED[raw_path], ""
    match [unquote(segment) for segment in raw_path.split("/")[1:]]:
        case ["v1", "videos", "characters", target] if method == "GET":
            return "retrieve-character", target
        case ["v1", "videos", *rest] if (method, *rest) in _AFTER_VIDEOS:
            return _AFTER_VIDEOS[(method, *rest)], ""
        case ["v1", "videos", target, *rest] if target and (method, *rest) in _AFTER_ID:
            return _AFTER_ID[(method, *rest)], target
        case ["_content", target] if method == "GET":
            return "redirected", target
        case _:
            return "", ""


async def _answer(world: World, request: Request, *, relay_id: str) -> Answer:
    raw_path = request.scope["raw_path"].decode("ascii")
    operation, target = route(request.method, raw_path)
    received = _receive(world, request, operation=operation or "unknown", path=raw_path)
    if not operation:
        return openai_error(f"Invalid URL ({request.method} {request.url.path})", status=404)
    query = dict(parse_qsl(request.url.query, keep_blank_values=True))
    call = Call(
        operation,
        target,
        query,
        wanted_range=request.headers.get("range"),
        if_range=request.headers.get("if-range"),
        relay_id=relay_id,
    )
    _count(world, call)
    fault = take(world.faults, operation=operation, video=target or None)
    if fault is not None and fault.name == "drop-early":
        return spoil(Answer(), fault)
    try:
        _authorise(world, request, operation=operation, relay_id=relay_id)
        if request.method == "POST":
            call.body = await read_body(request)
            _describe(received, call.body)
        fault = _faults_of(world, call, fault)
        answer = answer_call(world, call) if fault is None or fault.executed else Answer()
        if fault is not None:
            answer = spoil(relocated(answer, request, call=call, fault=fault), fault)
        return _zipped(answer, fault) if operation == "account-log" else answer
    except RefusedError as refused:
        return refused.answer
    except ClientDisconnect:
        return Answer(manner="drop")


def _zipped(answer: Answer, fault: Fault | None) -> Answer:
    """Return the log's answer as gzip, which it is whatever the client accepts."""
    honest = fault is None or fault.name != "mislabelled"
    body = gzip.compress(answer.body) if honest else answer.body
    return replace(answer, body=body, headers=(*answer.headers, ("content-encoding", "gzip")))


def _receive(world: World, request: Request, *, operation: str, path: str) -> Received:
    headers = {
        name.decode("latin-1"): value.decode("latin-1") for name, value in request.headers.raw
    }
    known = _key(request) in _known_keys(world) or _is_account(world, request)
    if "authorization" in headers and not known:
        headers["authorization"] = "(not a known key)"
    now = world.clock.now()
    received = Received(operation, request.method, path, request.url.query, headers, now)
    world.received.append(received)
    world.requests[operation] += 1
    return received


def _describe(received: Received, body: Body) -> None:
    received.encoding = body.encoding
    received.fields = dict(body.fields)
    received.files = {
        name: {
            "filename": upload.filename,
            "content_type": upload.content_type,
            "bytes": len(upload.data),
            "sha256": hashlib.sha256(upload.data).hexdigest(),
        }
        for name, upload in body.files.items()
    }


def _count(world: World, call: Call) -> None:
    video = world.videos.get(call.target)
    if video is not None and call.operation == "retrieve":
        video.retrieves += 1
    if video is not None and call.operation in {"content", "redirected"}:
        video.contents[call.query.get("variant", "video")] += 1


def _authorise(world: World, request: Request, *, operation: str, relay_id: str) -> None:
    if operation == "redirected":
        return
    if operation in _ACCOUNT:
        if not _is_account(world, request):
            raise RefusedError(not_authorised())
        return
    key = _key(request)
    if key in world.settings.no_channel_keys:
        if operation in _MAKING:
            raise RefusedError(no_channel(relay_id))
    elif key not in world.settings.keys:
        raise RefusedError(bad_token(relay_id))


def _key(request: Request) -> str:
    scheme, _, key = request.headers.get("authorization", "").partition(" ")
    return key if scheme == "Bearer" else ""


def _is_account(world: World, request: Request) -> bool:
    # The account's token stands bare: with "Bearer" before it, it is refused too.
    return request.headers.get("authorization") == world.settings.account_token


def _known_keys(world: World) -> tuple[str, ...]:
    return (*world.settings.keys, *world.settings.no_channel_keys)


def _faults_of(world: World, call: Call, steered: Fault | None) -> Fault | None:
    """Return the fault that breaks this answer; sorts those of the prompt into the call."""
    if call.operation not in _MAKING:
        video = world.videos.get(call.target)
        own = video.faults if video is not None else []
        return steered or take(own, operation=call.operation, video=call.target)
    try:
        directives = list(parse_directives(call.body.fields.get("prompt")))
    except ValueError as error:
        raise RefusedError(openai_error(f"simulator: {error}", param="prompt")) from error
    call.later = [fault for fault in directives if fault.operation != THIS_REQUEST]
    present = [fault for fault in directives if fault.operation == THIS_REQUEST]
    if steered is not None:
        present.insert(0, steered)
    call.life = [fault for fault in present if fault.stage == "life"]
    return next((fault for fault in present if fault.stage != "life"), None)
