"""Which requests leave for an upstream, told as spans, and is it told the trace?

Around any pool of connections. Where it goes is told by its host and by the template of its path:
ids are not, and a signed URL of a redirect must not be.
"""

from http import HTTPStatus
from typing import Final

import httpx

from gateway.telemetry.traceparent import HEADER
from gateway.telemetry.traces import OURS, UNTRACED, Fact, Tracer, traceparent_under_way
from gateway.upstream.requests import UpstreamSettings

# The segments of the upstream's paths that are no ids.
_WORDS: Final = frozenset(
    {"videos", "models", "content", "remix", "edits", "extensions", "characters"}
)
_ID: Final = "{id}"


def traced(
    within: httpx.AsyncBaseTransport, tracer: Tracer, settings: UpstreamSettings
) -> httpx.AsyncBaseTransport:
    """Return connections as good, whose requests are told of, if anybody is to be told."""
    if tracer is UNTRACED and not settings.send_traceparent:
        return within
    return Traced(within, tracer, settings)


class Traced(httpx.AsyncBaseTransport):
    """Connections as good as those within, whose requests are spans up to the answer's head."""

    def __init__(
        self, within: httpx.AsyncBaseTransport, tracer: Tracer, settings: UpstreamSettings
    ) -> None:
        self._within = within
        self._tracer = tracer
        self._settings = settings
        self._base = httpx.URL(settings.base_url)
        self._base_path = _path_of(self._base).rstrip("/")

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Send the request once, and return the answer's head."""
        path = self._path(request.url)
        name, facts = request.method, self._facts(request)
        if path is not None:
            facts["url.template"] = template = _template(path)
            name = f"{name} {template}"
        with self._tracer.span(name, kind="client", facts=facts) as span:
            traceparent = traceparent_under_way()
            if self._settings.send_traceparent and path is not None and traceparent is not None:
                request.headers[HEADER] = traceparent
            try:
                response = await self._within.handle_async_request(request)
            except httpx.TransportError as error:
                span.fail(str(error))  # a fixed word: see transport.py
                raise
            span.note({"http.response.status_code": response.status_code})
            if response.status_code >= HTTPStatus.BAD_REQUEST:
                span.fail(str(response.status_code))
        return response

    def _path(self, url: httpx.URL) -> str | None:
        """Return the path under base_url; None elsewhere, where a redirect has led."""
        base, path = self._base, _path_of(url)
        at_home = (url.scheme, url.host, url.port) == (base.scheme, base.host, base.port)
        if at_home and path.startswith(f"{self._base_path}/"):
            return path.removeprefix(self._base_path)
        return None

    def _facts(self, request: httpx.Request) -> dict[str, Fact]:
        url = request.url
        return {
            "http.request.method": request.method,
            "server.address": url.host,
            "server.port": url.port or {"http": 80, "https": 443}.get(url.scheme, 0),
            f"{OURS}upstream": self._settings.name,
        }


def _path_of(url: httpx.URL) -> str:
    # As it is sent: an id may hold a slash.
    return url.raw_path.partition(b"?")[0].decode("ascii")


def _template(path: str) -> str:
    segments = path.removeprefix("/").split("/")
    return "/" + "/".join(one if one in _WORDS else _ID for one in segments)
