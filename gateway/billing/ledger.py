"""How does money move, and does it add up?

A hold sets the exact price aside before anything is forwarded. It ends once: `settle` charges what
it really cost, `release` charges nothing. `adjust` corrects the spend afterwards. Each movement
appends an entry and changes the nine balances of its account in the same transaction, so that
every balance is at every moment the sum of the entries of its holds; `audit` recomputes them.

No hold ends by a timer: the upstream may still bill it.
"""

from dataclasses import dataclass
from typing import Final

from gateway.billing.budgets import Account, Standing, look, move, take
from gateway.db.script import Row, Script, Sql

HELD: Final = "held"


@dataclass(frozen=True, slots=True)
class Hold:
    """What is bought, at which rate, on whose account."""

    id: str
    account: Account
    operation: str
    model: str
    size: str
    clip_seconds: int
    unit: str
    rate_micros: int
    rate_card_sha256: str
    images_micros: int
    moderated_is_billed: bool
    amount_micros: int


@dataclass(frozen=True, slots=True)
class Difference:
    """A balance that is not the sum of its entries."""

    balance_id: str
    spent_micros: int
    held_micros: int
    entries_spent_micros: int
    entries_held_micros: int


def hold(wanted: Hold, *, now: int) -> Script[tuple[Standing, ...]]:
    """Set the price aside; return the limited balances as they stand afterwards.

    The same hold id counts once.

    Raises:
        budgets.Refusal: a budget is too small; nothing has changed once the script is undone.
    """
    account = wanted.account
    rows = yield Sql(
        "INSERT INTO holds (id, project_id, key_id, accounting_day, operation, model, size,"
        " clip_seconds, unit, rate_micros, rate_card_sha256, images_micros, moderated_is_billed,"
        " amount_micros, state, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, 'held', $15)"
        " ON CONFLICT DO NOTHING RETURNING id",
        (
            wanted.id,
            account.project_id,
            account.key_id,
            account.accounting_day,
            wanted.operation,
            wanted.model,
            wanted.size,
            wanted.clip_seconds,
            wanted.unit,
            wanted.rate_micros,
            wanted.rate_card_sha256,
            wanted.images_micros,
            int(wanted.moderated_is_billed),
            wanted.amount_micros,
            now,
        ),
    )
    if not rows:
        return (yield from look(account))
    standings = yield from take(account, amount_micros=wanted.amount_micros)
    yield _entry(
        f"{wanted.id}/hold", wanted.id, "hold", held=wanted.amount_micros, spent=0, now=now
    )
    return standings


def settle(hold_id: str, *, amount_micros: int, reason: str, now: int) -> Script[bool]:
    """Charge what a hold really cost; tell whether this was its end (False: it had ended)."""
    return (yield from _end(hold_id, "settled", amount_micros, reason=reason, now=now))


def release(hold_id: str, *, reason: str, now: int) -> Script[bool]:
    """Charge nothing for a hold; tell whether this was its end (False: it had ended)."""
    return (yield from _end(hold_id, "released", 0, reason=reason, now=now))


def adjust(
    hold_id: str, *, entry_id: str, amount_micros: int, reason: str, now: int
) -> Script[None]:
    """Change the spend of an ended hold by a signed amount. The same entry id counts once."""
    rows = yield Sql(
        "INSERT INTO entries (id, hold_id, kind, held_micros, spent_micros, reason, created_at)"
        " VALUES ($1, $2, 'adjust', 0, $3, $4, $5) ON CONFLICT DO NOTHING RETURNING id",
        (entry_id, hold_id, amount_micros, reason, now),
    )
    if rows:
        (row,) = yield Sql(
            "SELECT project_id, key_id, accounting_day FROM holds WHERE id = $1", (hold_id,)
        )
        yield from move(Account(*row), held_micros=0, spent_micros=amount_micros)


def correct(
    hold_id: str, *, entry_id: str, amount_micros: int, reason: str, now: int
) -> Script[int]:
    """Adjust an ended hold so that it cost `amount_micros` in all; return the change."""
    ((spent,),) = yield Sql(
        "SELECT CAST(COALESCE(SUM(spent_micros), 0) AS BIGINT) AS spent FROM entries"
        " WHERE hold_id = $1",
        (hold_id,),
    )
    change = amount_micros - int(spent)
    if change:
        yield from adjust(hold_id, entry_id=entry_id, amount_micros=change, reason=reason, now=now)
    return change


def audit() -> Script[list[Difference]]:
    """Recompute every balance from the entries; return those that differ (none: it adds up)."""
    sums: dict[str, tuple[int, int]] = {}
    rows = yield Sql(
        "SELECT holds.project_id, holds.key_id, holds.accounting_day,"
        " CAST(SUM(entries.spent_micros) AS BIGINT) AS spent_micros,"
        " CAST(SUM(entries.held_micros) AS BIGINT) AS held_micros"
        " FROM entries JOIN holds ON holds.id = entries.hold_id"
        " GROUP BY holds.project_id, holds.key_id, holds.accounting_day"
    )
    for project_id, key_id, day, spent, held in rows:
        for name in Account(project_id, key_id, day).balances():
            before_spent, before_held = sums.get(name.id, (0, 0))
            sums[name.id] = (before_spent + spent, before_held + held)
    balances = yield Sql("SELECT id, spent_micros, held_micros FROM balances ORDER BY id")
    differences = []
    for balance_id, spent, held in balances:
        expected = sums.pop(balance_id, (0, 0))
        if (spent, held) != expected:
            differences.append(Difference(balance_id, spent, held, *expected))
    differences += [Difference(balance_id, 0, 0, *missing) for balance_id, missing in sums.items()]
    return differences


def list_entries(*, hold_id: str) -> Script[list[Row]]:
    """Return the entries of a hold in the order they were made."""
    rows = yield Sql(
        "SELECT id, kind, held_micros, spent_micros, reason, created_at FROM entries"
        " WHERE hold_id = $1 ORDER BY created_at, CASE kind WHEN 'hold' THEN 0 ELSE 1 END, id",
        (hold_id,),
    )
    return list(rows)


def _end(hold_id: str, state: str, spent_micros: int, *, reason: str, now: int) -> Script[bool]:
    # The condition on the state is what makes every replay, and every race, change nothing.
    rows = yield Sql(
        "UPDATE holds SET state = $2, settled_micros = $3, ended_at = $4"
        " WHERE id = $1 AND state = 'held'"
        " RETURNING project_id, key_id, accounting_day, amount_micros",
        (hold_id, state, spent_micros, now),
    )
    if not rows:
        return False
    ((project_id, key_id, day, held_micros),) = rows
    yield from move(
        Account(project_id, key_id, day), held_micros=-held_micros, spent_micros=spent_micros
    )
    kind = "settle" if state == "settled" else "release"
    yield _entry(
        f"{hold_id}/end",
        hold_id,
        kind,
        held=-held_micros,
        spent=spent_micros,
        now=now,
        reason=reason,
    )
    return True


def _entry(
    entry_id: str, hold_id: str, kind: str, *, held: int, spent: int, now: int, reason: str = ""
) -> Sql:
    return Sql(
        "INSERT INTO entries (id, hold_id, kind, held_micros, spent_micros, reason, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7)",
        (entry_id, hold_id, kind, held, spent, reason, now),
    )
