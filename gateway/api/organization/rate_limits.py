"""…/projects/{project_id}/rate_limits: how often may a project buy?

One for each model of the catalogue, and `rl-all` for all of them together. They are the limits on
requests of limits.py, in OpenAI's shape, which has a number where there is no limit. Tokens,
images, audio and batches are nothing that is counted here.
"""

from collections.abc import Mapping
from dataclasses import replace
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.organization.asking import (
    admin,
    change,
    cursor_of,
    fields_of,
    in_path,
    no_such,
    page_of,
)
from gateway.api.organization.checks import Check, whole
from gateway.api.organization.levels import level_of, level_to_change
from gateway.api.parts import Parts
from gateway.billing.audit_log import Change
from gateway.billing.limits import ALL_MODELS, Limits, get_limits, set_limits
from gateway.db.paging import Cursor, Page
from gateway.db.script import Script

NO_LIMIT: Final = 2_147_483_647
DEFAULT_LIMIT: Final = 100
ALL: Final = "all"
_PREFIX: Final = "rl-"
_requests: Final = whole(least=0, most=NO_LIMIT)


def _not_counted(value: Any) -> None:
    if _requests(value) not in {0, NO_LIMIT}:
        raise ValueError("0, because this gateway does not count these")


_COUNTED: Final = {
    "max_requests_per_1_minute": "requests_per_minute",
    "max_requests_per_1_day": "requests_per_day",
}
_NOT_COUNTED: Final = (
    "max_tokens_per_1_minute",
    "max_images_per_1_minute",
    "max_audio_megabytes_per_1_minute",
    "batch_1_day_max_input_tokens",
)
_FIELDS: Final[Mapping[str, Check]] = {
    **dict.fromkeys(_COUNTED, _requests),
    **dict.fromkeys(_NOT_COUNTED, _not_counted),
}


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with a page of the limits, in the order of the catalogue, `rl-all` first."""
    await admin(parts, request)
    cursor = cursor_of(request, default=DEFAULT_LIMIT)
    limits = await parts.database.read(partial(_get, request))
    rows = [
        {"id": _id(model), "model": model, "limits": limits.get(model, Limits())}
        for model in (ALL_MODELS, *parts.catalogue.models)
    ]
    return page_of(_page(rows, cursor), lambda row: _shown(row["model"], row["limits"]))


async def update(parts: Parts, request: Request) -> Response:
    """Change what is named of one of the limits."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _FIELDS)
    rate_limit_id = in_path(request, "rate_limit_id")
    models = {_id(model): model for model in (*parts.catalogue.models, ALL_MODELS)}
    if rate_limit_id not in models:
        raise no_such("rate limit", rate_limit_id)
    model = models[rate_limit_id]
    changes = {
        column: None if fields[name] == NO_LIMIT else fields[name]
        for name, column in _COUNTED.items()
        if name in fields
    }
    script = partial(_update, request=request, model=model, changes=changes)
    return JSONResponse(_shown(model, await change(parts, request, admin_key_id, script)))


def _get(request: Request) -> Script[dict[str, Limits]]:
    return (yield from get_limits((yield from level_of(request))))


def _update(
    change: Change, *, request: Request, model: str, changes: Mapping[str, int | None]
) -> Script[Limits]:
    level = yield from level_to_change(request)
    before = (yield from get_limits(level)).get(model, Limits())
    after = replace(before, **changes)
    if after != before:
        yield from set_limits(change, level, after, model=model)
    return after


def _page(rows: list[dict[str, Any]], cursor: Cursor) -> Page:
    """Return what paging.read_page does, of rows that stand in no table."""
    ids = [row["id"] for row in rows]
    named = cursor.before if cursor.after is None else cursor.after
    if named is not None and named not in ids:
        return Page(rows=(), has_more=False)
    if cursor.after is None and named is not None:
        rows = rows[: ids.index(named)]
        return Page(
            rows=tuple(rows[max(0, len(rows) - cursor.limit) :]), has_more=len(rows) > cursor.limit
        )
    if named is not None:
        rows = rows[ids.index(named) + 1 :]
    return Page(rows=tuple(rows[: cursor.limit]), has_more=len(rows) > cursor.limit)


def _id(model: str) -> str:
    return f"{_PREFIX}{model or ALL}"


def _shown(model: str, limits: Limits) -> dict[str, Any]:
    return {
        "object": "project.rate_limit",
        "id": _id(model),
        "model": model or ALL,
        **{
            name: NO_LIMIT if getattr(limits, column) is None else getattr(limits, column)
            for name, column in _COUNTED.items()
        },
        "max_tokens_per_1_minute": NO_LIMIT,
    }
