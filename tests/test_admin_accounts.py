"""Do service accounts have the shapes of the official SDK, and hold the access of their keys?"""

import pytest
from admin_clients import admin_sdk, refused, told, with_admin
from conftest import World
from openai import OpenAI

from gateway.api.organization.checks import MAX_LIFETIME_SECONDS
from gateway.billing.key_values import VIRTUAL, well_formed

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_service_account_comes_with_a_key_that_works(shared: World) -> None:
    project = await told(shared, "POST", "/projects", json={"name": "films"})

    def use(sdk: OpenAI) -> tuple[str, str]:
        accounts = sdk.admin.organization.projects.service_accounts
        made = accounts.create(project["id"], name="renderer", expires_in_seconds=3600)
        assert made.id.startswith("svc_acct_")
        assert (made.name, made.role) == ("renderer", "member")
        assert made.api_key is not None
        assert made.api_key.id.startswith("key_")
        assert made.api_key.name == "renderer"
        assert made.api_key.expires_at == made.api_key.created_at + 3600
        (listed,) = accounts.list(project["id"]).data
        assert listed.id == made.id
        assert accounts.retrieve(made.id, project_id=project["id"]) == listed
        changed = accounts.update(made.id, project_id=project["id"], name="cutter", role="owner")
        assert (changed.name, changed.role) == ("cutter", "owner")
        assert accounts.update(made.id, project_id=project["id"]) == changed
        return made.id, made.api_key.value

    account_id, value = await with_admin(shared, use)
    assert well_formed(value, VIRTUAL)
    async with shared.client(value) as client:
        assert (await client.get("/videos")).status_code == 200

        def delete(sdk: OpenAI) -> None:
            accounts = sdk.admin.organization.projects.service_accounts
            gone = accounts.delete(account_id, project_id=project["id"])
            assert (gone.id, gone.deleted) == (account_id, True)
            assert accounts.list(project["id"]).data == []

        await with_admin(shared, delete)
        assert (await client.get("/videos")).status_code == 401


async def test_an_account_alone_has_no_role_and_its_keys_no_access_until_it_gets_one(
    shared: World,
) -> None:
    project = await told(shared, "POST", "/projects", json={"name": "films"})
    async with admin_sdk(shared) as sdk:
        accounts = sdk.admin.organization.projects.service_accounts
        made = await accounts.create(project["id"], name="late", create_service_account_only=True)
        assert (made.role, made.api_key) == ("none", None)
        key = await accounts.api_keys.create(made.id, project_id=project["id"])
        assert (key.name, key.expires_at) == ("late", None)
        keys = sdk.admin.organization.projects.api_keys
        assert (await keys.retrieve(key.id, project_id=project["id"])).owner_project_access == (
            "inactive"
        )
        async with shared.client(key.value) as client:
            assert (await client.get("/videos")).status_code == 401
            await accounts.update(made.id, project_id=project["id"], role="member")
            assert (await client.get("/videos")).status_code == 200


async def test_an_account_without_a_key_has_none_that_could_expire(shared: World) -> None:
    project = await told(shared, "POST", "/projects", json={"name": "films"})
    for path, sent, wrong in (
        (
            "/service_accounts",
            {"name": "a", "create_service_account_only": True, "expires_in_seconds": 1},
            (400, "invalid_value", "expires_in_seconds"),
        ),
        ("/service_accounts", {}, (400, "missing_required_parameter", "name")),
        (
            "/service_accounts",
            {"name": "a", "expires_in_seconds": MAX_LIFETIME_SECONDS + 1},
            (400, "invalid_value", "expires_in_seconds"),
        ),
    ):
        found = await refused(shared, "POST", f"/projects/{project['id']}{path}", json=sent)
        assert found == wrong
    listed = await told(shared, "GET", f"/projects/{project['id']}/service_accounts")
    assert listed["data"] == []
