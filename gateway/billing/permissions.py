"""Which models may a project or a key ask for? Scripts only.

An allow list names all that is allowed, a deny list all that is not; without either everything in
the catalogue is. A request needs the permission of its project and of its key.
"""

import json
from dataclasses import dataclass
from typing import Final

from gateway.billing.audit_log import Change, write_line
from gateway.billing.balances import KEY, PROJECT, Level
from gateway.db.script import Script, Sql

ALLOW: Final = "allow_list"
DENY: Final = "deny_list"
_EVENTS: Final = {PROJECT: "project.updated", KEY: "api_key.updated"}


class NotPermitted(Exception):
    """A model that a project or a key may not ask for. Raised inside a script."""

    def __init__(self, level: str, model: str) -> None:
        super().__init__(f"{level}: {model}")
        self.level = level
        self.model = model


@dataclass(frozen=True, slots=True)
class Permissions:
    """ALLOW or DENY, and the model ids that it is about."""

    mode: str
    model_ids: tuple[str, ...]

    def allow(self, model: str) -> bool:
        """Tell whether a model may be asked for."""
        return (model in self.model_ids) == (self.mode == ALLOW)


EVERYTHING: Final = Permissions(mode=DENY, model_ids=())


def get_permissions(level: Level) -> Script[Permissions]:
    """Return what a project or a key may ask for: EVERYTHING where nothing was said."""
    rows = yield Sql(
        "SELECT mode, model_ids FROM model_permissions WHERE level = $1 AND level_id = $2",
        (level.name, level.id),
    )
    if not rows:
        return EVERYTHING
    return Permissions(mode=rows[0]["mode"], model_ids=tuple(json.loads(rows[0]["model_ids"])))


def set_permissions(change: Change, level: Level, permissions: Permissions) -> Script[None]:
    """Say what a project or a key may ask for from now on; EVERYTHING removes the list."""
    before = yield from get_permissions(level)
    if permissions == EVERYTHING:
        yield Sql(
            "DELETE FROM model_permissions WHERE level = $1 AND level_id = $2",
            (level.name, level.id),
        )
    else:
        yield Sql(
            "INSERT INTO model_permissions (level, level_id, mode, model_ids)"
            " VALUES ($1, $2, $3, $4) ON CONFLICT (level, level_id)"
            " DO UPDATE SET mode = excluded.mode, model_ids = excluded.model_ids",
            (level.name, level.id, permissions.mode, json.dumps(permissions.model_ids)),
        )
    yield from write_line(
        change,
        _EVENTS[level.name],
        resource="model_permissions",
        resource_id=level.id,
        project_id=level.project_id,
        before={"mode": before.mode, "model_ids": before.model_ids},
        after={"mode": permissions.mode, "model_ids": permissions.model_ids},
    )


def check_permitted(*, project_id: str, key_id: str, model: str) -> Script[None]:
    """Return if project and key may ask for a model.

    Raises:
        NotPermitted: one of them may not.
    """
    rows = yield Sql(
        "SELECT level, mode, model_ids FROM model_permissions"
        " WHERE (level = 'project' AND level_id = $1) OR (level = 'key' AND level_id = $2)"
        " ORDER BY level DESC",
        (project_id, key_id),
    )
    for level, mode, model_ids in rows:
        if not Permissions(mode, tuple(json.loads(model_ids))).allow(model):
            raise NotPermitted(level, model)
