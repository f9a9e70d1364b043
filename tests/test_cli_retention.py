"""Do `retention` and `videos pin` do what they say, and is it written down who did it?"""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from cli_tools import Terminal, new_terminal, now
from ledger_tools import NOW, bench, everything, followed, opened, rows
from retention_tools import DELETED, Content, a_retaining, clock_at, put, removed

from gateway.billing.audit_log import COMMAND, Change
from gateway.cli import pins as of_pins
from gateway.db.script import Script, Sql
from gateway.mirror.keeping import Retention, get_retention, set_retention
from gateway.mirror.pins import pin_video
from gateway.mirror.retention import evict
from gateway.store.folder import FolderStore

DAY_SECONDS = 86_400


@pytest.fixture
def terminal(tmp_path: Path) -> Terminal:
    return new_terminal(tmp_path)


def test_what_a_project_keeps_is_set_and_what_is_not_named_stays(terminal: Terminal) -> None:
    project_id = terminal.key()["project_id"]
    words = ["retention", "set", "--project", "films"]
    kept = {"project_id": project_id, "keep_days": "forever", "says": "settings"}
    assert terminal.json(*words, "--keep-bytes=1000") == kept | {"keep_bytes": 1000}
    kept |= {"says": "project", "keep_bytes": 1000}
    assert terminal.json(*words, "--keep-days=30") == kept | {"keep_days": 30}
    assert terminal.json(*words, "--keep-days=forever") == kept
    with bench(terminal.path) as database:
        set_ = database.run(partial(get_retention, project_id))
    assert set_ == Retention(keep_seconds=0, keep_bytes=1000)
    text = terminal.run(*words, "--keep-days=30", "--keep-bytes=none").output
    assert text == f"the project {project_id} keeps content for 30 days, however much\n"
    text = terminal.run(*words, "--keep-days=default", "--keep-bytes=5").output
    assert text == (
        f"the project {project_id} keeps content for ever (as the settings say), 5 bytes at most\n"
    )
    terminal.run(*words, "--keep-bytes=none")
    change, *_ = terminal.changes()
    assert (change["type"], change["resource"]) == ("project.updated", "retention")
    assert change["resource_id"] == project_id
    assert change["before"] == {"keep_seconds": None, "keep_bytes": 5}
    assert change["after"] == {"keep_seconds": None, "keep_bytes": None}
    assert len([one for one in terminal.changes() if one["resource"] == "retention"]) == 6


def test_what_was_set_is_what_goes(terminal: Terminal, tmp_path: Path) -> None:
    project_id, moment = terminal.key()["project_id"], now()
    contents = [
        Content(number, project_id=project_id, mirrored_at=moment - number * DAY_SECONDS)
        for number in range(5)
    ]
    terminal.run("retention", "set", "--project=films", "--keep-days=3", "--keep-bytes=2")
    with bench(terminal.path) as database:
        database.run(partial(put, contents))
        retaining = a_retaining(
            database.database, FolderStore(tmp_path / "content"), clock_at(moment)
        )
        assert database._runner.run(evict(retaining, crowded=frozenset())) == frozenset()
        gone = dict.fromkeys(("asset_0002", "asset_0003"), "space") | {"asset_0004": "age"}
        assert database.run(removed) == gone


def test_what_is_kept_is_shown_of_all_and_by_project(terminal: Terminal, tmp_path: Path) -> None:
    films, _ = terminal.key("films"), terminal.key("trailers")
    project_id = films["project_id"]
    terminal.run("retention", "set", "--project=films", "--keep-days=7", "--keep-bytes=99")
    contents = [
        Content(1, project_id=project_id, size_bytes=10, pinned=True),
        Content(2, project_id=project_id, size_bytes=20),
        Content(3, project_id=project_id, size_bytes=40, state=DELETED),
    ]
    with bench(terminal.path) as database:
        database.run(partial(put, contents))
    config = tmp_path / "gateway.toml"
    config.write_text("keep_days = 365\nkeep_bytes = 5000\n")
    shown = terminal.json("retention", "show", f"--config={config}")
    amounts = {"kept_assets": 2, "kept_bytes": 30, "pinned_bytes": 10}
    assert shown[0] == {
        "level": "organization",
        "id": None,
        "name": None,
        "keep_days": 365,
        "says": "settings",
        "keep_bytes": 5000,
        **amounts,
    }
    rows = {row["name"]: row for row in shown[1:]}
    assert rows["films"] == {
        "level": "project",
        "id": project_id,
        "name": "films",
        "keep_days": 7,
        "says": "project",
        "keep_bytes": 99,
        **amounts,
    }
    trailers = rows["trailers"]
    assert (trailers["keep_days"], trailers["says"]) == (365, "settings")
    assert (trailers["keep_bytes"], trailers["kept_bytes"]) == (None, 0)
    assert terminal.json("retention", "show", "--project=films") == [rows["films"]]
    assert "forever" in terminal.run("retention", "show").output


@pytest.mark.parametrize(
    ("words", "complaint", "exit_code"),
    [
        (["set", "--keep-days=1"], "Missing option '--project'", 2),
        (["set", "--project=films"], "say --keep-days or --keep-bytes", 2),
        (["set", "--project=books", "--keep-days=1"], "there is no project 'books'", 1),
        (["set", "--project=films", "--keep-days=0"], "nor `forever` or `default`", 2),
        (["set", "--project=films", "--keep-days=100001"], "from 1 to 100000", 2),
        (["set", "--project=films", "--keep-days=1.5"], "'1.5' is no whole number", 2),
        (["set", "--project=films", "--keep-bytes=0"], "nor `none`", 2),
        (["set", "--project=films", "--keep-bytes=-1"], "'-1' is no whole number", 2),
        (["set", "--project=films", f"--keep-bytes={'9' * 5000}"], "is no whole number", 2),
        (["show", "--project=books"], "there is no project 'books'", 1),
    ],
)
def test_a_wrong_retention_is_refused_with_what_would_be_right(
    terminal: Terminal, words: list[str], complaint: str, exit_code: int
) -> None:
    terminal.key("films")
    before = terminal.json("retention", "show")
    assert complaint in terminal.error("retention", *words, exit_code=exit_code)
    assert terminal.json("retention", "show") == before


def test_a_video_is_pinned_and_unpinned_by_either_id(terminal: Terminal) -> None:
    with bench(terminal.path) as database:
        database.run(partial(followed, 1))
    pinned = terminal.json("videos", "pin", "up_1")
    assert pinned | {"pinned_at": 0} == {
        "video": "vid_1",
        "upstream_id": "up_1",
        "project_id": "proj_a",
        "pinned_at": 0,
        "kept_bytes": 0,
    }
    assert abs(pinned["pinned_at"] - now()) < 10
    assert terminal.json("videos", "pin", "vid_1") == pinned  # it is so already
    text = terminal.run("videos", "pin", "vid_1").output
    assert text.startswith("vid_1 is pinned since 20")
    assert terminal.run("videos", "unpin", "vid_1").output == "vid_1 is not pinned any more\n"
    assert "vid_1 is not pinned" in terminal.error("videos", "unpin", "up_1", exit_code=1)
    unpin, pin, *_ = terminal.changes()
    facts = [{"pinned_at": pinned["pinned_at"]}, {"pinned_at": None}]
    assert (unpin["before"], unpin["after"]) == (facts[0], facts[1])
    assert (pin["before"], pin["after"]) == (facts[1], facts[0])
    for change in (pin, unpin):
        assert (change["type"], change["resource"]) == ("project.updated", "video")
        assert (change["resource_id"], change["project"]) == ("vid_1", "name of proj_a")


def test_what_a_pin_could_not_keep_is_not_pinned(terminal: Terminal) -> None:
    for word in ("pin", "unpin"):
        assert "there is no video 'x'; `videos list`" in (
            terminal.error("videos", word, "x", exit_code=1)
        )
    with bench(terminal.path) as database:
        for number in (1, 2):
            database.run(partial(followed, number))
        database.run(deleted_and_evicted)
    assert "vid_1 was deleted" in terminal.error("videos", "pin", "vid_1", exit_code=1)
    assert "a pin does not bring it back" in terminal.error("videos", "pin", "vid_2", exit_code=1)


def deleted_and_evicted() -> Script[None]:
    yield Sql("UPDATE videos SET deleted_at = $1 WHERE id = 'vid_1'", (NOW,))
    yield Sql(
        "INSERT INTO assets (id, video_id, project_id, variant, created_at, expires_at, attempts,"
        " claim_number, mirrored_at, size_bytes, removed_at, removed_for)"
        " VALUES ('asset_2', 'vid_2', 'proj_a', 'video', $1, $1, 0, 0, $1, 5, $1, 'age')",
        (NOW,),
    )


PIN = Change("line", NOW + 5, COMMAND, "tests")
CHANGING: dict[str, Callable[[Change], Script[Any]]] = {
    "set": partial(set_retention, project_id="proj_a", retention=Retention(keep_bytes=7)),
    "reset": partial(set_retention, project_id="proj_a", retention=Retention()),
    "pin": partial(of_pins._pin, named="vid_1"),
    "unpin": partial(of_pins._unpin, named="vid_2"),
}


@pytest.mark.parametrize("name", sorted(CHANGING))
async def test_the_same_change_run_twice_answers_the_same_and_leaves_one_line(
    tmp_path: Path, name: str
) -> None:
    async with opened(tmp_path / "gateway.db") as database:
        for number in (1, 2):
            await database.run(partial(followed, number))
        before = Change("before", NOW, COMMAND, "tests")
        await database.run(partial(pin_video, before, "vid_2"))
        retention = Retention(keep_seconds=9)
        await database.run(
            partial(set_retention, before.part(1), project_id="proj_a", retention=retention)
        )
        call = partial(CHANGING[name], PIN)
        answer = await database.run(call)
        once = await database.read(everything)
        kept = await database.read(partial(rows, "SELECT * FROM retentions"))
        assert await database.run(call) == answer
        assert await database.read(everything) == once
        assert await database.read(partial(rows, "SELECT * FROM retentions")) == kept
        (line,) = [one for one in once["audit_log"] if one["id"] == "line"]
        assert (line["type"], line["project_id"]) == ("project.updated", "proj_a")
        assert line["facts_before"] != line["facts_after"]
