"""How does money move?

A hold sets the exact price aside before anything is forwarded. It ends once: `settle` charges what
it really cost, `release` charges nothing. `correct` adjusts the spend afterwards. Each movement
appends an entry and changes the nine balances of its account, and the costs by line item, in the
same transaction: they are at every moment the sums of the entries (audit.py recomputes them).

Every amount that comes in is at list price, as the rate card and the upstream's bill have it. Where
the upstream's real cost differs, the hold names the multiplier and the basis that budgets act on;
both figures are in every entry, and the one of the basis is held and spent.

No hold ends by a timer: the upstream may still bill it.
"""

from dataclasses import dataclass, replace
from typing import Final

from gateway.billing.alerts import ring
from gateway.billing.balances import Account, Standing, move, take
from gateway.billing.costs import LineItem, Spent, add_costs
from gateway.billing.money import AT_LIST, Basis
from gateway.db.script import Row, Script, Sql

HELD: Final = "held"
_FACTS: Final = (
    "project_id, key_id, accounting_day, model, size, operation, clip_seconds,"
    " cost_multiplier_ppm, basis"
)
_NOTHING: Final = Spent(spent_micros=0, list_micros=0, cost_micros=0, videos=0, clip_seconds=0)


@dataclass(frozen=True, slots=True)
class Hold:
    """What is bought, at which rate, on whose account.

    Attributes:
        list_micros: its price by the rate card.
        basis: which figure budgets act on.
    """

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
    list_micros: int
    basis: Basis = AT_LIST

    @property
    def amount_micros(self) -> int:
        """What is held: the price on the basis that budgets act on."""
        return self.basis.amount(self.list_micros)


def hold(wanted: Hold, *, now: int) -> Script[tuple[Standing, ...] | None]:
    """Set the price aside; return the limited balances as they stand afterwards.

    The same hold id counts once: None, where it was taken before.

    Raises:
        budgets.Refusal: a budget is too small; nothing has changed once the script is undone.
    """
    account = wanted.account
    rows = yield Sql(
        "INSERT INTO holds (id, project_id, key_id, accounting_day, operation, model, size,"
        " clip_seconds, unit, rate_micros, rate_card_sha256, images_micros, moderated_is_billed,"
        " list_micros, cost_multiplier_ppm, basis, amount_micros, state, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17,"
        " 'held', $18)"
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
            wanted.list_micros,
            wanted.basis.multiplier_ppm,
            wanted.basis.name,
            wanted.amount_micros,
            now,
        ),
    )
    if not rows:
        return None
    standings = yield from take(account, amount_micros=wanted.amount_micros)
    held = _entry(f"{wanted.id}/hold", wanted.id, "hold", held_micros=wanted.amount_micros, now=now)
    yield held
    return standings


def settle(hold_id: str, *, list_micros: int, reason: str, now: int) -> Script[bool]:
    """Charge what a hold really cost; tell whether this was its end (False: it had ended)."""
    return (yield from _end(hold_id, "settled", list_micros, reason=reason, now=now))


def release(hold_id: str, *, reason: str, now: int) -> Script[bool]:
    """Charge nothing for a hold; tell whether this was its end (False: it had ended)."""
    return (yield from _end(hold_id, "released", 0, reason=reason, now=now))


def correct(hold_id: str, *, entry_id: str, list_micros: int, reason: str, now: int) -> Script[int]:
    """Adjust an ended hold so that it cost `list_micros` in all; return the change of spend.

    The same entry id counts once.
    """
    ((spent, listed, cost),) = yield Sql(
        "SELECT CAST(COALESCE(SUM(spent_micros), 0) AS BIGINT) AS spent,"
        " CAST(COALESCE(SUM(list_micros), 0) AS BIGINT) AS listed,"
        " CAST(COALESCE(SUM(cost_micros), 0) AS BIGINT) AS cost FROM entries WHERE hold_id = $1",
        (hold_id,),
    )
    if list_micros == listed:
        return 0
    (facts,) = yield Sql(f"SELECT {_FACTS} FROM holds WHERE id = $1", (hold_id,))
    total = _spent(facts, list_micros, before_micros=listed)
    change = replace(
        total,
        spent_micros=total.spent_micros - spent,
        list_micros=list_micros - listed,
        cost_micros=total.cost_micros - cost,
    )
    inserted = yield _entry(entry_id, hold_id, "adjust", spent=change, reason=reason, now=now)
    if not inserted:
        return 0
    yield Sql("UPDATE holds SET settled_micros = $2 WHERE id = $1", (hold_id, total.spent_micros))
    yield from _move(facts, held_micros=0, spent=change, now=now)
    return change.spent_micros


def list_entries(*, hold_id: str) -> Script[list[Row]]:
    """Return the entries of a hold in the order they were made."""
    rows = yield Sql(
        "SELECT id, kind, held_micros, spent_micros, list_micros, cost_micros, reason, created_at"
        " FROM entries"
        " WHERE hold_id = $1 ORDER BY created_at, CASE kind WHEN 'hold' THEN 0 ELSE 1 END, id",
        (hold_id,),
    )
    return list(rows)


def _end(hold_id: str, state: str, list_micros: int, *, reason: str, now: int) -> Script[bool]:
    rows = yield Sql(f"SELECT {_FACTS}, amount_micros FROM holds WHERE id = $1", (hold_id,))
    if not rows:
        return False
    facts = rows[0]
    spent = _spent(facts, list_micros, before_micros=0)
    # The condition on the state is what makes every replay, and every race, change nothing.
    ended = yield Sql(
        "UPDATE holds SET state = $2, settled_micros = $3, ended_at = $4"
        " WHERE id = $1 AND state = 'held' RETURNING id",
        (hold_id, state, spent.spent_micros, now),
    )
    if not ended:
        return False
    yield _entry(
        f"{hold_id}/end",
        hold_id,
        "settle" if state == "settled" else "release",
        held_micros=-facts["amount_micros"],
        spent=spent,
        now=now,
        reason=reason,
    )
    yield from _move(facts, held_micros=-facts["amount_micros"], spent=spent, now=now)
    return True


def _spent(facts: Row, list_micros: int, *, before_micros: int) -> Spent:
    """Return a list price on all three scales; and whether the video costs something only now."""
    basis = Basis(facts["basis"], facts["cost_multiplier_ppm"])
    videos = (list_micros > 0) - (before_micros > 0)
    return Spent(
        spent_micros=basis.amount(list_micros),
        list_micros=list_micros,
        cost_micros=basis.cost(list_micros),
        videos=videos,
        clip_seconds=videos * facts["clip_seconds"],
    )


def _move(facts: Row, *, held_micros: int, spent: Spent, now: int) -> Script[None]:
    account = Account(facts["project_id"], facts["key_id"], facts["accounting_day"])
    yield from move(account, held_micros=held_micros, spent_micros=spent.spent_micros)
    if spent == _NOTHING:
        return
    item = LineItem(model=facts["model"], size=facts["size"], operation=facts["operation"])
    yield from add_costs(account, item, spent)
    if spent.spent_micros > 0:
        yield from ring(account.balances(), now=now)


def _entry(
    entry_id: str,
    hold_id: str,
    kind: str,
    *,
    held_micros: int = 0,
    spent: Spent | None = None,
    now: int,
    reason: str = "",
) -> Sql:
    spent = spent or _NOTHING
    return Sql(
        "INSERT INTO entries (id, hold_id, kind, held_micros, spent_micros, list_micros,"
        " cost_micros, reason, created_at) VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9)"
        " ON CONFLICT DO NOTHING RETURNING id",
        (
            *(entry_id, hold_id, kind, held_micros),
            *(spent.spent_micros, spent.list_micros, spent.cost_micros),
            *(reason, now),
        ),
    )
