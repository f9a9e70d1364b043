"""Do rate limits and limits of the admin API hold from the next request on?"""

from typing import Any

import openai
import pytest
import pytest_asyncio
from admin_clients import admin_sdk, create, paths_of, refused, told
from conftest import World

from gateway.api.organization.rate_limits import NO_LIMIT
from gateway.billing.keys import NewKey

pytestmark = pytest.mark.asyncio(loop_scope="module")

NO_LIMITS: dict[str, Any] = {
    "max_videos_in_flight": None,
    "max_price_usd": None,
    "max_requests_per_1_minute": None,
    "max_requests_per_1_day": None,
    "max_reads_per_1_minute": None,
    "models": {},
}


@pytest_asyncio.fixture(loop_scope="module")
async def key(shared: World, request: pytest.FixtureRequest) -> NewKey:
    """A key in a project of its own."""
    return await shared.key(project=request.node.name)


async def test_rate_limits_are_those_of_the_catalogue_and_one_for_all(
    shared: World, key: NewKey
) -> None:
    async with admin_sdk(shared) as sdk:
        limits = sdk.admin.organization.projects.rate_limits
        found = [one async for one in limits.list_rate_limits(key.project_id, limit=2)]
        assert [one.id for one in found[:3]] == ["rl-all", "rl-sora-2", "rl-sora-2-pro"]
        assert [one.model for one in found[:2]] == ["all", "sora-2"]
        assert {one.max_requests_per_1_minute for one in found} == {NO_LIMIT}
        assert {one.max_tokens_per_1_minute for one in found} == {NO_LIMIT}
        page = await limits.list_rate_limits(key.project_id, before=found[2].id, limit=1)
        assert ([one.id for one in page.data], page.has_more) == (["rl-sora-2"], True)
        page = await limits.list_rate_limits(key.project_id, before=found[1].id)
        assert ([one.id for one in page.data], page.has_more) == (["rl-all"], False)
        assert (await limits.list_rate_limits(key.project_id, after="rl-none")).data == []
        assert (await limits.list_rate_limits(key.project_id, before="rl-none")).data == []
        assert (await limits.list_rate_limits(key.project_id, limit=0)).data == []
        page = await limits.list_rate_limits(key.project_id, limit=0, before="rl-sora-2-pro")
        assert page.data == []


async def test_a_rate_limit_holds_from_the_next_request_on_and_the_highest_number_removes_it(
    shared: World, key: NewKey
) -> None:
    async with admin_sdk(shared) as sdk:
        limits = sdk.admin.organization.projects.rate_limits
        made = await limits.update_rate_limit(
            "rl-sora-2", project_id=key.project_id, max_requests_per_1_day=1
        )
        assert (made.id, made.max_requests_per_1_day) == ("rl-sora-2", 1)
        assert made.max_requests_per_1_minute == NO_LIMIT
        assert await create(shared, key) == (200, None)
        assert await create(shared, key) == (429, "rate_limit_exceeded")
        assert await create(shared, key, model="sora-2-pro") == (200, None)
        both = await limits.update_rate_limit(
            "rl-sora-2", project_id=key.project_id, max_requests_per_1_minute=5
        )
        assert (both.max_requests_per_1_minute, both.max_requests_per_1_day) == (5, 1)
        await limits.update_rate_limit(
            "rl-sora-2", project_id=key.project_id, max_requests_per_1_day=NO_LIMIT
        )
        assert await create(shared, key) == (200, None)
        await limits.update_rate_limit(
            "rl-all", project_id=key.project_id, max_requests_per_1_minute=0
        )
        assert await create(shared, key, model="sora-2-pro") == (429, "rate_limit_exceeded")
        with pytest.raises(openai.NotFoundError):
            await limits.update_rate_limit("rl-sora-9", project_id=key.project_id)


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("max_requests_per_1_minute", -1, "invalid_value"),
        ("max_requests_per_1_minute", NO_LIMIT + 1, "invalid_value"),
        ("max_requests_per_1_day", "5", "invalid_type"),
        ("max_tokens_per_1_minute", 5, "invalid_value"),
        ("max_images_per_1_minute", 5, "invalid_value"),
        ("max_audio_megabytes_per_1_minute", 5, "invalid_value"),
        ("batch_1_day_max_input_tokens", 5, "invalid_value"),
        ("max_requests_per_1_hour", 5, "unknown_parameter"),
    ],
)
async def test_what_cannot_be_limited_is_refused_by_name(
    shared: World, key: NewKey, field: str, value: Any, code: str
) -> None:
    path, _ = paths_of(key, "/rate_limits/rl-sora-2")
    assert await refused(shared, "POST", path, json={field: value}) == (400, code, field)


@pytest.mark.parametrize("level", [0, 1], ids=["project", "key"])
async def test_limits_change_where_they_are_named_and_null_removes_one(
    shared: World, key: NewKey, level: int
) -> None:
    path = paths_of(key, "/limits")[level]
    kind = ("organization.project.limits", "organization.project.api_key.limits")[level]
    assert await told(shared, "GET", path) == {"object": kind, **NO_LIMITS}
    one = {"max_price_usd": "2.50", "max_videos_in_flight": 3}
    of_model = {"max_requests_per_1_minute": 5, "max_requests_per_1_day": None}
    expected = {"object": kind, **NO_LIMITS, **one, "models": {"sora-2": of_model}}
    sent = {**one, "models": {"sora-2": {"max_requests_per_1_minute": 5}}}
    assert await told(shared, "POST", path, json=sent) == expected
    assert await told(shared, "POST", path, json={}) == expected
    sent = {
        "max_videos_in_flight": None,
        "max_reads_per_1_minute": 100,
        "models": {"sora-2": {"max_requests_per_1_day": 50}, "sora-2-pro": {}},
    }
    expected |= {
        "max_videos_in_flight": None,
        "max_reads_per_1_minute": 100,
        "models": {"sora-2": {"max_requests_per_1_minute": 5, "max_requests_per_1_day": 50}},
    }
    assert await told(shared, "POST", path, json=sent) == expected
    assert await told(shared, "GET", path) == expected
    other = paths_of(key, "/limits")[1 - level]
    assert (await told(shared, "GET", other))["models"] == {}
    sent = {
        **dict.fromkeys(NO_LIMITS),
        "models": {"sora-2": {"max_requests_per_1_day": None}, "sora-9": None},
    }
    left = {"max_requests_per_1_minute": 5, "max_requests_per_1_day": None}
    assert (await told(shared, "POST", path, json=sent))["models"] == {"sora-2": left}
    assert await told(shared, "POST", path, json={"models": {"sora-2": None}}) == {
        "object": kind,
        **NO_LIMITS,
    }


@pytest.mark.parametrize(
    ("limit", "refusal"),
    [
        ({"max_price_usd": "0.39"}, (403, "price_limit_exceeded")),
        ({"max_videos_in_flight": 0}, (429, "rate_limit_exceeded")),
        ({"max_requests_per_1_minute": 0}, (429, "rate_limit_exceeded")),
        ({"models": {"sora-2": {"max_requests_per_1_day": 0}}}, (429, "rate_limit_exceeded")),
    ],
)
@pytest.mark.parametrize("level", [0, 1], ids=["project", "key"])
async def test_a_limit_holds_from_the_next_request_on(
    shared: World, key: NewKey, limit: dict[str, Any], refusal: tuple[int, str], level: int
) -> None:
    path = paths_of(key, "/limits")[level]
    assert await create(shared, key) == (200, None)
    await told(shared, "POST", path, json=limit)
    assert await create(shared, key) == refusal
    await told(shared, "POST", path, json=dict.fromkeys(limit) | {"models": {"sora-2": None}})
    assert await create(shared, key) == (200, None)


async def test_a_limit_on_reads_holds_from_the_next_read_on(shared: World, key: NewKey) -> None:
    _, path = paths_of(key, "/limits")
    async with shared.client(key) as client:
        assert (await client.get("/videos")).status_code == 200
        await told(shared, "POST", path, json={"max_reads_per_1_minute": 0})
        assert (await client.get("/videos")).status_code == 429
        await told(shared, "POST", path, json={"max_reads_per_1_minute": None})
        assert (await client.get("/videos")).status_code == 200


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        ({"max_price_usd": 2.5}, "invalid_type", "max_price_usd"),
        ({"max_price_usd": "2.5.0"}, "invalid_value", "max_price_usd"),
        ({"max_price_usd": "-1"}, "invalid_value", "max_price_usd"),
        ({"max_videos_in_flight": -1}, "invalid_value", "max_videos_in_flight"),
        ({"max_videos": 1}, "unknown_parameter", "max_videos"),
        ({"models": []}, "invalid_type", "models"),
        ({"models": {"sora-9": {}}}, "invalid_value", "models"),
        ({"models": {"": None}}, "invalid_value", "models"),
        ({"models": {"sora-2": 5}}, "invalid_type", "models.sora-2"),
        (
            {"models": {"sora-2": {"max_price_usd": "1"}}},
            "unknown_parameter",
            "models.sora-2.max_price_usd",
        ),
        (
            {"models": {"sora-2": {"max_requests_per_1_day": True}}},
            "invalid_type",
            "models.sora-2.max_requests_per_1_day",
        ),
    ],
)
async def test_a_wrong_limit_is_refused_by_name(
    shared: World, key: NewKey, sent: dict[str, Any], code: str, param: str
) -> None:
    path, _ = paths_of(key, "/limits")
    assert await refused(shared, "POST", path, json=sent) == (400, code, param)
    assert (await told(shared, "GET", path))["models"] == {}
