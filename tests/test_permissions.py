"""May a project and a key ask for exactly the models that were allowed them?"""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from ledger_tools import NOW, a_change, a_hold, a_level, a_submit, opened, rows

from gateway.billing.balances import KEY, PROJECT, Level
from gateway.billing.permissions import (
    ALLOW,
    DENY,
    EVERYTHING,
    NotPermitted,
    Permissions,
    check_permitted,
    get_permissions,
    set_permissions,
)
from gateway.db.database import Database
from gateway.videos.opening import open_submit

PROJECT_A, KEY_A = a_level(PROJECT, "proj_a"), a_level(KEY, "key_a")
MODELS = ["sora-2", "sora-2-pro", "veo"]


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


async def permit(database: Database, level: Level, permissions: Permissions) -> None:
    change = a_change(f"{level.id} {permissions}")
    await database.run(partial(set_permissions, change, level, permissions))


async def refused_at(database: Database, model: str, key_id: str = "key_a") -> str | None:
    """The level that refuses a model, or None."""
    project_id = {"key_a": "proj_a", "key_b": "proj_a", "key_c": "proj_b"}[key_id]
    check = partial(check_permitted, project_id=project_id, key_id=key_id, model=model)
    try:
        await database.read(check)
    except NotPermitted as refusal:
        return refusal.level if refusal.model == model else "another model"
    return None


@pytest.mark.parametrize(
    ("permissions", "allowed"),
    [
        (EVERYTHING, MODELS),
        (Permissions(ALLOW, ("sora-2", "veo")), ["sora-2", "veo"]),
        (Permissions(ALLOW, ()), []),
        (Permissions(DENY, ("sora-2",)), ["sora-2-pro", "veo"]),
    ],
)
@pytest.mark.parametrize("level", [PROJECT_A, KEY_A])
async def test_a_list_allows_what_it_says_to_its_level_and_nobody_else(
    database: Database, level: Level, permissions: Permissions, allowed: list[str]
) -> None:
    await permit(database, level, permissions)
    for model in MODELS:
        expected = None if model in allowed else level.name
        assert await refused_at(database, model) == expected
        assert await refused_at(database, model, "key_b") == (
            expected if level is PROJECT_A else None
        )
        assert await refused_at(database, model, "key_c") is None


async def test_project_and_key_must_both_allow_and_the_project_is_named_first(
    database: Database,
) -> None:
    await permit(database, PROJECT_A, Permissions(ALLOW, ("sora-2", "veo")))
    await permit(database, KEY_A, Permissions(DENY, ("sora-2", "sora-2-pro")))
    assert [await refused_at(database, model) for model in MODELS] == [KEY, PROJECT, None]


async def test_a_list_is_read_back_and_everything_removes_it(database: Database) -> None:
    assert await database.read(partial(get_permissions, KEY_A)) == EVERYTHING
    for permissions in (Permissions(ALLOW, ("b", "a")), Permissions(DENY, ("a",)), EVERYTHING):
        await permit(database, KEY_A, permissions)
        assert await database.read(partial(get_permissions, KEY_A)) == permissions
    assert await database.read(partial(rows, "SELECT * FROM model_permissions")) == []


async def test_what_is_not_permitted_is_refused_before_anything_is_held(
    database: Database,
) -> None:
    await permit(database, KEY_A, Permissions(DENY, ("sora-2",)))
    with pytest.raises(NotPermitted):
        await database.run(partial(open_submit, a_submit(1), now=NOW))
    for table in ("holds", "entries", "balances", "videos", "attempts"):
        assert await database.read(partial(rows, f"SELECT * FROM {table}")) == []
    allowed = a_submit(2, a_hold(2, model="sora-2-pro"))
    await database.run(partial(open_submit, allowed, now=NOW))
    # A character is of no model.
    await database.run(partial(open_submit, a_submit(3, a_hold(3, model="")), now=NOW))
