"""May two versions of the program run at once while replicas are replaced one by one?

The next version exists only as its migrations. The program under test, run as a process, is the
older one.
"""

import asyncio
import importlib.resources
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from conftest import Serving, command, environ_for, new_key, serving
from openai import OpenAI

from gateway.billing.audit import audit
from gateway.clock import system_clock
from gateway.db.database import Database
from gateway.db.migrate import migrate, read_migrations
from gateway.db.opening import open_database_url
from gateway.db.script import Script, Sql
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings

pytestmark = pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")

KNOWN = len(read_migrations())
EXPANDS = f"""-- Who has looked at which video, and since when one was looked at.
-- compatible with: {KNOWN}
ALTER TABLE videos ADD COLUMN reviewed_at BIGINT;

CREATE INDEX videos_reviewed ON videos (reviewed_at) WHERE reviewed_at IS NOT NULL;

CREATE TABLE reviews (
    video_id TEXT PRIMARY KEY REFERENCES videos (id),
    reviewer TEXT NOT NULL
);
"""
CONTRACTS = f"""-- No program looks at pins any more.
-- compatible with: {KNOWN + 1}
DROP INDEX videos_pinned;

ALTER TABLE videos DROP COLUMN pinned_at;
"""


@dataclass
class Fleet:
    """An upstream, a database, and what replicas are started with."""

    environ: dict[str, str]
    control: Control
    database: Database
    key: str
    newer: Path

    async def use(self, replica: Serving, prompt: str) -> str:
        """Buy, poll, list and download as a client does; return the video's id."""
        video_id, content = await asyncio.to_thread(use_sdk, replica.base_url, self.key, prompt)
        assert content == await self.control.content(video_id)
        return video_id

    async def apply(self, number: int, name: str, text: str) -> None:
        """A replica of the next version starts."""
        (self.newer / f"{number:04}_{name}.sql").write_text(text)
        applied = await migrate(self.database, now=system_clock().now(), folder=self.newer)
        assert applied == [(number, name)]

    async def rows(self, text: str, *args: str) -> list[list[Any]]:
        return [list(row) for row in await self.database.run(partial(statement, text, *args))]

    async def ran(self, *words: str) -> tuple[int | None, str]:
        process = await command(*words, **self.environ)
        out, _ = await process.communicate()
        return process.returncode, out.decode()


def use_sdk(base_url: str, key: str, prompt: str) -> tuple[str, bytes]:
    with OpenAI(base_url=base_url, api_key=key) as sdk:
        video = sdk.videos.create_and_poll(prompt=prompt)
        assert video.status == "completed"
        assert video.id in {one.id for one in sdk.videos.list()}
        return video.id, sdk.videos.download_content(video.id).read()


def statement(text: str, *args: str) -> Script[list[Any]]:
    return list((yield Sql(text, args)))


@asynccontextmanager
async def a_fleet(folder: Path) -> AsyncIterator[Fleet]:
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=0)
    newer = folder / "newer"
    newer.mkdir()
    for file in importlib.resources.files("gateway.db").joinpath("migrations").iterdir():
        (newer / file.name).write_bytes(file.read_bytes())
    async with (
        Simulator(settings=simulated) as simulator,
        Control(simulator.base_url) as control,
    ):
        environ = environ_for(folder, simulator.base_url)
        async with open_database_url(environ["GATEWAY_DATABASE_URL"]) as database:
            await migrate(database, now=system_clock().now())
            key = await new_key(database, system_clock())
            yield Fleet(environ, control, database, key.value, newer)


async def test_the_older_program_goes_on_on_tables_that_were_only_added_to(tmp_path: Path) -> None:
    async with a_fleet(tmp_path) as fleet:
        async with serving(fleet.environ) as older:
            before = await fleet.use(older, "a heron")
            await fleet.apply(KNOWN + 1, "expands", EXPANDS)
            # What only the newer program writes.
            await fleet.rows("UPDATE videos SET reviewed_at = 7 WHERE upstream_id = $1", before)
            await fleet.rows(
                "INSERT INTO reviews (video_id, reviewer)"
                " SELECT id, 'somebody' FROM videos WHERE upstream_id = $1",
                before,
            )
            await fleet.use(older, "a cat")
            # One more of the older ones, started when the newer tables are there.
            async with serving(fleet.environ) as another:
                after = await fleet.use(another, "a fox")
                await fleet.rows("UPDATE videos SET reviewed_at = 8 WHERE upstream_id = $1", after)
                async with older.client(fleet.key) as one, another.client(fleet.key) as other:
                    for client in (one, other):
                        assert (await client.get(f"/videos/{before}")).status_code == 200
                    assert (await one.delete(f"/videos/{before}")).status_code == 200
                    assert (await other.delete(f"/videos/{before}")).status_code == 404
                assert await another.stop() == 0
            assert await older.stop() == 0
        assert await fleet.rows(
            "SELECT reviewed_at, reviewer FROM videos LEFT JOIN reviews ON video_id = id"
            " WHERE reviewed_at IS NOT NULL ORDER BY reviewed_at"
        ) == [[7, "somebody"], [8, None]]
        assert await fleet.rows("SELECT state, COUNT(*) FROM holds GROUP BY state") == [
            ["settled", 3]
        ]
        assert await fleet.database.read(audit) == []
        code, said = await fleet.ran("migrate", "--check")
        assert code == 0
        assert f"newer than this program, which may run with it: {KNOWN + 1} expands" in said


async def test_the_older_program_does_not_start_on_tables_from_which_something_was_taken(
    tmp_path: Path,
) -> None:
    async with a_fleet(tmp_path) as fleet:
        await fleet.apply(KNOWN + 1, "expands", EXPANDS)
        await fleet.apply(KNOWN + 2, "contracts", CONTRACTS)
        code, said = await fleet.ran("serve")
        assert code == 1
        assert (
            f"the database is newer than this program: it has migration {KNOWN + 2}, contracts,"
            f" and needs a program that knows migration {KNOWN + 1}; this one knows {KNOWN}"
        ) in said
