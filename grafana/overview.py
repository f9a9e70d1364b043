"""Is the gateway healthy? The first two lines answer; the rows below say why."""

from typing import Final

from grafana.boards import Board
from grafana.overview_machine import ALARMS, DATABASE_AND_STORE, MACHINE
from grafana.overview_traffic import FAILED, REQUESTS, UPSTREAM
from grafana.overview_work import HOUR_SECONDS, MIRROR, ORPHANS, POLLER
from grafana.panels import GREEN, RED, YELLOW, Query, Row, falling, rising, stat, table
from grafana.promql import (
    budget_used,
    in_range,
    metric,
    per_second,
    quantile,
    recorded,
    share,
)

_ANSWERED: Final = 'route=~"/v1/.*", code!="none"'
# A download takes as long as its reader wants.
_QUICK: Final = 'route=~"/v1/.*", route!~".*/content"'
_READYZ: Final = 'check!="store"'
_STORE: Final = 'check="store"'
_OURS: Final = 'alertname=~"VideoGateway.*", job=~"$job"'

_GLANCE: Final = (
    stat(
        "Ready",
        "Whether the replica that is worst off answers /readyz with 200. reads only: it does, but "
        "without its store it refuses to buy. Alarms and checks says which check fails.",
        f"min ({metric('check_passing', _READYZ)}) * (1 + min ({metric('check_passing', _STORE)}))",
        "short",
        # No gateway is as bad as one that is not ready.
        thresholds=((None, RED), (1, YELLOW), (2, GREEN)),
        words=(("0", "no", "red"), ("1", "reads only", "yellow"), ("2", "yes", "green")),
        no_value="no gateway",
    ),
    stat(
        "Replicas missing",
        "Replicas that Prometheus knows of and cannot scrape. They serve nobody, or are cut off.",
        'count (up{job=~"$job", instance=~"$instance"} == 0) or '
        '0 * count (up{job=~"$job", instance=~"$instance"})',
        "short",
        thresholds=rising(1, 1),
        no_value="no gateway",
    ),
    stat(
        "Requests",
        "Requests per second to the API, all replicas together.",
        per_second("http_requests_total"),
        "reqps",
    ),
    stat(
        "Server errors",
        "Share of requests to /v1 that were answered with 5xx, whoever's fault it was: to a caller "
        "it is all the same. The objective is 0.1 % in 30 days.",
        share(
            per_second("http_requests_total", FAILED), per_second("http_requests_total", _ANSWERED)
        ),
        "percentunit",
        thresholds=rising(0.001, 0.0144),
        decimals=2,
        no_value="no traffic",
    ),
    stat(
        "95 % answered within",
        "95 % of requests were answered faster than this; downloads are left out, for they take as "
        "long as their reader wants. A purchase includes the upstream's answer.",
        quantile(0.95, "http_request_duration_seconds", _QUICK),
        "s",
        thresholds=rising(2, 10),
        no_value="no traffic",
    ),
    stat(
        "Upstream answers",
        "Share of calls to the upstream that it answered, be it with a refusal of the request. "
        "What is missing was not sent, broke off, or was refused because of the gateway itself.",
        share(
            per_second("upstream_requests_total", 'outcome=~"ok|refused|missing"'),
            per_second("upstream_requests_total"),
        ),
        "percentunit",
        thresholds=falling(0.9, 0.99),
        decimals=1,
        no_value="no calls",
    ),
    stat(
        "Budget used",
        "Spent and held of the budget that is used most, of the organization or any project, in "
        "its running period. At 100 % purchases are refused.",
        f"max ({budget_used(by='level, project_id, period')})",
        "percentunit",
        thresholds=rising(0.8, 0.95),
        decimals=0,
        no_value="no budget",
    ),
    stat(
        "Alarms, last hour",
        "Log lines of level error in the last hour: each needs a person. README.md lists them.",
        in_range("alarms_total"),
        "short",
        thresholds=rising(1, 1),
        decimals=0,
        time_from="1h",
    ),
    stat(
        "Orphans",
        "Purchases of which nobody knows whether the upstream made the video. Their money stays on "
        "hold until a person settles or releases it: `video-gateway orphans list`.",
        recorded("orphans"),
        "short",
        thresholds=rising(1, 10),
    ),
    stat(
        "Poll lag",
        "How late the video is whose poll is due longest. Clients wait that much longer.",
        recorded("poll_overdue_seconds"),
        "s",
        thresholds=rising(30, 120),
    ),
    stat(
        "Not mirrored",
        "Finished videos, thumbnails and spritesheets that are not in the store yet. Some are "
        "always on their way; a number that only grows is bad.",
        recorded("mirror_backlog"),
        "short",
        thresholds=rising(100, 1000),
    ),
    stat(
        "Expires upstream in",
        "Time until the upstream deletes the first content that is not mirrored yet. At zero that "
        "content is lost.",
        f"{recorded('mirror_next_expiry_timestamp_seconds')} - time()",
        "s",
        thresholds=falling(HOUR_SECONDS, 4 * HOUR_SECONDS),
        no_value="nothing waits",
    ),
    table(
        "Firing alerts",
        "Alerts of grafana/alerts that fire at this moment, if those rules are loaded; "
        "grafana/runbooks.md says what to do about each.",
        Query(
            f"time() - min by (alertname, severity) (ALERTS_FOR_STATE{{{_OURS}}}) "
            f'and on (alertname, severity) ALERTS{{{_OURS}, alertstate="firing"}}'
        ),
        columns=(("alertname", "alert"), ("severity", "severity"), ("A", "for")),
        units=(("for", "s", 1),),
        words=(("critical", "critical", "red"), ("warning", "warning", "yellow")),
        coloured="severity",
        sort_by="for",
        width=12,
        height=4,
        no_value="nothing fires",
    ),
)

OVERVIEW: Final = Board(
    name="overview",
    title="Video gateway / Overview",
    description="Is the gateway healthy, and if not, what is wrong?",
    hours=6,
    rows=(
        Row("Is it healthy?", _GLANCE),
        Row("Requests: what callers see", REQUESTS),
        Row("Upstream: what we get", UPSTREAM),
        Row("Poller: following videos to their end", POLLER),
        Row("Mirror: keeping what is finished", MIRROR),
        Row("Orphans: money in doubt", ORPHANS),
        Row("Alarms and checks", ALARMS),
        Row("Database and store", DATABASE_AND_STORE),
        Row("Machine", MACHINE),
    ),
)
