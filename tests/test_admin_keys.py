"""Do the keys of a project obey the admin API?"""

import openai
import pytest
from admin_clients import admin_sdk, ask, refused, told, with_admin
from conftest import World
from openai import AsyncOpenAI, OpenAI

from gateway.api.organization.api_keys import MAX_GRACE_SECONDS
from gateway.billing.key_values import VIRTUAL, well_formed
from gateway.billing.keys import NewKey

on_shared = pytest.mark.asyncio(loop_scope="module")


def path_of(key: NewKey, rest: str = "") -> str:
    return f"/projects/{key.project_id}/api_keys/{key.id}{rest}"


async def reads(made: World, value: str) -> int:
    """Return the status of a read with a key."""
    async with made.client(value) as client:
        return (await client.get("/videos")).status_code


@on_shared
async def test_keys_are_listed_shown_changed_and_revoked_by_the_sdk(shared: World) -> None:
    key = await shared.key(project="one", name="renderer")
    other = await shared.key(project="one")

    def use(sdk: OpenAI) -> None:
        keys = sdk.admin.organization.projects.api_keys
        found = keys.retrieve(key.id, project_id=key.project_id)
        assert (found.name, found.expires_at, found.last_used_at) == ("renderer", None, None)
        assert found.redacted_value == f"vgk_…{key.value[-4:]}"
        assert found.owner_project_access == "active"
        assert (found.owner.type, found.owner.user) == ("service_account", None)
        assert found.owner.service_account is not None
        assert found.owner.service_account.name == "renderer"
        assert {one.id for one in keys.list(key.project_id, limit=1)} == {key.id, other.id}
        assert keys.list(key.project_id, owner_project_access="inactive").data == []
        assert len(keys.list(key.project_id, owner_project_access="any").data) == 2
        changed = keys.update(key.id, project_id=key.project_id, expires_in_seconds=60)
        assert changed.expires_at is not None
        assert abs(changed.expires_at - shared.timeline.clock().now() - 60) < 30
        assert keys.update(key.id, project_id=key.project_id) == changed
        gone = keys.delete(key.id, project_id=key.project_id)
        assert (gone.id, gone.deleted) == (key.id, True)
        assert [one.id for one in keys.list(key.project_id)] == [other.id]
        with pytest.raises(openai.NotFoundError):
            keys.retrieve(key.id, project_id=key.project_id)
        with pytest.raises(openai.NotFoundError):
            keys.delete(key.id, project_id=key.project_id)

    await with_admin(shared, use)
    assert await reads(shared, key.value) == 401
    assert await reads(shared, other.value) == 200


@on_shared
@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
async def test_a_read_only_key_reads_and_buys_nothing(shared: World) -> None:
    key = await shared.key()
    async with (
        admin_sdk(shared) as sdk,
        AsyncOpenAI(base_url=shared.base_url, api_key=key.value) as client,
    ):
        keys = sdk.admin.organization.projects.api_keys
        await keys.update(key.id, project_id=key.project_id, scopes=["api.all.read"])
        with pytest.raises(openai.PermissionDeniedError) as denied:
            await client.videos.create(prompt="a cat")
        assert denied.value.code == "insufficient_permissions"
        await client.videos.list()
        assert (await told(shared, "GET", path_of(key)))["scopes"] == ["api.all.read"]
        await keys.update(key.id, project_id=key.project_id, scopes=[])
        video = await client.videos.create(prompt="a cat")
    await shared.ended(video.id)


@on_shared
async def test_a_new_key_of_an_account_can_be_read_only_and_expire(shared: World) -> None:
    project = await told(shared, "POST", "/projects", json={"name": "films"})
    path = f"/projects/{project['id']}"
    account = await told(shared, "POST", f"{path}/service_accounts", json={"name": "viewer"})
    async with admin_sdk(shared) as sdk:
        made = await sdk.admin.organization.projects.service_accounts.api_keys.create(
            account["id"],
            project_id=project["id"],
            name="wall",
            scopes=["api.all.read"],
            expires_in_seconds=60,
        )
    assert (made.name, made.expires_at) == ("wall", made.created_at + 60)
    assert well_formed(made.value, VIRTUAL)
    async with shared.client(made.value) as client:
        assert (await client.post("/videos", json={"prompt": "a cat"})).status_code == 403
        assert (await client.get("/videos")).status_code == 200
        shared.timeline.offset_seconds += 60
        assert (await client.get("/videos")).status_code == 401
    key_path = f"{path}/api_keys/{made.id}"
    for rest in ("", "/rotate"):
        answer = await ask(shared, "POST", f"{key_path}{rest}", json={})
        assert (answer.status_code, answer.json()["error"]["code"]) == (400, "api_key_expired")


@on_shared
@pytest.mark.parametrize(
    ("rest", "field", "value", "code"),
    [
        ("", "scopes", ["api.model.read"], "invalid_value"),
        ("", "scopes", ["api.all.read", "api.all.write"], "invalid_value"),
        ("", "scopes", "api.all.read", "invalid_type"),
        ("", "scopes", [1], "invalid_value"),
        ("", "expires_in_seconds", 0, "invalid_value"),
        ("", "expires_in_seconds", "60", "invalid_type"),
        ("", "name", "other", "unknown_parameter"),
        ("/rotate", "grace_seconds", -1, "invalid_value"),
        ("/rotate", "grace_seconds", MAX_GRACE_SECONDS + 1, "invalid_value"),
        ("/rotate", "grace_seconds", True, "invalid_type"),
    ],
)
async def test_a_wrong_field_of_a_key_is_refused_by_name(
    shared: World, rest: str, field: str, value: object, code: str
) -> None:
    key = await shared.key()
    found = await refused(shared, "POST", path_of(key, rest), json={field: value})
    assert found == (400, code, field)
    assert await reads(shared, key.value) == 200


@on_shared
async def test_a_wrong_filter_of_a_list_is_refused_by_name(shared: World) -> None:
    key = await shared.key()
    path = f"/projects/{key.project_id}/api_keys"
    for name, value in (("owner_project_access", "some"), ("limit", "101"), ("order", "up")):
        found = await refused(shared, "GET", path, params={name: value})
        assert found == (400, "invalid_value", name)
    assert await refused(shared, "GET", "/projects", params={"include_archived": "yes"}) == (
        400,
        "invalid_value",
        "include_archived",
    )


@on_shared
async def test_a_rotated_key_is_the_same_key_and_its_old_value_ends_after_the_grace(
    shared: World,
) -> None:
    key = await shared.key(budget="100")
    video_id = await shared.buy(key)
    await shared.ended(video_id)
    rotated = await told(shared, "POST", path_of(key, "/rotate"), json={"grace_seconds": 60})
    assert (rotated["id"], rotated["object"]) == (key.id, "organization.project.api_key")
    assert rotated["redacted_value"] == f"vgk_…{rotated['value'][-4:]}"
    assert await reads(shared, key.value) == 200
    async with shared.client(rotated["value"]) as client:
        assert (await client.get(f"/videos/{video_id}")).status_code == 200
    shared.timeline.offset_seconds += 60
    assert await reads(shared, key.value) == 401
    assert await reads(shared, rotated["value"]) == 200
    assert "value" not in await told(shared, "GET", path_of(key))


@on_shared
async def test_without_a_grace_the_old_value_ends_at_once(shared: World) -> None:
    key = await shared.key()
    async with shared.client(key) as client:
        assert (await client.get("/videos")).status_code == 200
        rotated = await told(shared, "POST", path_of(key, "/rotate"))
        assert (await client.get("/videos")).status_code == 401
    assert await reads(shared, rotated["value"]) == 200
