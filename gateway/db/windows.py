"""Where do a table and its copy in another database differ, stretch by stretch?"""

from collections.abc import AsyncIterator
from functools import partial
from typing import NamedTuple

from gateway.db.database import Database
from gateway.db.rows import PAGE_ROWS, Values, key_of, read_page
from gateway.db.tables import Table


class Window(NamedTuple):
    """What two tables have between two keys.

    Attributes:
        rows: how many the source has.
        missing: rows that only the source has.
        changed: rows that both have, as the source has them.
        extra: keys that only the target has.
    """

    rows: int
    missing: list[Values]
    changed: list[Values]
    extra: list[Values]


async def windows(source: Database, target: Database, table: Table) -> AsyncIterator[Window]:
    """Yield all stretches in the order of the keys, each as it was when it was read."""
    after: Values | None = None
    while True:
        page = partial(read_page, table, after=after)
        here, there = await source.read(page), await target.read(page)
        # Beyond a full page there may be more.
        ends = [key_of(table, rows[-1]) for rows in (here, there) if len(rows) == PAGE_ROWS]
        after = min(ends, default=None)
        left, right = (_up_to(after, table, rows) for rows in (here, there))
        yield Window(
            rows=len(left),
            missing=[row for key, row in left.items() if key not in right],
            changed=[row for key, row in left.items() if right.get(key, row) != row],
            extra=[key for key in right if key not in left],
        )
        if after is None:
            return


def _up_to(last: Values | None, table: Table, rows: list[Values]) -> dict[Values, Values]:
    keyed = {key_of(table, row): row for row in rows}
    return keyed if last is None else {key: row for key, row in keyed.items() if key <= last}
