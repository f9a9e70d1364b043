"""Does the ledger add up? Scripts, and what is made of their rows.

Balances and costs are sums of the entries, kept as the entries are written. An audit recomputes
all of them from the entries alone. With years of entries that takes a while, in which a transaction
must not be kept open and nobody else be kept waiting: so reading is one thing, and comparing what
was read another, which needs no database.
"""

from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

from gateway.billing.balances import Account
from gateway.billing.costs import SUMS, LineItem, row_names
from gateway.db.script import Rows, Script, Sql

_BALANCE: Final = ("held_micros", "spent_micros")
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


class Books(NamedTuple):
    """One state of the books: what the entries add up to, and the sums that are kept."""

    entries: Rows
    balances: Rows
    costs: Rows


def audit() -> Script[list[Difference]]:
    """Recompute every balance and every cost; return those that differ (none: it adds up).

    For books of which nobody waits for the comparison; else see read_books.
    """
    return differences_of((yield from read_books()))


def read_books() -> Script[Books]:
    """Return what an audit compares, one row for each day, project, key and line item."""
    entries = yield Sql(
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
    balances = yield Sql(f"SELECT id, {', '.join(_BALANCE)} FROM balances ORDER BY id")
    costs = yield Sql(f"SELECT id, {', '.join(SUMS)} FROM costs ORDER BY id")
    return Books(entries, balances, costs)


def differences_of(books: Books) -> list[Difference]:
    """Return the sums that are not those of the entries; it needs no database."""
    balances: dict[str, list[int]] = defaultdict(lambda: [0] * len(_BALANCE))
    costs: dict[str, list[int]] = defaultdict(lambda: [0] * len(SUMS))
    for project_id, key_id, day, model, size, operation, *sums in books.entries:
        account = Account(project_id, key_id, day)
        for name in account.balances():
            _add(balances[name.id], sums[:2])
        for row_id, *_ in row_names(account, LineItem(model, size, operation)):
            _add(costs[row_id], sums[1:])
    return [
        *_compare("balances", _BALANCE, books.balances, balances),
        *_compare("costs", SUMS, books.costs, costs),
    ]


def _add(total: list[int], change: list[int]) -> None:
    for place, amount in enumerate(change):
        total[place] += amount


def _compare(
    table: str, columns: tuple[str, ...], rows: Rows, sums: dict[str, list[int]]
) -> list[Difference]:
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
