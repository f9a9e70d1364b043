"""Do the commands do what they say, on a database that others use at the same time?"""

import asyncio
import json
import os
import sqlite3
import subprocess
import sys
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from click.testing import CliRunner, Result
from ledger_tools import (
    LEASE_SECONDS,
    NO_IDS,
    NOW,
    RATE_MICROS,
    a_hold,
    a_submit,
    bench,
    claim_one,
    followed,
)

from gateway.billing.budgets import Account, accounting_day, set_budget
from gateway.billing.keys import VIRTUAL, digest, find_key, well_formed
from gateway.billing.ledger import Hold
from gateway.cli.root import main
from gateway.clock import system_clock
from gateway.db.migrate import migrate
from gateway.db.script import Script
from gateway.db.sqlite import open_sqlite
from gateway.videos.lifecycle import Completed
from gateway.videos.polls import write_completed
from gateway.videos.records import open_submit, record_orphan

COMMAND = Path(sys.executable).with_name("video-gateway")
DEADLINE_SECONDS = 60


class Terminal(NamedTuple):
    """A person in front of one database."""

    path: Path

    @property
    def option(self) -> str:
        return f"--database-url=sqlite:///{self.path}"

    def run(self, *words: str, exit_code: int = 0) -> Result:
        result = CliRunner().invoke(main, [*words, self.option])
        assert result.exit_code == exit_code, result.output
        return result

    def json(self, *words: str, exit_code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", exit_code=exit_code).stdout)

    def key(self, project: str = "films", **options: str) -> dict[str, Any]:
        words = [f"--{name}={value}" for name, value in options.items()]
        made: dict[str, Any] = self.json(
            "keys", "create", "--project", project, "--name", "tests", *words
        )
        return made


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    """A person in front of a new database."""

    async def make() -> None:
        async with open_sqlite(tmp_path / "gateway.db") as database:
            await migrate(database, now=now())

    asyncio.run(make())
    return Terminal(tmp_path / "gateway.db")


def test_a_command_in_the_wrong_folder_makes_no_database(tmp_path: Path) -> None:
    nowhere = Terminal(tmp_path / "wrong" / "gateway.db")
    output = nowhere.run("keys", "list", exit_code=1).output
    assert f"there is no database at {nowhere.path}" in output
    assert not nowhere.path.parent.exists()
    made = nowhere.run("keys", "create", "--project=films", "--name=first")
    assert f"a new database: {nowhere.path}" in made.stderr
    assert "films" in nowhere.run("keys", "list").output


def test_a_key_has_a_name_and_a_project(terminal: Terminal) -> None:
    output = terminal.run("keys", "create", "--project= ", "--name=x", exit_code=2).output
    assert "must not be blank" in output


def now() -> int:
    return system_clock().now()


def an_orphan(number: int, *, at: int) -> Script[None]:
    yield from open_submit(a_submit(number, now=at), now=at)
    yield from record_orphan(f"vid_{number}", reason="broken", request_ids=NO_IDS, now=at)


def a_completed_video() -> Script[None]:
    yield from followed()
    claim = yield from claim_one()
    yield from write_completed(
        claim,
        Completed(amount_micros=RATE_MICROS, above_hold=False, has_content=True),
        {"status": "completed"},
        assets={"video": "asset_1"},
        retention_seconds=60,
        now=NOW,
    )


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
        key = found.run(partial(find_key, digest(made["value"])))
    assert key is not None
    assert (key.id, key.project_id) == (made["id"], made["project_id"])
    assert made["value"] not in terminal.run("keys", "list").output
    assert made["value"].encode() not in terminal.path.read_bytes()


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
        *("id", "project", "name", "value", "created_at", "revoked_at")
    }
    assert listed[first["id"]]["value"] == f"vgk_…{first['value'][-4:]}"
    assert isinstance(listed[first["id"]]["revoked_at"], int)
    assert listed[second["id"]]["revoked_at"] is None


def test_a_key_that_is_not_there_cannot_be_revoked(terminal: Terminal) -> None:
    output = terminal.run("keys", "revoke", "key_x", exit_code=1).output
    assert "there is no key with that id" in output


def test_a_budget_is_set_for_each_level_and_listed(terminal: Terminal) -> None:
    key = terminal.key()
    assert "There are no budgets yet." in terminal.run("budgets", "list").output
    levels = {
        "organization": ["--organization"],
        key["project_id"]: ["--project", "films"],
        key["id"]: ["--key", key["id"]],
    }
    for level_id, words in levels.items():
        made = terminal.json("budgets", "set", *words, "--amount", "2.5", "--period", "month")
        assert made == {
            "level": words[0].removeprefix("--"),
            "id": level_id,
            "period": "month",
            "budget_usd": "2.50",
            "spent_usd": "0.00",
            "held_usd": "0.00",
            "available_usd": "2.50",
        }
        assert made in terminal.json("budgets", "list")
    assert len(terminal.json("budgets", "list")) == 3
    text = terminal.run("budgets", "set", "--organization", "--amount=3", "--period=month").output
    assert text == (
        "the organization's month budget is $3.00: spent $0.00, held $0.00, available $3.00\n"
    )


def test_a_budget_of_an_earlier_month_is_still_listed(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        script = partial(
            set_budget, level="key", level_id="key_a", period="month", limit_micros=1, now=10**9
        )
        database.run(script)
    (listed,) = terminal.json("budgets", "list")
    assert (listed["id"], listed["budget_usd"]) == ("key_a", "0.000001")


@pytest.mark.parametrize(
    ("words", "complaint", "exit_code"),
    [
        (["--amount", "1"], "say exactly one of --organization, --project and --key", 2),
        (["--organization", "--key=k", "--amount=1"], "say exactly one of", 2),
        (["--project", "nobody", "--amount=1"], "there is no project 'nobody'", 1),
        (["--key", "nobody", "--amount=1"], "there is no key 'nobody'", 1),
        (["--organization", "--amount=much"], "not an amount in US dollars, such as 2.50", 2),
        (["--organization", "--amount=-1"], "not an amount in US dollars, such as 2.50", 2),
        (["--organization", "--amount=0.0000001"], "finer than a millionth of a dollar", 2),
        (["--organization"], "Missing option '--amount'", 2),
    ],
)
def test_a_wrong_budget_is_refused_with_what_would_be_right(
    terminal: Terminal, words: list[str], complaint: str, exit_code: int
) -> None:
    result = terminal.run("budgets", "set", "--period=day", *words, exit_code=exit_code)
    assert complaint in result.output


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
        "video-gateway: database_url must be sqlite:///relative/path or sqlite:////absolute/path",
    ]


def test_a_file_that_is_no_database_is_reported_in_words(tmp_path: Path) -> None:
    path = tmp_path / "gateway.db"
    path.write_text("no database " * 100, encoding="utf-8")
    output = Terminal(path).run("keys", "list", exit_code=1).output
    assert output == "Error: The database is not available at the moment.\n"


def test_an_audit_is_content_until_a_balance_was_tampered_with(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        database.run(a_completed_video)
    assert "Every balance is the sum of its entries." in terminal.run("ledger", "audit").output
    assert terminal.json("ledger", "audit") == []
    with closing(sqlite3.connect(terminal.path)) as connection:
        connection.execute(
            "UPDATE balances SET spent_micros = spent_micros + 1"
            " WHERE id = 'organization:organization:total:all'"
        )
        connection.commit()
    assert terminal.json("ledger", "audit", exit_code=1) == [
        {
            "balance": "organization:organization:total:all",
            "spent_usd": "0.100001",
            "entries_spent_usd": "0.10",
            "held_usd": "0.00",
            "entries_held_usd": "0.00",
        }
    ]
    assert "0.100001" in terminal.run("ledger", "audit", exit_code=1).output


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


def test_orphans_are_listed_settled_released_and_attached(terminal: Terminal) -> None:
    assert "There are no orphans." in terminal.run("orphans", "list").output
    long_ago = now() - 10 * LEASE_SECONDS
    with bench(terminal.path) as database:
        for number in range(1, 4):
            database.run(partial(an_orphan, number, at=long_ago))
    listed = terminal.json("orphans", "list")
    assert [row["video"] for row in listed] == ["vid_1", "vid_2", "vid_3"]
    assert (listed[0]["held_usd"], listed[0]["reason"]) == ("0.40", "broken")
    assert terminal.json("orphans", "settle", "vid_1") == {"video": "vid_1", "settled_usd": "0.40"}
    assert terminal.json("orphans", "release", "vid_2") == {
        "video": "vid_2",
        "released_usd": "0.40",
    }
    attach = ["orphans", "settle", "vid_3", "--upstream-id", "up_3"]
    assert terminal.json(*attach) == {
        "video": "vid_3",
        "upstream_id": "up_3",
        "outcome": "followed",
    }
    assert terminal.json("orphans", "list") == []
    again = terminal.run("orphans", "settle", "vid_1", exit_code=1).output
    assert "there is no orphan 'vid_1'" in again
    assert terminal.json("ledger", "audit") == []


def test_an_orphan_whose_submit_may_be_under_way_is_not_released(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        database.run(partial(an_orphan, 1, at=now()))
    output = terminal.run("orphans", "release", "vid_1", exit_code=1).output
    assert "vid_1 may still be under way: wait " in output


@pytest.mark.parametrize("upstream_id", ["", "x" * 257, "a\nb"])
def test_an_orphan_is_not_attached_to_an_id_that_cannot_be_asked_for(
    terminal: Terminal, upstream_id: str
) -> None:
    words = ["orphans", "settle", "vid_1", "--upstream-id", upstream_id]
    output = terminal.run(*words, exit_code=2).output
    assert "--upstream-id must be 1 to 256 bytes without control characters" in output


def test_spend_is_reported_with_names_budgets_and_what_is_left(terminal: Terminal) -> None:
    assert "Nothing was held or spent yet." in terminal.run("spend", "report").output
    key = terminal.key(budget="1", period="month")
    account = Account(key["project_id"], key["id"], accounting_day(now()))
    plain = a_hold(1)
    hold = Hold(
        **{name: getattr(plain, name) for name in plain.__slots__ if name != "account"},
        account=account,
    )
    with bench(terminal.path) as database:
        database.run(partial(open_submit, a_submit(1, hold), now=now()))
    organization, project, of_key = terminal.json("spend", "report")
    assert [organization["level"], project["level"], of_key["level"]] == [
        *("organization", "project", "key")
    ]
    assert (project["name"], project["budget_usd"], project["available_usd"]) == (
        *("films", None, None),
    )
    assert {name: value for name, value in of_key.items() if name != "period_start"} == {
        "level": "key",
        "id": key["id"],
        "name": "tests",
        "spent_usd": "0.00",
        "held_usd": "0.40",
        "budget_usd": "1.00",
        "available_usd": "0.60",
    }
    assert "films" in terminal.run("spend", "report", "--period=total").output


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


async def test_a_command_works_while_another_process_has_the_database_open(
    terminal: Terminal,
) -> None:
    async with open_sqlite(terminal.path):
        made = await asyncio.to_thread(terminal.key)
        assert [row["id"] for row in await asyncio.to_thread(terminal.json, "keys", "list")] == [
            made["id"]
        ]
