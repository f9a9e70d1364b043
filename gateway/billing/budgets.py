"""Which limits on spend are there? Scripts only.

A budget is the limit that the balances of a level and period are opened with; the limit in force
stands on the balance itself (balances.py), where every hold reads it.
"""

from datetime import date

from gateway.billing.audit_log import Change, already_made, write_line
from gateway.billing.balances import (
    PERIODS,
    STANDING,
    BalanceName,
    Level,
    Standing,
    accounting_day,
    balance_name,
    open_balances,
    period_start,
    standings,
)
from gateway.db.script import Row, Script, Sql


def set_budget(change: Change, level: Level, *, period: str, limit_micros: int) -> Script[Standing]:
    """Set the limit of a level and period, for the running period and for those to come.

    Return how the period of the change stands.
    """
    before = yield from get_budget(level, period=period, now=change.now)
    yield Sql(
        "INSERT INTO budgets (level, level_id, period, limit_micros, updated_at)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT (level, level_id, period)"
        " DO UPDATE SET limit_micros = excluded.limit_micros, updated_at = excluded.updated_at",
        (level.name, level.id, period, limit_micros, change.now),
    )
    name = balance_name(level, period=period, now=change.now)
    yield from open_balances((name,))
    yield _limit_from(name, limit_micros)
    rows = yield Sql(f"SELECT {STANDING} FROM balances WHERE id = $1", (name.id,))
    yield from _write_change(change, level, period, before, limit_micros)
    (standing,) = standings(rows)
    return standing


def remove_budget(change: Change, level: Level, *, period: str) -> Script[bool]:
    """Take the limit of a level and period away, at once; tell whether there was one."""
    if (yield from already_made(change)) is not None:
        return True
    before = yield from get_budget(level, period=period, now=change.now)
    if before is None:
        return False
    yield Sql(
        "DELETE FROM budgets WHERE level = $1 AND level_id = $2 AND period = $3",
        (level.name, level.id, period),
    )
    name = balance_name(level, period=period, now=change.now)
    yield _limit_from(name, None)
    yield from _write_change(change, level, period, before, None)
    return True


def get_budget(level: Level, *, period: str, now: int) -> Script[Standing | None]:
    """Return how the running period of a budget stands; None: there is no such budget."""
    budgets = yield Sql(
        "SELECT limit_micros FROM budgets WHERE level = $1 AND level_id = $2 AND period = $3",
        (level.name, level.id, period),
    )
    if not budgets:
        return None
    name = balance_name(level, period=period, now=now)
    rows = yield Sql("SELECT spent_micros, held_micros FROM balances WHERE id = $1", (name.id,))
    spent, held = (int(amount) for amount in rows[0]) if rows else (0, 0)
    limit_micros = int(budgets[0]["limit_micros"])
    return Standing(level.name, period, name.start, limit_micros, spent, held)


def list_budgets(*, now: int) -> Script[list[Row]]:
    """Return all budgets with the spend and the held amount of their running period.

    Columns: level, level_id, name, project_id, period, limit_micros, spent_micros, held_micros.
    """
    day = date.fromisoformat(accounting_day(now))
    found: list[Row] = []
    for period in PERIODS:
        found += yield Sql(
            "SELECT budgets.level, budgets.level_id, COALESCE(projects.name, keys.name) AS name,"
            " COALESCE(projects.id, keys.project_id) AS project_id, budgets.period,"
            " budgets.limit_micros, COALESCE(balances.spent_micros, 0) AS spent_micros,"
            " COALESCE(balances.held_micros, 0) AS held_micros FROM budgets"
            " LEFT JOIN balances ON balances.level = budgets.level"
            " AND balances.level_id = budgets.level_id AND balances.period = budgets.period"
            " AND balances.period_start = $2"
            " LEFT JOIN projects ON budgets.level = 'project' AND projects.id = budgets.level_id"
            " LEFT JOIN keys ON budgets.level = 'key' AND keys.id = budgets.level_id"
            " WHERE budgets.period = $1 ORDER BY budgets.level, budgets.level_id",
            (period, period_start(period, day)),
        )
    return found


def _limit_from(name: BalanceName, limit_micros: int | None) -> Sql:
    # A hold may have opened the next period before: the change waited across midnight, or the
    # clocks of two processes differ. Starts are ISO dates, and the one of a total is always `all`.
    return Sql(
        "UPDATE balances SET limit_micros = $5"
        " WHERE level = $1 AND level_id = $2 AND period = $3 AND period_start >= $4",
        (name.level, name.level_id, name.period, name.start, limit_micros),
    )


def _write_change(
    change: Change, level: Level, period: str, before: Standing | None, limit_micros: int | None
) -> Script[None]:
    yield from write_line(
        change,
        "tenant.billing.overage_limit.updated",
        resource="budget",
        resource_id=f"{level.name}:{level.id}:{period}",
        project_id=level.project_id,
        before=None if before is None else {"limit_micros": before.limit_micros},
        after=None if limit_micros is None else {"limit_micros": limit_micros},
    )
