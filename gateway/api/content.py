"""GET and HEAD /v1/videos/{id}/content: how does a client download a finished video?

From our store, once it is mirrored: the upstream may have forgotten it. Until then from the very
download that mirrors it, as it comes. Where nothing of it can be had yet the answer waits a while,
and says 409 with a time to come back (which the SDKs do by themselves) if that was too short.
"""

import asyncio
from typing import Final

import structlog
from starlette.requests import Request
from starlette.types import Receive, Scope, Send

from gateway.api.content_answer import described
from gateway.api.edge import call
from gateway.api.elsewhere import sent_elsewhere
from gateway.api.parts import Parts
from gateway.api.sending import Source, send_content
from gateway.api.videos import authenticate, no_such_video, video_id_of
from gateway.db.script import Row
from gateway.errors import (
    ContentExpired,
    ContentPending,
    InvalidRequest,
    NotFound,
    StoreUnavailable,
)
from gateway.mirror.failures import STORE_UNAVAILABLE
from gateway.mirror.fetched import FetchFailed, Wanted
from gateway.mirror.kinds import VARIANTS, file_name
from gateway.mirror.live import COME_BACK, LiveReading
from gateway.store import ContentMissing
from gateway.videos.lifecycle import COMPLETED
from gateway.videos.reading import find_content

# How long content that another process has deleted may still be served here.
MIRRORED_SECONDS: Final = 1.0
_LOOK_AGAIN_SECONDS: Final = 0.25
# After a download that failed here: its upstream is not asked again at once.
_AFTER_FAILURE_SECONDS: Final = 1.0

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


class Content:
    """The ASGI endpoint: it sends the bytes itself."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Answer one request."""
        request = Request(scope, receive)
        key = await authenticate(self._parts, request)
        download = _Download(
            self._parts,
            request,
            send,
            upstream_id=video_id_of(request),
            project_id=key.project_id,
            variant=_variant(request),
        )
        await download.answer()


def _variant(request: Request) -> str:
    variant = request.query_params.get("variant", "video")
    if variant not in VARIANTS:
        raise InvalidRequest(
            f"Invalid value: '{variant}'. Supported values are: 'video', 'thumbnail', and"
            " 'spritesheet'.",
            param="variant",
        )
    return variant


class _Download:
    """One request for one variant of one video."""

    def __init__(
        self,
        parts: Parts,
        request: Request,
        send: Send,
        *,
        upstream_id: str,
        project_id: str,
        variant: str,
    ) -> None:
        self._parts = parts
        self._request = request
        self._send = send
        self._upstream_id = upstream_id
        self._project_id = project_id
        self._variant = variant

    async def answer(self) -> None:
        """Send the content as soon as there is any of it."""
        deadline = self._parts.clock.elapsed() + self._parts.settings.content_wait_seconds
        while True:
            row = await self._find()
            if row["mirrored_at"] is not None:
                return await self._from_store(row)
            wait_seconds = _LOOK_AGAIN_SECONDS
            if await self._is_on_its_way(row):
                try:
                    return await self._as_it_comes(row, deadline=deadline)
                except FetchFailed:
                    wait_seconds = _AFTER_FAILURE_SECONDS
            if self._parts.clock.elapsed() + wait_seconds > deadline:
                raise _pending()
            await asyncio.sleep(wait_seconds)

    async def _find(self) -> Row:
        """Return the asset's row, with the columns of find_content, if it is or may be kept."""
        parts, upstream_id, variant = self._parts, self._upstream_id, self._variant
        wanted = (self._project_id, upstream_id, variant)
        asked_at = parts.clock.elapsed()
        row = parts.mirrored.get(wanted)
        if row is not None:
            self._note(row)
            return row
        row = await parts.database.read(
            lambda: find_content(
                upstream_id=upstream_id, project_id=self._project_id, variant=variant
            )
        )
        if row is None:
            raise no_such_video(upstream_id)
        self._note(row)
        if row["status"] != COMPLETED:
            raise NotFound("Video is not ready yet, use GET /v1/videos/{video_id} to check status.")
        if row["asset_id"] is None or row["absent_at"] is not None:
            raise NotFound(f"This video has no {variant}.", param="variant")
        if row["removed_at"] is not None:
            raise ContentExpired("The content of this video is no longer kept.")
        if row["gone_at"] is not None:
            raise ContentExpired("The content of this video expired before it could be mirrored.")
        if row["mirrored_at"] is not None:
            parts.mirrored.put(wanted, row, asked_at=asked_at)
        return row

    def _note(self, row: Row) -> None:
        call(self._request).facts |= {
            "video_id": row["video_id"],
            "upstream_id": self._upstream_id,
            "variant": self._variant,
        }

    async def _is_on_its_way(self, row: Row) -> bool:
        """Tell whether a download may be joined, or begun, now."""
        mirror = self._parts.mirror
        if row["asset_id"] in mirror.fetches:
            return True
        now = self._parts.clock.now()
        if row["due_at"] is None:
            return False
        if row["due_at"] <= now:
            return await mirror.begin(row["asset_id"])
        # Another process mirrors it, or only our store does not take it. Else the download has
        # failed just now, and is tried again at due_at.
        return row["leased_at"] is not None or row["failure"] == STORE_UNAVAILABLE

    async def _from_store(self, row: Row) -> None:
        if await self._sent_elsewhere(row):
            return
        try:
            async with self._parts.store.reading(row["asset_id"]) as reading:
                if reading.size != row["size_bytes"]:
                    _log.error(
                        "content_wrong_length",
                        video_id=row["video_id"],
                        variant=self._variant,
                        asset_id=row["asset_id"],
                        project_id=self._project_id,
                        size_bytes=reading.size,
                        recorded_bytes=row["size_bytes"],
                    )
                    raise StoreUnavailable("The content store holds less than it was given.")
                await self._send_content(reading, row["content_type"], sha256=row["sha256"])
        except ContentMissing as error:
            raise ContentExpired("The content of this video is no longer kept.") from error

    async def _sent_elsewhere(self, row: Row) -> bool:
        request = self._request
        answer = await sent_elsewhere(
            self._parts.settings,
            self._parts.store,
            method=request.method,
            key=row["asset_id"],
            described=described(
                row["content_type"],
                filename=file_name(self._upstream_id, row["content_type"]),
                etag=f'"{row["sha256"]}"',
            ),
            headers=call(request).headers(),
        )
        if answer is None:
            return False
        call(request).facts["source"] = "elsewhere"
        await answer(request.scope, request.receive, self._send)
        return True

    async def _as_it_comes(self, row: Row, *, deadline: float) -> None:
        wanted = Wanted(row["asset_id"], row["upstream"], self._upstream_id, self._variant)
        async with self._parts.mirror.fetches.join(wanted) as fetch:
            try:
                async with asyncio.timeout(max(0, deadline - self._parts.clock.elapsed())):
                    await fetch.ready()
            except TimeoutError as error:
                raise _pending() from error
            await self._send_content(LiveReading(fetch), fetch.content_type, sha256=None)

    async def _send_content(self, source: Source, content_type: str, *, sha256: str | None) -> None:
        facts = call(self._request).facts
        name = facts["source"] = "upstream" if sha256 is None else "store"
        facts["sent_bytes"] = 0

        def taken(size_bytes: int) -> None:
            facts["sent_bytes"] += size_bytes
            self._parts.metrics.http.sent(name, size_bytes)

        facts["ending"] = await send_content(
            self._request.scope,
            self._send,
            taken=taken,
            source=source,
            content_type=content_type,
            sha256=sha256,
            filename=file_name(self._upstream_id, content_type),
            headers=call(self._request).headers(),
        )


def _pending() -> ContentPending:
    return ContentPending(
        "The video is completed and its content is still being copied. Try again soon.",
        headers=COME_BACK,
    )
