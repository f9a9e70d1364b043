"""How does a test run several gateways on one PostgreSQL and one store, and hurt each of them?

A replica reaches database, store and upstream by lines of its own. Where the machine can have
network namespaces it also has a network of its own, in which the kernel can cut it off.
"""

import asyncio
import random
import secrets
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import quote, urlsplit

import httpx
import network_tools
from conftest import eventually, new_key
from object_servers import ACCESS_KEY_ID, HOST, SECRET_ACCESS_KEY, Line, ObjectServer
from plain_http import NO_TLS
from postgres_tools import PostgresServer
from processes import Process, Scene, scene

from gateway.billing.keys import NewKey
from gateway.clock import system_clock
from gateway.db.database import Database
from gateway.db.script import Row, Script, Sql
from gateway.setup import open_database

T = TypeVar("T")

START_SECONDS = 60
COUNT = 3


@dataclass
class Replica:
    """One of several gateways; while it lives, `base_url` says where."""

    number: int
    cluster: "Cluster"
    database: Line
    store: Line
    upstream: Line
    namespace: network_tools.Namespace | None
    base_url: str = ""
    process: Process | None = None
    lives: list[Process] = field(default_factory=list)
    _life: AsyncExitStack = field(default_factory=AsyncExitStack)

    async def start(self, step: str | None = None, *, nth: int = 1) -> None:
        """Start it, again and again as whatever keeps processes running does; see Scene.process."""
        async with asyncio.timeout(START_SECONDS):
            while not await self._born(step, nth=nth):
                await self.end()
                step = None

    async def end(self) -> None:
        """Kill it, if it lives."""
        self.base_url, self.process = "", None
        await self._life.aclose()

    @property
    def alive(self) -> Process:
        assert self.process is not None
        return self.process

    async def restart(self, step: str | None = None, *, nth: int = 1) -> None:
        await self.end()
        await self.start(step, nth=nth)

    def client(self, key: str, **more: Any) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=NO_TLS,
            base_url=self.base_url,
            headers={"authorization": f"Bearer {key}"},
            trust_env=False,
            timeout=60,
            **more,
        )

    async def _born(self, step: str | None, *, nth: int) -> bool:
        under = list if self.namespace is None else self.namespace.command
        stage = self.cluster.stage
        starting = stage.process(step, nth=nth, under=under, **self._settings())
        try:
            process = await self._life.enter_async_context(starting)
        except (AssertionError, TimeoutError):
            return False  # its database was not there
        self.lives.append(process)
        for started in process.said("gateway_started"):
            self.base_url, self.process = started["base_url"], process
        return bool(self.base_url)  # or it died at one of its first steps

    def _settings(self) -> dict[str, Any]:
        cluster = self.cluster
        here, there = (
            quote(f"http://{host}:{port}")
            for host, port in (
                (HOST, cluster.objects.port),
                (self.store.host, self.store.port),
            )
        )
        where = f"{self.database.host}:{self.database.port}"
        return cluster.changes | {
            "host": HOST if self.namespace is None else self.namespace.inside,
            "database_url": f"postgresql://postgres@{where}/{cluster.database}",
            "store_url": cluster.store_url.replace(here, there),
            "upstream_base_url": f"http://{self.upstream.host}:{self.upstream.port}/v1",
        }


@dataclass
class Cluster:
    """Replicas, and a way to look behind them.

    Attributes:
        database: its name.
        changes: settings of all replicas.
    """

    stage: Scene
    postgres: PostgresServer
    objects: ObjectServer
    database: str
    store_url: str
    changes: dict[str, Any]
    replicas: list[Replica] = field(default_factory=list)

    async def start(self) -> None:
        await asyncio.gather(*(replica.start() for replica in self.replicas))

    @asynccontextmanager
    async def books(self) -> AsyncIterator[Database]:
        """Open the database itself, past all lines."""
        async with open_database(self.stage.settings, clock=system_clock()) as database:
            yield database

    async def run(self, script: Callable[[], Script[T]]) -> T:
        async with self.books() as database:
            return await database.run(script)

    async def rows(self, text: str, *args: str | int | None) -> list[Row]:
        async with self.books() as database:
            return list(await database.read(partial(_rows, text, *args)))

    async def key(self, project: str, name: str) -> NewKey:
        async with self.books() as database:
            return await new_key(database, system_clock(), project=project, name=name)

    async def counted(self, text: str, count: int, *, seconds: float = 30) -> None:
        """Wait until a query has so many rows."""
        async with self.books() as database:

            async def met() -> bool:
                return len(await database.read(partial(_rows, text))) == count

            await eventually(met, seconds=seconds)

    def contents(self) -> dict[str, bytes]:
        """Return everything in the store, by key, as another library reads it."""
        admin = self.objects.admin()
        parts = urlsplit(self.store_url)
        pages = admin.get_paginator("list_objects_v2").paginate(
            Bucket=parts.netloc, Prefix=f"{parts.path.strip('/')}/"
        )
        return {
            one["Key"].rpartition("/")[2]: admin.get_object(Bucket=parts.netloc, Key=one["Key"])[
                "Body"
            ].read()
            for page in pages
            for one in page.get("Contents", ())
            if "/tmp/" not in one["Key"]  # what says that the store can be written to
        }


@asynccontextmanager
async def cluster(
    folder: Path,
    *,
    postgres: PostgresServer,
    objects: ObjectServer,
    count: int = COUNT,
    namespaces: bool = False,
    **changes: Any,
) -> AsyncIterator[Cluster]:
    """Prepare replicas in front of one simulated upstream; the first `start` brings them up."""
    database, store_url = f"records_{secrets.token_hex(4)}", objects.url()
    database_url = postgres.make(database)
    async with AsyncExitStack() as stack:
        stage = await stack.enter_async_context(
            scene(folder, database_url=database_url, store_url=store_url)
        )
        keys = {
            "store_access_key_id": ACCESS_KEY_ID,
            "store_secret_access_key": SECRET_ACCESS_KEY,
            "admin_key": stage.settings.admin_key,
        }
        made = Cluster(stage, postgres, objects, database, store_url, keys | changes)
        for number in range(count):
            made.replicas.append(
                await stack.enter_async_context(_replica(made, number, namespaces=namespaces))
            )
        yield made


@asynccontextmanager
async def _replica(made: Cluster, number: int, *, namespaces: bool) -> AsyncIterator[Replica]:
    async with AsyncExitStack() as stack:
        own = stack.enter_context(network_tools.namespace()) if namespaces else None
        host = HOST if own is None else own.outside
        upstream = urlsplit(made.stage.simulator.base_url).port
        assert upstream is not None
        database, store, above = (
            Line(port, host=host) for port in (made.postgres.port, made.objects.port, upstream)
        )
        for line in (database, store, above):
            await line.come()
            stack.push_async_callback(line.go)
        replica = Replica(number, made, database, store, upstream=above, namespace=own)
        stack.push_async_callback(replica.end)
        yield replica


class Balancer(httpx.AsyncBaseTransport):
    """Sends each request to a replica, and to the next where that one takes no connection.

    So does whatever stands in front of replicas. It knows nothing of how they are.

    Attributes:
        broken: requests that were taken, and had no answer.
    """

    def __init__(self, replicas: Sequence[Replica], chance: random.Random) -> None:
        self._replicas = replicas
        self._chance = chance
        self._transport = httpx.AsyncHTTPTransport(verify=NO_TLS)
        self.broken = 0

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        """Answer one request."""
        path = request.url.raw_path.removeprefix(b"/v1")
        for base_url in self._places():
            url = httpx.URL(base_url)
            request.url = url.copy_with(raw_path=url.raw_path.rstrip(b"/") + path)
            try:
                return await self._transport.handle_async_request(request)
            except httpx.ConnectError:
                continue
            except httpx.TransportError:
                self.broken += 1
                raise
        raise httpx.ConnectError("no replica takes a connection")

    async def aclose(self) -> None:
        """Close the connections."""
        await self._transport.aclose()

    def _places(self) -> Iterator[str]:
        for replica in self._chance.sample(self._replicas, len(self._replicas)):
            if replica.base_url:
                yield replica.base_url


def _rows(text: str, *args: str | int | None) -> Script[list[Row]]:
    return list((yield Sql(text, args)))
