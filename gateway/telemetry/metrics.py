"""What does this process count, in Prometheus' words?

Like the log, the instruments are the process's own: whoever does a thing counts it there. Names and
labels are a contract with dashboards and alerts. Units are base units; every label comes from a
closed list (route templates, models, outcomes, event names), never from a request, so that traffic
adds no series. What the records say is not counted here but read from them at every scrape
(api/metrics.py): it is the same in every replica.

With several workers the library keeps values in files of a folder that all share
(PROMETHEUS_MULTIPROC_DIR, set before this module is imported), and one scrape adds them up.
"""

from typing import Final

from prometheus_client import Counter, Gauge, Histogram, disable_created_metrics

HTTP_BUCKETS: Final = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30)
UPSTREAM_BUCKETS: Final = (*HTTP_BUCKETS, 60, 120)
GENERATION_BUCKETS: Final = (30, 60, 90, 120, 180, 240, 300, 420, 600, 900, 1200, 1800, 3600)
MIRROR_BUCKETS: Final = (0.5, 1, 2.5, 5, 10, 30, 60, 120, 300, 900, 3600)
RECORD_BUCKETS: Final = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5, 10)
LAG_BUCKETS: Final = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 5)

# Where a label is not one of its list, and where there is nothing to be named.
OTHER: Final = "other"
NONE: Final = "none"

disable_created_metrics()  # type: ignore[no-untyped-call]

HTTP_REQUESTS: Final = Counter(
    "video_gateway_http_requests",
    "Requests by route template (none: no such path) and status (none: its client left first).",
    ["method", "route", "code"],
)
HTTP_SECONDS: Final = Histogram(
    "video_gateway_http_request_duration_seconds",
    "From the request's head to the answer's last byte, by route template.",
    ["method", "route"],
    buckets=HTTP_BUCKETS,
)
HTTP_IN_FLIGHT: Final = Gauge(
    "video_gateway_http_requests_in_flight",
    "Requests that are being answered.",
    multiprocess_mode="livesum",
)
REFUSED: Final = Counter(
    "video_gateway_requests_refused",
    "Requests answered with an error, by its kind, such as budget_exceeded.",
    ["reason"],
)
CONTENT_BYTES: Final = Counter(
    "video_gateway_content_sent_bytes",
    "Bytes of content sent to clients: from the store, or live from the upstream.",
    ["source"],
)
UPSTREAM_REQUESTS: Final = Counter(
    "video_gateway_upstream_requests",
    "Requests to an upstream, by what is known afterwards.",
    ["upstream", "endpoint", "outcome"],
)
UPSTREAM_SECONDS: Final = Histogram(
    "video_gateway_upstream_request_duration_seconds",
    "Until an upstream's answer was read; of a download, until its first byte.",
    ["upstream", "endpoint"],
    buckets=UPSTREAM_BUCKETS,
)
VIDEOS_BOUGHT: Final = Counter(
    "video_gateway_videos_bought",
    "Billable requests whose price was held.",
    ["operation", "model", "size", "seconds"],
)
VIDEOS_ENDED: Final = Counter(
    "video_gateway_videos_ended",
    "Videos that came to their end: completed, failed, refused by the upstream, orphaned.",
    ["model", "outcome"],
)
GENERATION_SECONDS: Final = Histogram(
    "video_gateway_video_generation_seconds",
    "From the upstream's id to the poll that found a video completed.",
    ["model"],
    buckets=GENERATION_BUCKETS,
)
POLLS: Final = Counter(
    "video_gateway_polls",
    "Polls, by what they found: pending, completed, failed, nothing.",
    ["outcome"],
)
MIRRORED: Final = Counter(
    "video_gateway_mirror_turns",
    "Turns of the mirror, by variant: mirrored, failed, absent, gone, store_failed.",
    ["variant", "outcome"],
)
MIRRORED_BYTES: Final = Counter(
    "video_gateway_mirrored_bytes", "Bytes of content that were mirrored."
)
MIRROR_LAG_SECONDS: Final = Histogram(
    "video_gateway_mirror_lag_seconds",
    "From the completion of a video, as recorded, to its content in the store.",
    ["variant"],
    buckets=MIRROR_BUCKETS,
)
DATABASE_SECONDS: Final = Histogram(
    "video_gateway_database_duration_seconds",
    "Until a script was answered, its wait included: run, run_beside, read.",
    ["kind"],
    buckets=RECORD_BUCKETS,
)
DATABASE_ERRORS: Final = Counter(
    "video_gateway_database_errors", "Scripts that the database could not run.", ["kind"]
)
STORE_SECONDS: Final = Histogram(
    "video_gateway_store_duration_seconds",
    "Until the store had done it; of a read, until it was open.",
    ["operation"],
    buckets=RECORD_BUCKETS,
)
STORE_ERRORS: Final = Counter(
    "video_gateway_store_errors", "What the store could not do.", ["operation"]
)
LOOP_LAG_SECONDS: Final = Histogram(
    "video_gateway_event_loop_lag_seconds",
    "How much later than asked for the event loop came round, measured twice a second.",
    buckets=LAG_BUCKETS,
)
LEASES_LOST: Final = Counter(
    "video_gateway_leases_lost", "Turns that found their lease taken over.", ["loop"]
)
DELIVERIES: Final = Counter(
    "video_gateway_alert_deliveries",
    "Tries to deliver a spend alert: delivered, failed, given_up.",
    ["outcome"],
)
ALARMS: Final = Counter(
    "video_gateway_alarms", "Log lines that a person must act upon, by event.", ["event"]
)
BUILD: Final = Gauge(
    "video_gateway_build_info",
    "1, with the version of the program and the catalogue in force.",
    ["version", "catalogue_sha256"],
    multiprocess_mode="livemax",
)
