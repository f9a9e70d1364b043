"""Does an operator see every video, entry and orphan, and end an orphan by the API?"""

from typing import Any

import pytest
from admin_tools import every, micros, plain, refusal
from conftest import World

from gateway.billing.keys import NewKey
from gateway.videos.orphans import RELEASE_MARGIN_SECONDS

LATER_SECONDS = 3600


async def an_orphan(made: World, key: NewKey, prompt: str = "a cat [[drop]]") -> dict[str, Any]:
    """Buy a video whose answer is lost."""
    known = {one["id"] for one in await every(made, "/orphans")}
    async with made.client(key) as client:
        answer = await client.post("/videos", json={"prompt": prompt})
    assert answer.json()["error"]["code"] == "outcome_unknown", answer.text
    (found,) = [one for one in await every(made, "/orphans") if one["id"] not in known]
    return found


async def made_upstream(made: World) -> str:
    """Return the id of the newest video that the upstream has made."""
    return str([*(await made.control.state())["videos"]][-1])


async def test_orphans_are_listed_with_all_that_is_known(studio: World) -> None:
    key = await studio.key()
    first = await an_orphan(studio, key)
    second = await an_orphan(studio, key)
    assert [one["id"] for one in await every(studio, "/orphans", limit=1)] == [
        first["id"],
        second["id"],
    ]
    assert first["object"] == "orphan"
    assert (first["project_name"], first["api_key_id"]) == ("studio", key.id)
    assert (first["model"], first["size"], first["seconds"]) == ("sora-2", "720x1280", 4)
    assert (first["held_usd"], first["price_usd"]) == ("0.40", "0.40")
    assert first["reason"]
    assert first["upstream_id"] is None


async def test_an_orphan_is_settled_at_what_was_held_or_what_the_bill_says(studio: World) -> None:
    key = await studio.key()
    held, billed = await an_orphan(studio, key), await an_orphan(studio, key)
    async with plain(studio) as client:
        answer = await client.post(f"/orphans/{held['id']}/settle")
        assert answer.json() == {
            "id": held["id"],
            "object": "orphan.ended",
            "outcome": "settled",
            "settled_usd": "0.40",
        }
        answer = await client.post(
            f"/orphans/{billed['id']}/settle",
            json={"amount_usd": "0.123456"},
            headers={"x-request-id": "by-hand"},
        )
        assert answer.json()["settled_usd"] == "0.123456"
        again = await client.post(f"/orphans/{billed['id']}/settle")
        assert refusal(again) == (404, None, None)
        lines = (await client.get("/audit_logs", params={"resource_ids[]": billed["id"]})).json()
    (line,) = lines["data"]
    assert (line["resource"], line["request_id"]) == ("orphan", "by-hand")
    assert line["after"] == {"settled_list_micros": 123_456}
    assert await every(studio, "/orphans") == []
    assert await studio.total() == (523_456, 0)
    assert await studio.adds_up()


async def test_an_orphan_that_is_said_to_be_a_video_of_the_upstream_is_followed_to_its_end(
    studio: World,
) -> None:
    key = await studio.key()
    orphan = await an_orphan(studio, key)
    upstream_id = await made_upstream(studio)
    async with plain(studio) as client:
        answer = await client.post(
            f"/orphans/{orphan['id']}/settle", json={"upstream_id": upstream_id}
        )
        assert answer.json()["outcome"] == "followed"
        taken = await an_orphan(studio, key)
        answer = await client.post(
            f"/orphans/{taken['id']}/settle", json={"upstream_id": upstream_id}
        )
        assert refusal(answer) == (400, "upstream_id", "upstream_id_taken")
    assert [one["id"] for one in await every(studio, "/orphans")] == [taken["id"]]
    assert (await studio.ended(upstream_id))["status"] == "completed"
    assert await studio.total() == (400_000, 400_000)
    assert await studio.adds_up()


async def test_an_orphan_is_released_once_its_submit_cannot_be_under_way_any_more(
    studio: World,
) -> None:
    orphan = await an_orphan(studio, await studio.key())
    async with plain(studio) as client:
        early = await client.post(f"/orphans/{orphan['id']}/release")
        assert refusal(early) == (400, "orphan_id", "orphan_too_early")
        assert int(early.json()["error"]["message"].split()[-2]) > RELEASE_MARGIN_SECONDS
        studio.timeline.offset_seconds += LATER_SECONDS
        answer = await client.post(f"/orphans/{orphan['id']}/release")
        assert answer.json() == {
            "id": orphan["id"],
            "object": "orphan.ended",
            "outcome": "released",
            "released_usd": "0.40",
        }
        assert refusal(await client.post(f"/orphans/{orphan['id']}/release"))[0] == 404
    assert await studio.total() == (0, 0)
    assert await studio.adds_up()


async def test_an_orphan_of_an_archived_project_can_still_be_ended(studio: World) -> None:
    orphan = await an_orphan(studio, await studio.key())
    await studio.change("UPDATE projects SET archived_at = 1")
    async with plain(studio) as client:
        answer = await client.post(f"/orphans/{orphan['id']}/settle")
    assert answer.status_code == 200
    assert await studio.total() == (400_000, 0)


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"amount_usd": 1}, "amount_usd"),
        ({"amount_usd": "1", "upstream_id": "video_1"}, "amount_usd"),
        ({"upstream_id": ""}, "upstream_id"),
        ({"upstream_id": "ä" * 200}, "upstream_id"),
        ({"upstream_id": "a\x00b"}, "upstream_id"),
        ({"reason": "x"}, "reason"),
    ],
)
async def test_what_is_wrongly_said_of_an_orphan_changes_nothing(
    studio: World, body: dict[str, Any], param: str
) -> None:
    orphan = await an_orphan(studio, await studio.key())
    async with plain(studio) as client:
        answer = await client.post(f"/orphans/{orphan['id']}/settle", json=body)
    assert refusal(answer)[:2] == (400, param)
    assert await every(studio, "/orphans") == [orphan]


async def test_every_entry_is_listed_once_with_its_facts_oldest_first(studio: World) -> None:
    key, other = await studio.key(), await studio.key(project="other", name="second")
    video = await studio.ended(await studio.buy(key))
    await studio.ended(await studio.buy(other, model="sora-2-pro"))
    await studio.ended(await studio.buy(other, "[[fail]]"))
    entries = await every(studio, "/ledger/entries", limit=2)
    stored = await studio.rows("SELECT id FROM entries ORDER BY created_at, id")
    assert [one["id"] for one in entries] == [row["id"] for row in stored]
    assert [one["kind"] for one in entries].count("release") == 1
    assert sum(micros(one, "spent_usd") for one in entries) == 1_600_000
    assert sum(micros(one, "held_usd") for one in entries) == 0
    (settle,) = [one for one in entries if one["kind"] == "settle" and one["api_key_id"] == key.id]
    assert settle["object"] == "ledger.entry"
    assert (settle["held_usd"], settle["spent_usd"]) == ("-0.40", "0.40")
    assert (settle["list_usd"], settle["cost_usd"]) == ("0.40", "0.40")
    assert (settle["upstream_id"], settle["video_id"]) == (video["upstream_id"], video["id"])
    assert (settle["project_name"], settle["model"], settle["seconds"]) == ("studio", "sora-2", 4)
    of_other = await every(studio, "/ledger/entries", **{"api_key_ids[]": other.id})
    assert of_other == [one for one in entries if one["api_key_id"] == other.id]
    of_one = await every(studio, "/ledger/entries", project_ids=settle["project_id"])
    assert of_one == [one for one in entries if one["api_key_id"] == key.id]
    assert await every(studio, "/ledger/entries", end_time=entries[0]["created_at"]) == []
    assert await every(studio, "/ledger/entries", start_time=entries[0]["created_at"]) == entries
    assert await every(studio, "/ledger/entries", after="none") == []


async def test_videos_of_all_projects_are_listed_without_their_prompts(studio: World) -> None:
    key, other = await studio.key(), await studio.key(project="other", name="second")
    done = await studio.buy(key, "a very secret cat", model="sora-2-pro", seconds="8")
    await studio.mirrored(done)
    failed = await studio.buy(other, "[[fail]]")
    await studio.ended(failed)
    orphan = await an_orphan(studio, key)
    async with studio.client(key) as client:
        assert (await client.post("/videos", json={"prompt": "[[refuse]]"})).status_code >= 400
    await studio.buy(key, "[[queue 3600]]")
    async with plain(studio) as client:
        assert "secret" not in (await client.get("/videos")).text
    listed = await every(studio, "/videos", limit=2, order="asc")
    assert listed == (await every(studio, "/videos"))[::-1]
    first, second, third, fourth, fifth = listed
    assert (first["upstream_id"], first["status"]) == (done, "completed")
    assert (first["model"], first["seconds"], first["operation"]) == ("sora-2-pro", 8, "create")
    assert (first["price_usd"], first["held_usd"], first["spent_usd"]) == ("2.40", "0.00", "2.40")
    assert (first["mirrored"], first["hold_state"]) == (True, "settled")
    assert (second["project_name"], second["api_key_id"]) == ("other", other.id)
    assert (second["status"], second["hold_state"], second["spent_usd"]) == (
        "failed",
        "released",
        "0.00",
    )
    assert (third["id"], third["status"], third["held_usd"]) == (orphan["id"], "failed", "0.40")
    assert third["orphan_reason"] == orphan["reason"]
    assert (fourth["status"], fourth["upstream_id"]) == ("failed", None)
    assert fourth["refused_at"] is not None
    assert (fifth["status"], fifth["mirrored"], fifth["held_usd"]) == ("queued", False, "0.40")
    assert await every(studio, "/videos", project_ids=second["project_id"]) == [second]
    assert await every(studio, "/videos", status="queued") == [fifth]
    chosen = await every(studio, "/videos", **{"status[]": ["completed", "queued"], "order": "asc"})
    assert chosen == [first, fifth]
    async with plain(studio) as client:
        answer = await client.get("/videos", params={"status": "lost"})
    assert refusal(answer) == (400, "status", "invalid_value")


@pytest.mark.parametrize("name", ["project_ids", "project_ids[]"])
async def test_a_filter_said_too_often_is_refused_by_name(studio: World, name: str) -> None:
    several = [f"proj_{number}" for number in range(100)]
    async with plain(studio) as client:
        for path in ("/videos", "/ledger/entries", "/audit_logs"):
            answer = await client.get(path, params={name: several * 2})
            assert answer.json()["data"] == []
            answer = await client.get(path, params={name: [*several, "proj_100"]})
            assert refusal(answer)[:2] == (400, "project_ids")


@pytest.mark.parametrize(
    ("path", "param"),
    [
        ("/videos?after=a%00", "after"),
        ("/videos?before=%00", "before"),
        ("/projects?after=%00", "after"),
        ("/ledger/entries?after=a%00b", "after"),
        ("/ledger/entries?api_key_ids=a%00b", "api_key_ids"),
        ("/audit_logs?actor_ids[]=%00", "actor_ids"),
        ("/costs?start_time=1000&line_items=%00", "line_items"),
    ],
)
async def test_nul_in_a_query_is_refused_by_name(studio: World, path: str, param: str) -> None:
    async with plain(studio) as client:
        answer = await client.get(path)
    assert refusal(answer)[:2] == (400, param)


@pytest.mark.parametrize(
    "path", ["/projects/proj%00x", "/projects/%00/spend_alerts", "/spend_alerts/%00"]
)
async def test_nul_in_a_path_names_nothing(studio: World, path: str) -> None:
    async with plain(studio) as client:
        answer = await client.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["message"].startswith("No such ")
