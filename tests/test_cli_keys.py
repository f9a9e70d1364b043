"""Do `keys`, `projects` and `admin-keys` do what they say?"""

import asyncio
from functools import partial
from pathlib import Path

import pytest
from cli_tools import Terminal, new_terminal, now
from click.testing import CliRunner
from conftest import World
from databases import bytes_of, url_of
from ledger_tools import bench, rows

from gateway.billing.admin_keys import find_admin_key, set_admin_key_of_settings
from gateway.billing.audit_log import GATEWAY, Change
from gateway.billing.key_values import ADMIN, VIRTUAL, digest, new_value, well_formed
from gateway.billing.usable_keys import find_key
from gateway.cli.root import main

HOUR = 3600


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return new_terminal(tmp_path)


def test_a_key_has_a_name_and_a_project(terminal: Terminal) -> None:
    output = terminal.run("keys", "create", "--project= ", "--name=x", exit_code=2).output
    assert "must not be blank" in output


def test_a_made_key_works_and_is_shown_once(terminal: Terminal) -> None:
    made = terminal.key(budget="2.50", period="day")
    assert well_formed(made["value"], VIRTUAL)
    assert {name: made[name] for name in ("name", "project", "budget_usd", "period")} == {
        "name": "tests",
        "project": "films",
        "budget_usd": "2.50",
        "period": "day",
    }
    with bench(terminal.path) as found:
        key = found.run(partial(find_key, digest(made["value"]), now=now()))
    assert key is not None
    assert (key.id, key.project_id) == (made["id"], made["project_id"])
    assert made["value"] not in terminal.run("keys", "list").output
    assert made["value"].encode() not in bytes_of(url_of(terminal.path))


def test_a_key_for_people_is_shown_with_a_warning(terminal: Terminal) -> None:
    text = terminal.run("keys", "create", "--project", "films", "--name", "tests").output
    assert "value       vgk_" in text
    assert "cannot be shown again" in text
    assert "budget" not in text


def test_keys_are_listed_and_revoked(terminal: Terminal) -> None:
    assert "There are no keys yet." in terminal.run("keys", "list").output
    assert terminal.json("keys", "list") == []
    first, second = terminal.key(), terminal.key()
    assert first["project_id"] == second["project_id"]
    assert terminal.json("keys", "revoke", first["id"]) == {"id": first["id"], "revoked": True}
    listed = {row["id"]: row for row in terminal.json("keys", "list")}
    assert set(listed[first["id"]]) == {
        *("id", "project", "project_id", "name", "value", "scope"),
        *("created_at", "last_used_at", "expires_at", "revoked_at"),
    }
    assert (listed[second["id"]]["scope"], listed[second["id"]]["last_used_at"]) == ("all", None)
    assert listed[first["id"]]["value"] == f"vgk_…{first['value'][-4:]}"
    assert isinstance(listed[first["id"]]["revoked_at"], int)
    assert listed[second["id"]]["revoked_at"] is None


def test_a_key_that_is_not_there_cannot_be_revoked(terminal: Terminal) -> None:
    output = terminal.run("keys", "revoke", "key_x", exit_code=1).output
    assert "there is no key with that id" in output


def test_a_key_that_expires_says_when(terminal: Terminal) -> None:
    before = now()
    made = terminal.key(expires_in_seconds=str(HOUR))
    assert before + HOUR <= made["expires_at"] <= now() + HOUR
    (listed,) = terminal.json("keys", "list")
    assert listed["expires_at"] == made["expires_at"]
    with bench(terminal.path) as database:
        find = partial(find_key, digest(made["value"]))
        assert database.run(partial(find, now=made["expires_at"] - 1)) is not None
        assert database.run(partial(find, now=made["expires_at"])) is None
    words = ["keys", "create", "--project=films", "--name=x", "--expires-in-seconds=0"]
    assert "0 is not in the range" in terminal.run(*words, exit_code=2).output


def test_a_key_is_made_in_a_project_by_its_id_or_name(terminal: Terminal) -> None:
    first = terminal.key("films")
    assert terminal.key(first["project_id"])["project_id"] == first["project_id"]
    other = terminal.json("projects", "create", "--name=films")
    error = terminal.error("keys", "create", "--project=films", "--name=x", exit_code=1)
    assert "several projects have that name; say which by its id: " in error
    assert first["project_id"] in error
    assert other["id"] in error
    assert terminal.key(other["id"])["project_id"] == other["id"]


def test_keys_of_one_project_are_listed_without_revoked_ones(terminal: Terminal) -> None:
    films, games = terminal.key("films"), terminal.key("games")
    ended = terminal.key("games")
    terminal.run("keys", "revoke", ended["id"])
    listed = terminal.json("keys", "list", "--project=games")
    assert [row["id"] for row in listed] == [games["id"]]
    assert films["id"] in terminal.run("keys", "list", "--project", films["project_id"]).output
    assert "there is no project 'books'" in terminal.error(
        "keys", "list", "--project=books", exit_code=1
    )


def test_a_rotated_key_has_another_value_and_keeps_the_rest(terminal: Terminal) -> None:
    made = terminal.key(budget="2", period="total")
    with bench(terminal.path) as database:
        database.run(partial(rows, "UPDATE key_values SET created_at = created_at - 60"))
    rotated = terminal.json("keys", "rotate", made["id"], "--grace-seconds=60")
    assert rotated["id"] == made["id"]
    assert rotated["old_values_end_at"] == pytest.approx(now() + 60, abs=30)
    assert well_formed(rotated["value"], VIRTUAL)
    listed = {row["id"]: row for row in terminal.json("keys", "list")}
    assert listed[made["id"]]["value"] == f"vgk_…{rotated['value'][-4:]}"
    (budget,) = terminal.json("budgets", "list")
    assert (budget["id"], budget["budget_usd"]) == (made["id"], "2.00")
    text = terminal.run("keys", "rotate", made["id"]).output
    assert "The values it had before have ended." in text
    assert "end at 20" in terminal.run("keys", "rotate", made["id"], "--grace-seconds=9").output
    terminal.run("keys", "revoke", made["id"])
    error = terminal.run("keys", "rotate", made["id"], exit_code=1).output
    assert "there is no such key in force" in error


async def statuses(studio: World, *values: str) -> list[int]:
    found = []
    for value in values:
        async with studio.client(value) as client:
            found.append((await client.get("/videos")).status_code)
    return found


@pytest.mark.usefixtures("logged")
async def test_an_old_value_works_during_the_grace_and_not_after(studio: World) -> None:
    terminal = Terminal(studio.folder / "gateway.db")
    key = await studio.key()
    assert await statuses(studio, key.value) == [200]
    words = ["keys", "rotate", key.id, f"--grace-seconds={HOUR}"]
    fresh = (await asyncio.to_thread(terminal.json, *words))["value"]
    assert await statuses(studio, key.value, fresh) == [200, 200]
    studio.timeline.offset_seconds += HOUR - 60
    await studio.buy(key)
    assert await statuses(studio, key.value, fresh) == [200, 200]
    studio.timeline.offset_seconds += 61
    assert await statuses(studio, key.value, fresh) == [401, 200]
    # Without a grace a value that a server has just seen ends within its two seconds.
    newest = (await asyncio.to_thread(terminal.json, "keys", "rotate", key.id))["value"]
    studio.timeline.offset_seconds += 3
    assert await statuses(studio, key.value, fresh, newest) == [401, 401, 200]


def test_projects_are_made_listed_renamed_and_archived(terminal: Terminal) -> None:
    assert "There are no projects yet." in terminal.run("projects", "list").output
    made = terminal.json("projects", "create", "--name=films")
    assert terminal.json("projects", "list") == [made]
    assert (made["name"], made["archived_at"]) == ("films", None)
    renamed = terminal.json("projects", "rename", "films", "--name=feature films")
    assert renamed == {**made, "name": "feature films"}
    archived = terminal.json("projects", "archive", made["id"], "--yes")
    assert isinstance(archived["archived_at"], int)
    assert terminal.json("projects", "list") == []
    assert terminal.json("projects", "list", "--all") == [archived]
    assert terminal.changes()[0]["type"] == "project.archived"


def test_a_name_is_shown_as_it_is(terminal: Terminal) -> None:
    for name in ("[red]films", "[/b] games"):
        terminal.run("projects", "create", "--name", name)
        assert name in terminal.run("projects", "list").output


def test_a_project_is_archived_only_by_who_says_yes(terminal: Terminal) -> None:
    key = terminal.key("films")
    assert (
        "nothing was changed"
        in terminal.run("projects", "archive", "films", exit_code=1, answer="n\n").output
    )
    assert "--json asks nothing: say --yes, too" in terminal.error(
        "projects", "archive", "films", exit_code=2
    )
    terminal.run("projects", "archive", "films", exit_code=1)
    assert len(terminal.json("projects", "list")) == 1
    asked = terminal.run("projects", "archive", "films", answer="y\n")
    assert f"End the project 'films' ({key['project_id']}) and all its keys, for good?" in (
        asked.stderr
    )
    assert asked.stdout == f"archived {key['project_id']}\n"
    with bench(terminal.path) as database:
        assert database.run(partial(find_key, digest(key["value"]), now=now())) is None


def test_what_cannot_be_done_in_an_archived_project_says_what_can(terminal: Terminal) -> None:
    terminal.key("films")
    terminal.run("projects", "archive", "films", "--yes")
    for words in (
        ["keys", "create", "--project=films", "--name=x"],
        ["projects", "rename", "films", "--name=x"],
    ):
        error = terminal.error(*words, exit_code=1)
        assert "is archived, which is for good" in error
        assert "`projects list` shows those that are not" in error


@pytest.mark.parametrize("name", ["", " ", "a\nb", "x" * 257])
def test_a_name_is_one_line(terminal: Terminal, name: str) -> None:
    error = terminal.error("projects", "create", "--name", name, exit_code=2)
    assert "must be" in error or "must not be blank" in error


def test_a_value_for_the_setting_is_printed_and_stored_nowhere(terminal: Terminal) -> None:
    printed = CliRunner().invoke(main, ["admin-keys", "generate"])
    assert well_formed(printed.output.strip(), ADMIN)
    assert terminal.json("admin-keys", "list") == []


def test_admin_keys_are_made_listed_and_revoked(terminal: Terminal) -> None:
    assert "There are no admin keys yet." in terminal.run("admin-keys", "list").output
    made = terminal.json("admin-keys", "create", "--name=ops", f"--expires-in-seconds={HOUR}")
    assert well_formed(made["value"], ADMIN)
    with bench(terminal.path) as database:
        found = database.run(partial(find_admin_key, digest(made["value"]), now=now()))
    assert found is not None
    assert (found.id, found.ends_at) == (made["id"], made["expires_at"])
    assert made["value"] not in terminal.run("admin-keys", "list").output
    (listed,) = terminal.json("admin-keys", "list")
    assert listed == {**made, "value": f"vga_…{made['value'][-4:]}"}
    text = terminal.run("admin-keys", "create", "--name=ops").output
    assert "value       vga_" in text
    assert "cannot be shown again" in text
    revoked = terminal.json("admin-keys", "revoke", made["id"])
    assert revoked == {"id": made["id"], "revoked": True}
    assert made["id"] not in terminal.run("admin-keys", "list").output
    error = terminal.error("admin-keys", "revoke", made["id"], exit_code=1)
    assert "there is no admin key with that id" in error


def test_the_admin_key_of_the_settings_is_ended_there(terminal: Terminal) -> None:
    change = Change("audit_log_1", now(), GATEWAY, "settings")
    script = partial(set_admin_key_of_settings, change, value=new_value(ADMIN), key_id="key_s")
    with bench(terminal.path) as database:
        database.run(script)
    error = terminal.error("admin-keys", "revoke", "key_s", exit_code=1)
    assert "key_s is the setting admin_key: take it out of the settings" in error
