"""What do the tests of mirrored content stand on? Records of content, the content itself, commands.

Nothing is bought and nothing downloaded here: a shelf is a database file and a folder as a gateway
leaves them, with content that a test chooses.
"""

import asyncio
import hashlib
import json
import os
import signal
import sys
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from conftest import DEADLINE_SECONDS, eventually
from databases import url_of
from ledger_tools import opened

from gateway.db.database import Database
from gateway.db.script import Row, Script, Sql
from gateway.store import ContentStore
from gateway.store.folder import FolderStore

FAR = 4_000_000_000
TYPES = {"video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg"}
_VIDEO = (
    "INSERT INTO videos (id, project_id, upstream, upstream_id, kind, fields, status, object,"
    " created_at, submit_lease_ends_at, completed_at, expires_at, missing_polls, claim_number)"
    " VALUES ($1, $2, $3, $4, 'video', '{}', 'completed', $5, $6, $6, $7, $8, 0, 0)"
    " ON CONFLICT DO NOTHING"
)
_ASSET = (
    "INSERT INTO assets (id, video_id, project_id, variant, created_at, expires_at, content_type,"
    " size_bytes, sha256, mirrored_at, verified_at, attempts, claim_number)"
    " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $10, 1, 1)"
)


@dataclass(frozen=True)
class Ran:
    """A command that has ended."""

    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


@dataclass(frozen=True)
class Item:
    """An asset on the shelf, as it should be."""

    asset_id: str
    video_id: str
    upstream_id: str
    content: bytes

    @property
    def sha256(self) -> str:
        return hashlib.sha256(self.content).hexdigest()


@dataclass
class Shelf:
    """A database and a store with content; commands are run on both."""

    folder: Path
    database: Database
    store: ContentStore

    @property
    def content(self) -> Path:
        return self.folder / "content"

    @property
    def store_url(self) -> str:
        return f"file://{self.content}"

    async def put(
        self,
        number: int,
        content: bytes | None = None,
        *,
        upstream_id: str | None = None,
        upstream: str = "default",
        variant: str = "video",
        project_id: str = "proj_a",
        video: int | None = None,
        at: int = 0,
        expires_at: int = FAR,
        shown: dict[str, Any] | None = None,
    ) -> Item:
        """Put an asset on the shelf, mirrored at a moment, and return it."""
        content = content if content is not None else f"content of {number} ".encode() * 1000
        video = number if video is None else video
        item = Item(f"asset_{number}", f"vid_{video}", upstream_id or f"video_{video}", content)
        shown = shown or {"model": "sora-2", "size": "720x1280", "seconds": "4"}

        def script() -> Script[None]:
            yield Sql(
                _VIDEO,
                (
                    *(item.video_id, project_id, upstream, item.upstream_id),
                    *(json.dumps(shown), at, at + 60, expires_at),
                ),
            )
            yield Sql(
                _ASSET,
                (
                    *(item.asset_id, item.video_id, project_id, variant, at, expires_at),
                    *(TYPES[variant], len(content), item.sha256, at),
                ),
            )

        await self.database.run(script)
        async with self.store.writing(item.asset_id) as writing:
            await writing.write(content)
            await writing.commit()
        return item

    def file(self, item: Item) -> Path:
        (path,) = self.content.glob(f"*/{item.asset_id}")
        return path

    async def row(self, item: Item) -> dict[str, Any]:
        (row,) = await self.rows("SELECT * FROM assets WHERE id = $1", item.asset_id)
        return {name: row[name] for name in row.keys()}  # type: ignore[attr-defined]  # noqa: SIM118

    async def rows(self, text: str, *args: str | int | None) -> list[Row]:
        def script() -> Script[list[Row]]:
            return list((yield Sql(text, args)))

        return await self.database.read(script)

    async def change(self, text: str, *args: str | int | None) -> None:
        def script() -> Script[None]:
            yield Sql(text, args)

        await self.database.run(script)

    async def mirror(self, *words: str, **environ: str) -> Ran:
        """Run `video-gateway mirror …` on this shelf."""
        async with self.running(*words, **environ) as process:
            return await ended(process)

    @asynccontextmanager
    async def running(
        self, *words: str, **environ: str
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """Start `video-gateway mirror …`; it is ended by force if it still runs."""
        plain = {
            "GATEWAY_DATABASE_URL": url_of(self.folder / "gateway.db"),
            "GATEWAY_STORE_URL": self.store_url,
        }
        async with mirror_command(*words, **(plain | environ)) as process:
            yield process


@asynccontextmanager
async def shelf(folder: Path) -> AsyncIterator[Shelf]:
    """Make an empty shelf, with two projects."""
    async with opened(folder / "gateway.db") as database:
        store = FolderStore(folder / "content")
        yield Shelf(folder, database, store)
        store.close()


@asynccontextmanager
async def mirror_command(*words: str, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """Start `video-gateway mirror …`, with only these GATEWAY_ variables."""
    inherited = {name: value for name, value in os.environ.items() if "GATEWAY_" not in name}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "mirror", *words),
        env=inherited | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def ended(process: asyncio.subprocess.Process) -> Ran:
    """Wait for the end of a command."""
    async with asyncio.timeout(3 * DEADLINE_SECONDS):
        out, err = await process.communicate()
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def killed_once(process: asyncio.subprocess.Process, condition: Callable[[], bool]) -> None:
    """Kill a command (SIGKILL) as soon as something is the case while it runs."""

    async def met() -> bool:
        assert process.returncode is None, "it has ended before"
        return condition()

    await eventually(met)
    process.send_signal(signal.SIGKILL)
    assert await process.wait() == -signal.SIGKILL


def now() -> int:
    return int(time.time())


def flip(path: Path, offset: int = 100) -> None:
    """Change one bit of a file."""
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)
