"""Do `alerts` do what they say?"""

from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli_tools import Terminal, a_completed_video, new_terminal
from ledger_tools import bench, rows

from gateway.alerts.message import Email, Webhook, read_channel


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return new_terminal(tmp_path)


def channels(terminal: Terminal) -> list[Any]:
    """The channels of all alerts, as the outbox reads them."""
    with bench(terminal.path) as database:
        found = database.run(partial(rows, "SELECT channel FROM alerts ORDER BY created_at, id"))
    return [read_channel(row["channel"]) for row in found]


def test_alerts_are_made_listed_and_deleted(terminal: Terminal) -> None:
    assert "There are no alerts yet." in terminal.run("alerts", "list").output
    key = terminal.key()
    emails = ["--email=a@example.com", "--email=b@example.com", "--email=a@example.com"]
    made = terminal.json(
        *("alerts", "create", "--key", key["id"], "--threshold=2.50", "--period=day"),
        *(*emails, "--subject-prefix=[films]"),
    )
    assert {name: made[name] for name in ("level", "level_id", "period", "threshold_usd")} == {
        "level": "key",
        "level_id": key["id"],
        "period": "day",
        "threshold_usd": "2.50",
    }
    assert made["channel"]["recipients"] == ["a@example.com", "b@example.com"]
    assert terminal.json("alerts", "list") == [made]
    assert terminal.json("alerts", "list", "--organization") == []
    text = terminal.run("alerts", "list", "--key", key["id"]).output
    assert "a@example.com b@example.com" in text
    assert channels(terminal) == [Email(("a@example.com", "b@example.com"), "[films]")]
    deleted = terminal.json("alerts", "delete", made["id"])
    assert deleted == {"id": made["id"], "deleted": True}
    assert terminal.json("alerts", "list") == []
    error = terminal.error("alerts", "delete", made["id"], exit_code=1)
    assert "there is no alert with that id" in error
    changes = terminal.changes()[:2]
    assert {one["type"] for one in changes} == {"tenant.billing.alerts.updated"}


def test_an_alert_to_a_webhook_says_what_it_still_needs(terminal: Terminal) -> None:
    words = ["alerts", "create", "--organization", "--threshold=1"]
    made = terminal.run(*words, "--webhook=https://example.com/hook?to=us")
    assert "alert_webhook_secret is not set in this shell" in made.stderr
    assert "it rings once the organization has spent $1.00 within a month" in made.stdout
    assert (
        "smtp_host is not set in this shell" in terminal.run(*words, "--email=a@example.com").stderr
    )
    webhook, email = channels(terminal)
    assert webhook == Webhook("https://example.com/hook?to=us")
    assert email == Email(("a@example.com",), None)


def test_what_has_rung_is_listed_with_what_became_of_it(terminal: Terminal) -> None:
    assert "No alert has rung yet." in terminal.run("alerts", "deliveries").output
    hook = "--webhook=https://example.com/hook"
    words = ["alerts", "create", "--organization", "--period=total", hook]
    with bench(terminal.path) as database:
        low = terminal.json(*words, "--threshold=0.10")
        terminal.run(*words, "--threshold=0.11")
        database.run(a_completed_video)
        (rung,) = terminal.json("alerts", "deliveries")
        assert (rung["alert_id"], rung["state"], rung["spent_usd"], rung["threshold_usd"]) == (
            *(low["id"], "due", "0.10", "0.10"),
        )
        assert rung["channel"] == {"type": "webhook", "url": "https://example.com/hook"}
        database.run(partial(rows, "UPDATE alert_deliveries SET delivered_at = 1764543600"))
        text = terminal.run("alerts", "deliveries").output
        assert "delivered" in text
        assert "2025-11-30 23:00:00" in text
        given_up = "UPDATE alert_deliveries SET delivered_at = NULL, given_up_at = 1, failure = 'x'"
        database.run(partial(rows, given_up))
        (failed,) = terminal.json("alerts", "deliveries", "--limit=1")
        assert (failed["state"], failed["failure"]) == ("given up", "x")


@pytest.mark.parametrize(
    ("words", "complaint", "exit_code"),
    [
        (["--threshold=1", "--email=a@b"], "say exactly one of --organization, --project", 2),
        (["--organization", "--email=a@b"], "Missing option '--threshold'", 2),
        (["--organization", "--threshold=x", "--email=a@b"], "not an amount in US dollars", 2),
        (["--organization", "--threshold=1"], "say either --email, once or several times", 2),
        (
            ["--organization", "--threshold=1", "--email=a@b", "--webhook=https://example.com"],
            "say either --email, once or several times, or --webhook",
            2,
        ),
        (
            ["--organization", "--threshold=1", "--email=finance"],
            "'finance' is not a mail address such as finance@example.com",
            2,
        ),
        (["--organization", "--threshold=1", "--email=A <a@b>"], "is not a mail address", 2),
        (["--organization", "--threshold=1", "--webhook=example.com"], "not an http(s) URL", 2),
        (["--organization", "--threshold=1", "--webhook=http://a:99999"], "not an http(s) URL", 2),
        (["--organization", "--threshold=1", "--webhook=http://xn--a/"], "not an http(s) URL", 2),
        (["--organization", "--threshold=1", "--webhook=http://a:b@c/"], "without a login", 2),
        (
            ["--organization", "--threshold=1", "--webhook=http://a", "--subject-prefix=x"],
            "--subject-prefix goes with --email",
            2,
        ),
        (["--project=books", "--threshold=1", "--email=a@b"], "there is no project 'books'", 1),
    ],
)
def test_a_wrong_alert_is_refused_with_what_would_be_right(
    terminal: Terminal, words: list[str], complaint: str, exit_code: int
) -> None:
    assert complaint in terminal.error("alerts", "create", *words, exit_code=exit_code)
    assert terminal.json("alerts", "list") == []
