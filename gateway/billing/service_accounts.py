"""Who holds the keys of a project? Scripts only.

As at OpenAI, a key of a project belongs to a service account. Its role says whether its keys have
access: with `none` they have not.
"""

from typing import Final

from gateway.billing.audit_log import Change, already_made, write_line
from gateway.billing.projects import ProjectArchived, get_project
from gateway.db.paging import Cursor, Listed, Page, read_page
from gateway.db.script import Row, Script, Sql

OWNER: Final = "owner"
MEMBER: Final = "member"
NO_ROLE: Final = "none"
_COLUMNS: Final = (
    "service_accounts.id, service_accounts.project_id, service_accounts.name,"
    " service_accounts.role, service_accounts.created_at"
)


def create_service_account(
    change: Change, *, project_id: str, account_id: str, name: str, role: str
) -> Script[Row | None]:
    """Make a service account, and return it; None: there is no such project.

    Raises:
        ProjectArchived: the project was archived.
    """
    project = yield from get_project(project_id)
    if project is None:
        return None
    if project["archived_at"] is not None:
        raise ProjectArchived(project_id)
    yield Sql(
        "INSERT INTO service_accounts (id, project_id, name, role, created_at)"
        " VALUES ($1, $2, $3, $4, $5) ON CONFLICT DO NOTHING",
        (account_id, project_id, name, role, change.now),
    )
    yield from write_line(
        change,
        "service_account.created",
        resource="service_account",
        resource_id=account_id,
        project_id=project_id,
        after={"name": name, "role": role},
    )
    return (yield from get_service_account(project_id=project_id, account_id=account_id))


def get_service_account(*, project_id: str, account_id: str) -> Script[Row | None]:
    """Return a service account of a project, unless it was deleted.

    Columns: id, project_id, name, role, created_at.
    """
    rows = yield Sql(
        f"SELECT {_COLUMNS} FROM service_accounts"
        " WHERE id = $1 AND project_id = $2 AND deleted_at IS NULL",
        (account_id, project_id),
    )
    return rows[0] if rows else None


def update_service_account(
    change: Change, *, project_id: str, account_id: str, name: str | None, role: str | None
) -> Script[Row | None]:
    """Change what is not None; return the account, None: there is no such account."""
    before = yield from get_service_account(project_id=project_id, account_id=account_id)
    if before is None:
        return None
    after = {
        "name": before["name"] if name is None else name,
        "role": before["role"] if role is None else role,
    }
    yield Sql(
        "UPDATE service_accounts SET name = $2, role = $3 WHERE id = $1",
        (account_id, after["name"], after["role"]),
    )
    yield from write_line(
        change,
        "service_account.updated",
        resource="service_account",
        resource_id=account_id,
        project_id=project_id,
        before={"name": before["name"], "role": before["role"]},
        after=after,
    )
    return (yield from get_service_account(project_id=project_id, account_id=account_id))


def delete_service_account(change: Change, *, project_id: str, account_id: str) -> Script[bool]:
    """End a service account and all its keys; tell whether there was one.

    What is in flight still settles.
    """
    if (yield from already_made(change)) is not None:
        return True
    deleted = yield Sql(
        "UPDATE service_accounts SET deleted_at = $3"
        " WHERE id = $1 AND project_id = $2 AND deleted_at IS NULL RETURNING name",
        (account_id, project_id, change.now),
    )
    if not deleted:
        return False
    yield from write_line(
        change,
        "service_account.deleted",
        resource="service_account",
        resource_id=account_id,
        project_id=project_id,
        before={"name": deleted[0]["name"]},
    )
    revoked = yield Sql(
        "UPDATE keys SET revoked_at = $2 WHERE service_account_id = $1 AND revoked_at IS NULL"
        " RETURNING id, name",
        (account_id, change.now),
    )
    ordered = sorted((str(key_id), str(name)) for key_id, name in revoked)
    for number, (key_id, name) in enumerate(ordered, start=1):
        yield from write_line(
            change.part(number),
            "api_key.deleted",
            resource="api_key",
            resource_id=key_id,
            project_id=project_id,
            before={"name": name},
        )
    return True


def list_service_accounts(cursor: Cursor, *, project_id: str) -> Script[Page]:
    """Return a page of a project's service accounts."""
    listed = Listed(
        columns=_COLUMNS,
        source="service_accounts",
        table="service_accounts",
        where="service_accounts.project_id = $1 AND service_accounts.deleted_at IS NULL",
        args=(project_id,),
    )
    return (yield from read_page(listed, cursor))
