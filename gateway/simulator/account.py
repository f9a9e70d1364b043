"""What does the relay's account tell: the balance, the log of charges, the tasks?

| GET            | query                                                       | tells            |
|----------------|-------------------------------------------------------------|------------------|
| /api/user/self |                                                             | the balance      |
| /api/log/self  | p (from 0) pageSize (at most 5000) type start_timestamp     | rows, newest     |
|                | end_timestamp model_name request_id                         | first, as gzip   |
| /api/task/self | p (from 1) page_size task_id model_name start_timestamp     | tasks, newest    |
|                | end_timestamp                                               | first            |

Known, from the relay's pages log-query, balance-query and seedance-task-cost-lookup (August and
September 2026): paths and parameters; that the log ignores `page_size` and that over 5000 is an
error; `data` as a plain array, as in one-api (new-api wraps it in {page, page_size, total, items});
every field of a row but `task_id`; `other` as JSON in a string; the words of the 401; 500,000 quota
= $1. A submit writes a row of type 2 with the request id of `X-Shellapi-Request-Id`, on
`/v1/videos` with the task id inside `content`. A failure writes a row of type 11 with a negative
quota, the task id inside `content` and an empty request id; the task itself keeps its quota.

Guessed: the words around the id in `content`, `billing_type` of a video, and the message where a
page is too long. new-api has the id of a refund in `other.task_id`, and some forks have it at the
top of the row: Settings.log_ids chooses.

A row is derived from its video when it is asked for: a refund appears when its video ends.
"""

import json
from collections.abc import Callable, Iterator, Mapping
from typing import Any

from gateway.simulator.answers import Answer, RefusedError, told
from gateway.simulator.life import Video, ended_unbilled, status_of
from gateway.simulator.rows import CHARGE, REFUND, LogRow
from gateway.simulator.rules import price_micros
from gateway.simulator.submits import Call
from gateway.simulator.world import World

MICROS_PER_QUOTA = 2
LARGEST_PAGE = 5000

_USUAL_PAGE = 10
_NOT_AUTHORISED = "You are not authorized to perform this operation. The access token is invalid."
_TASK_STATUS = {"queued": "submitted"}


def not_authorised() -> Answer:
    """Return the account's 401, which has no error object."""
    return told({"success": False, "message": _NOT_AUTHORISED}, status=401)


def user(world: World, call: Call) -> Answer:
    """Tell the balance."""
    del call
    rows = list(log_rows(world))
    used = sum(row.micros for row in rows) // MICROS_PER_QUOTA
    data = {
        "id": 25359,
        "username": "simulator",
        "display_name": "simulator",
        "role": 1,
        "status": 1,
        "email": "",
        "quota": world.settings.account_quota - used,
        "used_quota": used,
        "request_count": sum(row.type == CHARGE for row in rows),
        "group": "default",
    }
    return told({"success": True, "message": None, "data": data})


def log(world: World, call: Call) -> Answer:
    """Tell one page of the log, newest first."""
    size, first = _page(call.query, size="pageSize", first=0)
    if size > LARGEST_PAGE:
        message = f"pageSize must not be greater than {LARGEST_PAGE}"
        raise RefusedError(told({"success": False, "message": message}))
    tests: dict[str, Callable[[LogRow, str], bool]] = {
        "type": lambda row, text: row.type == _number(text),
        "start_timestamp": lambda row, text: row.created_at >= _number(text),
        "end_timestamp": lambda row, text: row.created_at <= _number(text),
        "model_name": lambda row, text: row.model == text,
        "request_id": lambda row, text: row.request_id == text,
    }
    wanted = [(tests[name], text) for name, text in call.query.items() if name in tests]
    rows = [row for row in log_rows(world) if all(test(row, text) for test, text in wanted)]
    rows.sort(key=lambda row: row.created_at, reverse=True)
    shown = [_told_row(row, where=world.settings.log_ids) for row in rows[first : first + size]]
    return told({"success": True, "message": "", "data": shown})


def tasks(world: World, call: Call) -> Answer:
    """Tell one page of the tasks, newest first."""
    size, first = _page(call.query, size="page_size", first=1)
    query, now = call.query, world.clock.now()
    found = [
        video
        for video in reversed(world.executed)
        if query.get("task_id") in {None, video.id}
        and query.get("model_name") in {None, video.asked.model}
        and video.created_at >= _number(query.get("start_timestamp", ""))
        and int(video.created_at) <= _number(query.get("end_timestamp", ""), usual=int(now))
    ]
    items = [_told_task(video, now=now) for video in found[first : first + size]]
    data = {"page_size": size, "total": len(found), "items": items}
    return told({"success": True, "message": "", "data": data})


def log_rows(world: World) -> Iterator[LogRow]:
    """Yield every row of the log as it stands now, falsified as the test wants it."""
    now = world.clock.now()
    for video in world.executed:
        if video.id in world.unlogged:
            continue
        model, micros = video.asked.model, price_micros(video.asked)
        charged = world.logged_micros.get(video.id, micros)
        yield LogRow(CHARGE, int(video.created_at), model, charged, video.id, video.relay_id)
        if ended_unbilled(video, now=now):
            yield LogRow(REFUND, int(video.ends_at), model, -charged, video.id, "")
    yield from world.foreign_rows


def _told_row(row: LogRow, *, where: str) -> dict[str, Any]:
    content = "操作 generate" if row.type == CHARGE else "异步任务执行失败"
    other: dict[str, Any] = {
        "billing_type": "by_count",
        "request_path": "/v1/videos",
        "group_ratio": 1,
        "model_ratio": 1,
        "usage": {},
    }
    shown: dict[str, Any] = {}
    if row.task_id and where == "task_id":
        shown["task_id"] = row.task_id
    elif row.task_id and where == "other":
        other["task_id"] = row.task_id
    elif row.task_id:
        content = f"{content} 任务ID: {row.task_id}"
    charge = row.type == CHARGE
    return {
        "request_id": row.request_id,
        "created_at": row.created_at,
        "type": row.type,
        "content": content,
        "username": "simulator",
        "token_name": "production" if charge else "",
        "token_group": "default" if charge else "",
        "model_name": row.model,
        "quota": row.micros // MICROS_PER_QUOTA,
        "prompt_tokens": 0,
        "completion_tokens": 0,
        "duration_for_view": 1 if charge else 0,
        "is_stream": False,
        "error_code": "",
        "other": json.dumps(other, ensure_ascii=False),
        **shown,
    }


def _told_task(video: Video, *, now: float) -> dict[str, Any]:
    status = status_of(video, now=now)
    over = status in {"completed", "failed"}
    return {
        "task_id": video.id,
        "status": _TASK_STATUS.get(status, status),
        "model_name": video.asked.model,
        "quota": price_micros(video.asked) // MICROS_PER_QUOTA,
        "submit_time": int(video.created_at),
        "finish_time": int(video.ends_at) if over else 0,
    }


def _page(query: Mapping[str, str], *, size: str, first: int) -> tuple[int, int]:
    """Return how many rows are wanted, and how many stand before them."""
    wanted = _number(query.get(size, ""), usual=_USUAL_PAGE) or _USUAL_PAGE
    page = max(0, _number(query.get("p", ""), usual=first) - first)
    return wanted, page * wanted


def _number(text: str, *, usual: int = 0) -> int:
    # A Go server that cannot read a number takes it for 0, or for its usual value.
    return int(text) if text.isdecimal() else usual
