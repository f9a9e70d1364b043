"""How is what the records say put in Prometheus' words?

It is the same in every replica and after every restart: whoever draws it takes the maximum over
replicas, never the sum. Amounts are micros in the records and dollars here.
"""

from collections.abc import Iterator, Mapping, Sequence
from typing import Final

from prometheus_client.metrics_core import GaugeMetricFamily, Metric
from prometheus_client.registry import Collector

from gateway.api.metrics.reading import Read
from gateway.billing.balances import ORGANIZATION
from gateway.billing.money import MICROS_PER_USD
from gateway.config import Settings
from gateway.db.script import Row
from gateway.telemetry.metrics.labels import NONE, OTHER

_SAME: Final = "The same in every replica: take the maximum, never the sum."
_BALANCES: Final = {
    "spent_micros": ("spent_usd", "Settled spend of the period."),
    "held_micros": ("held_usd", "On hold for videos that are not over."),
    "limit_micros": ("budget_usd", "Budget of the period."),
}
_COSTS: Final = {
    "spent_micros": ("costs_usd", "Settled spend of the period by line item.", MICROS_PER_USD),
    "videos": ("costs_videos", "Videos of the period that cost something.", 1),
    "clip_seconds": ("costs_clip_seconds", "Seconds of film of those videos.", 1),
}


class RecordedMetrics(Collector):
    """What the records said when they were read; None: they could not be."""

    def __init__(self, read: Read | None, settings: Settings) -> None:
        self._read = read
        self._settings = settings

    def collect(self) -> Iterator[Metric]:
        """Yield every family."""
        readable = "1 if the database has answered; else all that is read from it is missing."
        name = "video_gateway_records_readable"
        yield GaugeMetricFamily(name, readable, value=int(self._read is not None))
        if self._read is None:
            return
        settings = self._settings
        yield from _spend(self._read.spend, max_projects=settings.metrics_max_projects)
        yield from _keys(self._read.keys)
        yield from _costs(self._read.costs)
        yield from _compared(self._read, interval_seconds=settings.audit_seconds)
        yield from _progress(self._read)
        yield from _content(self._read, limit_bytes=settings.keep_bytes)
        yield from _outbox(self._read)


def _spend(spend: Mapping[str, Sequence[Row]], *, max_projects: int) -> Iterator[Metric]:
    totals = [row for row in spend["total"] if row["level"] != ORGANIZATION]
    totals.sort(key=lambda row: (-row["spent_micros"], row["level_id"]))
    shown = {row["level_id"] for row in totals[:max_projects]}
    for column, (name, text) in _BALANCES.items():
        family = _family(f"ledger_{name}", text, "level", "project_id", "project", "period")
        for period, rows in spend.items():
            _add_balances(family, column, period, rows, shown)
        yield family


def _add_balances(
    family: GaugeMetricFamily, column: str, period: str, rows: Sequence[Row], shown: set[str]
) -> None:
    others_micros, others = 0, False
    for row in rows:
        micros = row[column]
        if micros is None:
            continue
        if row["level"] == ORGANIZATION:
            family.add_metric([ORGANIZATION, "", "", period], micros / MICROS_PER_USD)
        elif row["level_id"] in shown:
            labels = ["project", row["level_id"], row["name"], period]
            family.add_metric(labels, micros / MICROS_PER_USD)
        else:
            others, others_micros = True, others_micros + micros
    # The budgets of several projects are no budget.
    if others and column != "limit_micros":
        family.add_metric(["project", OTHER, OTHER, period], others_micros / MICROS_PER_USD)


def _keys(keys: Mapping[str, Sequence[Row]]) -> Iterator[Metric]:
    if not keys:
        return
    for column, (name, text) in _BALANCES.items():
        family = _family(f"ledger_key_{name}", text, "project", "key_id", "key", "period")
        for period, rows in keys.items():
            for row in rows:
                if row[column] is not None:
                    labels = [row["project"], row["key_id"], row["name"], period]
                    family.add_metric(labels, row[column] / MICROS_PER_USD)
        yield family


def _costs(costs: Mapping[str, Sequence[Row]]) -> Iterator[Metric]:
    for column, (name, text, unit) in _COSTS.items():
        family = _family(f"ledger_{name}", text, "period", "model", "size", "operation")
        for period, rows in costs.items():
            for row in rows:
                labels = [period, row["model"] or NONE, row["size"] or NONE, row["operation"]]
                family.add_metric(labels, row[column] / unit)
        yield family


def _compared(read: Read, *, interval_seconds: int) -> Iterator[Metric]:
    yield _gauge(
        "ledger_audit_interval_seconds",
        "How old the last audit may get (setting audit_hours); missing where none is made.",
        interval_seconds or None,
    )
    audit = next((one for one in read.comparisons if one.upstream is None), None)
    yield _gauge(
        "ledger_audit_timestamp_seconds",
        "When the ledger was last audited.",
        None if audit is None else audit.compared_at,
    )
    yield _gauge(
        "ledger_audit_differences",
        "Sums that the last audit found wrong.",
        None if audit is None else audit.differences,
    )
    at = _family("reconciliation_timestamp_seconds", "When bills were last compared.", "upstream")
    drift = _family(
        "reconciliation_drift_usd",
        "What the upstream had billed more than the ledger says, at list price.",
        "upstream",
    )
    found = _family("reconciliation_differences", "Differences found then.", "upstream")
    for one in read.comparisons:
        if one.upstream is not None:
            at.add_metric([one.upstream], one.compared_at)
            drift.add_metric([one.upstream], one.drift_micros / MICROS_PER_USD)
            found.add_metric([one.upstream], one.differences)
    yield from (at, drift, found)


def _progress(read: Read) -> Iterator[Metric]:
    progress = read.progress
    in_flight = _family("videos_in_flight", "Videos that are not over.", "model", "status")
    for (model, status), videos in sorted(progress.in_flight.items()):
        in_flight.add_metric([model or NONE, status], videos)
    yield in_flight
    yield _gauge(
        "poll_overdue_seconds",
        "How late the poll is that is due longest; 0 if none is late.",
        progress.overdue_seconds,
    )
    yield _gauge("orphans", "Holds whose outcome upstream is unknown.", progress.orphans)
    yield _gauge(
        "orphans_held_usd",
        "What is held for them.",
        progress.orphans_held_micros / MICROS_PER_USD,
    )
    yield _gauge(
        "orphans_oldest_timestamp_seconds",
        "When the oldest became one; missing where there is none.",
        progress.oldest_orphan_at,
    )


def _content(read: Read, *, limit_bytes: int) -> Iterator[Metric]:
    yield _gauge("mirror_backlog", "Assets that are not mirrored yet.", read.backlog.assets)
    yield _gauge(
        "mirror_oldest_unmirrored_timestamp_seconds",
        "When the asset that has waited longest was completed, or found damaged.",
        read.backlog.oldest_at,
    )
    yield _gauge(
        "mirror_next_expiry_timestamp_seconds",
        "When the first upstream copy goes of what is not mirrored yet.",
        read.backlog.next_expiry_at,
    )
    assets, size_bytes = (
        (None, None) if read.kept is None else (read.kept.assets, read.kept.size_bytes)
    )
    yield _gauge("store_kept_assets", "Assets in the store.", assets)
    yield _gauge("store_kept_bytes", "Bytes in the store.", size_bytes)
    yield _gauge(
        "store_limit_bytes",
        "Setting keep_bytes; missing where there is no limit.",
        limit_bytes or None,
    )


def _outbox(read: Read) -> Iterator[Metric]:
    alerts, oldest_at = read.pending
    yield _gauge("alert_outbox_pending", "Spend alerts that are not delivered yet.", alerts)
    yield _gauge(
        "alert_outbox_oldest_timestamp_seconds",
        "When the oldest of them rang; missing where there is none.",
        oldest_at,
    )


def _gauge(name: str, text: str, value: float | None) -> GaugeMetricFamily:
    """Return a gauge without labels; what there is not has no sample."""
    family = _family(name, text)
    if value is not None:
        family.add_metric([], value)
    return family


def _family(name: str, text: str, *labels: str) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"video_gateway_{name}", f"{text} {_SAME}", labels=labels)
