"""What can a panel look like?

Each kind has one look, kept here, so that a dashboard is a list of titles, explanations and
queries. Sizes are Grafana's: a row is 24 wide.
"""

from dataclasses import dataclass, replace
from typing import Any, Final

GREEN: Final = "green"
YELLOW: Final = "yellow"
RED: Final = "red"
BLUE: Final = "blue"

# Grafana has units for so many a second; these read the same way.
PER_MINUTE: Final = "suffix:/min"
PER_HOUR: Final = "suffix:/h"

Thresholds = tuple[tuple[float | None, str], ...]

# The same outcome has the same colour everywhere.
OUTCOMES: Final = (
    ("ok|completed|mirrored|delivered|store|2..", "green"),
    ("queued|pending|3..", "light-blue"),
    ("in_progress", "blue"),
    ("failed|given_up|gone|store_failed|auth|misconfigured|balance|5..", "red"),
    ("failed_billed|not_sent|upstream", "orange"),
    ("orphaned|unknown|unclear", "purple"),
    ("refused|rate_limited|4..", "yellow"),
    ("absent|missing|nothing|none", "text"),
)
# Lower than any value.
LOWEST: Final = -1e9
# Where a value is neither good nor bad.
NEUTRAL: Final[Thresholds] = ((None, BLUE),)


@dataclass(frozen=True)
class Query:
    """One PromQL expression, and what to call the series it finds."""

    expr: str
    legend: str = ""


@dataclass(frozen=True)
class Panel:
    """One panel: what it asks, and how it shows the answer."""

    kind: str
    title: str
    description: str
    queries: tuple[Query, ...]
    unit: str
    width: int
    height: int
    thresholds: Thresholds = NEUTRAL
    no_value: str = "none"
    words: tuple[tuple[str, str, str], ...] = ()
    decimals: int | None = None
    most: float | None = None
    time_from: str = ""
    step: str = ""
    stacked: bool = False
    bars: bool = False
    colours: tuple[tuple[str, str], ...] = ()
    buckets: bool = False
    columns: tuple[tuple[str, str], ...] = ()
    units: tuple[tuple[str, str, int], ...] = ()
    coloured: str = ""
    hidden: tuple[str, ...] = ()
    sort_by: str = ""


@dataclass(frozen=True)
class Row:
    """A heading, and the panels below it."""

    title: str
    panels: tuple[Panel, ...]


def rising(warn: float, bad: float) -> Thresholds:
    """Thresholds of a value that is bad when it is high."""
    return ((None, GREEN), (warn, YELLOW), (bad, RED))


def falling(bad: float, warn: float) -> Thresholds:
    """Thresholds of a value that is bad when it is low; no value at all is not."""
    return ((None, BLUE), (LOWEST, RED), (bad, YELLOW), (warn, GREEN))


def never(title: str, description: str, *queries: Query, **look: Any) -> Panel:
    """Bars that count what should never happen: a zero is shown, for it is no missing figure."""
    look = {"stacked": True, "bars": True, "step": "5m", "decimals": 0, **look}
    return graph(title, description, "short", *queries, **look)


def stat(title: str, description: str, expr: str, unit: str, **look: Any) -> Panel:
    """One figure, as it is now: a replica that has gone must not leave its last good value."""
    panel = Panel("stat", title, description, (Query(expr),), unit, width=3, height=4)
    return replace(panel, **look)


def graph(title: str, description: str, unit: str, *queries: Query, **look: Any) -> Panel:
    """Lines over time; with `stacked`, areas that add up."""
    panel = Panel("timeseries", title, description, queries, unit, width=8, height=8)
    return replace(panel, **look)


def happened(title: str, description: str, unit: str, *queries: Query, **look: Any) -> Panel:
    """Bars over time; what did not happen is left out, and so is its name."""
    shown = [replace(query, expr=f"{query.expr} > 0") for query in queries]
    return graph(title, description, unit, *shown, stacked=True, bars=True, **look)


def rare(title: str, description: str, *queries: Query, **look: Any) -> Panel:
    """Bars that count what hardly ever happens."""
    return happened(title, description, "short", *queries, step="5m", decimals=0, **look)


def bars(title: str, description: str, unit: str, *queries: Query, **look: Any) -> Panel:
    """One bar for each series, as it is now."""
    panel = Panel("bargauge", title, description, queries, unit, width=8, height=8)
    return replace(panel, **look)


def states(title: str, description: str, *queries: Query, **look: Any) -> Panel:
    """Bands of colour over time, for what has few values."""
    panel = Panel("state-timeline", title, description, queries, "short", width=8, height=8)
    return replace(panel, **look)


def table(title: str, description: str, *queries: Query, **look: Any) -> Panel:
    """One line for each set of labels, one column for each query.

    `columns` are pairs: a label, or the letter of a query, and the column's heading, in order;
    `units` are triples: a heading, its unit, how many decimals. `coloured` is the heading of the
    column that thresholds and words give a colour.
    """
    panel = Panel("table", title, description, queries, "short", width=12, height=8)
    return replace(panel, **look)
