"""Is the admin key of the settings the one that they name, and may it end only there?"""

from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from ledger_tools import NOW, a_change, everything, opened, rows

from gateway.billing.admin_keys import (
    SETTING_NAME,
    AdminKey,
    FromSettings,
    create_admin_key,
    find_admin_key,
    get_admin_key,
    list_admin_keys,
    revoke_admin_key,
    set_admin_key_of_settings,
    write_admin_used,
)
from gateway.billing.key_values import ADMIN, digest, new_value
from gateway.db.database import Database
from gateway.db.paging import Cursor

FIRST, SECOND = new_value(ADMIN), new_value(ADMIN)


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


async def start(database: Database, value: str, number: int) -> None:
    """What every start of a gateway does."""
    change = a_change(f"start {number}", now=NOW + number)
    script = partial(set_admin_key_of_settings, change, value=value, key_id=f"key_{number}")
    await database.run(script)
    once = await database.read(everything)
    await database.run(script)
    assert await database.read(everything) == once


async def find(database: Database, value: str, *, now: int = NOW) -> AdminKey | None:
    return await database.read(partial(find_admin_key, digest(value), now=now))


async def make(database: Database, value: str, *, expires_at: int | None = None) -> None:
    script = partial(
        create_admin_key,
        a_change("make"),
        key_id="made",
        name="deployments",
        value=value,
        expires_at=expires_at,
    )
    await database.run(script)


async def lines(database: Database) -> list[tuple[Any, ...]]:
    """What happened to admin keys, in order."""
    found = await database.read(
        partial(
            rows,
            "SELECT type, resource_id FROM audit_log WHERE resource = 'admin_api_key'"
            " ORDER BY effective_at, id",
        )
    )
    return [(row["type"].rpartition(".")[2], row["resource_id"]) for row in found]


async def test_the_key_of_the_setting_is_made_once_however_often_a_gateway_starts(
    database: Database,
) -> None:
    for number in range(3):
        await start(database, FIRST, number)
    assert await find(database, FIRST) == AdminKey("key_0", SETTING_NAME, None)
    page = await database.read(partial(list_admin_keys, Cursor()))
    assert [(row["id"], row["from_settings"]) for row in page.rows] == [("key_0", 1)]
    assert await lines(database) == [("created", "key_0")]


async def test_another_value_in_the_setting_replaces_the_first(database: Database) -> None:
    await start(database, FIRST, 0)
    await start(database, SECOND, 1)
    assert await find(database, FIRST) is None
    assert await find(database, SECOND) == AdminKey("key_1", SETTING_NAME, None)
    assert await lines(database) == [
        ("created", "key_0"),
        ("created", "key_1"),
        ("deleted", "key_0"),
    ]


async def test_an_empty_setting_ends_its_key(database: Database) -> None:
    await start(database, FIRST, 0)
    await start(database, "", 1)
    assert await find(database, FIRST) is None
    assert await lines(database) == [("created", "key_0"), ("deleted", "key_0")]


async def test_a_value_that_comes_back_is_the_same_key_again_and_that_is_written_down(
    database: Database,
) -> None:
    await start(database, FIRST, 0)
    await start(database, SECOND, 1)
    await start(database, FIRST, 2)
    assert await find(database, FIRST) == AdminKey("key_0", SETTING_NAME, None)
    assert await find(database, SECOND) is None
    assert ("created", "key_0") in (await lines(database))[-2:]
    assert len(await lines(database)) == 5


async def test_the_key_of_the_setting_cannot_be_revoked_but_others_can(database: Database) -> None:
    await start(database, FIRST, 0)
    await make(database, SECOND)
    before = await database.read(everything)
    with pytest.raises(FromSettings):
        await database.run(partial(revoke_admin_key, a_change("no"), key_id="key_0"))
    assert await database.read(everything) == before
    assert await find(database, FIRST) is not None
    assert await database.run(partial(revoke_admin_key, a_change("yes"), key_id="made"))
    assert not await database.run(partial(revoke_admin_key, a_change("again"), key_id="made"))
    assert await find(database, SECOND) is None
    assert await database.read(partial(get_admin_key, "made")) is None


@pytest.mark.parametrize("ended", ["revoked", "expired", "neither"])
async def test_a_key_of_the_api_that_the_setting_names_is_taken_up(
    database: Database, ended: str
) -> None:
    await make(database, FIRST, expires_at=NOW + 5 if ended == "expired" else None)
    if ended == "revoked":
        await database.run(partial(revoke_admin_key, a_change("end"), key_id="made"))
    await start(database, FIRST, 9)
    assert await find(database, FIRST, now=NOW + 9) == AdminKey("made", "deployments", None)
    with pytest.raises(FromSettings):
        await database.run(partial(revoke_admin_key, a_change("no"), key_id="made"))
    assert (await lines(database))[-1] == ("created", "made")


async def test_an_expired_admin_key_ends_at_the_second(database: Database) -> None:
    await make(database, FIRST, expires_at=NOW + 10)
    assert await find(database, FIRST, now=NOW + 9) == AdminKey("made", "deployments", NOW + 10)
    assert await find(database, FIRST, now=NOW + 10) is None
    assert await database.read(partial(get_admin_key, "made")) is not None


async def test_when_it_was_last_used_only_moves_forward(database: Database) -> None:
    await start(database, FIRST, 0)
    for moment, kept in [(NOW + 9, NOW + 9), (NOW + 5, NOW + 9)]:
        await database.run(partial(write_admin_used, {"key_0": moment}))
        found = await database.read(partial(get_admin_key, "key_0"))
        assert found is not None
        assert found["last_used_at"] == kept
