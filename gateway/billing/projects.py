"""Which projects are there? Scripts only."""

from typing import Final

from gateway.billing.audit_log import Change, write_line
from gateway.db.paging import Cursor, Listed, Page, read_page
from gateway.db.script import Row, Script, Sql

_COLUMNS: Final = "projects.id, projects.name, projects.created_at, projects.archived_at"


class ProjectArchived(Exception):
    """The project was archived: nothing can be made or changed in it."""


class SeveralProjects(Exception):
    """A name that several projects have; one of `ids` says which is meant."""

    def __init__(self, ids: list[str]) -> None:
        super().__init__(", ".join(ids))
        self.ids = ids


def create_project(change: Change, *, project_id: str, name: str) -> Script[Row]:
    """Make a project, and return it."""
    yield Sql(
        "INSERT INTO projects (id, name, created_at) VALUES ($1, $2, $3) ON CONFLICT DO NOTHING",
        (project_id, name, change.now),
    )
    yield from write_line(
        change,
        "project.created",
        resource="project",
        resource_id=project_id,
        project_id=project_id,
        after={"name": name},
    )
    return (yield from _existing(project_id))


def get_project(project_id: str) -> Script[Row | None]:
    """Return a project (id, name, created_at, archived_at), archived or not."""
    rows = yield Sql(f"SELECT {_COLUMNS} FROM projects WHERE id = $1", (project_id,))
    return rows[0] if rows else None


def find_project(named: str) -> Script[Row | None]:
    """Return the project with an id, or the one that has a name and is not archived.

    Raises:
        SeveralProjects: several have the name.
    """
    found = yield from get_project(named)
    if found is not None:
        return found
    rows = yield Sql(
        f"SELECT {_COLUMNS} FROM projects WHERE name = $1"
        " ORDER BY CASE WHEN archived_at IS NULL THEN 0 ELSE 1 END, created_at, id",
        (named,),
    )
    usable = [row for row in rows if row["archived_at"] is None]
    if len(usable) > 1:
        raise SeveralProjects([row["id"] for row in usable])
    return rows[0] if rows else None


def ensure_project(change: Change, *, named: str, project_id: str) -> Script[Row]:
    """Return the project with an id or a name; it is made if there is none.

    Raises:
        ProjectArchived: it was archived.
        SeveralProjects: several have the name.
    """
    found = yield from find_project(named)
    if found is None:
        return (yield from create_project(change, project_id=project_id, name=named))
    if found["archived_at"] is not None:
        raise ProjectArchived(named)
    return found


def rename_project(change: Change, *, project_id: str, name: str) -> Script[Row | None]:
    """Give a project another name; None: there is none with that id.

    Raises:
        ProjectArchived: it was archived.
    """
    before = yield from get_project(project_id)
    if before is None:
        return None
    if before["archived_at"] is not None:
        raise ProjectArchived(project_id)
    yield Sql("UPDATE projects SET name = $2 WHERE id = $1", (project_id, name))
    yield from write_line(
        change,
        "project.updated",
        resource="project",
        resource_id=project_id,
        project_id=project_id,
        before={"name": before["name"]},
        after={"name": name},
    )
    return (yield from _existing(project_id))


def archive_project(change: Change, *, project_id: str) -> Script[Row | None]:
    """End a project for good, and with it all its keys; None: there is none with that id.

    What is in flight still settles. To archive an archived project changes nothing.
    """
    ended = yield Sql(
        "UPDATE projects SET archived_at = $2 WHERE id = $1 AND archived_at IS NULL RETURNING id",
        (project_id, change.now),
    )
    if ended:
        yield from write_line(
            change,
            "project.archived",
            resource="project",
            resource_id=project_id,
            project_id=project_id,
            before={"status": "active"},
            after={"status": "archived"},
        )
    return (yield from get_project(project_id))


def list_projects(cursor: Cursor, *, include_archived: bool) -> Script[Page]:
    """Return a page of projects."""
    listed = Listed(
        columns=_COLUMNS,
        source="projects",
        table="projects",
        where="true" if include_archived else "projects.archived_at IS NULL",
    )
    return (yield from read_page(listed, cursor))


def _existing(project_id: str) -> Script[Row]:
    (row,) = yield Sql(f"SELECT {_COLUMNS} FROM projects WHERE id = $1", (project_id,))
    return row
