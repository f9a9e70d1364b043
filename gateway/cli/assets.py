"""What do the commands about mirrored content share?"""

from functools import partial
from typing import Any

from gateway.billing.projects import find_project
from gateway.cli.common import fail
from gateway.db.database import Database
from gateway.mirror.kept import Kept


def asset_facts(asset: Kept) -> dict[str, Any]:
    """Return what tells an asset apart, in the words of JSON output."""
    return {
        "asset_id": asset.asset_id,
        "video": asset.video_id,
        "upstream_id": asset.upstream_id,
        "variant": asset.variant,
    }


async def id_of_project(named: str, database: Database) -> str:
    """Return the id of the project that is named, by id or name.

    Raises:
        click.ClickException: there is none.
    """
    project = await database.read(partial(find_project, named))
    if project is None:
        raise fail(f"there is no project {named!r}; `projects list` shows them")
    return str(project["id"])
