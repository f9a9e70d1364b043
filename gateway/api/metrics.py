"""GET /metrics on the ops port: what do the records say, in Prometheus' words?

Money and the mirror's backlog are read from the records at every scrape, not counted in this
process: they are the same in every replica and after every restart, and must never be summed.
"""

from collections.abc import Awaitable, Callable, Iterator
from datetime import date
from functools import partial
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4, generate_latest
from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector
from starlette.requests import Request
from starlette.responses import PlainTextResponse, Response

from gateway.billing.balances import ORGANIZATION, PERIODS, accounting_day
from gateway.billing.money import MICROS_PER_USD
from gateway.billing.spend import spend_by_level
from gateway.clock import Clock
from gateway.db.database import Database
from gateway.db.script import Row, Script
from gateway.errors import DatabaseUnavailable
from gateway.mirror.backlog import Backlog, read_backlog

OTHER: Final = "other"
_LABELS: Final = ("level", "project_id", "project", "period")
_SAME: Final = "From the ledger, the same in every replica: take the maximum, never the sum."
_SAME_BACKLOG: Final = "The same in every replica: take the maximum, never the sum."
_GAUGES: Final = {
    "spent_micros": ("video_gateway_ledger_spent_usd", "Settled spend of the period."),
    "held_micros": ("video_gateway_ledger_held_usd", "On hold for videos that are not over."),
    "limit_micros": ("video_gateway_ledger_budget_usd", "Budget of the period."),
}

_BACKLOG: Final = (
    ("video_gateway_mirror_backlog", "Assets that are not mirrored yet."),
    (
        "video_gateway_mirror_oldest_unmirrored_timestamp_seconds",
        "When the asset that has waited longest was completed, or found damaged.",
    ),
    (
        "video_gateway_mirror_next_expiry_timestamp_seconds",
        "When the first upstream copy goes of what is not mirrored yet.",
    ),
)


def metrics_endpoint(
    database: Database, *, clock: Clock, max_projects: int
) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint. Beyond `max_projects`, those that spent least are one, `other`."""

    async def endpoint(_: Request) -> Response:
        today = date.fromisoformat(accounting_day(clock.now()))
        try:
            rows = await database.read(partial(_read, today))
            backlog = await database.read(read_backlog)
        except DatabaseUnavailable:
            return PlainTextResponse("the database is not available", status_code=503)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Ledger(rows, max_projects))
        registry.register(_Mirror(backlog))
        text = generate_latest(registry)
        return Response(text, media_type=CONTENT_TYPE_PLAIN_0_0_4)

    return endpoint


class _Ledger(Collector):
    """The balances of organization and projects, as they stood when they were read."""

    def __init__(self, rows: dict[str, list[Row]], max_projects: int) -> None:
        self._rows = rows
        totals = [row for row in rows["total"] if row["level"] != ORGANIZATION]
        totals.sort(key=lambda row: (-row["spent_micros"], row["level_id"]))
        self._shown = {row["level_id"] for row in totals[:max_projects]}

    def collect(self) -> Iterator[Metric]:
        for column, (name, help_text) in _GAUGES.items():
            family = GaugeMetricFamily(name, f"{help_text} {_SAME}", labels=_LABELS)
            for period, rows in self._rows.items():
                self._add(family, column, period, rows)
            yield family

    def _add(self, family: GaugeMetricFamily, column: str, period: str, rows: list[Row]) -> None:
        others_micros, others = 0, False
        for row in rows:
            micros = row[column]
            if micros is None:
                continue
            if row["level"] == ORGANIZATION:
                family.add_metric([ORGANIZATION, "", "", period], micros / MICROS_PER_USD)
            elif row["level_id"] in self._shown:
                labels = ["project", row["level_id"], row["name"], period]
                family.add_metric(labels, micros / MICROS_PER_USD)
            else:
                others, others_micros = True, others_micros + micros
        # The budgets of several projects are no budget.
        if others and column != "limit_micros":
            labels = ["project", OTHER, OTHER, period]
            family.add_metric(labels, others_micros / MICROS_PER_USD)


class _Mirror(Collector):
    """What was waiting to be mirrored when it was read."""

    def __init__(self, backlog: Backlog) -> None:
        self._backlog = backlog

    def collect(self) -> Iterator[Metric]:
        backlog = self._backlog
        values = (backlog.assets, backlog.oldest_at, backlog.next_expiry_at)
        for (name, help_text), value in zip(_BACKLOG, values, strict=True):
            family = GaugeMetricFamily(name, f"{help_text} {_SAME_BACKLOG}")
            # A moment that there is not has no sample.
            if value is not None:
                family.add_metric([], value)
            yield family


def _read(today: date) -> Script[dict[str, list[Row]]]:
    found = {}
    for period in PERIODS:
        found[period] = yield from spend_by_level(period=period, day=today, with_keys=False)
    return found
