"""How would Grafana draw lines, areas and bars over time?"""

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Any

from dashboard_figures import COLOURS, figure, with_unit

PALETTE = ("#73bf69", "#f2cc0c", "#8ab8ff", "#ff780a", "#f2495c", "#5794f2", "#b877d9", "#37872d")
COLUMN_PIXELS, ROW_PIXELS, AROUND_PIXELS = 68, 36, 96
LEFT, BELOW, ABOVE = 62, 16, 8
MOST_NAMES = 8


@dataclass(frozen=True)
class Series:
    """One answer: its labels, what to call it, which query found it, and its points."""

    query: str
    labels: Mapping[str, str]
    name: str
    points: Sequence[tuple[float, float]]

    @property
    def last(self) -> float:
        return self.points[-1][1]


@dataclass(frozen=True)
class _Paper:
    """Where a moment and a value are."""

    width: int
    height: int
    top: float
    span: tuple[float, float]

    def place(self, moment: float, value: float) -> str:
        part = (moment - self.span[0]) / (self.span[1] - self.span[0])
        up = max(value, 0) / self.top * (self.height - BELOW - ABOVE)
        return f"{LEFT + part * (self.width - LEFT):.1f},{self.height - BELOW - up:.1f}"


def draw_lines(panel: dict[str, Any], series: Sequence[Series], span: tuple[float, float]) -> str:
    """Return a time series panel as SVG with a legend."""
    stacked = _custom(panel)["stacking"]["mode"] == "normal"
    lines = _stack(series) if stacked else [one.points for one in series]
    highest = max(value for line in lines for _, value in line if not math.isnan(value))
    near = [one["value"] for one in _dashed(panel) if one["value"] <= 2 * highest]
    paper = _Paper(
        width=panel["gridPos"]["w"] * COLUMN_PIXELS,
        height=panel["gridPos"]["h"] * ROW_PIXELS - AROUND_PIXELS,
        top=panel["fieldConfig"]["defaults"].get("max") or 1.05 * max(highest, *near, 0) or 1,
        span=span,
    )
    colours = [_colour(panel, one.name, index) for index, one in enumerate(series)]
    drawn = [
        _line(panel, paper, [one for one in line if not math.isnan(one[1])], colour)
        for line, colour in zip(lines, colours, strict=True)
    ]
    # What is stacked higher reaches behind what is below it.
    parts = [*_axes(panel, paper), *reversed(drawn), *_thresholds(panel, paper)]
    box = f"viewBox='0 0 {paper.width} {paper.height}'"
    return f"<svg {box}>{''.join(parts)}</svg>{_legend(panel, series, colours)}"


def _line(
    panel: dict[str, Any], paper: _Paper, line: Sequence[tuple[float, float]], colour: str
) -> str:
    points = [paper.place(*one) for one in line]
    path = " ".join(points)
    if _custom(panel)["drawStyle"] == "bars":
        places = [point.split(",") for point in points]
        return "".join(
            f"<line x1={x} x2={x} y1={y} y2={paper.height - BELOW} stroke='{colour}' "
            "stroke-width=3 />"
            for x, y in places
        )
    area = ""
    if line and _custom(panel)["stacking"]["mode"] == "normal":
        ends = f"{paper.place(line[-1][0], 0)} {paper.place(line[0][0], 0)}"
        area = f"<polygon points='{path} {ends}' fill='{colour}' opacity=.75 />"
    return f"{area}<polyline points='{path}' fill=none stroke='{colour}' stroke-width=1.3 />"


def _stack(series: Sequence[Series]) -> list[list[tuple[float, float]]]:
    below: dict[float, float] = {}
    lines = []
    for one in series:
        for moment, value in one.points:
            below[moment] = below.get(moment, 0) + (0 if math.isnan(value) else value)
        lines.append([(moment, below[moment]) for moment, _ in one.points])
    return lines


def _thresholds(panel: dict[str, Any], paper: _Paper) -> Iterable[str]:
    for one in _dashed(panel):
        ends = [paper.place(moment, one["value"]) for moment in paper.span]
        stroke = f"stroke='{COLOURS[one['color']]}' stroke-dasharray=6"
        yield f"<polyline points='{' '.join(ends)}' {stroke} />"


def _dashed(panel: dict[str, Any]) -> list[dict[str, Any]]:
    if _custom(panel)["thresholdsStyle"]["mode"] == "off":
        return []
    steps = panel["fieldConfig"]["defaults"]["thresholds"]["steps"]
    return [one for one in steps if one["value"] is not None]


def _axes(panel: dict[str, Any], paper: _Paper) -> Iterable[str]:
    start, end = paper.span
    for part in (0, 0.5, 1):
        x, y = paper.place(start, part * paper.top).split(",")
        yield f"<line x1={x} x2={paper.width} y1={y} y2={y} stroke='#2c3235' />"
        text = figure(panel, part * paper.top)
        yield f"<text x={LEFT - 4} y={float(y) + 4} text-anchor=end>{text}</text>"
    for part, anchor in ((0, "start"), (0.5, "middle"), (1, "end")):
        x, _ = paper.place(start + part * (end - start), 0).split(",")
        ago = (1 - part) * (end - start)
        text = f"{with_unit(ago, 's')} ago" if ago else "now"
        yield f"<text x={x} y={paper.height - 2} text-anchor={anchor}>{text}</text>"


def _legend(panel: dict[str, Any], series: Sequence[Series], colours: Sequence[str]) -> str:
    named = "".join(
        f"<span><b style='color:{colour}'>■</b> {escape(one.name)} "
        f"<em>{figure(panel, one.last)}</em></span>"
        for one, colour in list(zip(series, colours, strict=True))[:MOST_NAMES]
    )
    more = len(series) - MOST_NAMES
    return f"<p>{named}{f'and {more} more' if more > 0 else ''}</p>"


def _colour(panel: dict[str, Any], name: str, index: int) -> str:
    for override in panel["fieldConfig"]["overrides"]:
        prop = override["properties"][0]
        if prop["id"] == "color" and re.search(override["matcher"]["options"].strip("/"), name):
            return COLOURS[prop["value"]["fixedColor"]]
    return PALETTE[index % len(PALETTE)]


def _custom(panel: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = panel["fieldConfig"]["defaults"]["custom"]
    return found
