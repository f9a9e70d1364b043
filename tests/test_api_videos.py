"""What does a client have to send, what does it get back, and what is refused for nothing?"""

import asyncio
import io
import json
from typing import Any

import pytest
from conftest import LogLines, World, eventually, raw_request
from PIL import Image

pytestmark = pytest.mark.asyncio(loop_scope="module")

KEYS = {
    "id",
    "object",
    "model",
    "status",
    "progress",
    "created_at",
    "completed_at",
    "expires_at",
    "prompt",
    "size",
    "seconds",
    "remixed_from_video_id",
    "error",
}


def picture(kind: str = "PNG", *, width: int = 720, height: int = 1280) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, kind)
    return out.getvalue()


async def forwarded(made: World) -> int:
    requests: dict[str, int] = (await made.control.totals())["requests"]
    return requests.get("create", 0)


REFUSED: list[tuple[dict[str, Any], str, str, str]] = [
    ({}, "prompt", "missing_required_parameter", "Missing required parameter: 'prompt'."),
    ({"prompt": None}, "prompt", "missing_required_parameter", "Missing"),
    ({"prompt": ""}, "prompt", "empty_string", "at least 1 character"),
    ({"prompt": " \n\t"}, "prompt", "empty_string", "at least 1 character"),
    ({"prompt": "é" * 32_001}, "prompt", "string_above_max_length", "length 32001"),
    ({"prompt": 7}, "prompt", "invalid_type", "got an integer"),
    ({"prompt": ["a"]}, "prompt", "invalid_type", "got an array"),
    ({"prompt": "a", "model": "sora-3"}, "model", "model_not_found", "'sora-2'"),
    ({"prompt": "a", "model": {}}, "model", "invalid_type", "got an object"),
    ({"prompt": "a", "model": ""}, "model", "model_not_found", "''"),
    (
        {"prompt": "a", "seconds": "5"},
        "seconds",
        "invalid_value",
        "Invalid value: '5'. Supported values are: '4', '8', and '12'.",
    ),
    ({"prompt": "a", "seconds": "10"}, "seconds", "invalid_value", "use '8' or '12'"),
    ({"prompt": "a", "seconds": "15"}, "seconds", "invalid_value", "use '8' or '12'"),
    ({"prompt": "a", "seconds": " 4"}, "seconds", "invalid_value", "' 4'"),
    (
        {"prompt": "a", "seconds": 4},
        "seconds",
        "invalid_type",
        "Invalid type for 'seconds': expected one of '4', '8', or '12', but got an integer",
    ),
    ({"prompt": "a", "seconds": 4.0}, "seconds", "invalid_type", "got a number"),
    ({"prompt": "a", "seconds": True}, "seconds", "invalid_type", "got a boolean"),
    (
        {"prompt": "a", "size": "640x360"},
        "size",
        "invalid_value",
        "Invalid value: '640x360'. Supported values are: '720x1280' and '1280x720'.",
    ),
    ({"prompt": "a", "size": "1080x1920"}, "size", "invalid_value", "sora-2-pro offers 1080x1920"),
    ({"prompt": "a", "size": "720X1280"}, "size", "invalid_value", "720X1280"),
    ({"prompt": "a", "size": 720}, "size", "invalid_type", "got an integer"),
    (
        {"prompt": "a", "model": "sora-2-pro", "size": "480x480"},
        "size",
        "invalid_value",
        "'1920x1080'",
    ),
    ({"prompt": "a", "width": 720}, "width", "unknown_parameter", "Unknown parameter: 'width'"),
    ({"prompt": "a", "n": 2}, "n", "unknown_parameter", "Unknown parameter: 'n'"),
    (
        {"prompt": "a", "input_reference": "aGVsbG8="},
        "input_reference",
        "invalid_type",
        "Invalid type for 'input_reference': expected a file, but got a string instead.",
    ),
    (
        {"prompt": "a", "input_reference": {"image_url": "https://example.com/a.png"}},
        "input_reference",
        "invalid_type",
        "got an object",
    ),
]


@pytest.mark.parametrize(
    ("body", "param", "code", "message"),
    REFUSED,
    ids=[f"{param} {number}" for number, (_, param, _, _) in enumerate(REFUSED)],
)
async def test_a_wrong_parameter_is_a_400_that_costs_nothing_and_reaches_nobody(
    shared: World, body: dict[str, Any], param: str, code: str, message: str
) -> None:
    key = await shared.key()
    before = await shared.one("SELECT COUNT(*) FROM holds"), await forwarded(shared)
    async with shared.client(key) as client:
        answer = await client.post("/videos", json=body)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"], error["code"]) == (400, param, code)
    assert error["type"] == "invalid_request_error"
    assert message in error["message"]
    assert answer.headers["x-should-retry"] == "false"
    assert (await shared.one("SELECT COUNT(*) FROM holds"), await forwarded(shared)) == before


@pytest.mark.parametrize(
    ("files", "param", "message"),
    [
        ({"input_reference": ("a.gif", picture("GIF"), "image/gif")}, "input_reference", "not a"),
        ({"input_reference": ("a.png", b"", "image/png")}, "input_reference", "is empty"),
        ({"input_reference": ("a.png", b"GIF89a" * 9, "image/png")}, "input_reference", "not a"),
        ({"input_reference": ("a.png", picture()[:20], "image/png")}, "input_reference", "damaged"),
        (
            {"input_reference": ("a.jpg", picture("JPEG", width=1280, height=720), "image/jpeg")},
            "input_reference",
            "the image is 1280x720, the requested size is 720x1280",
        ),
        ({"image": ("a.png", picture(), "image/png")}, "image", "Only 'input_reference'"),
        ({"prompt": ("a.txt", b"a cat", "text/plain")}, "prompt", "Unexpected file"),
    ],
)
async def test_a_wrong_file_is_a_400_that_costs_nothing_and_reaches_nobody(
    shared: World, files: dict[str, Any], param: str, message: str
) -> None:
    key = await shared.key()
    before = await shared.one("SELECT COUNT(*) FROM holds"), await forwarded(shared)
    fields = {} if "prompt" in files else {"prompt": "a cat"}
    async with shared.client(key) as client:
        answer = await client.post("/videos", data=fields, files=files)
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, param)
    assert message in error["message"]
    assert (await shared.one("SELECT COUNT(*) FROM holds"), await forwarded(shared)) == before


@pytest.mark.parametrize(
    ("kind", "content_type"),
    [("PNG", "image/png"), ("JPEG", "image/jpeg"), ("WEBP", "image/webp")],
)
async def test_an_image_goes_upstream_as_what_it_is_whatever_it_was_called(
    shared: World, kind: str, content_type: str
) -> None:
    key = await shared.key()
    file = ("..\\ürlaub.bin", picture(kind, width=1280, height=720), "text/plain")
    async with shared.client(key) as client:
        answer = await client.post(
            "/videos",
            data={"prompt": "a wave", "size": "1280x720"},
            files={"input_reference": file},
        )
    assert answer.status_code == 200
    received = (await shared.control.received("create"))[-1]
    extension = content_type.removeprefix("image/")
    sent = received["files"]["input_reference"]
    assert sent["filename"] == f"input_reference.{extension}"
    assert sent["content_type"] == content_type
    assert sent["bytes"] == len(file[1])
    assert received["fields"] == {
        "prompt": "a wave",
        "model": "sora-2",
        "seconds": "4",
        "size": "1280x720",
    }


@pytest.mark.parametrize("header", ["x-gateway-dryrun", "X-Gateway-Project", "x-gateway-"])
async def test_a_misspelt_header_of_ours_does_not_buy(shared: World, header: str) -> None:
    key = await shared.key()
    before = await forwarded(shared)
    async with shared.client(key) as client:
        answer = await client.post("/videos", json={"prompt": "a"}, headers={header: "true"})
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unknown_header")
    assert error["param"] == header.lower()
    assert await forwarded(shared) == before


async def test_the_longest_prompt_arrives_character_for_character(shared: World) -> None:
    key = await shared.key()
    prompt = "🎬é\u0000\n\"'\\" + "界" * (32_000 - 7)
    assert len(prompt) == 32_000
    video_id = await shared.buy(key, prompt)
    received = (await shared.control.received("create"))[-1]
    assert received["fields"]["prompt"] == prompt
    async with shared.client(key) as client:
        assert (await client.get(f"/videos/{video_id}")).json()["prompt"] == prompt


async def test_a_prompt_that_is_no_text_is_refused(shared: World) -> None:
    key = await shared.key()
    before = await forwarded(shared)
    async with shared.client(key) as client:
        for body in (
            rb'{"prompt": "\ud800"}',
            rb'{"prompt": "a", "\udfff": "b"}',
            rb'{"\ud800": 1, "\ud800": 1}',
        ):
            answer = await client.post(
                "/videos", content=body, headers={"content-type": "application/json"}
            )
            assert answer.status_code == 400
            assert answer.json()["error"]["code"] in {"invalid_body", "duplicate_parameter"}
    assert await forwarded(shared) == before


async def test_a_snapshot_is_forwarded_as_it_was_named_and_priced_as_its_model(
    shared: World,
) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, model="sora-2-pro-2025-10-06", size="1024x1792")
    received = (await shared.control.received("create"))[-1]
    assert received["fields"]["model"] == "sora-2-pro-2025-10-06"
    assert (await shared.facts(video_id))["hold_micros"] == 2_000_000


async def test_the_answer_to_a_create_says_cost_budget_and_pace(shared: World) -> None:
    key = await shared.key(budget="2.00")
    async with shared.client(key) as client:
        answer = await client.post("/videos", json={"prompt": "a cat", "seconds": "8"})
    assert set(answer.json()) >= KEYS
    headers = answer.headers
    assert headers["x-gateway-cost-usd"] == "0.80"
    assert headers["x-gateway-budget-remaining-usd"] == "1.20"
    assert headers["x-gateway-budget-level"] == "key"
    assert headers["openai-poll-after-ms"] == "1000"
    assert headers["x-upstream-request-id"].isdecimal()
    assert "x-should-retry" not in headers


async def test_a_finished_video_is_not_to_be_polled_any_more(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key)
    await shared.ended(video_id)
    async with shared.client(key) as client:
        answer = await client.get(f"/videos/{video_id}")
    assert "openai-poll-after-ms" not in answer.headers
    assert answer.headers["x-gateway-cost-usd"] == "0.40"


async def test_unknown_keys_of_the_upstream_are_passed_on_and_missing_ones_filled(
    shared: World,
) -> None:
    key = await shared.key()
    prompt = "[[set {} key=quality]] [[queue 1000]]"
    async with shared.client(key) as client:
        made = await client.post("/videos", json={"prompt": prompt})
        assert made.json()["quality"] == {}
        answer = '{"id":"video_bare","task_id":"7","status":"submitted"}'
        await shared.control.fault("answer", operation="create", value=answer)
        bare = (await client.post("/videos", json={"prompt": "a cat", "seconds": "8"})).json()
        assert (await client.get("/videos/video_bare")).json() == bare
    assert set(bare) == KEYS | {"task_id"}
    assert (bare["object"], bare["status"], bare["progress"]) == ("video", "queued", 0)
    assert (bare["prompt"], bare["seconds"], bare["size"]) == ("a cat", "8", "720x1280")
    assert (bare["model"], bare["error"], bare["task_id"]) == ("sora-2", None, "7")
    assert isinstance(bare["created_at"], int)


async def test_create_retrieve_and_upstream_agree_on_the_id(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, '[[retrieve:set "other" key=id]]')
    await shared.ended(video_id)
    async with shared.client(key) as client:
        assert (await client.get(f"/videos/{video_id}")).json()["id"] == video_id
    assert video_id in (await shared.control.state())["videos"]


async def test_a_retrieve_asks_nobody(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key)
    await shared.ended(video_id)
    before = (await shared.control.state())["videos"][video_id]["retrieves"]
    async with shared.client(key) as client:
        for _ in range(20):
            assert (await client.get(f"/videos/{video_id}")).status_code == 200
    assert (await shared.control.state())["videos"][video_id]["retrieves"] == before


async def test_a_head_answers_as_the_get_without_a_body(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key)
    await shared.ended(video_id)
    async with shared.client(key) as client:
        whole, head = (
            await client.get(f"/videos/{video_id}"),
            await client.head(f"/videos/{video_id}"),
        )
    assert (head.status_code, head.content) == (200, b"")
    assert head.headers["content-length"] == whole.headers["content-length"]


async def test_a_video_of_another_project_is_a_404_on_every_verb(shared: World) -> None:
    video_id = await shared.buy(await shared.key())
    other = await shared.key(project="another")
    async with shared.client(other) as client:
        for method in ("GET", "HEAD"):
            for path in (f"/videos/{video_id}", f"/videos/{video_id}/content"):
                answer = await client.request(method, path)
                assert answer.status_code == 404
        known, unknown = await client.get(f"/videos/{video_id}"), await client.get("/videos/none")
    assert known.text.replace(video_id, "none") == unknown.text
    assert known.json()["error"]["message"] == f"Video with id '{video_id}' not found."


async def test_a_client_that_leaves_after_its_body_has_bought(
    shared: World, logged: LogLines
) -> None:
    key = await shared.key()
    body = json.dumps({"prompt": "[[delay 0.5]] a cat"}).encode()
    head = (
        f"POST /v1/videos HTTP/1.1\r\ncontent-type: application/json\r\ncontent-length: {len(body)}"
    )
    before = await forwarded(shared)
    connection = await raw_request(shared, key, head, body)

    async def arrived() -> bool:
        return await forwarded(shared) == before + 1

    await eventually(arrived)
    await connection.leave()

    async def recorded() -> Any:
        return await shared.rows(
            "SELECT upstream_id FROM videos WHERE key_id = $1 AND upstream_id IS NOT NULL", key.id
        )

    ((upstream_id,),) = await eventually(recorded)
    assert (await shared.ended(upstream_id))["hold_state"] == "settled"
    assert len(logged.lines("submit_accepted")) == 1


async def test_a_client_that_leaves_before_the_end_of_its_body_has_bought_nothing(
    shared: World, logged: LogLines
) -> None:
    key = await shared.key()
    before = await forwarded(shared)
    part = b'--x\r\ncontent-disposition: form-data; name="prompt"\r\n\r\na cat'
    for content_type, begun in (
        ("application/json", b'{"prompt": "a cat"'),
        ("multipart/form-data; boundary=x", part),
    ):
        head = f"POST /v1/videos HTTP/1.1\r\ncontent-type: {content_type}\r\ncontent-length: 99"
        connection = await raw_request(shared, key, head, begun)
        await connection.leave()

    async def noticed() -> bool:
        endings = [line.get("ending") for line in logged.lines("request")]
        return endings == ["client_left", "client_left"]

    await eventually(noticed)
    assert await shared.rows("SELECT id FROM holds WHERE key_id = $1", key.id) == []
    assert await forwarded(shared) == before


async def test_many_creates_at_once_are_bought_once_each(shared: World) -> None:
    key = await shared.key()
    before = await shared.executions()
    ids = await asyncio.gather(*(shared.buy(key, f"cat {one}") for one in range(40)))
    assert len(set(ids)) == 40
    assert await shared.executions() == before + 40
    for video_id in ids:
        await shared.ended(video_id)
    assert await shared.adds_up()


async def test_a_video_that_is_over_at_once_is_finished_on_no_verb_before_its_money_moved(
    shared: World,
) -> None:
    key = await shared.key()
    async with shared.client(key) as client:
        created = (await client.post("/videos", json={"prompt": "at once"})).json()
        assert created["status"] == "queued"
        await shared.ended(created["id"])
        assert (await client.get(f"/videos/{created['id']}")).json()["status"] == "completed"
        assert (await client.delete(f"/videos/{created['id']}")).status_code == 200
