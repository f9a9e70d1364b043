"""What do the tests stand on? Real servers on loopback, real files."""

import asyncio
import contextlib
import io
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
import structlog
from databases import POSTGRES, SQLITE, DatabaseServer, drop, on_server, url_of
from object_servers import ObjectServer, moto_server, swift_server
from plain_http import NO_TLS
from postgres_tools import postgres_server

from gateway.app import Running, running
from gateway.billing.audit import audit
from gateway.billing.audit_log import COMMAND, Change
from gateway.billing.balances import KEY, ORGANIZATION
from gateway.billing.budgets import set_budget
from gateway.billing.key_values import ADMIN, VIRTUAL, new_value
from gateway.billing.keys import NewKey
from gateway.billing.levels import find_level, make_key
from gateway.billing.limits import Limits, set_limits
from gateway.billing.money import parse_usd
from gateway.clock import Clock, system_clock
from gateway.config import Settings, settings_fields
from gateway.db.database import Database
from gateway.db.script import Row, Script, Sql
from gateway.setup import open_database
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings
from gateway.telemetry.logs import configure_logs

ADMIN_KEY = new_value(ADMIN)
# TEST_DATABASES=sqlite or postgres: run all tests on that one.
DATABASES = os.environ.get("TEST_DATABASES", f"{SQLITE},{POSTGRES}").split(",")
# Files whose tests run on both: everything that is said of money, of records and of the mirror. Of
# these, what is marked `costly` runs on PostgreSQL only where TEST_DATABASES says so.
ON_BOTH = frozenset(
    f"test_{name}"
    for names in (
        "ledger ledger_machine basis budgets limits keys permissions costs audit_log submit",
        "outcomes retries concurrency two_replicas crashes same_figures metrics records polls",
        "poller orphans janitor adoption reconciliation_world listing paging first_admin_key",
        "assets mirror mirror_machine mirror_status mirror_faults backlog ring db_migrate",
        "retention eviction verify gc alerts_outbox alerts_deliver alerts_crashes admin_spend",
        "cli_ledger audit_turns cli_sums cli_orphans cli_retention admin_costs admin_audit_logs",
        "server_time changes workers rolling_update traces draining readiness secrets",
    )
    for name in names.split()
)
DEADLINE_SECONDS = 20.0
DAY_SECONDS = 86_400
LOOK_SECONDS = 0.02
# Columns of a video and, as hold_…, of its hold.
FACTS = (
    "id",
    "project_id",
    "key_id",
    "upstream_id",
    "status",
    "object",
    "created_at",
    "recorded_at",
    "completed_at",
    "failed_at",
    "expires_at",
    "polled_at",
    "due_at",
    "claim_number",
    "missing_polls",
    "orphaned_at",
    "orphan_reason",
    "hold_state",
    "hold_micros",
    "hold_settled_micros",
)
ASSET_FACTS = (
    "id",
    "created_at",
    "expires_at",
    "size_bytes",
    "sha256",
    "mirrored_at",
    "gone_at",
    "attempts",
    "failure",
    "due_at",
)


async def eventually(
    condition: Callable[[], Awaitable[Any]], *, seconds: float = DEADLINE_SECONDS
) -> Any:
    """Return the first true answer of a condition, asked again and again until a deadline."""
    async with asyncio.timeout(seconds):
        while not (answer := await condition()):
            await asyncio.sleep(LOOK_SECONDS)  # what is waited for happens in another process
        return answer


@dataclass
class Timeline:
    """A clock that a test can move; it also ticks."""

    base: Clock = field(default_factory=system_clock)
    offset_seconds: int = 0

    def clock(self) -> Clock:
        return Clock(
            now=lambda: self.base.now() + self.offset_seconds,
            elapsed=lambda: self.base.elapsed() + self.offset_seconds,
            new_id=self.base.new_id,
            chance=lambda: 0.5,
        )


async def new_key(
    database: Database, clock: Clock, *, project: str = "studio", name: str = "test"
) -> NewKey:
    return await database.run(
        partial(
            make_key,
            a_change(clock),
            project=project,
            name=name,
            value=new_value(VIRTUAL),
            key_id=clock.new_id("key"),
            account_id=clock.new_id("svc_acct"),
            project_id=clock.new_id("proj"),
        )
    )


def a_change(clock: Clock) -> Change:
    """Somebody at a shell changes something now."""
    return Change(clock.new_id("audit_log"), clock.now(), COMMAND, "tests")


def _set_budget(
    change: Change, level: str, level_id: str, *, period: str, limit_micros: int
) -> Script[None]:
    found = yield from find_level(level, named=level_id)
    assert found is not None
    yield from set_budget(change, found, period=period, limit_micros=limit_micros)


def _set_limits(
    change: Change, level: str, level_id: str, *, model: str, limits: Limits
) -> Script[None]:
    found = yield from find_level(level, named=level_id)
    assert found is not None
    yield from set_limits(change, found, limits, model=model)


@dataclass
class World:
    """A gateway in front of a simulated upstream, with a way to look behind both."""

    folder: Path
    settings: Settings
    simulator: Simulator
    control: Control
    database: Database
    timeline: Timeline
    gateway: Running
    steps: list[str]

    @property
    def base_url(self) -> str:
        return self.gateway.base_url

    async def key(
        self,
        *,
        project: str = "studio",
        name: str = "test",
        budget: str | None = None,
        period: str = "month",
    ) -> NewKey:
        made = await new_key(self.database, self.timeline.clock(), project=project, name=name)
        if budget is not None:
            await self.budget(KEY, made.id, budget, period=period)
        return made

    async def budget(self, level: str, level_id: str, amount: str, *, period: str) -> None:
        await self.database.run(
            partial(
                _set_budget,
                a_change(self.timeline.clock()),
                level,
                level_id,
                period=period,
                limit_micros=parse_usd(amount),
            )
        )

    async def limit(self, level: str, level_id: str, /, *, model: str = "", **limits: int) -> None:
        """Set the limits of a project or a key for a model, or for all together."""
        change = a_change(self.timeline.clock())
        await self.database.run(
            partial(_set_limits, change, level, level_id, model=model, limits=Limits(**limits))
        )

    async def next_day(self) -> None:
        """Go to the first seconds of a day, so that no minute and no day ends in between."""
        now = self.timeline.clock().now()
        self.timeline.offset_seconds += DAY_SECONDS - now % DAY_SECONDS

    def client(self, key: NewKey | str) -> httpx.AsyncClient:
        value = key if isinstance(key, str) else key.value
        return httpx.AsyncClient(
            verify=NO_TLS,
            base_url=self.base_url,
            headers={"authorization": f"Bearer {value}"},
            trust_env=False,
            timeout=60,
        )

    async def buy(self, key: NewKey, prompt: str = "a cat", **fields: str) -> str:
        """Buy a video as clients do, and return its id."""
        async with self.client(key) as client:
            answer = await client.post("/videos", json={"prompt": prompt, **fields})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def facts(self, upstream_id: str) -> dict[str, Any]:
        """Return what is recorded about a video: its FACTS."""
        (row,) = await self.rows(
            "SELECT videos.*, holds.state AS hold_state, holds.amount_micros AS hold_micros,"
            " holds.settled_micros AS hold_settled_micros FROM videos"
            " JOIN holds ON holds.id = videos.hold_id WHERE upstream_id = $1",
            upstream_id,
        )
        return {name: row[name] for name in FACTS}

    async def ended(self, upstream_id: str) -> dict[str, Any]:
        """Wait until the money of a video has moved for good, and return its facts."""

        async def over() -> dict[str, Any] | None:
            facts = await self.facts(upstream_id)
            return None if facts["hold_state"] == "held" else facts

        found: dict[str, Any] = await eventually(over)
        return found

    async def mirrored(self, upstream_id: str) -> dict[str, Any]:
        """Wait until the content of a video is in the store, and return its asset."""

        async def there() -> dict[str, Any] | None:
            asset = await self.asset(upstream_id)
            return asset if asset and asset["mirrored_at"] is not None else None

        found: dict[str, Any] = await eventually(there)
        return found

    async def asset(self, upstream_id: str) -> dict[str, Any] | None:
        """Return what is recorded about the content of a video, None before it is completed."""
        rows = await self.rows(
            "SELECT assets.* FROM assets JOIN videos ON videos.id = assets.video_id"
            " WHERE videos.upstream_id = $1",
            upstream_id,
        )
        return {name: rows[0][name] for name in ASSET_FACTS} if rows else None

    async def executions(self) -> int:
        """Return how many videos the upstream has made."""
        return int((await self.control.totals())["executions"])

    async def rows(self, text: str, *args: str | int | None) -> list[Row]:
        def script() -> Script[list[Row]]:
            return list((yield Sql(text, args)))

        return await self.database.read(script)

    async def change(self, text: str, *args: str | int | None) -> None:
        """Change records behind the gateway's back."""

        def script() -> Script[None]:
            yield Sql(text, args)

        await self.database.run(script)

    async def one(self, text: str, *args: str | int | None) -> Any:
        """Return the only value of the only row."""
        ((value,),) = await self.rows(text, *args)
        return value

    async def total(self, level: str = ORGANIZATION) -> tuple[int, int]:
        """Return spent and held micros of a level's total."""
        ((spent, held),) = await self.rows(
            "SELECT CAST(COALESCE(SUM(spent_micros), 0) AS BIGINT) AS spent,"
            " CAST(COALESCE(SUM(held_micros), 0) AS BIGINT) AS held FROM balances"
            " WHERE level = $1 AND period = 'total'",
            level,
        )
        return spent, held

    async def adds_up(self) -> bool:
        return not await self.database.read(audit)


def settings_for(folder: Path, upstream_base_url: str, /, **changes: Any) -> Settings:
    defaults: dict[str, Any] = {
        "port": 0,
        "ops_port": 0,
        "database_url": url_of(folder / "gateway.db"),
        "store_url": f"file://{folder / 'content'}",
        "upstream_base_url": upstream_base_url,
        "upstream_api_key": "sk-simulator",
        "poll_interval_seconds": 1,
        "shutdown_seconds": 10,
        "admin_key": ADMIN_KEY,
    }
    return Settings(**(defaults | changes))


@asynccontextmanager
async def world(
    folder: Path, *, simulated: SimulatorSettings | None = None, **changes: Any
) -> AsyncIterator[World]:
    """Run a simulator and a gateway in this event loop."""
    timeline = Timeline()
    simulated = simulated or SimulatorSettings(queue_seconds=0, generation_seconds=0)
    steps: list[str] = []
    async with (
        Simulator(settings=simulated) as simulator,
        Control(simulator.base_url) as control,
    ):
        settings = settings_for(folder, simulator.base_url, **changes)
        async with (
            open_database(settings, clock=timeline.clock()) as database,
            running(settings, clock=timeline.clock(), on_step=steps.append) as gateway,
        ):
            yield World(
                folder=folder,
                settings=settings,
                simulator=simulator,
                control=control,
                database=database,
                timeline=timeline,
                gateway=gateway,
                steps=steps,
            )


@dataclass
class Serving:
    """A gateway in a process of its own, and everything it has printed."""

    process: asyncio.subprocess.Process
    port: int
    ops_port: int
    printed: list[str]

    @property
    def base_url(self) -> str:
        return f"http://127.0.0.1:{self.port}/v1"

    def client(self, key: NewKey | str) -> httpx.AsyncClient:
        value = key if isinstance(key, str) else key.value
        return httpx.AsyncClient(
            verify=NO_TLS,
            base_url=self.base_url,
            headers={"authorization": f"Bearer {value}"},
            trust_env=False,
            timeout=60,
        )

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log with an event's name."""
        lines = [json.loads(line) for line in self.printed if line.startswith("{")]
        return [line for line in lines if line["event"] == event]

    async def logged(self, event: str, *, times: int = 1) -> list[dict[str, Any]]:
        """Wait for so many lines with an event's name."""

        async def met() -> list[dict[str, Any]] | None:
            found = self.said(event)
            return found if len(found) >= times else None

        found: list[dict[str, Any]] = await eventually(met)
        return found

    async def stop(self, number: int = signal.SIGTERM) -> int:
        """Send a signal, wait for the end of the process, and return its exit code."""
        self.process.send_signal(number)
        async with asyncio.timeout(DEADLINE_SECONDS):
            return await self.process.wait()


async def command(*args: str, **environ: str) -> asyncio.subprocess.Process:
    """Start `video-gateway` with these arguments, and of GATEWAY_ variables with these alone."""
    inherited = {name: value for name, value in os.environ.items() if "GATEWAY_" not in name}
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-m",
        "gateway",
        *args,
        env=inherited | environ,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        limit=1 << 20,
    )


def environ_for(folder: Path, upstream_base_url: str, **changes: Any) -> dict[str, str]:
    """Return the variables that `video-gateway serve` needs for the settings of settings_for."""
    settings = settings_for(folder, upstream_base_url, **changes)
    defaults = Settings()
    return {
        f"GATEWAY_{one.name.upper()}": str(getattr(settings, one.name))
        for one in settings_fields()
        if getattr(settings, one.name) != getattr(defaults, one.name)
    }


@asynccontextmanager
async def serving(environ: dict[str, str]) -> AsyncIterator[Serving]:
    """Run `video-gateway serve` in a process of its own; it is ended by force if it still runs."""
    process = await command("serve", **environ)
    printed: list[str] = []

    async def read() -> None:
        assert process.stdout is not None
        while line := await process.stdout.readline():
            printed.append(line.decode())

    async def started() -> dict[str, Any] | None:
        assert process.returncode is None, printed
        lines = [line for line in printed if '"event": "gateway_started"' in line]
        return json.loads(lines[0]) if lines else None

    try:
        async with asyncio.TaskGroup() as group:
            group.create_task(read())
            ports = await eventually(started)
            yield Serving(process, ports["port"], ports["ops_port"], printed)
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(DEADLINE_SECONDS):
                await process.wait()
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


async def raw_request(made: World, key: NewKey, head: str, *pieces: bytes) -> "RawRequest":
    """Open a connection and send a request as it stands, up to wherever the pieces end."""
    reader, writer = await asyncio.open_connection("127.0.0.1", made.gateway.port)
    lines = f"{head}\r\nhost: gateway\r\nauthorization: Bearer {key.value}\r\n\r\n"
    writer.write(lines.encode("latin-1"))
    for piece in pieces:
        writer.write(piece)
    await writer.drain()
    return RawRequest(reader, writer)


@dataclass(frozen=True)
class RawRequest:
    """A connection on which a request was begun."""

    reader: asyncio.StreamReader
    writer: asyncio.StreamWriter

    async def send(self, piece: bytes) -> None:
        """Send more of it."""
        self.writer.write(piece)
        await self.writer.drain()

    async def answer(self) -> tuple[int, dict[str, str], bytes]:
        """Read one answer that has a Content-Length: status, headers and body."""
        async with asyncio.timeout(DEADLINE_SECONDS):
            head = (await self.reader.readuntil(b"\r\n\r\n")).decode("latin-1")
            first, *lines = head.strip().split("\r\n")
            headers = {
                name.lower(): value.strip()
                for name, _, value in (line.partition(":") for line in lines)
            }
            body = await self.reader.readexactly(int(headers["content-length"]))
        return int(first.split()[1]), headers, body

    async def leave(self) -> None:
        """Close the connection without a word."""
        self.writer.close()
        with contextlib.suppress(ConnectionError):
            await self.writer.wait_closed()


class LogLines(io.StringIO):
    """What was logged, as JSON."""

    def lines(self, event: str | None = None) -> list[dict[str, Any]]:
        """Return the lines of one event, or all, oldest first."""
        lines = [json.loads(line) for line in self.getvalue().splitlines()]
        return [line for line in lines if event in {None, line["event"]}]


def pytest_configure(config: pytest.Config) -> None:
    config.addinivalue_line("markers", "sqlite(reason): runs on SQLite only")
    config.addinivalue_line("markers", "postgres(reason): runs on PostgreSQL only")
    config.addinivalue_line("markers", "costly: runs on SQLite only, unless all do on PostgreSQL")


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Run a test on each of the databases that it is about."""
    both = metafunc.module.__name__ in ON_BOTH
    engines: list[Any] = [one for one in (SQLITE, POSTGRES) if one in DATABASES]
    if SQLITE in engines and not both:
        return
    if SQLITE in engines and any(metafunc.definition.iter_markers("costly")):
        engines = [SQLITE]
    for only in (SQLITE, POSTGRES):
        for marker in metafunc.definition.iter_markers(only):
            left_out = pytest.mark.skip(f"on {only} only: {marker.args[0]}")
            engines = [only if only in DATABASES else pytest.param(only, marks=left_out)]
    metafunc.parametrize("engine", engines, indirect=True, scope="module")


@pytest.fixture
def logged() -> Iterator[LogLines]:
    """Catch the log as a process writes it on a pipe."""
    stream = LogLines()
    configure_logs("json", stream=stream)
    yield stream
    structlog.reset_defaults()


@pytest.fixture
async def studio(tmp_path: Path) -> AsyncIterator[World]:
    """A gateway in front of a simulator whose videos are finished at once."""
    async with world(tmp_path) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(place: Path) -> AsyncIterator[World]:
    """The same, one for all tests of a file; a file with settings of its own defines its own."""
    async with world(place / "shared") as made:
        yield made


@pytest.fixture(scope="module", autouse=True)
def engine(request: pytest.FixtureRequest) -> Iterator[str]:
    """Which database the test stands on; `databases.url_of` knows."""
    name: str = getattr(request, "param", SQLITE)
    server = request.getfixturevalue("database_server") if name == POSTGRES else None
    with on_server(server):
        yield name


@pytest.fixture(autouse=True)
def dropped(engine: str, request: pytest.FixtureRequest) -> Iterator[None]:
    """Let a server have as few databases as a test needs: they may be in memory."""
    yield
    folder = request.node.funcargs.get("tmp_path")
    if engine == POSTGRES and folder is not None:
        drop(folder)


@pytest.fixture(scope="module")
def place(engine: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for what all tests of a file share on one engine."""
    return tmp_path_factory.mktemp(engine)


@pytest.fixture(scope="session")
def database_server() -> Iterator[DatabaseServer]:
    with postgres_server() as server:
        yield DatabaseServer(server)


@pytest.fixture(scope="session")
def moto() -> Iterator[ObjectServer]:
    """An object store that is fast."""
    with moto_server() as server:
        yield server


@pytest.fixture(scope="session")
def swift(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ObjectServer]:
    """An object store that checks signatures and their expiry."""
    with swift_server(tmp_path_factory.mktemp("swift")) as server:
        yield server
