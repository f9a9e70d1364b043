"""Does the ledger add up? Scripts only.

Balances and costs are sums of the entries, kept as the entries are written. An audit recomputes
all of them from the entries alone.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

from gateway.billing.balances import Account
from gateway.billing.costs import SUMS, LineItem, row_names
from gateway.db.script import Script, Sql

# A hold is a video in the costs while it costs something.
_OF_A_HOLD: Final = (
    "SELECT hold_id, SUM(held_micros) AS held_micros, SUM(spent_micros) AS spent_micros,"
    " SUM(list_micros) AS list_micros, SUM(cost_micros) AS cost_micros,"
    " CASE WHEN SUM(list_micros) > 0 THEN 1 ELSE 0 END AS videos FROM entries GROUP BY hold_id"
)


@dataclass(frozen=True, slots=True)
class Difference:
    """A sum that is not the sum of its entries.

    Attributes:
        what: table and id, such as `balances/project:proj_x:day:2026-11-22`.
        kept: what is kept, by column.
        entries: what the entries add up to.
    """

    what: str
    kept: Mapping[str, int]
    entries: Mapping[str, int]


def audit() -> Script[list[Difference]]:
    """Recompute every balance and every cost; return those that differ (none: it adds up)."""
    balances: dict[str, list[int]] = defaultdict(lambda: [0, 0])
    costs: dict[str, list[int]] = defaultdict(lambda: [0] * len(SUMS))
    rows = yield Sql(
        "SELECT holds.project_id, holds.key_id, holds.accounting_day, holds.model, holds.size,"
        " holds.operation, CAST(SUM(sums.held_micros) AS BIGINT) AS held_micros,"
        " CAST(SUM(sums.spent_micros) AS BIGINT) AS spent_micros,"
        " CAST(SUM(sums.list_micros) AS BIGINT) AS list_micros,"
        " CAST(SUM(sums.cost_micros) AS BIGINT) AS cost_micros,"
        " CAST(SUM(sums.videos) AS BIGINT) AS videos,"
        " CAST(SUM(sums.videos * holds.clip_seconds) AS BIGINT) AS clip_seconds"
        f" FROM ({_OF_A_HOLD}) AS sums JOIN holds ON holds.id = sums.hold_id"
        " GROUP BY holds.project_id, holds.key_id, holds.accounting_day, holds.model, holds.size,"
        " holds.operation"
    )
    for project_id, key_id, day, model, size, operation, *sums in rows:
        account = Account(project_id, key_id, day)
        for name in account.balances():
            _add(balances[name.id], sums[:2])
        for row_id, *_ in row_names(account, LineItem(model, size, operation)):
            _add(costs[row_id], sums[1:])
    return [
        *(yield from _compare("balances", ("held_micros", "spent_micros"), balances)),
        *(yield from _compare("costs", SUMS, costs)),
    ]


def _add(total: list[int], change: list[int]) -> None:
    for place, amount in enumerate(change):
        total[place] += amount


def _compare(
    table: str, columns: tuple[str, ...], sums: dict[str, list[int]]
) -> Script[list[Difference]]:
    rows = yield Sql(f"SELECT id, {', '.join(columns)} FROM {table} ORDER BY id")
    differences = []
    for row_id, *kept in rows:
        expected = sums.pop(row_id, [0] * len(columns))
        if kept != expected:
            differences.append(_difference(f"{table}/{row_id}", columns, kept, expected))
    nothing = [0] * len(columns)
    differences += [
        _difference(f"{table}/{row_id}", columns, nothing, missing)
        for row_id, missing in sorted(sums.items())
        if missing != nothing
    ]
    return differences


def _difference(
    what: str, columns: tuple[str, ...], kept: list[int], entries: list[int]
) -> Difference:
    return Difference(
        what=what,
        kept=dict(zip(columns, kept, strict=True)),
        entries=dict(zip(columns, entries, strict=True)),
    )
