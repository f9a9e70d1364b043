"""Does `mirror adopt` say what came of each video, whatever stands in its way?"""

import asyncio
import json
import os
import pty
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from adoption_tools import adopted, made, outcomes, run
from conftest import World, command, environ_for, eventually, world
from openai import AsyncOpenAI

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]

# Three pages of the upstream's list.
MANY = 230
AT_ONCE = 46
STRANGE = {
    "slash": "[[id slash]]",
    "dots": "[[id dots]]",
    "query": "[[id query]]",
    "space": "[[id space]]",
}
UNUSABLE = {"long": "[[id long]]", "control": "[[id control]]"}


async def many(shared: World) -> list[str]:
    """Make more videos than are on one page of the upstream's list."""
    some = [made(shared, count=MANY // AT_ONCE) for _ in range(AT_ONCE)]
    return [one for each in await asyncio.gather(*some) for one in each]


async def adoptions(shared: World) -> int:
    return int(await shared.one("SELECT COUNT(*) FROM videos WHERE hold_id IS NULL"))


async def written(shared: World) -> list[dict[str, Any]]:
    """Return every row that an adoption may write."""
    return [
        dict(row)
        for table in ("videos", "upstream_ids", "assets", "audit_log")
        for row in await shared.rows(f"SELECT * FROM {table}")
    ]


async def test_a_list_of_several_pages_is_adopted_and_mirrored(tmp_path: Path) -> None:
    async with world(tmp_path, mirror_concurrency=32) as studio:
        key = await studio.key()
        bought = await studio.buy(key)
        ids = await many(studio)
        found = await adopted(studio, "--from-upstream-list")
        assert set(found) == {*ids, bought}
        assert Counter(outcomes(found).values()) == {"adopted": MANY, "known": 1}
        asked = [one["query"] for one in await studio.control.received("list")]
        assert [query.partition("&after=")[0] for query in asked] == ["limit=100&order=desc"] * 3

        async def all_mirrored() -> bool:
            text = "SELECT COUNT(*) FROM assets WHERE mirrored_at IS NOT NULL"
            return bool(await studio.one(text) == MANY + 1)

        await eventually(all_mirrored, seconds=60)
        before = await written(studio)
        again = await adopted(studio, "--from-upstream-list")
        assert set(outcomes(again).values()) == {"known"}
        assert {one["project"] for one in again.values()} == {"studio"}
        assert await written(studio) == before
        await studio.control.go_dark()
        async with AsyncOpenAI(base_url=studio.base_url, api_key=key.value) as client:
            listed = [one.id async for one in client.videos.list(limit=100)]
        assert sorted(listed) == sorted([*ids, bought])


async def test_ids_are_read_from_arguments_and_standard_input_each_once(shared: World) -> None:
    await shared.key(project="stdin")
    first, second, third = await made(shared, count=3)
    stdin = f"{second}\r\n\n  {third} \n{first}\n{second}".encode()
    found = await adopted(shared, first, "-", first, project="stdin", stdin=stdin)
    assert outcomes(found) == dict.fromkeys((first, second, third), "adopted")
    assert await adopted(shared, "-", project="stdin") == {}
    out, _ = await run(shared, "mirror", "adopt", "--project", "stdin", "-")
    assert out == "There is nothing to adopt.\n"


async def test_what_cannot_be_adopted_is_said_and_nothing_of_it_written(shared: World) -> None:
    await shared.key(project="refused")
    prompts = {
        "not_finished": "[[stuck]]",
        "failed": "[[fail out_of_gpus]]",
        "no_content": "[[moderate-completed]]",
        "unclear": "[[retrieve:status expired]]",
    }
    ids = {outcome: (await made(shared, prompt))[0] for outcome, prompt in prompts.items()}
    (forgotten,) = await made(shared)
    await shared.control.forget(forgotten)
    before = await written(shared)
    words = (*ids.values(), forgotten, "video_never")
    found = await adopted(shared, *words, project="refused", exit_code=1)
    assert outcomes(found) == {
        **{upstream_id: outcome for outcome, upstream_id in ids.items()},
        forgotten: "missing",
        "video_never": "missing",
    }
    details = {outcome: found[upstream_id]["detail"] for outcome, upstream_id in ids.items()}
    assert details == {
        "not_finished": "not finished: adopt it again later",
        "failed": "out_of_gpus",
        "no_content": "moderation_blocked",
        "unclear": "unknown status expired",
    }
    assert await written(shared) == before


async def test_one_that_was_not_finished_is_adopted_later(shared: World) -> None:
    await shared.key(project="later")
    (one,) = await made(shared, "[[generation 3600]]")
    assert outcomes(await adopted(shared, one, project="later", exit_code=1)) == {
        one: "not_finished"
    }
    await shared.control.advance(3_601)
    try:
        assert outcomes(await adopted(shared, one, project="later")) == {one: "adopted"}
    finally:
        await shared.control.advance(-3_601)


async def test_strange_ids_are_adopted_by_argument_and_by_list(tmp_path: Path) -> None:
    async with world(tmp_path) as studio:
        key = await studio.key()
        ids = {name: (await made(studio, prompt))[0] for name, prompt in STRANGE.items()}
        found = await adopted(studio, ids["slash"], ids["dots"])
        assert set(outcomes(found).values()) == {"adopted"}
        for prompt in UNUSABLE.values():
            await made(studio, prompt)
        out, err = await run(
            studio,
            *("mirror", "adopt", "--project", "studio", "--from-upstream-list", "--json"),
            exit_code=1,
        )
        found = {one["upstream_id"]: one for one in json.loads(out)}
        assert outcomes(found) == {
            ids["slash"]: "known",
            ids["dots"]: "known",
            ids["query"]: "adopted",
            ids["space"]: "adopted",
        }
        assert "2 of the videos it lists have no id" in json.loads(err)["error"]["message"]
        for one in ids.values():
            await studio.mirrored(one)
            async with AsyncOpenAI(base_url=studio.base_url, api_key=key.value) as client:
                assert (await client.videos.retrieve(one)).id == one
                content = (await client.videos.download_content(one)).content
            assert content == await studio.control.content(one)


@pytest.mark.parametrize(
    "given", [b"video_\xff\xfe", b"video_\x00", b"x" * 257, "video_\u009b2J".encode(), b"\x1b[2J"]
)
async def test_what_no_video_can_be_called_is_not_asked_for(shared: World, given: bytes) -> None:
    await shared.key(project="unusable")
    asked = len(await shared.control.received("retrieve"))
    found = await adopted(shared, "-", project="unusable", exit_code=1, stdin=given)
    ((shown, one),) = found.items()
    assert one["outcome"] == "unusable_id"
    assert shown.isascii()
    assert shown.isprintable()
    assert len(await shared.control.received("retrieve")) == asked
    out, _ = await run(
        shared, *("mirror", "adopt", "--project", "unusable", "-"), exit_code=1, stdin=given
    )
    assert "\x1b" not in out
    assert "unusable_id 1" in out


async def test_a_dry_run_writes_nothing(shared: World) -> None:
    await shared.key(project="dry")
    one, known = await made(shared, count=2)
    (failed,) = await made(shared, "[[fail]]")
    await adopted(shared, known, project="dry")
    before = await written(shared)
    found = await adopted(shared, one, known, failed, "--dry-run", project="dry", exit_code=1)
    assert outcomes(found) == {one: "adoptable", known: "known", failed: "failed"}
    assert found[one]["video"] is None
    # What was adopted before may be mirrored in the meantime.
    assert len(await written(shared)) == len(before)
    assert outcomes(await adopted(shared, one, "--dry-run", project="dry")) == {one: "adoptable"}
    assert outcomes(await adopted(shared, one, project="dry")) == {one: "adopted"}


async def test_an_adoption_is_in_the_audit_log(shared: World) -> None:
    await shared.key(project="audited")
    (one,) = await made(shared)
    found = await adopted(shared, one, project="audited", LOGNAME="jo")
    (line,) = await shared.rows(
        "SELECT * FROM audit_log WHERE resource_id = $1", found[one]["video"]
    )
    assert (line["type"], line["resource"], line["actor_id"]) == ("project.updated", "video", "jo")
    assert json.loads(line["facts_after"]) == {"adopted_from": "default", "upstream_id": one}
    project_id = await shared.one("SELECT id FROM projects WHERE name = 'audited'")
    assert line["project_id"] == project_id
    out, _ = await run(shared, "audit-log", "list", "--json")
    assert line["id"] in {each["id"] for each in json.loads(out)}


async def test_a_table_says_the_same(shared: World) -> None:
    await shared.key(project="table")
    (one,) = await made(shared)
    (two,) = await made(shared, "[[fail]]")
    out, err = await run(
        shared, "mirror", "adopt", "--project", "table", one, two, one, exit_code=1
    )
    lines = out.splitlines()
    assert [line.split()[:2] for line in lines[1:3]] == [[one, "adopted"], [two, "failed"]]
    assert lines[3:] == ["adopted 1, failed 1"]
    assert err == ""


async def test_a_person_sees_how_far_it_is(shared: World) -> None:
    await shared.key(project="bar")
    ids = await made(shared, count=2)
    master, slave = pty.openpty()
    environ = environ_for(shared.folder, shared.simulator.base_url)
    inherited = {name: value for name, value in os.environ.items() if "GATEWAY_" not in name}
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "gateway", "mirror", "adopt", "--project", "bar", *ids),
        env=inherited | environ | {"TERM": "xterm", "COLUMNS": "100"},
        stdout=asyncio.subprocess.PIPE,
        stderr=slave,
    )
    os.close(slave)
    out, _ = await process.communicate()
    seen = os.read(master, 1 << 16).decode()
    os.close(master)
    assert process.returncode == 0
    assert "adopting" in seen
    assert "2/2" in seen
    assert "adopted 2" in out.decode()


@pytest.mark.parametrize(
    "fault", ["404", "html", "answer", "502", "401"], ids=lambda fault: f"list:{fault}"
)
async def test_an_upstream_without_a_list_is_explained(shared: World, fault: str) -> None:
    await shared.key(project="listless")
    before = await adoptions(shared)
    try:
        await shared.control.fault(fault, operation="list", times=None, value="{}", status=405)
        words = ("mirror", "adopt", "--project", "listless", "--from-upstream-list", "--json")
        out, err = await run(shared, *words, exit_code=1)
    finally:
        await shared.control.clear_faults()
    assert json.loads(out) == []
    message = json.loads(err)["error"]["message"]
    if fault in {"502", "401"}:
        word = {"502": "server_error", "401": "auth"}[fault]
        assert f"could not be read to its end ({word})" in message
    else:
        assert "does not list its videos" in message
        assert "Say the ids instead" in message
    assert await adoptions(shared) == before


async def test_what_came_before_the_list_broke_off_is_adopted(tmp_path: Path) -> None:
    async with world(tmp_path) as studio:
        await studio.key()
        ids = await many(studio)
        # The first page comes as it is.
        await studio.control.fault("delay", operation="list", value=0)
        await studio.control.fault("502", operation="list", times=3)
        out, err = await run(
            studio,
            *("mirror", "adopt", "--project", "studio", "--from-upstream-list", "--json"),
            exit_code=1,
        )
        assert len(json.loads(out)) == await adoptions(studio) == 100
        assert "run it again" in json.loads(err)["error"]["message"]
        found = await adopted(studio, "--from-upstream-list")
        assert Counter(outcomes(found).values()) == {"known": 100, "adopted": MANY - 100}
        assert set(found) == set(ids)


async def test_a_list_that_goes_round_in_circles_is_read_once(shared: World) -> None:
    await shared.key(project="circles")
    (one,) = await made(shared)
    page = {"object": "list", "data": [{"id": one}], "has_more": True, "last_id": one}
    await shared.control.fault("answer", operation="list", times=None, value=json.dumps(page))
    before = len(await shared.control.received("list"))
    try:
        found = await adopted(shared, "--from-upstream-list", project="circles")
    finally:
        await shared.control.clear_faults()
    assert outcomes(found) == {one: "adopted"}
    assert len(await shared.control.received("list")) == before + 2


async def test_what_may_pass_is_asked_again(shared: World) -> None:
    await shared.key(project="again")
    one, other = await made(shared, count=2)
    await shared.control.fault("429", operation="retrieve", video=one, value="1")
    await shared.control.fault("502", operation="retrieve", video=one)
    await shared.control.fault("401", operation="retrieve", video=other)
    found = await adopted(shared, one, other, project="again", exit_code=1)
    assert outcomes(found) == {one: "adopted", other: "unclear"}
    assert found[other]["detail"] == "auth"
    state = (await shared.control.state())["videos"]
    assert (state[one]["retrieves"], state[other]["retrieves"]) == (3, 1)


async def test_an_upstream_that_is_away_changes_nothing(shared: World) -> None:
    await shared.key(project="away")
    (one,) = await made(shared)
    await shared.control.go_dark()
    try:
        found = await adopted(shared, one, project="away", exit_code=1)
    finally:
        await shared.control.come_back()
    assert outcomes(found) == {one: "unclear"}
    assert outcomes(await adopted(shared, one, project="away")) == {one: "adopted"}


async def test_one_that_died_in_the_middle_is_run_again(tmp_path: Path) -> None:
    async with world(tmp_path) as studio:
        key = await studio.key()
        ids = await made(studio, count=40)
        # The newest come first; at the older ones it would wait for long.
        for one in ids[:20]:
            await studio.control.fault("hang", operation="retrieve", video=one)
        environ = environ_for(studio.folder, studio.simulator.base_url)
        process = await command(
            *("mirror", "adopt", "--project", "studio", "--from-upstream-list"), **environ
        )

        async def in_the_middle() -> bool:
            assert process.returncode is None
            return await adoptions(studio) > 0

        await eventually(in_the_middle)
        process.kill()
        await process.wait()
        await studio.control.clear_faults()
        survived = await adoptions(studio)
        assert 0 < survived <= 20
        assert await studio.one("SELECT COUNT(*) FROM upstream_ids") == survived
        assert await studio.one("SELECT COUNT(*) FROM assets") == survived
        found = Counter(outcomes(await adopted(studio, "--from-upstream-list")).values())
        assert found == Counter({"known": survived, "adopted": 40 - survived})
        for one in ids:
            await studio.mirrored(one)
        async with AsyncOpenAI(base_url=studio.base_url, api_key=key.value) as client:
            assert {one.id async for one in client.videos.list(limit=7)} == set(ids)
        assert await studio.adds_up()


async def test_two_at_once_adopt_each_video_once(tmp_path: Path) -> None:
    async with world(tmp_path) as studio:
        await studio.key()
        await studio.key(project="other")
        ids = await made(studio, count=30)
        found = await asyncio.gather(
            adopted(studio, "--from-upstream-list"),
            adopted(studio, "--from-upstream-list", project="other"),
        )
        counts = Counter(word for each in found for word in outcomes(each).values())
        assert counts == {"adopted": len(ids), "known": len(ids)}
        assert await adoptions(studio) == len(ids)


async def test_usage_and_settings_are_explained(shared: World) -> None:
    (one,) = await made(shared)
    for words in ((), (one, "--from-upstream-list")):
        _, err = await run(shared, "mirror", "adopt", "--project", "x", *words, exit_code=2)
        assert "say either the ids or --from-upstream-list" in err
    begin = ("mirror", "adopt", one, "--project")
    _, err = await run(shared, *begin, "x", "--upstream", "nobody", exit_code=2)
    assert "there is no upstream 'nobody'; there is default" in err
    _, err = await run(shared, *begin, "x", exit_code=2, GATEWAY_UPSTREAM_API_KEY="")
    assert "the upstream 'default' has no key" in err
    _, err = await run(shared, *begin, "nothing such", exit_code=1)
    assert "there is no project 'nothing such'" in err
    await shared.key(project="closed")
    await run(shared, "projects", "archive", "closed", "--yes")
    _, err = await run(shared, *begin, "closed", exit_code=1)
    assert "is archived" in err
    assert await shared.rows("SELECT id FROM videos WHERE upstream_id = $1", one) == []


async def test_an_adopted_video_costs_nothing_that_could_be_adjusted(shared: World) -> None:
    await shared.key(project="adjusting")
    (one,) = await made(shared)
    await adopted(shared, one, project="adjusting")
    words = ("ledger", "adjust", one, "--to", "1", "--reason", "test")
    _, err = await run(shared, *words, exit_code=1)
    assert "was adopted: nothing of it is in the ledger" in err
