"""GET /openapi.json and /v1/openapi.json: what does the API say of itself?

To everyone, without a key: it holds nothing that the documents do not. The description is written
by hand, in openapi.json beside this file; the tests compare it with the routes and the errors.
"""

import importlib.resources
from collections.abc import Awaitable, Callable

from starlette.requests import Request
from starlette.responses import Response


def description_endpoint() -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint; the file is read here, once."""
    text = importlib.resources.files("gateway.api").joinpath("openapi.json").read_bytes()

    async def endpoint(_: Request) -> Response:
        return Response(text, media_type="application/json")

    return endpoint
