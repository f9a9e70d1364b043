"""What do dashboards and rules ask Prometheus for?"""

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import promql_parser
import yaml

ROOT = Path(__file__).parent.parent
GRAFANA = ROOT / "grafana"
PREFIX = "video_gateway_"
# What Grafana and a person fill in, for whoever asks in their place.
DEFAULTS = {
    "job": "video-gateway",
    "instance": ".+",
    "project": ".*",
    "period": "month",
    "__rate_interval": "1m",
    "__interval": "15s",
    "__range": "1h",
    "__range_s": "3600",
}


@dataclass(frozen=True)
class PanelQuery:
    """One query of one panel, ready for /api/v1/query or query_range."""

    board: str
    panel: dict[str, Any]
    expr: str
    legend: str

    @property
    def instant(self) -> bool:
        return self.panel["type"] not in {"timeseries", "state-timeline"}

    @property
    def title(self) -> str:
        return f"{self.board}: {self.panel['title']}"


@dataclass(frozen=True)
class Selector:
    """One metric as it is asked for, below which functions and aggregations, innermost last."""

    name: str
    text: str
    matchers: Mapping[str, str]
    above: tuple[Any, ...] = field(default=(), compare=False, repr=False)


@dataclass(frozen=True)
class Rule:
    """One rule of an alert file; `alert` or `record` is empty."""

    path: Path
    alert: str
    record: str
    expr: str
    labels: Mapping[str, str]
    annotations: Mapping[str, str]


def documented() -> dict[str, str]:
    """Return every series that /metrics has, by README's table: `each` or `same` of replicas."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    rows = re.findall(r"^\| `(video_gateway_\w+)` \| (\w+) \| (\w+) \|", readme, re.MULTILINE)
    ends = {"histogram": ("_bucket", "_count", "_sum")}
    return {f"{name}{end}": kind for name, what, kind in rows for end in ends.get(what, ("",))}


def boards() -> dict[str, dict[str, Any]]:
    """Return every dashboard by its file's name."""
    files = sorted((GRAFANA / "dashboards").glob("*.json"))
    return {path.stem: json.loads(path.read_text(encoding="utf-8")) for path in files}


def panels(board: dict[str, Any]) -> Iterator[dict[str, Any]]:
    """Yield what is shown, rows' headings left out."""
    for panel in board["panels"]:
        if panel["type"] != "row":
            yield panel
        yield from panel.get("panels", ())


def panel_queries(values: Mapping[str, str] | None = None) -> list[PanelQuery]:
    """Return every query of every panel with its variables filled in."""
    return [
        PanelQuery(name, panel, fill(target["expr"], values), target["legendFormat"])
        for name, board in boards().items()
        for panel in panels(board)
        for target in panel["targets"]
    ]


def fill(expr: str, values: Mapping[str, str] | None = None) -> str:
    """Put values in the place of Grafana's variables; one that is not known stays as it is."""
    known = {**DEFAULTS, **(values or {})}
    return re.sub(r"\$\{?(\w+)\}?", lambda found: known.get(found[1], found[0]), expr)


def rules() -> list[Rule]:
    """Return every rule of every alert file."""
    return [
        Rule(
            path=path,
            alert=rule.get("alert", ""),
            record=rule.get("record", ""),
            expr=rule["expr"],
            labels=rule.get("labels", {}),
            annotations=rule.get("annotations", {}),
        )
        for path in sorted((GRAFANA / "alerts").glob("*.yml"))
        for group in yaml.safe_load(path.read_text(encoding="utf-8"))["groups"]
        for rule in group["rules"]
    ]


def selectors(expr: str) -> list[Selector]:
    """Return every metric of an expression; raises ValueError if it is no PromQL."""
    found: list[Selector] = []
    above: list[Any] = []

    def enter(node: Any) -> None:
        if isinstance(node, promql_parser.VectorSelector):
            matchers = {one.name: str(one.value) for one in node.matchers.matchers}
            name = node.name or ""
            found.append(Selector(name, f"{name}{node.matchers}", matchers, tuple(above)))
        above.append(node)

    def leave(_: Any) -> None:
        above.pop()

    promql_parser.walk(promql_parser.parse(expr), enter, leave)
    return found


def metrics_used() -> dict[str, list[Selector]]:
    """Return, by where it is, every metric of ours that dashboards and rules ask for."""
    asked = {query.title: query.expr for query in panel_queries()}
    asked |= {rule.alert or rule.record: rule.expr for rule in rules()}
    for name, board in boards().items():
        for note in board["annotations"]["list"]:
            asked[f"{name}: {note['name']}"] = fill(note["expr"])
        for variable in board["templating"]["list"]:
            if wanted := re.fullmatch(r"label_values\((.*), \w+\)", str(variable["query"])):
                asked[f"{name}: ${variable['name']}"] = fill(wanted[1])
    return {
        where: [one for one in selectors(expr) if one.name.startswith(PREFIX)]
        for where, expr in asked.items()
    }
