"""Which project, service account or key does a path mean, and may it be changed? Scripts only.

Nothing can be made or changed in an archived project; it can still be looked at. A key that was
revoked and an account that was deleted are gone for both.
"""

from gateway.api.organization.asking import no_such
from gateway.billing.keys import get_key
from gateway.billing.projects import ProjectArchived, get_project
from gateway.billing.service_accounts import get_service_account
from gateway.db.script import Row, Script


def existing_project(project_id: str) -> Script[Row]:
    """Return a project, archived or not.

    Raises:
        NotFound: there is none with that id.
    """
    project = yield from get_project(project_id)
    if project is None:
        raise no_such("project", project_id)
    return project


def open_project(project_id: str) -> Script[Row]:
    """Return a project in which something is about to change.

    Raises:
        NotFound: there is none with that id.
        ProjectArchived: it was archived.
    """
    project = yield from existing_project(project_id)
    if project["archived_at"] is not None:
        raise ProjectArchived(project_id)
    return project


def existing_account(*, project_id: str, account_id: str) -> Script[Row]:
    """Return a service account of a project.

    Raises:
        NotFound: there is no such project, or no such account in it.
    """
    yield from existing_project(project_id)
    account = yield from get_service_account(project_id=project_id, account_id=account_id)
    if account is None:
        raise no_such("service account", account_id)
    return account


def open_account(*, project_id: str, account_id: str) -> Script[Row]:
    """Return a service account that is about to change.

    Raises:
        NotFound: there is no such project, or no such account in it.
        ProjectArchived: the project was archived.
    """
    yield from open_project(project_id)
    return (yield from existing_account(project_id=project_id, account_id=account_id))


def existing_key(*, project_id: str, key_id: str) -> Script[Row]:
    """Return a key of a project, with the columns of keys.get_key.

    Raises:
        NotFound: there is no such project, or no such key in it.
    """
    yield from existing_project(project_id)
    key = yield from get_key(key_id=key_id, project_id=project_id)
    if key is None or key["revoked_at"] is not None:
        raise no_such("API key", key_id)
    return key


def open_key(*, project_id: str, key_id: str) -> Script[Row]:
    """Return a key that is about to change.

    Raises:
        NotFound: there is no such project, or no such key in it.
        ProjectArchived: the project was archived.
    """
    yield from open_project(project_id)
    return (yield from existing_key(project_id=project_id, key_id=key_id))
