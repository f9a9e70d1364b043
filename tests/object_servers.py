"""How does a test have an object store, and a bad line to it?

Servers are processes that end by themselves when whoever started them has died. Between them and a
test can stand a Line, on which everything that happens to networks happens on demand.
"""

import asyncio
import contextlib
import secrets
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import quote

import boto3  # type: ignore[import-untyped]
from botocore.config import Config  # type: ignore[import-untyped]

ACCESS_KEY_ID = "test:tester"
SECRET_ACCESS_KEY = "testing"
REGION = "us-east-1"
BUCKET = "content"
HOST = "127.0.0.1"
# As many objects as Swift names in one answer.
SWIFT_PAGE = 10
_PIECE_BYTES = 64 << 10
_TESTS = Path(__file__).parent


@dataclass(frozen=True)
class ObjectServer:
    """An S3-compatible server with one empty bucket."""

    port: int

    def url(
        self, prefix: str | None = None, *, bucket: str = BUCKET, port: int | None = None
    ) -> str:
        """Return the URL of a store there, by default of one that nobody else has."""
        endpoint = quote(f"http://{HOST}:{port or self.port}")
        prefix = secrets.token_hex(8) if prefix is None else prefix
        return f"s3://{bucket}/{prefix}?endpoint={endpoint}&region={REGION}"

    def admin(self) -> Any:
        """Return another library's client, for what no store does."""
        return boto3.client(
            "s3",
            endpoint_url=f"http://{HOST}:{self.port}",
            aws_access_key_id=ACCESS_KEY_ID,
            aws_secret_access_key=SECRET_ACCESS_KEY,
            region_name=REGION,
            config=Config(s3={"addressing_style": "path"}),
        )

    def unfinished_uploads(self, prefix: str) -> list[str]:
        """Return the paths of all multipart uploads that were neither completed nor aborted."""
        answer = self.admin().list_multipart_uploads(Bucket=BUCKET, Prefix=f"{prefix}/")
        return [one["Key"] for one in answer.get("Uploads", [])]


@contextmanager
def moto_server() -> Iterator[ObjectServer]:
    """Run an S3 in memory, which believes every signature."""
    with _serving("serve_moto.py") as server:
        yield server


@contextmanager
def swift_server(folder: Path) -> Iterator[ObjectServer]:
    """Run an S3 on disk, which checks every signature."""
    with _serving("serve_swift.py", str(folder), str(SWIFT_PAGE)) as server:
        yield server


@contextmanager
def _serving(script: str, *args: str) -> Iterator[ObjectServer]:
    # Its own warnings are its own business; it ends when this side of its input is closed.
    command = [sys.executable, "-W", "ignore", str(_TESTS / script), *args]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        try:
            server = ObjectServer(int(process.stdout.readline()))
            existing = server.admin().list_buckets()["Buckets"]
            if not existing:
                server.admin().create_bucket(Bucket=BUCKET)
            yield server
        finally:
            process.kill()


@dataclass
class Line:
    """A way to a server, on which a test can break everything.

    Attributes:
        port, host: what clients connect to.
        delay_seconds: how long each piece takes, in both directions.
        cut_after_bytes: of what one connection has carried down to the client.
        spared: connections that get farther than that, before
        cuts: connections that are cut there.
        carried_bytes: down to clients, on all connections.
    """

    to_port: int
    port: int = 0
    host: str = HOST
    delay_seconds: float = 0
    cut_after_bytes: int = 0
    spared: int = 0
    cuts: int = 0
    carried_bytes: int = 0
    _server: asyncio.Server | None = None
    _open: set[asyncio.StreamWriter] = field(default_factory=set)
    _passing: asyncio.Event = field(default_factory=asyncio.Event)

    async def come(self) -> None:
        """Be there, at the same port as before."""
        self._passing.set()
        self._server = await asyncio.start_server(self._carry, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def go(self) -> None:
        """Be gone: nobody listens, and every connection is broken off."""
        assert self._server is not None
        self._server.close()
        self.drop()
        self._passing.set()
        while self._open:
            await asyncio.sleep(0)

    def drop(self) -> None:
        """Break every connection off; new ones are taken."""
        for writer in self._open:
            writer.transport.abort()

    async def hang(self) -> None:
        """Take everything, and pass nothing on."""
        self._passing.clear()

    def go_on(self) -> None:
        """Pass everything on again."""
        self._passing.set()

    @property
    def connections(self) -> int:
        """How many clients are connected."""
        return len(self._open) // 2

    async def _carry(self, reader: asyncio.StreamReader, client: asyncio.StreamWriter) -> None:
        ends = {client}
        try:
            behind, server = await asyncio.open_connection(HOST, self.to_port)
            ends.add(server)
            if self._server is None or not self._server.is_serving():
                return
            self._open |= ends
            async with asyncio.TaskGroup() as group:
                group.create_task(self._pump(reader, server, ends))
                group.create_task(self._pump(behind, client, ends, down=True))
        except OSError:
            pass  # nobody behind: the client sees a broken connection
        finally:
            self._open -= ends
            for end in ends:
                end.transport.abort()

    async def _pump(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        ends: set[asyncio.StreamWriter],
        *,
        down: bool = False,
    ) -> None:
        carried, spared = 0, not down
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(_PIECE_BYTES):
                await self._passing.wait()
                if self.delay_seconds:
                    await asyncio.sleep(self.delay_seconds)
                if writer.transport.is_closing():
                    break
                if self.cuts and not spared and carried + len(piece) > self.cut_after_bytes:
                    if self._is_cut():
                        writer.write(piece[: max(0, self.cut_after_bytes - carried)])
                        await writer.drain()
                        break
                    spared = True
                writer.write(piece)
                await writer.drain()
                carried += len(piece)
                self.carried_bytes += len(piece) if down else 0
        # One direction is over: HTTP/1.1 has no use for the other.
        for end in ends:
            end.close()

    def _is_cut(self) -> bool:
        """Tell whether the next connection that gets that far is cut."""
        if self.spared:
            self.spared -= 1
            return False
        self.cuts -= 1
        return True


@asynccontextmanager
async def line_to(server: ObjectServer) -> AsyncIterator[Line]:
    """Put a line between a test and a server."""
    line = Line(server.port)
    await line.come()
    try:
        yield line
    finally:
        await line.go()
