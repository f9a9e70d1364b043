"""Remix, edit, extend and characters: what can be made of a video there is?"""

import asyncio
import io
from functools import partial
from typing import BinaryIO, Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.body import ReadBody
from gateway.api.buying import Wanted, buy, upstream_offering
from gateway.api.edge import call
from gateway.api.names import part_of_path
from gateway.api.parts import Parts
from gateway.api.videos import (
    authenticate,
    body_of,
    character_of,
    no_such_video,
    possible_id,
    video_id_of,
)
from gateway.billing.catalogue import DEFAULT_UPSTREAM
from gateway.billing.usable_keys import Key
from gateway.errors import InvalidRequest, NotFound, OperationNotOffered
from gateway.upstream.requests import quoted_id
from gateway.videos.mp4 import Mp4Check, Mp4Facts
from gateway.videos.operations import (
    VIDEO_FIELD,
    Source,
    check_character,
    check_edit,
    check_extension,
    check_remix,
    source_id,
    uploaded_source,
)
from gateway.videos.reading import find_source

_READ_BYTES: Final = 1 << 20


async def remix(parts: Parts, request: Request) -> Response:
    """POST /v1/videos/{id}/remix."""
    key = await authenticate(parts, request)
    source = await _source(parts, key, video_id_of(request), offer="remix")
    body = await body_of(parts, request, files=())
    try:
        order = check_remix(body.values, source=source)
        return await buy(parts, request, key, Wanted(order, body), offer="remix")
    finally:
        await body.close()


async def edit(parts: Parts, request: Request) -> Response:
    """POST /v1/videos/edits."""
    return await _with_source(parts, request, offer="edit")


async def extend(parts: Parts, request: Request) -> Response:
    """POST /v1/videos/extensions."""
    return await _with_source(parts, request, offer="extend")


async def create_character(parts: Parts, request: Request) -> Response:
    """POST /v1/videos/characters."""
    key = await authenticate(parts, request)
    rules = parts.catalogue.characters
    if rules is None:
        raise OperationNotOffered("No character can be made here: the catalogue has no price.")
    upstream_offering(parts, rules.upstream, "characters")
    body = await body_of(parts, request, files=(VIDEO_FIELD,))
    try:
        order = check_character(body.values, video=await _uploaded(body), rules=rules)
        return await buy(parts, request, key, Wanted(order, body), offer="characters")
    finally:
        await body.close()


async def retrieve_character(parts: Parts, request: Request) -> Response:
    """GET /v1/videos/characters/{id}, from the record."""
    key = await authenticate(parts, request)
    character_id = part_of_path(request, "character_id")
    row = await character_of(parts, key, character_id)
    if row is None:
        raise NotFound(f"Character with id '{character_id}' not found.")
    call(request).facts |= {"video_id": row["id"], "upstream_id": character_id}
    return Response(row["object"], media_type="application/json")


async def cancel(parts: Parts, request: Request) -> Response:
    """POST /v1/videos/{id}/cancel: the API has no such operation, and says so."""
    await authenticate(parts, request)
    raise OperationNotOffered(
        "The Videos API has no cancel: a video that was submitted runs to its end, and is billed"
        " if it completes."
    )


async def _with_source(parts: Parts, request: Request, *, offer: str) -> Response:
    key = await authenticate(parts, request)
    if not any(offer in one.settings.offers for one in parts.upstreams.values()):
        upstream_offering(parts, DEFAULT_UPSTREAM, offer)
    body = await body_of(parts, request, files=(VIDEO_FIELD,))
    try:
        video = await _uploaded(body)
        if video is not None:
            source = uploaded_source(body.values, video=video, catalogue=parts.catalogue)
        else:
            upstream_id = possible_id(source_id(body.values))
            source = await _source(parts, key, upstream_id, offer=offer)
        check = check_edit if offer == "edit" else check_extension
        order = check(body.values, source=source)
        return await buy(parts, request, key, Wanted(order, body), offer=offer)
    finally:
        await body.close()


async def _source(parts: Parts, key: Key, upstream_id: str, *, offer: str) -> Source:
    """Return the project's video with an id; another project's is a 404 here too."""
    found = await parts.database.read(
        partial(find_source, upstream_id=upstream_id, project_id=key.project_id)
    )
    if found is None:
        raise no_such_video(upstream_id)
    upstream_offering(parts, found.upstream, offer)
    model = parts.catalogue.names.get(found.model)
    if model is None or found.size not in model.rates:
        raise InvalidRequest(
            f"The source video was made by '{found.model}' at {found.size}, which has no rate"
            " any more.",
            param=VIDEO_FIELD,
        )
    return Source(
        model=model,
        upstream=found.upstream,
        size=found.size,
        clip_seconds=found.clip_seconds,
        status=found.status,
        upstream_id=upstream_id,
        quoted_id=quoted_id(upstream_id),
    )


async def _uploaded(body: ReadBody) -> Mp4Facts | None:
    upload = body.files.get(VIDEO_FIELD)
    return None if upload is None else await asyncio.to_thread(_facts, upload.file)


def _facts(file: BinaryIO) -> Mp4Facts:
    check = Mp4Check()
    file.seek(0, io.SEEK_SET)
    while chunk := file.read(_READ_BYTES):
        check.feed(chunk)
    return check.facts()
