"""What was spent on what? Scripts only.

Spend is kept by line item as it moves: one row per day, project, key, model, size and operation,
and one per month, project, model, size and operation. They are sums of the entries, changed in the
entry's own transaction and recomputed by `ledger audit`, so a report reads as many rows as there
are things to tell apart, however many videos there were.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import date
from typing import Final

from gateway.billing.balances import Account, period_start
from gateway.db.script import Row, Script, Sql

DAY: Final = "day"
PROJECT: Final = "project"
KEY: Final = "key"
MODEL: Final = "model"
SIZE: Final = "size"
OPERATION: Final = "operation"
# Model, size and operation in one text; a character has only the last.
LINE_ITEM: Final = "line_item"
_COLUMNS: Final = {
    DAY: "costs.period_start",
    PROJECT: "costs.project_id",
    KEY: "costs.key_id",
    MODEL: "costs.model",
    SIZE: "costs.size",
    OPERATION: "costs.operation",
    LINE_ITEM: "CASE costs.model WHEN '' THEN '' ELSE costs.model || ', ' END"
    " || CASE costs.size WHEN '' THEN '' ELSE costs.size || ', ' END || costs.operation",
}
GROUPS: Final = tuple(_COLUMNS)
# What the rows of a month do not tell apart.
_ONLY_BY_DAY: Final = {DAY, KEY}
SUMS: Final = ("spent_micros", "list_micros", "cost_micros", "videos", "clip_seconds")


@dataclass(frozen=True, slots=True)
class Spent:
    """A change of spend: on the basis of the hold, at list price, and at cost.

    Attributes:
        videos: how many more videos cost something now: 1, 0 or -1.
        clip_seconds: how many more seconds those are.
    """

    spent_micros: int
    list_micros: int
    cost_micros: int
    videos: int
    clip_seconds: int


@dataclass(frozen=True, slots=True)
class LineItem:
    """What it was spent on."""

    model: str
    size: str
    operation: str


@dataclass(frozen=True, slots=True)
class Asked:
    """Which costs are asked for.

    Attributes:
        first_day, last_day: accounting days, both included.
        group_by: of GROUPS; what is not named is summed over.
        project_ids, key_ids, line_items: empty: all.
        names: whether the names of grouped projects and keys are wanted too.
    """

    first_day: date
    last_day: date
    group_by: Sequence[str] = ()
    project_ids: Sequence[str] = ()
    key_ids: Sequence[str] = ()
    line_items: Sequence[str] = ()
    names: bool = True


def add_costs(account: Account, item: LineItem, change: Spent) -> Script[None]:
    """Add a change of spend to the day's and the month's row of a line item."""
    rows = sorted(row_names(account, item))
    marks = ", ".join(
        "(" + ", ".join(f"${number}" for number in range(first, first + 8)) + ", $17, $18, $19,"
        " $20, $21)"
        for first in (1, 9)
    )
    yield Sql(
        "INSERT INTO costs (id, period, period_start, project_id, key_id, model, size, operation,"
        f" spent_micros, list_micros, cost_micros, videos, clip_seconds) VALUES {marks}"
        " ON CONFLICT (id) DO UPDATE SET spent_micros = costs.spent_micros + excluded.spent_micros,"
        " list_micros = costs.list_micros + excluded.list_micros,"
        " cost_micros = costs.cost_micros + excluded.cost_micros,"
        " videos = costs.videos + excluded.videos,"
        " clip_seconds = costs.clip_seconds + excluded.clip_seconds",
        (
            *rows[0],
            *rows[1],
            change.spent_micros,
            change.list_micros,
            change.cost_micros,
            change.videos,
            change.clip_seconds,
        ),
    )


def row_names(account: Account, item: LineItem) -> Iterator[tuple[str, ...]]:
    """Yield what tells apart the two rows of a line item: id, period, start, project and so on."""
    day = date.fromisoformat(account.accounting_day)
    for period, key_id in (("day", account.key_id), ("month", "")):
        told = (
            *(period, period_start(period, day), account.project_id, key_id),
            *(item.model, item.size, item.operation),
        )
        yield (":".join(told), *told)


def read_costs(asked: Asked) -> Script[list[Row]]:
    """Return the sums of each group that was spent in, in the order of `group_by`.

    Columns: those of `group_by` by their names in GROUPS (day is an ISO date), project_name and
    key_name where asked for, and SUMS.
    """
    period = "day" if _needs_days(asked) else "month"
    where = ["costs.period = $1", "costs.period_start >= $2", "costs.period_start <= $3"]
    if period_start(period, asked.first_day) == period_start(period, asked.last_day):
        # One start: the index then has the rows in the order in which they are grouped.
        where[1:2] = ["costs.period_start = $2"]
    args = [period, asked.first_day.isoformat(), asked.last_day.isoformat()]
    for group, values in (
        (PROJECT, asked.project_ids),
        (KEY, asked.key_ids),
        (LINE_ITEM, asked.line_items),
    ):
        if values:
            marks = ", ".join(f"${len(args) + number}" for number in range(1, len(values) + 1))
            where.append(f"{_COLUMNS[group]} IN ({marks})")
            args += values
    grouped = [_COLUMNS[name] for name in asked.group_by]
    names = [f"{_COLUMNS[name]} AS {name}" for name in asked.group_by]
    source = "costs"
    for group, table in ((PROJECT, "projects"), (KEY, "keys")):
        if asked.names and group in asked.group_by:
            source += f" LEFT JOIN {table} ON {table}.id = costs.{group}_id"
            names.append(f"{table}.name AS {group}_name")
            grouped.append(f"{table}.name")
    sums = [f"CAST(COALESCE(SUM(costs.{name}), 0) AS BIGINT) AS {name}" for name in SUMS]
    grouping = f" GROUP BY {', '.join(grouped)} ORDER BY {', '.join(grouped)}" if grouped else ""
    return list(
        (
            yield Sql(
                f"SELECT {', '.join([*names, *sums])} FROM {source}"
                f" WHERE {' AND '.join(where)}{grouping}",
                tuple(args),
            )
        )
    )


def _needs_days(asked: Asked) -> bool:
    after = date.fromordinal(asked.last_day.toordinal() + 1)
    whole_months = asked.first_day.day == 1 and after.day == 1
    return bool(_ONLY_BY_DAY & {*asked.group_by}) or bool(asked.key_ids) or not whole_months
