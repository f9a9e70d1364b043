"""What happens at a gateway that is watched: good requests, bad ones, faults, people at a shell."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from conftest import (
    Serving,
    _set_budget,
    _set_limits,
    a_change,
    command,
    environ_for,
    eventually,
    new_key,
    serving,
    settings_for,
)

from gateway.billing.balances import ORGANIZATION, ORGANIZATION_ID, PROJECT
from gateway.billing.keys import NewKey
from gateway.billing.limits import Limits
from gateway.clock import system_clock
from gateway.db.database import Database
from gateway.setup import open_database
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings

MICROS = 1_000_000
GOOD = (
    {"seconds": "4"},
    {"seconds": "8"},
    {"seconds": "12", "size": "1280x720"},
    {"model": "sora-2-pro", "seconds": "4", "size": "1080x1920"},
)
# What the upstream does with these comes to every end that there is.
BAD = (
    "[[fail]]",
    "[[moderate-later]]",
    "[[refuse]]",
    "[[401]]",
    "[[402]]",
    "[[429]]",
    "[[500]]",
    "[[500-executed]]",
    "[[stuck]]",
    "[[retrieve:html*1]]",
    "[[content:html]]",
)


@dataclass
class Watched:
    """A gateway in a process of its own, with two projects that buy from it."""

    served: Serving
    control: Control
    database: Database
    environ: dict[str, str]
    studio: NewKey
    lab: NewKey

    async def run(self, *words: str) -> str:
        """Run a command at a shell beside the gateway, and return what it printed."""
        process = await command(*words, **self.environ)
        printed, _ = await process.communicate()
        assert process.returncode in {0, 1}, printed.decode()
        return printed.decode()

    async def happen(self) -> None:
        """Let one round of everything happen."""
        async with self.served.client(self.studio) as studio, self.served.client(self.lab) as lab:
            bought = [await self._buy(studio, f"a heron {one}", **one) for one in GOOD]
            bought += [await self._buy(studio, prompt) for prompt in BAD]
            # Its budget is for one of these.
            bought += [await self._buy(lab, "a cat", seconds="8") for _ in range(3)]
            await self._ask_wrongly(studio)
            # No mail server is set up: it stays in the outbox.
            await self.run(
                *("alerts", "create", "--organization", "--threshold", "0.40", "--period", "day"),
                *("--email", "finance@example.com"),
            )
            for video_id in filter(None, bought):
                await studio.get(f"/videos/{video_id}")
            await self._download(studio, str(bought[0]))

    async def _buy(self, client: httpx.AsyncClient, prompt: str, **fields: str) -> str | None:
        answer = await client.post("/videos", json={"prompt": prompt} | fields)
        return str(answer.json()["id"]) if answer.status_code == 200 else None

    async def _ask_wrongly(self, client: httpx.AsyncClient) -> None:
        await client.post("/videos", json={"prompt": "a cat", "size": "1x1"})
        await client.get("/nowhere")
        await client.get("/videos/none")
        await client.get("/videos", headers={"authorization": "Bearer vgk_nobody"})

    async def _download(self, client: httpx.AsyncClient, video_id: str) -> None:
        async def whole() -> bool:
            answer = await client.get(f"/videos/{video_id}/content")
            return answer.status_code == 200

        await eventually(whole)
        await client.get(f"/videos/{video_id}/content", headers={"range": "bytes=0-99"})


@asynccontextmanager
async def watched(folder: Path, **changes: Any) -> AsyncIterator[Watched]:
    """Run a gateway in front of a simulated upstream, with budgets, limits and an alert."""
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=1)
    async with Simulator(settings=simulated) as simulator, Control(simulator.base_url) as control:
        changes = {
            "metrics_max_keys": 5,
            "keep_bytes": 1 << 40,
            "upstream_account_token": "account-simulator",
        } | changes
        environ = environ_for(folder, simulator.base_url, **changes)
        settings = settings_for(folder, simulator.base_url)
        clock = system_clock()
        async with open_database(settings, clock=clock) as database:
            studio = await new_key(database, clock, project="studio", name="editing")
            lab = await new_key(database, clock, project="lab", name="trials")
            for level, level_id, micros in (
                (ORGANIZATION, ORGANIZATION_ID, 500 * MICROS),
                (PROJECT, studio.project_id, 300 * MICROS),
                (PROJECT, lab.project_id, 1 * MICROS),
            ):
                for period in ("day", "month"):
                    script = partial(
                        _set_budget,
                        a_change(clock),
                        level,
                        level_id,
                        period=period,
                        limit_micros=micros,
                    )
                    await database.run(script)
            limits = partial(
                _set_limits,
                a_change(clock),
                PROJECT,
                lab.project_id,
                model="",
                limits=Limits(requests_per_minute=2),
            )
            await database.run(limits)
            async with serving(environ) as served:
                yield Watched(served, control, database, environ, studio, lab)
