"""Does a virtual key let in its holder, and nobody else?"""

from collections.abc import AsyncIterator, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from ledger_tools import NOW, Bench, a_change, bench, everything, opened, rows

from gateway.billing.audit_log import Change
from gateway.billing.balances import Level
from gateway.billing.key_values import ADMIN, VIRTUAL, digest, new_value, well_formed
from gateway.billing.keys import (
    ALL,
    READ,
    NewKey,
    create_key,
    get_key,
    list_keys,
    revoke_key,
    rotate_key,
    update_key,
)
from gateway.billing.levels import make_key
from gateway.billing.limits import Limits, set_limits
from gateway.billing.projects import ProjectArchived, archive_project
from gateway.billing.service_accounts import (
    MEMBER,
    NO_ROLE,
    delete_service_account,
    update_service_account,
)
from gateway.billing.usable_keys import Key, find_key, usable, write_used
from gateway.db.database import Database
from gateway.db.paging import Cursor
from gateway.db.script import Script, Sql

VALUE = new_value(VIRTUAL)
PROJECT_LEVEL = Level("project", "proj_new", "proj_new")


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    async with opened(tmp_path / "gateway.db") as database:
        yield database


def make(*, value: str = VALUE, project: str = "films") -> Script[NewKey]:
    return make_key(
        a_change("make"),
        project=project,
        name="tests",
        value=value,
        key_id="key_new",
        account_id="svc_acct_new",
        project_id="proj_new",
    )


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
    found = await database.read(partial(find_key, digest(VALUE), now=NOW))
    assert found == Key(
        value_sha256=digest(made.value),
        id="key_new",
        project_id="proj_new",
        project_name="films",
        scope=ALL,
        ends_at=None,
        project_reads_per_minute=None,
        reads_per_minute=None,
    )
    assert await database.read(partial(find_key, digest(new_value(VIRTUAL)), now=NOW)) is None


async def test_the_value_is_stored_nowhere(database: Database) -> None:
    await database.run(make)
    stored = await database.read(everything)
    assert VALUE[:-4] not in str(stored)
    (one,) = [row for row in stored["key_values"] if row["key_id"] == "key_new"]
    assert (one["value_hint"], one["value_sha256"]) == (VALUE[-4:], digest(VALUE))


async def test_making_the_same_key_again_changes_nothing(database: Database) -> None:
    made = await database.run(make)
    before = await database.read(everything)
    assert await database.run(make) == made
    assert await database.read(everything) == before


async def test_a_key_joins_the_project_that_has_its_name(database: Database) -> None:
    made = await database.run(partial(make, project="name of proj_a"))
    assert made.project_id == "proj_a"


async def test_a_revoked_key_is_not_found_and_may_not_buy(database: Database) -> None:
    await database.run(make)
    assert await database.read(partial(usable, key_id="key_new", now=NOW))
    assert await database.run(
        partial(revoke_key, a_change("revoke", now=NOW + 5), key_id="key_new")
    )
    assert await database.run(partial(revoke_key, a_change("again", now=NOW + 9), key_id="key_new"))
    assert await database.read(partial(find_key, digest(VALUE), now=NOW)) is None
    assert not await database.read(partial(usable, key_id="key_new", now=NOW))
    (row,) = await database.read(
        partial(rows, "SELECT revoked_at FROM keys WHERE id = $1", "key_new")
    )
    assert row["revoked_at"] == NOW + 5
    assert await database.read(partial(usable, key_id="key_a", now=NOW))


async def test_a_key_that_does_not_exist_cannot_be_revoked(database: Database) -> None:
    assert not await database.run(partial(revoke_key, a_change("revoke"), key_id="nobody"))
    assert not await database.read(partial(usable, key_id="nobody", now=NOW))


async def test_the_keys_of_an_archived_project_are_no_keys(database: Database) -> None:
    made = await database.run(make)
    await database.run(partial(archive_project, a_change("end"), project_id=made.project_id))
    assert await database.read(partial(find_key, digest(VALUE), now=NOW)) is None
    assert not await database.read(partial(usable, key_id="key_new", now=NOW))
    with pytest.raises(ProjectArchived):
        await database.run(make)


async def test_keys_are_listed_oldest_first_with_their_project(database: Database) -> None:
    await database.run(make)
    page = await database.read(partial(list_keys, Cursor(newest_first=False)))
    assert [row["id"] for row in page.rows] == ["key_a", "key_b", "key_c", "key_new"]
    assert [row["project_name"] for row in page.rows[-2:]] == ["name of proj_b", "films"]
    assert not page.has_more
    page = await database.read(partial(list_keys, Cursor(), project_id="proj_a"))
    assert [row["id"] for row in page.rows] == ["key_b", "key_a"]


async def rotated(
    database: Database, value: str, *, grace_seconds: int, now: int = NOW + 100
) -> None:
    change = a_change(f"rotate {value[-4:]}", now=now)
    script = partial(rotate_key, change, key_id="key_new", value=value, grace_seconds=grace_seconds)
    made = await database.run(script)
    assert made == NewKey(id="key_new", value=value, project_id="proj_new")
    once = await database.read(everything)
    await database.run(script)
    assert await database.read(everything) == once


async def works(database: Database, value: str, *, now: int) -> bool:
    found = await database.read(partial(find_key, digest(value), now=now))
    assert found is None or found.id == "key_new"
    return found is not None


@pytest.mark.parametrize("grace_seconds", [0, 1, 3600])
async def test_a_rotated_value_ends_at_the_second_at_which_its_grace_does(
    database: Database, grace_seconds: int
) -> None:
    await database.run(make)
    fresh = new_value(VIRTUAL)
    await rotated(database, fresh, grace_seconds=grace_seconds)
    end = NOW + 100 + grace_seconds
    for now, old_works in [(end - 1, True), (end, False), (end + 9, False)]:
        if now >= NOW + 100:
            assert await works(database, VALUE, now=now) == old_works
        assert await works(database, fresh, now=now)
    if grace_seconds:
        found = await database.read(partial(find_key, digest(VALUE), now=NOW + 100))
        assert found is not None
        assert found.ends_at == end
    assert await database.read(partial(usable, key_id="key_new", now=end))


async def test_a_second_rotation_shortens_a_grace_and_never_lengthens_one(
    database: Database,
) -> None:
    await database.run(make)
    second, third, fourth = (new_value(VIRTUAL) for _ in range(3))
    await rotated(database, second, grace_seconds=1000)
    await rotated(database, third, grace_seconds=10)
    assert not await works(database, VALUE, now=NOW + 110)
    await rotated(database, fourth, grace_seconds=5000)
    assert not await works(database, VALUE, now=NOW + 110)
    assert not await works(database, second, now=NOW + 110)
    assert await works(database, third, now=NOW + 5099)
    assert not await works(database, third, now=NOW + 5100)
    assert await works(database, fourth, now=NOW + 9999)


async def test_the_hint_is_that_of_the_newest_value_also_within_one_second(
    database: Database,
) -> None:
    await database.run(make)
    for _ in range(6):  # by the order of their digests, half of them would come out right
        fresh = new_value(VIRTUAL)
        await rotated(database, fresh, grace_seconds=3600, now=NOW)
        found = await database.read(partial(get_key, key_id="key_new"))
        assert found is not None
        assert found["value_hint"] == fresh[-4:]


async def test_a_revoked_or_unknown_key_is_not_rotated(database: Database) -> None:
    await database.run(make)
    await database.run(partial(revoke_key, a_change("end"), key_id="key_new"))
    for key_id in ("key_new", "nobody"):
        rotate = partial(rotate_key, a_change("no"), key_id=key_id, value="x", grace_seconds=9)
        assert await database.run(rotate) is None


async def test_a_key_expires_at_the_second(database: Database) -> None:
    await database.run(make)
    await changed(database, expires_at=NOW + 10)
    found = await database.read(partial(find_key, digest(VALUE), now=NOW + 9))
    assert found is not None
    assert found.ends_at == NOW + 10
    assert await database.read(partial(usable, key_id="key_new", now=NOW + 9))
    assert not await works(database, VALUE, now=NOW + 10)
    assert not await database.read(partial(usable, key_id="key_new", now=NOW + 10))


async def test_a_value_ends_with_its_grace_or_its_key_whichever_is_first(
    database: Database,
) -> None:
    await database.run(make)
    await changed(database, expires_at=NOW + 500)
    await rotated(database, new_value(VIRTUAL), grace_seconds=100)
    for expires_at, ends_at in [(NOW + 500, NOW + 200), (NOW + 150, NOW + 150)]:
        await changed(database, expires_at=expires_at)
        found = await database.read(partial(find_key, digest(VALUE), now=NOW + 120))
        assert found is not None
        assert found.ends_at == ends_at


async def changed(
    database: Database, *, scope: str | None = None, expires_at: int | None = None
) -> None:
    script = partial(
        update_key,
        a_change(f"change {scope} {expires_at}"),
        project_id="proj_new",
        key_id="key_new",
        scope=scope,
        expires_at=expires_at,
    )
    assert await database.run(script) is not None


async def test_a_value_that_a_rotation_ended_buys_nothing_however_it_was_remembered(
    database: Database,
) -> None:
    await database.run(make)
    another = new_value(VIRTUAL)
    await database.run(
        partial(rotate_key, a_change("rotation"), key_id="key_new", value=another, grace_seconds=10)
    )
    buys = partial(usable, key_id="key_new")
    assert await database.read(partial(buys, value_sha256=digest(VALUE), now=NOW + 9))
    assert not await database.read(partial(buys, value_sha256=digest(VALUE), now=NOW + 10))
    assert await database.read(partial(buys, value_sha256=digest(another), now=NOW + 10))


async def test_a_key_that_may_only_read_is_found_and_not_usable(database: Database) -> None:
    await database.run(make)
    await changed(database, scope=READ)
    found = await database.read(partial(find_key, digest(VALUE), now=NOW))
    assert found is not None
    assert found.scope == READ
    assert not await database.read(partial(usable, key_id="key_new", now=NOW))
    await changed(database, scope=ALL)
    assert await database.read(partial(usable, key_id="key_new", now=NOW))


async def test_another_projects_key_cannot_be_changed_or_revoked(database: Database) -> None:
    await database.run(make)
    change = partial(
        update_key,
        a_change("no"),
        project_id="proj_a",
        key_id="key_new",
        scope=READ,
        expires_at=None,
    )
    assert await database.run(change) is None
    revoke = partial(revoke_key, a_change("no"), key_id="key_new", project_id="proj_a")
    assert not await database.run(revoke)
    assert await database.read(partial(get_key, key_id="key_new", project_id="proj_a")) is None
    assert await works(database, VALUE, now=NOW)


async def test_a_key_of_a_deleted_account_is_no_key_even_if_it_was_not_revoked(
    database: Database,
) -> None:
    await database.run(make)
    delete = partial(
        rows, "UPDATE service_accounts SET deleted_at = $1 WHERE id = 'svc_acct_new'", NOW
    )
    await database.run(delete)
    assert not await works(database, VALUE, now=NOW)
    assert not await database.read(partial(usable, key_id="key_new", now=NOW))


async def test_a_deleted_account_leaves_a_line_for_itself_and_for_each_key_that_it_revokes(
    database: Database,
) -> None:
    await database.run(make)
    for number in range(3):
        created = partial(
            create_key,
            a_change(f"key {number}"),
            project_id="proj_new",
            account_id="svc_acct_new",
            key_id=f"key_{number}",
            name=f"number {number}",
            value=f"value {number}",
        )
        await database.run(created)
    await database.run(partial(revoke_key, a_change("before"), key_id="key_1"))
    end = partial(
        delete_service_account, a_change("end"), project_id="proj_new", account_id="svc_acct_new"
    )
    assert await database.run(end)
    written = await database.read(
        partial(
            rows,
            "SELECT type, resource_id, project_id FROM audit_log"
            " WHERE id = 'end' OR id LIKE 'end.%' ORDER BY id",
        )
    )
    assert [tuple(line.values()) for line in written] == [
        ("service_account.deleted", "svc_acct_new", "proj_new"),
        *(("api_key.deleted", key_id, "proj_new") for key_id in ("key_0", "key_2", "key_new")),
    ]


@pytest.mark.parametrize("way", ["no role", "deleted", "archived"])
async def test_a_key_ends_with_its_service_account_and_with_its_project(
    database: Database, way: str
) -> None:
    await database.run(make)

    def role(change: Change, role: str) -> Script[Any]:
        return update_service_account(
            change, project_id="proj_new", account_id="svc_acct_new", name=None, role=role
        )

    def delete(change: Change) -> Script[bool]:
        return delete_service_account(change, project_id="proj_new", account_id="svc_acct_new")

    if way == "no role":
        await database.run(partial(role, a_change("end"), role=NO_ROLE))
    elif way == "deleted":
        assert await database.run(partial(delete, a_change("end")))
    else:
        await database.run(partial(archive_project, a_change("end"), project_id="proj_new"))
    assert not await works(database, VALUE, now=NOW)
    assert not await database.read(partial(usable, key_id="key_new", now=NOW))
    assert await database.read(partial(usable, key_id="key_a", now=NOW))
    if way == "no role":
        await database.run(partial(role, a_change("back"), role=MEMBER))
        assert await works(database, VALUE, now=NOW)
    elif way == "deleted":
        assert await database.run(partial(role, a_change("back"), role=MEMBER)) is None


async def test_no_key_is_made_for_an_account_of_another_project_or_a_deleted_one(
    database: Database,
) -> None:
    await database.run(make)
    await database.run(
        partial(
            delete_service_account,
            a_change("end"),
            project_id="proj_new",
            account_id="svc_acct_new",
        )
    )
    for project_id, account_id in [("proj_a", "account of key_c"), ("proj_new", "svc_acct_new")]:
        script = partial(
            create_key,
            a_change("no"),
            project_id=project_id,
            account_id=account_id,
            key_id="key_more",
            name="more",
            value=new_value(VIRTUAL),
        )
        assert await database.run(script) is None
    assert await database.read(partial(get_key, key_id="key_more")) is None


async def test_when_a_key_was_last_used_only_moves_forward(database: Database) -> None:
    for moment, kept in [(NOW + 9, NOW + 9), (NOW + 5, NOW + 9), (NOW + 11, NOW + 11)]:
        await database.run(partial(write_used, {"key_a": moment, "nobody": moment}))
        found = await database.read(partial(get_key, key_id="key_a"))
        assert found is not None
        assert found["last_used_at"] == kept


async def test_the_limits_on_reads_of_a_key_and_of_its_project_come_with_it(
    database: Database,
) -> None:
    await database.run(make)
    for level, reads in [(Level("key", "key_new", "proj_new"), 3), (PROJECT_LEVEL, 7)]:
        script = partial(
            set_limits, a_change(level.name), level, Limits(reads_per_minute=reads), model=""
        )
        await database.run(script)
    found = await database.read(partial(find_key, digest(VALUE), now=NOW))
    assert found is not None
    assert (found.reads_per_minute, found.project_reads_per_minute) == (3, 7)


@given(
    revoked_at=st.none() | st.just(NOW - 1),
    expires_at=st.none() | st.sampled_from([NOW - 1, NOW, NOW + 1]),
    role=st.sampled_from(["owner", "member", "none"]),
    archived_at=st.none() | st.just(NOW - 1),
    scope=st.sampled_from([ALL, READ]),
    ends_at=st.none() | st.sampled_from([NOW - 1, NOW, NOW + 1]),
)
def test_what_is_found_is_what_may_buy_but_for_scope_and_grace(
    records: Bench,
    revoked_at: int | None,
    expires_at: int | None,
    role: str,
    archived_at: int | None,
    scope: str,
    ends_at: int | None,
) -> None:
    def stand() -> Script[None]:
        yield Sql(
            "UPDATE keys SET revoked_at = $1, expires_at = $2, scope = $3 WHERE id = 'key_new'",
            (revoked_at, expires_at, scope),
        )
        yield Sql("UPDATE service_accounts SET role = $1 WHERE id = 'svc_acct_new'", (role,))
        yield Sql("UPDATE projects SET archived_at = $1 WHERE id = 'proj_new'", (archived_at,))
        yield Sql("UPDATE key_values SET ends_at = $1 WHERE key_id = 'key_new'", (ends_at,))

    records.run(stand)
    found = records.run(partial(find_key, digest(VALUE), now=NOW))
    buys = records.run(partial(usable, key_id="key_new", now=NOW))
    lives = (
        revoked_at is None
        and (expires_at is None or expires_at > NOW)
        and role != "none"
        and archived_at is None
    )
    assert buys == (lives and scope == ALL)
    assert (found is not None) == (lives and (ends_at is None or ends_at > NOW))
    assert found is None or (found.scope == ALL) == buys


@pytest.fixture(scope="module")
def records(place: Path) -> Iterator[Bench]:
    with bench(place / "keys" / "gateway.db") as made:
        made.run(make)
        yield made
