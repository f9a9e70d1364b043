"""What does the store have that no record wants, and what becomes of it?

| the record says | the object is |
|---|---|
| nothing: there is no such record | a stray, `unknown` |
| removed and purged | a stray, `removed`: written by a mirror that was late |
| the upstream has no such variant | a stray, `absent` |
| lost before it was mirrored | a stray, `gone`; but what was found damaged may be the only copy |
| anything else: kept, due, being mirrored, to be purged | somebody's |

Only what is older than a day is a stray: a record restored from a backup, or written by a process
whose clock goes wrong, has that long to turn up. Once a day the gateway itself deletes what its own
records say it has removed. It deletes nothing else by itself: no crash of ours leaves an object
without a record, because the record is there first; so one is a sign of a lost database, of another
gateway's, or of somebody else's work, and with the wrong database a timer would delete everything.
It rings, and a person decides with `mirror gc`.
"""

from collections import Counter
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from contextlib import aclosing
from dataclasses import dataclass, field
from functools import partial
from typing import Final

from gateway.db.database import Database
from gateway.db.script import Row, Script, Sql
from gateway.store import ContentStore, Stored

STRAY_SECONDS: Final = 24 * 3600
BATCH: Final = 500

UNKNOWN: Final = "unknown"
REMOVED: Final = "removed"
ABSENT: Final = "absent"
GONE: Final = "gone"
REASONS: Final = (UNKNOWN, REMOVED, ABSENT, GONE)


@dataclass(slots=True)
class Found:
    """What a look through the store came to.

    Attributes:
        looked_at: objects in the store.
        known: those of them that have a record, whatever it says.
        young: strays that are not old enough to be one.
        strays, stray_bytes: the strays by reason.
    """

    looked_at: int = 0
    known: int = 0
    young: int = 0
    strays: Counter[str] = field(default_factory=Counter)
    stray_bytes: Counter[str] = field(default_factory=Counter)


async def collect(
    database: Database, store: ContentStore, *, delete: Collection[str], now: int
) -> Found:
    """Look through the whole store, and delete the strays that are so for one of these reasons.

    It holds a batch of names, however much there is, and can be broken off anywhere.

    Raises:
        DatabaseUnavailable, StoreUnavailable: it was broken off.
    """
    found = Found()
    async with aclosing(store.stored()) as everything:
        async for batch in _batches(everything):
            rows = await database.read(partial(find_records, [one.key for one in batch]))
            found.looked_at += len(batch)
            found.known += len(rows)
            for one in batch:
                reason = why_stray(rows.get(one.key))
                if reason is None:
                    continue
                if one.modified_at > now - STRAY_SECONDS:
                    found.young += 1
                    continue
                if reason in delete:
                    await store.delete(one.key)
                found.strays[reason] += 1
                found.stray_bytes[reason] += one.size_bytes
    return found


def find_records(keys: Sequence[str]) -> Script[Mapping[str, Row]]:
    """Return what is recorded of these keys, at most BATCH of them, where anything is."""
    marks = ", ".join(f"${number}" for number in range(1, len(keys) + 1))
    rows = yield Sql(
        f"SELECT id, absent_at, gone_at, damaged_at, purged_at FROM assets WHERE id IN ({marks})",
        tuple(keys),
    )
    return {row["id"]: row for row in rows}


def why_stray(row: Row | None) -> str | None:
    """Return why nobody wants an object with this record; None: it is somebody's."""
    if row is None:
        return UNKNOWN
    if row["purged_at"] is not None:
        return REMOVED
    if row["absent_at"] is not None:
        return ABSENT
    if row["gone_at"] is not None and row["damaged_at"] is None:
        return GONE
    return None


async def _batches(everything: AsyncGenerator[Stored, None]) -> AsyncGenerator[list[Stored], None]:
    batch: list[Stored] = []
    async for one in everything:
        batch.append(one)
        if len(batch) == BATCH:
            yield batch
            batch = []
    if batch:
        yield batch
