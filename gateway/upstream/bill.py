"""What does one page of the account's log say? Pure.

    {"success": true, "message": "", "data": [{"type": 2, "quota": 200000, "model_name": "sora-2",
      "created_at": 1785595715, "request_id": "2026…", "content": "… 任务ID: video_…",
      "other": "{…}"}]}

The relay's pages log-query and seedance-task-cost-lookup describe it. A submit is charged at once
(type 2, with the request id of `X-Shellapi-Request-Id`); a failure is given back by a row of type
11 with a negative quota and no request id. On `/v1/videos` the video's id stands within `content`;
in relatives of the relay it is `task_id`, or `task_id` within `other`, which is JSON in a string.
No documented field is the row's own id. A row holds the caller's API key in plain text, so nothing
is kept of it but what is named here.

A row that cannot be read is an error, never left out: a bill with a hole in it proves nothing.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

CHARGE: Final = "charge"
REFUND: Final = "refund"
KINDS: Final[Mapping[str, int]] = {CHARGE: 2, REFUND: 11}

# 500,000 quota are one dollar.
MICROS_PER_QUOTA: Final = 2
MAX_QUOTA: Final = 10**15
MAX_CONTENT_CHARACTERS: Final = 4_096
MAX_WORD_CHARACTERS: Final = 256

_ID_IN_CONTENT: Final = re.compile(
    r"(?:任务\s*id|task[ _-]?id)\s*[:\uff1a=]\s*([^\s,;\"'()\uff0c\uff1b\u3002]+)", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class BillRow:
    """One row of the bill.

    Attributes:
        kind: CHARGE or REFUND.
        created_at: Unix seconds.
        micros: at the upstream's list price; what was given back is negative.
        model: the model billed.
        upstream_id: the video, where the row names it.
        request_id: what the relay calls the submit; refunds have none.
        content: what the relay says about the row, in words.
        row_id: the row's own id where it has one, else whatever comes nearest; for people.
    """

    kind: str
    created_at: int
    micros: int
    model: str
    upstream_id: str | None
    request_id: str | None
    content: str
    row_id: str


@dataclass(frozen=True, slots=True)
class Page:
    """One page: the rows of the kind that was asked for, and how many rows there were in all."""

    rows: tuple[BillRow, ...]
    count: int


class NotABill(Exception):
    """The answer is no page of a log; the message says what is wrong with it, in words."""


class SaidNo(Exception):
    """The relay says that it did not succeed; the message is its own, or ""."""


def read_page(body: bytes, *, kind: str) -> Page:
    """Return the rows of one kind that a page holds, in its order.

    Rows without an amount are left out: they are requests that were refused, and moved no money.

    Raises:
        NotABill: it is not JSON, or has another shape, or one of its rows cannot be read.
        SaidNo: it says `"success": false`.
    """
    try:
        value = json.loads(body)
    except (ValueError, RecursionError) as error:
        raise NotABill("the answer is not JSON") from error
    if not isinstance(value, dict) or "success" not in value:
        raise NotABill("the answer is JSON, but not what the account's log answers")
    if value["success"] is not True:
        message = value.get("message")
        raise SaidNo(message if isinstance(message, str) else "")
    # A Go server says null where there is nothing.
    rows = value.get("data") or []
    if not isinstance(rows, list):
        raise NotABill("its `data` is not a list of rows")
    read = [_row(row, kind=kind, place=place) for place, row in enumerate(rows, start=1)]
    return Page(rows=tuple(row for row in read if row is not None), count=len(rows))


def _row(row: Any, *, kind: str, place: int) -> BillRow | None:
    if not isinstance(row, dict):
        raise NotABill(f"row {place} of the page is no object")
    if _whole(row, "type", place=place) != KINDS[kind]:
        return None
    micros = _whole(row, "quota", place=place) * MICROS_PER_QUOTA
    if micros == 0:
        return None
    created_at = _whole(row, "created_at", place=place)
    other = _other(row.get("other"))
    content = row.get("content")
    content = content[:MAX_CONTENT_CHARACTERS] if isinstance(content, str) else ""
    request_id = _word(row.get("request_id")) or _word(other.get("request_id"))
    found = _ID_IN_CONTENT.search(content)
    upstream_id = (
        _word(row.get("task_id")) or _word(other.get("task_id")) or (found and _word(found[1]))
    )
    return BillRow(
        kind=kind,
        created_at=created_at,
        # new-api writes a refund as a positive amount, the relay as a negative one.
        micros=-abs(micros) if kind == REFUND else micros,
        model=_word(row.get("model_name")) or "",
        upstream_id=upstream_id or None,
        request_id=request_id,
        content=content,
        row_id=_word(row.get("id")) or request_id or upstream_id or f"{kind} at {created_at}",
    )


def _whole(row: Mapping[str, Any], name: str, *, place: int) -> int:
    value = row.get(name)
    if isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_QUOTA:
        return value
    raise NotABill(f"`{name}` of row {place} of the page is no whole number")


def _other(value: Any) -> Mapping[str, Any]:
    if isinstance(value, str):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return {}
    return value if isinstance(value, dict) else {}


def _word(value: Any) -> str | None:
    if isinstance(value, int) and not isinstance(value, bool) and 0 < value <= MAX_QUOTA:
        return str(value)
    if not isinstance(value, str) or len(value) > MAX_WORD_CHARACTERS or not value.isprintable():
        return None
    return value.strip() or None
