"""Does the admin API say which models may be asked for, from the next request on?"""

from typing import Any

import pytest
import pytest_asyncio
from admin_clients import create, paths_of, refused, told, with_admin
from conftest import World
from openai import OpenAI

from gateway.billing.keys import NewKey

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(loop_scope="module")
async def key(shared: World, request: pytest.FixtureRequest) -> NewKey:
    """A key in a project of its own."""
    return await shared.key(project=request.node.name)


async def test_a_list_of_models_is_made_shown_and_removed_by_the_sdk(
    shared: World, key: NewKey
) -> None:
    def use(sdk: OpenAI) -> None:
        permissions = sdk.admin.organization.projects.model_permissions
        before = permissions.retrieve(key.project_id)
        assert (before.mode, before.api_model_ids) == ("deny_list", [])
        made = permissions.update(key.project_id, mode="allow_list", model_ids=["sora-2-pro"])
        assert (made.mode, made.api_model_ids) == ("allow_list", ["sora-2-pro"])
        assert permissions.retrieve(key.project_id) == made
        assert permissions.delete(key.project_id).deleted is True
        assert permissions.retrieve(key.project_id) == before

    await with_admin(shared, use)


@pytest.mark.parametrize("level", [0, 1], ids=["project", "key"])
async def test_a_model_that_is_not_allowed_is_refused_from_the_next_request_on(
    shared: World, key: NewKey, level: int
) -> None:
    path = paths_of(key, "/model_permissions")[level]
    assert await create(shared, key) == (200, None)
    await told(shared, "POST", path, json={"mode": "deny_list", "model_ids": ["sora-2"]})
    assert await create(shared, key) == (403, "model_not_found")
    assert await create(shared, key, model="sora-2-pro") == (200, None)
    await told(shared, "DELETE", path)
    assert await create(shared, key) == (200, None)


async def test_the_list_of_a_key_is_not_that_of_its_project(shared: World, key: NewKey) -> None:
    of_project, of_key = paths_of(key, "/model_permissions")
    sent = {"mode": "deny_list", "model_ids": ["sora-2"]}
    made = await told(shared, "POST", of_key, json=sent)
    assert made == {
        "object": "project.api_key.model_permissions",
        **sent,
        "unknown_model_ids": [],
    }
    assert (await told(shared, "GET", of_project))["model_ids"] == []
    assert (await told(shared, "DELETE", of_key)) == {
        "object": "project.api_key.model_permissions.deleted",
        "deleted": True,
    }


async def test_an_alias_stands_for_its_model_and_an_unknown_name_is_kept_and_told(
    shared: World, key: NewKey
) -> None:
    path, _ = paths_of(key, "/model_permissions")
    sent = ["sora-2", "sora-2-2025-10-06", "sora-9", "sora-9"]
    made = await told(shared, "POST", path, json={"mode": "deny_list", "model_ids": sent})
    assert made["model_ids"] == ["sora-2", "sora-9"]
    assert made["unknown_model_ids"] == ["sora-9"]


@pytest.mark.parametrize(
    ("sent", "code", "param"),
    [
        ({"mode": "allow_list"}, "missing_required_parameter", "model_ids"),
        ({"model_ids": []}, "missing_required_parameter", "mode"),
        ({"mode": "allow", "model_ids": []}, "invalid_value", "mode"),
        ({"mode": "allow_list", "model_ids": "sora-2"}, "invalid_type", "model_ids"),
        ({"mode": "allow_list", "model_ids": [2]}, "invalid_type", "model_ids"),
        ({"mode": "allow_list", "model_ids": [""]}, "invalid_value", "model_ids"),
    ],
)
async def test_a_wrong_list_of_models_is_refused_by_name(
    shared: World, key: NewKey, sent: dict[str, Any], code: str, param: str
) -> None:
    path, _ = paths_of(key, "/model_permissions")
    assert await refused(shared, "POST", path, json=sent) == (400, code, param)
