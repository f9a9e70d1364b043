"""Do costs, however grouped, filtered and paged, equal the ledger's entries?"""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass
from datetime import date
from pathlib import Path
from typing import Any

import httpx
import openai
import pytest
import pytest_asyncio
from admin_tools import DAY_SECONDS, day_of, organization, plain, refusal
from conftest import ADMIN_KEY, World, world
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from plain_http import NO_TLS

from gateway.billing.keys import NewKey
from gateway.billing.money import parse_usd

DAYS = 40
EPOCH = date(1970, 1, 1)
GROUPS = ("project_id", "api_key_id", "line_item")
# A top-up bonus of 10 %: list price and cost differ.
MULTIPLIER_PPM = 909_091
# On which day, by which key, what.
PURCHASES = (
    (0, 0, {"model": "sora-2", "seconds": "4"}),
    (0, 1, {"model": "sora-2", "seconds": "8"}),
    (0, 2, {"model": "sora-2-pro", "seconds": "4", "size": "1024x1792"}),
    (1, 2, {"model": "sora-2", "seconds": "12", "size": "1280x720"}),
    (8, 0, {"model": "sora-2-pro", "seconds": "12"}),
    (8, 0, {"model": "sora-2-pro", "seconds": "4"}),
    (31, 1, {"model": "sora-2", "seconds": "4"}),
    (39, 1, {"model": "sora-2", "seconds": "4"}),
    (39, 2, {"model": "sora-2", "seconds": "4", "prompt": "[[fail]]"}),
)

on_shared = pytest.mark.asyncio(loop_scope="module")


@dataclass(frozen=True)
class Spent:
    """What one settle charged, on what."""

    day: int
    project_id: str
    api_key_id: str
    line_item: str
    micros: int
    list_micros: int
    cost_micros: int
    seconds: int


@dataclass(frozen=True)
class Forty:
    """A gateway in whose forty days videos were bought."""

    made: World
    first_day: int
    keys: list[NewKey]
    spent: list[Spent]
    headers: Counter[int]


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def forty(place: Path) -> AsyncIterator[Forty]:
    async with world(place / "costs", upstream_cost_multiplier_ppm=MULTIPLIER_PPM) as made:
        made.timeline.offset_seconds = DAY_SECONDS // 2 - made.timeline.base.now() % DAY_SECONDS
        first_day = day_of(made.timeline.clock().now())
        keys = [
            await made.key(project="studio", name="one"),
            await made.key(project="studio", name="two"),
            await made.key(project="annex", name="three"),
        ]
        headers: Counter[int] = Counter()
        for day, key, fields in PURCHASES:
            while day_of(made.timeline.clock().now()) < first_day + day * DAY_SECONDS:
                made.timeline.offset_seconds += DAY_SECONDS
            async with made.client(keys[key]) as client:
                body = {"prompt": "a cat", **fields}
                answer = await client.post("/videos", json=body)
            assert answer.status_code == 200, answer.text
            if (await made.ended(answer.json()["id"]))["hold_state"] == "settled":
                headers[day] += parse_usd(answer.headers["x-gateway-cost-usd"])
        yield Forty(made, first_day, keys, await spent_by(made), headers)
        assert await made.adds_up()


async def spent_by(made: World) -> list[Spent]:
    """Return what the ledger's entries say."""
    rows = await made.rows(
        "SELECT holds.*, entries.spent_micros, entries.list_micros AS listed, entries.cost_micros"
        " FROM entries JOIN holds ON holds.id = entries.hold_id WHERE entries.spent_micros <> 0"
    )
    return [
        Spent(
            day=(date.fromisoformat(row["accounting_day"]) - EPOCH).days * DAY_SECONDS,
            project_id=row["project_id"],
            api_key_id=row["key_id"],
            line_item=f"{row['model']}, {row['size']}, {row['operation']}",
            micros=row["spent_micros"],
            list_micros=row["listed"],
            cost_micros=row["cost_micros"],
            seconds=row["clip_seconds"],
        )
        for row in rows
    ]


def results(buckets: list[dict[str, Any]]) -> Iterator[tuple[int, dict[str, Any]]]:
    for bucket in buckets:
        assert bucket["object"] == "bucket"
        assert bucket["end_time"] - bucket["start_time"] == DAY_SECONDS
        for result in bucket["results"]:
            yield bucket["start_time"], result


def summed(
    found: Iterator[tuple[int, dict[str, Any]]], group_by: tuple[str, ...]
) -> dict[tuple[Any, ...], tuple[int, ...]]:
    """Return the sums of each group; no group may be there twice."""
    sums: dict[tuple[Any, ...], tuple[int, ...]] = {}
    for day, one in found:
        assert one["object"] == "organization.costs.result"
        amount = one["amount"]
        assert amount["currency"] == "usd"
        assert amount["value"] == pytest.approx(amount["micros"] / 1e6, abs=1e-9)
        assert all((one[name] is None) == (name not in group_by) for name in GROUPS)
        by_item = "line_item" in group_by
        assert one["quantity_unit"] == ("duration_seconds" if by_item else None)
        place = (day, *(one[name] for name in group_by))
        assert place not in sums
        sums[place] = (
            amount["micros"],
            amount["list_micros"],
            amount["cost_micros"],
            one["quantity"] if by_item else 0,
        )
    return sums


def expected(
    spent: list[Spent], group_by: tuple[str, ...]
) -> dict[tuple[Any, ...], tuple[int, ...]]:
    sums: dict[tuple[Any, ...], tuple[int, ...]] = {}
    for one in spent:
        place = (one.day, *(getattr(one, name) for name in group_by))
        before = sums.get(place, (0, 0, 0, 0))
        more = (
            *(one.micros, one.list_micros, one.cost_micros),
            one.seconds if "line_item" in group_by else 0,
        )
        sums[place] = tuple(a + b for a, b in zip(before, more, strict=True))
    return sums


def all_pages(client: httpx.Client, query: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the buckets of all pages."""
    buckets: list[dict[str, Any]] = []
    page: dict[str, str] = {}
    while True:
        answer = client.get("/costs", params={**query, **page})
        assert answer.status_code == 200, answer.text
        said = answer.json()
        assert said["object"] == "page"
        assert len(said["data"]) <= query["limit"]
        buckets += said["data"]
        assert said["has_more"] == (said["next_page"] is not None)
        if not said["has_more"]:
            return buckets
        page = {"page": said["next_page"]}


@on_shared
async def test_costs_by_day_equal_the_spend_headers_and_empty_days_are_empty_buckets(
    forty: Forty,
) -> None:
    async with organization(forty.made) as sdk:
        found = await sdk.usage.costs(start_time=forty.first_day + 7_000, limit=180)
    assert (found.object, found.has_more, found.next_page) == ("page", False, None)
    assert [bucket.start_time for bucket in found.data] == [
        forty.first_day + number * DAY_SECONDS for number in range(DAYS)
    ]
    by_day = {number: bucket.results for number, bucket in enumerate(found.data) if bucket.results}
    assert set(by_day) == set(forty.headers)
    for number, (result,) in by_day.items():
        amount: Any = result.amount  # type: ignore[union-attr]
        assert (amount.micros, amount.currency) == (forty.headers[number], "usd")
        assert amount.value == pytest.approx(forty.headers[number] / 1e6)
        assert amount.cost_micros < amount.list_micros


@on_shared
async def test_forty_days_are_read_in_six_pages_by_the_sdk(forty: Forty) -> None:
    async with organization(forty.made) as sdk:
        page = await sdk.usage.costs(start_time=forty.first_day, group_by=["line_item"])
        pages = [page]
        while page.next_page is not None:
            page = await sdk.usage.costs(
                start_time=forty.first_day, group_by=["line_item"], page=page.next_page
            )
            pages.append(page)
    assert [len(one.data) for one in pages] == [7, 7, 7, 7, 7, 5]
    assert [one.has_more for one in pages] == [True] * 5 + [False]
    buckets = [bucket.to_dict() for one in pages for bucket in one.data]
    found: Any = summed(results(buckets), ("line_item",))
    assert found == expected(forty.spent, ("line_item",))


@on_shared
async def test_a_line_item_is_model_size_and_operation_with_the_seconds_that_were_billed(
    forty: Forty,
) -> None:
    item = "sora-2-pro, 1024x1792, create"
    async with organization(forty.made) as sdk:
        found = await sdk.usage.costs(
            start_time=forty.first_day, limit=180, line_items=[item], group_by=["line_item"]
        )
    (result,) = [one for bucket in found.data for one in bucket.results]
    shown: Any = result
    assert (shown.line_item, shown.quantity, shown.quantity_unit) == (item, 4, "duration_seconds")
    assert shown.amount.list_micros == 2_000_000


@on_shared
async def test_projects_and_keys_come_with_their_names(forty: Forty) -> None:
    async with plain(forty.made) as client:
        answer = await client.get(
            "/costs",
            params={
                "start_time": forty.first_day,
                "limit": 1,
                "group_by": ["project_id", "api_key_id"],
            },
        )
    named = {
        (one["project_name"], one["api_key_name"]) for _, one in results(answer.json()["data"])
    }
    assert named == {("studio", "one"), ("studio", "two"), ("annex", "three")}


@on_shared
async def test_costs_however_grouped_filtered_and_paged_are_the_sums_of_the_entries(
    forty: Forty,
) -> None:
    await asyncio.to_thread(check_all_sums, forty)


def check_all_sums(forty: Forty) -> None:
    projects = sorted({one.project_id for one in forty.spent})
    items = sorted({one.line_item for one in forty.spent})
    keys = [key.id for key in forty.keys]
    client = httpx.Client(
        verify=NO_TLS,
        base_url=f"{forty.made.base_url}/organization",
        headers={"authorization": f"Bearer {ADMIN_KEY}"},
        trust_env=False,
        timeout=60,
    )

    @settings(
        max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
    )
    @given(
        group_by=st.lists(st.sampled_from(GROUPS), unique=True),
        limit=st.sampled_from([1, 3, 7, 30, 180]),
        first=st.integers(min_value=-2, max_value=DAYS + 2),
        days=st.integers(min_value=1, max_value=DAYS + 4),
        within=st.integers(min_value=0, max_value=DAY_SECONDS - 1),
        project_ids=st.lists(st.sampled_from([*projects, "none"]), max_size=2),
        api_key_ids=st.lists(st.sampled_from([*keys, "none"]), max_size=2),
        line_items=st.lists(st.sampled_from([*items, "none"]), max_size=3),
        brackets=st.booleans(),
    )
    def sums_are_right(
        group_by: list[str],
        limit: int,
        first: int,
        days: int,
        within: int,
        project_ids: list[str],
        api_key_ids: list[str],
        line_items: list[str],
        *,
        brackets: bool,
    ) -> None:
        several = {
            "group_by": group_by,
            "project_ids": project_ids,
            "api_key_ids": api_key_ids,
            "line_items": line_items,
        }
        start = forty.first_day + first * DAY_SECONDS
        end = start + days * DAY_SECONDS
        query = {
            **{f"{name}[]" if brackets else name: values for name, values in several.items()},
            "start_time": start + within,
            "end_time": end,
            "limit": limit,
        }
        buckets = all_pages(client, query)
        assert [one["start_time"] for one in buckets] == list(range(start, end, DAY_SECONDS))
        wanted = [
            one
            for one in forty.spent
            if start <= one.day < end
            and (not project_ids or one.project_id in project_ids)
            and (not api_key_ids or one.api_key_id in api_key_ids)
            and (not line_items or one.line_item in line_items)
        ]
        grouped = tuple(group_by)
        assert summed(results(buckets), grouped) == expected(wanted, grouped)

    with client:
        sums_are_right()


@on_shared
@pytest.mark.parametrize(
    ("query", "param"),
    [
        ({"start_time": None}, "start_time"),
        ({"start_time": "yesterday"}, "start_time"),
        ({"start_time": "-1"}, "start_time"),
        ({"start_time": "9" * 17}, "start_time"),
        ({"end_time": "0"}, "end_time"),
        ({"limit": "181"}, "limit"),
        ({"bucket_width": "1h"}, "bucket_width"),
        ({"group_by": "user_id"}, "group_by"),
        ({"group_by[]": "api_source"}, "group_by"),
        ({"group_by": "model"}, "group_by"),
        ({"page": "page_٣-0"}, "page"),
        ({"page": f"page_{'9' * 5000}-0"}, "page"),
    ],
)
async def test_a_question_that_is_wrong_is_refused_by_name(
    forty: Forty, query: dict[str, str | None], param: str
) -> None:
    asked = {"start_time": "1000", **query}
    async with plain(forty.made) as client:
        answer = await client.get(
            "/costs", params={name: text for name, text in asked.items() if text is not None}
        )
    assert refusal(answer)[:2] == (400, param)


@on_shared
@pytest.mark.parametrize("query", [{"page": "page"}, {"page": ""}, {"limit": "0"}])
async def test_no_cursor_of_ours_and_no_bucket_asked_for_give_an_empty_page(
    forty: Forty, query: dict[str, str]
) -> None:
    async with plain(forty.made) as client:
        answer = await client.get("/costs", params={"start_time": forty.first_day, **query})
    assert answer.json() == {"object": "page", "data": [], "has_more": False, "next_page": None}


@on_shared
async def test_a_cursor_belongs_to_its_question_and_a_forged_one_is_refused(forty: Forty) -> None:
    async with organization(forty.made) as sdk:
        first = await sdk.usage.costs(start_time=forty.first_day, limit=3)
        page = str(first.next_page)
        number = int(page.removeprefix("page_").partition("-")[0])
        await sdk.usage.costs(start_time=forty.first_day, limit=30, page=page)
        for asked in (
            {"page": page.replace(str(number), str(number + 1))},
            {"page": page[:-1]},
            {"page": page + "0"},
            {"page": page, "group_by": ["line_item"]},
            {"page": page, "project_ids": ["x"]},
            {"page": page, "start_time": forty.first_day - DAY_SECONDS},
        ):
            query: Any = {"start_time": forty.first_day, "limit": 3, **asked}
            with pytest.raises(openai.BadRequestError) as refused:
                await sdk.usage.costs(**query)
            assert refused.value.param == "page"


@on_shared
async def test_days_to_come_are_empty_and_before_them_nothing_is_answered(forty: Forty) -> None:
    later = forty.first_day + 1000 * DAY_SECONDS
    async with organization(forty.made) as sdk:
        none = await sdk.usage.costs(start_time=later)
        assert (none.data, none.has_more) == ([], False)
        two = await sdk.usage.costs(start_time=later, end_time=later + 2 * DAY_SECONDS)
        assert [bucket.results for bucket in two.data] == [[], []]
        last = await sdk.usage.costs(
            start_time=253_402_214_399 - DAY_SECONDS, end_time=253_402_214_399
        )
        assert [bucket.results for bucket in last.data] == [[], []]


async def test_an_adjusted_price_counts_for_the_day_of_its_hold(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        key = await made.key()
        made.timeline.offset_seconds = DAY_SECONDS // 2 - made.timeline.base.now() % DAY_SECONDS
        first_day = day_of(made.timeline.clock().now())
        async with made.client(key) as client:
            await client.post("/videos", json={"prompt": "[[drop]]"})
        (orphan,) = await made.rows("SELECT id FROM videos")
        made.timeline.offset_seconds += DAY_SECONDS
        async with plain(made) as admin:
            await admin.post(f"/orphans/{orphan['id']}/settle", json={"amount_usd": "0.07"})
        async with organization(made) as sdk:
            found: Any = await sdk.usage.costs(start_time=first_day)
        assert [len(bucket.results) for bucket in found.data] == [1, 0]
        assert found.data[0].results[0].amount.micros == 70_000
