"""…/projects/{project_id}/api_keys: which keys does a project have?"""

from collections.abc import Mapping
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
    page_of,
)
from gateway.api.organization.checks import Check, lifetime, scope, scopes_of, whole
from gateway.api.organization.within import existing_key, existing_project, open_key
from gateway.api.parts import Parts
from gateway.billing.audit_log import Change, already_made
from gateway.billing.key_values import VIRTUAL, new_value, redacted
from gateway.billing.keys import list_keys, revoke_key, rotate_key, update_key
from gateway.billing.service_accounts import NO_ROLE
from gateway.db.paging import Cursor, Page
from gateway.db.script import Row, Script
from gateway.errors import InvalidRequest

# Ninety days: who has not changed a value by then will not.
MAX_GRACE_SECONDS: Final = 90 * 86_400
_ACTIVE: Final = "active"
_INACTIVE: Final = "inactive"
_ANY: Final = "any"
_CHANGES: Final[Mapping[str, Check]] = {"expires_in_seconds": lifetime, "scopes": scope}
_ROTATION: Final[Mapping[str, Check]] = {"grace_seconds": whole(least=0, most=MAX_GRACE_SECONDS)}


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with a page of a project's keys, without those that were revoked."""
    await admin(parts, request)
    script = partial(
        _list, in_path(request, "project_id"), cursor_of(request), access=_access_of(request)
    )
    return page_of(await parts.database.read(script), _shown)


async def retrieve(parts: Parts, request: Request) -> Response:
    """Answer with a key, without its value."""
    await admin(parts, request)
    return JSONResponse(_shown(await parts.database.read(partial(existing_key, **_named(request)))))


async def update(parts: Parts, request: Request) -> Response:
    """Say when a key expires, counted from now, or what it may be used for."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _CHANGES)
    script = partial(_update, named=_named(request), fields=fields)
    return JSONResponse(_shown(await change(parts, request, admin_key_id, script)))


async def rotate(parts: Parts, request: Request) -> Response:
    """Give a key another value, which is shown this once; what it had ends after the grace."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _ROTATION)
    value = new_value(VIRTUAL)
    script = partial(
        _rotate, named=_named(request), value=value, grace_seconds=fields.get("grace_seconds", 0)
    )
    rotated = await change(parts, request, admin_key_id, script)
    return JSONResponse({**_shown(rotated), "value": value})


async def delete(parts: Parts, request: Request) -> Response:
    """Revoke a key. What is in flight still settles."""
    admin_key_id = await admin(parts, request)
    named = _named(request)
    await change(parts, request, admin_key_id, partial(_delete, named=named))
    return JSONResponse(
        {"object": "organization.project.api_key.deleted", "id": named["key_id"], "deleted": True}
    )


def _named(request: Request) -> dict[str, str]:
    return {
        "project_id": in_path(request, "project_id"),
        "key_id": in_path(request, "api_key_id"),
    }


def _access_of(request: Request) -> str:
    value = request.query_params.get("owner_project_access", _ANY)
    if value not in {_ACTIVE, _INACTIVE, _ANY}:
        raise InvalidRequest(
            f"Invalid value: '{value}'. Supported values are: 'active', 'inactive', and 'any'.",
            param="owner_project_access",
        )
    return value


def _list(project_id: str, cursor: Cursor, *, access: str) -> Script[Page]:
    project = yield from existing_project(project_id)
    with_access = None if access == _ANY else access == _ACTIVE
    if project["archived_at"] is not None and with_access is not None:
        # Nobody has access to it any more.
        if with_access:
            return Page(rows=(), has_more=False)
        with_access = None
    return (yield from list_keys(cursor, project_id=project_id, with_access=with_access))


def _update(change: Change, *, named: Mapping[str, str], fields: Mapping[str, Any]) -> Script[Row]:
    key = yield from _unexpired_key(change, named)
    if not fields:
        return key
    lifetime_seconds = fields.get("expires_in_seconds")
    updated = yield from update_key(
        change,
        **named,
        scope=fields.get("scopes"),
        expires_at=None if lifetime_seconds is None else change.now + lifetime_seconds,
    )
    return updated or key


def _rotate(
    change: Change, *, named: Mapping[str, str], value: str, grace_seconds: int
) -> Script[Row]:
    yield from _unexpired_key(change, named)
    yield from rotate_key(change, key_id=named["key_id"], value=value, grace_seconds=grace_seconds)
    return (yield from existing_key(**named))


def _delete(change: Change, *, named: Mapping[str, str]) -> Script[None]:
    if (yield from already_made(change)) is None:
        yield from open_key(**named)
    yield from revoke_key(change, **named)


def _unexpired_key(change: Change, named: Mapping[str, str]) -> Script[Row]:
    key = yield from open_key(**named)
    if key["expires_at"] is not None and key["expires_at"] <= change.now:
        raise InvalidRequest(
            f"The API key '{key['id']}' has expired and cannot be changed. Make another one.",
            param="api_key_id",
            code="api_key_expired",
        )
    return key


def _shown(row: Row) -> dict[str, Any]:
    has_access = row["account_role"] != NO_ROLE and row["project_archived_at"] is None
    return {
        "object": "organization.project.api_key",
        "id": row["id"],
        "name": row["name"],
        "redacted_value": redacted(VIRTUAL, row["value_hint"]),
        "scopes": scopes_of(row["scope"]),
        "created_at": row["created_at"],
        "last_used_at": row["last_used_at"],
        "expires_at": row["expires_at"],
        "owner_project_access": _ACTIVE if has_access else _INACTIVE,
        "owner": {
            "type": "service_account",
            "service_account": {
                "id": row["service_account_id"],
                "name": row["account_name"],
                "role": row["account_role"],
                "created_at": row["account_created_at"],
            },
            "user": None,
        },
    }
