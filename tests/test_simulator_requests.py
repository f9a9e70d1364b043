"""Does the simulator read requests as strictly as the relay does?"""

from collections.abc import AsyncIterator
from typing import Any

import httpx
import openai
import pytest
from plain_http import NO_TLS

from gateway.simulator.bits import nal_unit
from gateway.simulator.faults import parse_directives
from gateway.simulator.mp4 import make_mp4
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings

_KEY = {"authorization": "Bearer sk-simulator"}
_AT_ONCE = Settings(queue_seconds=0, generation_seconds=0)


@pytest.fixture
async def simulator() -> AsyncIterator[Simulator]:
    async with Simulator(settings=_AT_ONCE) as running:
        yield running


@pytest.fixture
async def http(simulator: Simulator) -> AsyncIterator[httpx.AsyncClient]:
    async with httpx.AsyncClient(
        verify=NO_TLS, base_url=simulator.base_url, headers=_KEY
    ) as client:
        yield client


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        ("application/json", b"{"),
        ("application/json", b"[]"),
        ("text/plain", b"prompt"),
        ("multipart/form-data", b"no boundary"),
        ("multipart/form-data; boundary=b", b"--c\r\n"),
    ],
)
async def test_an_unreadable_body_is_a_400(http: httpx.AsyncClient, kind: str, body: bytes) -> None:
    answer = await http.post("/videos", content=body, headers={"content-type": kind})
    assert answer.status_code == 400
    assert set(answer.json()["error"]) == {"message", "type", "param", "code"}


@pytest.mark.parametrize(
    "parts",
    [
        {"prompt": "a cat", "seconds": "4", "seconds[x]": "4"},
        {"prompt": "a cat", "input_reference[image_url]": "data:,"},
        {"prompt": "a cat", "characters[id]": "char_x"},
        {"prompt": "a cat", "video": "x"},
    ],
)
async def test_bracketed_parts_are_nested_fields(
    http: httpx.AsyncClient, simulator: Simulator, parts: dict[str, str]
) -> None:
    answer = await http.post("/videos", files={name: (None, said) for name, said in parts.items()})
    assert answer.status_code == 400
    assert simulator.world.executed == []


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("PATCH", "/videos"),
        ("GET", "/videos/"),
        ("GET", "/videos/a/b"),
        ("HEAD", "/videos/a/content"),
        ("POST", "/videos/a/cancel"),
        ("GET", "/elsewhere"),
    ],
)
async def test_what_is_not_served_is_a_404(http: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await http.request(method, path)).status_code == 404


@pytest.mark.parametrize(
    ("path", "body", "param"),
    [
        ("/videos/edits", {"prompt": "a"}, "video"),
        ("/videos/edits", {"prompt": "a", "video": {"id": "x"}, "size": "720x1280"}, "size"),
        ("/videos/extensions", {"prompt": "a", "video": {"id": "SOURCE"}}, "seconds"),
        (
            "/videos/extensions",
            {"prompt": "a", "video": {"id": "SOURCE"}, "seconds": "5"},
            "seconds",
        ),
        ("/videos/SOURCE/remix", {"prompt": "a", "seconds": "4"}, "seconds"),
        ("/videos", {"prompt": 5}, "prompt"),
        ("/videos", {"prompt": "a", "size": ["720x1280"]}, "size"),
        ("/videos", {"prompt": "a", "characters": [{}, {}, {}]}, "characters"),
    ],
)
async def test_a_derived_request_is_checked_too(
    http: httpx.AsyncClient, path: str, body: dict[str, Any], param: str
) -> None:
    source = (await http.post("/videos", json={"prompt": "a cat"})).json()["id"]
    if body.get("video") == {"id": "SOURCE"}:
        body = body | {"video": {"id": source}}
    answer = await http.post(path.replace("SOURCE", source), json=body)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, param)


async def test_an_extension_stays_within_what_can_be_stitched(http: httpx.AsyncClient) -> None:
    long = {"video": ("v.mp4", make_mp4(width=720, height=1280, seconds=110, tag=b""), "video/mp4")}
    fields = {"prompt": "a", "model": "sora-2"}
    for seconds, status in (("8", 200), ("12", 400)):
        answer = await http.post(
            "/videos/extensions", data=fields | {"seconds": seconds}, files=long
        )
        assert answer.status_code == status


async def test_a_file_that_is_no_video_is_refused(http: httpx.AsyncClient) -> None:
    files = {"video": ("v.mp4", b"\0\0\0\x18ftypisom", "video/mp4")}
    answer = await http.post("/videos/characters", data={"name": "Mia"}, files=files)
    assert answer.json()["error"]["code"] == "invalid_file"
    nameless = await http.post("/videos/characters", data={"name": ""}, files=files)
    assert nameless.json()["error"]["param"] == "name"


async def test_the_models_are_listed_without_a_bill(
    http: httpx.AsyncClient, simulator: Simulator
) -> None:
    listed = (await http.get("/models")).json()["data"]
    assert "sora-2-pro" in {model["id"] for model in listed}
    assert simulator.world.executed == []


# The SDK marks its whole videos resource as deprecated, and says so at each call.
@pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning")
async def test_objects_pass_the_sdk_s_strict_validation(simulator: Simulator) -> None:
    async with openai.AsyncOpenAI(
        api_key="sk-simulator", base_url=simulator.base_url, _strict_response_validation=True
    ) as sdk:
        video = await sdk.videos.create_and_poll(prompt="a cat")
        assert video.status == "completed"
        assert [one.id async for one in sdk.videos.list(limit=1, order="asc")] == [video.id]
        remixed = await sdk.videos.remix(video.id, prompt="more")
        assert (await sdk.videos.delete(remixed.id)).object == "video.deleted"


def test_directives_are_read_with_their_place_count_and_arguments() -> None:
    first, second = parse_directives("a [[cat]s] [[content:slow*3 1000 delay=0.5]] [[502]]")
    assert (first.operation, first.name, first.times) == ("content", "slow", 3)
    assert (first.value, first.arguments) == ("1000", {"delay": "0.5"})
    assert (second.operation, second.name, second.times) == ("submit", "502", None)
    assert not second.executed


def test_no_start_code_can_appear_inside_a_unit() -> None:
    unit = nal_unit(importance=3, kind=7, payload=b"\0\0\1\0\0\0\0\3\0\0\4")
    assert unit == b"\x67\0\0\3\1\0\0\3\0\0\3\3\0\0\4"
