"""`video-gateway limits`: how often, how many at once, and how dear?"""

import json
from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gateway.billing.audit_log import Change
from gateway.billing.balances import Level
from gateway.billing.limits import ALL_MODELS, Limits, get_limits, set_limits
from gateway.billing.money import format_usd
from gateway.billing.permissions import Permissions
from gateway.cli.common import (
    a_change,
    database_command,
    read_script,
    read_settings,
    run_script,
    show,
    show_facts,
)
from gateway.cli.levels import below_options, existing_level, named_level, named_level_or_none
from gateway.cli.models import in_words, known_models, models
from gateway.cli.values import NONE, Limit, UsdLimit
from gateway.clock import system_clock
from gateway.db.script import Row, Script, Sql

# What is said of one model; the rest is about all models together.
_OF_A_MODEL: Final = frozenset({"requests_per_minute", "requests_per_day"})
_FIGURES: Final = (
    *("requests_per_minute", "requests_per_day", "videos_in_flight", "max_price_usd"),
    "reads_per_minute",
)


@click.group()
def limits() -> None:
    """Limits of projects and keys on requests, beside the budgets."""


limits.add_command(models)


@limits.command("set")
@below_options
@click.option("--model", help="Only requests for this model, instead of all together.")
@click.option("--requests-per-minute", type=Limit(), help="Billable requests.")
@click.option("--requests-per-day", type=Limit(), help="Billable requests per UTC day.")
@click.option("--in-flight", "videos_in_flight", type=Limit(), help="Videos being made at once.")
@click.option("--max-price", "price_micros", type=UsdLimit(), help="Of one request, at list price.")
@click.option("--reads-per-minute", type=Limit(), help="Unbilled requests.")
@database_command
def set_(
    *,
    project: str | None,
    key: str | None,
    model: str | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
    **figures: int | str | None,
) -> None:
    """Set limits, in force at once; what is not named stays, `none` takes a limit away."""
    name, named = named_level(project=project, key=key)
    said = {figure: value for figure, value in figures.items() if value is not None}
    if not said:
        raise click.UsageError("say at least one limit, such as --requests-per-minute 10")
    if model is not None and not said.keys() <= _OF_A_MODEL:
        raise click.UsageError(
            "with --model only --requests-per-minute and --requests-per-day can be set; the others"
            " are about all models together"
        )
    settings = read_settings(config, database_url=database_url)
    if model is not None:
        (model,) = known_models(settings, (model,))
    change = a_change(system_clock())
    wanted = {figure: None if value == NONE else value for figure, value in said.items()}
    script = partial(_set, change, name, named, model=model or ALL_MODELS, wanted=wanted)
    level, limited = run_script(settings, script)
    facts = {"level": level.name, "id": level.id, "model": model, **_figures(limited)}
    shown = [f"{figure} {facts[figure]}" for figure in _FIGURES if facts[figure] is not None]
    of_model = "" if model is None else f" for {model}"
    text = f"the {level.name} {level.id} has{of_model}: {', '.join(shown) or 'no limits'}"
    show_facts(facts, text=text, as_json=as_json)


def _set(
    change: Change, name: str, named: str, *, model: str, wanted: Mapping[str, Any]
) -> Script[tuple[Level, Limits]]:
    level = yield from existing_level(name, named)
    before = (yield from get_limits(level)).get(model, Limits())
    after = replace(before, **wanted)
    yield from set_limits(change, level, after, model=model)
    return level, after


def _figures(limited: Limits) -> dict[str, Any]:
    price = limited.price_micros
    return {
        "requests_per_minute": limited.requests_per_minute,
        "requests_per_day": limited.requests_per_day,
        "videos_in_flight": limited.videos_in_flight,
        "max_price_usd": None if price is None else format_usd(price),
        "reads_per_minute": limited.reads_per_minute,
    }


@limits.command("list")
@below_options
@database_command
def list_(
    *,
    project: str | None,
    key: str | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """List limits and permitted models, of all projects and keys or of one."""
    level = named_level_or_none(project=project, key=key)
    settings = read_settings(config, database_url=database_url)
    rows = [
        _facts(row, as_json=as_json) for row in read_script(settings, partial(_all_limits, level))
    ]
    columns = ("level", "name", "id", "model", *_FIGURES, "permitted")
    show(rows, columns=columns, as_json=as_json, empty="There are no limits yet.")


def _all_limits(named: tuple[str, str] | None) -> Script[list[Row]]:
    # The row about all models together is also there where only models are permitted or not.
    text = (
        "SELECT told.level, told.level_id, told.model,"
        " COALESCE(projects.name, keys.name) AS name, limits.requests_per_minute,"
        " limits.requests_per_day, limits.videos_in_flight, limits.price_micros,"
        " limits.reads_per_minute, model_permissions.mode, model_permissions.model_ids"
        " FROM (SELECT level, level_id, model FROM limits"
        " UNION SELECT level, level_id, '' AS model FROM model_permissions) AS told"
        " LEFT JOIN limits ON limits.level = told.level AND limits.level_id = told.level_id"
        " AND limits.model = told.model"
        " LEFT JOIN model_permissions ON model_permissions.level = told.level"
        " AND model_permissions.level_id = told.level_id AND told.model = ''"
        " LEFT JOIN projects ON told.level = 'project' AND projects.id = told.level_id"
        " LEFT JOIN keys ON told.level = 'key' AND keys.id = told.level_id"
    )
    order = " ORDER BY told.level DESC, told.level_id, told.model"
    if named is None:
        return list((yield Sql(text + order)))
    level = yield from existing_level(*named)
    where = " WHERE told.level = $1 AND told.level_id = $2"
    return list((yield Sql(text + where + order, (level.name, level.id))))


def _facts(row: Row, *, as_json: bool) -> dict[str, Any]:
    permitted = None
    if row["mode"] is not None:
        permitted = Permissions(row["mode"], tuple(json.loads(row["model_ids"])))
    shown: Any = permitted and in_words(permitted)
    if as_json and permitted is not None:
        shown = {"mode": permitted.mode, "model_ids": list(permitted.model_ids)}
    limited = Limits(
        row["requests_per_minute"],
        row["requests_per_day"],
        row["videos_in_flight"],
        row["price_micros"],
        row["reads_per_minute"],
    )
    return {
        "level": row["level"],
        "name": row["name"],
        "id": row["level_id"],
        "model": row["model"] or None,
        **_figures(limited),
        "permitted": shown,
    }
