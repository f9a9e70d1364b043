"""How does a list of panels become a dashboard?

All dashboards have the same variables, links and annotations, so that one can go from one to the
next and stay with the same gateway and the same time.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

from grafana_foundation_sdk.builders import dashboard as build
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model

from grafana.looks import DATASOURCE, build_panel
from grafana.panels import Row
from grafana.promql import PREFIX, metric

TAG: Final = "video-gateway"
_ALL: Final = model.VariableOption(selected=True, text="All", value="$__all")


@dataclass(frozen=True)
class Board:
    """One dashboard; its uid never changes, for links and alerts lead to it."""

    name: str
    title: str
    description: str
    hours: int
    rows: Sequence[Row]
    variables: Sequence[build.QueryVariable | build.CustomVariable] = ()
    timezone: str = "browser"


def to_json(board: Board) -> str:
    """Return the text of the dashboard's file."""
    built = (
        build.Dashboard(board.title)
        .uid(f"{TAG}-{board.name}")
        .description(board.description)
        .tags([TAG])
        .refresh("30s")
        .time(f"now-{board.hours}h", "now")
        .timezone(board.timezone)
        .tooltip(model.DashboardCursorSync.CROSSHAIR)
        .link(_link())
    )
    for variable in (*_variables(), *board.variables):
        built = built.with_variable(variable)
    for row in board.rows:
        built = built.with_row(build.Row(row.title))
        for panel in row.panels:
            built = built.with_panel(build_panel(panel))
    found = json.loads(JSONEncoder(sort_keys=True).encode(built.build()))
    for number, panel in enumerate(found["panels"], 1):
        panel["id"] = number
    found["annotations"] = {"list": list(_annotations())}
    return json.dumps(found, indent=1, sort_keys=True, ensure_ascii=False) + "\n"


def chosen(name: str, label: str, query: str, description: str) -> build.QueryVariable:
    """A variable of which several values, or all, can be chosen."""
    return (
        _asked(name, label, query, description)
        .multi(multi=True)
        .include_all(include_all=True)
        .current(_ALL)
    )


def _asked(name: str, label: str, query: str, description: str) -> build.QueryVariable:
    return (
        build.QueryVariable(name)
        .label(label)
        .description(description)
        .datasource(DATASOURCE)
        .query(query)
        .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED)
        .sort(model.VariableSort.ALPHABETICAL_ASC)
    )


def _variables() -> tuple[build.DatasourceVariable | build.QueryVariable, ...]:
    info = f"{PREFIX}build_info"
    return (
        build.DatasourceVariable("datasource").label("Data source").type("prometheus"),
        # One at a time: what the records of two gateways say must not be mixed.
        _asked("job", "Gateway", f"label_values({info}, job)", "Replicas of one database: a job."),
        chosen(
            "instance",
            "Replica",
            f'label_values({info}{{job=~"$job"}}, instance)',
            "Counters are summed over these replicas; the records are the same in each.",
        ).all_value(".+"),
    )


def _link() -> build.DashboardLink:
    return (
        build.DashboardLink("Video gateway")
        .type(model.DashboardLinkType.DASHBOARDS)
        .tags([TAG])
        .as_dropdown(as_dropdown=False)
        .include_vars(include_vars=True)
        .keep_time(keep_time=True)
    )


def _annotations() -> tuple[dict[str, Any], ...]:
    """The SDK knows no titles of Prometheus' annotations."""
    shared = {"datasource": {"type": "prometheus", "uid": "${datasource}"}, "enable": True}
    return (
        {
            **shared,
            "name": "Starts",
            "expr": f"1000 * max by (instance) ({metric('start_timestamp_seconds')})",
            "useValueForTime": True,
            "iconColor": "blue",
            "titleFormat": "{{instance}} started",
        },
        {
            **shared,
            "name": "Alerts",
            "expr": 'ALERTS{alertstate="firing", alertname=~"VideoGateway.*", job=~"$job"}',
            "iconColor": "red",
            "titleFormat": "{{alertname}}",
            "textFormat": "{{severity}}",
        },
    )
