"""How do tests make videos behind the gateway's back, and take them over?"""

import asyncio
import json
import os
import sys
from typing import Any

import httpx
from conftest import World, environ_for
from plain_http import NO_TLS

# What money depends on, and nothing of an adoption may touch.
MONEY = ("holds", "entries", "balances", "costs", "attempts", "request_counts")


async def made(world: World, prompt: str = "a cat", *, count: int = 1, **fields: str) -> list[str]:
    """Make videos at the upstream with its own key, and return their ids."""
    async with httpx.AsyncClient(
        verify=NO_TLS,
        base_url=world.simulator.base_url,
        headers={"authorization": "Bearer sk-simulator"},
        trust_env=False,
        timeout=60,
    ) as client:
        answers = [
            await client.post("/videos", json={"prompt": prompt, **fields}) for _ in range(count)
        ]
    assert {answer.status_code for answer in answers} == {200}, answers[0].text
    return [str(answer.json()["id"]) for answer in answers]


async def run(
    world: World, *words: str, exit_code: int = 0, stdin: bytes = b"", **environ: str
) -> tuple[str, str]:
    """Run `video-gateway` beside the gateway; return what it printed, and its errors."""
    inherited = {name: value for name, value in os.environ.items() if "GATEWAY_" not in name}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", *words),
        env=inherited | environ_for(world.folder, world.simulator.base_url) | environ,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate(stdin)
    assert process.returncode == exit_code, (out.decode(), err.decode())
    return out.decode(), err.decode()


async def adopted(
    world: World,
    *words: str,
    project: str = "studio",
    exit_code: int = 0,
    stdin: bytes = b"",
    **environ: str,
) -> dict[str, dict[str, Any]]:
    """Run `mirror adopt`; return what came of each video, by the upstream's id."""
    out, _ = await run(
        world,
        *("mirror", "adopt", "--project", project, "--json", *words),
        exit_code=exit_code,
        stdin=stdin,
        **environ,
    )
    return {one["upstream_id"]: one for one in json.loads(out)}


def outcomes(found: dict[str, dict[str, Any]]) -> dict[str, str]:
    return {upstream_id: one["outcome"] for upstream_id, one in found.items()}


async def money(world: World) -> dict[str, list[dict[str, Any]]]:
    """Return every row that money depends on."""
    return {
        table: [dict(row) for row in await world.rows(f"SELECT * FROM {table} ORDER BY 1")]
        for table in MONEY
    }
