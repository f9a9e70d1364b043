"""What do the tests of records stand on? A migrated database, and rows to put into it."""

import asyncio
import os
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

from databases import SQLITE, engine, opened_at
from hypothesis import HealthCheck, settings

from gateway.billing import levels
from gateway.billing.audit_log import COMMAND, Change
from gateway.billing.balances import (
    KEY,
    ORGANIZATION_ID,
    THE_ORGANIZATION,
    Account,
    Level,
    Standing,
    accounting_day,
)
from gateway.billing.budgets import set_budget
from gateway.billing.key_values import VIRTUAL, new_value
from gateway.billing.ledger import Hold
from gateway.billing.money import AT_LIST, Basis
from gateway.billing.projects import create_project, get_project
from gateway.db.database import Database
from gateway.db.migrate import migrate
from gateway.db.script import Script, Sql
from gateway.upstream.envelopes import RequestIds
from gateway.upstream.replies import Accepted
from gateway.videos.attempts import Intent
from gateway.videos.claims import Claim, claim_due
from gateway.videos.opening import Submit, open_submit
from gateway.videos.records import record_accepted

T = TypeVar("T")

# The last hour of a day that is the last of its month: day and month end close by.
NOW = int(datetime(2026, 11, 30, 23, 0, tzinfo=UTC).timestamp())
LEASE_SECONDS = 240
RATE_MICROS = 100_000
SIZE = "720x1280"
NO_IDS = RequestIds(provider=None, relay=None)
# Every table but the one that says which migrations were run.
TABLES = (
    *("projects", "service_accounts", "keys", "key_values", "admin_keys", "model_permissions"),
    *("limits", "request_counts", "audit_log", "budgets", "balances", "holds", "entries", "costs"),
    *("alerts", "alert_deliveries", "videos", "upstream_ids", "assets", "attempts"),
    *("retentions", "comparisons"),
)
KEYS = {"key_a": "proj_a", "key_b": "proj_a", "key_c": "proj_b"}

_PLAIN = settings(deadline=None, suppress_health_check=list(HealthCheck))
settings.register_profile("short", _PLAIN, max_examples=60, stateful_step_count=50)
settings.register_profile("long", _PLAIN, max_examples=1_000, stateful_step_count=80)
# A statement takes longer where it goes to a server and back.
EXAMPLES_ON_FILE = 6  # for one on a server


def examples(count: int) -> settings:
    """Return settings for so many examples that each have a database."""
    count = count if engine() == SQLITE else max(2, count // EXAMPLES_ON_FILE)
    return settings(_PLAIN, max_examples=count)


def profile() -> settings:
    """Return how long a state machine is to run: HYPOTHESIS_PROFILE says."""
    chosen = settings.get_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))
    if engine() == SQLITE:
        return chosen
    return settings(chosen, max_examples=chosen.max_examples // EXAMPLES_ON_FILE)


@asynccontextmanager
async def opened(path: Path) -> AsyncIterator[Database]:
    """A migrated database with three keys in two projects."""
    async with opened_at(path) as database:
        await migrate(database, now=NOW)
        for key_id in KEYS:
            await database.run(partial(make_key, key_id))
        yield database


def make_key(key_id: str) -> Script[None]:
    project_id = KEYS[key_id]
    if (yield from get_project(project_id)) is None:
        yield from create_project(
            a_change(f"change of {project_id}"),
            project_id=project_id,
            name=f"name of {project_id}",
        )
    yield from levels.make_key(
        a_change(f"change of {key_id}"),
        project=project_id,
        name=f"name of {key_id}",
        value=new_value(VIRTUAL),
        key_id=key_id,
        account_id=f"account of {key_id}",
        project_id=project_id,
    )


def a_change(change_id: str = "change", *, now: int = NOW) -> Change:
    """Somebody at a shell changes something; each change needs an id of its own."""
    return Change(change_id, now, COMMAND, "tests")


def a_level(name: str, level_id: str = ORGANIZATION_ID) -> Level:
    """The organization, one of the two projects, or one of KEYS."""
    if level_id == ORGANIZATION_ID:
        return THE_ORGANIZATION
    return Level(name, level_id, KEYS[level_id] if name == KEY else level_id)


def limited(level: Level, period: str, micros: int, *, now: int = NOW) -> Script[Standing]:
    """A budget."""
    change = a_change(f"budget {level.id} {period} {micros} {now}", now=now)
    return set_budget(change, level, period=period, limit_micros=micros)


class Bench:
    """A database for tests that are no coroutines: scripts are run one after the other."""

    def __init__(self, runner: asyncio.Runner, database: Database) -> None:
        self._runner = runner
        self.database = database

    def run(self, script: Callable[[], Script[T]]) -> T:
        return self._runner.run(self.database.run(script))


@contextmanager
def bench(path: Path) -> Iterator[Bench]:
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        database = runner.run(stack.enter_async_context(opened(path)))
        try:
            yield Bench(runner, database)
        finally:
            runner.run(stack.aclose())


def rows(text: str, *args: str | int | None) -> Script[list[dict[str, Any]]]:
    """What a statement returns, as plain dictionaries."""
    found = yield Sql(text, args)
    return [dict(row) for row in found]


def everything() -> Script[dict[str, list[dict[str, Any]]]]:
    """Every row of every table that money depends on."""
    found = {}
    for table in TABLES:
        found[table] = yield from rows(f"SELECT * FROM {table} ORDER BY 1, 2")
    return found


def dump(bench: Bench) -> dict[str, list[dict[str, Any]]]:
    return bench.run(everything)


def account(key_id: str = "key_a", *, now: int = NOW) -> Account:
    return Account(project_id=KEYS[key_id], key_id=key_id, accounting_day=accounting_day(now))


def a_hold(
    number: int | str,
    *,
    key_id: str = "key_a",
    seconds: int = 4,
    rate: int = RATE_MICROS,
    basis: Basis = AT_LIST,
    model: str = "sora-2",
    now: int = NOW,
) -> Hold:
    return Hold(
        id=f"hold_{number}",
        account=account(key_id, now=now),
        operation="create",
        model=model,
        size=SIZE,
        clip_seconds=seconds,
        unit="second",
        rate_micros=rate,
        rate_card_sha256="0" * 64,
        images_micros=0,
        moderated_is_billed=False,
        list_micros=rate * seconds,
        basis=basis,
    )


def a_submit(number: int, hold: Hold | None = None, *, now: int = NOW) -> Submit:
    return Submit(
        video_id=f"vid_{number}",
        intent=Intent(fields_sha256=f"fields of {number}"),
        hold=hold or a_hold(number, now=now),
        upstream="default",
        kind="video",
        fields={"prompt": "a cat", "model": "sora-2", "seconds": "4", "size": "720x1280"},
        lease_ends_at=now + LEASE_SECONDS,
    )


def accepted(upstream_id: str, **fields: object) -> Accepted:
    video = {"id": upstream_id, "object": "video", "status": "queued", **fields}
    return Accepted(upstream_id=upstream_id, object=video, request_ids=NO_IDS)


def followed(number: int = 1, *, now: int = NOW) -> Script[None]:
    """A video that was bought and recorded as `up_NUMBER`; its first poll is due at once."""
    yield from open_submit(a_submit(number, now=now), now=now)
    yield from record_accepted(
        f"vid_{number}", accepted(f"up_{number}"), first_poll_at=now, now=now
    )


def claim_one(*, now: int = NOW, lease_seconds: int = 60) -> Script[Claim]:
    (claim,) = yield from claim_due(limit=1, lease_ends_at=now + lease_seconds, now=now)
    return claim


def balances() -> Script[dict[str, tuple[int, int]]]:
    """Spent and held of every balance, by its id."""
    found = yield Sql("SELECT id, spent_micros, held_micros FROM balances")
    return {row["id"]: (row["spent_micros"], row["held_micros"]) for row in found}


def organization(period: str = "total", start: str = "all") -> Script[tuple[int, int]]:
    """Spent and held of the organization."""
    found = yield from balances()
    return found.get(f"organization:organization:{period}:{start}", (0, 0))
