"""Do `orphans` do what they say, by our ids and by the upstream's?"""

from functools import partial
from pathlib import Path

import pytest
from cli_tools import Terminal, an_orphan, new_terminal, now
from ledger_tools import LEASE_SECONDS, NOW, bench, claim_one, followed, organization, rows

from gateway.billing.ledger import list_entries
from gateway.db.script import Script
from gateway.videos.polls import write_orphan


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return new_terminal(tmp_path)


def lost(number: int) -> Script[None]:
    """A video that was followed, and of which the upstream no longer tells."""
    yield from followed(number)
    claim = yield from claim_one()
    yield from write_orphan(claim, reason="missing", due_at=NOW + 3600, now=NOW)


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


def test_an_orphan_is_settled_at_what_the_bill_says(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        database.run(partial(an_orphan, 1, at=NOW))
        settled = terminal.json("orphans", "settle", "vid_1", "--amount=0.35")
        assert settled == {"video": "vid_1", "settled_usd": "0.35"}
        assert database.run(organization) == (350_000, 0)
    change = terminal.changes()[0]
    assert (change["type"], change["resource_id"], change["after"]) == (
        *("tenant.billing.info.updated", "vid_1"),
        {"settled_list_micros": 350_000},
    )
    assert terminal.json("ledger", "audit") == []


def test_an_orphan_is_charged_at_once_and_followed(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        database.run(partial(an_orphan, 1, at=NOW))
        words = ["orphans", "settle", "vid_1", "--amount=0.35", "--upstream-id=video_1"]
        assert terminal.json(*words) == {
            "video": "vid_1",
            "upstream_id": "video_1",
            "outcome": "followed",
            "settled_usd": "0.35",
        }
        assert database.run(organization) == (350_000, 0)
        # The command has said when by the clock of this machine, whatever day it is.
        assert database.run(partial(claim_one, now=now())).upstream_id == "video_1"
    changes = terminal.changes()
    assert [change["after"] for change in changes] == [
        {"settled_list_micros": 350_000},
        {"upstream_id": "video_1"},
    ]
    assert terminal.json("ledger", "audit") == []


def test_an_id_that_is_another_video_is_refused_and_nothing_changes(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        database.run(followed)
        database.run(partial(an_orphan, 2, at=NOW))
    words = ["orphans", "settle", "vid_2", "--upstream-id=up_1"]
    assert "up_1 is another video here already" in terminal.error(*words, exit_code=1)
    (orphan,) = terminal.json("orphans", "list")
    assert (orphan["video"], orphan["reason"]) == ("vid_2", "broken")


def test_an_orphan_is_named_by_its_upstream_id_where_only_one_has_it(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        for number in (1, 2, 3):
            database.run(partial(lost, number))
        # Two upstreams, one id; and a video that is no orphan, which a third has.
        database.run(partial(rows, "UPDATE videos SET upstream_id = 'up_1' WHERE id = 'vid_2'"))
        database.run(partial(rows, "UPDATE videos SET upstream = 'studio' WHERE id = 'vid_2'"))
        error = terminal.error("orphans", "settle", "up_1", exit_code=1)
        assert error == (
            "several videos have the id 'up_1'; say which by ours: vid_1 (upstream default), vid_2"
            " (upstream studio)"
        )
        assert terminal.json("orphans", "settle", "vid_1")["settled_usd"] == "0.40"
        assert terminal.json("orphans", "settle", "up_1")["video"] == "vid_2"
        released = terminal.run("orphans", "settle", "up_3", "--upstream-id=up_9", exit_code=1)
        assert "vid_3 has an upstream id: up_3" in released.output
        assert terminal.json("orphans", "settle", "up_3")["video"] == "vid_3"
        entries = database.run(partial(list_entries, hold_id="hold_2"))
        assert {row["kind"] for row in entries} == {"hold", "settle"}


def test_an_orphan_is_released_by_its_upstream_id(terminal: Terminal) -> None:
    long_ago = now() - 10 * LEASE_SECONDS
    with bench(terminal.path) as database:
        database.run(partial(followed, 1, now=long_ago))
        claim = database.run(partial(claim_one, now=long_ago))
        database.run(partial(write_orphan, claim, reason="missing", due_at=NOW, now=long_ago))
    released = terminal.json("orphans", "release", "up_1")
    assert released == {"video": "vid_1", "released_usd": "0.40"}
