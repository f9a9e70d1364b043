"""What is spent, on what, by whom, and do the books add up? Days and months are UTC's."""

from typing import Any, Final

from grafana.boards import Board
from grafana.panels import BLUE, GREEN, RED, YELLOW, Panel, Query, Row, graph, rising, stat
from grafana.promql import (
    budget_used,
    elapsed_of_month,
    growth_per_hour,
    growth_per_hour_in_range,
    recorded,
)
from grafana.spend_details import BOOKS, ITEMS, UNCHARGED
from grafana.spend_projects import PROJECTS, VARIABLES

_USD: Final = "currencyUSD"
_WHOLE: Final = 'level="organization"'
_MONTH: Final = f'{_WHOLE}, period="month"'
_DAY: Final = f'{_WHOLE}, period="day"'
_EVER: Final = f'{_WHOLE}, period="total"'
_SPENT: Final = "ledger_spent_usd"
_FORECAST: Final = f"{recorded(_SPENT, _MONTH)} / {elapsed_of_month()}"


def _figure(title: str, description: str, expr: str, **look: Any) -> Panel:
    return stat(title, description, expr, _USD, decimals=2, **look)


_GLANCE: Final = (
    _figure(
        "Spent today",
        "Settled since midnight UTC, for videos bought today. A video is settled when it is "
        "completed; one that failed costs nothing.",
        recorded(_SPENT, _DAY),
    ),
    _figure(
        "Spent this month",
        "Settled since the first of the month, UTC, for videos bought this month.",
        recorded(_SPENT, _MONTH),
    ),
    _figure(
        "Forecast of the month",
        "What the month will have cost at its end if it goes on as it began: spent this month, by "
        "the part of the month that has passed. On the first day, as if that day were over.",
        _FORECAST,
    ),
    stat(
        "Forecast of the budget",
        "The forecast of the month as a share of the organization's monthly budget. Over 100 % "
        "purchases will be refused before the month is over.",
        f"{_FORECAST} / {recorded('ledger_budget_usd', _MONTH)}",
        "percentunit",
        thresholds=rising(0.9, 1),
        decimals=0,
        no_value="no budget",
    ),
    _figure(
        "Spent per hour",
        "Settled per hour, on average over the time shown.",
        growth_per_hour_in_range(_SPENT, _EVER),
    ),
    _figure(
        "On hold",
        "Set aside for videos that are not over. It is charged when they complete, and given back "
        "when they fail.",
        recorded("ledger_held_usd", _EVER),
    ),
    _figure(
        "Held in doubt",
        "Part of what is on hold: purchases of which nobody knows whether the upstream made and "
        "bills the video. Only evidence ends them: `video-gateway reconcile` looks for it.",
        recorded("orphans_held_usd"),
        thresholds=rising(0.01, 100),
    ),
    stat(
        "Budget used",
        "Spent and held of the organization's budget that is used most. At 100 % purchases are "
        "refused.",
        f"max ({budget_used(_WHOLE, by='period')})",
        "percentunit",
        thresholds=rising(0.8, 0.95),
        decimals=0,
        no_value="no budget",
    ),
)

_OVER_TIME: Final = (
    graph(
        "This month",
        "Spent and held of the running month, the organization's monthly budget if there is one, "
        "and what the month is forecast to cost.",
        _USD,
        Query(recorded(_SPENT, _MONTH), "spent"),
        Query(
            f"{recorded(_SPENT, _MONTH)} + {recorded('ledger_held_usd', _MONTH)}", "spent and held"
        ),
        Query(recorded("ledger_budget_usd", _MONTH), "budget"),
        Query(_FORECAST, "forecast"),
        colours=(
            ("spent", GREEN),
            ("spent and held", BLUE),
            ("budget", RED),
            ("forecast", YELLOW),
        ),
        width=12,
    ),
    graph(
        "Spent per hour",
        "How fast money is settled. A correction downward is below zero.",
        _USD,
        Query(growth_per_hour(_SPENT, _EVER), "settled per hour"),
        step="10m",
        width=6,
    ),
    graph(
        "On hold",
        "Money set aside for videos that are not over, and the part of it that is in doubt.",
        _USD,
        Query(recorded("ledger_held_usd", _EVER), "on hold"),
        Query(recorded("orphans_held_usd"), "in doubt"),
        width=6,
    ),
)

SPEND: Final = Board(
    name="spend",
    title="Video gateway / Spend",
    description="What is spent, on what and by whom, and do the books add up? Days are UTC.",
    hours=7 * 24,
    rows=(
        Row("The organization: all projects together", _GLANCE),
        Row("Over time", _OVER_TIME),
        Row("Projects: $project", PROJECTS),
        Row("What it was spent on", ITEMS),
        Row("What cost nothing, and what was refused", UNCHARGED),
        Row("Do the books add up?", BOOKS),
    ),
    variables=VARIABLES,
    timezone="utc",
)
