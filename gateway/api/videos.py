"""POST /v1/videos and GET /v1/videos/{id}: how does a client buy a video and follow it?"""

import json
from collections.abc import Mapping
from typing import Final
from urllib.parse import unquote

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.body import ReadBody, read_body
from gateway.api.edge import call
from gateway.api.parts import Parts
from gateway.billing.explain import remaining
from gateway.billing.keys import Key
from gateway.billing.money import format_usd
from gateway.errors import (
    Draining,
    InternalError,
    InvalidRequest,
    NotFound,
    StoreUnavailable,
)
from gateway.upstream.client import Body, FilePart
from gateway.videos.images import BadImage, Image, read_image
from gateway.videos.lifecycle import COMPLETED, FAILED
from gateway.videos.objects import Facts, visible
from gateway.videos.params import Order, check_create
from gateway.videos.records import find_video
from gateway.videos.submit import Submitted, submit

IMAGE_FIELD: Final = "input_reference"
_OWN_HEADERS: Final = "x-gateway-"
_MILLISECONDS: Final = 1000


async def create(parts: Parts, request: Request) -> Response:
    """Check, price, hold, forward, record, answer with the upstream's object."""
    key = await authenticate(parts, request)
    _check_headers(request)
    _check_health(parts)
    settings = parts.settings
    body = await read_body(
        request,
        max_bytes=settings.max_body_bytes,
        idle_seconds=settings.upload_idle_seconds,
    )
    try:
        order = check_create(body.values, image=_image(body), catalogue=parts.catalogue)
        submitted = await _buy(parts, key, order, body)
    finally:
        await body.close()
    video = visible(
        submitted.accepted.object,
        Facts(
            upstream_id=submitted.accepted.upstream_id,
            created_at=submitted.created_at,
            completed_at=None,
            fields=order.fields,
        ),
    )
    call(request).facts |= {"video_id": submitted.video_id, "cost_micros": submitted.price_micros}
    return Response(
        json.dumps(video, ensure_ascii=False),
        media_type="application/json",
        headers=_created_headers(parts, submitted),
    )


async def retrieve(parts: Parts, request: Request) -> Response:
    """Answer from the record; the poller keeps it fresh."""
    key = await authenticate(parts, request)
    upstream_id = video_id_of(request)
    row = await parts.database.read(
        lambda: find_video(upstream_id=upstream_id, project_id=key.project_id)
    )
    if row is None:
        raise no_such_video(upstream_id)
    call(request).facts["video_id"] = row["id"]
    headers = {"x-gateway-cost-usd": format_usd(row["amount_micros"])}
    if row["status"] not in {COMPLETED, FAILED}:
        headers |= _poll_after(parts)
    return Response(row["object"], media_type="application/json", headers=headers)


async def authenticate(parts: Parts, request: Request) -> Key:
    """Return the key that sends a request, and put it into the request's log line."""
    key = await parts.authenticator.authenticate(request.headers)
    call(request).facts |= {"project": key.project_name, "key_id": key.id}
    return key


def video_id_of(request: Request) -> str:
    """Return the id in the path. The path is matched as it was sent, so it may hold any byte."""
    return unquote(request.path_params["video_id"])


def no_such_video(upstream_id: str) -> NotFound:
    """Return the 404 for an id that this project has no video of, whoever else may have."""
    return NotFound(f"Video with id '{upstream_id}' not found.")


def _check_headers(request: Request) -> None:
    for name in request.headers:
        if name.startswith(_OWN_HEADERS):
            raise InvalidRequest(
                f"Unknown request header '{name}'. A misspelt header must not buy a video.",
                param=name,
                code="unknown_header",
            )


def _check_health(parts: Parts) -> None:
    if parts.health.draining:
        raise Draining("This process is shutting down. Nothing was held.")
    if not parts.health.store_works:
        raise StoreUnavailable(
            "Content cannot be stored at the moment, so no video is bought. Nothing was held."
        )


def _image(body: ReadBody) -> Image | None:
    for name in body.files:
        if name != IMAGE_FIELD:
            raise InvalidRequest(
                f"Unexpected file '{name}'. Only '{IMAGE_FIELD}' is a file.",
                param=name,
                code="unknown_parameter",
            )
    upload = body.files.get(IMAGE_FIELD)
    if upload is None:
        return None
    if IMAGE_FIELD in body.values:
        raise InvalidRequest(f"'{IMAGE_FIELD}' was sent twice.", param=IMAGE_FIELD)
    try:
        return read_image(upload.file)
    except BadImage as error:
        raise InvalidRequest(
            f"Invalid file '{IMAGE_FIELD}': {error.reason}.", param=IMAGE_FIELD
        ) from error


async def _buy(parts: Parts, key: Key, order: Order, body: ReadBody) -> Submitted:
    upstream = parts.upstreams.get(order.model.upstream)
    if upstream is None:
        raise InternalError("The catalogue names an upstream that is not set up.")
    # Not awaited directly: a client that leaves now changes nothing.
    return await parts.work.start(
        submit(
            parts.submitting,
            order,
            _outgoing(order, body),
            project_id=key.project_id,
            key_id=key.id,
            upstream=upstream,
            rate_card_sha256=parts.catalogue.sha256,
        )
    )


def _outgoing(order: Order, body: ReadBody) -> Body:
    if order.image is None:
        return Body(fields=order.fields, file=None)
    extension = order.image.content_type.removeprefix("image/")
    return Body(
        fields=order.fields,
        file=FilePart(
            field=IMAGE_FIELD,
            # SDKs send `upload` and application/octet-stream; the upstream wants the truth.
            filename=f"{IMAGE_FIELD}.{extension}",
            content_type=order.image.content_type,
            content=body.files[IMAGE_FIELD].file,
        ),
    )


def _created_headers(parts: Parts, submitted: Submitted) -> Mapping[str, str]:
    headers = {"x-gateway-cost-usd": format_usd(submitted.price_micros), **_poll_after(parts)}
    left = remaining(submitted.standings, disclose=parts.settings.disclose_budgets)
    if left is not None:
        headers["x-gateway-budget-remaining-usd"] = format_usd(left.available_micros)
        headers["x-gateway-budget-level"] = left.level
    ids = submitted.accepted.request_ids
    upstream_request_id = ids.relay or ids.provider
    if upstream_request_id is not None:
        headers["x-upstream-request-id"] = upstream_request_id
    return headers


def _poll_after(parts: Parts) -> dict[str, str]:
    return {"openai-poll-after-ms": str(parts.settings.poll_interval_seconds * _MILLISECONDS)}
