"""Which path does what?"""

from collections.abc import Iterator, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route, Router

from gateway.api.content import Content
from gateway.api.edge import Edge
from gateway.api.listing import delete, list_
from gateway.api.models import list_models, list_video_models
from gateway.api.openapi import description_endpoint
from gateway.api.operations import (
    cancel,
    create_character,
    edit,
    extend,
    remix,
    retrieve_character,
)
from gateway.api.organization.routes import ORGANIZATION
from gateway.api.parts import Handler, Parts
from gateway.api.traced import Traced
from gateway.api.videos import create, retrieve
from gateway.errors.base import reasons


def api_app(parts: Parts) -> Traced:
    """Return the ASGI application of the API port."""
    description = description_endpoint()
    router = Router(
        [
            Route("/openapi.json", description),
            Route("/v1/openapi.json", description),
            _route(parts, "/v1/videos", {"GET": list_, "POST": create}),
            _route(parts, "/v1/models", {"GET": list_models}),
            _route(parts, "/v1/videos/models", {"GET": list_video_models}),
            _route(parts, "/v1/videos/edits", {"POST": edit}),
            _route(parts, "/v1/videos/extensions", {"POST": extend}),
            _route(parts, "/v1/videos/characters", {"POST": create_character}),
            _route(parts, "/v1/videos/characters/{character_id}", {"GET": retrieve_character}),
            _route(parts, "/v1/videos/{video_id}", {"GET": retrieve, "DELETE": delete}),
            _route(parts, "/v1/videos/{video_id}/remix", {"POST": remix}),
            _route(parts, "/v1/videos/{video_id}/cancel", {"POST": cancel}),
            Route("/v1/videos/{video_id}/content", Content(parts), methods=["GET", "HEAD"]),
            *(_route(parts, path, handlers) for path, handlers in ORGANIZATION.items()),
        ],
        redirect_slashes=False,
    )
    parts.metrics.http.know(routes=_known(router), reasons=reasons())
    edge = Edge(router, clock=parts.clock, metrics=parts.metrics.http)
    return Traced(edge, parts.tracer)


def _known(router: Router) -> Iterator[tuple[str, str]]:
    """Yield every method with every route that takes it."""
    for route in router.routes:
        if isinstance(route, Route):
            for method in sorted(route.methods or ()):
                yield method, route.path


def _route(parts: Parts, path: str, handlers: Mapping[str, Handler]) -> Route:
    # One route a path, whatever its methods: a 405 then names all of them in Allow.
    async def endpoint(request: Request) -> Response:
        method = "GET" if request.method == "HEAD" else request.method
        return await handlers[method](parts, request)

    return Route(path, endpoint, methods=list(handlers))
