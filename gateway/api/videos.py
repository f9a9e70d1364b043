"""POST /v1/videos and GET /v1/videos/{id}: how does a client buy a video and follow it?"""

from functools import partial
from typing import Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.body import ReadBody, read_body
from gateway.api.buying import Wanted, buy
from gateway.api.edge import call
from gateway.api.headers import cost, poll_after
from gateway.api.names import is_name, part_of_path
from gateway.api.parts import Parts
from gateway.billing.usable_keys import Key
from gateway.db.script import Row
from gateway.errors import InvalidRequest, NotFound, OperationNotOffered
from gateway.videos.images import BadImage, Image, read_image
from gateway.videos.lifecycle import COMPLETED, FAILED
from gateway.videos.order import Order
from gateway.videos.params import IMAGE_FIELD, check_create
from gateway.videos.reading import find_character, find_video

_NAMED: Final = "model"
_READS: Final = {"GET", "HEAD"}


async def create(parts: Parts, request: Request) -> Response:
    """Check, price, hold, forward, record, answer with the upstream's object."""
    key = await authenticate(parts, request)
    if "text/event-stream" in request.headers.get("accept", ""):
        raise OperationNotOffered(
            "The Videos API has no event stream. Create the video, poll GET"
            " /v1/videos/{video_id}, then download its content."
        )
    body = await body_of(parts, request, files=(IMAGE_FIELD,))
    try:
        order = check_create(
            body.values,
            image=_image(body),
            catalogue=parts.catalogue,
            pass_unknown=_passes_unknown(parts, body),
        )
        await _check_characters(parts, key, order)
        return await buy(parts, request, key, Wanted(order, body), offer="create")
    finally:
        await body.close()


async def retrieve(parts: Parts, request: Request) -> Response:
    """Answer from the record; the poller keeps it fresh."""
    key = await authenticate(parts, request)
    upstream_id = video_id_of(request)
    row = await parts.database.read(
        lambda: find_video(upstream_id=upstream_id, project_id=key.project_id)
    )
    if row is None:
        raise no_such_video(upstream_id)
    call(request).facts |= {"video_id": row["id"], "upstream_id": upstream_id}
    parts.metrics.http.told_status(row["status"])
    # Nobody here has paid for an adopted video.
    headers = {} if row["cost_micros"] is None else cost(row["cost_micros"])
    if row["status"] not in {COMPLETED, FAILED}:
        headers |= poll_after(parts)
    return Response(row["object"], media_type="application/json", headers=headers)


async def authenticate(parts: Parts, request: Request) -> Key:
    """Return the key that sends a request, and put it into the request's log line.

    Raises:
        InvalidApiKey: no key that may be used now.
        RateLimitExceeded: the request reads, and the key has read too often.
    """
    key = await parts.authenticator.authenticate(request.headers)
    call(request).facts |= {
        "project": key.project_name,
        "project_id": key.project_id,
        "key_id": key.id,
    }
    if request.method in _READS:
        parts.reads.count(key)
    return key


async def body_of(parts: Parts, request: Request, *, files: tuple[str, ...]) -> ReadBody:
    """Read the body of a billable request; only the named fields may be files."""
    body = await read_body(
        request,
        max_bytes=parts.settings.max_body_bytes,
        idle_seconds=parts.settings.upload_idle_seconds,
    )
    for name in body.files:
        if name not in files:
            await body.close()
            allowed = f"Only '{files[0]}' is a file." if files else "No parameter here is a file."
            raise InvalidRequest(
                f"Unexpected file '{name}'. {allowed}", param=name, code="unknown_parameter"
            )
    return body


def video_id_of(request: Request) -> str:
    """Return the id in the path.

    Raises:
        NotFound: no video can have it.
    """
    return possible_id(part_of_path(request, "video_id"))


def possible_id(upstream_id: str) -> str:
    """Return an id that a video can have.

    Raises:
        NotFound: none can have it.
    """
    if not is_name(upstream_id):
        raise no_such_video(upstream_id)
    return upstream_id


def no_such_video(upstream_id: str) -> NotFound:
    """Return the 404 for an id that this project has no video of, whoever else may have."""
    return NotFound(f"Video with id '{upstream_id}' not found.")


async def character_of(parts: Parts, key: Key, upstream_id: str) -> Row | None:
    """Return a character of the project, with the columns of find_character; None: no such."""
    if not is_name(upstream_id):
        return None
    return await parts.database.read(
        partial(find_character, upstream_id=upstream_id, project_id=key.project_id)
    )


def _passes_unknown(parts: Parts, body: ReadBody) -> bool:
    name = body.values.get(_NAMED)
    model = parts.catalogue.names.get(name) if isinstance(name, str) else parts.catalogue.default
    upstream = None if model is None else parts.upstreams.get(model.upstream)
    return upstream is not None and upstream.settings.pass_unknown_parameters


def _image(body: ReadBody) -> Image | None:
    upload = body.files.get(IMAGE_FIELD)
    if upload is None:
        return None
    try:
        return read_image(upload.file)
    except BadImage as error:
        raise InvalidRequest(
            f"Invalid file '{IMAGE_FIELD}': {error.reason}.", param=IMAGE_FIELD
        ) from error


async def _check_characters(parts: Parts, key: Key, order: Order) -> None:
    for one in order.fields.get("characters", ()):
        found = await character_of(parts, key, one["id"])
        if found is None or found["upstream"] != order.upstream:
            raise NotFound(f"Character with id '{one['id']}' not found.", param="characters")
