"""Do the books of several replicas agree with what clients were told and what the upstream made?

Read once everything has settled. Entries are put into the order in which they were committed: a
transaction that writes books is alone, so its number (xmin) and the command's (cmin) tell.
"""

import hashlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from replica_clients import LOST, UNKNOWN, Intent
from replica_tools import Cluster

from gateway.billing.audit import audit
from gateway.billing.balances import Account
from gateway.db.script import Row

_WHEN = (
    "CAST(CAST({0}.xmin AS TEXT) AS BIGINT) AS written_by,"
    " CAST(CAST({0}.cmin AS TEXT) AS BIGINT) AS command"
)


@dataclass(frozen=True)
class Books:
    """What is written down everywhere, at the end.

    Attributes:
        executed: what the upstream has made.
        listed: what `video-gateway orphans list --json` says.
        stored: the bytes of every key in the store.
    """

    intents: list[Intent]
    executed: list[dict[str, Any]]
    listed: list[dict[str, Any]]
    stored: dict[str, bytes]
    videos: list[Row]
    entries: list[Row]
    budget_lines: list[Row]
    assets: list[Row]
    balances: list[Row]

    def told(self, *how: str) -> set[str]:
        """Return the prompts of the intents that ended so."""
        return {intent.prompt for intent in self.intents if intent.told in how}

    def rows_of(self, prompt: str) -> list[Row]:
        """Return the attempts at an intent that held anything."""
        return [row for row in self.videos if prompt_of(row) == prompt]

    @property
    def orphans(self) -> list[Row]:
        return [row for row in self.videos if row["orphaned_at"] is not None]


def prompt_of(row: Row) -> str:
    """Return what a row of videos was asked for with."""
    return str(json.loads(row["fields"])["prompt"])


async def read_books(made: Cluster, intents: Sequence[Intent]) -> Books:
    async with made.books() as database:
        assert await database.read(audit) == []
    return Books(
        intents=list(intents),
        executed=await made.stage.executed(),
        listed=await made.stage.orphans(),
        stored=made.contents(),
        videos=await made.rows(
            "SELECT videos.*, holds.state, holds.amount_micros, holds.settled_micros FROM videos"
            " JOIN holds ON holds.id = videos.hold_id"
        ),
        entries=await made.rows(
            f"SELECT {_WHEN.format('entries')}, entries.kind, entries.held_micros,"
            " entries.spent_micros, holds.project_id, holds.key_id, holds.accounting_day"
            " FROM entries JOIN holds ON holds.id = entries.hold_id"
        ),
        budget_lines=await made.rows(
            f"SELECT {_WHEN.format('audit_log')}, resource_id, facts_after FROM audit_log"
            " WHERE resource = 'budget'"
        ),
        assets=await made.rows(
            "SELECT assets.*, videos.upstream_id FROM assets"
            " JOIN videos ON videos.id = assets.video_id"
        ),
        balances=await made.rows("SELECT * FROM balances"),
    )


def check_budgets(books: Books) -> None:
    """Insist that at no entry was more spent and held than the budgets of that moment allowed."""
    limits: dict[str, int] = {}
    sums: Counter[tuple[str, str]] = Counter()
    lines = {_when(row): json.loads(row["facts_after"]) for row in books.budget_lines}
    named = {_when(row): row["resource_id"] for row in books.budget_lines}
    entries = {_when(row): row for row in books.entries}
    assert (len(lines), len(entries)) == (len(books.budget_lines), len(books.entries))
    for when in sorted([*lines, *entries]):
        if when in lines:
            limits[named[when]] = lines[when]["limit_micros"]
            continue
        row = entries[when]
        account = Account(row["project_id"], row["key_id"], row["accounting_day"])
        for name in account.balances():
            budget = f"{name.level}:{name.level_id}:{name.period}"
            sums[budget, name.start] += row["held_micros"] + row["spent_micros"]
            allowed = limits.get(budget, sums[budget, name.start])
            assert (budget, sums[budget, name.start] <= allowed) == (budget, True)
    for row in books.balances:
        budget = f"{row['level']}:{row['level_id']}:{row['period']}"
        total = row["spent_micros"] + row["held_micros"]
        assert (budget, sums[budget, row["period_start"]]) == (budget, total)
        assert row["limit_micros"] is None or total <= row["limit_micros"]


def _when(row: Row) -> tuple[int, int]:
    return row["written_by"], row["command"]


def check_purchases(books: Books) -> None:
    """Insist that nothing was bought twice, and that everybody was told the truth about it."""
    times = Counter(video["prompt"] for video in books.executed)
    assert [prompt for prompt, count in times.items() if count > 1] == []
    by_id = {row["upstream_id"]: row for row in books.videos if row["upstream_id"] is not None}
    made = {video["id"]: video["prompt"] for video in books.executed}
    assert {upstream_id: prompt_of(row) for upstream_id, row in by_id.items()}.items() <= (
        made.items()
    )
    for intent in books.intents:
        standing = [row for row in books.rows_of(intent.prompt) if row["state"] != "released"]
        assert len(standing) <= 1, intent
        match intent.told:
            case "bought":
                assert made[intent.video_id] == intent.prompt, intent
                assert prompt_of(by_id[intent.video_id]) == intent.prompt
            case "refused":
                assert times[intent.prompt] == 0, intent
            case "unknown":
                # Or the answer came after it had been given up waiting for: an id, or a no.
                known = all(
                    row["orphaned_at"] is not None or row["upstream_id"] is not None
                    for row in standing
                )
                assert known, intent
                assert len(standing) == 1 or times[intent.prompt] == 0, intent


def check_orphans(books: Books) -> Counter[str]:
    """Insist that every orphan was listed, and told to its client where that one was still there.

    Return how many there are of each kind.
    """
    orphans = {row["id"]: prompt_of(row) for row in books.orphans}
    assert {one["video"] for one in books.listed} == orphans.keys()
    told = books.told(UNKNOWN)
    untold = set(orphans.values()) - told
    # The replica of these died, or lost its database, before it could say so.
    without_answer = books.told(LOST) | {
        intent.prompt for intent in books.intents if "database_unavailable" in intent.why
    }
    assert untold <= without_answer
    late = told - set(orphans.values())
    happened = {video["prompt"] for video in books.executed} & set(orphans.values())
    assert len(told) - len(late) + len(untold) == len(books.listed)
    return Counter(
        listed=len(orphans),
        told=len(told),
        late=len(late),
        untold=len(untold),
        happened=len(happened),
    )


def check_executions(books: Books) -> Counter[str]:
    """Insist that what the upstream made was settled once, failed, or is an orphan."""
    ends: Counter[str] = Counter()
    by_id = {row["upstream_id"]: row for row in books.videos}
    orphans = {prompt_of(row) for row in books.orphans}
    for video in books.executed:
        row = by_id.get(video["id"])
        if row is None:
            assert video["prompt"] in orphans, video
            ends["orphan"] += 1
        else:
            ends[row["state"]] += 1
            billed = video["billed_micros"]
            assert (row["state"], row["settled_micros"] or 0) == (
                ("settled", billed) if billed else ("released", 0)
            ), video
    kinds = Counter(row["kind"] for row in books.entries)
    assert kinds["settle"] == ends["settled"]
    assert kinds["hold"] == kinds["settle"] + kinds["release"] + len(books.orphans)
    assert kinds["adjust"] == 0
    assert len(books.executed) == sum(ends.values())
    return ends


async def check_content(books: Books, made: Cluster) -> int:
    """Insist on one asset per variant of what was settled, and on its bytes; return how many."""
    rows = defaultdict(list)
    for row in books.assets:
        rows[row["video_id"], row["variant"]].append(row)
    assert all(len(same) == 1 for same in rows.values())
    settled = {row["id"] for row in books.videos if row["state"] == "settled"}
    assert {row["video_id"] for row in books.assets} == settled
    kept = {row["id"]: row for row in books.assets if row["removed_at"] is None}
    strays, missing = books.stored.keys() - kept.keys(), kept.keys() - books.stored.keys()
    assert (strays, missing) == (set(), set())
    for asset_id, row in kept.items():
        content = await made.stage.control.content(row["upstream_id"], variant=row["variant"])
        assert (row["mirrored_at"] is not None, row["size_bytes"]) == (True, len(content))
        assert row["sha256"] == hashlib.sha256(content).hexdigest()
        assert books.stored[asset_id] == content
    return len(kept)


def defects(made: Cluster) -> Iterator[dict[str, Any]]:
    """Yield what replicas have logged that nobody foresaw."""
    for replica in made.replicas:
        for life in replica.lives:
            yield from (line for line in life.lines if "exception" in line)
