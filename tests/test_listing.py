"""Which videos does a project see in its list, in which order, and page by page?"""

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from conftest import World, world
from openai import AsyncOpenAI

from gateway.billing.keys import NewKey
from gateway.upstream.requests import OPERATIONS

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]

MANY = 250
AT_ONCE = 25


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(place: Path) -> AsyncIterator[World]:
    async with world(place / "listing", upstream_offers=OPERATIONS) as made:
        # Nothing here is about content.
        await made.control.fault("404", operation="content", times=None)
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def many(shared: World) -> tuple[NewKey, list[str]]:
    """A key of a project with many videos, and their ids as the list has them, newest first."""
    key = await shared.key(project="many")
    async with shared.client(key) as client:
        for _ in range(MANY // AT_ONCE):
            answers = await asyncio.gather(
                *(client.post("/videos", json={"prompt": "a cat"}) for _ in range(AT_ONCE))
            )
            assert {answer.status_code for answer in answers} == {200}
    rows = await shared.rows(
        "SELECT videos.upstream_id FROM videos JOIN projects ON projects.id = videos.project_id"
        " WHERE projects.name = 'many' ORDER BY videos.created_at DESC, videos.id DESC"
    )
    return key, [row["upstream_id"] for row in rows]


async def page(made: World, key: NewKey, **query: str | int) -> dict[str, Any]:
    async with made.client(key) as client:
        answer = await client.get("/videos", params=query)
    assert answer.status_code == 200, answer.text
    told: dict[str, Any] = answer.json()
    assert set(told) == {"object", "data", "first_id", "last_id", "has_more"}
    assert told["object"] == "list"
    ids = listed(told)
    assert (told["first_id"], told["last_id"]) == (ids[0], ids[-1]) if ids else (None, None)
    return told


def listed(told: dict[str, Any]) -> list[str]:
    return [video["id"] for video in told["data"]]


async def test_a_project_without_videos_has_an_empty_list(shared: World) -> None:
    told = await page(shared, await shared.key(project="empty"))
    assert told == {
        "object": "list",
        "data": [],
        "first_id": None,
        "last_id": None,
        "has_more": False,
    }


async def test_the_newest_twenty_come_first(shared: World, many: tuple[NewKey, list[str]]) -> None:
    key, ids = many
    told = await page(shared, key)
    assert (listed(told), told["has_more"]) == (ids[:20], True)


@pytest.mark.parametrize("limit", [1, 7, 99, 100])
async def test_a_page_has_as_many_as_were_asked_for(
    shared: World, many: tuple[NewKey, list[str]], limit: int
) -> None:
    key, ids = many
    assert listed(await page(shared, key, limit=limit)) == ids[:limit]


async def test_a_limit_of_nothing_tells_only_whether_there_is_more(
    shared: World, many: tuple[NewKey, list[str]]
) -> None:
    told = await page(shared, many[0], limit=0)
    assert (told["data"], told["first_id"], told["has_more"]) == ([], None, True)
    assert not (await page(shared, await shared.key(project="empty"), limit=0))["has_more"]


@pytest.mark.parametrize("order", ["asc", "desc"])
@pytest.mark.parametrize("limit", [50, 83, 100])
async def test_pages_in_either_order_hold_every_video_once(
    shared: World, many: tuple[NewKey, list[str]], limit: int, order: str
) -> None:
    key, ids = many
    seen: list[str] = []
    query: dict[str, str | int] = {"limit": limit, "order": order}
    while True:
        told = await page(shared, key, **query)
        seen += listed(told)
        assert told["has_more"] == (len(seen) < MANY)
        if not told["has_more"]:
            break
        query["after"] = told["last_id"]
    assert seen == (ids if order == "desc" else ids[::-1])


@pytest.mark.parametrize("limit", [None, 100])
async def test_the_sdk_pages_through_all_of_them_by_itself(
    shared: World, many: tuple[NewKey, list[str]], limit: int | None
) -> None:
    key, ids = many
    query: dict[str, Any] = {} if limit is None else {"limit": limit}
    async with AsyncOpenAI(base_url=shared.base_url, api_key=key.value) as sdk:
        assert [video.id async for video in sdk.videos.list(**query)] == ids


async def test_what_is_bought_meanwhile_does_not_disturb_the_pages(shared: World) -> None:
    key = await shared.key(project="meanwhile")
    old = [await shared.buy(key) for _ in range(4)][::-1]
    first = await page(shared, key, limit=2)
    await shared.buy(key)
    second = await page(shared, key, limit=2, after=first["last_id"])
    assert sorted(listed(first) + listed(second)) == sorted(old)


@pytest.mark.parametrize("after", ["video_none", "", "' OR 1=1 --", "é"])
async def test_an_unknown_cursor_is_an_empty_page_and_no_error(
    shared: World, many: tuple[NewKey, list[str]], after: str
) -> None:
    told = await page(shared, many[0], after=after)
    assert (told["data"], told["has_more"]) == ([], False)


async def test_the_cursor_of_another_project_is_an_unknown_one(
    shared: World, many: tuple[NewKey, list[str]]
) -> None:
    key = await shared.key(project="curious")
    await shared.buy(key)
    assert (await page(shared, key, after=many[1][-1], order="asc"))["data"] == []


async def test_a_deleted_video_is_in_no_list_and_still_marks_its_place(shared: World) -> None:
    key = await shared.key(project="deleting")
    for _ in range(3):
        await shared.ended(await shared.buy(key))
    ids = listed(await page(shared, key))
    async with shared.client(key) as client:
        assert (await client.delete(f"/videos/{ids[1]}")).status_code == 200
    assert listed(await page(shared, key)) == [ids[0], ids[2]]
    assert listed(await page(shared, key, after=ids[1])) == [ids[2]]
    assert listed(await page(shared, key, after=ids[1], order="asc")) == [ids[0]]
    assert not (await page(shared, key, limit=2))["has_more"]


async def test_the_videos_of_other_projects_are_never_listed(
    shared: World, many: tuple[NewKey, list[str]]
) -> None:
    mine, colleague = await shared.key(project="own"), await shared.key(project="own", name="b")
    stranger = await shared.key(project="stranger")
    ids = {await shared.buy(mine), await shared.buy(colleague)}
    theirs = await shared.buy(stranger)
    assert set(listed(await page(shared, mine))) == ids
    assert set(listed(await page(shared, colleague))) == ids
    assert listed(await page(shared, stranger)) == [theirs]
    assert not ids & set(many[1])


async def test_what_has_no_id_is_never_listed(shared: World) -> None:
    key = await shared.key(project="orphans")
    bought = await shared.buy(key)
    for fault in ("drop", "no-id", "504", "refuse", "500-envelope"):
        await shared.control.fault(fault, operation="create")
        async with shared.client(key) as client:
            assert (await client.post("/videos", json={"prompt": fault})).status_code >= 400
    assert listed(await page(shared, key)) == [bought]
    count = "SELECT COUNT(*) FROM videos WHERE key_id = $1"
    assert await shared.one(count, key.id) == 6


async def test_a_failed_video_is_listed_as_the_client_sees_it(shared: World) -> None:
    key = await shared.key(project="failures")
    video_id = await shared.buy(key, '[[fail]] [[retrieve:status failure]] a "cat" 界')
    await shared.ended(video_id)
    async with shared.client(key) as client:
        retrieved = (await client.get(f"/videos/{video_id}")).json()
    assert (await page(shared, key))["data"] == [retrieved]
    assert retrieved["status"] == "failed"


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(
            ("limit", value)
            for value in ("-1", "101", "ten", "1.5", "", " 5", "+5", "1e1", "9" * 5_000, "٣")
        ),
        *(("order", value) for value in ("ASC", "", "newest", "desc ")),
    ],
)
async def test_a_wrong_limit_or_order_is_a_400(shared: World, name: str, value: str) -> None:
    async with shared.client(await shared.key()) as client:
        answer = await client.get("/videos", params={name: value})
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, name, "invalid_value")
    assert answer.headers["x-should-retry"] == "false"


async def test_a_list_asks_nobody(shared: World, many: tuple[NewKey, list[str]]) -> None:
    await page(shared, many[0], limit=100)
    assert "list" not in (await shared.control.totals())["requests"]
