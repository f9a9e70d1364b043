"""Does any sequence of bytes make the reading of a body break, or take more memory than it may?

The reading function is fed through real ASGI messages: whole bodies, bodies cut at every place, and
bodies that were spoilt as broken and hostile clients spoil them.
"""

import asyncio
import json
import os
import tracemalloc
from collections.abc import Iterable, Iterator
from itertools import pairwise
from typing import Any, Final

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from starlette.datastructures import UploadFile
from starlette.requests import ClientDisconnect, Request
from starlette.types import Message

from gateway.api.body import MAX_FIELDS, MAX_FILES, ReadBody, read_body
from gateway.errors import GatewayError, InvalidRequest, RequestTooLarge

LONG: Final = os.environ.get("HYPOTHESIS_PROFILE") == "long"
EXAMPLES: Final = 20_000 if LONG else 400
TEST_SECONDS: Final = 3_600 if LONG else 120

LIMIT_BYTES: Final = 1 << 16
BOUNDARY: Final = b"----openai-0123456789"
FORM: Final = f"multipart/form-data; boundary={BOUNDARY.decode()}"
JSON: Final = "application/json"
# Of the parsed body, per byte of what was sent: Python's objects for many small values.
MEMORY_FACTOR: Final = 40
MEMORY_FLOOR_BYTES: Final = 1 << 20


@pytest.fixture(scope="module")
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as made:
        yield made


def request(content_type: str, chunks: Iterable[bytes], *, leaves: bool = False) -> Request:
    """Return a request whose body comes in these chunks; a client may leave instead of ending."""
    messages: list[Message] = [
        {"type": "http.request", "body": chunk, "more_body": True} for chunk in chunks
    ]
    last: Message = {"type": "http.request", "body": b"", "more_body": False}
    left: Message = {"type": "http.disconnect"}
    messages.append(left if leaves else last)
    coming = iter(messages)

    async def receive() -> Message:
        return next(coming)

    headers = [(b"content-type", content_type.encode("latin-1"))]
    scope = {"type": "http", "method": "POST", "path": "/v1/videos", "headers": headers}
    return Request(scope, receive)


async def read(
    content_type: str, chunks: Iterable[bytes], *, leaves: bool = False
) -> ReadBody | GatewayError | ClientDisconnect:
    """Return what is read, or the one of the two errors that a body may end in."""
    try:
        body = await read_body(
            request(content_type, chunks, leaves=leaves), max_bytes=LIMIT_BYTES, idle_seconds=30
        )
    except (GatewayError, ClientDisconnect) as error:
        return error
    check(body)
    await body.close()
    return body


def check(body: ReadBody) -> None:
    """Fail unless everything downstream can rely on what was read."""
    json.dumps(body.values, ensure_ascii=False).encode()
    assert not set(body.values) & set(body.files)
    for name, file in body.files.items():
        assert isinstance(file, UploadFile)
        assert file.file.tell() == 0
        name.encode()


def cut(body: bytes, places: Iterable[int]) -> list[bytes]:
    """Return the body in pieces, cut at these places; the same place twice is an empty piece."""
    edges = [0, *sorted(min(place, len(body)) for place in places), len(body)]
    return [body[start:end] for start, end in pairwise(edges)]


def plain(outcome: ReadBody | GatewayError | ClientDisconnect) -> object:
    """Return what two readings of the same bytes must agree on."""
    if isinstance(outcome, ReadBody):
        return outcome.values, sorted(outcome.files)
    return type(outcome), str(outcome)


# Bodies as clients send them

NAMES = st.sampled_from(
    (
        "prompt",
        "model",
        "seconds",
        "input_reference",
        "input_reference[image_url]",
        "video[id]",
        "video",
        "characters[][id]",
        "characters",
        "characters[][]",
        "characters[]",
        "a[b][c]",
        "a[][b][c]",
        "a[",
        "a]",
        "[a]",
        "[][a]",
        "[]",
        "",
        "ünï",
        "__class__",
    )
)
TEXTS = st.one_of(
    st.text(max_size=40).map(lambda text: text.encode("utf-8", "surrogatepass")),
    st.binary(max_size=40),
    st.sampled_from(
        (BOUNDARY, b"--" + BOUNDARY, b"\r\n--", b"\r\n\r\n", b"\r\n--" + BOUNDARY[:-1])
    ),
)
EXTRAS = st.sampled_from(
    (
        b"",
        b'; filename="a.png"',
        b"; filename=a.png",
        b'; filename=""',
        b"; filename*=utf-8''a%ff.png",
        b'; filename="\xff\xfe"',
        b"; filename",
        b'; filename="a',
        b'; name="other"',
        b"; =",
    )
)
HEADS = st.sampled_from(
    (
        b"",
        b"Content-Type: image/png\r\n",
        b"Content-Type: text/plain; charset=utf-16\r\n",
        b"Content-Type: text/plain; charset=nonsense\r\n",
        b"Content-Type:\r\n",
        b"Content-Transfer-Encoding: base64\r\n",
        b"Content-Disposition: attachment\r\n",
        b"No-Colon\r\n",
        b": no name\r\n",
        b"X-Long: " + b"a" * 20_000 + b"\r\n",
        b"X-Many: a\r\n" * 200,
        b" folded\r\n",
        b"\x00: \x00\r\n",
    )
)


@st.composite
def parts(draw: st.DrawFn) -> bytes:
    name, extra, head = draw(NAMES).encode(), draw(EXTRAS), draw(HEADS)
    quoted = draw(st.sampled_from((b'"%s"', b"%s", b"'%s'", b'"%s'))) % name
    disposition = b"Content-Disposition: form-data; name=" + quoted + extra + b"\r\n"
    first = draw(st.sampled_from((disposition + head, head + disposition, disposition, head)))
    return b"--" + BOUNDARY + b"\r\n" + first + b"\r\n" + draw(TEXTS) + b"\r\n"


@st.composite
def plain_parts(draw: st.DrawFn) -> bytes:
    name, extra = draw(NAMES).encode(), draw(st.sampled_from((b"", b'; filename="a"')))
    head = b'Content-Disposition: form-data; name="' + name + b'"' + extra
    return b"--" + BOUNDARY + b"\r\n" + head + b"\r\n\r\n" + draw(TEXTS) + b"\r\n"


ENDS = st.sampled_from((b"--\r\n", b"--", b"", b"-", b"\r\n", b"--\r\n--\r\n", b"--epilogue"))
FORMS = st.builds(
    lambda preamble, between, end: preamble + b"".join(between) + b"--" + BOUNDARY + end,
    st.sampled_from((b"", b"\r\n", b"preamble\r\n", b"--")),
    st.lists(plain_parts() | parts(), max_size=6),
    st.just(b"--\r\n") | ENDS,
)
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=8), inner, max_size=4)
    ),
    max_leaves=20,
)
ODD_JSON = st.sampled_from(
    (
        b'{"a": 1, "a": 2}',
        b'{"a": {"b": 1, "b": 2}}',
        b"[" * 5_000,
        b'{"a":' * 5_000,
        b'{"a": ' + b"[" * 30_000 + b"]" * 30_000 + b"}",
        b'{"a": ' + b"9" * 10_000 + b"}",
        b'{"a": 1e999, "b": NaN, "c": -Infinity}',
        b'{"a": "\\ud800"}',
        b'{"\\udfff": 1}',
        b'{"a": "\xff"}',
        b"\xef\xbb\xbf{}",
        b'"\\u0000"',
        b"",
        b" ",
    )
)
TEXTS_OF_JSON = (
    st.dictionaries(st.text(max_size=8), VALUES, max_size=5)
    .map(lambda value: json.dumps(value).encode())
    .filter(lambda text: len(text) < LIMIT_BYTES)
) | ODD_JSON


@st.composite
def spoilt(draw: st.DrawFn, bodies: st.SearchStrategy[bytes]) -> bytes:
    """Draw a body with bytes cut off, left out, put in or put twice."""
    body = draw(bodies)
    for _ in range(draw(st.integers(0, 3))):
        at = draw(st.integers(0, len(body)))
        to = min(len(body), at + draw(st.integers(0, 40)))
        match draw(st.sampled_from(("cut", "leave out", "put in", "twice", "turn"))):
            case "cut":
                body = body[:at]
            case "leave out":
                body = body[:at] + body[to:]
            case "put in":
                body = body[:at] + draw(st.binary(max_size=20)) + body[at:]
            case "twice":
                body = body[:to] + body[at:]
            case _:
                body = body[:at] + bytes(byte ^ 0x80 for byte in body[at:to]) + body[to:]
    return body


PLACES = st.lists(st.integers(0, 3_000), max_size=8)
BOUNDARIES = st.sampled_from(
    (
        FORM,
        f'multipart/form-data; boundary="{BOUNDARY.decode()}"',
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary="',
        "multipart/form-data; boundary=a; boundary=b",
        "multipart/form-data; boundary=" + "b" * 300,
        "multipart/form-data; boundary=\xff\xfe",
        f"{FORM}; charset=utf-16",
        f"{FORM}; charset=nonsense",
        f"{FORM}; charset=hex",
        f"{FORM}; charset=idna",
        f"{FORM}; charset=\x00",
        "Multipart/Form-Data ; Boundary=x",
    )
)


@pytest.mark.timeout(TEST_SECONDS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(body=spoilt(FORMS), places=PLACES, content_type=st.just(FORM) | BOUNDARIES)
def test_no_form_breaks_the_reading_and_how_it_is_cut_changes_nothing(
    runner: asyncio.Runner, body: bytes, places: list[int], content_type: str
) -> None:
    whole = runner.run(read(content_type, [body]))
    pieces = runner.run(read(content_type, cut(body, places)))
    # Before the first boundary python-multipart takes more or less, depending on where it is cut.
    if isinstance(pieces, ReadBody) or body.startswith(b"--" + BOUNDARY):
        assert plain(whole) == plain(pieces)
    assert not isinstance(whole, ClientDisconnect)
    assert not isinstance(pieces, ClientDisconnect)


@pytest.mark.timeout(TEST_SECONDS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(body=spoilt(TEXTS_OF_JSON), places=PLACES)
@example(body=b"[" * 60_000, places=[])
def test_no_json_breaks_the_reading_and_how_it_is_cut_changes_nothing(
    runner: asyncio.Runner, body: bytes, places: list[int]
) -> None:
    whole = runner.run(read(JSON, [body]))
    pieces = runner.run(read(JSON, cut(body, places)))
    assert plain(whole) == plain(pieces)
    assert not isinstance(whole, ClientDisconnect)


@pytest.mark.timeout(TEST_SECONDS)
@settings(max_examples=EXAMPLES // 2, deadline=None)
@given(
    body=spoilt(FORMS | TEXTS_OF_JSON), places=PLACES, content_type=st.sampled_from((FORM, JSON))
)
def test_a_client_that_leaves_in_the_middle_is_never_taken_for_one_that_has_ended(
    runner: asyncio.Runner, body: bytes, places: list[int], content_type: str
) -> None:
    outcome = runner.run(read(content_type, cut(body, places), leaves=True))
    assert isinstance(outcome, GatewayError | ClientDisconnect)


WELL_FORMED: Final = (
    b'--%(b)s\r\nContent-Disposition: form-data; name="prompt"\r\n\r\na "cat"\r\n-- \xe7\x95\x8c'
    b'\r\n--%(b)s\r\nContent-Disposition: form-data; name="characters[][id]"\r\n\r\nchar_1'
    b'\r\n--%(b)s\r\nContent-Disposition: form-data; name="characters[][id]"\r\n\r\nchar_2'
    b'\r\n--%(b)s\r\nContent-Disposition: form-data; name="video[id]"\r\n\r\nvideo_1'
    b'\r\n--%(b)s\r\nContent-Disposition: form-data; name="input_reference"; filename="a.png"'
    b"\r\nContent-Type: image/png\r\n\r\n\x89PNG\r\n\x1a\n--%(b)s\r\n--%(b)s--\r\n"
) % {b"b": BOUNDARY}
MEANT: Final = {
    "prompt": 'a "cat"\r\n-- 界',
    "characters": [{"id": "char_1"}, {"id": "char_2"}],
    "video": {"id": "video_1"},
}


def test_a_form_means_the_same_wherever_it_is_cut_in_two_or_three(runner: asyncio.Runner) -> None:
    for place in range(len(WELL_FORMED) + 1):
        for places in ([place], [place, place], [place, place + 1], [place, place + 7]):
            outcome = runner.run(read(FORM, cut(WELL_FORMED, places)))
            assert isinstance(outcome, ReadBody), (places, outcome)
            assert (outcome.values, list(outcome.files)) == (MEANT, ["input_reference"])


def test_a_form_that_breaks_off_is_never_read_wherever_that_is(runner: asyncio.Runner) -> None:
    whole = WELL_FORMED.removesuffix(b"\r\n")
    for place in range(len(whole)):
        outcome = runner.run(read(FORM, [WELL_FORMED[:place]]))
        assert isinstance(outcome, InvalidRequest), place


def test_json_that_breaks_off_is_never_read_wherever_that_is(runner: asyncio.Runner) -> None:
    text = json.dumps({"prompt": "界", "seconds": "8", "a": [1, {"b": None}]}).encode()
    for place in range(len(text)):
        assert isinstance(runner.run(read(JSON, [text[:place]])), InvalidRequest), place
    assert isinstance(runner.run(read(JSON, [text])), ReadBody)


def part(name: str, content: bytes = b"a", *, more: str = "") -> bytes:
    head = f'Content-Disposition: form-data; name="{name}"{more}\r\n\r\n'.encode()
    return b"--" + BOUNDARY + b"\r\n" + head + content + b"\r\n"


def form(*between: bytes) -> bytes:
    return b"".join(between) + b"--" + BOUNDARY + b"--\r\n"


@pytest.mark.parametrize(
    ("names", "meant"),
    [
        (["a[b]"], {"a": {"b": "a"}}),
        (["a[b]", "a[c]"], {"a": {"b": "a", "c": "a"}}),
        (["a[][b]", "a[][b]"], {"a": [{"b": "a"}, {"b": "a"}]}),
        (["a[][b]", "a[][c]", "a[][b]"], {"a": [{"b": "a", "c": "a"}, {"b": "a"}]}),
        (["a[b]", "a[b]"], None),
        (["a", "a[b]"], None),
        (["a[b]", "a"], None),
        (["a[b]", "a[][b]"], None),
        (["a[][b]", "a[b]"], None),
        (["a[][b]", "a"], None),
    ],
)
def test_nested_names_are_read_as_the_sdks_write_them_and_never_guessed_at(
    runner: asyncio.Runner, names: list[str], meant: dict[str, Any] | None
) -> None:
    outcome = runner.run(read(FORM, [form(*(part(name) for name in names))]))
    if meant is None:
        assert isinstance(outcome, InvalidRequest)
        assert outcome.code == "duplicate_parameter"
    else:
        assert isinstance(outcome, ReadBody)
        assert outcome.values == meant


@pytest.mark.parametrize(
    "names", [("a", "a[b]"), ("a[b]", "a"), ("a[][b]", "a"), ("a", "a[][b]"), ("a", "a")]
)
def test_a_file_and_a_text_of_one_name_are_refused_in_either_order(
    runner: asyncio.Runner, names: tuple[str, str]
) -> None:
    for filed in (0, 1):
        if "[" in names[filed]:
            continue
        made = [
            part(name, more='; filename="a"' if place == filed else "")
            for place, name in enumerate(names)
        ]
        outcome = runner.run(read(FORM, [form(*made)]))
        assert isinstance(outcome, InvalidRequest), names
        assert (outcome.code, outcome.param) == ("duplicate_parameter", "a")


def many(count: int, *, more: str = "") -> bytes:
    return form(*(part(f"f{number}", more=more) for number in range(count)))


@pytest.mark.parametrize(
    ("more", "limit"), [("", MAX_FIELDS), ('; filename="a"', MAX_FILES)], ids=["fields", "files"]
)
def test_more_parts_than_there_may_be_are_refused(
    runner: asyncio.Runner, more: str, limit: int
) -> None:
    assert isinstance(runner.run(read(FORM, [many(limit, more=more)])), ReadBody)
    assert isinstance(runner.run(read(FORM, [many(limit + 1, more=more)])), InvalidRequest)


def peak_bytes(runner: asyncio.Runner, content_type: str, chunks: Iterable[bytes]) -> int:
    """Return how much more memory is used at most while a body is read."""
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()
        runner.run(read(content_type, chunks))
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    return peak - before


CHUNK: Final = bytes(1 << 12)
START_OF_FILE: Final = part("input_reference", more='; filename="a"').removesuffix(b"a\r\n")
START_OF_TEXT: Final = part("prompt").removesuffix(b"a\r\n")
HOSTILE: Final = {
    "a text without an end": (FORM, START_OF_TEXT, CHUNK),
    "a file without an end": (FORM, START_OF_FILE, CHUNK),
    "a header without an end": (FORM, b"--" + BOUNDARY + b"\r\nX: ", b"a" * (1 << 12)),
    "a name without an end": (FORM, b"--" + BOUNDARY + b"\r\n", b"a" * (1 << 12)),
    "headers without an end": (FORM, b"--" + BOUNDARY + b"\r\n", b"X: a\r\n" * 600),
    "parts without an end": (FORM, b"", part("a") * 50),
    "boundaries without an end": (FORM, b"", (b"--" + BOUNDARY + b"\r\n") * 100),
    "nearly boundaries": (FORM, START_OF_TEXT, (b"\r\n--" + BOUNDARY[:-1]) * 100),
    "line ends": (FORM, START_OF_TEXT, b"\r\n" * 2_000),
    "a preamble": (FORM, b"", b"a" * (1 << 12)),
    "JSON without an end": (JSON, b'{"a": "', b"a" * (1 << 12)),
    "brackets": (JSON, b"", b"[" * (1 << 12)),
    "numbers": (JSON, b'{"a": [', b"1," * 2_000),
    "no bytes at all": (JSON, b"", b"\x00" * (1 << 12)),
}


@pytest.mark.parametrize("what", HOSTILE)
def test_a_body_over_the_limit_is_refused_where_it_passes_it(
    runner: asyncio.Runner, what: str
) -> None:
    content_type, start, chunk = HOSTILE[what]
    taken = 0

    def endless() -> Iterator[bytes]:
        nonlocal taken
        yield start
        while True:
            taken += len(chunk)
            yield chunk

    coming = endless()

    async def receive() -> Message:
        return {"type": "http.request", "body": next(coming), "more_body": True}

    headers = [(b"content-type", content_type.encode())]
    scope = {"type": "http", "method": "POST", "path": "/v1/videos", "headers": headers}

    async def refused() -> None:
        with pytest.raises((RequestTooLarge, InvalidRequest)):
            await read_body(Request(scope, receive), max_bytes=LIMIT_BYTES, idle_seconds=30)

    runner.run(refused())
    assert taken <= LIMIT_BYTES + 2 * len(chunk)


@pytest.mark.parametrize("what", HOSTILE)
def test_memory_stays_near_what_a_body_may_be_however_much_is_sent(
    runner: asyncio.Runner, what: str
) -> None:
    content_type, start, chunk = HOSTILE[what]
    chunks = [start, *([chunk] * (4 * LIMIT_BYTES // len(chunk)))]
    peak = peak_bytes(runner, content_type, chunks)
    assert peak < MEMORY_FLOOR_BYTES + MEMORY_FACTOR * LIMIT_BYTES


def test_a_file_is_not_kept_in_memory(runner: asyncio.Runner) -> None:
    size_bytes, piece = 24 << 20, bytes(1 << 16)
    chunks = [START_OF_FILE, *([piece] * (size_bytes // len(piece))), b"\r\n", form()]
    tracemalloc.start()
    try:
        before, _ = tracemalloc.get_traced_memory()

        async def reading() -> int:
            body = await read_body(request(FORM, chunks), max_bytes=32 << 20, idle_seconds=30)
            file = body.files["input_reference"].file
            length = file.seek(0, os.SEEK_END)
            await body.close()
            return length

        assert runner.run(reading()) == size_bytes
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak - before < 4 << 20
