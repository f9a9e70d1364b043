"""/v1/organization/budgets: which limits on spend are there?

All levels and periods, in exact dollars; a monthly one is the spend limit of its level, too. The id
of a budget is what it is about: level:level_id:period.
"""

from collections.abc import Mapping
from datetime import date
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
from gateway.api.organization.checks import one_of, text, usd
from gateway.api.organization.within import open_project
from gateway.api.parts import Parts
from gateway.billing.audit_log import Change
from gateway.billing.balances import (
    KEY,
    LEVELS,
    ORGANIZATION,
    ORGANIZATION_ID,
    PERIODS,
    PROJECT,
    THE_ORGANIZATION,
    Level,
    Standing,
    accounting_day,
    period_start,
)
from gateway.billing.budgets import list_budgets, remove_budget, set_budget
from gateway.billing.keys import get_key
from gateway.billing.levels import project_level
from gateway.billing.money import format_usd
from gateway.billing.projects import get_project
from gateway.db.paging import Cursor, Page
from gateway.db.script import Row, Script
from gateway.errors import InvalidRequest

_CHECKS: Final = {
    "level": one_of(*LEVELS),
    "level_id": text(),
    "period": one_of(*PERIODS),
    "limit_usd": usd,
}
_REQUIRED: Final = ("level", "period", "limit_usd")


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with one page of budgets and how the running periods stand."""
    await admin(parts, request)
    cursor = cursor_of(request, newest_first=False)
    now = parts.clock.now()
    rows = await parts.database.read(partial(list_budgets, now=now))
    return page_of(_page(rows, cursor), partial(_listed, now=now))


async def update(parts: Parts, request: Request) -> Response:
    """Set a budget, in force at once: what is spent and held already counts against it."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _CHECKS, required=_REQUIRED)
    level_id = _level_id(fields)
    period, limit_micros = fields["period"], fields["limit_usd"]

    def script(made: Change) -> Script[tuple[Level, str | None, Standing]]:
        level = yield from _level_to_change(fields["level"], level_id)
        if level is None:
            raise no_such(fields["level"], level_id)
        standing = yield from set_budget(made, level, period=period, limit_micros=limit_micros)
        return level, (yield from _name_of(level)), standing

    level, name, standing = await change(parts, request, admin_key_id, script)
    return JSONResponse(_shown(level, name, standing))


async def delete(parts: Parts, request: Request) -> Response:
    """Take a budget away."""
    admin_key_id = await admin(parts, request)
    budget_id = in_path(request, "budget_id")
    level_name, _, rest = budget_id.partition(":")
    level_id, _, period = rest.rpartition(":")

    def script(made: Change) -> Script[bool]:
        level = yield from _level_to_change(level_name, level_id)
        return level is not None and (yield from remove_budget(made, level, period=period))

    if level_name not in LEVELS or not await change(parts, request, admin_key_id, script):
        raise no_such("budget", budget_id)
    return JSONResponse({"id": budget_id, "object": "budget.deleted", "deleted": True})


def _level_id(fields: Mapping[str, Any]) -> str:
    if fields["level"] != ORGANIZATION:
        if "level_id" not in fields:
            raise InvalidRequest(
                "Missing required parameter: 'level_id'.",
                param="level_id",
                code="missing_required_parameter",
            )
        return str(fields["level_id"])
    if fields.get("level_id", ORGANIZATION_ID) != ORGANIZATION_ID:
        raise InvalidRequest(
            f"There is one organization: leave 'level_id' out, or say '{ORGANIZATION_ID}'.",
            param="level_id",
        )
    return ORGANIZATION_ID


def _level_to_change(name: str, level_id: str) -> Script[Level | None]:
    """Return the level with an id; None: there is none, or it is a key that was revoked.

    Raises:
        ProjectArchived: its project was archived.
    """
    if name == ORGANIZATION:
        return THE_ORGANIZATION if level_id == ORGANIZATION_ID else None
    if name == PROJECT:
        level = yield from project_level(level_id)
        if level is not None:
            yield from open_project(level.id)
        return level
    key = yield from get_key(key_id=level_id)
    if key is None or key["revoked_at"] is not None:
        return None
    yield from open_project(key["project_id"])
    return Level(KEY, level_id, key["project_id"])


def _name_of(level: Level) -> Script[str | None]:
    if level.name == ORGANIZATION:
        return None
    if level.name == PROJECT:
        found = yield from get_project(level.id)
    else:
        found = yield from get_key(key_id=level.id)
    return None if found is None else str(found["name"])


def _page(rows: list[Row], cursor: Cursor) -> Page:
    """Return a page; budgets are few, so they are read as a whole and have no other order."""
    ordered = rows[::-1] if cursor.newest_first else rows
    ids = [_budget_id(row["level"], row["level_id"], row["period"]) for row in ordered]
    named = cursor.after if cursor.after is not None else cursor.before
    if named is None:
        first, last = 0, cursor.limit
    elif named not in ids:
        return Page(rows=(), has_more=False)
    elif cursor.after is not None:
        first = ids.index(named) + 1
        last = first + cursor.limit
    else:
        last = ids.index(named)
        first = max(0, last - cursor.limit)
        return Page(rows=tuple(ordered[first:last]), has_more=first > 0)
    return Page(rows=tuple(ordered[first:last]), has_more=last < len(ordered))


def _listed(row: Row, *, now: int) -> dict[str, Any]:
    period = row["period"]
    standing = Standing(
        level=row["level"],
        period=period,
        period_start=period_start(period, date.fromisoformat(accounting_day(now))),
        limit_micros=row["limit_micros"],
        spent_micros=row["spent_micros"],
        held_micros=row["held_micros"],
    )
    return _shown(Level(row["level"], row["level_id"], row["project_id"]), row["name"], standing)


def _shown(level: Level, name: str | None, standing: Standing) -> dict[str, Any]:
    return {
        "id": _budget_id(level.name, level.id, standing.period),
        "object": "budget",
        "level": level.name,
        "level_id": level.id,
        "name": name,
        "project_id": level.project_id,
        "period": standing.period,
        "limit_usd": format_usd(standing.limit_micros),
        "spent_usd": format_usd(standing.spent_micros),
        "held_usd": format_usd(standing.held_micros),
        "available_usd": format_usd(standing.available_micros),
        "resets_on": standing.resets_on,
    }


def _budget_id(level: str, level_id: str, period: str) -> str:
    return f"{level}:{level_id}:{period}"
