"""How does everything get from one database into another, whatever either of them is?

Table by table in the order of the keys, what refers to a row after that row; a page is one script,
so a copy that died goes on where it was. Nobody else may write to the target. Others may write to
the source: what they change behind the copy's back is found when both sides are compared, each as
it is at one moment, and is put right by copying again.

| the target is                         | what is done                                     |
|---|---|
| without rows                          | everything is copied                             |
| an unfinished copy of this source     | what is missing, changed or deleted is put right |
| a finished copy of this source        | nothing; both sides are only compared            |
| anything else                         | refused; nothing is written to it                |
"""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from gateway.clock import Clock
from gateway.db.copies import (
    SOURCE,
    TARGET,
    Copy,
    begin_copy,
    finish_copy,
    is_unfinished,
    list_copies,
)
from gateway.db.database import Database
from gateway.db.migrate import migrate, read_migrations, standing
from gateway.db.rows import (
    change_rows,
    count_rows,
    delete_rows,
    has_rows,
    insert_rows,
    read_contents,
)
from gateway.db.script import Script
from gateway.db.tables import Table, tables_of
from gateway.db.windows import Window, windows

_NOT_COPIED = {"copies"}


class CopyRefused(Exception):
    """Nothing was copied; the text says why."""


@dataclass(frozen=True, slots=True)
class Sides:
    """The two databases, with the tables that are copied."""

    source: Database
    target: Database
    tables: tuple[Table, ...]


@dataclass(slots=True)
class Copied:
    """What one call of copy() did.

    Attributes:
        copy: the copy that it was a part of.
        rows: what was missing in the target.
        repaired: what had been changed or deleted in the source since it was copied.
        left_out: what could not be inserted, because the source was written to meanwhile.
    """

    copy: Copy
    rows: int = 0
    repaired: int = 0
    left_out: int = 0


class Difference(NamedTuple):
    """A table whose content is not the same on both sides."""

    table: str
    source_rows: int
    target_rows: int


async def prepare(source: Database, target: Database, *, clock: Clock) -> Sides:
    """Bring both to the tables of this program, and return what is copied with.

    Raises:
        CopyRefused: one of them has tables that this program does not know, and would not copy.
        SchemaError: as migrate() does.
    """
    for name, database in (("FROM", source), ("TO", target)):
        newer = (await standing(database)).newer
        if newer:
            raise CopyRefused(
                f"{name} is newer than this program: it has migration {newer[-1].number},"
                f" {newer[-1].name}; copy it with the newer program"
            )
        await migrate(database, now=clock.now())
    tables = tables_of(read_migrations())
    return Sides(source, target, tuple(one for one in tables if one.name not in _NOT_COPIED))


async def count(sides: Sides) -> int:
    """Return how many rows there are to copy."""
    return await sides.source.read(partial(count_rows, sides.tables))


async def copy(sides: Sides, *, clock: Clock, told: Callable[[int], None]) -> Copied:
    """Bring the rows of the source into the target; `told` of each page how many it has.

    What the target then has is durable, and whole only if compare() says so.

    Raises:
        CopyRefused: the target has rows that did not come from this source.
    """
    found = await _find(sides)
    copied = Copied(found or await _begin(sides, clock=clock))
    if copied.copy.finished:
        return copied
    if found is not None:
        # What refers to a row goes before it.
        for table in reversed(sides.tables):
            copied.repaired += await _repair(sides, table)
    for table in sides.tables:
        rows, left_out = await _fill(sides, table, told)
        copied.rows += rows
        copied.left_out += left_out
    return copied


async def compare(sides: Sides) -> list[Difference]:
    """Read both sides whole, each as it is at one moment; return the tables that differ."""
    script = partial(read_contents, sides.tables)
    async with asyncio.TaskGroup() as group:
        reading = [group.create_task(one.read(script)) for one in (sides.source, sides.target)]
    source, target = (task.result() for task in reading)
    return [
        Difference(name, here.rows, target[name].rows)
        for name, here in source.items()
        if here != target[name]
    ]


async def finish(sides: Sides, copied: Copied, *, clock: Clock) -> None:
    """Say on both sides that the copy is whole: from now on the target may be served from."""
    for database in (sides.source, sides.target):
        await database.run(partial(finish_copy, copied.copy.id, now=clock.now()))


async def _find(sides: Sides) -> Copy | None:
    """Return the copy that the target is of this source; None: it has no rows."""
    if await sides.source.read(is_unfinished):
        raise CopyRefused("FROM is itself an unfinished copy of another database")
    here = {copy.id for copy in await sides.source.read(partial(list_copies, SOURCE))}
    there = await sides.target.read(partial(list_copies, TARGET))
    for copy in there:
        if copy.id in here:
            return copy
        if not copy.finished:
            raise CopyRefused("TO is an unfinished copy of another database: name an empty one")
    await sides.target.read(partial(_insist_on_empty, sides.tables))
    return None


async def _begin(sides: Sides, *, clock: Clock) -> Copy:
    copy_id, now = clock.new_id("copy"), clock.now()
    await sides.source.run(partial(begin_copy, copy_id, side=SOURCE, now=now))
    await sides.target.run(partial(_begin_target, copy_id, sides.tables, now=now))
    return Copy(copy_id, finished=False)


def _begin_target(copy_id: str, tables: tuple[Table, ...], *, now: int) -> Script[None]:
    yield from _insist_on_empty(tables)
    if not (yield from begin_copy(copy_id, side=TARGET, now=now)):
        raise CopyRefused("FROM and TO are the same database")


def _insist_on_empty(tables: tuple[Table, ...]) -> Script[None]:
    for table in tables:
        if (yield from has_rows(table)):
            raise CopyRefused(
                f"TO is not empty, and is no unfinished copy of FROM: there are rows in"
                f" {table.name}. Nothing was changed; name an empty database"
            )


async def _repair(sides: Sides, table: Table) -> int:
    """Change and delete in the target what the source has otherwise; return how many rows."""
    repaired = 0
    async for window in windows(sides.source, sides.target, table):
        if window.changed or window.extra:
            await sides.target.run(partial(_put_right, table, window))
            repaired += len(window.changed) + len(window.extra)
    return repaired


async def _fill(sides: Sides, table: Table, told: Callable[[int], None]) -> tuple[int, int]:
    """Insert what the target lacks; return how many rows it lacked, and how many were left out."""
    missing = left_out = 0
    async for window in windows(sides.source, sides.target, table):
        if window.missing:
            missing += len(window.missing)
            left_out += await sides.target.run(partial(insert_rows, table, window.missing))
        told(window.rows)
    return missing - left_out, left_out


def _put_right(table: Table, window: Window) -> Script[None]:
    yield from delete_rows(table, window.extra)
    yield from change_rows(table, window.changed)
