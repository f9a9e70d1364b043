"""How would Grafana draw a panel? Near enough to judge titles, units, colours and what is empty.

A panel and what Prometheus answered become HTML: stat, bar gauge, time series, state timeline and
table, with thresholds, words for values, overrides and the transformations that the builder uses.
"""

import math
from collections.abc import Callable, Sequence
from html import escape
from typing import Any

from dashboard_figures import COLOURS, colour_of, figure, with_unit
from dashboard_lines import Series, draw_lines

DARK = "#111"


def draw(panel: dict[str, Any], series: Sequence[Series], span: tuple[float, float]) -> str:
    """Return the inside of a panel."""
    drawn = [one for one in series if any(not math.isnan(value) for _, value in one.points)]
    if not drawn:
        text = escape(panel["fieldConfig"]["defaults"]["noValue"])
        if panel["type"] != "stat":
            return f"<div class=none>{text}</div>"
        return f"<div class=stat style='background:{colour_of(panel, -math.inf)}'>{text}</div>"
    if panel["type"] == "timeseries":
        return draw_lines(panel, drawn, span)
    if panel["type"] == "state-timeline":
        return _bands(panel, drawn, span)
    kinds: dict[str, Callable[[dict[str, Any], Sequence[Series]], str]]
    kinds = {"stat": _stat, "bargauge": _bars, "table": _table}
    return kinds[panel["type"]](panel, drawn)


def _stat(panel: dict[str, Any], series: Sequence[Series]) -> str:
    colour = colour_of(panel, series[0].last)
    return f"<div class=stat style='background:{colour}'>{figure(panel, series[0].last)}</div>"


def _bars(panel: dict[str, Any], series: Sequence[Series]) -> str:
    if panel["targets"][0].get("format") == "heatmap":
        series = _apart(series)
    most = panel["fieldConfig"]["defaults"].get("max") or max(one.last for one in series) or 1
    return "".join(
        f"<div class=bar><span>{escape(one.name)}</span><div><i style='width:"
        f"{min(100, 100 * one.last / most):.0f}%;background:{colour_of(panel, one.last)}'></i>"
        f"</div><b>{figure(panel, one.last)}</b></div>"
        for one in series
    )


def _apart(series: Sequence[Series]) -> list[Series]:
    """Take each bucket from the next, as Grafana does with the format heatmap."""
    below, found = 0.0, []
    for one in sorted(series, key=lambda bucket: float(bucket.labels["le"])):
        found.append(Series(one.query, one.labels, one.name, [(0, one.last - below)]))
        below = one.last
    return found


def _bands(panel: dict[str, Any], series: Sequence[Series], span: tuple[float, float]) -> str:
    found = []
    for one in series:
        width = f"width:{100 / len(one.points):.3f}%"
        cells = "".join(
            f"<i style='{width};background:{colour_of(panel, value)}'></i>"
            for _, value in one.points
        )
        found.append(f"<div class=band><span>{escape(one.name)}</span><div>{cells}</div></div>")
    return "".join(found) + f"<p>{with_unit(span[1] - span[0], 's')} until now</p>"


def _table(panel: dict[str, Any], series: Sequence[Series]) -> str:
    # As Grafana merges: rows are one where the labels agree that all queries have.
    shared = sorted(set.intersection(*(set(one.labels) for one in series)))
    rows: dict[tuple[str, ...], dict[str, str | float]] = {}
    for one in series:
        row = rows.setdefault(tuple(one.labels[name] for name in shared), {})
        row.update(one.labels)
        row[f"Value #{one.query}" if len(panel["targets"]) > 1 else "Value"] = one.last
    organize = panel["transformations"][1]["options"]
    hidden, names = organize["excludeByName"], organize["renameByName"]
    order = sorted(organize["indexByName"], key=organize["indexByName"].__getitem__)
    others = {field for row in rows.values() for field in row} - {*order, *hidden}
    columns = [*order, *sorted(others)]
    shown = list(rows.values())
    for sort in panel["options"].get("sortBy", ()):
        by = next(field for field, name in names.items() if name == sort["displayName"])
        shown.sort(key=lambda row: -float(row.get(by, -math.inf)))
    head = "".join(f"<th>{escape(names.get(field, field))}</th>" for field in columns)
    lines = [
        [_cell(panel, names.get(one, one), row.get(one, "")) for one in columns] for row in shown
    ]
    body = "".join(f"<tr>{''.join(cells)}</tr>" for cells in lines)
    return f"<table><tr>{head}</tr>{body}</table>"


def _cell(panel: dict[str, Any], heading: str, value: str | float) -> str:
    defaults = panel["fieldConfig"]["defaults"]
    own = {
        one["id"]: one["value"]
        for override in panel["fieldConfig"]["overrides"]
        if override["matcher"] == {"id": "byName", "options": heading}
        for one in override["properties"]
    }
    if isinstance(value, str):
        words = defaults.get("mappings", [{"options": {}}])[0]["options"]
        colour = COLOURS[words[value]["color"]] if value in words else ""
        text = value or defaults["noValue"]
    else:
        colour = colour_of(panel, value)
        text = with_unit(value, own.get("unit", defaults["unit"]), own.get("decimals"))
    style = f"background:{colour};color:{DARK}" if colour and "custom.cellOptions" in own else ""
    return f"<td style='{style}'>{escape(text)}</td>"
