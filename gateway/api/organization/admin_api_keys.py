"""/v1/organization/admin_api_keys: who may manage the gateway?

At OpenAI an admin key is a user's. There are no users here: whoever holds an admin key acts for
the organization, and `owner` says so.
"""

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
    no_such,
    page_of,
)
from gateway.api.organization.checks import Check, lifetime, text
from gateway.api.parts import Parts
from gateway.billing.admin_keys import (
    FromSettings,
    create_admin_key,
    get_admin_key,
    list_admin_keys,
    revoke_admin_key,
)
from gateway.billing.audit_log import Change
from gateway.billing.key_values import ADMIN, new_value, redacted
from gateway.db.script import Row, Script
from gateway.errors import InvalidRequest

_WHAT: Final = "admin API key"
_FIELDS: Final[Mapping[str, Check]] = {"name": text(), "expires_in_seconds": lifetime}


async def create(parts: Parts, request: Request) -> Response:
    """Make an admin key; its value is shown this once."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _FIELDS, required=["name"])
    value = new_value(ADMIN)
    script = partial(
        _create,
        key_id=parts.clock.new_id("key"),
        name=fields["name"],
        value=value,
        lifetime_seconds=fields.get("expires_in_seconds"),
    )
    made = await change(parts, request, admin_key_id, script)
    return JSONResponse({**_shown(made), "value": value})


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with a page of the admin keys that were not revoked."""
    await admin(parts, request)
    page = await parts.database.read(partial(list_admin_keys, cursor_of(request)))
    return page_of(page, _shown)


async def retrieve(parts: Parts, request: Request) -> Response:
    """Answer with an admin key, without its value."""
    await admin(parts, request)
    key_id = in_path(request, "key_id")
    found = await parts.database.read(partial(get_admin_key, key_id))
    if found is None:
        raise no_such(_WHAT, key_id)
    return JSONResponse(_shown(found))


async def delete(parts: Parts, request: Request) -> Response:
    """Revoke an admin key."""
    admin_key_id = await admin(parts, request)
    key_id = in_path(request, "key_id")
    try:
        there = await change(parts, request, admin_key_id, partial(revoke_admin_key, key_id=key_id))
    except FromSettings as error:
        raise InvalidRequest(
            "This admin key is the setting `admin_key` of the gateway. It ends when that setting"
            " names another value or none, and the gateway is started again.",
            param="key_id",
            code="admin_key_from_settings",
        ) from error
    if not there:
        raise no_such(_WHAT, key_id)
    return JSONResponse(
        {"object": "organization.admin_api_key.deleted", "id": key_id, "deleted": True}
    )


def _create(
    change: Change, *, key_id: str, name: str, value: str, lifetime_seconds: int | None
) -> Script[Row]:
    expires_at = None if lifetime_seconds is None else change.now + lifetime_seconds
    return (
        yield from create_admin_key(
            change, key_id=key_id, name=name, value=value, expires_at=expires_at
        )
    )


def _shown(row: Row) -> dict[str, Any]:
    return {
        "object": "organization.admin_api_key",
        "id": row["id"],
        "name": row["name"],
        "redacted_value": redacted(ADMIN, row["value_hint"]),
        "created_at": row["created_at"],
        "last_used_at": row["last_used_at"],
        "expires_at": row["expires_at"],
        "owner": {"type": "organization", "object": "organization", "role": "owner"},
    }
