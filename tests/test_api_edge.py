"""Does every answer, also to a request that makes no sense, speak OpenAI's language?"""

import pytest
import pytest_asyncio
from conftest import LogLines, World, raw_request

from gateway.billing.keys import NewKey

pytestmark = pytest.mark.asyncio(loop_scope="module")


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def key(shared: World) -> NewKey:
    return await shared.key()


@pytest.mark.parametrize(
    "path",
    [
        "/",
        "/v1",
        "/v1/video",
        "/v1/videos/",
        "/v1/videos//content",
        "/v1/videos/a/b",
        "/v1/videos/a/content/",
        "/v1/chat/completions",
        "/V1/videos/a",
        "/v1/../v1/videos/a",
        "/%2e%2e/v1/videos/a",
    ],
)
async def test_an_unknown_path_is_a_404_in_openais_envelope(
    shared: World, key: NewKey, path: str
) -> None:
    connection = await raw_request(shared, key, f"GET {path} HTTP/1.1")
    status, headers, body = await connection.answer()
    await connection.leave()
    assert status == 404
    assert headers["content-type"] == "application/json"
    assert headers["x-should-retry"] == "false"
    assert b'"code": "unknown_url"' in body


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("PATCH", "/videos", {"POST"}),
        ("PUT", "/videos/video_1", {"GET", "HEAD"}),
        ("POST", "/videos/video_1/content", {"GET", "HEAD"}),
        ("OPTIONS", "/videos/video_1/content", {"GET", "HEAD"}),
    ],
)
async def test_a_wrong_method_is_a_405_that_names_the_right_ones(
    shared: World, key: NewKey, method: str, path: str, allowed: set[str]
) -> None:
    async with shared.client(key) as client:
        answer = await client.request(method, path)
    assert answer.status_code == 405
    assert answer.json()["error"]["code"] == "method_not_allowed"
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}
    assert allowed <= set(answer.headers["allow"].split(", "))
    assert answer.headers["x-should-retry"] == "false"


@pytest.mark.parametrize("given", ["abc", "Trace.1_2-3", "x" * 128])
async def test_a_well_formed_request_id_is_taken_over(
    shared: World, key: NewKey, logged: LogLines, given: str
) -> None:
    async with shared.client(key) as client:
        answer = await client.get("/videos/none", headers={"x-request-id": given})
    assert answer.headers["x-request-id"] == given
    assert [line["request_id"] for line in logged.lines("request")] == [given]


@pytest.mark.parametrize("given", ["", "two words", "x" * 129, "a/b", "é", '{"a":1}', "a\tb"])
async def test_any_other_request_id_is_replaced(shared: World, key: NewKey, given: str) -> None:
    async with shared.client(key) as client:
        answer = await client.get("/videos/none", headers={b"x-request-id": given.encode()})
    assert answer.headers["x-request-id"].startswith("req_")
    assert len(answer.headers.get_list("x-request-id")) == 1


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", "/nowhere"), ("PATCH", "/videos"), ("POST", "/videos"), ("GET", "/videos/a/content")],
)
async def test_every_answer_has_a_request_id_of_its_own(
    shared: World, key: NewKey, method: str, path: str
) -> None:
    async with shared.client(key) as client:
        first, second = await client.request(method, path), await client.request(method, path)
    assert first.status_code >= 400
    ids = {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert len(ids) == 2


@pytest.mark.parametrize("path", ["/v1/videos/%FF%FE", "/v1/videos/%00", "/v1/videos/a%2Fcontent"])
async def test_an_id_of_any_bytes_is_an_unknown_video_and_no_more(
    shared: World, key: NewKey, path: str
) -> None:
    connection = await raw_request(shared, key, f"GET {path} HTTP/1.1")
    status, _, body = await connection.answer()
    await connection.leave()
    assert status == 404
    assert b"not found" in body


async def test_a_path_that_is_no_ascii_breaks_nothing(shared: World, key: NewKey) -> None:
    connection = await raw_request(shared, key, "GET /v1/videos/\xe9 HTTP/1.1")
    status, _, _ = await connection.answer()
    await connection.leave()
    assert status in {400, 404}


async def test_a_connection_serves_another_request_after_an_error(
    shared: World, key: NewKey
) -> None:
    connection = await raw_request(shared, key, "GET /nowhere HTTP/1.1")
    assert (await connection.answer())[0] == 404
    await connection.send(
        f"GET /v1/videos/a HTTP/1.1\r\nhost: gateway\r\nauthorization: Bearer {key.value}\r\n\r\n"
        "".encode()
    )
    assert (await connection.answer())[0] == 404
    await connection.leave()
