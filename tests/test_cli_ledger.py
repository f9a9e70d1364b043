"""Do `ledger` and `spend` say what was spent, to the micro?"""

import csv
import os
import subprocess
import sys
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from cli_tools import Terminal, a_completed_video, an_orphan, new_terminal, now, parsed
from databases import look, url_of
from ledger_tools import NOW, a_change, a_hold, a_submit, bench, followed, organization

from gateway.billing import ledger
from gateway.billing.balances import Account, accounting_day
from gateway.billing.levels import make_key
from gateway.billing.money import Basis, format_usd, parse_usd
from gateway.cli.export import COLUMNS, PAGE_ENTRIES
from gateway.db.script import Script
from gateway.videos.opening import open_submit

COMMAND = Path(sys.executable).with_name("video-gateway")
DEADLINE_SECONDS = 60
NOVEMBER = ("--from=2026-11-01", "--to=2026-11-30")
AT_COST = Basis("cost", 909_091)


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return new_terminal(tmp_path)


def three_videos() -> Script[None]:
    """Settled at 0.10; settled at 0.20 at list price, 0.181819 at cost; released."""
    yield from a_completed_video(1)
    pro = replace(a_hold(2, key_id="key_c"), model="sora-2-pro", basis=AT_COST)
    yield from open_submit(a_submit(2, pro), now=NOW)
    yield from ledger.settle("hold_2", list_micros=200_000, reason="completed", now=NOW + 1)
    yield from followed(3)
    yield from ledger.release("hold_3", reason="failed", now=NOW + 2)


def test_an_audit_is_content_until_a_balance_was_tampered_with(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        database.run(a_completed_video)
    assert "Every balance is the sum of its entries." in terminal.run("ledger", "audit").output
    assert terminal.json("ledger", "audit") == []
    look(
        url_of(terminal.path),
        "UPDATE balances SET spent_micros = spent_micros + 1"
        " WHERE id = 'organization:organization:total:all'",
    )
    assert terminal.json("ledger", "audit", exit_code=1) == [
        {
            "what": "balances/organization:organization:total:all",
            "figure": "spent",
            "kept_usd": "0.100001",
            "entries_usd": "0.10",
        }
    ]
    assert "0.100001" in terminal.run("ledger", "audit", exit_code=1).output


def test_spend_is_reported_with_names_budgets_and_what_is_left(terminal: Terminal) -> None:
    assert "Nothing was held or spent yet." in terminal.run("spend", "report").output
    key = terminal.key(budget="1", period="month")
    account = Account(key["project_id"], key["id"], accounting_day(now()))
    hold = replace(a_hold(1), account=account)
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


def test_a_report_by_day_and_model_is_the_export_and_the_balances(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        database.run(three_videos)
        spent, held = database.run(organization)
    report = terminal.json("spend", "report", *NOVEMBER, "--group-by=day,model")
    assert report == {
        "from": "2026-11-01",
        "to": "2026-11-30",
        "rows": [
            {
                "day": "2026-11-30",
                "model": "sora-2",
                "videos": 1,
                "seconds": 4,
                "spent_usd": "0.10",
                "list_usd": "0.10",
                "cost_usd": "0.10",
            },
            {
                "day": "2026-11-30",
                "model": "sora-2-pro",
                "videos": 1,
                "seconds": 4,
                "spent_usd": "0.181819",
                "list_usd": "0.20",
                "cost_usd": "0.181819",
            },
        ],
        "total": {
            "videos": 2,
            "seconds": 8,
            "spent_usd": "0.281819",
            "list_usd": "0.30",
            "cost_usd": "0.281819",
        },
    }
    exported = parsed(terminal.run("ledger", "export", *NOVEMBER).stdout)
    assert len(exported) == 6
    assert sum(signed(row["spent_usd"]) for row in exported) == spent == 281_819
    assert sum(signed(row["held_usd"]) for row in exported) == held == 0
    by_project = terminal.json("spend", "report", *NOVEMBER, "--group-by=project,key")["rows"]
    assert [(row["project"], row["key_id"], row["spent_usd"]) for row in by_project] == [
        ("name of proj_a", "key_a", "0.10"),
        ("name of proj_b", "key_c", "0.181819"),
    ]


def signed(text: str) -> int:
    return -parse_usd(text[1:]) if text.startswith("-") else parse_usd(text)


def test_a_report_is_a_table_with_a_total_or_csv_without(terminal: Terminal) -> None:
    words = ["spend", "report", *NOVEMBER, "--group-by=model"]
    with bench(terminal.path) as database:
        assert "Nothing was spent." in terminal.run(*words).output
        database.run(three_videos)
    table = terminal.run(*words).output
    assert "UTC accounting days" in table
    assert table.splitlines()[-1].split() == ["total", "2", "8", "0.281819", "0.30", "0.281819"]
    rows = parsed(terminal.run(*words, "--format=csv").stdout)
    assert [row["model"] for row in rows] == ["sora-2", "sora-2-pro"]
    alone = terminal.run("spend", "report", *NOVEMBER).output
    assert alone.splitlines()[-1].split() == ["2", "8", "0.281819", "0.30", "0.281819"]
    levels = parsed(terminal.run("spend", "report", "--period=total", "--format=csv").stdout)
    assert (levels[0]["level"], levels[0]["spent_usd"]) == ("organization", "0.281819")


def test_a_report_reaches_from_the_first_of_the_month_to_today(terminal: Terminal) -> None:
    report = terminal.json("spend", "report", "--group-by=day")
    assert (report["from"][:8], report["from"][8:]) == (accounting_day(now())[:8], "01")
    assert report["to"] == accounting_day(now())
    assert "UTC accounting days" in terminal.run("spend", "report", "--help").output


def test_an_export_says_everything_about_an_entry(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        database.run(a_completed_video)
    exported = {row["entry_id"]: row for row in terminal.json("ledger", "export", *NOVEMBER)}
    assert exported["hold_1/end"] == {
        "entry_id": "hold_1/end",
        "time": "2026-11-30T23:00:00Z",
        "accounting_day": "2026-11-30",
        "kind": "settle",
        "reason": "completed",
        "project_id": "proj_a",
        "project": "name of proj_a",
        "key_id": "key_a",
        "key": "name of key_a",
        "hold_id": "hold_1",
        "video_id": "vid_1",
        "upstream": "default",
        "upstream_id": "up_1",
        "operation": "create",
        "model": "sora-2",
        "size": "720x1280",
        "seconds": 4,
        "held_usd": "-0.40",
        "spent_usd": "0.10",
        "list_usd": "0.10",
        "cost_usd": "0.10",
    }
    assert tuple(exported["hold_1/end"]) == COLUMNS
    assert terminal.json("ledger", "export", "--from=2026-11-01", "--to=2026-11-29") == []
    nothing = terminal.run("ledger", "export", "--from=2026-12-01", "--to=2026-12-01").stdout
    assert nothing.strip() == ",".join(COLUMNS)


def test_an_export_round_trips_and_carries_out_no_formula(
    terminal: Terminal, tmp_path: Path
) -> None:
    names = {
        "=1+1": "'=1+1",
        "+1": "'+1",
        "-1": "'-1",
        "@sum": "'@sum",
        "\tx": "'\tx",
        'a, "b"\r\nc\rd': 'a, "b"\r\nc\rd',
        "plain": "plain",
    }
    with bench(terminal.path) as database:
        for number, name in enumerate(names):
            database.run(partial(a_named_hold, number, name))
    path = tmp_path / "entries.csv"
    path.write_text("before")
    text = terminal.run("ledger", "export", *NOVEMBER, "--output", str(path))
    assert (text.stdout, text.stderr) == ("", f"{len(names)} entries are in {path}\n")
    with path.open(encoding="utf-8", newline="") as file:
        exported = list(csv.DictReader(file, strict=True))
    assert [row["key"] for row in exported] == list(names.values())
    assert {row["held_usd"] for row in exported} == {"0.40"}
    printed = subprocess.run(
        [COMMAND, "ledger", "export", *NOVEMBER, terminal.option],
        capture_output=True,
        timeout=DEADLINE_SECONDS,
        check=True,
        env={name: text for name, text in os.environ.items() if "GATEWAY_" not in name},
    ).stdout
    assert printed == path.read_bytes()
    assert [one.name for one in tmp_path.iterdir() if "entries" in one.name] == ["entries.csv"]


def a_named_hold(number: int, name: str) -> Script[None]:
    made = yield from make_key(
        a_change(f"change of {number}"),
        project="proj_a",
        name=name,
        value=f"value {number}",
        key_id=f"key_{number}",
        account_id=f"account_{number}",
        project_id="proj_a",
    )
    account = Account("proj_a", made.id, accounting_day(NOW))
    yield from ledger.hold(replace(a_hold(number), account=account), now=NOW)


def test_an_export_of_many_pages_has_every_entry_once(terminal: Terminal) -> None:
    count = PAGE_ENTRIES + 2

    def many() -> Script[None]:
        for number in range(count):
            yield from ledger.hold(a_hold(number), now=NOW + number // 700)

    with bench(terminal.path) as database:
        database.run(many)
    december = ("--from=2026-11-30", "--to=2026-12-01")
    exported = parsed(terminal.run("ledger", "export", *december).stdout)
    assert sorted(row["entry_id"] for row in exported) == sorted(
        f"hold_{number}/hold" for number in range(count)
    )
    assert [row["time"] for row in exported] == sorted(row["time"] for row in exported)
    assert len(terminal.json("ledger", "export", *december)) == count


@pytest.mark.sqlite("it breaks the file")
def test_an_export_that_fails_leaves_the_file_as_it_was(terminal: Terminal, tmp_path: Path) -> None:
    path = tmp_path / "entries.csv"
    path.write_text("before")
    terminal.path.write_text("no database " * 1000)
    terminal.run("ledger", "export", *NOVEMBER, "--output", str(path), exit_code=1)
    assert path.read_text() == "before"
    assert len(list(tmp_path.glob("*entries*"))) == 1
    nowhere = str(tmp_path / "nowhere" / "entries.csv")
    error = terminal.error("ledger", "export", *NOVEMBER, "--output", nowhere, exit_code=1)
    assert error == f"cannot write {nowhere}: No such file or directory"


def test_an_adjustment_is_one_more_entry_and_a_line_in_the_audit_log(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        database.run(three_videos)
        words = ["ledger", "adjust", "vid_2", "--to=0.30", "--reason=bill of November"]
        made = terminal.json(*words)
        (change,) = terminal.changes()
        assert made == {
            "video": "vid_2",
            "hold_id": "hold_2",
            "entry_id": f"hold_2/adjust/{change['id']}",
            "before_list_usd": "0.20",
            "list_usd": "0.30",
            "spent_change_usd": format_usd(272_728 - 181_819),
        }
        assert (change["type"], change["resource_id"]) == ("tenant.billing.info.updated", "hold_2")
        assert change["after"]["reason"] == "bill of November"
        entries = database.run(partial(ledger.list_entries, hold_id="hold_2"))
        assert entries[-1]["id"] != entries[0]["id"]
        assert {row["reason"] for row in entries} == {"", "completed", "bill of November"}
        assert database.run(organization) == (100_000 + 272_728, 0)
        assert terminal.json(*words)["entry_id"] is None
        assert len(terminal.changes()) == 1
        text = terminal.run("ledger", "adjust", "up_1", "--to=0", "--reason=given back").output
        assert "vid_1 cost $0.10 and costs $0.00 now" in text
        assert "spend changed by $-0.10" in text
    assert terminal.json("ledger", "audit") == []


@pytest.mark.parametrize(
    ("words", "complaint", "exit_code"),
    [
        (["adjust", "vid_1", "--to=1", "--reason=x"], "the hold of vid_1 has not ended", 1),
        (["adjust", "vid_9", "--to=1", "--reason=x"], "there is no video 'vid_9'", 1),
        (["adjust", "vid_1", "--to=-1", "--reason=x"], "not an amount in US dollars", 2),
        (["adjust", "vid_1", "--to=1", "--reason= "], "must not be blank", 2),
        (["export", "--from=2026-11-01"], "Missing option '--to'", 2),
        (["export", "--from=2026-11-31", "--to=2026-12-01"], "'2026-11-31' is not a day", 2),
        (["export", "--from=20261101", "--to=2026-12-01"], "not a day such as 2026-11-22", 2),
        (["export", "--from=2026-12-01", "--to=2026-11-01"], "is after --to 2026-11-01", 2),
    ],
)
def test_a_wrong_ledger_command_says_what_would_be_right(
    terminal: Terminal, words: list[str], complaint: str, exit_code: int
) -> None:
    with bench(terminal.path) as database:
        database.run(partial(an_orphan, 1, at=NOW))
    assert complaint in terminal.error("ledger", *words, exit_code=exit_code)


@pytest.mark.parametrize(
    ("words", "complaint"),
    [
        (["--group-by=colour"], "'colour' is none of: day, project, key, model, size, operation"),
        (["--group-by=day,"], "is not a list such as a,b"),
        (["--from=2026-12-01", "--to=2026-11-30"], "--from 2026-12-01 is after --to 2026-11-30"),
        (["--period=day", "--group-by=day"], "--period is about a running period"),
        (["--period=week"], "'week' is not one of 'day', 'month', 'total'"),
        (["--format=xml"], "'xml' is not one of 'table', 'json', 'csv'"),
    ],
)
def test_a_wrong_report_says_what_would_be_right(
    terminal: Terminal, words: list[str], complaint: str
) -> None:
    assert complaint in terminal.error("spend", "report", *words, exit_code=2)
