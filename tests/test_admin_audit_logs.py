"""Does every change leave its line, in OpenAI's shape, with what stood before and after?"""

from typing import Any, get_args

import pytest
from admin_tools import EMAIL, every, organization, plain, refusal
from conftest import World
from openai.types.admin.organization import AuditLogListResponse

from gateway.api.organization.audit_logs import TENANT_EVENTS


async def first_project(made: World) -> str:
    return str(await made.one("SELECT id FROM projects ORDER BY created_at, id LIMIT 1"))


async def test_a_change_by_the_api_leaves_its_actor_its_request_and_what_stood_before_and_after(
    studio: World,
) -> None:
    await studio.key()
    project = await first_project(studio)
    async with plain(studio) as client:
        for number, cents in enumerate((500, 700)):
            await client.post(
                f"/projects/{project}/spend_limit",
                json={"threshold_amount": cents, "currency": "USD", "interval": "month"},
                headers={"x-request-id": f"change-{number}"},
            )
        await client.delete(f"/projects/{project}/spend_limit")
    async with organization(studio) as sdk:
        page = await sdk.audit_logs.list(event_types=["tenant.billing.overage_limit.updated"])
    admin_key_id = await studio.one("SELECT id FROM admin_keys")
    lines: list[Any] = page.data
    assert [(line.before, line.after) for line in lines] == [
        ({"limit_micros": 7_000_000}, None),
        ({"limit_micros": 5_000_000}, {"limit_micros": 7_000_000}),
        (None, {"limit_micros": 5_000_000}),
    ]
    assert [line.request_id for line in lines[1:]] == ["change-1", "change-0"]
    for line in lines:
        assert (line.actor.type, line.actor.api_key.id) == ("api_key", admin_key_id)
        assert (line.actor.kind, line.actor.id) == ("admin_key", admin_key_id)
        assert (line.project.id, line.project.name) == (project, "studio")
        assert (line.resource, line.resource_id) == ("budget", f"project:{project}:month")


async def test_commands_and_the_gateway_itself_are_actors_of_neither_of_openais_types(
    studio: World,
) -> None:
    key = await studio.key(name="camera")
    async with organization(studio) as sdk:
        lines: list[Any] = [line async for line in sdk.audit_logs.list(limit=2)]
    by_type = {line.type: line for line in lines}
    assert set(by_type) >= {
        "tenant.admin_api_key.created",
        "project.created",
        "service_account.created",
        "api_key.created",
    }
    settings = by_type["tenant.admin_api_key.created"]
    assert (settings.actor.type, settings.actor.kind, settings.project) == (None, "gateway", None)
    made = by_type["project.created"]
    assert (made.actor.type, made.actor.kind, made.actor.id) == (None, "command", "tests")
    assert made.project_created.id == made.project.id
    assert (made.project_created.data.name, made.project_created.data.title) == ("studio", "studio")
    assert by_type["service_account.created"].service_account_created.data.role == "member"
    assert by_type["api_key.created"].api_key_created.id == key.id
    assert by_type["api_key.created"].api_key_created.data.scopes == []


async def test_what_was_asked_for_stands_under_the_name_of_the_event(studio: World) -> None:
    key = await studio.key()
    project = await first_project(studio)
    async with organization(studio) as sdk, plain(studio) as client:
        await client.post(f"/projects/{project}", json={"name": "atelier"})
        await client.post(
            f"/projects/{project}/api_keys/{key.id}", json={"scopes": ["api.all.read"]}
        )
        await client.post(
            f"/projects/{project}/api_keys/{key.id}/limits", json={"max_requests_per_1_minute": 3}
        )
        await client.delete(f"/projects/{project}/api_keys/{key.id}")
        await client.post(f"/projects/{project}/archive")
        lines: list[Any] = [line async for line in sdk.audit_logs.list()]
    by_type = {line.type: line for line in reversed(lines)}
    assert by_type["project.updated"].project_updated.changes_requested.title == "atelier"
    assert by_type["project.updated"].before == {"name": "studio"}
    assert by_type["api_key.updated"].api_key_updated.changes_requested.scopes == ["api.all.read"]
    limited = by_type["rate_limit.updated"].rate_limit_updated
    assert limited.changes_requested.max_requests_per_1_minute == 3
    assert by_type["api_key.deleted"].api_key_deleted.id == key.id
    assert by_type["project.archived"].project_archived.id == project


async def test_lines_are_chosen_by_time_project_type_actor_and_resource(studio: World) -> None:
    await studio.key()
    studio.timeline.offset_seconds += 1000
    middle = studio.timeline.clock().now()
    studio.timeline.offset_seconds += 1000
    await studio.key(project="other")
    lines = await every(studio, "/audit_logs")
    old = [line for line in lines if line["effective_at"] < middle]
    new = [line for line in lines if line["effective_at"] > middle]
    assert old
    assert new
    assert lines == new + old
    first, last = lines[-1]["effective_at"], lines[0]["effective_at"]
    for query, wanted in (
        ({"effective_at[gt]": middle}, new),
        ({"effective_at[lt]": middle}, old),
        ({"effective_at[gte]": last}, [one for one in lines if one["effective_at"] >= last]),
        ({"effective_at[gt]": last}, []),
        ({"effective_at[lte]": first}, [one for one in lines if one["effective_at"] <= first]),
        ({"effective_at[lt]": first}, []),
        ({"effective_at[gte]": first, "effective_at[gt]": middle}, new),
        ({"project_ids[]": new[0]["project"]["id"]}, new),
        (
            {"event_types[]": "api_key.created"},
            [one for one in lines if one["type"] == "api_key.created"],
        ),
        ({"event_types[]": "login.failed"}, []),
        ({"actor_ids[]": "tests"}, [one for one in lines if one["actor"]["id"] == "tests"]),
        ({"resource_ids[]": new[0]["resource_id"]}, new[:1]),
        ({"actor_emails[]": "a@b.c"}, []),
        ({"tenant_only": "true"}, [one for one in lines if one["type"].startswith("tenant.")]),
        ({"tenant_only": "true", "event_types[]": "api_key.created"}, []),
        ({"order": "asc"}, lines[::-1]),
        ({"limit": 1}, lines),
    ):
        assert await every(studio, "/audit_logs", **query) == wanted, query
    async with plain(studio) as client:
        for name in ("gt", "gte", "lt", "lte"):
            answer = await client.get("/audit_logs", params={f"effective_at[{name}]": "soon"})
            assert refusal(answer) == (400, f"effective_at[{name}]", "invalid_value")
        answer = await client.get("/audit_logs", params={"tenant_only": "perhaps"})
        assert refusal(answer) == (400, "tenant_only", "invalid_value")


async def test_pages_go_forth_and_back_without_a_gap(studio: World) -> None:
    await studio.key()
    lines = await every(studio, "/audit_logs")
    async with organization(studio) as sdk:
        page = await sdk.audit_logs.list(limit=2, after=lines[0]["id"])
        assert [one.id for one in page.data] == [one["id"] for one in lines[1:3]]
        page = await sdk.audit_logs.list(limit=1, before=lines[2]["id"])
        assert [one.id for one in page.data] == [lines[1]["id"]]


async def test_every_event_that_is_written_is_one_of_openais(studio: World) -> None:
    known = get_args(AuditLogListResponse.model_fields["type"].annotation)
    assert set(TENANT_EVENTS) <= set(known)
    key = await studio.key(budget="5")
    await studio.ended(await studio.buy(key))
    async with organization(studio) as sdk:
        await sdk.spend_alerts.create(
            threshold_amount=1, currency="USD", interval="month", notification_channel=EMAIL
        )
        # Checked strictly: a word that is not in the SDK's list raises.
        lines = [line async for line in sdk.audit_logs.list()]
    written = {line.type for line in lines if line.type.startswith("tenant.")}
    assert written <= set(TENANT_EVENTS)


@pytest.mark.parametrize("kind", ["value", "prompt"])
async def test_no_line_holds_a_key_or_a_prompt(studio: World, kind: str) -> None:
    key = await studio.key()
    await studio.buy(key, "a very secret cat")
    secret = {"value": key.value, "prompt": "a very secret cat"}[kind]
    async with plain(studio) as client:
        assert secret not in (await client.get("/audit_logs", params={"limit": 100})).text
