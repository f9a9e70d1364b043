"""…/projects/{project_id}/service_accounts: who holds the keys of a project?"""

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
from gateway.api.organization.checks import Check, flag, lifetime, one_of, scope, text
from gateway.api.organization.within import (
    existing_account,
    existing_project,
    open_account,
    open_project,
)
from gateway.api.parts import Parts
from gateway.billing.audit_log import Change, already_made
from gateway.billing.key_values import VIRTUAL, new_value
from gateway.billing.keys import ALL, create_key
from gateway.billing.service_accounts import (
    MEMBER,
    NO_ROLE,
    OWNER,
    create_service_account,
    delete_service_account,
    list_service_accounts,
    update_service_account,
)
from gateway.db.paging import Cursor, Page
from gateway.db.script import Row, Script
from gateway.errors import InvalidRequest

_FIELDS: Final[Mapping[str, Check]] = {
    "name": text(),
    "create_service_account_only": flag,
    "expires_in_seconds": lifetime,
}
_CHANGES: Final[Mapping[str, Check]] = {"name": text(), "role": one_of(MEMBER, OWNER)}
_KEY_FIELDS: Final[Mapping[str, Check]] = {
    "name": text(),
    "expires_in_seconds": lifetime,
    "scopes": scope,
}


async def create(parts: Parts, request: Request) -> Response:
    """Make a service account: a member with a key, or alone and without a role."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _FIELDS, required=["name"])
    alone = fields.get("create_service_account_only", False)
    if alone and "expires_in_seconds" in fields:
        raise InvalidRequest(
            "'expires_in_seconds' is about the key of the service account, and with"
            " 'create_service_account_only' none is made.",
            param="expires_in_seconds",
        )
    script = partial(
        _create,
        named={
            "project_id": in_path(request, "project_id"),
            "account_id": parts.clock.new_id("svc_acct"),
        },
        name=fields["name"],
        key=None if alone else _new_key(parts, fields),
    )
    return JSONResponse(await change(parts, request, admin_key_id, script))


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with a page of a project's service accounts."""
    await admin(parts, request)
    script = partial(_list, in_path(request, "project_id"), cursor_of(request))
    return page_of(await parts.database.read(script), _shown)


async def retrieve(parts: Parts, request: Request) -> Response:
    """Answer with a service account."""
    await admin(parts, request)
    account = await parts.database.read(partial(existing_account, **_named(request)))
    return JSONResponse(_shown(account))


async def update(parts: Parts, request: Request) -> Response:
    """Give a service account another name or role."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _CHANGES)
    script = partial(_update, named=_named(request), fields=fields)
    return JSONResponse(_shown(await change(parts, request, admin_key_id, script)))


async def delete(parts: Parts, request: Request) -> Response:
    """End a service account and all its keys. What is in flight still settles."""
    admin_key_id = await admin(parts, request)
    named = _named(request)
    await change(parts, request, admin_key_id, partial(_delete, named=named))
    return JSONResponse(
        {
            "object": "organization.project.service_account.deleted",
            "id": named["account_id"],
            "deleted": True,
        }
    )


async def create_account_key(parts: Parts, request: Request) -> Response:
    """Make a key of a service account; its value is shown this once."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _KEY_FIELDS)
    script = partial(_create_key, named=_named(request), key=_new_key(parts, fields))
    return JSONResponse(await change(parts, request, admin_key_id, script))


def _named(request: Request) -> dict[str, str]:
    return {
        "project_id": in_path(request, "project_id"),
        "account_id": in_path(request, "service_account_id"),
    }


def _new_key(parts: Parts, fields: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is known of a key before it is made; without a name it gets its account's."""
    return {
        "id": parts.clock.new_id("key"),
        "name": fields.get("name"),
        "value": new_value(VIRTUAL),
        "scope": fields.get("scopes", ALL),
        "lifetime_seconds": fields.get("expires_in_seconds"),
    }


def _create(
    change: Change, *, named: Mapping[str, str], name: str, key: Mapping[str, Any] | None
) -> Script[dict[str, Any]]:
    yield from open_project(named["project_id"])
    yield from create_service_account(
        change, **named, name=name, role=NO_ROLE if key is None else MEMBER
    )
    made = None
    if key is not None:
        made = yield from _create_key(change.part(1), named=named, key=key)
    account = yield from existing_account(**named)
    return {**_shown(account), "api_key": made}


def _create_key(
    change: Change, *, named: Mapping[str, str], key: Mapping[str, Any]
) -> Script[dict[str, Any]]:
    account = yield from open_account(**named)
    name = key["name"] or account["name"]
    lifetime_seconds = key["lifetime_seconds"]
    expires_at = None if lifetime_seconds is None else change.now + lifetime_seconds
    yield from create_key(
        change,
        **named,
        key_id=key["id"],
        name=name,
        value=key["value"],
        scope=key["scope"],
        expires_at=expires_at,
    )
    return {
        "object": "organization.project.service_account.api_key",
        "id": key["id"],
        "name": name,
        "created_at": change.now,
        "expires_at": expires_at,
        "value": key["value"],
    }


def _list(project_id: str, cursor: Cursor) -> Script[Page]:
    yield from existing_project(project_id)
    return (yield from list_service_accounts(cursor, project_id=project_id))


def _update(change: Change, *, named: Mapping[str, str], fields: Mapping[str, Any]) -> Script[Row]:
    account = yield from open_account(**named)
    if not fields:
        return account
    updated = yield from update_service_account(
        change, **named, name=fields.get("name"), role=fields.get("role")
    )
    return updated or account


def _delete(change: Change, *, named: Mapping[str, str]) -> Script[None]:
    if (yield from already_made(change)) is None:
        yield from open_account(**named)
    yield from delete_service_account(change, **named)


def _shown(row: Row) -> dict[str, Any]:
    return {
        "object": "organization.project.service_account",
        "id": row["id"],
        "name": row["name"],
        "role": row["role"],
        "created_at": row["created_at"],
    }
