"""What was bought, what cost nothing, and do the books agree with the upstream's bill?"""

from typing import Final

from grafana.panels import (
    OUTCOMES,
    PER_HOUR,
    PER_MINUTE,
    Query,
    bars,
    graph,
    happened,
    rising,
    stat,
    table,
)
from grafana.promql import DAY_SECONDS, age, in_range, per_hour, per_minute, recorded, share

_ITEM: Final = "model, size, operation"
_MONTH: Final = 'period="month"'
_COSTS: Final = recorded("ledger_costs_usd", _MONTH, by=_ITEM)
_VIDEOS: Final = recorded("ledger_costs_videos", _MONTH, by=_ITEM)
_CLIPS: Final = recorded("ledger_costs_clip_seconds", _MONTH, by=_ITEM)
_FREE: Final = 'outcome="failed"'
_OVER: Final = 'outcome=~"completed|failed|failed_billed"'
_LIMITS: Final = "budget_exceeded|price_limit_exceeded|rate_limit_exceeded"

ITEMS: Final = (
    table(
        "Line items of this month",
        "Settled spend of this month, UTC, by model, size and operation: how many videos, how many "
        "seconds of film, and what one of each cost.",
        Query(_COSTS),
        Query(_VIDEOS),
        Query(_CLIPS),
        Query(f"{_COSTS} / ({_VIDEOS} > 0)"),
        Query(f"{_COSTS} / ({_CLIPS} > 0)"),
        columns=(
            ("model", "model"),
            ("size", "size"),
            ("operation", "operation"),
            ("A", "cost"),
            ("B", "videos"),
            ("C", "seconds"),
            ("D", "per video"),
            ("E", "per second"),
        ),
        units=(
            ("cost", "currencyUSD", 2),
            ("videos", "locale", 0),
            ("seconds", "locale", 0),
            ("per video", "currencyUSD", 2),
            ("per second", "currencyUSD", 3),
        ),
        sort_by="cost",
        no_value="-",
        width=14,
    ),
    graph(
        "This month by model",
        "Settled spend since the first of the month, UTC.",
        "currencyUSD",
        Query(f"sum by (model) ({_COSTS})", "{{model}}"),
        stacked=True,
        width=10,
    ),
    bars(
        "This month by size",
        "Settled spend since the first of the month, UTC, by the size of the video.",
        "currencyUSD",
        Query(f"sort_desc(sum by (size) ({_COSTS}))", "{{size}}"),
        width=6,
    ),
    bars(
        "Bought by length",
        "Videos bought in the time shown, by their length in seconds.",
        "short",
        Query(f"sort_desc({in_range('videos_bought_total', by='seconds')} > 0)", "{{seconds}} s"),
        decimals=0,
        width=6,
    ),
    happened(
        "Bought by model",
        "Billable requests per hour whose price was held.",
        PER_HOUR,
        Query(per_hour("videos_bought_total", by="model"), "{{model}}"),
        width=12,
        step="10m",
    ),
)

UNCHARGED: Final = (
    stat(
        "Failed, not charged",
        "Videos of the time shown that the upstream could not make. Their hold was given back: "
        "nothing was charged.",
        in_range("videos_ended_total", _FREE),
        "short",
        decimals=0,
        height=8,
    ),
    stat(
        "Share that failed",
        "Videos that failed and were not charged, of all that were over in the time shown.",
        share(in_range("videos_ended_total", _FREE), in_range("videos_ended_total", _OVER)),
        "percentunit",
        thresholds=rising(0.05, 0.2),
        decimals=1,
        no_value="none ended",
        height=8,
    ),
    graph(
        "Completed, and not charged",
        "Videos per hour by their end. completed and failed_billed were charged; failed, refused "
        "and not_sent cost nothing; of orphaned ones nobody knows.",
        PER_HOUR,
        Query(per_hour("videos_ended_total", by="outcome"), "{{outcome}}"),
        stacked=True,
        colours=OUTCOMES,
        width=9,
        step="10m",
    ),
    graph(
        "Refused for budgets and limits",
        "Requests per minute that did not fit a budget, the price limit of one request, or a rate "
        "limit. Nothing was sent, nothing was charged.",
        PER_MINUTE,
        Query(
            per_minute("requests_refused_total", f'reason=~"{_LIMITS}"', by="reason"), "{{reason}}"
        ),
        width=9,
        step="10m",
    ),
)

BOOKS: Final = (
    stat(
        "Audit: differences",
        "What the last `video-gateway ledger audit` found: balances that are not the sum of their "
        "entries. Anything but zero is a defect.",
        recorded("ledger_audit_differences"),
        "short",
        thresholds=rising(1, 1),
        no_value="never run",
    ),
    stat(
        "Last audit",
        "How long ago the books were last recomputed. The gateway does it each day by itself.",
        age(recorded("ledger_audit_timestamp_seconds")),
        "s",
        thresholds=rising(1.5 * DAY_SECONDS, 2 * DAY_SECONDS),
        no_value="never run",
    ),
    stat(
        "Upstream's bill: drift",
        "What the upstream billed beyond the ledger, at list prices, by the last `video-gateway "
        "reconcile`; below zero it billed less. Of several upstreams, the largest.",
        f"max (abs({recorded('reconciliation_drift_usd', by='upstream')}))",
        "currencyUSD",
        thresholds=rising(0.01, 10),
        decimals=2,
        no_value="never run",
    ),
    stat(
        "Upstream's bill: differences",
        "How many videos only one side has, or at another price, by the last `video-gateway "
        "reconcile`.",
        recorded("reconciliation_differences"),
        "short",
        thresholds=rising(1, 1),
        no_value="never run",
    ),
    table(
        "Reconciliation by upstream",
        "The last `video-gateway reconcile` of each upstream: what it billed beyond the ledger, "
        "how many differences, how long ago.",
        Query(recorded("reconciliation_drift_usd", by="upstream")),
        Query(recorded("reconciliation_differences", by="upstream")),
        Query(age(recorded("reconciliation_timestamp_seconds", by="upstream"))),
        columns=(
            ("upstream", "upstream"),
            ("A", "drift"),
            ("B", "differences"),
            ("C", "done before"),
        ),
        units=(("drift", "currencyUSD", 2), ("differences", "locale", 0), ("done before", "s", 1)),
        no_value="never run",
        height=4,
    ),
)
