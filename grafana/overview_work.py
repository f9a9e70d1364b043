"""Do the background loops keep up: polls, the mirror, and what only a person can end?"""

from typing import Final

from grafana.panels import OUTCOMES, PER_MINUTE, Query, falling, graph, rising
from grafana.promql import age, per_minute, per_second, quantile, recorded

HOUR_SECONDS: Final = 3600

POLLER: Final = (
    graph(
        "Polls by what they found",
        "Polls per second. nothing: the upstream did not answer with a status; it is asked again.",
        "ops",
        Query(per_second("polls_total", by="outcome"), "{{outcome}}"),
        stacked=True,
        colours=OUTCOMES,
    ),
    graph(
        "Poll lag",
        "How late the video is whose poll is due longest. It grows when the upstream is slow or "
        "there is too little poll_concurrency.",
        "s",
        Query(recorded("poll_overdue_seconds"), "overdue"),
        thresholds=rising(30, 120),
    ),
    graph(
        "Polls that clients did not cost",
        "Reads of unfinished videos that clients made, and the polls the upstream got instead. The "
        "difference was answered from the record.",
        "reqps",
        Query(per_second("status_reads_total", 'status=~"queued|in_progress"'), "reads by clients"),
        Query(
            per_second("upstream_requests_total", 'endpoint="retrieve"'), "polls to the upstream"
        ),
    ),
)

MIRROR: Final = (
    graph(
        "Not mirrored",
        "Finished content that is not in the store yet.",
        "short",
        Query(recorded("mirror_backlog"), "assets"),
        thresholds=rising(100, 1000),
    ),
    graph(
        "Longest wait",
        "How long the content has waited that is not in the store yet and was finished first.",
        "s",
        Query(age(recorded("mirror_oldest_unmirrored_timestamp_seconds")), "has waited"),
        thresholds=rising(1800, HOUR_SECONDS),
        no_value="nothing waits",
    ),
    graph(
        "Expires upstream in",
        "Time until the upstream deletes the first content that is not mirrored yet. At zero that "
        "content is lost.",
        "s",
        Query(f"{recorded('mirror_next_expiry_timestamp_seconds')} - time()", "expires in"),
        thresholds=falling(HOUR_SECONDS, 4 * HOUR_SECONDS),
        no_value="nothing waits",
    ),
    graph(
        "From finished to stored",
        "How long content took to be in the store after its video was completed.",
        "s",
        Query(quantile(0.5, "mirror_lag_seconds"), "half were faster"),
        Query(quantile(0.95, "mirror_lag_seconds"), "95 % were faster"),
        thresholds=rising(300, 1800),
        width=6,
    ),
    graph(
        "Turns of the mirror",
        "Tries to mirror, per minute. absent: the upstream has no such variant. gone: it has "
        "deleted it. store_failed: our store did not take it.",
        PER_MINUTE,
        Query(per_minute("mirror_turns_total", by="outcome"), "{{outcome}}"),
        colours=OUTCOMES,
        width=6,
    ),
    graph(
        "Mirrored",
        "Bytes per second that came into the store.",
        "Bps",
        Query(per_second("mirrored_bytes_total"), "mirrored"),
        width=6,
    ),
    graph(
        "Kept, and how much may be",
        "Size of the content in the store, and the limit (setting keep_bytes) if there is one. The "
        "oldest goes when it is reached.",
        "bytes",
        Query(recorded("store_kept_bytes"), "kept"),
        Query(recorded("store_limit_bytes"), "limit"),
        width=6,
    ),
)

ORPHANS: Final = (
    graph(
        "Orphans",
        "Purchases whose outcome is unknown. Only evidence ends them: `video-gateway reconcile` "
        "finds it in the upstream's bill.",
        "short",
        Query(recorded("orphans"), "orphans"),
        thresholds=rising(1, 10),
    ),
    graph(
        "Age of the oldest orphan",
        "Its money is on hold for so long already.",
        "s",
        Query(age(recorded("orphans_oldest_timestamp_seconds")), "oldest"),
        thresholds=rising(HOUR_SECONDS, 24 * HOUR_SECONDS),
        no_value="no orphan",
    ),
    graph(
        "Held by orphans",
        "Money that no budget has back until the orphans are settled or released.",
        "currencyUSD",
        Query(recorded("orphans_held_usd"), "held"),
        thresholds=rising(1, 100),
    ),
)
