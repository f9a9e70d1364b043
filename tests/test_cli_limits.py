"""Do `budgets` and `limits` do what they say?"""

from functools import partial
from pathlib import Path

import pytest
from cli_tools import Terminal, new_terminal, now
from ledger_tools import a_change, bench

from gateway.billing.balances import Account, Level, accounting_day
from gateway.billing.budgets import set_budget
from gateway.billing.limits import TooDear, TooManyRequests, take_limits
from gateway.billing.permissions import NotPermitted, check_permitted


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return new_terminal(tmp_path)


def test_a_budget_is_set_for_each_level_and_listed(terminal: Terminal) -> None:
    key = terminal.key()
    assert "There are no budgets." in terminal.run("budgets", "list").output
    levels = {
        "organization": ["--organization"],
        key["project_id"]: ["--project", "films"],
        key["id"]: ["--key", key["id"]],
    }
    names = {"organization": None, key["project_id"]: "films", key["id"]: "tests"}
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
        listed = {row["id"]: row for row in terminal.json("budgets", "list")}
        assert listed[level_id] == {**made, "name": names[level_id]}
    assert len(terminal.json("budgets", "list")) == 3
    text = terminal.run("budgets", "set", "--organization", "--amount=3", "--period=month").output
    assert text == (
        "the monthly budget of the organization is $3.00:"
        " spent $0.00, held $0.00, available $3.00\n"
    )


def test_a_budget_of_an_earlier_month_is_still_listed(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        change, level = a_change(now=10**9), Level("key", "key_a", "proj_a")
        script = partial(set_budget, change, level, period="month", limit_micros=1)
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


def test_a_removed_budget_refuses_nothing_any_more(terminal: Terminal) -> None:
    key = terminal.key(budget="0.10", period="day")
    words = ["budgets", "remove", "--key", key["id"], "--period=day"]
    assert terminal.json(*words) == {
        "level": "key",
        "id": key["id"],
        "period": "day",
        "removed": True,
    }
    assert terminal.json("budgets", "list") == []
    assert terminal.json("spend", "report", "--period=day")[0]["budget_usd"] is None
    change = terminal.changes()[0]
    assert (change["before"], change["after"]) == ({"limit_micros": 100_000}, None)
    error = terminal.error(*words, exit_code=1)
    assert "has no daily budget; `budgets list` shows them" in error
    text = terminal.run("budgets", "set", "--organization", "--amount=1", "--period=total")
    assert "is $1.00" in text.output
    text = terminal.run("budgets", "remove", "--organization", "--period=total")
    assert text.output == "the organization has no total budget any more\n"


def test_limits_are_set_then_listed_and_what_is_not_named_stays(terminal: Terminal) -> None:
    assert "There are no limits yet." in terminal.run("limits", "list").output
    key = terminal.key()
    of_key = ["limits", "set", "--key", key["id"]]
    terminal.run(*of_key, "--requests-per-minute=10", "--requests-per-day=100", "--in-flight=3")
    made = terminal.json(*of_key, "--max-price=1.20", "--requests-per-day=none")
    assert made == {
        "level": "key",
        "id": key["id"],
        "model": None,
        "requests_per_minute": 10,
        "requests_per_day": None,
        "videos_in_flight": 3,
        "max_price_usd": "1.20",
        "reads_per_minute": None,
    }
    terminal.run("limits", "set", "--project=films", "--reads-per-minute=600")
    terminal.run(*of_key, "--model=sora-2", "--requests-per-minute=2")
    project, of_all, of_model = terminal.json("limits", "list")
    assert (project["level"], project["name"], project["reads_per_minute"]) == (
        *("project", "films", 600),
    )
    assert of_all == {**made, "name": "tests", "permitted": None}
    assert (of_model["model"], of_model["requests_per_minute"]) == ("sora-2", 2)
    assert len(terminal.json("limits", "list", "--key", key["id"])) == 2
    text = terminal.run(
        *of_key, *[f"--{name}=none" for name in ("requests-per-minute", "in-flight", "max-price")]
    ).output
    assert text == f"the key {key['id']} has: no limits\n"
    assert len(terminal.json("limits", "list")) == 2


def test_limits_that_were_set_refuse(terminal: Terminal) -> None:
    key = terminal.key()
    account = Account(key["project_id"], key["id"], accounting_day(now()))
    terminal.run("limits", "set", "--project=films", "--max-price=0.50")
    terminal.run("limits", "set", "--key", key["id"], "--model=sora-2", "--requests-per-day=1")
    ask = partial(take_limits, account, model="sora-2", now=now())
    with bench(terminal.path) as database:
        with pytest.raises(TooDear):
            database.run(partial(ask, price_micros=500_001))
        database.run(partial(ask, price_micros=500_000))
        with pytest.raises(TooManyRequests):
            database.run(partial(ask, price_micros=500_000))


def test_models_are_allowed_and_denied(terminal: Terminal) -> None:
    key = terminal.key()
    words = ["limits", "models", "--key", key["id"]]
    check = partial(check_permitted, project_id=key["project_id"], key_id=key["id"])
    assert terminal.json(*words, "--allow=sora-2") == {
        "level": "key",
        "id": key["id"],
        "mode": "allow_list",
        "model_ids": ["sora-2"],
    }
    with bench(terminal.path) as database:
        database.run(partial(check, model="sora-2"))
        with pytest.raises(NotPermitted):
            database.run(partial(check, model="sora-2-pro"))
    (listed,) = terminal.json("limits", "list")
    assert listed["permitted"] == {"mode": "allow_list", "model_ids": ["sora-2"]}
    assert "only sora-2" in terminal.run("limits", "list").output
    assert "all models but sora-2, sora-2-pro" in (
        terminal.run(*words, "--deny=sora-2, sora-2-pro").output
    )
    assert "all models\n" in terminal.run(*words, "--any").output
    assert terminal.json("limits", "list") == []


@pytest.mark.parametrize(
    ("words", "complaint", "exit_code"),
    [
        (["set", "--requests-per-minute=1"], "say exactly one of --project and --key", 2),
        (["set", "--project=films"], "say at least one limit", 2),
        (["set", "--project=films", "--in-flight=-1"], "neither a whole number nor `none`", 2),
        (["set", "--project=films", "--in-flight=99999999999"], "neither a whole number", 2),
        (["set", "--project=films", "--max-price=much"], "not an amount in US dollars", 2),
        (["set", "--project=books", "--in-flight=1"], "there is no project 'books'", 1),
        (
            ["set", "--project=films", "--model=sora-2", "--in-flight=1"],
            "with --model only --requests-per-minute and --requests-per-day",
            2,
        ),
        (
            ["set", "--project=films", "--model=sora-9", "--requests-per-day=1"],
            "the catalogue has no 'sora-9'; it has: sora-2",
            2,
        ),
        (["models", "--project=films"], "say exactly one of --allow, --deny and --any", 2),
        (["models", "--project=films", "--any", "--deny=sora-2"], "say exactly one of", 2),
        (["models", "--project=films", "--allow=sora-2,,"], "is not a list such as a,b", 2),
        (["models", "--project=films", "--deny=sora-9"], "the catalogue has no 'sora-9'", 2),
        (["models", "--key=key_x", "--any"], "there is no key 'key_x'", 1),
        (["list", "--project=films", "--key=key_x"], "say exactly one of --project and", 2),
    ],
)
def test_a_wrong_limit_is_refused_with_what_would_be_right(
    terminal: Terminal, words: list[str], complaint: str, exit_code: int
) -> None:
    terminal.key("films")
    assert complaint in terminal.error("limits", *words, exit_code=exit_code)
    assert terminal.json("limits", "list") == []
