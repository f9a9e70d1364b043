"""What can be made of a video there is, what does it cost, and for whom is it there?"""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from conftest import LogLines, World, eventually, world

from gateway.billing.keys import NewKey
from gateway.simulator.mp4 import make_mp4
from gateway.upstream.requests import OPERATIONS

pytestmark = pytest.mark.asyncio(loop_scope="module")

LONG = {"model": "sora-2-pro", "size": "1024x1792", "seconds": "8"}
MADE_OF_IT = ("remix", "edit", "extension")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(place: Path) -> AsyncIterator[World]:
    folder = place / "operations"
    async with world(folder, upstream_offers=OPERATIONS) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def poor(place: Path) -> AsyncIterator[World]:
    """A gateway whose upstream offers what the relay documents, and nothing else."""
    async with world(place / "documented") as made:
        yield made


async def finished(made: World, key: NewKey, prompt: str = "a cat", **fields: str) -> str:
    video_id = await made.buy(key, prompt, **fields)
    await made.ended(video_id)
    return video_id


async def request(made: World, key: NewKey, method: str, path: str, **body: Any) -> httpx.Response:
    async with made.client(key) as client:
        return await client.request(method, path, **body)


async def derive(
    made: World,
    key: NewKey,
    operation: str,
    source: str,
    *,
    form: bool = False,
    **fields: Any,
) -> httpx.Response:
    """Ask for something to be made of a video of the gateway, as JSON or as a form."""
    said: dict[str, Any] = {"prompt": "more", **fields}
    if operation == "extension":
        said = {"seconds": "12", **said}
    path = {"edit": "/videos/edits", "extension": "/videos/extensions"}.get(operation)
    if path is None:
        path = f"/videos/{source}/remix"
    elif form:
        said = {"video[id]": source, **said}
    else:
        said = {"video": {"id": source}, **said}
    if form:
        parts = {name: (None, value) for name, value in said.items()}
        return await request(made, key, "POST", path, files=parts)
    return await request(made, key, "POST", path, json=said)


async def upload(
    made: World, key: NewKey, operation: str, video: bytes, **fields: str
) -> httpx.Response:
    """Ask for something to be made of an uploaded video."""
    path, usual = {
        "edit": ("/videos/edits", {"prompt": "more"}),
        "extension": ("/videos/extensions", {"prompt": "more", "seconds": "4"}),
        "character": ("/videos/characters", {"name": "Mossy"}),
    }[operation]
    file = {"video": ("upload", video, "application/octet-stream")}
    return await request(made, key, "POST", path, data={**usual, **fields}, files=file)


async def character(made: World, key: NewKey, name: str = "Mossy") -> str:
    video = make_mp4(width=720, height=1280, seconds=2, tag=b"")
    answer = await upload(made, key, "character", video, name=name)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


async def submits(made: World) -> dict[str, int]:
    """Return how often the upstream was asked for anything that it may bill."""
    requests: dict[str, int] = (await made.control.totals())["requests"]
    billable = ("create", "remix", "edit", "extend", "create-character")
    return {name: requests.get(name, 0) for name in billable}


async def billed(made: World, video_id: str) -> tuple[int, int, int]:
    """Return what a video cost: as held, as settled, and as the upstream bills it."""
    facts = await made.ended(video_id)
    theirs = (await made.control.state())["videos"][video_id]["billed_micros"]
    return facts["hold_micros"], facts["hold_settled_micros"], theirs


def error(answer: httpx.Response) -> tuple[int, str | None, str | None]:
    told = answer.json()["error"]
    assert answer.headers["x-should-retry"] == "false"
    return answer.status_code, told["param"], told["code"]


# What it costs


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize(
    ("operation", "micros", "seconds"),
    [("remix", 4_000_000, "8"), ("edit", 4_000_000, "8"), ("extension", 6_000_000, "20")],
)
async def test_what_is_made_of_a_video_costs_what_its_upstream_bills(
    shared: World, operation: str, micros: int, seconds: str, *, form: bool
) -> None:
    key = await shared.key()
    source = await finished(shared, key, **LONG)
    answer = await derive(shared, key, operation, source, form=form)
    assert answer.status_code == 200, answer.text
    video = answer.json()
    assert answer.headers["x-gateway-cost-usd"] == f"{micros // 1_000_000}.00"
    assert (video["object"], video["prompt"], video["seconds"]) == ("video", "more", seconds)
    assert (video["model"], video["size"]) == (LONG["model"], LONG["size"])
    assert video["remixed_from_video_id"] == (source if operation == "remix" else None)
    assert await billed(shared, video["id"]) == (micros, micros, micros)
    retrieved = await request(shared, key, "GET", f"/videos/{video['id']}")
    assert retrieved.json()["status"] == "completed"
    await shared.mirrored(video["id"])
    content = await request(shared, key, "GET", f"/videos/{video['id']}/content")
    assert content.content == await shared.control.content(video["id"])
    assert await shared.adds_up()


async def test_a_remix_of_an_extension_costs_the_whole_stitched_video(shared: World) -> None:
    key = await shared.key()
    source = await finished(shared, key, **LONG)
    extended = (await derive(shared, key, "extension", source)).json()["id"]
    await shared.ended(extended)
    remixed = (await derive(shared, key, "remix", extended)).json()["id"]
    assert await billed(shared, remixed) == (10_000_000, 10_000_000, 10_000_000)


async def test_a_source_counts_as_long_as_it_is_and_not_as_it_was_asked_for(
    shared: World,
) -> None:
    key = await shared.key()
    source = await finished(shared, key, "[[longer 9]] a cat", seconds="4")
    for operation in ("remix", "edit"):
        made = (await derive(shared, key, operation, source)).json()["id"]
        assert await billed(shared, made) == (900_000, 900_000, 900_000)


@pytest.mark.parametrize(
    ("model", "micros"), [("grok-imagine-video", 400_000), ("veo-3.1-generate-preview", 1_200_000)]
)
async def test_other_models_are_remixed_at_their_own_rates(
    shared: World, model: str, micros: int
) -> None:
    key = await shared.key()
    source = await finished(shared, key, model=model)
    remixed = (await derive(shared, key, "remix", source)).json()["id"]
    assert await billed(shared, remixed) == (micros, micros, micros)


@pytest.mark.parametrize(("operation", "micros"), [("edit", 5_600_000), ("extension", 2_800_000)])
async def test_an_uploaded_video_is_priced_by_its_own_length_and_size(
    shared: World, operation: str, micros: int
) -> None:
    key = await shared.key()
    video = make_mp4(width=1920, height=1080, seconds=8, tag=b"uploaded")
    answer = await upload(shared, key, operation, video, model="sora-2-pro")
    assert answer.status_code == 200, answer.text
    assert await billed(shared, answer.json()["id"]) == (micros, micros, micros)
    name = {"edit": "edit", "extension": "extend"}[operation]
    sent = (await shared.control.received(name))[-1]["files"]["video"]
    assert (sent["filename"], sent["content_type"]) == ("video.mp4", "video/mp4")
    assert sent["bytes"] == len(video)


async def test_a_failed_remix_costs_nothing(shared: World) -> None:
    key = await shared.key()
    source = await finished(shared, key)
    failed = (await derive(shared, key, "remix", source, prompt="[[fail]] more")).json()["id"]
    assert (await shared.ended(failed))["hold_state"] == "released"
    assert await shared.adds_up()


async def test_a_remix_is_held_against_the_budget(shared: World) -> None:
    key = await shared.key(budget="5.00")
    source = await finished(shared, key, **LONG)
    before = await submits(shared)
    answer = await derive(shared, key, "remix", source)
    assert error(answer) == (429, None, "insufficient_quota")
    assert await submits(shared) == before


# What is refused


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
@pytest.mark.parametrize("operation", MADE_OF_IT)
async def test_a_source_of_another_project_is_a_404_like_one_that_never_was(
    shared: World, operation: str, *, form: bool
) -> None:
    source = await finished(shared, await shared.key())
    stranger, before = await shared.key(project="strangers"), await submits(shared)
    theirs = await derive(shared, stranger, operation, source, form=form)
    nobodys = await derive(shared, stranger, operation, "video_none", form=form)
    assert theirs.status_code == nobodys.status_code == 404
    assert theirs.text.replace(source, "video_none") == nobodys.text
    assert await submits(shared) == before


@pytest.mark.parametrize("prompt", ["[[queue 1000]] a cat", "[[fail]] a cat"])
@pytest.mark.parametrize("operation", MADE_OF_IT)
async def test_a_source_that_is_not_completed_is_a_400(
    shared: World, operation: str, prompt: str
) -> None:
    key = await shared.key()
    source = await shared.buy(key, prompt)
    if "fail" in prompt:
        await shared.ended(source)
    before = await submits(shared)
    param = "video_id" if operation == "remix" else "video"
    answer = await derive(shared, key, operation, source)
    assert error(answer) == (400, param, "invalid_value")
    assert await submits(shared) == before


@pytest.mark.parametrize("operation", MADE_OF_IT)
async def test_nothing_is_made_of_a_deleted_video(shared: World, operation: str) -> None:
    key = await shared.key()
    source = await finished(shared, key)
    assert (await request(shared, key, "DELETE", f"/videos/{source}")).status_code == 200
    before = await submits(shared)
    assert (await derive(shared, key, operation, source)).status_code == 404
    assert await submits(shared) == before


WRONG: list[tuple[str, dict[str, Any], str, str]] = [
    *((operation, {"prompt": ""}, "prompt", "empty_string") for operation in MADE_OF_IT),
    *(
        (operation, {"prompt": None}, "prompt", "missing_required_parameter")
        for operation in MADE_OF_IT
    ),
    *((operation, {"stream": True}, "stream", "unknown_parameter") for operation in MADE_OF_IT),
    *((operation, {"size": "720x1280"}, "size", "unknown_parameter") for operation in MADE_OF_IT),
    ("remix", {"seconds": "4"}, "seconds", "unknown_parameter"),
    ("edit", {"seconds": "4"}, "seconds", "unknown_parameter"),
    ("extension", {"seconds": "5"}, "seconds", "invalid_value"),
    ("extension", {"seconds": 8}, "seconds", "invalid_type"),
    ("extension", {"seconds": None}, "seconds", "missing_required_parameter"),
    ("edit", {"video": None}, "video", "missing_required_parameter"),
    ("edit", {"video": "video_1"}, "video", "invalid_type"),
    ("edit", {"video": {}}, "video", "invalid_value"),
    ("edit", {"video": {"id": 7}}, "video", "invalid_value"),
    ("edit", {"video": {"id": "a", "url": "b"}}, "video", "invalid_value"),
]


@pytest.mark.parametrize(
    ("operation", "fields", "param", "code"), WRONG, ids=[f"{one[0]} {one[1]}" for one in WRONG]
)
async def test_a_wrong_parameter_is_a_400_and_reaches_nobody(
    shared: World, operation: str, fields: dict[str, Any], param: str, code: str
) -> None:
    key = await shared.key()
    source = await finished(shared, key)
    before = await submits(shared)
    answer = await derive(shared, key, operation, source, **fields)
    assert error(answer) == (400, param, code)
    assert await submits(shared) == before


def unlike(video: bytes) -> dict[str, bytes]:
    """Return what is no readable MP4."""
    return {
        "empty": b"",
        "a beginning": video[: len(video) // 2],
        "a picture": b"\x89PNG\r\n\x1a\n" + bytes(2_000),
        "no movie": video.replace(b"moov", b"free"),
        "no track": video.replace(b"trak", b"free"),
    }


@pytest.mark.parametrize("what", unlike(b""))
@pytest.mark.parametrize("operation", ["edit", "extension", "character"])
async def test_an_upload_that_cannot_be_read_is_a_400_and_reaches_nobody(
    shared: World, operation: str, what: str
) -> None:
    key, before = await shared.key(), await submits(shared)
    video = unlike(make_mp4(width=720, height=1280, seconds=4, tag=b""))[what]
    fields = {} if operation == "character" else {"model": "sora-2"}
    answer = await upload(shared, key, operation, video, **fields)
    assert error(answer) == (400, "video", "invalid_value")
    assert await submits(shared) == before


async def test_an_upload_of_a_size_without_a_rate_is_a_400_and_reaches_nobody(
    shared: World,
) -> None:
    key, before = await shared.key(), await submits(shared)
    video = make_mp4(width=1024, height=1792, seconds=4, tag=b"")
    answer = await upload(shared, key, "edit", video, model="sora-2")
    assert error(answer) == (400, "video", "invalid_value")
    assert "The uploaded video is 1024x1792" in answer.json()["error"]["message"]
    assert await submits(shared) == before


async def test_an_upload_needs_a_model_that_there_is(shared: World) -> None:
    key, before = await shared.key(), await submits(shared)
    video = make_mp4(width=720, height=1280, seconds=4, tag=b"")
    without = await upload(shared, key, "edit", video)
    assert error(without) == (400, "model", "missing_required_parameter")
    unknown = await upload(shared, key, "edit", video, model="sora-9")
    assert error(unknown) == (400, "model", "model_not_found")
    assert await submits(shared) == before


async def test_an_upload_and_an_id_at_once_are_a_400(shared: World) -> None:
    key = await shared.key()
    source, before = await finished(shared, key), None
    before = await submits(shared)
    video = make_mp4(width=720, height=1280, seconds=4, tag=b"")
    answer = await upload(shared, key, "edit", video, **{"model": "sora-2", "video[id]": source})
    assert answer.status_code == 400
    assert answer.json()["error"]["param"] == "video"
    assert await submits(shared) == before


async def test_a_file_where_none_belongs_is_a_400(shared: World) -> None:
    key = await shared.key()
    source = await finished(shared, key)
    before = await submits(shared)
    for path, name in ((f"/videos/{source}/remix", "video"), ("/videos/edits", "input_reference")):
        answer = await request(
            shared, key, "POST", path, data={"prompt": "more"}, files={name: ("a", b"a")}
        )
        assert error(answer) == (400, name, "unknown_parameter")
    assert await submits(shared) == before


@pytest.mark.parametrize("operation", [*MADE_OF_IT, "character", "uploaded edit"])
async def test_what_the_upstream_does_not_offer_is_a_400_and_nothing_is_forwarded(
    poor: World, operation: str
) -> None:
    key = await poor.key()
    source = await finished(poor, key)
    before = await submits(poor), await poor.one("SELECT COUNT(*) FROM holds")
    video = make_mp4(width=720, height=1280, seconds=4, tag=b"")
    if operation in MADE_OF_IT:
        answers = [await derive(poor, key, operation, source, form=form) for form in (False, True)]
    elif operation == "character":
        answers = [await upload(poor, key, "character", video)]
    else:
        answers = [await upload(poor, key, "edit", video, model="sora-2")]
    for answer in answers:
        assert error(answer) == (400, None, "operation_not_offered")
    assert (await submits(poor), await poor.one("SELECT COUNT(*) FROM holds")) == before


async def test_there_is_no_cancel_and_the_answer_says_so(shared: World) -> None:
    key = await shared.key()
    running = await shared.buy(key, "[[queue 1000]] a cat")
    before = (await shared.control.totals())["requests"]
    answer = await request(shared, key, "POST", f"/videos/{running}/cancel")
    assert error(answer) == (400, None, "operation_not_offered")
    assert "no cancel" in answer.json()["error"]["message"]
    assert (await shared.control.totals())["requests"]["create"] == before["create"]
    assert (await shared.facts(running))["hold_state"] == "held"


@pytest.mark.parametrize("value", [True, False, None, "true"])
async def test_there_is_no_streaming_and_the_answer_says_so(shared: World, value: object) -> None:
    key, before = await shared.key(), await submits(shared)
    body = {"prompt": "a cat", "stream": value}
    answer = await request(shared, key, "POST", "/videos", json=body)
    assert error(answer) == (400, "stream", "unknown_parameter")
    assert "no streaming" in answer.json()["error"]["message"]
    assert await submits(shared) == before


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PUT", "/videos", {"GET", "HEAD", "POST"}),
        ("DELETE", "/videos", {"GET", "HEAD", "POST"}),
        ("PATCH", "/videos/video_1", {"GET", "HEAD", "DELETE"}),
        ("POST", "/videos/video_1", {"GET", "HEAD", "DELETE"}),
        ("POST", "/videos/video_1/content", {"GET", "HEAD"}),
        ("GET", "/videos/video_1/remix", {"POST"}),
        ("GET", "/videos/video_1/cancel", {"POST"}),
        ("DELETE", "/videos/characters/char_1", {"GET", "HEAD"}),
        ("POST", "/models", {"GET", "HEAD"}),
        ("POST", "/videos/models", {"GET", "HEAD"}),
    ],
)
async def test_a_method_that_a_path_has_not_is_a_405_that_names_those_it_has(
    shared: World, method: str, path: str, allowed: set[str]
) -> None:
    answer = await request(shared, await shared.key(), method, path)
    assert error(answer) == (405, None, "method_not_allowed")
    assert set(answer.headers["allow"].replace(" ", "").split(",")) == allowed


# Characters


async def test_a_character_costs_nothing_is_remembered_and_is_no_video(shared: World) -> None:
    key = await shared.key(budget="0.01")
    made = await character(shared, key)
    answer = await request(shared, key, "GET", f"/videos/characters/{made}")
    told = answer.json()
    assert (answer.status_code, told["id"], told["name"]) == (200, made, "Mossy")
    assert set(told) == {"id", "name", "created_at"}
    facts = await shared.facts(made)
    assert (facts["hold_state"], facts["hold_settled_micros"]) == ("settled", 0)
    assert facts["due_at"] is None
    for method, path in (
        ("GET", f"/videos/{made}"),
        ("DELETE", f"/videos/{made}"),
        ("GET", f"/videos/{made}/content"),
        ("POST", f"/videos/{made}/remix"),
    ):
        body = {"json": {"prompt": "a"}} if method == "POST" else {}
        assert (await request(shared, key, method, path, **body)).status_code == 404, path
    listed = (await request(shared, key, "GET", "/videos?limit=100")).json()["data"]
    assert made not in {video["id"] for video in listed}
    assert await shared.adds_up()


async def test_a_character_of_another_project_is_a_404(shared: World) -> None:
    mine = await character(shared, await shared.key())
    stranger, before = await shared.key(project="strangers"), await submits(shared)
    known = await request(shared, stranger, "GET", f"/videos/characters/{mine}")
    unknown = await request(shared, stranger, "GET", "/videos/characters/char_none")
    assert (known.status_code, unknown.status_code) == (404, 404)
    assert known.text.replace(mine, "char_none") == unknown.text
    body = {"prompt": "a cat", "characters": [{"id": mine}]}
    answer = await request(shared, stranger, "POST", "/videos", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (404, "characters")
    assert await submits(shared) == before


@pytest.mark.parametrize("form", [False, True], ids=["json", "form"])
async def test_two_characters_of_the_project_arrive_upstream(shared: World, *, form: bool) -> None:
    key, other = await shared.key(), await shared.key(name="a colleague")
    ids = [await character(shared, key, "Mossy"), await character(shared, other, "Rocky")]
    if form:
        parts = [
            ("prompt", (None, "a cat")),
            *(("characters[][id]", (None, one)) for one in ids),
        ]
        answer = await request(shared, key, "POST", "/videos", files=parts)
    else:
        body = {"prompt": "a cat", "characters": [{"id": one} for one in ids]}
        answer = await request(shared, key, "POST", "/videos", json=body)
    assert answer.status_code == 200, answer.text
    received = (await shared.control.received("create"))[-1]
    assert received["fields"]["characters"] == [{"id": one} for one in ids]


@pytest.mark.parametrize(
    "characters",
    ["char_1", {"id": "char_1"}, ["char_1"], [{}], [{"id": 1}], [{"id": "a", "b": "c"}]],
)
async def test_characters_of_a_wrong_shape_are_a_400(shared: World, characters: object) -> None:
    key, before = await shared.key(), await submits(shared)
    body = {"prompt": "a cat", "characters": characters}
    answer = await request(shared, key, "POST", "/videos", json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "characters")
    assert await submits(shared) == before


async def test_more_than_two_characters_are_a_400(shared: World) -> None:
    key = await shared.key()
    made = await character(shared, key)
    before = await submits(shared)
    body = {"prompt": "a cat", "characters": [{"id": made}] * 3}
    answer = await request(shared, key, "POST", "/videos", json=body)
    assert error(answer) == (400, "characters", "invalid_value")
    assert await submits(shared) == before


@pytest.mark.parametrize("name", ["", "  ", "n" * 81])
async def test_a_character_has_a_name_of_1_to_80_characters(shared: World, name: str) -> None:
    key, before = await shared.key(), await submits(shared)
    video = make_mp4(width=720, height=1280, seconds=2, tag=b"")
    answer = await upload(shared, key, "character", video, name=name)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "name")
    assert await submits(shared) == before
    assert (await upload(shared, key, "character", video, name="é" * 80)).status_code == 200


async def test_a_character_needs_a_file(shared: World) -> None:
    key, before = await shared.key(), await submits(shared)
    for video, code in ((None, "missing_required_parameter"), ("aGk=", "invalid_type")):
        body = {"name": "Mossy", "video": video}
        answer = await request(shared, key, "POST", "/videos/characters", json=body)
        assert error(answer) == (400, "video", code)
    assert await submits(shared) == before


async def test_a_character_whose_making_is_refused_costs_nothing(shared: World) -> None:
    key = await shared.key()
    await shared.control.fault("refuse", operation="create-character")
    video = make_mp4(width=720, height=1280, seconds=2, tag=b"")
    answer = await upload(shared, key, "character", video)
    assert answer.status_code == 400
    states = await shared.rows("SELECT state FROM holds WHERE key_id = $1", key.id)
    assert [row["state"] for row in states] == ["released"]


# Delete


@pytest.mark.parametrize("prompt", ["a cat", "[[fail]] a cat"])
async def test_a_deleted_video_is_a_404_on_every_verb_and_its_money_stays(
    shared: World, prompt: str
) -> None:
    key = await shared.key()
    video_id = await finished(shared, key, prompt)
    spent = await shared.total()
    answer = await request(shared, key, "DELETE", f"/videos/{video_id}")
    assert answer.status_code == 200
    assert answer.json() == {"id": video_id, "object": "video.deleted", "deleted": True}
    for method, path in (
        ("GET", f"/videos/{video_id}"),
        ("HEAD", f"/videos/{video_id}"),
        ("DELETE", f"/videos/{video_id}"),
        ("GET", f"/videos/{video_id}/content"),
        ("HEAD", f"/videos/{video_id}/content"),
        ("GET", f"/videos/{video_id}/content?variant=thumbnail"),
    ):
        assert (await request(shared, key, method, path)).status_code == 404, (method, path)
    listed = (await request(shared, key, "GET", "/videos?limit=100")).json()["data"]
    assert video_id not in {video["id"] for video in listed}
    kinds = await shared.rows(
        "SELECT entries.kind FROM entries JOIN videos ON videos.hold_id = entries.hold_id"
        " WHERE videos.upstream_id = $1 AND videos.deleted_at IS NOT NULL",
        video_id,
    )
    assert {row["kind"] for row in kinds} == {"hold", "release" if "fail" in prompt else "settle"}
    assert await shared.total() == spent
    assert await shared.adds_up()


async def test_a_video_that_is_not_over_cannot_be_deleted(shared: World) -> None:
    key = await shared.key()
    video_id = await shared.buy(key, "[[queue 1000]] a cat")
    answer = await request(shared, key, "DELETE", f"/videos/{video_id}")
    assert error(answer) == (400, "video_id", "video_not_finished")
    assert (await request(shared, key, "GET", f"/videos/{video_id}")).status_code == 200


async def test_a_video_of_another_project_cannot_be_deleted(shared: World) -> None:
    key, stranger = await shared.key(), await shared.key(project="strangers")
    video_id = await finished(shared, key)
    assert (await request(shared, stranger, "DELETE", f"/videos/{video_id}")).status_code == 404
    assert (await request(shared, key, "GET", f"/videos/{video_id}")).status_code == 200


async def test_the_upstreams_copy_is_deleted_where_it_offers_that(shared: World) -> None:
    key = await shared.key()
    video_id = await finished(shared, key)
    await request(shared, key, "DELETE", f"/videos/{video_id}")

    async def gone() -> bool:
        return bool((await shared.control.state())["videos"][video_id]["gone"])

    await eventually(gone)


async def test_the_upstreams_copy_is_left_alone_where_it_does_not_offer_that(poor: World) -> None:
    key = await poor.key()
    video_id = await finished(poor, key)
    answer = await request(poor, key, "DELETE", f"/videos/{video_id}")
    assert answer.status_code == 200
    assert (await request(poor, key, "GET", f"/videos/{video_id}")).status_code == 404
    await finished(poor, key)
    assert "delete" not in (await poor.control.totals())["requests"]
    assert not (await poor.control.state())["videos"][video_id]["gone"]


async def test_a_deletion_that_the_upstream_refuses_hides_the_video_all_the_same(
    shared: World, logged: LogLines
) -> None:
    key = await shared.key()
    video_id = await finished(shared, key)
    await shared.control.fault("500", operation="delete")
    assert (await request(shared, key, "DELETE", f"/videos/{video_id}")).status_code == 200
    assert (await request(shared, key, "GET", f"/videos/{video_id}")).status_code == 404

    async def told() -> bool:
        return bool(logged.lines("upstream_not_deleted"))

    await eventually(told)


# Variants


@pytest.mark.parametrize(
    ("variant", "content_type", "suffix"),
    [
        ("video", "video/mp4", ".mp4"),
        ("thumbnail", "image/webp", ".webp"),
        ("spritesheet", "image/jpeg", ".jpg"),
    ],
)
async def test_a_variant_that_is_offered_is_mirrored_and_served_as_what_it_is(
    shared: World, variant: str, content_type: str, suffix: str
) -> None:
    key = await shared.key()
    video_id = await finished(shared, key)
    path = f"/videos/{video_id}/content?variant={variant}"
    answer = await request(shared, key, "GET", path)
    assert answer.status_code == 200
    assert answer.headers["content-type"] == content_type
    assert f"{video_id}{suffix}" in answer.headers["content-disposition"]
    assert answer.content == await shared.control.content(video_id, variant=variant)
    await shared.control.expire(video_id)
    head = await request(shared, key, "HEAD", path)
    assert (head.status_code, head.headers["content-length"]) == (200, str(len(answer.content)))
    part = await request(shared, key, "GET", path, headers={"range": "bytes=2-5"})
    assert (part.status_code, part.content) == (206, answer.content[2:6])


@pytest.mark.parametrize("variant", ["thumbnail", "spritesheet"])
async def test_a_variant_that_is_not_offered_is_a_404_and_is_never_asked_for(
    poor: World, variant: str
) -> None:
    key = await poor.key()
    video_id = await finished(poor, key)
    await poor.mirrored(video_id)
    answer = await request(poor, key, "GET", f"/videos/{video_id}/content?variant={variant}")
    assert error(answer)[:2] == (404, "variant")
    assert set((await poor.control.state())["videos"][video_id]["contents"]) == {"video"}


async def test_an_unknown_variant_is_a_400(shared: World) -> None:
    key = await shared.key()
    video_id = await finished(shared, key)
    answer = await request(shared, key, "GET", f"/videos/{video_id}/content?variant=gif")
    assert error(answer) == (400, "variant", "invalid_value")


# Moderation


ALARMS = {"error", "critical"}


@pytest.mark.parametrize(
    ("model", "prompt", "micros"),
    [
        ("grok-imagine-video", "[[moderate-completed]] a cat", 400_000),
        ("sora-2", "[[moderate-completed]] a cat", 0),
        ("sora-2", "[[moderate-later]] a cat", 0),
        ("grok-imagine-video", "[[fail]] a cat", 0),
    ],
)
async def test_what_moderation_blocked_costs_what_the_upstream_bills_and_rings_no_alarm(
    shared: World, logged: LogLines, model: str, prompt: str, micros: int
) -> None:
    key = await shared.key()
    video_id = await finished(shared, key, prompt, model=model)
    facts = await shared.ended(video_id)
    assert (facts["hold_settled_micros"] or 0) == micros
    assert (await billed(shared, video_id))[2] == micros
    status = "completed" if "completed" in prompt else "failed"
    shown = (await request(shared, key, "GET", f"/videos/{video_id}")).json()
    assert shown["status"] == status
    assert shown["error"]["code"] == (
        "generation_failed" if "[[fail" in prompt else "moderation_blocked"
    )
    answer = await request(shared, key, "GET", f"/videos/{video_id}/content")
    assert answer.status_code == 404
    assert await shared.asset(video_id) is None
    assert [line for line in logged.lines() if line["level"] in ALARMS] == []
    assert await shared.adds_up()


@pytest.mark.parametrize(
    ("model", "micros"), [("grok-imagine-video", 400_000), ("veo-3.1-generate-preview", 0)]
)
async def test_a_video_that_failed_by_moderation_is_billed_where_the_catalogue_says_so(
    shared: World, model: str, micros: int
) -> None:
    key = await shared.key()
    video_id = await finished(shared, key, "[[moderate-later]] a cat", model=model)
    facts = await shared.facts(video_id)
    state = "settled" if micros else "released"
    assert (facts["hold_state"], facts["hold_settled_micros"] or 0) == (state, micros)
    assert json.loads(facts["object"])["status"] == "failed"
    assert await shared.adds_up()
