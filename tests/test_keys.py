"""Does a virtual key let in its holder, and nobody else?"""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_tools import NOW, opened, rows

from gateway.billing.keys import (
    ADMIN,
    VIRTUAL,
    Key,
    NewKey,
    ProjectArchived,
    create_key,
    digest,
    find_key,
    list_keys,
    new_value,
    revoke_key,
    usable,
    well_formed,
)
from gateway.db.database import Database
from gateway.db.script import Script, Sql

VALUE = new_value(VIRTUAL)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


def make(*, value: str = VALUE, project: str = "films") -> Script[NewKey]:
    return create_key(
        project_name=project,
        name="tests",
        value=value,
        key_id="key_new",
        project_id="proj_new",
        now=NOW,
    )


def archive(project_id: str) -> Script[None]:
    yield Sql("UPDATE projects SET archived_at = $1 WHERE id = $2", (NOW, project_id))


@pytest.mark.parametrize(("kind", "other"), [(VIRTUAL, ADMIN), (ADMIN, VIRTUAL)])
def test_a_fresh_value_is_well_formed_for_its_kind_only(kind: str, other: str) -> None:
    values = {new_value(kind) for _ in range(100)}
    assert len(values) == 100
    assert all(well_formed(value, kind) and not well_formed(value, other) for value in values)
    assert all(len(value) == 40 for value in values)


@given(place=st.integers(0, 39), character=st.sampled_from("0aZ_-é"))
def test_one_mistyped_character_is_noticed_before_any_look_up(place: int, character: str) -> None:
    mistyped = VALUE[:place] + character + VALUE[place + 1 :]
    assert well_formed(mistyped, VIRTUAL) == (mistyped == VALUE)


@pytest.mark.parametrize(
    "value",
    ["", "vgk_", VALUE[:-1], f"{VALUE}0", f"{VALUE}\n", "sk-x", "é"],
    ids=["empty", "prefix", "short", "long", "line end", "another", "not ASCII"],
)
def test_a_text_of_another_form_is_no_key(value: str) -> None:
    assert not well_formed(value, VIRTUAL)


async def test_a_key_is_found_by_the_digest_of_its_value(database: Database) -> None:
    made = await database.run(make)
    assert made == NewKey(id="key_new", value=VALUE, project_id="proj_new")
    found = await database.read(partial(find_key, digest(VALUE)))
    assert found == Key(id="key_new", project_id="proj_new", project_name="films")
    assert await database.read(partial(find_key, digest(new_value(VIRTUAL)))) is None


async def test_the_value_is_stored_nowhere(database: Database) -> None:
    await database.run(make)
    (stored,) = await database.read(partial(rows, "SELECT * FROM keys WHERE id = 'key_new'"))
    assert all(VALUE[:-4] not in str(value) for value in stored.values())
    assert stored["value_hint"] == VALUE[-4:]


async def test_making_the_same_key_again_changes_nothing(database: Database) -> None:
    made = await database.run(make)
    before = await database.read(partial(rows, "SELECT * FROM keys, projects"))
    assert await database.run(make) == made
    assert await database.read(partial(rows, "SELECT * FROM keys, projects")) == before


async def test_a_key_joins_the_project_that_has_its_name(database: Database) -> None:
    made = await database.run(partial(make, project="name of proj_a"))
    assert made.project_id == "proj_a"


async def test_a_revoked_key_is_not_found_and_may_not_buy(database: Database) -> None:
    await database.run(make)
    assert await database.read(partial(usable, key_id="key_new"))
    assert await database.run(partial(revoke_key, key_id="key_new", now=NOW + 5))
    assert await database.run(partial(revoke_key, key_id="key_new", now=NOW + 9))
    assert await database.read(partial(find_key, digest(VALUE))) is None
    assert not await database.read(partial(usable, key_id="key_new"))
    (row,) = await database.read(
        partial(rows, "SELECT revoked_at FROM keys WHERE id = $1", "key_new")
    )
    assert row["revoked_at"] == NOW + 5
    assert await database.read(partial(usable, key_id="key_a"))


async def test_a_key_that_does_not_exist_cannot_be_revoked(database: Database) -> None:
    assert not await database.run(partial(revoke_key, key_id="nobody", now=NOW))
    assert not await database.read(partial(usable, key_id="nobody"))


async def test_the_keys_of_an_archived_project_are_no_keys(database: Database) -> None:
    made = await database.run(make)
    await database.run(partial(archive, made.project_id))
    assert await database.read(partial(find_key, digest(VALUE))) is None
    assert not await database.read(partial(usable, key_id="key_new"))
    with pytest.raises(ProjectArchived):
        await database.run(make)


async def test_keys_are_listed_oldest_first_with_their_project(database: Database) -> None:
    await database.run(make)
    listed = await database.read(list_keys)
    assert [row["id"] for row in listed] == ["key_a", "key_b", "key_c", "key_new"]
    assert [row["project"] for row in listed[-2:]] == ["name of proj_b", "films"]
