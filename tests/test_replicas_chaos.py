"""Are several gateways on one database and one store as exact as one, whatever happens to them?"""

import asyncio
import os
import random
import sys
from collections import Counter
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import network_tools
import pytest
from conftest import a_change
from object_servers import ObjectServer
from postgres_tools import PostgresServer, postgres_server
from replica_books import (
    Books,
    check_budgets,
    check_content,
    check_executions,
    check_orphans,
    check_purchases,
    defects,
    read_books,
)
from replica_clients import BOUGHT, REFUSED, Client
from replica_faults import KINDS, PAST_ALL_LEASES_SECONDS, Faults
from replica_tools import Cluster, cluster

from gateway.billing.audit_log import Change
from gateway.billing.balances import KEY, ORGANIZATION, PROJECT
from gateway.billing.budgets import set_budget
from gateway.billing.levels import find_level
from gateway.clock import system_clock
from gateway.db.script import Script
from gateway.errors import DatabaseUnavailable

CHAOS_SECONDS = int(os.environ.get("CHAOS_SECONDS", "30"))
CHAOS_SEED = int(os.environ.get("CHAOS_SEED", "1"))
CLIENTS_OF = {"north": 3, "south": 3}
POST_SECONDS = 3
# Of each level, every two seconds: so each of them refuses something.
RAISE_SECONDS = 2
RAISES = {
    (ORGANIZATION, "month"): 2_400_000,
    (PROJECT, "total"): 1_600_000,
    (KEY, "day"): 1_200_000,
}
UNSETTLED = (
    "SELECT id FROM videos WHERE due_at IS NOT NULL AND orphaned_at IS NULL UNION ALL"
    " SELECT id FROM assets WHERE due_at IS NOT NULL"
    " OR (removed_at IS NOT NULL AND purged_at IS NULL)"
)
SETTLE_SECONDS = 90


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    """A PostgreSQL of our own, which may crash; it syncs what it commits."""
    with postgres_server(options="") as made:
        yield made


@pytest.mark.timeout(240 + 3 * CHAOS_SECONDS)
@pytest.mark.filterwarnings("ignore:The Sora API:DeprecationWarning")
async def test_whatever_happens_to_three_replicas_the_books_agree_with_the_upstream_and_all_clients(
    server: PostgresServer, moto: ObjectServer, tmp_path: Path
) -> None:
    async with cluster(
        tmp_path,
        postgres=server,
        objects=moto,
        namespaces=network_tools.missing() is None,
        upstream_post_seconds=POST_SECONDS,
        database_connections=6,
    ) as made:
        faults = Faults(made, CHAOS_SEED, kernel=network_tools.missing() is None)
        clients = await opened(made)
        try:
            await chaos(made, faults, clients)
            intents = [intent for client in clients for intent in client.intents]
            books = await read_books(made, intents)
            await check(books, made)
        finally:
            sys.stdout.write(f"CHAOS_SEED={CHAOS_SEED} CHAOS_SECONDS={CHAOS_SECONDS}\n")
            sys.stdout.write("\n".join(faults.said) + "\n")
        assert sum(client.downloads for client in clients) > 0
        assert sum(client.deletions for client in clients) > 0
        assert all(any(kind in said for said in faults.said) for kind in KINDS)


async def opened(made: Cluster) -> list[Client]:
    """Return clients with keys of two projects, and budgets that will not do for all of them."""
    clients = []
    for project, count in CLIENTS_OF.items():
        for number in range(count):
            name = f"{project}{number}"
            chance = random.Random(f"{CHAOS_SEED} {name}")
            clients.append(Client(name, await made.key(project, name), project, made, chance))
    return clients


async def chaos(made: Cluster, faults: Faults, clients: list[Client]) -> None:
    """Let clients buy while faults happen; return once everything is whole and has settled."""
    await made.stage.control.settings(queue_seconds=0.5, generation_seconds=1)
    await made.start()
    closing = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        raising = group.create_task(raise_budgets(made, clients))
        shopping = [group.create_task(client.shop(closing)) for client in clients]
        await faults.happen(CHAOS_SECONDS)
        closing.set()
        while (await asyncio.wait(shopping, timeout=2))[1]:
            # For those who wait for a submit whose replica has died.
            made.stage.jump(PAST_ALL_LEASES_SECONDS)
        raising.cancel()
    async with asyncio.timeout(SETTLE_SECONDS):
        made.stage.jump(PAST_ALL_LEASES_SECONDS)
        while await made.rows(UNSETTLED):
            await asyncio.sleep(1)
            made.stage.jump(PAST_ALL_LEASES_SECONDS)


async def check(books: Books, made: Cluster) -> None:
    check_budgets(books)
    check_purchases(books)
    orphans, ends = check_orphans(books), check_executions(books)
    kept = await check_content(books, made)
    assert list(defects(made)) == []
    told = Counter(intent.told for intent in books.intents)
    sys.stdout.write(f"{dict(told)} orphans {dict(orphans)} executed {dict(ends)} kept {kept}\n")
    assert told[BOUGHT] > CHAOS_SECONDS / 5
    assert told[REFUSED] > 0


async def raise_budgets(made: Cluster, clients: list[Client]) -> None:
    """Let there be a little more money every now and then, until cancelled."""
    clock, times = system_clock(), 0
    named = {
        ORGANIZATION: [""],
        PROJECT: list(CLIENTS_OF),
        KEY: [client.key.id for client in clients],
    }
    async with made.books() as database:
        while True:
            times += 1
            for (level, period), more in RAISES.items():
                for one in named[level]:
                    script = partial(
                        budget, a_change(clock), level, one, period=period, micros=times * more
                    )
                    try:
                        await database.run(script)
                    except DatabaseUnavailable:
                        continue
            await asyncio.sleep(RAISE_SECONDS)


def budget(change: Change, level: str, named: str, *, period: str, micros: int) -> Script[None]:
    found = yield from find_level(level, named=named)
    assert found is not None
    yield from set_budget(change, found, period=period, limit_micros=micros)
