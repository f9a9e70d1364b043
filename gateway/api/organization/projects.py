"""/v1/organization/projects: which projects are there?"""

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
    flag_of,
    in_path,
    no_such,
    page_of,
)
from gateway.api.organization.checks import Check, one_of, text, unsupported
from gateway.api.organization.within import existing_project, open_project
from gateway.api.parts import Parts
from gateway.billing.audit_log import Change
from gateway.billing.projects import (
    archive_project,
    create_project,
    list_projects,
    rename_project,
)
from gateway.db.script import Row, Script

# Without a restriction a request goes wherever the upstream is: that is all GLOBAL says.
_NO_RESTRICTION: Final = "GLOBAL"
_CHANGES: Final[Mapping[str, Check]] = {
    "name": text(),
    "external_key_id": unsupported("this gateway has no external keys"),
    "geography": unsupported("this gateway does not choose where data is kept"),
}
_FIELDS: Final[Mapping[str, Check]] = {**_CHANGES, "residency": one_of(_NO_RESTRICTION)}


async def create(parts: Parts, request: Request) -> Response:
    """Make a project."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _FIELDS, required=["name"])
    project_id = parts.clock.new_id("proj")
    made = await change(
        parts,
        request,
        admin_key_id,
        partial(create_project, project_id=project_id, name=fields["name"]),
    )
    return JSONResponse(_shown(made))


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with a page of projects."""
    await admin(parts, request)
    page = await parts.database.read(
        partial(
            list_projects, cursor_of(request), include_archived=flag_of(request, "include_archived")
        )
    )
    return page_of(page, _shown)


async def retrieve(parts: Parts, request: Request) -> Response:
    """Answer with a project, archived or not."""
    await admin(parts, request)
    project_id = in_path(request, "project_id")
    return JSONResponse(_shown(await parts.database.read(partial(existing_project, project_id))))


async def update(parts: Parts, request: Request) -> Response:
    """Give a project another name."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _CHANGES)
    script = partial(_update, project_id=in_path(request, "project_id"), name=fields.get("name"))
    return JSONResponse(_shown(await change(parts, request, admin_key_id, script)))


async def archive(parts: Parts, request: Request) -> Response:
    """End a project, and with it its keys. What is in flight still settles."""
    admin_key_id = await admin(parts, request)
    await fields_of(request, {})
    project_id = in_path(request, "project_id")
    archived = await change(
        parts, request, admin_key_id, partial(archive_project, project_id=project_id)
    )
    if archived is None:
        raise no_such("project", project_id)
    return JSONResponse(_shown(archived))


def _update(change: Change, *, project_id: str, name: str | None) -> Script[Row]:
    project = yield from open_project(project_id)
    if name is None:
        return project
    return (yield from rename_project(change, project_id=project_id, name=name)) or project


def _shown(row: Row) -> dict[str, Any]:
    return {
        "object": "organization.project",
        "id": row["id"],
        "name": row["name"],
        "created_at": row["created_at"],
        "archived_at": row["archived_at"],
        "status": "active" if row["archived_at"] is None else "archived",
        "external_key_id": None,
        "residency": None,
    }
