"""GET and HEAD /v1/videos/{id}/content: how does a client download a finished video?

From the mirror, always: the upstream may have forgotten it. Right after completion the mirror may
still be at work; then the answer waits a while, and says 409 with a time to come back (which the
SDKs do by themselves) if that was too short.
"""

import asyncio
from typing import Final

from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway.api.edge import call
from gateway.api.parts import Parts
from gateway.api.sending import send_content
from gateway.api.videos import authenticate, no_such_video, video_id_of
from gateway.db.script import Row
from gateway.errors import ContentExpired, ContentPending, InvalidRequest, NotFound
from gateway.store import ContentMissing
from gateway.videos.lifecycle import COMPLETED
from gateway.videos.reading import find_content

VARIANTS: Final = ("video", "thumbnail", "spritesheet")
_EXTENSIONS: Final = {"video/mp4": ".mp4", "image/webp": ".webp", "image/jpeg": ".jpg"}
_LOOK_AGAIN_SECONDS: Final = 0.25
_COME_BACK_MILLISECONDS: Final = "5000"


class Content:
    """The ASGI endpoint: it sends the bytes itself."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        parts = self._parts
        request = Request(scope, receive)
        key = await authenticate(parts, request)
        upstream_id = video_id_of(request)
        row = await _mirrored(
            parts,
            upstream_id=upstream_id,
            project_id=key.project_id,
            variant=_variant(request),
        )
        try:
            async with parts.store.reading(row["asset_id"]) as reading:
                call(request).facts["ending"] = await send_content(
                    scope,
                    send,
                    reading=reading,
                    content_type=row["content_type"],
                    sha256=row["sha256"],
                    filename=f"{upstream_id}{_EXTENSIONS.get(row['content_type'], '')}",
                    headers=call(request).headers(),
                )
        except ContentMissing as error:
            raise ContentExpired("The content of this video is no longer kept.") from error


def _variant(request: Request) -> str:
    variant = request.query_params.get("variant", "video")
    if variant not in VARIANTS:
        raise InvalidRequest(
            f"Invalid value: '{variant}'. Supported values are: 'video', 'thumbnail', and"
            " 'spritesheet'.",
            param="variant",
        )
    return variant


async def _mirrored(parts: Parts, *, upstream_id: str, project_id: str, variant: str) -> Row:
    """Return the asset's row once it is mirrored, waiting for it if it may come soon."""
    deadline = parts.clock.elapsed() + parts.settings.content_wait_seconds
    while True:
        row = await parts.database.read(
            lambda: find_content(upstream_id=upstream_id, project_id=project_id, variant=variant)
        )
        if row is None:
            raise no_such_video(upstream_id)
        if row["status"] != COMPLETED:
            raise NotFound("Video is not ready yet, use GET /v1/videos/{video_id} to check status.")
        if row["asset_id"] is None:
            raise NotFound(f"This video has no {variant}.", param="variant")
        if row["gone_at"] is not None:
            raise ContentExpired("The content of this video expired before it could be mirrored.")
        if row["mirrored_at"] is not None:
            return row
        if parts.clock.elapsed() >= deadline:
            raise ContentPending(
                "The video is completed and its content is still being copied. Try again soon.",
                headers={"retry-after-ms": _COME_BACK_MILLISECONDS},
            )
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
