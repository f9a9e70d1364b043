"""How do clients use the admin API? With both clients of the official SDK, and with plain HTTP."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import httpx
from conftest import ADMIN_KEY, World
from openai import AsyncOpenAI, OpenAI

from gateway.billing.keys import NewKey

T = TypeVar("T")


async def with_admin(made: World, use: Callable[[OpenAI], T], *, admin_key: str = ADMIN_KEY) -> T:
    """Use the synchronous client in a thread: the gateway runs in this one's loop."""

    def used() -> T:
        with OpenAI(
            base_url=made.base_url,
            api_key="not for this",
            admin_api_key=admin_key,
            _strict_response_validation=True,
        ) as client:
            return use(client)

    return await asyncio.to_thread(used)


@asynccontextmanager
async def admin_sdk(made: World, *, admin_key: str = ADMIN_KEY) -> AsyncIterator[AsyncOpenAI]:
    """Yield the asynchronous client."""
    async with AsyncOpenAI(
        base_url=made.base_url,
        api_key="not for this",
        admin_api_key=admin_key,
        _strict_response_validation=True,
    ) as client:
        yield client


async def ask(
    made: World, method: str, path: str, *, key: str = ADMIN_KEY, **sent: Any
) -> httpx.Response:
    """Send a request under /v1/organization."""
    async with made.client(key) as client:
        return await client.request(method, f"/organization{path}", **sent)


async def told(made: World, method: str, path: str, **sent: Any) -> dict[str, Any]:
    """Send a request that succeeds, and return its JSON."""
    answer = await ask(made, method, path, **sent)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


async def refused(made: World, method: str, path: str, **sent: Any) -> tuple[int, str, str]:
    """Send a request that is refused, and return status, code and param."""
    answer = await ask(made, method, path, **sent)
    error = answer.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    return answer.status_code, error["code"], error["param"]


def paths_of(key: NewKey, rest: str) -> tuple[str, str]:
    """Return the path of something of the project, and of the key."""
    project = f"/projects/{key.project_id}"
    return f"{project}{rest}", f"{project}/api_keys/{key.id}{rest}"


async def create(made: World, key: NewKey, **fields: str) -> tuple[int, str | None]:
    """Ask for a video, and return status and error code."""
    async with made.client(key) as client:
        answer = await client.post("/videos", json={"prompt": "a cat", **fields})
    return answer.status_code, answer.json()["error"]["code"] if answer.is_error else None
