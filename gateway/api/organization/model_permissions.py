"""…/model_permissions of a project, or of one of its keys: which models may be asked for?

A name of the catalogue, alias and snapshot included, stands for its model. A name that the
catalogue does not have is kept, because the catalogue may change, and listed as unknown.
"""

from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.organization.asking import admin, change, fields_of
from gateway.api.organization.checks import Check, one_of, text, texts
from gateway.api.organization.levels import level_of, level_to_change
from gateway.api.parts import Parts
from gateway.billing.audit_log import Change
from gateway.billing.balances import KEY, PROJECT, Level
from gateway.billing.permissions import (
    ALLOW,
    DENY,
    EVERYTHING,
    Permissions,
    get_permissions,
    set_permissions,
)
from gateway.db.script import Script

MAX_MODELS: Final = 100
_OBJECTS: Final = {PROJECT: "project.model_permissions", KEY: "project.api_key.model_permissions"}
_FIELDS: Final[Mapping[str, Check]] = {
    "mode": one_of(ALLOW, DENY),
    "model_ids": texts(most=MAX_MODELS, each=text()),
}


async def retrieve(parts: Parts, request: Request) -> Response:
    """Answer with the list; where none was made, nothing is denied."""
    await admin(parts, request)
    return _answer(parts, *await parts.database.read(partial(_get, request)))


async def update(parts: Parts, request: Request) -> Response:
    """Say what may be asked for from now on."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _FIELDS, required=list(_FIELDS))
    names = parts.catalogue.names
    ids = [names[name].id if name in names else name for name in fields["model_ids"]]
    permissions = Permissions(mode=fields["mode"], model_ids=tuple(dict.fromkeys(ids)))
    script = partial(_set, request=request, permissions=permissions)
    return _answer(parts, await change(parts, request, admin_key_id, script), permissions)


async def delete(parts: Parts, request: Request) -> Response:
    """Allow all models again."""
    admin_key_id = await admin(parts, request)
    script = partial(_set, request=request, permissions=EVERYTHING)
    level = await change(parts, request, admin_key_id, script)
    return JSONResponse({"object": f"{_OBJECTS[level.name]}.deleted", "deleted": True})


def _get(request: Request) -> Script[tuple[Level, Permissions]]:
    level = yield from level_of(request)
    return level, (yield from get_permissions(level))


def _set(change: Change, *, request: Request, permissions: Permissions) -> Script[Level]:
    level = yield from level_to_change(request)
    yield from set_permissions(change, level, permissions)
    return level


def _answer(parts: Parts, level: Level, permissions: Permissions) -> Response:
    shown: dict[str, Any] = {
        "object": _OBJECTS[level.name],
        "mode": permissions.mode,
        "model_ids": permissions.model_ids,
        "unknown_model_ids": [
            one for one in permissions.model_ids if one not in parts.catalogue.models
        ],
    }
    return JSONResponse(shown)
