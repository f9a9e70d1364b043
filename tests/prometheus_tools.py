"""A real Prometheus, for as long as a test needs it."""

import asyncio
import shutil
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
from conftest import eventually
from plain_http import NO_TLS

# What `apt-get install prometheus` brings.
PROGRAM = "prometheus"
READY_SECONDS = 30.0


@dataclass(frozen=True)
class Prometheus:
    """A server that answers queries."""

    client: httpx.AsyncClient

    async def query(self, expression: str, *, at: float | None = None) -> list[dict[str, Any]]:
        """Return the samples of an instant query: `metric` and `value`."""
        asked = {"query": expression} | ({} if at is None else {"time": str(at)})
        return await self._result("/api/v1/query", asked)

    async def query_range(
        self, expression: str, *, start: float, end: float, step: float = 1
    ) -> list[dict[str, Any]]:
        """Return the series of a range query: `metric` and `values`."""
        asked = {"query": expression, "start": str(start), "end": str(end), "step": str(step)}
        return await self._result("/api/v1/query_range", asked)

    async def value(self, expression: str) -> float:
        """Return the one value of an expression."""
        ((sample),) = await self.query(expression)
        return float(sample["value"][1])

    async def label_values(self, label: str, *, match: str) -> list[str]:
        """Return the values of a label of the series that match."""
        answer = await self.client.get(f"/api/v1/label/{label}/values", params={"match[]": match})
        values: list[str] = answer.raise_for_status().json()["data"]
        return values

    async def rules(self) -> list[dict[str, Any]]:
        """Return every rule that is loaded, with its state."""
        answer = (await self.client.get("/api/v1/rules")).raise_for_status().json()
        return [rule for group in answer["data"]["groups"] for rule in group["rules"]]

    async def _result(self, path: str, asked: dict[str, str]) -> list[dict[str, Any]]:
        answer = await self.client.get(path, params=asked)
        body = answer.json()
        assert body["status"] == "success", (asked, body)
        result: list[dict[str, Any]] = body["data"]["result"]
        if body["data"]["resultType"] == "scalar":
            return [{"metric": {}, "value": result}]
        return result


@asynccontextmanager
async def prometheus(config: Path) -> AsyncIterator[Prometheus]:
    """Run Prometheus with a configuration; its data goes beside it."""
    assert shutil.which(PROGRAM), "needs Prometheus: apt-get install prometheus"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        address = f"127.0.0.1:{listening.getsockname()[1]}"
    with (config.parent / "prometheus.log").open("wb") as log:
        process = await asyncio.create_subprocess_exec(
            PROGRAM,
            f"--config.file={config}",
            f"--storage.tsdb.path={config.parent / 'series'}",
            f"--web.listen-address={address}",
            "--log.level=warn",
            stdout=log,
            stderr=log,
        )
        try:
            async with httpx.AsyncClient(
                base_url=f"http://{address}", verify=NO_TLS, trust_env=False, timeout=20
            ) as client:

                async def ready() -> bool:
                    assert process.returncode is None, f"see {log.name}"
                    try:
                        return (await client.get("/-/ready")).status_code == 200
                    except httpx.TransportError:
                        return False

                await eventually(ready, seconds=READY_SECONDS)
                yield Prometheus(client)
        finally:
            if process.returncode is None:
                process.terminate()
                await process.wait()


async def promtool(*args: str) -> tuple[int, str]:
    """Run Prometheus' own checks; return the exit code and what was said."""
    assert shutil.which("promtool"), "needs Prometheus' own tools: apt-get install prometheus"
    process = await asyncio.create_subprocess_exec(
        "promtool", *args, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode()
