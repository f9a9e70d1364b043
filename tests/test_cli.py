"""Do the commands do what they say, on a database that others use at the same time?"""

import asyncio
import getpass
import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import pytest
from cli_tools import Terminal, a_completed_video, an_orphan, new_terminal
from click.testing import CliRunner
from databases import opened_at
from ledger_tools import NOW, bench

from gateway.cli.common import user_at_shell
from gateway.cli.root import main

COMMAND = Path(sys.executable).with_name("video-gateway")
DEADLINE_SECONDS = 60


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return new_terminal(tmp_path)


@pytest.mark.sqlite("a server is in no folder")
def test_a_command_in_the_wrong_folder_makes_no_database(tmp_path: Path) -> None:
    nowhere = Terminal(tmp_path / "wrong" / "gateway.db")
    output = nowhere.run("keys", "list", exit_code=1).output
    assert f"there is no database at {nowhere.path}" in output
    assert not nowhere.path.parent.exists()
    made = nowhere.run("keys", "create", "--project=films", "--name=first")
    assert f"a new database: {nowhere.path}" in made.stderr
    assert "films" in nowhere.run("keys", "list").output


def test_a_wrong_setting_ends_a_command_with_every_problem(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "gateway.toml"
    config.write_text("colour = 1\n", encoding="utf-8")
    monkeypatch.setenv("GATEWAY_PORTS", "1")
    words = ["keys", "list", "--database-url=postgres", f"--config={config}"]
    result = CliRunner().invoke(main, words)
    assert result.exit_code == 2
    assert result.stderr.splitlines() == [
        f"video-gateway: {config}: unknown setting 'colour'",
        "video-gateway: unknown setting GATEWAY_PORTS",
        (
            "video-gateway: database_url must be sqlite:///relative/path,"
            " sqlite:////absolute/path or postgresql://user@host:port/name"
        ),
    ]


@pytest.mark.sqlite("it is a file")
def test_a_file_that_is_no_database_is_reported_in_words(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.write_text("no database " * 100, encoding="utf-8")
    output = Terminal(path).run("keys", "list", exit_code=1).output
    assert output == "Error: The database is not available at the moment: file is not a database\n"


def test_videos_are_listed_newest_first_with_what_they_cost(terminal: Terminal) -> None:
    assert "There are no videos yet." in terminal.run("videos", "list").output
    with bench(terminal.path) as database:
        database.run(a_completed_video)
        database.run(partial(an_orphan, 2, at=NOW + 1))
    second, first = terminal.json("videos", "list")
    assert (second["video"], second["status"], second["cost_usd"]) == ("vid_2", "orphan", "0.40")
    assert first == {
        "video": "vid_1",
        "upstream_id": "up_1",
        "project": "name of proj_a",
        "key_id": "key_a",
        "model": "sora-2",
        "size": "720x1280",
        "clip_seconds": 4,
        "status": "completed",
        "hold": "settled",
        "cost_usd": "0.10",
        "created_at": NOW,
        "mirrored_at": None,
    }
    assert len(terminal.json("videos", "list", "--limit=1")) == 1
    assert "2026-11-30 23:00:00" in terminal.run("videos", "list").output
    terminal.run("videos", "list", "--limit=0", exit_code=2)


def test_two_processes_at_once_make_their_keys_in_one_project(terminal: Terminal) -> None:
    words = ["keys", "create", "--project=films", "--name=tests", "--json", terminal.option]
    environ = {name: text for name, text in os.environ.items() if not name.startswith("GATEWAY_")}
    processes = [
        subprocess.Popen([COMMAND, *words], stdout=subprocess.PIPE, env=environ) for _ in range(2)
    ]
    made = [json.loads(process.communicate(timeout=DEADLINE_SECONDS)[0]) for process in processes]
    assert [process.returncode for process in processes] == [0, 0]
    assert made[0]["project_id"] == made[1]["project_id"]
    assert {row["id"] for row in terminal.json("keys", "list")} == {one["id"] for one in made}


def test_what_is_loaded_is_not_searched_for_garbage_and_what_is_made_is() -> None:
    look = "import gc, gateway.__main__; print(gc.isenabled(), gc.get_freeze_count() > 50_000)"
    seen = subprocess.run(
        [sys.executable, "-c", look], check=True, capture_output=True, timeout=DEADLINE_SECONDS
    )
    assert seen.stdout.split() == [b"True", b"True"]


async def test_a_command_works_while_another_process_has_the_database_open(
    terminal: Terminal,
) -> None:
    async with opened_at(terminal.path):
        made = await asyncio.to_thread(terminal.key)
        assert [row["id"] for row in await asyncio.to_thread(terminal.json, "keys", "list")] == [
            made["id"]
        ]


def test_a_change_is_in_the_audit_log_with_the_user_at_the_shell(terminal: Terminal) -> None:
    assert "Nothing was changed yet." in terminal.run("audit-log", "list").output
    key = terminal.key(budget="2", period="month")
    lines = terminal.json("audit-log", "list")
    assert {(line["actor_kind"], line["actor_id"]) for line in lines} == {
        ("command", getpass.getuser())
    }
    assert {line["type"] for line in lines} == {
        *("project.created", "service_account.created", "api_key.created"),
        "tenant.billing.overage_limit.updated",
    }
    terminal.run("budgets", "set", "--key", key["id"], "--amount=3", "--period=month")
    text = terminal.run("audit-log", "list", "--limit=1").output
    assert "limit_micros: 2000000 → 3000000" in text
    assert (len(text.splitlines()), f"command {getpass.getuser()}" in text) == (2, True)


def test_the_audit_log_of_one_project_shows_nothing_of_another(terminal: Terminal) -> None:
    films, games = terminal.key("films"), terminal.key("games")
    lines = terminal.json("audit-log", "list", "--project=games")
    assert {line["project_id"] for line in lines} == {games["project_id"]}
    assert films["id"] not in terminal.run("audit-log", "list", "--project=games").output
    error = terminal.run("audit-log", "list", "--project=books", exit_code=1).output
    assert "there is no project 'books'; `projects list` shows them" in error


@pytest.mark.parametrize(
    ("words", "exit_code", "message"),
    [
        (["keys", "revoke", "key_x"], 1, "there is no key with that id"),
        (["keys", "create"], 2, "Missing option '--project'"),
        (["keys", "lend"], 2, "No such command 'lend'"),
        (["keys", "list", "--colour"], 2, "No such option '--colour'"),
        (["spend", "report", "--from=yesterday"], 2, "'yesterday' is not a day"),
        (["catalogue", "check", "nowhere.toml"], 1, "nowhere.toml"),
        (["catalogue", "check", "--config=nowhere.toml"], 2, "nowhere.toml"),
    ],
)
def test_an_error_is_json_on_standard_error_where_json_was_asked_for(
    terminal: Terminal, words: list[str], exit_code: int, message: str
) -> None:
    assert message in terminal.error(*words, exit_code=exit_code)
    text = terminal.run(*words, exit_code=exit_code).stderr
    assert message in text
    assert not text.startswith("{")


def test_a_user_without_a_name_is_known_by_number() -> None:
    # As in a container whose user has no line in /etc/passwd.
    assert user_at_shell({}, uid=54321) == "uid 54321"
    assert user_at_shell({}, uid=0) == "root"
    # What the shell says comes first, as it does for getpass.
    assert user_at_shell({"LOGNAME": "", "USER": "ada"}, uid=0) == "ada"
