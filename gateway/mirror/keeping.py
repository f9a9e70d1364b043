"""How long, and how much, of a project's content is kept? Scripts only.

What is set here for a project goes before what the settings say of all of them; retention.py acts
on both.
"""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Final

from gateway.billing.audit_log import Change, write_line
from gateway.db.script import Row, Script, Sql, Value

FOREVER: Final = 0
# Of an asset, in these words: they make the database take the indexes of what is kept.
IS_KEPT: Final = "assets.mirrored_at IS NOT NULL AND assets.removed_at IS NULL"


@dataclass(frozen=True, slots=True)
class Retention:
    """What is kept of one project.

    Attributes:
        keep_seconds: for how long after it was mirrored; FOREVER; None: as the settings say.
        keep_bytes: at most; None: no limit of its own.
    """

    keep_seconds: int | None = None
    keep_bytes: int | None = None


def get_retention(project_id: str) -> Script[Retention]:
    """Return what is set for a project."""
    rows = yield Sql(
        "SELECT keep_seconds, keep_bytes FROM retentions WHERE project_id = $1", (project_id,)
    )
    return Retention(*rows[0]) if rows else Retention()


def set_retention(change: Change, *, project_id: str, retention: Retention) -> Script[None]:
    """Set what is kept of a project, in force from the next turn on."""
    before = yield from get_retention(project_id)
    if retention == Retention():
        yield Sql("DELETE FROM retentions WHERE project_id = $1", (project_id,))
    else:
        yield Sql(
            "INSERT INTO retentions (project_id, keep_seconds, keep_bytes) VALUES ($1, $2, $3)"
            " ON CONFLICT (project_id) DO UPDATE SET keep_seconds = excluded.keep_seconds,"
            " keep_bytes = excluded.keep_bytes",
            (project_id, retention.keep_seconds, retention.keep_bytes),
        )
    yield from write_line(
        change,
        "project.updated",
        resource="retention",
        resource_id=project_id,
        project_id=project_id,
        before=asdict(before),
        after=asdict(retention),
    )


def list_retentions(*, project_id: str | None, limit: int) -> Script[Sequence[Row]]:
    """Return what is set for each project, or for one, and what is kept of it, oldest first.

    Columns: id, name, keep_seconds, keep_bytes, kept_assets, kept_bytes, pinned_bytes.
    """
    args: tuple[Value, ...] = (limit,) if project_id is None else (limit, project_id)

    def of(column: str) -> str:
        return "" if project_id is None else f"{column} = $2 AND "

    return (
        yield Sql(
            "SELECT projects.id, projects.name, retentions.keep_seconds, retentions.keep_bytes,"
            " COALESCE(kept.assets, 0) AS kept_assets, COALESCE(kept.bytes, 0) AS kept_bytes,"
            " COALESCE(pinned.bytes, 0) AS pinned_bytes FROM projects"
            " LEFT JOIN retentions ON retentions.project_id = projects.id"
            " LEFT JOIN (SELECT assets.project_id, COUNT(*) AS assets,"
            " CAST(SUM(assets.size_bytes) AS BIGINT) AS bytes FROM assets"
            f" WHERE {of('assets.project_id')}{IS_KEPT} GROUP BY assets.project_id) AS kept"
            " ON kept.project_id = projects.id"
            # From the few that are pinned to their assets: SQLite keeps the order of a cross join.
            " LEFT JOIN (SELECT assets.project_id,"
            " CAST(SUM(assets.size_bytes) AS BIGINT) AS bytes FROM videos CROSS JOIN assets"
            f" WHERE {of('videos.project_id')}videos.pinned_at IS NOT NULL"
            f" AND assets.video_id = videos.id AND {IS_KEPT} GROUP BY assets.project_id) AS pinned"
            " ON pinned.project_id = projects.id"
            f" WHERE {of('projects.id')}true ORDER BY projects.created_at, projects.id LIMIT $1",
            args,
        )
    )
