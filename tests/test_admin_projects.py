"""Do projects have the shapes of the official SDK, and end for good?"""

from typing import Any

import pytest
from admin_clients import admin_sdk, ask, refused, told, with_admin
from conftest import World
from openai import OpenAI

pytestmark = pytest.mark.asyncio(loop_scope="module")


async def test_a_project_is_made_renamed_listed_and_archived_by_the_sdk(shared: World) -> None:
    def use(sdk: OpenAI) -> None:
        projects = sdk.admin.organization.projects
        project = projects.create(name="films", residency="GLOBAL")
        assert project.id.startswith("proj_")
        assert (project.name, project.status, project.archived_at) == ("films", "active", None)
        assert (project.external_key_id, project.residency) == (None, None)
        assert projects.update(project.id, name="movies").name == "movies"
        assert projects.update(project.id).name == "movies"
        assert projects.retrieve(project.id).name == "movies"
        assert projects.list(limit=1).data == [projects.retrieve(project.id)]
        archived = projects.archive(project.id)
        assert (archived.status, archived.archived_at is not None) == ("archived", True)
        assert projects.archive(project.id) == archived
        assert projects.retrieve(project.id) == archived
        assert project.id not in [one.id for one in projects.list()]
        assert project.id in [one.id for one in projects.list(include_archived=True)]

    await with_admin(shared, use)


async def test_a_list_is_paged_by_the_asynchronous_client_without_a_gap(shared: World) -> None:
    async with admin_sdk(shared) as sdk:
        projects = sdk.admin.organization.projects
        made = [(await projects.create(name="one of many")).id for _ in range(5)]
        found = [one.id async for one in projects.list(limit=2) if one.name == "one of many"]
        assert sorted(found) == sorted(made)
        page = await projects.list(limit=2)
        assert (page.has_more, page.last_id) == (True, page.data[-1].id)
        assert (await projects.list(after="unknown")).data == []
        assert (await projects.list(limit=0)).data == []


@pytest.mark.parametrize("sent", [{}, {"json": {}}, {"headers": {"content-type": "text/plain"}}])
async def test_a_project_is_archived_however_an_empty_body_is_sent(
    shared: World, sent: dict[str, Any]
) -> None:
    project = await told(shared, "POST", "/projects", json={"name": "short"})
    archived = await told(shared, "POST", f"/projects/{project['id']}/archive", **sent)
    assert archived["status"] == "archived"


@pytest.mark.parametrize(
    ("field", "value", "code"),
    [
        ("external_key_id", "key", "invalid_value"),
        ("geography", "EU", "invalid_value"),
        ("residency", "EU_STORAGE_PROCESSING", "invalid_value"),
        ("name", "", "invalid_value"),
        ("name", 7, "invalid_type"),
        ("budget", 7, "unknown_parameter"),
    ],
)
async def test_what_a_project_cannot_have_is_refused_by_name(
    shared: World, field: str, value: Any, code: str
) -> None:
    sent = {"name": "films"} | {field: value}
    assert await refused(shared, "POST", "/projects", json=sent) == (400, code, field)


async def test_null_says_that_a_project_has_none(shared: World) -> None:
    nothing = dict.fromkeys(("external_key_id", "geography", "residency"))
    made = await told(shared, "POST", "/projects", json={"name": "films", **nothing})
    assert made["name"] == "films"
    assert await refused(shared, "POST", "/projects", json={"name": None}) == (
        400,
        "missing_required_parameter",
        "name",
    )


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", ""),
        ("POST", ""),
        ("POST", "/archive"),
        ("GET", "/service_accounts"),
        ("GET", "/service_accounts/s"),
        ("DELETE", "/service_accounts/s"),
        ("POST", "/service_accounts/s/api_keys"),
        ("GET", "/api_keys"),
        ("GET", "/api_keys/k"),
        ("POST", "/api_keys/k"),
        ("POST", "/api_keys/k/rotate"),
        ("DELETE", "/api_keys/k"),
        ("GET", "/api_keys/k/model_permissions"),
        ("DELETE", "/api_keys/k/model_permissions"),
        ("GET", "/api_keys/k/limits"),
        ("POST", "/api_keys/k/limits"),
        ("GET", "/model_permissions"),
        ("DELETE", "/model_permissions"),
        ("GET", "/limits"),
        ("POST", "/limits"),
        ("GET", "/rate_limits"),
        ("POST", "/rate_limits/rl-all"),
    ],
)
async def test_an_unknown_project_is_a_404_that_names_it(
    shared: World, method: str, path: str
) -> None:
    answer = await ask(shared, method, f"/projects/no%2Fsuch{path}")
    assert answer.status_code == 404
    assert answer.json()["error"] == {
        "message": "No such project: 'no/such'.",
        "type": "invalid_request_error",
        "param": None,
        "code": None,
    }


async def test_unknown_accounts_and_keys_are_404s_that_name_them(shared: World) -> None:
    project = await told(shared, "POST", "/projects", json={"name": "films"})
    other = await shared.key(project="another")
    path = f"/projects/{project['id']}"
    for method, rest, message in (
        ("GET", "/service_accounts/none", "No such service account: 'none'."),
        ("POST", "/service_accounts/none", "No such service account: 'none'."),
        ("DELETE", "/service_accounts/none", "No such service account: 'none'."),
        ("POST", "/service_accounts/none/api_keys", "No such service account: 'none'."),
        ("GET", f"/api_keys/{other.id}", f"No such API key: '{other.id}'."),
        ("POST", f"/api_keys/{other.id}", f"No such API key: '{other.id}'."),
        ("POST", f"/api_keys/{other.id}/rotate", f"No such API key: '{other.id}'."),
        ("DELETE", f"/api_keys/{other.id}", f"No such API key: '{other.id}'."),
        ("POST", f"/api_keys/{other.id}/limits", f"No such API key: '{other.id}'."),
        ("GET", f"/api_keys/{other.id}/model_permissions", f"No such API key: '{other.id}'."),
        ("POST", "/rate_limits/rl-none", "No such rate limit: 'rl-none'."),
    ):
        answer = await ask(shared, method, f"{path}{rest}")
        assert (answer.status_code, answer.json()["error"]["message"]) == (404, message)
    async with shared.client(other) as client:
        assert (await client.get("/videos")).status_code == 200


async def test_nothing_can_be_made_or_changed_in_an_archived_project(shared: World) -> None:
    key = await shared.key(project="over")
    path = f"/projects/{key.project_id}"
    (account,) = (await told(shared, "GET", f"{path}/service_accounts"))["data"]
    account_path, key_path = f"/service_accounts/{account['id']}", f"/api_keys/{key.id}"
    await told(shared, "POST", f"{path}/archive")
    before = await shared.one("SELECT COUNT(*) FROM audit_log")
    for method, rest, sent in (
        ("POST", "", {"name": "again"}),
        ("POST", "/service_accounts", {"name": "late"}),
        ("POST", account_path, {"name": "late"}),
        ("DELETE", account_path, None),
        ("POST", f"{account_path}/api_keys", {}),
        ("POST", key_path, {"scopes": []}),
        ("POST", f"{key_path}/rotate", {}),
        ("DELETE", key_path, None),
        ("POST", f"{key_path}/model_permissions", {"mode": "deny_list", "model_ids": []}),
        ("DELETE", f"{key_path}/model_permissions", None),
        ("POST", f"{key_path}/limits", {"max_videos_in_flight": 1}),
        ("POST", "/model_permissions", {"mode": "deny_list", "model_ids": []}),
        ("DELETE", "/model_permissions", None),
        ("POST", "/limits", {"max_videos_in_flight": 1}),
        ("POST", "/rate_limits/rl-all", {"max_requests_per_1_minute": 1}),
    ):
        body: dict[str, Any] = {} if sent is None else {"json": sent}
        answer = await ask(shared, method, f"{path}{rest}", **body)
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (400, "project_archived"), rest
        assert error["param"] == "project_id"
        assert key.project_id in error["message"]
    assert await shared.one("SELECT COUNT(*) FROM audit_log") == before
    for rest in (
        *("", "/service_accounts", account_path, "/api_keys", key_path, "/model_permissions"),
        *("/limits", "/rate_limits", f"{key_path}/limits", f"{key_path}/model_permissions"),
    ):
        await told(shared, "GET", f"{path}{rest}")
    inactive = await told(shared, "GET", f"{path}/api_keys?owner_project_access=inactive")
    assert [one["owner_project_access"] for one in inactive["data"]] == ["inactive"]
    active = await told(shared, "GET", f"{path}/api_keys?owner_project_access=active")
    assert active["data"] == []
