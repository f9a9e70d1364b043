"""Is a body read whatever its encoding, and refused while it streams when it must be?"""

import hashlib
import io
import json
import resource
from collections.abc import AsyncIterator
from pathlib import Path

import httpx
import pytest
import pytest_asyncio
from conftest import RawRequest, World, raw_request, world
from PIL import Image

from gateway.api.body import MAX_FIELDS
from gateway.billing.keys import NewKey

pytestmark = pytest.mark.asyncio(loop_scope="module")

LIMIT_BYTES = 1_000_000
BOUNDARY = "----formdata-undici-012345678901"
FORM = f"multipart/form-data; boundary={BOUNDARY}"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(place: Path) -> AsyncIterator[World]:
    folder = place / "body"
    async with world(folder, max_body_bytes=LIMIT_BYTES, upload_idle_seconds=1) as made:
        yield made


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def key(shared: World) -> NewKey:
    return await shared.key()


def field(name: str, value: str | bytes, *, more: str = "") -> bytes:
    content = value if isinstance(value, bytes) else value.encode()
    head = f'--{BOUNDARY}\r\nContent-Disposition: form-data; name="{name}"{more}\r\n\r\n'
    return head.encode() + content + b"\r\n"


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + f"--{BOUNDARY}--\r\n".encode()


async def post(
    made: World, key: NewKey, body: bytes | AsyncIterator[bytes], content_type: str | None
) -> httpx.Response:
    headers = {} if content_type is None else {"content-type": content_type}
    async with made.client(key) as client:
        return await client.post("/videos", content=body, headers=headers)


async def begun(made: World, key: NewKey, *, content_type: str, length: int | None) -> RawRequest:
    framing = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
    head = f"POST /v1/videos HTTP/1.1\r\ncontent-type: {content_type}\r\n{framing}"
    return await raw_request(made, key, head)


async def nothing_happened(made: World) -> bool:
    requests = (await made.control.totals())["requests"]
    held = await made.one("SELECT COUNT(*) FROM holds")
    return bool(held == requests.get("create", 0))


async def in_pieces(body: bytes, *, size: int) -> AsyncIterator[bytes]:
    for start in range(0, len(body), size):
        yield body[start : start + size]


@pytest.mark.parametrize("size", [1, 7, 100_000])
async def test_a_chunked_form_without_a_length_is_read_however_it_is_cut(
    shared: World, key: NewKey, size: int
) -> None:
    prompt = 'a "cat"\r\nand 界 🎬'
    body = form(field("seconds", "8"), field("prompt", prompt))
    answer = await post(shared, key, in_pieces(body, size=size), FORM)
    assert answer.status_code == 200
    received = (await shared.control.received("create"))[-1]
    assert (received["fields"]["prompt"], received["fields"]["seconds"]) == (prompt, "8")


@pytest.mark.parametrize(
    "content_type",
    ["application/json", "application/json; charset=utf-8", "Application/JSON;charset=UTF-8"],
)
async def test_json_is_read_with_or_without_a_length(
    shared: World, key: NewKey, content_type: str
) -> None:
    body = json.dumps({"prompt": "a cat", "seconds": None, "model": None}).encode()
    assert (await post(shared, key, body, content_type)).status_code == 200
    assert (await post(shared, key, in_pieces(body, size=5), content_type)).status_code == 200


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b"prompt=a",
        b'"a cat"',
        b"[]",
        b"null",
        b"7",
        b'{"prompt": "a"} {}',
        b'{"prompt": "\xff"}',
        b'{"prompt": "a\n"}',
        b"[" * 100_000,
        b'{"prompt": ' + b"9" * 5000 + b"}",
        b"\xef\xbb\xbf" + b'{"prompt": "a"}',
        b"\xff\xfe{\x00}\x00",
    ],
    ids=range(14),
)
async def test_what_is_no_json_object_is_a_400(shared: World, key: NewKey, body: bytes) -> None:
    answer = await post(shared, key, body, "application/json")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_body")
    assert answer.headers["x-should-retry"] == "false"
    assert await nothing_happened(shared)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{}",
        b"--other\r\n",
        form(field("prompt", "a cat"))[:-30],
        f"--{BOUNDARY}\r\n\r\na cat\r\n--{BOUNDARY}--\r\n".encode(),
        form(*(field(f"f{number}", "a") for number in range(MAX_FIELDS + 1))),
        form(*(field(f"f{number}", "a", more='; filename="a"') for number in range(5))),
    ],
    ids=range(7),
)
async def test_what_is_no_form_is_a_400(shared: World, key: NewKey, body: bytes) -> None:
    answer = await post(shared, key, body, FORM)
    assert answer.status_code == 400
    assert answer.json()["error"]["code"] in {"invalid_body", "missing_required_parameter"}
    assert await nothing_happened(shared)


@pytest.mark.parametrize("cut", [3, 4, 20, 40, 60])
async def test_a_form_that_breaks_off_does_not_buy_what_its_beginning_says(
    shared: World, key: NewKey, cut: int
) -> None:
    body = form(field("prompt", "a cat"), field("seconds", "12"))[:-cut]
    answer = await post(shared, key, body, FORM)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_body")
    assert await nothing_happened(shared)


@pytest.mark.parametrize(
    "content_type", [None, "", "text/plain", "application/x-www-form-urlencoded", "video/mp4"]
)
async def test_another_content_type_is_a_400(
    shared: World, key: NewKey, content_type: str | None
) -> None:
    answer = await post(shared, key, b'{"prompt": "a cat"}', content_type)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "unsupported_content_type")
    assert await nothing_happened(shared)


async def test_a_form_without_a_boundary_is_a_400(shared: World, key: NewKey) -> None:
    answer = await post(shared, key, form(field("prompt", "a")), "multipart/form-data")
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_body")


@pytest.mark.parametrize("charset", ["utf-7", "no-such-charset", "rot13", "hex"])
async def test_a_form_in_a_strange_charset_breaks_nothing(
    shared: World, key: NewKey, charset: str
) -> None:
    body = form(field("prompt", b"+2AA-"))
    answer = await post(shared, key, body, f"{FORM}; charset={charset}")
    assert answer.status_code in {200, 400}
    assert await nothing_happened(shared)


@pytest.mark.parametrize(
    ("body", "content_type"),
    [
        (b'{"prompt": "a", "seconds": "4", "seconds": "12"}', "application/json"),
        (form(field("prompt", "a"), field("seconds", "4"), field("seconds", "12")), FORM),
        (
            form(
                field("prompt", "a"),
                field("seconds", "4"),
                field("seconds", "4", more='; filename="4"'),
            ),
            FORM,
        ),
    ],
    ids=["json", "form", "form and file"],
)
async def test_a_parameter_said_twice_is_a_400_and_not_a_guess(
    shared: World, key: NewKey, body: bytes, content_type: str
) -> None:
    answer = await post(shared, key, body, content_type)
    error = answer.json()["error"]
    assert (answer.status_code, error["code"]) == (400, "duplicate_parameter")
    assert error["param"] == "seconds"
    assert await nothing_happened(shared)


async def test_a_body_that_announces_too_much_is_refused_before_it_comes(
    shared: World, key: NewKey
) -> None:
    connection = await begun(shared, key, content_type="application/json", length=LIMIT_BYTES + 1)
    status, headers, body = await connection.answer()
    await connection.leave()
    assert (status, json.loads(body)["error"]["code"]) == (413, "request_too_large")
    assert headers["x-should-retry"] == "false"


@pytest.mark.parametrize("content_type", ["application/json", FORM])
async def test_a_body_of_unknown_length_is_refused_while_it_streams(
    shared: World, key: NewKey, content_type: str
) -> None:
    start = field("input_reference", "", more='; filename="a.png"')[:-2]
    connection = await begun(shared, key, content_type=content_type, length=None)
    await connection.send(b"%x\r\n%s\r\n" % (len(start), start))
    piece = b"%x\r\n%s\r\n" % (100_000, bytes(100_000))
    for _ in range(LIMIT_BYTES // 100_000):
        await connection.send(piece)
    status, _, body = await connection.answer()
    await connection.leave()
    assert (status, json.loads(body)["error"]["code"]) == (413, "request_too_large")
    assert await nothing_happened(shared)


async def test_memory_does_not_grow_with_what_is_sent_over_the_limit(
    shared: World, key: NewKey
) -> None:
    mebibyte = bytes(1 << 20)

    async def endless() -> AsyncIterator[bytes]:
        for _ in range(200):
            yield mebibyte

    before_kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    answer = await post(shared, key, endless(), "application/json")
    assert answer.status_code == 413
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kib < 32 << 10


async def test_a_body_of_exactly_the_limit_is_read(shared: World, key: NewKey) -> None:
    body = b'{"prompt": "a cat"' + b" " * (LIMIT_BYTES - 19) + b"}"
    assert len(body) == LIMIT_BYTES
    assert (await post(shared, key, body, "application/json")).status_code == 200
    assert (await post(shared, key, body + b" ", "application/json")).status_code == 413


async def test_a_body_that_stalls_is_a_408_that_may_be_sent_again(
    shared: World, key: NewKey
) -> None:
    connection = await begun(shared, key, content_type="application/json", length=100)
    await connection.send(b'{"prompt": ')
    status, headers, body = await connection.answer()
    await connection.leave()
    assert (status, json.loads(body)["error"]["code"]) == (408, "request_timeout")
    assert "x-should-retry" not in headers
    assert await nothing_happened(shared)


async def test_a_reference_of_many_megabytes_arrives_whole_from_a_chunked_form(
    tmp_path: Path,
) -> None:
    picture = io.BytesIO()
    Image.new("RGB", (720, 1280)).save(picture, "PNG")
    # What stands behind the end of a PNG does not matter to it; here it makes the file large.
    image = picture.getvalue() + bytes(8_000_000)
    async with world(tmp_path) as made:
        key = await made.key()
        file = field("input_reference", image, more='; filename="a.png"')
        body = form(field("prompt", "a wave"), file)
        answer = await post(made, key, in_pieces(body, size=60_000), FORM)
        assert answer.status_code == 200
        received = (await made.control.received("create"))[-1]["files"]["input_reference"]
    assert received["bytes"] == len(image)
    assert received["sha256"] == hashlib.sha256(image).hexdigest()


async def test_no_body_at_all_is_told_what_is_missing(shared: World) -> None:
    key = await shared.key()
    async with shared.client(key) as client:
        answer = await client.post("/videos")
    error = answer.json()["error"]
    assert (answer.status_code, error["param"]) == (400, "prompt")
    assert error["code"] == "missing_required_parameter"
