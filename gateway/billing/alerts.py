"""Who is told when spend crosses a threshold? Scripts only.

An alert is a soft limit: it refuses nothing. It is about settled spend of a level and a period, and
rings once per threshold and period. The row that is to be delivered is written in the transaction
that crosses the threshold, so that no crossing is lost and none is told twice; gateway/alerts
delivers it.
"""

import json
from collections.abc import Mapping
from typing import Any, Final

from gateway.billing.audit_log import Change, already_made, write_line
from gateway.billing.balances import BalanceName, Level, balance_name
from gateway.db.paging import Cursor, Listed, Page, read_page
from gateway.db.script import Row, Script, Sql

_COLUMNS: Final = (
    "alerts.id, alerts.level, alerts.level_id, alerts.period, alerts.threshold_micros,"
    " alerts.channel, alerts.created_at"
)
_EVENT: Final = "tenant.billing.alerts.updated"


def create_alert(
    change: Change,
    level: Level,
    *,
    alert_id: str,
    period: str,
    threshold_micros: int,
    channel: Mapping[str, Any],
) -> Script[Row]:
    """Make an alert, and return it. It rings at once if its threshold was crossed before.

    Args:
        change: who makes it.
        level: whose spend it watches.
        alert_id: its id.
        period: day, month or total.
        threshold_micros: the settled spend at which it rings.
        channel: {"type": "email", "recipients": [...], "subject_prefix": ...} or
            {"type": "webhook", "url": ...}.
    """
    yield Sql(
        "INSERT INTO alerts (id, level, level_id, period, threshold_micros, channel, created_at)"
        " VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT DO NOTHING",
        (
            alert_id,
            level.name,
            level.id,
            period,
            threshold_micros,
            _json(channel),
            change.now,
        ),
    )
    made = yield from _existing(alert_id)
    yield from _after_change(change, level, alert_id, period=period, before=None, after=made)
    return made


def update_alert(
    change: Change,
    level: Level,
    *,
    alert_id: str,
    period: str,
    threshold_micros: int,
    channel: Mapping[str, Any],
) -> Script[Row | None]:
    """Change an alert of a level; None: it has none with that id. Another threshold rings anew."""
    before = yield from get_alert(level, alert_id=alert_id)
    if before is None:
        return None
    yield Sql(
        "UPDATE alerts SET period = $2, threshold_micros = $3, channel = $4 WHERE id = $1",
        (alert_id, period, threshold_micros, _json(channel)),
    )
    after = yield from _existing(alert_id)
    yield from _after_change(change, level, alert_id, period=period, before=before, after=after)
    return after


def delete_alert(change: Change, level: Level, *, alert_id: str) -> Script[bool]:
    """End an alert; tell whether there was one. What it has rung for is still delivered."""
    if (yield from already_made(change)) is not None:
        return True
    before = yield from get_alert(level, alert_id=alert_id)
    if before is None:
        return False
    yield Sql("UPDATE alerts SET deleted_at = $2 WHERE id = $1", (alert_id, change.now))
    yield from _write(change, level, alert_id, before=before, after=None)
    return True


def get_alert(level: Level, *, alert_id: str) -> Script[Row | None]:
    """Return an alert of a level, unless it was deleted.

    Columns: id, level, level_id, period, threshold_micros, channel (JSON), created_at.
    """
    rows = yield Sql(
        f"SELECT {_COLUMNS} FROM alerts"
        " WHERE id = $1 AND level = $2 AND level_id = $3 AND deleted_at IS NULL",
        (alert_id, level.name, level.id),
    )
    return rows[0] if rows else None


def find_alert(alert_id: str) -> Script[Row | None]:
    """Return an alert of any level, unless it was deleted."""
    rows = yield Sql(
        f"SELECT {_COLUMNS} FROM alerts WHERE id = $1 AND deleted_at IS NULL", (alert_id,)
    )
    return rows[0] if rows else None


def list_alerts(cursor: Cursor, *, level: Level | None) -> Script[Page]:
    """Return a page of the alerts of a level, or of all levels."""
    of_level = "alerts.level = $1 AND alerts.level_id = $2 AND "
    listed = Listed(
        columns=_COLUMNS,
        source="alerts",
        table="alerts",
        where=f"{'' if level is None else of_level}alerts.deleted_at IS NULL",
        args=() if level is None else (level.name, level.id),
    )
    return (yield from read_page(listed, cursor))


def list_deliveries(cursor: Cursor) -> Script[Page]:
    """Return a page of what alerts have rung for, and how far its delivery is."""
    listed = Listed(
        columns="alert_deliveries.id, alert_id, level, level_id, name, period, period_start,"
        " threshold_micros, spent_micros, limit_micros, channel, alert_deliveries.created_at,"
        " attempts, delivered_at, given_up_at, failure",
        source="alert_deliveries",
        table="alert_deliveries",
        where="true",
    )
    return (yield from read_page(listed, cursor))


def ring(names: tuple[BalanceName, ...], *, now: int) -> Script[None]:
    """Write down what is to be delivered because balances have crossed a threshold."""
    marks = ", ".join(f"${number}" for number in range(2, len(names) + 2))
    yield Sql(
        "INSERT INTO alert_deliveries (id, alert_id, level, level_id, name, period, period_start,"
        " threshold_micros, spent_micros, limit_micros, channel, created_at, due_at, claim_number,"
        " attempts)"
        " SELECT alerts.id || ':' || alerts.period || ':' || balances.period_start || ':'"
        " || CAST(alerts.threshold_micros AS TEXT), alerts.id, alerts.level, alerts.level_id,"
        " COALESCE(projects.name, keys.name, 'organization'), alerts.period,"
        " balances.period_start, alerts.threshold_micros, balances.spent_micros,"
        " balances.limit_micros, alerts.channel, CAST($1 AS BIGINT), CAST($1 AS BIGINT), 0, 0"
        " FROM balances JOIN alerts ON alerts.level = balances.level"
        " AND alerts.level_id = balances.level_id AND alerts.period = balances.period"
        " AND alerts.deleted_at IS NULL"
        " LEFT JOIN projects ON alerts.level = 'project' AND projects.id = alerts.level_id"
        " LEFT JOIN keys ON alerts.level = 'key' AND keys.id = alerts.level_id"
        f" WHERE balances.id IN ({marks}) AND balances.spent_micros >= alerts.threshold_micros"
        " ON CONFLICT DO NOTHING",
        (now, *(name.id for name in names)),
    )


def _after_change(
    change: Change, level: Level, alert_id: str, *, period: str, before: Row | None, after: Row
) -> Script[None]:
    yield from ring((balance_name(level, period=period, now=change.now),), now=change.now)
    yield from _write(change, level, alert_id, before=before, after=after)


def _write(
    change: Change, level: Level, alert_id: str, *, before: Row | None, after: Row | None
) -> Script[None]:
    yield from write_line(
        change,
        _EVENT,
        resource="spend_alert",
        resource_id=alert_id,
        project_id=level.project_id,
        before=_facts(before),
        after=_facts(after),
    )


def _facts(row: Row | None) -> dict[str, Any] | None:
    if row is None:
        return None
    return {
        "level": row["level"],
        "level_id": row["level_id"],
        "period": row["period"],
        "threshold_micros": row["threshold_micros"],
        "channel": json.loads(row["channel"]),
    }


def _existing(alert_id: str) -> Script[Row]:
    (row,) = yield Sql(f"SELECT {_COLUMNS} FROM alerts WHERE id = $1", (alert_id,))
    return row


def _json(channel: Mapping[str, Any]) -> str:
    return json.dumps(dict(channel), ensure_ascii=False, sort_keys=True)
