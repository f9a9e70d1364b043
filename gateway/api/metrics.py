"""GET /metrics on the ops port: what do the records say, in Prometheus' words?

Money comes from the ledger at every scrape, not from counters of this process: it is the same in
every replica and after every restart, and must never be summed over them.
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

OTHER: Final = "other"
_LABELS: Final = ("level", "project_id", "project", "period")
_SAME: Final = "From the ledger, the same in every replica: take the maximum, never the sum."
_GAUGES: Final = {
    "spent_micros": ("video_gateway_ledger_spent_usd", "Settled spend of the period."),
    "held_micros": ("video_gateway_ledger_held_usd", "On hold for videos that are not over."),
    "limit_micros": ("video_gateway_ledger_budget_usd", "Budget of the period."),
}


def metrics_endpoint(
    database: Database, *, clock: Clock, max_projects: int
) -> Callable[[Request], Awaitable[Response]]:
    """Return the endpoint. Beyond `max_projects`, those that spent least are one, `other`."""

    async def endpoint(_: Request) -> Response:
        today = date.fromisoformat(accounting_day(clock.now()))
        try:
            rows = await database.read(partial(_read, today))
        except DatabaseUnavailable:
            return PlainTextResponse("the database is not available", status_code=503)
        registry = CollectorRegistry(auto_describe=False)
        registry.register(_Ledger(rows, max_projects))
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


def _read(today: date) -> Script[dict[str, list[Row]]]:
    found = {}
    for period in PERIODS:
        found[period] = yield from spend_by_level(period=period, day=today, with_keys=False)
    return found
