"""How many holds per second does the ledger take, beside the least that a ledger must do?

    python tests/benchmarks/holds.py [--rounds 5] [--seconds 2] [--engines sqlite postgres]

Beside every hold, which writes a hold and an entry and takes all nine balances of one key, stands a
bare one: a conditional UPDATE of one row and an INSERT, in a transaction each, through the same
library. Both on SQLite (a file of its own, every commit synced) and on PostgreSQL (a server of its
own on loopback, as it comes), with 1, 32 and 256 callers at once, interleaved; a figure is the
median of its rounds, and a spread above 15 % of either side makes it inconclusive. Then 1, 2 and 4
replicas, a process each with 32 callers, take holds on one organization's budget until it refuses:
what counts there is that not one micro is held above it.

What a commit costs decides what grouping them gains, and disks differ. strace makes one slow:

    strace -f -qq --seccomp-bpf -o /dev/null -e trace=fdatasync \
        -e inject=fdatasync:delay_enter=1000 python tests/benchmarks/holds.py --engines sqlite
"""

import argparse
import asyncio
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Final

import aiosqlite
import asyncpg
import uvloop
from rich.console import Console
from rich.table import Table

from gateway.billing.audit import audit
from gateway.billing.balances import THE_ORGANIZATION, Refusal
from gateway.billing.budgets import set_budget
from gateway.billing.ledger import hold
from gateway.db.database import Database
from gateway.db.migrate import migrate
from gateway.db.postgres import PostgresDatabase, open_postgres
from gateway.db.sqlite import open_sqlite

sys.path.insert(0, str(Path(__file__).parents[1]))
from ledger_tools import NOW, a_change, a_hold, make_key, organization
from postgres_tools import PostgresServer, postgres_server

CALLERS: Final = (1, 32, 256)
REPLICAS: Final = (1, 2, 4)
REPLICA_CALLERS: Final = 32
CONNECTIONS: Final = 32  # of the bare side: more only wait for each other's row
MOST_SPREAD: Final = 0.15
AMOUNT_MICROS: Final = 400_000
GOALS: Final = {("SQLite", 32): 5.0, ("PostgreSQL", 32): 1.0, ("PostgreSQL", 1): 0.5}
BARE: Final = (
    "CREATE TABLE bare_balances (id TEXT PRIMARY KEY, limit_micros BIGINT, held_micros BIGINT)",
    "CREATE TABLE bare_holds (id TEXT PRIMARY KEY, amount_micros BIGINT)",
    "INSERT INTO bare_balances VALUES ('one', 1000000000000000000, 0)",
)
TAKE: Final = (
    "UPDATE bare_balances SET held_micros = held_micros + $1"
    " WHERE id = 'one' AND held_micros + $1 <= limit_micros"
)
WRITE: Final = "INSERT INTO bare_holds VALUES ($1, $2)"

Hold = Callable[[str], Awaitable[None]]


@dataclass
class Side:
    """What one of the two did in each round."""

    hold: Hold
    rates: list[float] = field(default_factory=list)
    p50_ms: list[float] = field(default_factory=list)
    p99_ms: list[float] = field(default_factory=list)

    async def round(self, callers: int, seconds: float, name: str) -> None:
        until, taken = time.perf_counter() + seconds, []

        async def call(caller: int) -> None:
            number = 0
            while (begun := time.perf_counter()) < until:
                await self.hold(f"{name}_{caller}_{number}")
                taken.append(time.perf_counter() - begun)
                number += 1

        begun = time.perf_counter()
        await asyncio.gather(*map(call, range(callers)))
        self.rates.append(len(taken) / (time.perf_counter() - begun))
        cuts = statistics.quantiles(taken, n=100)
        self.p50_ms.append(cuts[49] * 1000)
        self.p99_ms.append(cuts[98] * 1000)

    @property
    def rate(self) -> float:
        return statistics.median(self.rates)

    @property
    def spread(self) -> float:
        return (max(self.rates) - min(self.rates)) / self.rate

    def shown(self) -> str:
        p50, p99 = statistics.median(self.p50_ms), statistics.median(self.p99_ms)
        return f"{self.rate:,.0f}/s ({p50:.2f}, {p99:.2f} ms)"


async def ours_on(database: Database) -> Hold:
    await migrate(database, now=NOW)
    await database.run(partial(make_key, "key_a"))

    async def take(name: str) -> None:
        await database.run(partial(hold, a_hold(name), now=NOW))

    return take


@asynccontextmanager
async def bare_sqlite(path: Path) -> AsyncIterator[Hold]:
    lock = asyncio.Lock()
    async with aiosqlite.connect(path, isolation_level=None) as connection:
        for text in ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", *BARE):
            await connection.execute(text)

        async def take(name: str) -> None:
            async with lock:
                await connection.execute("BEGIN IMMEDIATE")
                taken = await connection.execute(TAKE, {"1": AMOUNT_MICROS})
                assert taken.rowcount == 1
                await connection.execute(WRITE, {"1": name, "2": AMOUNT_MICROS})
                await connection.execute("COMMIT")

        yield take


@asynccontextmanager
async def bare_postgres(url: str) -> AsyncIterator[Hold]:
    # Without the questions that a pool asks when a connection comes back: they would slow it down.
    connections = [await asyncpg.connect(url) for _ in range(CONNECTIONS)]
    for text in BARE:
        await connections[0].execute(text)
    free: asyncio.Queue[asyncpg.Connection] = asyncio.Queue()
    for connection in connections:
        free.put_nowait(connection)

    async def take(name: str) -> None:
        connection = await free.get()
        try:
            async with connection.transaction():
                assert await connection.execute(TAKE, AMOUNT_MICROS) == "UPDATE 1"
                await connection.execute(WRITE, name, AMOUNT_MICROS)
        finally:
            free.put_nowait(connection)

    yield take
    for connection in connections:
        await connection.close()


async def compare(engine: str, ours: Hold, bare: Hold, *, rounds: int, seconds: float) -> Table:
    table = Table("callers", "hold", "bare hold", "ratio", "goal", "verdict", title=engine)
    for callers in CALLERS:
        sides = Side(ours), Side(bare)
        for number in range(rounds + 1):
            for side in sides:
                await side.round(callers, seconds, f"{callers}_{number}")
        for side in sides:  # the first round warms up
            side.rates.pop(0)
        ratio = sides[0].rate / sides[1].rate
        goal = GOALS.get((engine, callers))
        spread = max(side.spread for side in sides)
        table.add_row(
            str(callers),
            *(side.shown() for side in sides),
            f"{ratio:.2f}",
            "" if goal is None else f">= {goal:g}",
            verdict(ratio, goal, spread),
        )
    return table


def verdict(ratio: float, goal: float | None, spread: float) -> str:
    if goal is None:
        return f"spread {spread:.0%}"
    if spread > MOST_SPREAD:
        return f"inconclusive: spread {spread:.0%}"
    return f"{'met' if ratio >= goal else 'MISSED'} (spread {spread:.0%})"


async def replicas(url: str, count: int, *, seconds: float) -> list[str]:
    """Let replicas take holds until the organization's budget refuses; return a row of figures."""
    limit_micros = AMOUNT_MICROS * round(1_000 * seconds) + AMOUNT_MICROS // 2
    async with open_postgres(url, connections=3) as database:
        await ours_on(database)
        before = (await database.read(organization))[1]
        budget = partial(
            set_budget,
            a_change(f"budget for {count}"),
            THE_ORGANIZATION,
            period="total",
            limit_micros=before + limit_micros,
        )
        await database.run(budget)
        command = [sys.executable, __file__, "--replica", url]
        running = [
            await asyncio.create_subprocess_exec(
                *command, f"{count}_{number}", stdout=subprocess.PIPE
            )
            for number in range(count)
        ]
        told = [json.loads((await one.communicate())[0]) for one in running]
        taken = sum(one["taken"] for one in told)
        held = (await database.read(organization))[1] - before
        over = held - limit_micros
        assert held == taken * AMOUNT_MICROS, (held, taken)
        clean = not await database.read(audit)
    seconds = max(one["until"] for one in told) - min(one["since"] for one in told)
    groups = sum(one["groups"] for one in told)
    return [
        str(count),
        f"{taken / seconds:,.0f}/s",
        f"{taken / groups:.1f}",
        f"{sum(one['begin_seconds'] for one in told) / groups * 1000:.1f} ms",
        f"none, {-over / AMOUNT_MICROS:.1f} holds left" if over <= 0 and clean else "OVERSPENT",
    ]


async def be_replica(url: str, name: str) -> None:
    async with open_postgres(url, connections=3) as database:
        taken = 0

        async def call(caller: int) -> None:
            nonlocal taken
            number = 0
            while True:
                wanted = a_hold(f"{name}_{caller}_{number}")
                try:
                    await database.run(partial(hold, wanted, now=NOW))
                except Refusal:
                    return
                taken, number = taken + 1, number + 1

        since = time.time()
        await asyncio.gather(*map(call, range(REPLICA_CALLERS)))
        assert isinstance(database, PostgresDatabase)
        figures = database.figures
        told = {
            "taken": taken,
            "since": since,
            "until": time.time(),
            "groups": figures.groups,
            "begin_seconds": figures.begin_seconds,
        }
        sys.stdout.write(json.dumps(told))


async def main(rounds: int, seconds: float, engines: list[str]) -> None:
    console = Console()
    if "sqlite" in engines:
        with tempfile.TemporaryDirectory() as folder:
            console.print(await on_sqlite(Path(folder), rounds=rounds, seconds=seconds))
    if "postgres" in engines:
        with postgres_server(options="") as server:
            console.print(await on_postgres(server, rounds=rounds, seconds=seconds))
            console.print(await of_replicas(server, seconds=seconds))


async def on_sqlite(folder: Path, *, rounds: int, seconds: float) -> Table:
    async with (
        open_sqlite(folder / "ours.db") as database,
        bare_sqlite(folder / "bare.db") as bare,
    ):
        ours = await ours_on(database)
        return await compare("SQLite", ours, bare, rounds=rounds, seconds=seconds)


async def on_postgres(server: PostgresServer, *, rounds: int, seconds: float) -> Table:
    url = server.make("holds")
    async with open_postgres(url, connections=3) as database, bare_postgres(url) as bare:
        ours = await ours_on(database)
        return await compare("PostgreSQL", ours, bare, rounds=rounds, seconds=seconds)


async def of_replicas(server: PostgresServer, *, seconds: float) -> Table:
    table = Table(
        *("replicas", "holds", "holds per transaction", "wait for the lock, each"),
        "held above the budget",
        title="replicas on one budget, PostgreSQL",
    )
    for count in REPLICAS:
        table.add_row(*await replicas(server.make(f"of_{count}"), count, seconds=seconds))
    return table


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=2.0)
    parser.add_argument("--engines", nargs="+", default=["sqlite", "postgres"])
    parser.add_argument("--replica", nargs=2, metavar=("URL", "NAME"), help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.replica:
        uvloop.run(be_replica(*given.replica))
    else:
        uvloop.run(main(given.rounds, given.seconds, given.engines))
