"""/v1/organization/ledger/entries: what moved the money, one entry after the other?"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.organization.asking import admin, number_of, page_of, several_of, text_of
from gateway.api.parts import Parts
from gateway.billing.entries import find_place, read_entries
from gateway.billing.money import format_usd
from gateway.db.paging import DEFAULT_LIMIT, MAX_LIMIT, Page
from gateway.db.script import Row, Script
from gateway.errors import InvalidRequest

_LAST_MOMENT: Final = (1 << 53) - 1
_MONEY: Final = ("held", "spent", "list", "cost")
_FACTS: Final = (
    *("id", "kind", "reason", "created_at", "accounting_day", "hold_id", "project_id"),
    *("project_name", "video_id", "upstream", "upstream_id", "operation"),
)


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with one page of entries, the oldest first."""
    await admin(parts, request)
    since = number_of(request, "start_time", least=0, most=_LAST_MOMENT, default=0) or 0
    until = number_of(request, "end_time", least=0, most=_LAST_MOMENT, default=None)
    if until is not None and until <= since:
        raise InvalidRequest("'end_time' must be after 'start_time'.", param="end_time")
    script = partial(
        _page,
        after=text_of(request, "after"),
        since=since,
        until=_LAST_MOMENT if until is None else until,
        limit=number_of(request, "limit", least=0, most=MAX_LIMIT, default=DEFAULT_LIMIT) or 0,
        project_ids=several_of(request, "project_ids"),
        key_ids=several_of(request, "api_key_ids"),
    )
    return page_of(await parts.database.read(script), _shown)


def _page(
    *,
    after: str | None,
    since: int,
    until: int,
    limit: int,
    project_ids: list[str],
    key_ids: list[str],
) -> Script[Page]:
    place = None
    if after is not None:
        place = yield from find_place(after)
        if place is None:
            return Page(rows=(), has_more=False)
    rows = yield from read_entries(
        after=place,
        since=since,
        until=until,
        limit=limit + 1,
        project_ids=project_ids,
        key_ids=key_ids,
    )
    return Page(rows=tuple(rows[:limit]), has_more=len(rows) > limit)


def _shown(row: Row) -> Mapping[str, Any]:
    return {
        "object": "ledger.entry",
        **{name: row[name] for name in _FACTS},
        "api_key_id": row["key_id"],
        "api_key_name": row["key_name"],
        "model": row["model"] or None,
        "size": row["size"] or None,
        "seconds": row["clip_seconds"],
        **{f"{name}_usd": format_usd(row[f"{name}_micros"]) for name in _MONEY},
    }
