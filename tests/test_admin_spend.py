"""Do spend limits and budgets of the admin API refuse what they should, in OpenAI's words?"""

from pathlib import Path
from typing import Any

import openai
import pytest
from admin_tools import every, organization, plain, refusal
from conftest import World, world

SORA_PRO_12_SECONDS = {"model": "sora-2-pro", "seconds": "12"}  # $3.60


async def project_of(made: World, name: str = "studio") -> str:
    return str(await made.one("SELECT id FROM projects WHERE name = $1", name))


@pytest.mark.parametrize("level", ["organization", "project"])
async def test_a_monthly_limit_set_by_the_sdk_refuses_the_create_that_does_not_fit(
    studio: World, level: str
) -> None:
    key = await studio.key()
    async with organization(studio) as sdk:
        there: Any = sdk.spend_limit if level == "organization" else sdk.projects.spend_limit
        whose = () if level == "organization" else (await project_of(studio),)
        with pytest.raises(openai.NotFoundError):
            await there.retrieve(*whose)
        limit = await there.update(*whose, currency="USD", interval="month", threshold_amount=5_00)
        assert (limit.object, limit.threshold_amount) == (f"{level}.spend_limit", 5_00)
        assert (limit.currency, limit.interval) == ("USD", "month")
        assert (limit.enforcement.status, limit.threshold_usd) == ("inactive", "5.00")
        await studio.ended(await studio.buy(key, **SORA_PRO_12_SECONDS))
        async with studio.client(key) as client:
            refused = await client.post("/videos", json={"prompt": "x", **SORA_PRO_12_SECONDS})
            assert refused.json()["error"]["type"] == "insufficient_quota"
            assert refusal(refused) == (429, None, "insufficient_quota")
            fits = await client.post("/videos", json={"prompt": "x", "seconds": "12"})
        assert fits.status_code == 200
        assert (await there.retrieve(*whose)).enforcement.status == "inactive"
        await there.update(*whose, currency="USD", interval="month", threshold_amount=4_80)
        assert (await there.retrieve(*whose)).enforcement.status == "enforcing"
        gone = await there.delete(*whose)
        assert (gone.object, gone.deleted) == (f"{level}.spend_limit.deleted", True)
        with pytest.raises(openai.NotFoundError):
            await there.delete(*whose)
    await studio.buy(key, **SORA_PRO_12_SECONDS)
    assert await studio.executions() == 3
    assert await studio.adds_up()


async def test_what_is_held_counts_as_enforcing_before_it_is_spent(tmp_path: Path) -> None:
    async with world(tmp_path) as made, organization(made) as sdk:
        key = await made.key()
        await sdk.spend_limit.update(currency="USD", interval="month", threshold_amount=40)
        await made.buy(key, "a cat [[queue 3600]]")
        assert await made.total() == (0, 400_000)
        assert (await sdk.spend_limit.retrieve()).enforcement.status == "enforcing"


async def test_a_budget_finer_than_a_cent_is_shown_rounded_down_and_exactly(
    studio: World,
) -> None:
    await studio.budget("organization", "organization", "1.239999", period="month")
    async with organization(studio) as sdk:
        limit: Any = await sdk.spend_limit.retrieve()
    assert (limit.threshold_amount, limit.threshold_usd) == (123, "1.239999")


async def test_the_limit_of_an_unknown_project_is_a_404_and_of_an_archived_one_stays_as_it_is(
    studio: World,
) -> None:
    await studio.key()
    async with organization(studio) as sdk:
        with pytest.raises(openai.NotFoundError):
            await sdk.projects.spend_limit.retrieve("proj_none")
        with pytest.raises(openai.NotFoundError):
            await sdk.projects.spend_limit.update(
                "proj_none", currency="USD", interval="month", threshold_amount=1
            )
        project = await project_of(studio)
        await sdk.projects.spend_limit.update(
            project, currency="USD", interval="month", threshold_amount=700
        )
        await studio.change("UPDATE projects SET archived_at = 1 WHERE id = $1", project)
        for change in (
            sdk.projects.spend_limit.delete(project),
            sdk.projects.spend_limit.update(
                project, currency="USD", interval="month", threshold_amount=1
            ),
        ):
            with pytest.raises(openai.BadRequestError) as refused:
                await change
            assert (refused.value.param, refused.value.code) == ("project_id", "project_archived")
        assert (await sdk.projects.spend_limit.retrieve(project)).threshold_amount == 700


@pytest.mark.costly
@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({}, "threshold_amount", "missing_required_parameter"),
        ({"threshold_amount": 5}, "currency", "missing_required_parameter"),
        ({"threshold_amount": "5"}, "threshold_amount", "invalid_type"),
        ({"threshold_amount": 5.5}, "threshold_amount", "invalid_type"),
        ({"threshold_amount": -1}, "threshold_amount", "invalid_value"),
        ({"threshold_amount": 10**13}, "threshold_amount", "invalid_value"),
        ({"currency": "EUR"}, "currency", "invalid_value"),
        ({"interval": "day"}, "interval", "invalid_value"),
        ({"amount": 5}, "amount", "unknown_parameter"),
    ],
)
async def test_a_limit_that_is_wrong_is_refused_by_name(
    studio: World, body: dict[str, Any], param: str, code: str
) -> None:
    whole = {"threshold_amount": 5, "currency": "USD", "interval": "month"}
    sent = body if code == "missing_required_parameter" else whole | body
    async with plain(studio) as client:
        answer = await client.post("/spend_limit", json=sent)
        assert refusal(answer) == (400, param, code)
        assert refusal(await client.get("/spend_limit")) == (404, None, None)


@pytest.mark.costly
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/spend_limit"),
        ("DELETE", "/projects/p/spend_limit"),
        ("POST", "/spend_alerts"),
        ("GET", "/costs?start_time=0"),
        ("GET", "/audit_logs"),
        ("GET", "/budgets"),
        ("POST", "/orphans/x/settle"),
        ("GET", "/ledger/entries"),
        ("GET", "/videos"),
        ("GET", "/alert_deliveries"),
    ],
)
async def test_a_virtual_key_manages_nothing(studio: World, method: str, path: str) -> None:
    async with studio.client(await studio.key()) as client:
        answer = await client.request(method, f"/organization{path}")
    assert refusal(answer) == (401, None, "invalid_api_key")


async def test_budgets_of_all_levels_and_periods_are_set_listed_and_removed(
    studio: World,
) -> None:
    key = await studio.key(name="camera")
    project = await project_of(studio)
    await studio.ended(await studio.buy(key))
    wanted = [
        ("organization", "organization", "day", "9.99", None),
        ("project", project, "month", "2", "studio"),
        ("key", key.id, "total", "1.000001", "camera"),
    ]
    async with plain(studio) as client:
        for level, level_id, period, amount, name in wanted:
            whose = {} if level == "organization" else {"level_id": level_id}
            body = {"level": level, **whose, "period": period, "limit_usd": amount}
            answer = await client.post("/budgets", json=body)
            assert answer.status_code == 200, answer.text
            made = answer.json()
            assert made["id"] == f"{level}:{level_id}:{period}"
            assert (made["object"], made["name"], made["spent_usd"]) == ("budget", name, "0.40")
            assert (made["project_id"] is None) == (level == "organization")
            assert (made["resets_on"] is None) == (period == "total")
        listed = await every(studio, "/budgets", limit=1)
        assert [one["id"] for one in listed] == [
            f"{level}:{level_id}:{period}" for level, level_id, period, _, _ in wanted
        ]
        assert listed[2]["available_usd"] == "0.600001"
        backwards = await client.get("/budgets", params={"before": listed[2]["id"], "limit": 1})
        assert backwards.json()["data"] == [listed[1]]
        assert backwards.json()["has_more"] is True
        newest = await client.get("/budgets", params={"order": "desc"})
        assert newest.json()["data"] == listed[::-1]
        assert (await client.get("/budgets", params={"after": "no"})).json()["data"] == []
        async with studio.client(key) as buyer:
            refused = await buyer.post("/videos", json={"prompt": "x", "seconds": "8"})
        assert refusal(refused) == (429, None, "insufficient_quota")
        for one in listed:
            gone = await client.delete(f"/budgets/{one['id']}")
            assert gone.json() == {"id": one["id"], "object": "budget.deleted", "deleted": True}
            assert refusal(await client.delete(f"/budgets/{one['id']}")) == (404, None, None)
    assert await every(studio, "/budgets") == []
    await studio.buy(key, seconds="8")


@pytest.mark.costly
@pytest.mark.parametrize(
    ("body", "status", "param"),
    [
        ({"level": "tenant"}, 400, "level"),
        ({"level": "project"}, 400, "level_id"),
        ({"level": "project", "level_id": "proj_none"}, 404, None),
        ({"level": "key", "level_id": "key_none"}, 404, None),
        ({"level_id": "another"}, 400, "level_id"),
        ({"period": "week"}, 400, "period"),
        ({"limit_usd": 5}, 400, "limit_usd"),
        ({"limit_usd": "-5"}, 400, "limit_usd"),
        ({"limit_usd": "0.0000001"}, 400, "limit_usd"),
        ({"limit_usd": "1" * 400}, 400, "limit_usd"),
    ],
)
async def test_a_budget_that_is_wrong_is_refused_by_name(
    studio: World, body: dict[str, Any], status: int, param: str | None
) -> None:
    whole = {"level": "organization", "period": "day", "limit_usd": "5"}
    async with plain(studio) as client:
        answer = await client.post("/budgets", json=whole | body)
    assert refusal(answer)[:2] == (status, param)
    assert await every(studio, "/budgets") == []


async def test_the_budgets_of_an_archived_project_cannot_be_changed(studio: World) -> None:
    key = await studio.key(budget="3")
    await studio.change("UPDATE projects SET archived_at = 1")
    async with plain(studio) as client:
        gone = await client.delete(f"/budgets/key:{key.id}:month")
        body = {"level": "key", "level_id": key.id, "period": "month", "limit_usd": "5"}
        more = await client.post("/budgets", json=body)
    assert refusal(gone) == refusal(more) == (400, "project_id", "project_archived")
    (one,) = await every(studio, "/budgets")
    assert one["limit_usd"] == "3.00"


async def test_a_revoked_key_has_no_budget_that_could_be_changed(studio: World) -> None:
    key = await studio.key(budget="3")
    await studio.change("UPDATE keys SET revoked_at = 1 WHERE id = $1", key.id)
    async with plain(studio) as client:
        gone = await client.delete(f"/budgets/key:{key.id}:month")
        body = {"level": "key", "level_id": key.id, "period": "month", "limit_usd": "5"}
        more = await client.post("/budgets", json=body)
    assert refusal(gone) == refusal(more) == (404, None, None)
    (one,) = await every(studio, "/budgets")
    assert one["limit_usd"] == "3.00"


@pytest.mark.costly
@pytest.mark.parametrize("budget_id", ["none", "a:b:c", "organization:x:day", "project::month"])
async def test_a_budget_that_is_not_there_is_a_404(studio: World, budget_id: str) -> None:
    async with plain(studio) as client:
        assert refusal(await client.delete(f"/budgets/{budget_id}")) == (404, None, None)
