"""…/limits of a project, or of one of its keys: how often, how many at once, and how dear?

Ours, beside OpenAI's rate_limits, which have neither keys nor prices. A request is counted against
the limits of its key and of its project.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.organization.asking import admin, change, checked, fields_of
from gateway.api.organization.checks import Check, usd, whole
from gateway.api.organization.levels import level_of, level_to_change
from gateway.api.parts import Parts
from gateway.billing.audit_log import Change
from gateway.billing.balances import KEY, PROJECT, Level
from gateway.billing.catalogue import Catalogue
from gateway.billing.limits import ALL_MODELS, Limits, get_limits, set_limits
from gateway.billing.money import format_usd
from gateway.db.script import Script
from gateway.errors import InvalidRequest

MOST: Final = 2_147_483_647
_OBJECTS: Final = {
    PROJECT: "organization.project.limits",
    KEY: "organization.project.api_key.limits",
}
_OF_A_MODEL: Final = {
    "max_requests_per_1_minute": "requests_per_minute",
    "max_requests_per_1_day": "requests_per_day",
}
_COLUMNS: Final = {
    "max_videos_in_flight": "videos_in_flight",
    "max_price_usd": "price_micros",
    **_OF_A_MODEL,
    "max_reads_per_1_minute": "reads_per_minute",
}
_MODELS: Final = "models"
_count: Final = whole(least=0, most=MOST)


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object")
    return value


_FIELDS: Final[Mapping[str, Check]] = {
    **dict.fromkeys(_COLUMNS, _count),
    "max_price_usd": usd,
    _MODELS: _object,
}
_MODEL_FIELDS: Final[Mapping[str, Check]] = dict.fromkeys(_OF_A_MODEL, _count)


async def retrieve(parts: Parts, request: Request) -> Response:
    """Answer with the limits; null is no limit."""
    await admin(parts, request)
    return JSONResponse(_shown(*await parts.database.read(partial(_get, request))))


async def update(parts: Parts, request: Request) -> Response:
    """Change the limits that are named; null removes one."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _FIELDS, nullable=_COLUMNS)
    models = fields.pop(_MODELS, {})
    changes = {name: _changes_of(name, value, parts.catalogue) for name, value in models.items()}
    changes[ALL_MODELS] = {_COLUMNS[name]: value for name, value in fields.items()}
    script = partial(_update, request=request, changes=changes)
    return JSONResponse(_shown(*await change(parts, request, admin_key_id, script)))


def _changes_of(model: str, value: Any, catalogue: Catalogue) -> dict[str, int | None]:
    """Return what changes in the limits of a model, by column; null removes all of them.

    Raises:
        InvalidRequest: the catalogue has no such model, though what it had can be removed.
    """
    if value is None and model != ALL_MODELS:
        return dict.fromkeys(_OF_A_MODEL.values())
    if model not in catalogue.models:
        raise InvalidRequest(
            f"Invalid value for 'models': there is no model '{model}'. Models are:"
            f" {', '.join(catalogue.models)}.",
            param=_MODELS,
        )
    inside = f"{_MODELS}.{model}"
    (given,) = checked({inside: value}, {inside: _object}).values()
    fields = checked(given, _MODEL_FIELDS, nullable=_OF_A_MODEL, inside=f"{inside}.")
    return {_OF_A_MODEL[name]: limit for name, limit in fields.items()}


def _get(request: Request) -> Script[tuple[Level, Mapping[str, Limits]]]:
    level = yield from level_of(request)
    return level, (yield from get_limits(level))


def _update(
    change: Change, *, request: Request, changes: Mapping[str, Mapping[str, int | None]]
) -> Script[tuple[Level, Mapping[str, Limits]]]:
    level = yield from level_to_change(request)
    limits = yield from get_limits(level)
    for number, (model, columns) in enumerate(changes.items(), start=1):
        before = limits.get(model, Limits())
        after = replace(before, **columns)
        if after != before:
            yield from set_limits(change.part(number), level, after, model=model)
    return level, (yield from get_limits(level))


def _shown(level: Level, limits: Mapping[str, Limits]) -> dict[str, Any]:
    of_all = limits.get(ALL_MODELS, Limits())
    shown = {name: getattr(of_all, column) for name, column in _COLUMNS.items()}
    if of_all.price_micros is not None:
        shown["max_price_usd"] = format_usd(of_all.price_micros)
    of_models = {
        model: {name: getattr(one, column) for name, column in _OF_A_MODEL.items()}
        for model, one in limits.items()
        if model != ALL_MODELS
    }
    return {"object": _OBJECTS[level.name], **shown, _MODELS: of_models}
