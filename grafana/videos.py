"""How do videos fare: how many, how long, how do they end, and is their content kept?"""

from typing import Final

from grafana.boards import Board
from grafana.panels import (
    OUTCOMES,
    PER_HOUR,
    PER_MINUTE,
    Query,
    Row,
    bars,
    falling,
    graph,
    happened,
    rising,
    stat,
)
from grafana.promql import (
    in_range,
    per_hour,
    per_minute,
    per_second,
    quantile,
    quantile_in_range,
    recorded,
    share,
)

_MODEL: Final = "{{model}}"
# Those whose end says something of the upstream's work; what it refused was never begun.
_BEGUN: Final = 'outcome=~"completed|failed|failed_billed|orphaned"'
_COMPLETED: Final = 'outcome="completed"'
_GENERATION: Final = "video_generation_seconds"

_GLANCE: Final = (
    stat(
        "Bought",
        "Billable requests in the time shown whose price was held, whatever came of them.",
        in_range("videos_bought_total"),
        "short",
        decimals=0,
    ),
    stat(
        "In flight",
        "Videos that are queued or in progress at this moment.",
        f"sum ({recorded('videos_in_flight', by='model, status')})",
        "short",
        no_value="0",
    ),
    stat(
        "Completed",
        "Share of the videos that ended in the time shown that ended well.",
        share(in_range("videos_ended_total", _COMPLETED), in_range("videos_ended_total", _BEGUN)),
        "percentunit",
        thresholds=falling(0.8, 0.95),
        decimals=1,
        no_value="none ended",
    ),
    stat(
        "Half made within",
        "Half of the videos were made faster than this, in the time shown: from the upstream's id "
        "to the poll that found the video completed.",
        quantile_in_range(0.5, _GENERATION),
        "s",
        no_value="none ended",
    ),
    stat(
        "95 % made within",
        "95 % of the videos were made faster than this, in the time shown.",
        quantile_in_range(0.95, _GENERATION),
        "s",
        thresholds=rising(900, 1800),
        no_value="none ended",
    ),
    stat(
        "Poll lag",
        "How late the video is whose poll is due longest; clients wait that much longer.",
        recorded("poll_overdue_seconds"),
        "s",
        thresholds=rising(30, 120),
    ),
    stat(
        "Not mirrored",
        "Finished content that is not in the store yet.",
        recorded("mirror_backlog"),
        "short",
        thresholds=rising(100, 1000),
    ),
    stat(
        "Kept",
        "Size of all content that is in the store.",
        recorded("store_kept_bytes"),
        "bytes",
    ),
)

_ON_THE_WAY: Final = (
    graph(
        "In flight by status",
        "Videos that are not over. queued: the upstream has not begun; in_progress: it has.",
        "short",
        Query(
            f"sum by (status) ({recorded('videos_in_flight', by='model, status')})", "{{status}}"
        ),
        stacked=True,
        colours=OUTCOMES,
    ),
    graph(
        "In flight by model",
        "Videos that are queued or in progress, by model.",
        "short",
        Query(f"sum by (model) ({recorded('videos_in_flight', by='model, status')})", _MODEL),
        stacked=True,
    ),
    happened(
        "Bought by model",
        "Billable requests per hour whose price was held, by model.",
        PER_HOUR,
        Query(per_hour("videos_bought_total", by="model"), _MODEL),
    ),
)

_HOW_LONG: Final = (
    graph(
        "Half made within, by model",
        "Half of a model's videos were made faster than this.",
        "s",
        Query(quantile(0.5, _GENERATION, by="model"), _MODEL),
        step="15m",
    ),
    graph(
        "95 % made within, by model",
        "95 % of a model's videos were made faster than this.",
        "s",
        Query(quantile(0.95, _GENERATION, by="model"), _MODEL),
        thresholds=rising(900, 1800),
        step="15m",
    ),
    bars(
        "Videos by the time they took",
        "How many videos of the time shown took so many seconds at most, and more than the bar "
        "above.",
        "short",
        Query(in_range(f"{_GENERATION}_bucket", by="le"), "{{le}}"),
        buckets=True,
        decimals=0,
    ),
)

_HOW_THEY_END: Final = (
    graph(
        "Ends by outcome",
        "Videos per hour, by their end. failed cost nothing, failed_billed did. refused: the "
        "upstream said no. not_sent: it could not be reached. orphaned: nobody knows.",
        PER_HOUR,
        Query(per_hour("videos_ended_total", by="outcome"), "{{outcome}}"),
        stacked=True,
        colours=OUTCOMES,
        step="15m",
    ),
    graph(
        "Completed by model",
        "Share of a model's videos that ended well.",
        "percentunit",
        Query(
            share(
                per_second("videos_ended_total", _COMPLETED, by="model"),
                per_second("videos_ended_total", _BEGUN, by="model"),
            ),
            _MODEL,
        ),
        thresholds=falling(0.8, 0.95),
        most=1,
        step="30m",
    ),
    bars(
        "Why videos failed",
        "Failures of the time shown, by the upstream's reason. What moderation blocks is the "
        "prompt's business; the rest is the upstream's.",
        "short",
        Query(f"sort_desc({in_range('video_failures_total', by='reason')} > 0)", "{{reason}}"),
        decimals=0,
        no_value="none failed",
    ),
)

_CONTENT: Final = (
    graph(
        "95 % stored within",
        "How long content took to be in the store after its video was completed: 95 % were faster.",
        "s",
        Query(quantile(0.95, "mirror_lag_seconds", by="variant"), "{{variant}}"),
        thresholds=rising(300, 1800),
        width=6,
    ),
    graph(
        "Turns of the mirror",
        "Tries to mirror, per minute, by what came of them.",
        PER_MINUTE,
        Query(per_minute("mirror_turns_total", by="outcome"), "{{outcome}}"),
        colours=OUTCOMES,
        width=6,
    ),
    graph(
        "Content in the store",
        "Videos, thumbnails and spritesheets that are kept.",
        "short",
        Query(recorded("store_kept_assets"), "assets"),
        width=6,
    ),
    graph(
        "Content sent",
        "Bytes per second sent to clients: from the store, or straight from the upstream while a "
        "video is being mirrored.",
        "Bps",
        Query(per_second("content_sent_bytes_total", by="source"), "{{source}}"),
        stacked=True,
        colours=OUTCOMES,
        width=6,
    ),
)

VIDEOS: Final = Board(
    name="videos",
    title="Video gateway / Videos",
    description="What becomes of the videos that were bought?",
    hours=24,
    rows=(
        Row("At a glance", _GLANCE),
        Row("On the way", _ON_THE_WAY),
        Row("How long they take", _HOW_LONG),
        Row("How they end", _HOW_THEY_END),
        Row("Their content", _CONTENT),
    ),
)
