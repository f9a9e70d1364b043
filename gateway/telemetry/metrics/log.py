"""What is counted of the lines in the log: alarms, and leases that were lost?

Both are logged in many places, by those who find out. Counting the lines counts all of them, and
nobody can log one and forget to count it.
"""

from collections.abc import Mapping
from typing import Any, Final

from prometheus_client import CollectorRegistry, Counter

from gateway.telemetry.metrics.labels import one_of

# Every event of level error: each needs a person. README says what each means.
ALARMS: Final = (
    "alert_defect",
    "alert_not_delivered",
    "audit_turn_failed",
    "backlog_watch_failed",
    "claim_failed",
    "content_at_risk",
    "content_damaged",
    "content_lost",
    "content_wrong_length",
    "database_unavailable",
    "ended_hold_corrected",
    "fetch_failed",
    "health_check_failed",
    "janitor_turn_failed",
    "key_use_not_recorded",
    "ledger_does_not_add_up",
    "library_failed",
    "listening_failed",
    "migrations_unfit",
    "mirror_store_failed",
    "pins_exceed_limit",
    "purge_overdue",
    "renewal_failed",
    "request_failed",
    "retention_turn_failed",
    "server_time_not_measured",
    "settled_above_hold",
    "shutdown_with_work_left",
    "store_unavailable",
    "store_without_content",
    "strays_found",
    "submit_contradicted",
    "submit_failed",
    "submit_not_recorded",
    "submit_outcome_unknown",
    "submit_refused",
    "turn_failed",
    "verify_turn_failed",
    "video_orphaned",
    "worker_died",
)
LOOPS: Final = ("poll", "mirror", "alerts")
_LEASE_LOST: Final = "lease_lost"


class LogMetrics:
    """Alarms by event, and lost leases by loop."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._alarms = Counter(
            "video_gateway_alarms",
            "Log lines that a person must act upon, by event.",
            ["event"],
            registry=registry,
        )
        self._leases_lost = Counter(
            "video_gateway_leases_lost",
            "Turns that found their lease taken over.",
            ["loop"],
            registry=registry,
        )
        for event in ALARMS:
            self._alarms.labels(event)
        for loop in LOOPS:
            self._leases_lost.labels(loop)

    def line(self, facts: Mapping[str, Any]) -> None:
        """Count a line that is about to be written, if it is one of those."""
        event = facts.get("event", "")
        if facts.get("level") == "error":
            self._alarms.labels(one_of(ALARMS, event)).inc()
        elif event == _LEASE_LOST:
            self._leases_lost.labels(one_of(LOOPS, facts.get("loop", ""))).inc()
