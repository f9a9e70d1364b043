"""Who is let in to the admin API, and who makes and ends admin keys?"""

import openai
import pytest
from admin_clients import ask, told, with_admin
from conftest import ADMIN_KEY, World
from openai import OpenAI

from gateway.billing.key_values import ADMIN, well_formed

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_an_admin_key_made_by_the_sdk_is_one(shared: World) -> None:
    def use(sdk: OpenAI) -> tuple[str, str]:
        admin_keys = sdk.admin.organization.admin_api_keys
        made = admin_keys.create(name="terraform", expires_in_seconds=60)
        assert (made.name, made.expires_at) == ("terraform", made.created_at + 60)
        assert made.redacted_value == f"vga_…{made.value[-4:]}"
        found = admin_keys.retrieve(made.id)
        assert "value" not in found.model_dump()
        assert found in admin_keys.list(limit=100).data
        assert next(one.name for one in admin_keys.list(order="asc")) == "setting admin_key"
        return made.id, made.value

    key_id, value = await with_admin(shared, use)
    assert well_formed(value, ADMIN)

    def use_it(sdk: OpenAI) -> None:
        admin_keys = sdk.admin.organization.admin_api_keys
        gone = admin_keys.delete(key_id)
        assert (gone.id, gone.deleted) == (key_id, True)
        with pytest.raises(openai.AuthenticationError):
            admin_keys.list()

    await with_admin(shared, use_it, admin_key=value)
    assert (await ask(shared, "GET", f"/admin_api_keys/{key_id}")).status_code == 404
    assert (await ask(shared, "DELETE", f"/admin_api_keys/{key_id}")).status_code == 404


async def test_an_admin_key_expires(shared: World) -> None:
    made = await told(
        shared, "POST", "/admin_api_keys", json={"name": "short", "expires_in_seconds": 60}
    )
    assert (await ask(shared, "GET", "/projects", key=made["value"])).status_code == 200
    shared.timeline.offset_seconds += 60
    assert (await ask(shared, "GET", "/projects", key=made["value"])).status_code == 401


async def test_the_admin_key_of_the_setting_cannot_be_deleted(shared: World) -> None:
    listed = await told(shared, "GET", "/admin_api_keys?order=asc&limit=1")
    (setting,) = listed["data"]
    answer = await ask(shared, "DELETE", f"/admin_api_keys/{setting['id']}")
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "admin_key_from_settings")
    assert error["param"] == "key_id"
    assert "setting `admin_key`" in error["message"]
    assert (await ask(shared, "GET", "/projects")).status_code == 200


async def test_a_key_of_the_wrong_kind_is_told_the_same_as_one_that_does_not_exist(
    shared: World,
) -> None:
    key = await shared.key()
    answers = [
        await ask(shared, "GET", path, key=value)
        for value in (key.value, "sk-none", f"{ADMIN_KEY}x")
        for path in ("/projects", "/admin_api_keys", f"/projects/{key.project_id}/api_keys")
    ]
    async with shared.client(ADMIN_KEY) as client:
        answers += [await client.get("/videos"), await client.get("/models")]
        answers.append(await client.post("/videos", json={"prompt": "a cat"}))
    assert {answer.status_code for answer in answers} == {401}
    assert len({answer.text for answer in answers}) == 1
    assert answers[0].json()["error"]["code"] == "invalid_api_key"
