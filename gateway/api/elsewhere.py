"""How is a client sent its content by somebody other than this process?

By a server in front, which is told in a header which file of the folder to send (nginx's
X-Accel-Redirect; X-Sendfile of Apache's module, lighttpd and others) and then answers Range and
conditions itself; or by the object store, at a URL that is good for a while.
"""

from collections.abc import Mapping
from urllib.parse import quote

from starlette.responses import RedirectResponse, Response

from gateway.config import Settings
from gateway.store import ContentStore


async def sent_elsewhere(
    settings: Settings,
    store: ContentStore,
    *,
    method: str,
    key: str,
    described: Mapping[str, str],
    headers: Mapping[str, str],
) -> Response | None:
    """Return the answer that makes somebody else send stored content, or None: send it here.

    Args:
        settings: say who sends.
        store: has the content.
        method: GET or HEAD; a URL of an object store is good for GET only.
        key: of the content.
        described: the headers that say what the content is.
        headers: of every answer of this request.
    """
    path = store.path(key)
    if settings.front_server and path is not None:
        where = quote(f"{settings.front_server_prefix.rstrip('/')}/{path}")
        return Response(headers={**described, **headers, settings.front_server: where})
    if settings.store_redirect_seconds and method == "GET":
        url = await store.link(key, seconds=settings.store_redirect_seconds)
        if url is not None:
            # Whoever keeps the answer would use a URL that has run out.
            return RedirectResponse(url, 302, {**headers, "cache-control": "private, no-store"})
    return None
