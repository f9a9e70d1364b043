"""Which level is meant? Scripts only."""

from gateway.billing.audit_log import Change
from gateway.billing.balances import KEY, ORGANIZATION, PROJECT, THE_ORGANIZATION, Level
from gateway.billing.keys import NewKey, create_key, get_key
from gateway.billing.projects import ensure_project, find_project, get_project
from gateway.billing.service_accounts import MEMBER, create_service_account
from gateway.db.script import Script


def find_level(name: str, *, named: str) -> Script[Level | None]:
    """Return the level that is named: a project by id or name, a key by its id; None: none such.

    Raises:
        SeveralProjects: several have the name.
    """
    if name == ORGANIZATION:
        return THE_ORGANIZATION
    if name == PROJECT:
        project = yield from find_project(named)
        return None if project is None else Level(PROJECT, project["id"], project["id"])
    return (yield from key_level(named))


def project_level(project_id: str) -> Script[Level | None]:
    """Return the level of the project with an id; None: there is none."""
    project = yield from get_project(project_id)
    return None if project is None else Level(PROJECT, project_id, project_id)


def key_level(key_id: str, *, project_id: str | None = None) -> Script[Level | None]:
    """Return the level of the key with an id, of any project or of this one; None: none such."""
    key = yield from get_key(key_id=key_id, project_id=project_id)
    return None if key is None else Level(KEY, key_id, key["project_id"])


def make_key(
    change: Change,
    *,
    project: str,
    name: str,
    value: str,
    key_id: str,
    account_id: str,
    project_id: str,
    expires_at: int | None = None,
) -> Script[NewKey]:
    """Make a key, with a service account of its own, in a project that is made if there is none.

    Args:
        change: who makes it.
        project: an id or a name.
        name: of the key and of its service account.
        value: of the key.
        key_id: its id.
        account_id: the id of the service account.
        project_id: the id of the project, if it is made.
        expires_at: Unix seconds at which the key ends.

    Raises:
        ProjectArchived: the project was archived.
        SeveralProjects: several have the name.
    """
    found = yield from ensure_project(change, named=project, project_id=project_id)
    yield from create_service_account(
        change.part(1), project_id=found["id"], account_id=account_id, name=name, role=MEMBER
    )
    made = yield from create_key(
        change.part(2),
        project_id=found["id"],
        account_id=account_id,
        key_id=key_id,
        name=name,
        value=value,
        expires_at=expires_at,
    )
    if made is None:
        raise LookupError(account_id)  # it was made in this very transaction
    return made
