"""How does the gateway ask the upstream: submit, retrieve, list, content, check?

Every question is asked once. What comes back is one of a few records (replies.py); exceptions of
the HTTP library end here, each as a fixed word.

Submits, polls and downloads have pools of connections of their own, so that none of them starves
another: a thousand slow downloads leave the way free for a submit.
"""

from collections.abc import AsyncIterator, Callable, Collection
from contextlib import AsyncExitStack, asynccontextmanager
from types import TracebackType
from typing import Any, Self
from urllib.parse import quote

import httpx
from prometheus_client import CollectorRegistry

from gateway.telemetry.metrics.labels import Known
from gateway.telemetry.metrics.upstream import NOT_SENT, OK, UNCLEAR, UNKNOWN, UpstreamMetrics
from gateway.telemetry.traces import UNTRACED, Tracer
from gateway.upstream.addresses import public_socket
from gateway.upstream.check import CheckReport, explain_failure, explain_reply
from gateway.upstream.content import ContentStream, ContentUnavailable, Routes, open_content
from gateway.upstream.counting import NEVER_SENT, of_content, of_failure, of_retrieve, of_submit
from gateway.upstream.envelopes import MAX_REPLY_BYTES, RequestIds, request_ids
from gateway.upstream.listing import MAX_LIST_BYTES, Listed, NotOffered, judge_list, page_path
from gateway.upstream.replies import (
    Accepted,
    Found,
    Missing,
    NotSent,
    Refused,
    Unclear,
    Unknown,
    judge_retrieve,
    judge_submit,
)
from gateway.upstream.requests import (
    Body,
    FilePart,
    UpstreamSettings,
    build_request,
    encoded,
    quoted_id,
)
from gateway.upstream.traced import traced
from gateway.upstream.transport import AiohttpTransport, pieces, tls_context

__all__ = ["Body", "FilePart", "Upstream", "UpstreamSettings"]


class Upstream:
    """The upstream, asked over connections that are open while the context is.

    Attributes:
        settings: how it is reached and judged.
    """

    def __init__(
        self,
        settings: UpstreamSettings,
        metrics: UpstreamMetrics | None = None,
        tracer: Tracer = UNTRACED,
    ) -> None:
        self.settings = settings
        self._tracer = tracer
        # A command has nobody who would look at them.
        self._metrics = metrics or UpstreamMetrics(CollectorRegistry(), Known())
        self._stack = AsyncExitStack()

    async def __aenter__(self) -> Self:
        settings = self.settings
        context = tls_context()

        async def pool(**kwargs: Any) -> httpx.AsyncBaseTransport:
            transport = AiohttpTransport(
                max_connections=settings.max_connections,
                keepalive_seconds=settings.keepalive_seconds,
                ssl_context=context,
                **kwargs,
            )
            await self._stack.enter_async_context(transport)
            return traced(transport, self._tracer, settings)

        self._submits = await pool()
        self._retrieves = await pool()
        self._routes = Routes(
            trusted=await pool(),
            public=await pool(socket_maker=public_socket),
            private_hosts=settings.private_hosts,
        )
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self._stack.aclose()

    async def create(
        self, body: Body, *, before_first_byte: Callable[[], None], request_id: str | None = None
    ) -> Accepted | Refused | NotSent | Unknown:
        """Submit a video; see submit."""
        return await self.submit(
            "/videos", body, before_first_byte=before_first_byte, request_id=request_id
        )

    async def submit(
        self,
        path: str,
        body: Body,
        *,
        before_first_byte: Callable[[], None],
        request_id: str | None = None,
    ) -> Accepted | Refused | NotSent | Unknown:
        """Send a billable request at most once and return what is known afterwards.

        `before_first_byte` is called when a connection is at hand, in the same step of the event
        loop that hands over the first byte; what it raises comes through, and nothing is sent.
        NotSent is certain: the caller may try again. The path is under base_url, quoted already.
        """
        with self._metrics.asking(self.settings.name, "submit", otherwise=NOT_SENT) as asked:

            def counted_from_now_on() -> None:
                before_first_byte()
                asked.outcome = UNKNOWN  # unless an answer says more

            outcome = await self._submitted(
                path, body, before_first_byte=counted_from_now_on, request_id=request_id
            )
            asked.outcome = of_submit(outcome)
        return outcome

    async def _submitted(
        self,
        path: str,
        body: Body,
        *,
        before_first_byte: Callable[[], None],
        request_id: str | None,
    ) -> Accepted | Refused | NotSent | Unknown:
        settings = self.settings
        try:
            request = build_request(
                settings,
                "POST",
                path,
                seconds=settings.post_seconds,
                request_id=request_id,
                extensions={"before_first_byte": before_first_byte},
                **encoded(body),
            )
        except (OSError, ValueError):
            return NotSent("unreadable_body")
        try:
            response = await self._submits.handle_async_request(request)
        except NEVER_SENT as error:
            return NotSent(str(error))
        except httpx.TransportError as error:
            return Unknown(str(error), timed_out=isinstance(error, httpx.TimeoutException))
        headers = dict(response.headers)
        try:
            reply = await _read(response)
        except httpx.TransportError as error:
            return Unknown(
                str(error),
                timed_out=isinstance(error, httpx.TimeoutException),
                request_ids=request_ids(headers),
            )
        return judge_submit(
            status=response.status_code, headers=headers, body=reply, rules=settings.rules
        )

    async def retrieve(
        self, upstream_id: str, *, request_id: str | None = None
    ) -> Found | Missing | Unclear:
        """Ask for a video and return what is known; no failure of the network is raised."""
        path = f"/videos/{quoted_id(upstream_id)}"
        with self._metrics.asking(self.settings.name, "retrieve") as asked:
            try:
                status, headers, body = await self._asked("GET", path, request_id=request_id)
            except httpx.TransportError as error:
                asked.outcome = of_failure(error)
                return Unclear(str(error), request_ids=RequestIds())
            found = judge_retrieve(status=status, headers=headers, body=body)
            asked.outcome = of_retrieve(found)
        return found

    async def list_videos(self, after: str | None = None) -> Listed | NotOffered | Unclear:
        """Ask for the page behind a video, or the first; no failure of the network is raised."""
        try:
            status, headers, body = await self._asked(
                "GET", page_path(after), max_bytes=MAX_LIST_BYTES
            )
        except httpx.TransportError as error:
            return Unclear(str(error), request_ids=RequestIds())
        return judge_list(status=status, headers=headers, body=body)

    async def delete(self, upstream_id: str) -> bool:
        """Ask once that a video be deleted; tell whether it is certainly gone."""
        with self._metrics.asking(self.settings.name, "delete") as asked:
            try:
                status, _, _ = await self._asked("DELETE", f"/videos/{quoted_id(upstream_id)}")
            except httpx.TransportError as error:
                asked.outcome = of_failure(error)
                return False
            is_gone = httpx.codes.is_success(status) or status == httpx.codes.NOT_FOUND
            asked.outcome = OK if is_gone else UNCLEAR
        return is_gone

    @asynccontextmanager
    async def content(
        self,
        upstream_id: str,
        variant: str,
        *,
        offset: int = 0,
        validator: str | None = None,
        request_id: str | None = None,
    ) -> AsyncIterator[ContentStream]:
        """Yield the bytes of one variant from the offset on; see open_content.

        Raises:
            ContentUnavailable: they cannot be had, or broke off.
        """
        query = "" if variant == "video" else f"?variant={quote(variant, safe='')}"
        request = build_request(
            self.settings,
            "GET",
            f"/videos/{quoted_id(upstream_id)}/content{query}",
            seconds=self.settings.content_idle_seconds,
            whole=False,
            accept="*/*",
            request_id=request_id,
        )
        async with AsyncExitStack() as stack:
            with self._metrics.asking(self.settings.name, "content") as asked:
                opening = open_content(
                    request, routes=self._routes, offset=offset, validator=validator
                )
                try:
                    stream = await stack.enter_async_context(opening)
                except ContentUnavailable as error:
                    asked.outcome = of_content(error)
                    raise
                asked.outcome = OK
            yield stream

    async def check(self, models: Collection[str] = ()) -> CheckReport:
        """Make one unbilled call and explain what it tells; models: those that are sold."""
        try:
            status, headers, body = await self._asked("GET", "/models")
        except httpx.TransportError as error:
            return explain_failure(str(error))
        return explain_reply(status=status, headers=headers, body=body, models=models)

    async def _asked(
        self,
        method: str,
        path: str,
        *,
        max_bytes: int = MAX_REPLY_BYTES,
        request_id: str | None = None,
    ) -> tuple[int, dict[str, str], bytes]:
        """Ask once what is not billed; return status, headers and body of the answer.

        Raises:
            httpx.TransportError: there is none, or not in time.
        """
        seconds = self.settings.retrieve_seconds
        request = build_request(self.settings, method, path, seconds=seconds, request_id=request_id)
        response = await self._retrieves.handle_async_request(request)
        body = await _read(response, max_bytes=max_bytes)
        return response.status_code, dict(response.headers), body


async def _read(response: httpx.Response, *, max_bytes: int = MAX_REPLY_BYTES) -> bytes:
    """Return the body, cut one byte after `max_bytes`; the connection is given back."""
    body = bytearray()
    try:
        async for chunk in pieces(response):
            body += chunk
            if len(body) > max_bytes:
                break
    finally:
        await response.aclose()
    return bytes(body[: max_bytes + 1])
