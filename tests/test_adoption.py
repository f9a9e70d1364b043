"""Is an adopted video a video like any other, but for the money?"""

import json
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from adoption_tools import adopted, made, money, outcomes, run
from conftest import ADMIN_KEY, DAY_SECONDS, World, eventually, world
from databases import look
from openai import AsyncOpenAI, NotFoundError
from plain_http import NO_TLS

from gateway.billing.keys import NewKey
from gateway.clock import system_clock
from gateway.upstream.requests import OPERATIONS
from gateway.videos.adoption_records import Stray, in_the_way
from gateway.videos.objects import Facts

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]

PRICE_MICROS = 400_000
OFFERS = ",".join(OPERATIONS)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(place: Path) -> AsyncIterator[World]:
    async with world(place / "adoption", upstream_offers=OPERATIONS) as one:
        yield one


def sdk(made_world: World, key: NewKey) -> AsyncOpenAI:
    return AsyncOpenAI(base_url=made_world.base_url, api_key=key.value, max_retries=0)


async def video(shared: World, upstream_id: str) -> dict[str, Any]:
    (row,) = await shared.rows("SELECT * FROM videos WHERE upstream_id = $1", upstream_id)
    return dict(row)


async def every_copy(shared: World, upstream_id: str, *, count: int = 1) -> list[dict[str, Any]]:
    """Wait until so many variants are in the store."""

    async def there() -> list[dict[str, Any]] | None:
        rows = await shared.rows(
            "SELECT assets.* FROM assets JOIN videos ON videos.id = assets.video_id"
            " WHERE videos.upstream_id = $1 AND assets.mirrored_at IS NOT NULL",
            upstream_id,
        )
        return [dict(row) for row in rows] if len(rows) == count else None

    found: list[dict[str, Any]] = await eventually(there)
    return found


@pytest.mark.costly
async def test_an_adopted_video_is_there_when_its_upstream_is_not(tmp_path: Path) -> None:
    async with world(tmp_path) as studio:
        key = await studio.key()
        (one,) = await made(studio, "a heron", seconds="8", size="1280x720")
        content = await studio.control.content(one)
        shown = (await studio.control.state())["videos"][one]
        found = await adopted(studio, one)
        assert outcomes(found) == {one: "adopted"}
        await studio.mirrored(one)
        await studio.control.go_dark()
        async with sdk(studio, key) as client:
            retrieved = await client.videos.retrieve(one)
            assert (retrieved.id, retrieved.status, retrieved.progress) == (one, "completed", 100)
            assert (retrieved.prompt, retrieved.seconds, retrieved.size) == (
                *("a heron", "8", "1280x720"),
            )
            assert retrieved.created_at == int(shown["created_at"])
            assert [each.id async for each in client.videos.list()] == [one]
            assert (await client.videos.download_content(one)).content == content
        async with studio.client(key) as plain:
            answer = await plain.get(f"/videos/{one}")
            part = await plain.get(f"/videos/{one}/content", headers={"range": "bytes=2-5"})
        assert "x-gateway-cost-usd" not in answer.headers
        assert (part.status_code, part.content) == (206, content[2:6])


@pytest.mark.costly
async def test_an_adoption_moves_no_money(shared: World) -> None:
    key = await shared.key(project="money", budget="5")
    bought = await shared.buy(key)
    await shared.ended(bought)
    before = await money(shared)
    figures = await run(shared, "spend", "report", "--json")
    one, other = await made(shared, "dear", count=2, model="sora-2-pro", seconds="12")
    await adopted(shared, one, other, project="money")
    await every_copy(shared, other)
    assert await money(shared) == before
    assert await run(shared, "spend", "report", "--json") == figures
    await run(shared, "ledger", "audit")
    assert await shared.adds_up()
    row = await video(shared, one)
    assert (row["hold_id"], row["key_id"], row["due_at"]) == (None, None, None)
    async with shared.client(key) as client:
        answer = await client.delete(f"/videos/{one}")
    assert answer.status_code == 200
    assert await money(shared) == before


@pytest.mark.costly
async def test_an_export_and_the_entries_do_not_know_it(shared: World) -> None:
    key = await shared.key(project="exports")
    (one,) = await made(shared)
    await adopted(shared, one, project="exports")
    bought = await shared.buy(key)
    days = ("--from", "2020-01-01", "--to", datetime.now(UTC).strftime("%Y-%m-%d"))
    out, _ = await run(shared, "ledger", "export", *days)
    assert bought in out
    assert one not in out
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        entries = await client.get(
            f"{shared.base_url}/organization/ledger/entries",
            headers={"authorization": f"Bearer {ADMIN_KEY}"},
        )
    assert entries.status_code == 200
    assert bought in entries.text
    assert one not in entries.text


@pytest.mark.costly
async def test_every_variant_that_the_upstream_offers_is_mirrored(shared: World) -> None:
    key = await shared.key(project="variants")
    (one,) = await made(shared)
    await adopted(shared, one, project="variants", GATEWAY_UPSTREAM_OFFERS=OFFERS)
    copies = await every_copy(shared, one, count=3)
    assert {copy["variant"] for copy in copies} == {"video", "thumbnail", "spritesheet"}
    async with sdk(shared, key) as client:
        thumbnail = await client.videos.download_content(one, variant="thumbnail")
    assert thumbnail.content == await shared.control.content(one, variant="thumbnail")


@pytest.mark.parametrize("operation", ["remix", "edits", "extensions"])
async def test_what_is_made_of_an_adopted_video_has_the_price_of_its_object(
    shared: World, operation: str
) -> None:
    key = await shared.key(project=operation)
    (one,) = await made(shared, model="sora-2-pro", seconds="8", size="1024x1792")
    await adopted(shared, one, project=operation)
    body: dict[str, Any] = {"prompt": "and a dog"}
    path = "/videos/edits"
    if operation == "remix":
        path = f"/videos/{one}/remix"
    else:
        body["video"] = {"id": one}
    if operation == "extensions":
        path, body["seconds"] = "/videos/extensions", "4"
    async with shared.client(key) as client:
        answer = await client.post(path, json=body)
    assert answer.status_code == 200, answer.text
    cost = "2.00" if operation == "extensions" else "4.00"
    assert answer.headers["x-gateway-cost-usd"] == cost
    facts = await shared.ended(answer.json()["id"])
    assert facts["hold_settled_micros"] == int(float(cost) * 1_000_000)


async def test_nothing_is_made_of_a_video_whose_price_would_be_unknown(shared: World) -> None:
    key = await shared.key(project="silent")
    (one,) = await made(shared, model="veo-3.1-fast-generate-preview", seconds="8", size="1280x720")
    assert outcomes(await adopted(shared, one, project="silent")) == {one: "adopted"}
    before = await money(shared)
    async with shared.client(key) as client:
        shown = (await client.get(f"/videos/{one}")).json()
        assert (shown["seconds"], shown["size"], shown["prompt"]) == (None, None, None)
        for path, body in (
            (f"/videos/{one}/remix", {"prompt": "x"}),
            ("/videos/edits", {"prompt": "x", "video": {"id": one}}),
            ("/videos/extensions", {"prompt": "x", "seconds": "4", "video": {"id": one}}),
        ):
            answer = await client.post(path, json=body)
            error = answer.json()["error"]
            assert (answer.status_code, error["param"]) == (400, "video")
            assert "what this would cost is unknown" in error["message"]
    assert await money(shared) == before


@pytest.mark.costly
async def test_a_deleted_one_is_gone_and_stays_known(shared: World) -> None:
    key = await shared.key(project="deleted")
    (one,) = await made(shared)
    await adopted(shared, one, project="deleted")
    await every_copy(shared, one)
    async with sdk(shared, key) as client:
        assert (await client.videos.delete(one)).deleted
        for again in (client.videos.retrieve, client.videos.download_content):
            with pytest.raises(NotFoundError):
                await again(one)
    assert outcomes(await adopted(shared, one, project="deleted")) == {one: "known"}


@pytest.mark.costly
async def test_operators_see_it_without_a_price(shared: World) -> None:
    await shared.key(project="seen")
    (one,) = await made(shared, "secret words", seconds="12")
    (silent,) = await made(shared, model="veo-3.1-generate-preview", seconds="8", size="1280x720")
    await adopted(shared, one, silent, project="seen")
    await every_copy(shared, one)
    async with httpx.AsyncClient(
        verify=NO_TLS, headers={"authorization": f"Bearer {ADMIN_KEY}"}, trust_env=False
    ) as client:
        answer = await client.get(f"{shared.base_url}/organization/videos", params={"limit": 100})
    assert "secret words" not in answer.text
    listed = {each["upstream_id"]: each for each in answer.json()["data"]}
    shown = listed[one]
    assert (shown["model"], shown["size"], shown["seconds"]) == ("sora-2", "720x1280", 12)
    for name in ("api_key_id", "api_key_name", "operation", "hold_id", "hold_state", "price_usd"):
        assert shown[name] is None, name
    assert (shown["held_usd"], shown["spent_usd"], shown["mirrored"]) == ("0.00", "0.00", True)
    assert (shown["project_name"], shown["status"]) == ("seen", "completed")
    assert (listed[silent]["size"], listed[silent]["seconds"]) == (None, None)
    out, _ = await run(shared, "videos", "list", "--json")
    rows = {each["upstream_id"]: each for each in json.loads(out)}
    row = rows[one]
    assert (row["model"], row["size"], row["clip_seconds"]) == ("sora-2", "720x1280", 12)
    assert (row["hold"], row["cost_usd"], row["key_id"]) == (None, None, None)
    assert rows[silent]["clip_seconds"] is None
    table, _ = await run(shared, "videos", "list")
    assert one in table


async def test_a_list_has_it_in_the_place_of_its_creation(shared: World) -> None:
    key = await shared.key(project="order")
    now = system_clock().now()
    await shared.control.set_now(now - 7_200)
    (first,) = await made(shared)
    await shared.control.set_now(now - 3_600)
    (second,) = await made(shared)
    await shared.control.set_now(now)
    last = await shared.buy(key)
    await adopted(shared, first, second, project="order")
    async with sdk(shared, key) as client:
        page = await client.videos.list(limit=2)
        assert [each.id for each in page.data] == [last, second]
        assert [each.id async for each in client.videos.list(limit=1)] == [last, second, first]
    assert (await video(shared, first))["created_at"] == now - 7_200


async def test_a_video_of_another_project_stays_where_it_is(shared: World) -> None:
    owner, other = await shared.key(project="owner"), await shared.key(project="other")
    bought = await shared.buy(owner)
    await shared.ended(bought)
    (one,) = await made(shared)
    await adopted(shared, one, project="owner")
    found = await adopted(shared, one, bought, project="other")
    assert outcomes(found) == {one: "known", bought: "known"}
    assert {each["project"] for each in found.values()} == {"owner"}
    async with shared.client(other) as client:
        for each in (one, bought):
            assert (await client.get(f"/videos/{each}")).status_code == 404
            assert (await client.get(f"/videos/{each}/content")).status_code == 404
    assert await shared.one("SELECT COUNT(*) FROM videos WHERE upstream_id = $1", one) == 1


async def test_two_names_of_one_upstream_do_not_make_two_videos_of_one(
    shared: World, tmp_path: Path
) -> None:
    bought = await shared.buy(await shared.key(project="names"))
    file = tmp_path / "gateway.toml"
    file.write_text(
        f'[upstreams.backup]\nbase_url = "{shared.simulator.base_url}"\napi_key = "sk-simulator"\n'
    )
    words = ("--config", str(file), "--upstream", "backup", bought)
    found = await adopted(shared, *words, project="names")
    assert found[bought]["outcome"] == "known"
    assert found[bought]["detail"] == "of the upstream default"
    assert await shared.one("SELECT COUNT(*) FROM videos WHERE upstream_id = $1", bought) == 1


async def test_what_a_lost_submit_may_have_bought_is_nobodys_to_adopt(tmp_path: Path) -> None:
    async with world(tmp_path) as studio:
        key = await studio.key()
        # An hour before any other submit, so that only the time of the lost one is in question.
        (old,) = await _made_ago(studio, 3_600)
        async with studio.client(key) as client:
            lost = await client.post("/videos", json={"prompt": "[[drop]]"})
        assert lost.json()["error"]["code"] == "outcome_unknown"
        (orphan,) = await studio.rows("SELECT id FROM videos WHERE orphaned_at IS NOT NULL")
        state = await studio.control.state()
        bought = next(each["id"] for each in state["executed"] if each["id"] != old)
        (foreign,) = await made(studio, "by another key")
        dry = await adopted(studio, "--from-upstream-list", "--dry-run", exit_code=1)
        found = await adopted(studio, "--from-upstream-list", exit_code=1)
        assert outcomes(found) == {
            **dict.fromkeys((bought, foreign), "perhaps_bought"),
            old: "adopted",
        }
        assert outcomes(dry) == outcomes(found) | {old: "adoptable"}
        assert orphan["id"] in found[bought]["detail"]
        assert await studio.total() == (0, PRICE_MICROS)
        await run(studio, "orphans", "settle", orphan["id"], "--upstream-id", bought)
        await studio.ended(bought)
        found = await adopted(studio, "--from-upstream-list")
        assert outcomes(found) == {bought: "known", old: "known", foreign: "adopted"}
        assert await studio.total() == (PRICE_MICROS, 0)
        assert await studio.adds_up()


async def test_what_a_submit_under_way_makes_is_left_to_it(shared: World) -> None:
    (one,) = await made(shared)
    key = await shared.key(project="busy")
    bought = await shared.buy(key)
    await shared.ended(bought)
    # As it stands between the first byte and the record of the answer.
    await shared.change(
        "UPDATE videos SET upstream_id = NULL, due_at = created_at + 240 WHERE upstream_id = $1",
        bought,
    )
    submit = await shared.one("SELECT MAX(id) FROM videos WHERE upstream_id IS NULL")
    found = await adopted(shared, one, project="busy", exit_code=1)
    assert (found[one]["outcome"], submit in found[one]["detail"]) == ("perhaps_bought", True)
    await shared.change(
        "UPDATE videos SET upstream_id = $1, due_at = NULL WHERE id = $2", bought, submit
    )
    assert outcomes(await adopted(shared, one, project="busy")) == {one: "adopted"}


async def _made_ago(studio: World, seconds: int, *prompts: str) -> list[str]:
    """Make videos at an upstream whose clock was behind then."""
    now = system_clock().now()
    await studio.control.set_now(now - seconds)
    found = [(await made(studio, prompt))[0] for prompt in prompts or ("a cat",)]
    await studio.control.set_now(now)
    return found


@pytest.mark.costly
async def test_content_that_has_gone_is_not_adopted(tmp_path: Path) -> None:
    async with world(tmp_path) as studio:
        await studio.key()
        for status in (404, 410):
            await studio.control.settings(expired_status=status)
            (old,) = await _made_ago(studio, 2 * DAY_SECONDS)
            found = await adopted(studio, old, exit_code=1)
            assert outcomes(found) == {old: "expired"}
        assert await studio.rows("SELECT id FROM videos") == []


@pytest.mark.costly
async def test_content_that_is_there_longer_than_promised_is_adopted(tmp_path: Path) -> None:
    async with world(tmp_path) as studio:
        key = await studio.key()
        await studio.control.settings(retention_seconds=30 * DAY_SECONDS)
        silent, wrong, broken = await _made_ago(
            studio,
            2 * DAY_SECONDS,
            "[[retrieve:unset expires_at]]",
            f"[[retrieve:set {system_clock().now() - DAY_SECONDS} key=expires_at]]",
            "[[retrieve:unset expires_at]] [[content:503*1]]",
        )
        found = await adopted(studio, silent, wrong, broken, exit_code=1)
        assert outcomes(found) == {silent: "adopted", wrong: "adopted", broken: "unclear"}
        assert "503" in found[broken]["detail"]
        assert outcomes(await adopted(studio, broken)) == {broken: "adopted"}
        for each in (silent, wrong, broken):
            await studio.mirrored(each)
            async with sdk(studio, key) as client:
                content = (await client.videos.download_content(each)).content
            assert content == await studio.control.content(each)


@pytest.mark.costly
async def test_one_bad_minute_does_not_lose_content_that_was_there(tmp_path: Path) -> None:
    async with world(tmp_path) as studio:
        await studio.key()
        await studio.control.settings(retention_seconds=30 * DAY_SECONDS)
        (old,) = await _made_ago(studio, 2 * DAY_SECONDS, "[[retrieve:unset expires_at]]")
        # The command looks whether it is there, then the mirror's first try fails.
        await studio.control.fault("delay", operation="content", value=0)
        await studio.control.fault("503", operation="content")
        assert outcomes(await adopted(studio, old)) == {old: "adopted"}
        asset = await studio.mirrored(old)
        assert (asset["gone_at"], asset["attempts"]) == (None, 2)


async def test_moments_that_are_none_are_not_believed(shared: World) -> None:
    await shared.key(project="moments")
    now = system_clock().now()
    prompts = {
        "zero": "[[retrieve:set 0 key=created_at]]",
        "none": "[[retrieve:unset created_at]]",
        "milliseconds": f"[[retrieve:set {now * 1000} key=created_at]]",
        "future": f"[[retrieve:set {now + 9_000} key=created_at]]",
        "text": '[[retrieve:set "now" key=created_at]]',
        "completed": "[[retrieve:set 0 key=completed_at]]",
        "expires": "[[retrieve:set 0 key=expires_at]]",
    }
    ids = {name: (await made(shared, prompt))[0] for name, prompt in prompts.items()}
    found = await adopted(shared, *ids.values(), project="moments")
    assert set(outcomes(found).values()) == {"adopted"}
    for one in ids.values():
        row = await video(shared, one)
        assert now - 60 <= row["created_at"] <= system_clock().now()
        assert now - 60 <= row["completed_at"] <= system_clock().now()
        assert abs(row["expires_at"] - now - DAY_SECONDS) < 60
    shown = json.loads((await video(shared, ids["none"]))["object"])
    assert now - 60 <= shown["created_at"] <= system_clock().now()


async def test_a_second_name_of_a_video_is_not_adopted(shared: World) -> None:
    await shared.key(project="second")
    (one,) = await made(shared, "[[retrieve:set video_other key=id]]")
    (nameless,) = await made(shared, "[[retrieve:no-id]]")
    found = await adopted(shared, one, nameless, project="second", exit_code=1)
    assert outcomes(found) == {one: "unclear", nameless: "adopted"}
    assert found[one]["detail"] == "the upstream calls it video_other"


async def test_a_submit_that_gets_the_id_of_an_adopted_video_is_an_orphan(tmp_path: Path) -> None:
    async with world(tmp_path) as studio:
        key = await studio.key()
        (one,) = await made(studio)
        await adopted(studio, one)
        async with studio.client(key) as client:
            answer = await client.post("/videos", json={"prompt": f"[[duplicate-id {one}]]"})
        assert answer.json()["error"]["code"] == "outcome_unknown"
        assert await studio.total() == (0, PRICE_MICROS)
        assert (await video(studio, one))["hold_id"] is None
        assert await studio.adds_up()


@pytest.mark.sqlite("it reads the plans of SQLite")
async def test_what_adopting_asks_of_the_records_has_an_index(shared: World) -> None:
    stray = Stray(
        *("vid", "proj", "default", "{}", Facts("video_x", 1, 1, {})),
        made_at=1,
        expires_at=1,
        assets={},
    )
    script = in_the_way(stray)
    asked = [next(script), script.send([{"archived_at": None}]), script.send([])]
    plans = []
    for text, args in asked:
        rows = look(shared.settings.database_url, f"EXPLAIN QUERY PLAN {text}", *args)
        steps = [row["detail"] for row in rows]
        assert not [step for step in steps if step.startswith("SCAN videos")], steps
        plans.append("; ".join(steps))
    assert "USING INDEX videos_by_upstream_id" in plans[1]
    assert "USING INDEX videos_due" in plans[2]
    assert "USING INDEX videos_orphaned" in plans[2]
