"""Is what is named with NUL the same as what is not there, whoever asks for it and how?

PostgreSQL has no such text, and refuses to be asked for it. SQLite has it: there it is what each
test asks for, and an answer that finds it has asked the database.
"""

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from urllib.parse import quote

import httpx
import pytest
import pytest_asyncio
from conftest import ADMIN_KEY, World, raw_request, world
from databases import SQLITE, engine

from gateway.billing.keys import NewKey
from gateway.simulator.mp4 import make_mp4
from gateway.upstream.requests import OPERATIONS

pytestmark = pytest.mark.asyncio(loop_scope="module")

NUL = "\0"
NOBODY = "none"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(place: Path) -> AsyncIterator[World]:
    async with world(place / "names", upstream_offers=OPERATIONS) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def key(shared: World) -> NewKey:
    return await shared.key()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def video(shared: World, key: NewKey) -> str:
    """A finished video, between two others, that is called what PostgreSQL cannot hold."""
    await shared.buy(key)
    bought = await shared.buy(key)
    await shared.buy(key)
    await shared.mirrored(bought)
    return await renamed(shared, bought)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def character(shared: World, key: NewKey) -> str:
    clip = make_mp4(width=720, height=1280, seconds=2, tag=b"")
    sent: dict[str, Any] = {
        "data": {"name": "Mossy"},
        "files": {"video": ("upload", clip, "application/octet-stream")},
    }
    answer = await ask(shared, key, "POST", "/videos/characters", **sent)
    assert answer.status_code == 200, answer.text
    return await renamed(shared, answer.json()["id"])


async def renamed(made: World, upstream_id: str) -> str:
    if engine() == SQLITE:
        change = "UPDATE videos SET upstream_id = $2 WHERE upstream_id = $1"
        await made.change(change, upstream_id, upstream_id + NUL)
    return upstream_id + NUL


async def ask(
    made: World, key: NewKey | str, method: str, path: str, **sent: Any
) -> httpx.Response:
    async with made.client(key) as client:
        return await client.request(method, path, **sent)


def told(answer: httpx.Response, name: str) -> tuple[int, str, str | None, Any]:
    """Return all that an answer tells, but for the name that was asked for."""
    body = answer.json() if answer.content else {"error": {}}
    message = body["error"].pop("message", "").replace(name, "")
    return answer.status_code, message, answer.headers.get("x-should-retry"), body


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize("operation", ["edits", "extensions"])
async def test_a_source_named_with_nul_is_an_unknown_one(
    shared: World, key: NewKey, video: str, operation: str, *, form: bool
) -> None:
    fields = {"prompt": "more", **({"seconds": "4"} if operation == "extensions" else {})}
    answers = []
    for name in (video, NOBODY):
        if form:
            said = {"video[id]": name, **fields}
            sent: dict[str, Any] = {"files": {one: (None, text) for one, text in said.items()}}
        else:
            sent = {"json": {"video": {"id": name}, **fields}}
        answers.append(told(await ask(shared, key, "POST", f"/videos/{operation}", **sent), name))
    assert answers[0] == answers[1]
    assert answers[0][0] == 404


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("GET", "/videos/{}"),
        ("HEAD", "/videos/{}"),
        ("GET", "/videos/{}/content"),
        ("HEAD", "/videos/{}/content"),
        ("GET", "/videos/{}/content?variant=thumbnail"),
        ("POST", "/videos/{}/remix"),
        ("DELETE", "/videos/{}"),
    ],
)
async def test_a_video_named_with_nul_is_an_unknown_one_to_every_verb(
    shared: World, key: NewKey, video: str, method: str, path: str
) -> None:
    sent = {"json": {"prompt": "more"}} if path.endswith("remix") else {}
    answer = await ask(shared, key, method, path.format(quote(video)), **sent)
    unknown = await ask(shared, key, method, path.format(NOBODY), **sent)
    assert told(answer, video) == told(unknown, NOBODY)
    assert answer.status_code == 404


async def test_a_character_named_with_nul_is_an_unknown_one(
    shared: World, key: NewKey, character: str
) -> None:
    before = await shared.executions()
    answers = []
    for name in (character, NOBODY):
        read = await ask(shared, key, "GET", f"/videos/characters/{quote(name)}")
        body = {"prompt": "a cat", "characters": [{"id": name}]}
        used = await ask(shared, key, "POST", "/videos", json=body)
        answers.append((told(read, name), told(used, name)))
    assert answers[0] == answers[1]
    assert [answer[0] for answer in answers[0]] == [404, 404]
    assert await shared.executions() == before


@pytest.mark.parametrize("order", ["asc", "desc"])
async def test_a_cursor_with_nul_is_an_unknown_one(
    shared: World, key: NewKey, video: str, order: str
) -> None:
    for name in (video, NUL, NOBODY):
        answer = await ask(shared, key, "GET", "/videos", params={"after": name, "order": order})
        assert answer.json() == {
            "object": "list",
            "data": [],
            "first_id": None,
            "last_id": None,
            "has_more": False,
        }


async def test_what_else_is_wrong_with_a_list_is_told_beside_such_a_cursor(
    shared: World, key: NewKey
) -> None:
    for wrong in ({"limit": "101"}, {"order": "newest"}):
        answer = await ask(shared, key, "GET", "/videos", params={"after": NUL, **wrong})
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, *wrong)


@pytest.mark.parametrize("name", ["idempotency-key", "authorization", "x-request-id"])
async def test_nul_in_a_header_is_no_http(shared: World, key: NewKey, name: str) -> None:
    head = f"POST /v1/videos HTTP/1.1\r\n{name}: a{NUL}b"
    connection = await raw_request(shared, key, head)
    status, _, body = await connection.answer()
    await connection.leave()
    assert (status, body) == (400, b"Invalid HTTP request received.")


async def test_a_prompt_may_hold_nul(shared: World, key: NewKey) -> None:
    bought = await shared.buy(key, f"a{NUL}cat")
    await shared.ended(bought)
    retrieved = await ask(shared, key, "GET", f"/videos/{bought}")
    assert retrieved.json()["prompt"] == f"a{NUL}cat"


MAIL = {"type": "email", "recipients": ["a@example.com"]}
ALERT = {"threshold_amount": 1, "currency": "USD", "interval": "month"}


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/projects", {"name": f"a{NUL}"}, "name"),
        ("/projects/{project}", {"name": f"a{NUL}"}, "name"),
        ("/projects/{project}/service_accounts", {"name": f"a{NUL}"}, "name"),
        ("/admin_api_keys", {"name": f"a{NUL}"}, "name"),
        (
            "/budgets",
            {"level": "project", "level_id": NUL, "period": "month", "limit_usd": "1"},
            "level_id",
        ),
        (
            "/projects/{project}/model_permissions",
            {"mode": "deny_list", "model_ids": [NUL]},
            "model_ids",
        ),
        ("/projects/{project}/limits", {"models": {NUL: {}}}, "models"),
        (
            "/spend_alerts",
            {**ALERT, "notification_channel": {**MAIL, "recipients": [f"a{NUL}@example.com"]}},
            "notification_channel.recipients",
        ),
        (
            "/spend_alerts",
            {**ALERT, "notification_channel": {**MAIL, "subject_prefix": NUL}},
            "notification_channel.subject_prefix",
        ),
        (
            "/spend_alerts",
            {
                **ALERT,
                "notification_channel": {"type": "webhook", "url": f"https://example.com/{NUL}"},
            },
            "notification_channel.url",
        ),
    ],
)
async def test_nul_in_the_body_of_a_change_is_refused_by_name(
    shared: World, key: NewKey, path: str, body: dict[str, Any], param: str
) -> None:
    where = f"/organization{path.format(project=key.project_id)}"
    answer = await ask(shared, ADMIN_KEY, "POST", where, json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param), answer.text
