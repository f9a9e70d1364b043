"""Does the ledger stay fast as it grows? Prints ratios, a million videos beside none.

    python tests/benchmarks/growth.py [--videos 1000000] [--folder FOLDER]

One SQLite file with a million videos and three entries each, spread over projects, keys, models,
sizes and 90 days, beside a file with the same projects and keys and no video, and one with a
thousand. Four operations run in turn on all, in batches, interleaved; a figure is the median of its
batches. The goal is at most three times as long; a spread above 15 % of any side's batches makes a
figure inconclusive. A page of nothing is not a page of twenty videos: the second ratio, to the file
with a thousand, compares answers of one size.
"""

import argparse
import asyncio
import itertools
import json
import random
import sqlite3
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import AsyncExitStack, closing
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

from rich.console import Console
from rich.progress import track
from rich.table import Table

from gateway.billing.audit import audit
from gateway.billing.audit_log import COMMAND, Change
from gateway.billing.balances import Account, BalanceName, accounting_day, look
from gateway.billing.costs import MODEL, PROJECT, Asked, LineItem, read_costs, row_names
from gateway.billing.key_values import VIRTUAL, new_value
from gateway.billing.ledger import Hold
from gateway.billing.levels import make_key
from gateway.db.database import Database
from gateway.db.migrate import migrate
from gateway.db.script import Script
from gateway.db.sqlite import open_sqlite
from gateway.videos.attempts import Intent
from gateway.videos.listing import list_page
from gateway.videos.opening import Submit, open_submit

NOW = int(datetime(2026, 11, 30, 12, tzinfo=UTC).timestamp())
DAYS = 90
PROJECTS, KEYS = 20, 5
CLIP_SECONDS = 4
ROWS_AT_ONCE = 10_000
BATCHES, OPERATIONS, WARM_UP = 15, 100, 2
GOAL = 3.0
FEW = 1_000
MOST_SPREAD = 0.15
SEED = 2026


class Item(NamedTuple):
    """What is bought, at which price."""

    model: str
    size: str
    micros: int


ITEMS = [
    Item("sora-2", "720x1280", 400_000),
    Item("sora-2", "1280x720", 400_000),
    Item("sora-2-pro", "720x1280", 1_200_000),
    Item("sora-2-pro", "1024x1792", 2_000_000),
    Item("sora-2-pro", "1920x1080", 2_800_000),
]


@dataclass(frozen=True)
class Side:
    """One of the two databases, and a counter for fresh ids."""

    database: Database
    numbers: Iterator[int]


def project_id(number: int) -> str:
    return f"proj_{number:03}"


def key_id(project: int, number: int) -> str:
    return f"key_{project:03}_{number}"


def make_keys() -> Script[None]:
    for project, key in itertools.product(range(PROJECTS), range(KEYS)):
        change = Change(f"change_{project}_{key}", NOW, COMMAND, "benchmark")
        yield from make_key(
            change,
            project=project_id(project),
            name=f"key {key}",
            value=new_value(VIRTUAL),
            key_id=key_id(project, key),
            account_id=f"account_{project}_{key}",
            project_id=project_id(project),
        )


def fill(path: Path, videos: int) -> None:
    """Write videos, holds, entries and their sums straight into the file."""
    chance = random.Random(SEED)
    balances: dict[BalanceName, int] = defaultdict(int)
    costs: dict[tuple[str, ...], list[int]] = defaultdict(lambda: [0, 0])
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("PRAGMA synchronous = OFF")
        rows = Rows()
        for number in track(range(videos), description="filling", console=Console(stderr=True)):
            created_at = NOW - chance.randrange(DAYS * 86_400)
            project, key = chance.randrange(PROJECTS), chance.randrange(KEYS)
            item = chance.choice(ITEMS)
            account = Account(project_id(project), key_id(project, key), accounting_day(created_at))
            rows.add(number, account, item, created_at)
            for name in account.balances():
                balances[name] += item.micros
            for told in row_names(account, LineItem(item.model, item.size, "create")):
                costs[told][0] += item.micros
                costs[told][1] += 1
            if len(rows.videos) == ROWS_AT_ONCE:
                rows.write(connection)
        rows.write(connection)
        connection.executemany(
            "INSERT INTO balances VALUES (?, ?, ?, ?, ?, NULL, ?, 0)",
            [
                (name.id, name.level, name.level_id, name.period, name.start, micros)
                for name, micros in balances.items()
            ],
        )
        connection.executemany(
            f"INSERT INTO costs VALUES ({', '.join('?' * 13)})",
            [
                (*told, micros, micros, micros, count, CLIP_SECONDS * count)
                for told, (micros, count) in costs.items()
            ],
        )
        connection.commit()


@dataclass
class Rows:
    """Rows that wait to be written."""

    holds: list[Any] = field(default_factory=list)
    entries: list[Any] = field(default_factory=list)
    videos: list[Any] = field(default_factory=list)
    upstream_ids: list[Any] = field(default_factory=list)

    def add(self, number: int, account: Account, item: Item, created_at: int) -> None:
        """Add a video that was held, settled a micro too low, and corrected."""
        hold, video, shown = f"hold_{number}", f"vid_{number}", f"video_{number:08}"
        who = (account.project_id, account.key_id)
        micros, less = item.micros, item.micros - 1
        self.holds.append(
            (
                *(hold, *who, account.accounting_day, "create", item.model, item.size),
                *(CLIP_SECONDS, "second", micros // CLIP_SECONDS, "0" * 64, 0, 0),
                *(micros, 1_000_000, "list", micros, "settled", micros, created_at, created_at),
            )
        )
        self.entries += [
            (f"{hold}/hold", hold, "hold", micros, 0, 0, 0, "", created_at),
            (f"{hold}/end", hold, "settle", -micros, less, less, less, "completed", created_at),
            (f"{hold}/final", hold, "adjust", 0, 1, 1, 1, "ended_before", created_at),
        ]
        body = json.dumps({"id": shown, "object": "video", "status": "completed"})
        self.videos.append(
            (
                *(video, hold, *who, "default", shown, "video", "{}", "completed", body),
                *(created_at, created_at, created_at, created_at, 0, 3),
            )
        )
        self.upstream_ids.append(("default", shown, video))

    def write(self, connection: sqlite3.Connection) -> None:
        """Write them, in the order in which they refer to each other."""
        columns = (
            "id, hold_id, project_id, key_id, upstream, upstream_id, kind, fields, status, object,"
            " created_at, submit_lease_ends_at, recorded_at, completed_at, missing_polls,"
            " claim_number"
        )
        for table, waiting in (
            ("holds", self.holds),
            ("entries", self.entries),
            (f"videos ({columns})", self.videos),
            ("upstream_ids", self.upstream_ids),
        ):
            if waiting:
                marks = ", ".join("?" * len(waiting[0]))
                connection.executemany(f"INSERT INTO {table} VALUES ({marks})", waiting)
            waiting.clear()


async def hold(side: Side) -> None:
    number = next(side.numbers)
    account = Account(
        project_id(number % PROJECTS), key_id(number % PROJECTS, number % KEYS), accounting_day(NOW)
    )
    submit = Submit(
        video_id=f"fresh_{number}",
        intent=Intent(fields_sha256=f"fields {number}"),
        hold=Hold(
            id=f"fresh_hold_{number}",
            account=account,
            operation="create",
            model="sora-2",
            size="720x1280",
            clip_seconds=4,
            unit="second",
            rate_micros=100_000,
            rate_card_sha256="0" * 64,
            images_micros=0,
            moderated_is_billed=False,
            list_micros=400_000,
        ),
        upstream="default",
        kind="video",
        fields={},
        lease_ends_at=NOW + 240,
    )
    await side.database.run(partial(open_submit, submit, now=NOW))


async def list_videos(side: Side) -> None:
    project = project_id(next(side.numbers) % PROJECTS)
    await side.database.read(
        partial(list_page, project_id=project, limit=20, newest_first=True, after=None)
    )


async def spend_of_a_key(side: Side) -> None:
    number = next(side.numbers) % PROJECTS
    account = Account(project_id(number), key_id(number, 1), accounting_day(NOW))
    await side.database.read(partial(look, account))


async def costs_of_a_month(side: Side) -> None:
    asked = Asked(date(2026, 10, 1), date(2026, 10, 31), group_by=(PROJECT, MODEL), names=False)
    await side.database.read(partial(read_costs, asked))


OPERATIONS_BY_NAME: dict[str, Callable[[Side], Any]] = {
    "a hold": hold,
    "a list page": list_videos,
    "a key's spend": spend_of_a_key,
    "a month's costs by project and model": costs_of_a_month,
}


async def batch_seconds(side: Side, operation: Callable[[Side], Any]) -> float:
    begun = time.perf_counter()
    for _ in range(OPERATIONS):
        await operation(side)
    return time.perf_counter() - begun


async def compare(folder: Path, videos: int) -> bool:
    sides = []
    async with AsyncExitStack() as stack:
        for name, count in (("empty", 0), ("thousand", FEW), ("full", videos)):
            path = folder / f"{name}.db"
            async with open_sqlite(path) as database:
                await migrate(database, now=NOW)
                await database.run(make_keys)
            if count:
                await asyncio.to_thread(fill, path, count)
            opened = await stack.enter_async_context(open_sqlite(path))
            assert not await opened.run(audit), "what was filled in does not add up"
            sides.append(Side(opened, itertools.count()))
        return await measure(sides, videos)


async def measure(sides: list[Side], videos: int) -> bool:
    table = Table(
        *("operation", "empty", f"{FEW:,} videos", f"{videos:,} videos", "to empty", "result"),
        *(f"to {FEW:,}", "result", "spread"),
    )
    met = True
    for name, operation in OPERATIONS_BY_NAME.items():
        taken: list[list[float]] = [[] for _ in sides]
        for number in range(WARM_UP + BATCHES):
            for side, times in zip(sides, taken, strict=True):
                seconds = await batch_seconds(side, operation)
                if number >= WARM_UP:
                    times.append(seconds)
        empty, few, full = (statistics.median(times) for times in taken)
        spread = max(_spread(times) for times in taken)
        results = [_result(full / beside, spread) for beside in (empty, few)]
        met = met and results == ["met", "met"]
        table.add_row(
            name,
            *(f"{seconds / OPERATIONS * 1e6:,.0f} µs" for seconds in (empty, few, full)),
            *(f"{full / empty:.2f}", results[0], f"{full / few:.2f}", results[1], f"{spread:.0%}"),
        )
    Console().print(table)
    return met


def _result(ratio: float, spread: float) -> str:
    if spread > MOST_SPREAD:
        return "inconclusive"
    return "met" if ratio <= GOAL else "missed"


def _spread(times: list[float]) -> float:
    quarters = statistics.quantiles(times, n=4)
    return (quarters[2] - quarters[0]) / quarters[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--videos", type=int, default=1_000_000)
    parser.add_argument("--folder", type=Path)
    chosen = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=chosen.folder) as folder:
        raise SystemExit(0 if asyncio.run(compare(Path(folder), chosen.videos)) else 1)


if __name__ == "__main__":
    main()
