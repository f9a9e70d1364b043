"""Which project spends how much, and what has it left?"""

from typing import Final

from grafana_foundation_sdk.builders.dashboard import CustomVariable
from grafana_foundation_sdk.models.dashboard import VariableOption

from grafana.boards import chosen
from grafana.panels import Query, bars, graph, rising, table
from grafana.promql import PREFIX, budget_used, growth_per_hour, recorded

_NAMES: Final = "project_id, project"
_NAME: Final = "{{project}}"
_CHOSEN: Final = 'level="project", project=~"$project", period=~"$period"'
_EVER: Final = 'level="project", project=~"$project", period="total"'
_WHOLE: Final = 'level="organization", period=~"$period"'
_SPENT: Final = recorded("ledger_spent_usd", _CHOSEN, by=_NAMES)
_HELD: Final = recorded("ledger_held_usd", _CHOSEN, by=_NAMES)
_BUDGET: Final = recorded("ledger_budget_usd", _CHOSEN, by=_NAMES)
_MOST_BARS: Final = 10

VARIABLES: Final = (
    CustomVariable("period")
    .label("Period")
    .description("Which budgets and figures the row Projects shows; days and months are UTC.")
    .values("day,month,total")
    .current(VariableOption(selected=True, text="month", value="month")),
    chosen(
        "project",
        "Project",
        f'label_values({PREFIX}ledger_spent_usd{{job=~"$job", level="project"}}, project)',
        "Projects beyond the setting metrics_max_projects are one: other.",
    ).all_value(".*"),
)

PROJECTS: Final = (
    bars(
        "Budget used, this $period",
        "Spent and held of each budget. At 100 % purchases of that project are refused; of the "
        "organization, everybody's.",
        "percentunit",
        Query(budget_used(_WHOLE, by="period"), "whole organization"),
        Query(f"sort_desc({budget_used(_CHOSEN, by=_NAMES)})", _NAME),
        thresholds=rising(0.8, 0.95),
        most=1,
        no_value="no budget",
    ),
    table(
        "Budgets and what is left, this $period",
        "Available is what may still be bought: budget, less spent, less held. Projects without a "
        "budget of this period have none.",
        Query(_BUDGET),
        Query(_SPENT),
        Query(_HELD),
        Query(f"{_BUDGET} - {_SPENT} - {_HELD}"),
        Query(budget_used(_CHOSEN, by=_NAMES)),
        columns=(
            ("project", "project"),
            ("A", "budget"),
            ("B", "spent"),
            ("C", "held"),
            ("D", "available"),
            ("E", "used"),
        ),
        units=(
            ("budget", "currencyUSD", 2),
            ("spent", "currencyUSD", 2),
            ("held", "currencyUSD", 2),
            ("available", "currencyUSD", 2),
            ("used", "percentunit", 1),
        ),
        thresholds=rising(0.8, 0.95),
        sort_by="used",
        coloured="used",
        width=16,
        no_value="-",
    ),
    bars(
        "Projects that spend most, this $period",
        "Settled spend of the ten projects with most of it.",
        "currencyUSD",
        Query(f"sort_desc(topk({_MOST_BARS}, {_SPENT}))", _NAME),
    ),
    graph(
        "Spent, this $period",
        "Settled spend of each project since the period began; it starts again at zero with the "
        "next.",
        "currencyUSD",
        Query(_SPENT, _NAME),
        stacked=True,
    ),
    graph(
        "Spent per hour by project",
        "How fast each project's money is settled.",
        "currencyUSD",
        Query(growth_per_hour("ledger_spent_usd", _EVER, by=_NAMES), _NAME),
        step="10m",
    ),
)
