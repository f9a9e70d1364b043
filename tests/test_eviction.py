"""Is just that let go which is too old or too much, and never what is pinned?"""

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from databases import look, opened_at, url_of
from hypothesis import given
from hypothesis import strategies as st
from ledger_tools import KEYS, NOW, a_change, bench, examples, opened
from retention_tools import DELETED, DUE, KEPT, Content, a_retaining, put, removed

from gateway.db.database import Database
from gateway.db.script import Script, Sql
from gateway.mirror.eviction import (
    BATCH,
    Aged,
    find_aged,
    find_beyond,
    limited_projects,
    next_aged,
    oldest,
    remove,
)
from gateway.mirror.gc import find_records
from gateway.mirror.keeping import Retention, list_retentions, set_retention
from gateway.mirror.purge import find_to_purge, write_purged
from gateway.mirror.retention import evict
from gateway.store.folder import FolderStore

PROJECTS = sorted(set(KEYS.values()))
RETENTIONS = st.builds(
    Retention,
    keep_seconds=st.sampled_from([None, 0, 1, 3, 6]),
    keep_bytes=st.sampled_from([None, 0, 3, 10]),
)
CONTENTS = st.lists(
    st.builds(
        Content,
        number=st.just(0),
        project_id=st.sampled_from(PROJECTS),
        mirrored_at=st.integers(NOW - 8, NOW),  # few moments: many share one
        size_bytes=st.integers(0, 5),
        pinned=st.booleans(),
        state=st.sampled_from([KEPT, KEPT, KEPT, KEPT, DUE, DELETED]),
    ),
    max_size=20,
).map(lambda contents: [replace(one, number=number) for number, one in enumerate(contents)])


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


def forget() -> Script[None]:
    for table in ("assets", "videos", "retentions"):
        yield Sql(f"DELETE FROM {table}")


def written(contents: Sequence[Content], retentions: Mapping[str, Retention]) -> Script[None]:
    yield from forget()
    yield from put(contents)
    for number, (project_id, retention) in enumerate(retentions.items()):
        change = a_change(f"retention {number}")
        yield from set_retention(change, project_id=project_id, retention=retention)
    yield Sql("DELETE FROM audit_log")


class Model:
    """The rules as a person would say them."""

    def __init__(self, contents: Sequence[Content]) -> None:
        kept = [one for one in contents if one.state == KEPT]
        self.kept = sorted(kept, key=lambda one: (one.mirrored_at, one.id))
        self.removed = {one.id: "deletion" for one in contents if one.state == DELETED}
        self.crowded: set[str] = set()

    def let_go(self, one: Content, reason: str) -> None:
        self.kept.remove(one)
        self.removed[one.id] = reason

    def age(self, retentions: Mapping[str, Retention], keep_seconds: int) -> None:
        for one in list(self.kept):
            own = retentions[one.project_id].keep_seconds
            limit = keep_seconds if own is None else own
            if limit and NOW - one.mirrored_at > limit and not one.pinned:
                self.let_go(one, "age")

    def space(self, whose: str, limit: int) -> None:
        def mine() -> list[Content]:
            return [one for one in self.kept if whose in {"", one.project_id}]

        while sum(one.size_bytes for one in mine()) > limit:
            unpinned = [one for one in mine() if not one.pinned]
            if not unpinned:
                self.crowded.add(whose)
                return
            self.let_go(unpinned[0], "space")


def test_what_goes_is_what_the_rules_say(tmp_path: Path) -> None:
    store = FolderStore(tmp_path / "content")
    with bench(tmp_path / "gateway.db") as made:

        @examples(300)
        @given(
            contents=CONTENTS,
            retentions=st.fixed_dictionaries(dict.fromkeys(PROJECTS, RETENTIONS)),
            keep_seconds=st.integers(0, 8),
            keep_bytes=st.integers(0, 30),
        )
        def holds(
            contents: list[Content],
            retentions: dict[str, Retention],
            keep_seconds: int,
            keep_bytes: int,
        ) -> None:
            made.run(partial(written, contents, retentions))
            model = Model(contents)
            model.age(retentions, keep_seconds)
            for project_id in PROJECTS:
                limit = retentions[project_id].keep_bytes
                if limit is not None:
                    model.space(project_id, limit)
            if keep_bytes:
                model.space("", keep_bytes)
            retaining = a_retaining(
                made.database, store, keep_seconds=keep_seconds, keep_bytes=keep_bytes
            )
            for _ in range(2):
                crowded = made._runner.run(evict(retaining, crowded=frozenset()))
                assert made.run(removed) == model.removed
                assert crowded == model.crowded

        holds()


def test_the_oldest_are_taken_until_they_hold_the_excess() -> None:
    sized = [("a", 2), ("b", 0), ("c", 2), ("d", 2)]
    taken = {excess: "".join(oldest(sized, excess_bytes=excess)) for excess in range(8)}
    assert list(taken.values()) == ["", "a", "a", "abc", "abc", "abcd", "abcd", "abcd"]


async def test_more_than_a_batch_goes_in_as_many_batches_as_it_takes(
    database: Database, tmp_path: Path
) -> None:
    young = [Content(number, mirrored_at=NOW) for number in range(100)]
    old = [Content(100 + number, mirrored_at=NOW - 50) for number in range(2 * BATCH + 10)]
    await database.run(partial(put, [*young, *old]))
    steps: list[str] = []
    retaining = a_retaining(
        database, FolderStore(tmp_path / "content"), keep_seconds=49, on_step=steps.append
    )
    assert await evict(retaining, crowded=frozenset()) == frozenset()
    assert set(await database.read(removed)) == {one.id for one in old}
    assert steps == ["retention.removed"] * 3


async def test_two_processes_that_decide_at_once_let_go_of_no_more_than_one_alone(
    database: Database, tmp_path: Path
) -> None:
    contents = [Content(number, mirrored_at=NOW - number) for number in range(3 * BATCH)]
    await database.run(partial(put, contents))
    store = FolderStore(tmp_path / "content")
    async with opened_at(tmp_path / "gateway.db") as other, asyncio.TaskGroup() as group:
        for one in (database, other, database, other):
            group.create_task(evict(a_retaining(one, store, keep_bytes=100), crowded=frozenset()))
    gone = await database.read(removed)
    assert gone == {one.id: "space" for one in contents[100:]}


async def test_what_was_pinned_or_removed_since_it_was_chosen_is_not_removed(
    database: Database,
) -> None:
    await database.run(
        partial(put, [Content(1), Content(2, pinned=True), Content(3, state=DELETED)])
    )
    await database.run(partial(put, [Content(4, state=DUE)]))
    chosen = [f"asset_{number:04}" for number in (1, 2, 3, 4, 5)]
    script = partial(remove, chosen, reason="age", now=NOW)
    assert (await database.run(script)).assets == 1
    assert (await database.run(script)).assets == 0
    assert await database.read(removed) == {"asset_0001": "age", "asset_0003": "deletion"}


async def test_keeping_for_longer_than_there_has_been_time_keeps_everything(
    database: Database, tmp_path: Path
) -> None:
    await database.run(partial(put, [Content(1, mirrored_at=1)]))
    retaining = a_retaining(database, FolderStore(tmp_path / "content"), keep_seconds=10**30)
    await evict(retaining, crowded=frozenset())
    assert await database.read(removed) == {}


# What each statement of a script is answered with before the next, and how it is to be found.
PLANS: dict[str, tuple[Script[Any], list[Any], list[str]]] = {
    "next_aged": (
        next_aged(after="", keep_seconds=1, now=2),
        [],
        ["USING INDEX assets_kept (project_id=? AND mirrored_at>? AND mirrored_at<?)"],
    ),
    "find_aged": (
        find_aged(Aged("proj_a", 1)),
        [],
        ["USING INDEX assets_kept (project_id=? AND mirrored_at>? AND mirrored_at<?)"],
    ),
    "limited_projects": (limited_projects(after=""), [], ["(project_id>?)"]),
    "find_beyond, all": (
        find_beyond(project_id=None, keep_bytes=1),
        [[(2,)]],
        [
            "SEARCH assets USING COVERING INDEX assets_by_age",
            "SEARCH assets USING INDEX assets_by_age",
        ],
    ),
    "find_beyond, project": (
        find_beyond(project_id="proj_a", keep_bytes=1),
        [[(2,)]],
        [
            "SEARCH assets USING COVERING INDEX assets_kept (project_id=?",
            "SEARCH assets USING INDEX assets_kept (project_id=?",
        ],
    ),
    "remove": (
        remove(["a", "b"], reason="age", now=1),
        [],
        ["SEARCH assets USING INDEX sqlite_autoindex_assets_1 (id=?)"],
    ),
    "find_to_purge": (
        find_to_purge(
            removed_for="age",
            after={"removed_at": 1, "id": "a"},
            limit=1,
        ),
        [],
        ["SEARCH assets USING COVERING INDEX assets_to_purge (removed_for=? AND (removed_at,id)>"],
    ),
    "write_purged": (write_purged(["a"], now=1), [], ["assets_1 (id=?)"]),
    "find_records": (find_records(["a", "b"]), [], ["assets_1 (id=?)"]),
    "list_retentions": (
        list_retentions(project_id="proj_a", limit=1),
        [],
        ["SEARCH videos USING INDEX videos_pinned (project_id=?)"],
    ),
}
SMALL = ("projects", "retentions", "kept", "pinned")


def asked(script: Script[Any], answers: list[Any]) -> Iterator[Sql]:
    yield next(script)
    for answer in answers:
        yield script.send(answer)


@pytest.mark.sqlite("it reads the plans of SQLite")
@pytest.mark.parametrize("name", sorted(PLANS))
async def test_nothing_is_looked_for_but_on_an_index(
    database: Database, tmp_path: Path, name: str
) -> None:
    del database  # it has the tables
    script, answers, wanted = PLANS[name]
    url = url_of(tmp_path / "gateway.db")
    plans = [
        [str(row["detail"]) for row in look(url, f"EXPLAIN QUERY PLAN {sql.text}", *sql.args)]
        for sql in asked(script, answers)
    ]
    assert len(plans) == len(wanted)
    for plan, part in zip(plans, wanted, strict=True):
        assert any(part in line for line in plan), plan
        scans = [line for line in plan if line.startswith("SCAN")]
        assert all(line.split()[1] in SMALL for line in scans), plan
        assert not any("ORDER BY" in line for line in plan), plan
