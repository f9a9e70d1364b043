"""Who has spent what?"""

from datetime import date
from typing import Final

from gateway.billing.balances import period_start
from gateway.db.script import Row, Script, Sql

_WITHOUT_KEYS: Final = " AND balances.level <> 'key'"


def spend_by_level(*, period: str, day: date, with_keys: bool = True) -> Script[list[Row]]:
    """Return spend, held and limit of the period that a day belongs to, organization first.

    Columns: level, level_id, name, period_start, limit_micros, spent_micros, held_micros.
    """
    rows = yield Sql(
        "SELECT balances.level, balances.level_id, COALESCE(projects.name, keys.name) AS name,"
        " balances.period_start, balances.limit_micros, balances.spent_micros,"
        " balances.held_micros FROM balances"
        " LEFT JOIN projects ON balances.level = 'project' AND projects.id = balances.level_id"
        " LEFT JOIN keys ON balances.level = 'key' AND keys.id = balances.level_id"
        " WHERE balances.period = $1 AND balances.period_start = $2"
        f"{'' if with_keys else _WITHOUT_KEYS}"
        " ORDER BY CASE balances.level WHEN 'organization' THEN 0 WHEN 'project' THEN 1 ELSE 2 END,"
        " balances.level_id",
        (period, period_start(period, day)),
    )
    return list(rows)


def spend_by_key(*, period: str, day: date, keys: int) -> Script[list[Row]]:
    """Return spend, held and limit of so many keys, those first that spent most in all.

    Columns: project, key_id, name, limit_micros, spent_micros, held_micros.
    """
    rows = yield Sql(
        "SELECT projects.name AS project, keys.id AS key_id, keys.name, balances.limit_micros,"
        " balances.spent_micros, balances.held_micros FROM (SELECT level_id FROM balances"
        " WHERE level = 'key' AND period = 'total'"
        " ORDER BY spent_micros DESC, level_id LIMIT $3) AS most"
        " JOIN balances ON balances.level = 'key' AND balances.level_id = most.level_id"
        " AND balances.period = $1 AND balances.period_start = $2"
        " JOIN keys ON keys.id = balances.level_id JOIN projects ON projects.id = keys.project_id"
        " ORDER BY keys.id",
        (period, period_start(period, day), keys),
    )
    return list(rows)
