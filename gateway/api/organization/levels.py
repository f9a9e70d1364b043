"""Which level of spend does a path name? Scripts only."""

from starlette.requests import Request

from gateway.api.organization.asking import in_path
from gateway.api.organization.within import (
    existing_key,
    existing_project,
    open_key,
    open_project,
)
from gateway.billing.balances import KEY, PROJECT, THE_ORGANIZATION, Level
from gateway.db.script import Script


def level_of(request: Request) -> Script[Level]:
    """Return the key, else the project, that the path names, else the organization.

    Raises:
        NotFound: there is no such project, or it has no such key.
    """
    level = _named(request)
    if level.name == KEY:
        yield from existing_key(project_id=str(level.project_id), key_id=level.id)
    elif level.name == PROJECT:
        yield from existing_project(level.id)
    return level


def level_to_change(request: Request) -> Script[Level]:
    """Return the level that the path names, of which something is about to change.

    Raises:
        NotFound: there is no such project, or it has no such key.
        ProjectArchived: the project was archived.
    """
    level = _named(request)
    if level.name == KEY:
        yield from open_key(project_id=str(level.project_id), key_id=level.id)
    elif level.name == PROJECT:
        yield from open_project(level.id)
    return level


def _named(request: Request) -> Level:
    if "project_id" not in request.path_params:
        return THE_ORGANIZATION
    project_id = in_path(request, "project_id")
    if "api_key_id" not in request.path_params:
        return Level(PROJECT, project_id, project_id)
    return Level(KEY, in_path(request, "api_key_id"), project_id)
