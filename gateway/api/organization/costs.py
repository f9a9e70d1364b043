"""/v1/organization/costs: what was spent, day by day?

A bucket is a UTC accounting day: what is settled counts for the day on which its price was held,
as in budgets. A page is one read of as many rows as there are things to tell apart. The cursor of
the next page says where it begins, for this very question; a text that is no cursor at all gives an
empty page, as in every list here.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, date, datetime
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.organization.asking import admin, number_of, several_of
from gateway.api.parts import Parts
from gateway.billing.costs import DAY, KEY, LINE_ITEM, PROJECT, Asked, read_costs
from gateway.billing.money import MICROS_PER_USD
from gateway.db.script import Row
from gateway.errors import InvalidRequest

DAY_SECONDS: Final = 86_400
DEFAULT_BUCKETS: Final = 7
MAX_BUCKETS: Final = 180
# The last day that a date can be, less one, so that a bucket has an end.
_LAST_MOMENT: Final = (date.max.toordinal() - date(1970, 1, 1).toordinal()) * DAY_SECONDS - 1
_GROUPS: Final = {"project_id": PROJECT, "api_key_id": KEY, "line_item": LINE_ITEM}
_NOT_HERE: Final = ("user_id", "api_source")
_CURSOR: Final = "page_"
_CURSOR_CHARACTERS: Final = 32


@dataclass(frozen=True, slots=True)
class _Question:
    """What a request asks; `asked` is about all of its days.

    Attributes:
        said: the query in one text, but for limit and page.
    """

    asked: Asked
    group_by: Sequence[str]
    limit: int
    said: str


async def retrieve(parts: Parts, request: Request) -> Response:
    """Answer with one page of buckets, those in which nothing was spent among them."""
    await admin(parts, request)
    question = _question(request, now=parts.clock.now())
    asked = question.asked
    days = _days(question, request.query_params.get("page"))
    rows: list[Row] = []
    if days:
        page = replace(asked, first_day=days[0], last_day=days[-1])
        rows = await parts.database.read(partial(read_costs, page))
    has_more = bool(days) and days[-1] < asked.last_day
    return JSONResponse(
        {
            "object": "page",
            "data": list(_buckets(days, rows, group_by=question.group_by)),
            "has_more": has_more,
            "next_page": _cursor(question, _next(days[-1])) if has_more else None,
        }
    )


def _question(request: Request, *, now: int) -> _Question:
    if request.query_params.get("bucket_width", "1d") != "1d":
        raise InvalidRequest(
            "Invalid 'bucket_width': costs are kept by day; say '1d' or leave it out.",
            param="bucket_width",
        )
    start = number_of(request, "start_time", least=0, most=_LAST_MOMENT, default=None)
    if start is None:
        raise InvalidRequest(
            "Missing required parameter: 'start_time'.",
            param="start_time",
            code="missing_required_parameter",
        )
    end = number_of(request, "end_time", least=0, most=_LAST_MOMENT, default=None)
    if end is not None and end < start:
        raise InvalidRequest("'end_time' must not be before 'start_time'.", param="end_time")
    limit = number_of(request, "limit", least=0, most=MAX_BUCKETS, default=DEFAULT_BUCKETS)
    group_by = _group_by(request)
    asked = Asked(
        first_day=_day(start),
        last_day=_day(now if end is None else end - 1),
        group_by=(DAY, *(_GROUPS[name] for name in group_by)),
        project_ids=several_of(request, "project_ids"),
        key_ids=several_of(request, "api_key_ids"),
        line_items=several_of(request, "line_items"),
    )
    # Without an end the last day moves on; that is the same question.
    said = [start, end, group_by, asked.project_ids, asked.key_ids, asked.line_items]
    return _Question(asked, group_by, DEFAULT_BUCKETS if limit is None else limit, json.dumps(said))


def _group_by(request: Request) -> list[str]:
    found = list(dict.fromkeys(several_of(request, "group_by")))
    for name in found:
        if name in _NOT_HERE:
            raise InvalidRequest(
                f"This gateway has no {name} to group costs by."
                f" Supported values are: {', '.join(map(repr, _GROUPS))}.",
                param="group_by",
            )
        if name not in _GROUPS:
            raise InvalidRequest(
                f"Invalid value: '{name}'. Supported values are: {', '.join(map(repr, _GROUPS))}.",
                param="group_by",
            )
    return found


def _days(question: _Question, page: str | None) -> list[date]:
    if page is not None and not page.startswith(_CURSOR):
        return []
    first = _first_day(question, page).toordinal()
    end = min(first + question.limit, question.asked.last_day.toordinal() + 1)
    return [date.fromordinal(number) for number in range(first, end)]


def _first_day(question: _Question, page: str | None) -> date:
    if page is None:
        return question.asked.first_day
    number, _, _ = page.removeprefix(_CURSOR).partition("-")
    first, last = question.asked.first_day.toordinal(), question.asked.last_day.toordinal()
    # Nothing longer than the last day there is can be one; a cursor of ours is within the question.
    known = (
        number.isascii() and number.isdecimal() and len(number) <= len(str(date.max.toordinal()))
    )
    if known and first < int(number) <= last:
        day = date.fromordinal(int(number))
        if page == _cursor(question, day):
            return day
    raise InvalidRequest(
        "Invalid 'page': pass the 'next_page' of the answer before, with the same parameters.",
        param="page",
    )


def _cursor(question: _Question, day: date) -> str:
    number = day.toordinal()
    sealed = hashlib.sha256(f"{number} {question.said}".encode(errors="replace")).hexdigest()
    return f"{_CURSOR}{number}-{sealed[:_CURSOR_CHARACTERS]}"


def _buckets(
    days: Sequence[date], rows: Sequence[Row], *, group_by: Sequence[str]
) -> Iterator[dict[str, Any]]:
    results: dict[str, list[dict[str, Any]]] = {day.isoformat(): [] for day in days}
    for row in rows:
        results[row[DAY]].append(_result(row, group_by=group_by))
    for day in days:
        start = int(datetime(day.year, day.month, day.day, tzinfo=UTC).timestamp())
        yield {
            "object": "bucket",
            "start_time": start,
            "end_time": start + DAY_SECONDS,
            "results": results[day.isoformat()],
        }


def _result(row: Row, *, group_by: Sequence[str]) -> dict[str, Any]:
    by_item = "line_item" in group_by
    shown = {
        "object": "organization.costs.result",
        "amount": {
            "value": row["spent_micros"] / MICROS_PER_USD,
            "currency": "usd",
            "micros": row["spent_micros"],
            "list_micros": row["list_micros"],
            "cost_micros": row["cost_micros"],
        },
        "quantity": row["clip_seconds"] if by_item else None,
        "quantity_unit": "duration_seconds" if by_item else None,
        "user_id": None,
        "api_source": None,
    }
    for name, group in _GROUPS.items():
        shown[name] = row[group] if name in group_by else None
    for group in (PROJECT, KEY):
        if group in {_GROUPS[name] for name in group_by}:
            shown["api_key_name" if group == KEY else "project_name"] = row[f"{group}_name"]
    return shown


def _next(day: date) -> date:
    return date.fromordinal(day.toordinal() + 1)


def _day(moment: int) -> date:
    return date.fromordinal(date(1970, 1, 1).toordinal() + moment // DAY_SECONDS)
