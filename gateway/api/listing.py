"""GET /v1/videos and DELETE /v1/videos/{id}: which videos does a project have, and no longer?"""

import json
from functools import partial
from typing import Final

import structlog
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.edge import call
from gateway.api.names import is_name
from gateway.api.parts import Parts
from gateway.api.videos import authenticate, no_such_video, video_id_of
from gateway.errors import InvalidRequest
from gateway.upstream.client import Upstream
from gateway.videos.listing import Deletion, Page, delete_video, list_page

DEFAULT_LIMIT: Final = 20
MAX_LIMIT: Final = 100
# A longer number is out of range without being read.
_LONGEST: Final = 10
_ORDERS: Final = ("asc", "desc")
_EMPTY: Final = Page(objects=(), first_id=None, last_id=None, has_more=False)
_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with one page of the project's videos, in OpenAI's list envelope."""
    key = await authenticate(parts, request)
    after = request.query_params.get("after")
    script = partial(
        list_page,
        project_id=key.project_id,
        limit=_limit(request),
        newest_first=_order(request) == "desc",
        after=after,
    )
    # A cursor that nothing can be called is an unknown one.
    page = await parts.database.read(script) if after is None or is_name(after) else _EMPTY
    # The objects are JSON already; to parse and write them again would cost more than the query.
    envelope: dict[str, object] = {
        "object": "list",
        "data": [],
        "first_id": page.first_id,
        "last_id": page.last_id,
        "has_more": page.has_more,
    }
    text = json.dumps(envelope, ensure_ascii=False)
    return Response(
        text.replace('"data": []', f'"data": [{", ".join(page.objects)}]', 1),
        media_type="application/json",
    )


async def delete(parts: Parts, request: Request) -> Response:
    """Hide a finished video from every verb; its row and its entries stay."""
    key = await authenticate(parts, request)
    upstream_id = video_id_of(request)
    deletion, video_id, upstream = await parts.database.run(
        partial(
            delete_video,
            upstream_id=upstream_id,
            project_id=key.project_id,
            now=parts.clock.now(),
        )
    )
    parts.mirrored.forget()
    match deletion:
        case Deletion.NO_SUCH_VIDEO:
            raise no_such_video(upstream_id)
        case Deletion.NOT_OVER:
            raise InvalidRequest(
                "Only a completed or a failed video can be deleted. There is no way to cancel one"
                " that is being made.",
                param="video_id",
                code="video_not_finished",
            )
    facts = {"video_id": video_id, "upstream_id": upstream_id}
    call(request).facts |= {**facts, "deleted": True}
    client = parts.upstreams.get(upstream or "")
    if client is not None and "delete" in client.settings.offers:
        log = _log.bind(**facts, project_id=key.project_id, upstream=upstream)
        parts.work.start(_delete_upstream(client, upstream_id, log=log))
    return JSONResponse({"id": upstream_id, "object": "video.deleted", "deleted": True})


async def _delete_upstream(
    upstream: Upstream, upstream_id: str, *, log: structlog.typing.FilteringBoundLogger
) -> None:
    # The client's video is gone either way; the upstream's copy expires by itself.
    if not await upstream.delete(upstream_id):
        log.warning("upstream_not_deleted")


def _limit(request: Request) -> int:
    text = request.query_params.get("limit")
    if text is None:
        return DEFAULT_LIMIT
    if text.isascii() and text.isdecimal() and len(text) < _LONGEST and int(text) <= MAX_LIMIT:
        return int(text)
    raise InvalidRequest(
        f"Invalid 'limit': expected a whole number from 0 to {MAX_LIMIT}, but got '{text}'.",
        param="limit",
    )


def _order(request: Request) -> str:
    order = request.query_params.get("order", "desc")
    if order not in _ORDERS:
        raise InvalidRequest(
            f"Invalid value: '{order}'. Supported values are: 'asc' and 'desc'.", param="order"
        )
    return order
