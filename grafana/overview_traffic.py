"""What do callers see, and what does the gateway get from the upstream?"""

from typing import Final

from grafana.panels import OUTCOMES, Query, falling, graph, happened, rare
from grafana.promql import in_bar, per_second, quantile, share

FAILED: Final = 'route=~"/v1/.*", code=~"5.."'

REQUESTS: Final = (
    happened(
        "Requests by route",
        "Requests per second, by route. Most are reads: clients ask until their video is ready.",
        "reqps",
        Query(per_second("http_requests_total", by="method, route"), "{{method}} {{route}}"),
    ),
    rare(
        "Server errors by route",
        "Answers with 5xx, by route and status. 502 and 504 come from the upstream, "
        "503 from this gateway's database or store, or from one that is stopping; 500 is a defect.",
        Query(
            in_bar("http_requests_total", FAILED, by="method, route, code"),
            "{{code}} {{method}} {{route}}",
        ),
    ),
    graph(
        "95 % answered within, by route",
        "95 % of a route's requests were answered faster. Content includes the time its reader "
        "took to receive it.",
        "s",
        Query(
            quantile(0.95, "http_request_duration_seconds", by="method, route"),
            "{{method}} {{route}}",
        ),
    ),
    rare(
        "Refused, by reason",
        "Requests answered with an error,, by its kind. invalid_request and "
        "budget_exceeded are the callers' business; upstream_auth, upstream_balance and "
        "upstream_misconfigured are yours.",
        Query(in_bar("requests_refused_total", by="reason"), "{{reason}}"),
    ),
    graph(
        "Answers by status",
        "Requests per second by status; none: the client left before its answer.",
        "reqps",
        Query(
            per_second("http_requests_total", by="code"),
            "{{code}}",
        ),
        stacked=True,
        colours=OUTCOMES,
    ),
    graph(
        "Content sent",
        "Bytes per second sent to clients: from the store, or straight from the upstream while a "
        "video is being mirrored.",
        "Bps",
        Query(per_second("content_sent_bytes_total", by="source"), "{{source}}"),
        stacked=True,
    ),
)

UPSTREAM: Final = (
    graph(
        "Calls by endpoint",
        "Calls per second to each upstream. submit is what is billed.",
        "reqps",
        Query(
            per_second("upstream_requests_total", by="upstream, endpoint"),
            "{{upstream}} {{endpoint}}",
        ),
        stacked=True,
    ),
    rare(
        "What went wrong",
        "Calls that did not end well. refused: the upstream said no to the request. "
        "not_sent: it could not be reached. unknown: sent, and no answer that says what happened.",
        Query(
            in_bar("upstream_requests_total", 'outcome!="ok"', by="upstream, outcome"),
            "{{outcome}}",
        ),
        colours=OUTCOMES,
    ),
    graph(
        "95 % of calls answered within",
        "95 % of calls were answered faster; of a download, this is the time to its first byte.",
        "s",
        Query(
            quantile(0.95, "upstream_request_duration_seconds", by="upstream, endpoint"),
            "{{upstream}} {{endpoint}}",
        ),
    ),
    rare(
        "Refused because of us",
        "Calls that the upstream refused for a reason only you can repair. auth: the "
        "upstream key. misconfigured: its billing group. balance: the account is empty. "
        "`video-gateway upstream check` explains.",
        Query(
            in_bar(
                "upstream_requests_total",
                'outcome=~"auth|misconfigured|balance"',
                by="upstream, outcome",
            ),
            "{{upstream}} {{outcome}}",
        ),
    ),
    graph(
        "Answered by the upstream",
        "Share of each endpoint's calls that the upstream answered, be it with a refusal.",
        "percentunit",
        Query(
            share(
                per_second(
                    "upstream_requests_total",
                    'outcome=~"ok|refused|missing"',
                    by="upstream, endpoint",
                ),
                per_second("upstream_requests_total", by="upstream, endpoint"),
            ),
            "{{upstream}} {{endpoint}}",
        ),
        thresholds=falling(0.9, 0.99),
        most=1,
    ),
    rare(
        "Purchases whose outcome is unknown",
        "Purchases after which nobody knows whether a video was made. Each is an orphan, "
        "unless its upstream id turns up late.",
        Query(
            in_bar(
                "upstream_requests_total",
                'endpoint="submit", outcome=~"unknown|unclear"',
                by="upstream",
            ),
            "{{upstream}}",
        ),
    ),
)
