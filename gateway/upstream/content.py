"""How does a finished video come down from the upstream, and whither may a redirect lead?

A redirect is followed at most MAX_REDIRECTS times, never from https to http, never to another
scheme, never with credentials in its URL. On leaving the upstream's origin the key stays behind
for good, and only public addresses are connected to, except on hosts that the settings name.
"""

import re
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import httpx

from gateway.upstream.envelopes import RequestIds, request_ids
from gateway.upstream.transport import pieces

MAX_REDIRECTS: Final = 3
MAX_URL_CHARACTERS: Final = 8_192

_REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
_CONTENT_RANGE: Final = re.compile(r"bytes ([0-9]{1,18})-[0-9]{1,18}/(?:[0-9]{1,18}|\*)")
_OURS_ALONE: Final = ("authorization", "x-request-id", "traceparent")


class ContentUnavailable(Exception):
    """The content could not be fetched, or not to its end.

    Attributes:
        status: the upstream's status, or None: no answer came.
        reason: a fixed word.
        request_ids: what the upstream calls the request, where it answered.
    """

    def __init__(self, status: int | None, reason: str, ids: RequestIds | None = None) -> None:
        super().__init__(f"{reason} (status {status})")
        self.status = status
        self.reason = reason
        self.request_ids = ids or RequestIds()


@dataclass(frozen=True, slots=True)
class ContentStream:
    """Content on its way.

    Attributes:
        status: 200 or 206.
        offset: where in the content the first byte stands: the offset that was asked for, or 0
            where the upstream sent the whole content instead.
        size: how many bytes will come, or None: unknown.
        content_type: as the upstream says, or None.
        validator: a strong ETag or a Last-Modified (RFC 9110, section 8.8), or None: what a later
            request is continued with.
        request_ids: what the upstream calls the request.
    """

    status: int
    offset: int
    size: int | None
    content_type: str | None
    validator: str | None
    request_ids: RequestIds
    _response: httpx.Response = field(repr=False)

    async def chunks(self) -> AsyncIterator[bytes]:
        """Yield every byte once, undecoded; to be iterated once.

        Raises:
            ContentUnavailable: `truncated`, `connection_lost` or `answer_timeout`; what was
                yielded before is a true beginning of the content.
        """
        received = 0
        try:
            async for chunk in pieces(self._response):
                received += len(chunk)
                yield chunk
        except httpx.TransportError as error:
            raise ContentUnavailable(self.status, str(error), self.request_ids) from error
        if self.size is not None and received != self.size:
            raise ContentUnavailable(self.status, "truncated", self.request_ids)


@dataclass(frozen=True, slots=True)
class Routes:
    """Which connections a download may use.

    Attributes:
        trusted: for the upstream itself and `private_hosts`.
        public: for every other host; it connects to public addresses only.
        private_hosts: hosts a redirect may lead to wherever they stand, in lower case.
    """

    trusted: httpx.AsyncBaseTransport
    public: httpx.AsyncBaseTransport
    private_hosts: frozenset[str]


@asynccontextmanager
async def open_content(
    request: httpx.Request, *, routes: Routes, offset: int, validator: str | None
) -> AsyncIterator[ContentStream]:
    """Yield the content that a GET leads to; its connection is closed on leaving.

    With a validator the offset is asked for only if the content is still the same; if it is not, or
    the upstream knows no ranges, all of it comes.

    Raises:
        ContentUnavailable: no 200, or no 206 that begins at the offset.
    """
    if offset:
        request.headers["range"] = f"bytes={offset}-"
        if validator is not None:
            request.headers["if-range"] = validator
    try:
        response = await _follow(request, routes=routes)
    except httpx.TransportError as error:
        raise ContentUnavailable(None, str(error)) from error
    try:
        yield _stream(response, offset=offset)
    finally:
        await response.aclose()


async def _follow(request: httpx.Request, *, routes: Routes) -> httpx.Response:
    origin = request.url
    redirects = 0
    while True:
        response = await _route(request, routes=routes, origin=origin).handle_async_request(request)
        if response.status_code not in _REDIRECTS:
            return response
        await response.aclose()
        if redirects == MAX_REDIRECTS:
            raise ContentUnavailable(response.status_code, "too_many_redirects")
        redirects += 1
        request = _next(request, response=response)


def _route(
    request: httpx.Request, *, routes: Routes, origin: httpx.URL
) -> httpx.AsyncBaseTransport:
    known = _same_origin(request.url, origin) or request.url.host in routes.private_hosts
    return routes.trusted if known else routes.public


def _next(request: httpx.Request, *, response: httpx.Response) -> httpx.Request:
    status = response.status_code
    location = response.headers.get("location", "")
    if not 0 < len(location) <= MAX_URL_CHARACTERS:
        raise ContentUnavailable(status, "redirect_refused")
    try:
        url = request.url.join(location)
    except (httpx.InvalidURL, ValueError) as error:
        raise ContentUnavailable(status, "redirect_refused") from error
    downgrade = request.url.scheme == "https" and url.scheme != "https"
    if url.scheme not in ("http", "https") or downgrade or url.userinfo or not url.host:
        raise ContentUnavailable(status, "redirect_refused")
    headers = {name: value for name, value in request.headers.items() if name != "host"}
    if not _same_origin(url, request.url):
        headers = _without_ours(headers)
    return httpx.Request("GET", url, headers=headers, extensions=request.extensions)


def _without_ours(headers: Mapping[str, str]) -> dict[str, str]:
    return {name: value for name, value in headers.items() if name not in _OURS_ALONE}


def _same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, _port(one)) == (other.scheme, other.host, _port(other))


def _port(url: httpx.URL) -> int | None:
    return url.port or {"http": 80, "https": 443}.get(url.scheme)


def _stream(response: httpx.Response, *, offset: int) -> ContentStream:
    status, ids = response.status_code, request_ids(response.headers)
    begins_at = 0
    if status == HTTPStatus.PARTIAL_CONTENT:
        found = _CONTENT_RANGE.fullmatch(response.headers.get("content-range", ""))
        if found is None or int(found[1]) != offset:
            raise ContentUnavailable(status, "wrong_range", ids)
        begins_at = offset
    elif status != HTTPStatus.OK:
        raise ContentUnavailable(status, "http_status", ids)
    size = response.headers.get("content-length", "")
    return ContentStream(
        status=status,
        offset=begins_at,
        size=int(size) if size.isascii() and size.isdigit() else None,
        content_type=response.headers.get("content-type"),
        validator=_validator(response.headers),
        request_ids=ids,
        _response=response,
    )


def _validator(headers: httpx.Headers) -> str | None:
    etag: str = headers.get("etag", "")
    modified: str = headers.get("last-modified", "")
    # A weak one says nothing about bytes; a date has to be sent back as it was written.
    return (etag if etag.startswith('"') else modified) or None
