"""How does a test steer a simulator, in this process or another?

    async with Control(base_url) as control:
        await control.fault("502", operation="create", executed=True)
        await control.advance(60)
        state = await control.state()

Paths and fields are those of steering.py, faults those of faults.py.
"""

import ssl
from functools import cache
from types import TracebackType
from typing import Any, Self

import httpx

WAIT_SECONDS = 30.0


class Control:
    """A client of a simulator's control endpoints; raises httpx.HTTPStatusError when refused."""

    def __init__(self, base_url: str) -> None:
        """Prepare; `base_url` may end in /v1, as Simulator.base_url does."""
        root = base_url.removesuffix("/").removesuffix("/v1")
        # An idle connection is dropped here before the server drops it, which waits five seconds.
        self._client = httpx.AsyncClient(
            base_url=f"{root}/_simulator",
            timeout=WAIT_SECONDS,
            verify=_tls(),
            limits=httpx.Limits(keepalive_expiry=2.0),
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        await self.aclose()

    async def aclose(self) -> None:
        """Close the connections."""
        await self._client.aclose()

    async def state(self) -> dict[str, Any]:
        """Return everything: the totals, videos by id, executed, characters, faults, last."""
        return dict((await self._get("/state")).json())

    async def totals(self) -> dict[str, Any]:
        """Return the counts alone: now, dark, requests, delivering, executions, billed_micros."""
        return dict((await self._get("/totals")).json())

    async def received(self, operation: str | None = None) -> list[dict[str, Any]]:
        """Return the requests received, oldest first, of one operation or all."""
        query = {} if operation is None else {"operation": operation}
        return list((await self._get("/requests", **query)).json())

    async def content(self, video_id: str, *, variant: str = "video") -> bytes:
        """Return what the content truly is; this does not count as a request."""
        return (await self._get("/content", id=video_id, variant=variant)).content

    async def fault(
        self,
        name: str,
        *,
        operation: str = "any",
        times: int | None = 1,
        value: str | float | None = None,
        video: str | None = None,
        **arguments: Any,
    ) -> None:
        """Break the next `times` requests of an operation (None: all until faults are cleared)."""
        told = {
            key: int(said) if isinstance(said, bool) else said for key, said in arguments.items()
        }
        fault = {"name": name, "operation": operation, "times": times, "value": value}
        await self._post("/faults", fault | {"video": video, "arguments": told})

    async def clear_faults(self) -> None:
        """Remove all faults that were added here."""
        (await self._client.delete("/faults")).raise_for_status()

    async def advance(self, seconds: float) -> None:
        """Let this much time pass at once."""
        await self._post("/clock", {"advance_seconds": seconds})

    async def set_now(self, now: float) -> None:
        """Make it this Unix second; time goes on from there."""
        await self._post("/clock", {"now": now})

    async def settings(self, **changes: Any) -> None:
        """Change fields of world.Settings, for videos made from now on."""
        await self._post("/settings", changes)

    async def expire(self, video_id: str) -> None:
        """Let the content of this video be gone."""
        await self._post("/expire", {"id": video_id})

    async def change(self, video_id: str) -> None:
        """Let the content of this video be another from now on, as long as before."""
        await self._post("/change", {"id": video_id})

    async def go_on(self) -> None:
        """Let every answer that pauses go on."""
        await self._post("/go-on", {})

    async def forget(self, video_id: str) -> None:
        """Let the upstream not know this video any more: 404 on every verb."""
        await self._post("/forget", {"id": video_id})

    async def go_dark(self) -> None:
        """Cut the connection of every request from now on; only these methods still work."""
        await self._post("/dark", {"dark": True})

    async def come_back(self) -> None:
        """Answer again."""
        await self._post("/dark", {"dark": False})

    async def drop_from_log(self, video_id: str) -> None:
        """Let the account's log have no row of this video."""
        await self._post("/log-drop", {"id": video_id})

    async def change_in_log(self, video_id: str, *, micros: int) -> None:
        """Let the account's log say that this much was charged for this video."""
        await self._post("/log-change", {"id": video_id, "micros": micros})

    async def add_to_log(self, *, model: str, micros: int, **more: str | int) -> None:
        """Add a row that belongs to no video; more: created_at, task_id, request_id."""
        await self._post("/log-add", {"model": model, "micros": micros, **more})

    async def reset(self) -> None:
        """Return to the beginning: no videos, faults or counts; first settings; true time."""
        await self._post("/reset", {})

    async def _get(self, path: str, **query: str) -> httpx.Response:
        return (await self._client.get(path, params=query)).raise_for_status()

    async def _post(self, path: str, body: dict[str, Any]) -> None:
        (await self._client.post(path, json=body)).raise_for_status()


@cache
def _tls() -> ssl.SSLContext:
    # One for all: to read the certificates of all authorities takes 20 ms.
    return httpx.create_ssl_context()
