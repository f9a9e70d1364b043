"""/v1/organization/audit_logs: who changed what?

A line has OpenAI's shape: the actor, the project, and under the name of its event what was made or
asked for. OpenAI's actors are keys and sessions; somebody at a shell and the gateway itself are
neither, so `actor.type` is null and our own `kind` and `id` say who it was. What stood before and
after, and the request it came with, are ours too.
"""

import json
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.organization.asking import (
    admin,
    cursor_of,
    flag_of,
    number_of,
    page_of,
    several_of,
)
from gateway.api.organization.checks import scopes_of
from gateway.api.parts import Parts
from gateway.billing.audit_log import ADMIN_KEY, Asked, list_lines
from gateway.db.paging import Page
from gateway.db.script import Row

_LAST_MOMENT: Final = (1 << 53) - 1
_TENANT: Final = "tenant."
# Those of our events that OpenAI scopes to the tenant; they have no key of their own.
TENANT_EVENTS: Final = (
    "tenant.admin_api_key.created",
    "tenant.admin_api_key.deleted",
    "tenant.billing.alerts.updated",
    "tenant.billing.info.updated",
    "tenant.billing.overage_limit.updated",
)


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with one page of the audit log, the newest line first."""
    await admin(parts, request)
    cursor = cursor_of(request)
    asked = _asked(request)
    if asked is None:
        page = Page(rows=(), has_more=False)
    else:
        page = await parts.database.read(partial(list_lines, asked, cursor))
    return page_of(page, _shown)


def _asked(request: Request) -> Asked | None:
    """Return which lines the query asks for; None: there can be none such."""
    bounds = {
        name: number_of(request, f"effective_at[{name}]", least=0, most=_LAST_MOMENT, default=None)
        for name in ("gt", "gte", "lt", "lte")
    }
    types = several_of(request, "event_types")
    if flag_of(request, "tenant_only"):
        types = [one for one in types or TENANT_EVENTS if one.startswith(_TENANT)]
        if not types:
            return None
    if several_of(request, "actor_emails"):
        return None  # keys act here, and they have no e-mail address
    since = [_later(bounds["gt"]), bounds["gte"]]
    until = [bounds["lt"], _later(bounds["lte"])]
    return Asked(
        types=types,
        actor_ids=several_of(request, "actor_ids"),
        project_ids=several_of(request, "project_ids"),
        resource_ids=several_of(request, "resource_ids"),
        since=max((one for one in since if one is not None), default=None),
        until=min((one for one in until if one is not None), default=None),
    )


def _later(moment: int | None) -> int | None:
    return None if moment is None else moment + 1


def _shown(row: Row) -> Mapping[str, Any]:
    event = row["type"]
    before, after = _facts(row["facts_before"]), _facts(row["facts_after"])
    project_id = row["project_id"]
    shown = {
        "id": row["id"],
        "object": "audit_log",
        "type": event,
        "effective_at": row["effective_at"],
        "actor": _actor(row["actor_kind"], row["actor_id"]),
        "project": None if project_id is None else {"id": project_id, "name": row["project_name"]},
        "resource": row["resource"],
        "resource_id": row["resource_id"],
        "before": before,
        "after": after,
        "request_id": row["request_id"],
    }
    if not event.startswith(_TENANT):
        shown[event] = {"id": row["resource_id"], **_details(event, after or {})}
    return shown


def _actor(kind: str, actor_id: str) -> dict[str, Any]:
    if kind == ADMIN_KEY:
        return {"type": "api_key", "api_key": {"id": actor_id}, "kind": kind, "id": actor_id}
    return {"type": None, "kind": kind, "id": actor_id}


def _details(event: str, after: Mapping[str, Any]) -> dict[str, Any]:
    noun, _, verb = event.rpartition(".")
    part = {"created": "data", "updated": "changes_requested"}.get(verb)
    known = _WORDS.get(noun)
    return {} if part is None or known is None else {part: known(after)}


def _facts(text: str | None) -> dict[str, Any] | None:
    return None if text is None else dict(json.loads(text))


def _of_project(after: Mapping[str, Any]) -> dict[str, Any]:
    return {"name": after["name"], "title": after["name"]} if "name" in after else {}


def _of_service_account(after: Mapping[str, Any]) -> dict[str, Any]:
    return {"role": after["role"]} if "role" in after else {}


def _of_api_key(after: Mapping[str, Any]) -> dict[str, Any]:
    return {"scopes": scopes_of(after["scope"])} if "scope" in after else {}


def _of_rate_limit(after: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "max_requests_per_1_minute": after.get("requests_per_minute"),
        "max_requests_per_1_day": after.get("requests_per_day"),
    }


# What OpenAI calls the facts that our lines have of an event's noun.
_WORDS: Final[Mapping[str, Callable[[Mapping[str, Any]], dict[str, Any]]]] = {
    "project": _of_project,
    "service_account": _of_service_account,
    "api_key": _of_api_key,
    "rate_limit": _of_rate_limit,
}
