"""Is a request that was meant once bought once, however often it is sent?"""

import asyncio
import contextlib
import io
from collections.abc import AsyncIterator
from functools import partial
from pathlib import Path
from typing import Any

import httpx
import pytest
import pytest_asyncio
from conftest import World, eventually, new_key, settings_for, world
from openai import AsyncOpenAI
from PIL import Image
from plain_http import NO_TLS

from gateway.app import running
from gateway.billing.balances import KEY
from gateway.billing.keys import NewKey
from gateway.clock import system_clock
from gateway.setup import open_database
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings

pytestmark = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]

OFFERS = ("create", "retrieve", "content", "remix", "edit", "extend", "characters")
DAY_SECONDS = 86_400
REPLAYED = "idempotent-replayed"
DEDUPLICATED = "x-gateway-deduplicated"
CAT = {"prompt": "a cat"}


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def shared(place: Path) -> AsyncIterator[World]:
    folder = place / "retries"
    async with world(folder, upstream_offers=OFFERS) as made:
        yield made


async def create(
    made: World, key: NewKey, fields: dict[str, Any] | None = None, /, **headers: str
) -> httpx.Response:
    """Create a video; `_` in the name of a header stands for `-`."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    async with made.client(key) as client:
        return await client.post("/videos", json=fields or CAT, headers=named)


def retry(count: int = 1) -> dict[str, str]:
    return {"x_stainless_retry_count": str(count)}


def code(answer: httpx.Response) -> str:
    return str(answer.json()["error"]["code"])


def png(colour: tuple[int, int, int] = (1, 2, 3)) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", (720, 1280), colour).save(out, "PNG")
    return out.getvalue()


async def arrived(made: World, count: int) -> None:
    """Wait until the upstream has had so many creates in all."""

    async def there() -> bool:
        return int((await made.control.totals())["requests"].get("create", 0)) >= count

    await eventually(there)


async def creates(made: World) -> int:
    return int((await made.control.totals())["requests"].get("create", 0))


# Idempotency-Key


async def test_two_requests_with_one_idempotency_key_at_once_buy_one_video(shared: World) -> None:
    key, before = await shared.key(), await shared.executions()
    fields = {"prompt": "[[delay 0.5]] twins"}
    answers = await asyncio.gather(
        *(create(shared, key, fields, idempotency_key="twins") for _ in range(8))
    )
    assert {answer.status_code for answer in answers} == {200}
    assert len({answer.content for answer in answers}) == 1
    assert [answer.headers.get(REPLAYED) for answer in answers].count("true") == 7
    assert await shared.executions() == before + 1
    assert await shared.one("SELECT COUNT(*) FROM holds WHERE key_id = $1", key.id) == 1


async def test_a_replay_has_the_first_answer_although_the_video_has_gone_on(shared: World) -> None:
    key = await shared.key()
    fields = {"prompt": "[[queue 1]] [[generation 0]] a cat"}
    first = await create(shared, key, fields, idempotency_key="first")
    await shared.ended(first.json()["id"])
    again = await create(shared, key, fields, idempotency_key="first")
    assert (again.status_code, again.content) == (200, first.content)
    assert again.headers[REPLAYED] == "true"
    assert again.headers["openai-poll-after-ms"] == first.headers["openai-poll-after-ms"]
    assert (first.json()["status"], REPLAYED in first.headers) == ("queued", False)


async def test_json_and_multipart_with_the_same_fields_are_one_intent(shared: World) -> None:
    key = await shared.key()
    first = await create(shared, key, {**CAT, "seconds": "4"}, idempotency_key="encodings")
    async with shared.client(key) as client:
        form = {"prompt": (None, "a cat")}
        again = await client.post("/videos", files=form, headers={"idempotency-key": "encodings"})
    assert (again.content, again.headers[REPLAYED]) == (first.content, "true")


@pytest.mark.parametrize("fields", [{"prompt": "a dog"}, {**CAT, "seconds": "8"}])
async def test_an_idempotency_key_with_other_fields_is_a_422_and_buys_nothing(
    shared: World, fields: dict[str, str]
) -> None:
    key = await shared.key(project=f"other fields {len(fields)}")
    await create(shared, key, idempotency_key="once")
    before = await creates(shared)
    answer = await create(shared, key, fields, idempotency_key="once")
    assert (answer.status_code, code(answer)) == (422, "idempotency_key_reused")
    assert answer.headers["x-should-retry"] == "false"
    assert await creates(shared) == before


async def test_a_video_and_its_remix_do_not_share_an_idempotency_key(shared: World) -> None:
    key = await shared.key()
    first = await create(shared, key, idempotency_key="either")
    await shared.ended(first.json()["id"])
    async with shared.client(key) as client:
        path, headers = f"/videos/{first.json()['id']}/remix", {"idempotency-key": "either"}
        answer = await client.post(path, json=CAT, headers=headers)
    assert (answer.status_code, code(answer)) == (422, "idempotency_key_reused")


async def test_what_the_upstream_refused_frees_its_idempotency_key(shared: World) -> None:
    key, before = await shared.key(), await shared.executions()
    await shared.control.fault("refuse", operation="create")
    assert (await create(shared, key, idempotency_key="freed")).status_code == 400
    second = await create(shared, key, {"prompt": "a dog"}, idempotency_key="freed")
    assert (second.status_code, REPLAYED in second.headers) == (200, False)
    third = await create(shared, key, {"prompt": "a dog"}, idempotency_key="freed")
    assert (third.content, third.headers[REPLAYED]) == (second.content, "true")
    assert await shared.executions() == before + 1


async def test_who_waits_for_an_attempt_that_is_refused_buys_instead(shared: World) -> None:
    key, before = await shared.key(), await shared.executions()
    await shared.control.fault("500-envelope", operation="create", delay=0.5)
    answers = await asyncio.gather(
        *(create(shared, key, idempotency_key="instead") for _ in range(4))
    )
    assert sorted(answer.status_code for answer in answers) == [200, 200, 200, 500]
    assert len({answer.content for answer in answers if answer.status_code == 200}) == 1
    assert await shared.executions() == before + 1


async def test_what_a_budget_refused_is_not_remembered(shared: World) -> None:
    key = await shared.key(budget="0.10")
    refused = await create(shared, key, idempotency_key="poor")
    assert (refused.status_code, code(refused)) == (429, "insufficient_quota")
    await shared.budget(KEY, key.id, "10.00", period="month")
    answer = await create(shared, key, {"prompt": "a dog"}, idempotency_key="poor")
    assert (answer.status_code, REPLAYED in answer.headers) == (200, False)


async def test_a_replay_is_given_although_the_budget_is_used_up(shared: World) -> None:
    key = await shared.key(budget="0.40")
    first = await create(shared, key, idempotency_key="last money")
    again = await create(shared, key, idempotency_key="last money")
    assert (again.status_code, again.content) == (200, first.content)


async def test_an_idempotency_key_belongs_to_its_project(shared: World) -> None:
    mine, colleague = await shared.key(project="ours"), await shared.key(project="ours", name="b")
    stranger = await shared.key(project="theirs")
    first = await create(shared, mine, idempotency_key="shared")
    same = await create(shared, colleague, idempotency_key="shared")
    other = await create(shared, stranger, {"prompt": "a dog"}, idempotency_key="shared")
    assert (same.content, same.headers[REPLAYED]) == (first.content, "true")
    assert (other.status_code, REPLAYED in other.headers) == (200, False)
    assert other.json()["id"] != first.json()["id"]


async def test_an_idempotency_key_is_good_for_a_day(shared: World) -> None:
    key = await shared.key(project="a day")
    first = await create(shared, key, idempotency_key="daily")
    shared.timeline.offset_seconds += DAY_SECONDS - 60
    within = await create(shared, key, idempotency_key="daily")
    assert (within.content, within.headers[REPLAYED]) == (first.content, "true")
    shared.timeline.offset_seconds += 120
    after = await create(shared, key, {"prompt": "a dog"}, idempotency_key="daily")
    assert (after.status_code, REPLAYED in after.headers) == (200, False)
    again = await create(shared, key, {"prompt": "a dog"}, idempotency_key="daily")
    assert (again.content, again.headers[REPLAYED]) == (after.content, "true")


@pytest.mark.parametrize("length", [0, 256])
async def test_an_idempotency_key_of_no_or_too_many_characters_is_a_400(
    shared: World, length: int
) -> None:
    key, before = await shared.key(), await creates(shared)
    answer = await create(shared, key, idempotency_key="k" * length)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")
    assert await creates(shared) == before
    assert (await create(shared, key, idempotency_key="k" * 255)).status_code == 200


async def test_where_the_first_outcome_is_unknown_the_same_key_says_so_and_buys_nothing(
    shared: World,
) -> None:
    key, before = await shared.key(), await shared.executions()
    await shared.control.fault("drop", operation="create")
    for _ in range(3):
        answer = await create(shared, key, idempotency_key="unknown")
        assert (answer.status_code, code(answer)) == (502, "outcome_unknown")
        assert answer.headers["x-should-retry"] == "false"
    assert await shared.executions() == before + 1


async def test_where_nobody_is_left_to_find_the_outcome_out_waiting_ends_with_the_lease(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, upstream_post_seconds=2) as made:
        key = await made.key()
        await made.control.fault("hang", operation="create")
        async with asyncio.TaskGroup() as group:
            first = group.create_task(create(made, key, idempotency_key="hung"))
            await arrived(made, 1)
            waiting = group.create_task(create(made, key, idempotency_key="hung"))
            made.timeline.offset_seconds += DAY_SECONDS // 24
            answer = await waiting
            assert not first.done()
        assert (answer.status_code, code(answer)) == (502, "outcome_unknown")
        assert code(first.result()) == "outcome_unknown"
        assert await made.executions() == 1


# Retries of the SDKs


class Proxy:
    """A TCP proxy in front of the gateway, which loses connections when it is told to.

    Attributes:
        losing: so many answers are lost: their connections are cut when they begin.
        lost: so many were.
        open: connections on which no answer has come yet, oldest first.
    """

    def __init__(self, port: int) -> None:
        self._port = port
        self.losing = 0
        self.lost = 0
        self.open: list[asyncio.StreamWriter] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """Pass bytes on, both ways, until one side leaves."""
        from_gateway, to_gateway = await asyncio.open_connection("127.0.0.1", self._port)
        self.open.append(writer)
        with contextlib.suppress(ConnectionError):
            async with asyncio.TaskGroup() as group:
                sending = group.create_task(_pump(reader, to_gateway))
                await self._answers(from_gateway, writer)
                sending.cancel()
        for one in (to_gateway, writer):
            one.close()
            with contextlib.suppress(ConnectionError):
                await one.wait_closed()

    async def _answers(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while piece := await reader.read(1 << 16):
            if writer in self.open:
                self.open.remove(writer)
            if self.losing:
                self.losing -= 1
                self.lost += 1
                return
            writer.write(piece)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(ConnectionError):
        while piece := await reader.read(1 << 16):
            writer.write(piece)
            await writer.drain()
    # The client has left: so does the proxy.
    writer.close()


@contextlib.asynccontextmanager
async def proxied(made: World) -> AsyncIterator[tuple[Proxy, str]]:
    proxy = Proxy(made.gateway.port)
    server = await asyncio.start_server(proxy.serve, "127.0.0.1")
    async with server:
        yield proxy, f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/v1"


async def by_sdk(sdk: AsyncOpenAI, prompt: str, **more: Any) -> tuple[str, bool]:
    """Return the id of a video that the SDK made, and whether it came from an earlier attempt."""
    answer = await sdk.videos.with_raw_response.create(prompt=prompt, **more)
    return answer.parse().id, answer.headers.get(DEDUPLICATED) == "true"


@pytest.mark.costly
@pytest.mark.parametrize("times", [1, 2])
@pytest.mark.parametrize("image", [None, png()], ids=["without a file", "with a file"])
async def test_a_retry_of_the_sdk_whose_answer_was_lost_gets_the_video_that_was_bought(
    shared: World, times: int, image: bytes | None
) -> None:
    key, before = await shared.key(), await shared.executions()
    file: dict[str, Any] = {} if image is None else {"input_reference": image}
    async with (
        proxied(shared) as (proxy, url),
        AsyncOpenAI(base_url=url, api_key=key.value, max_retries=2) as sdk,
    ):
        proxy.losing = times
        video_id, deduplicated = await by_sdk(sdk, "lost", **file)
        assert (proxy.lost, deduplicated) == (times, True)
    assert await shared.executions() == before + 1
    made = await shared.facts(video_id)
    assert (made["key_id"], made["hold_micros"]) == (key.id, 400_000)


async def test_a_retry_of_the_sdk_that_left_waits_for_the_first_answer(shared: World) -> None:
    key, before, had = await shared.key(), await shared.executions(), await creates(shared)
    async with (
        proxied(shared) as (proxy, url),
        AsyncOpenAI(base_url=url, api_key=key.value, max_retries=2) as sdk,
        asyncio.TaskGroup() as group,
    ):
        asked = group.create_task(by_sdk(sdk, "[[delay 2]] left"))
        await arrived(shared, had + 1)
        proxy.open[0].close()
        _, deduplicated = await asked
    assert deduplicated
    assert await shared.executions() == before + 1


async def test_five_identical_creates_one_of_which_drops_are_five_videos_told_once_each(
    shared: World,
) -> None:
    key, before, had = await shared.key(), await shared.executions(), await creates(shared)
    async with (
        proxied(shared) as (proxy, url),
        AsyncOpenAI(base_url=url, api_key=key.value, max_retries=2) as sdk,
        asyncio.TaskGroup() as group,
    ):
        asked = [group.create_task(by_sdk(sdk, "[[delay 1]] five")) for _ in range(5)]
        await arrived(shared, had + 5)
        proxy.open[2].close()
        answers = [await one for one in asked]
    ids = {video_id for video_id, _ in answers}
    assert (len(ids), [one for _, one in answers].count(True)) == (5, 1)
    assert await shared.executions() == before + 5
    assert {row["upstream_id"] for row in await videos_of(shared, key)} == ids


async def videos_of(made: World, key: NewKey) -> list[Any]:
    return await made.rows("SELECT upstream_id FROM videos WHERE key_id = $1", key.id)


async def test_a_retry_without_a_first_attempt_is_the_first(shared: World) -> None:
    answer = await create(shared, await shared.key(), **retry(2))
    assert (answer.status_code, DEDUPLICATED in answer.headers) == (200, False)


async def test_a_first_attempt_is_never_taken_for_a_retry(shared: World) -> None:
    key = await shared.key()
    first = await create(shared, key, x_stainless_retry_count="0")
    again = await create(shared, key, x_stainless_retry_count="0")
    assert first.json()["id"] != again.json()["id"]


async def test_one_attempt_answers_one_retry_of_each_count(shared: World) -> None:
    key, before = await shared.key(), await shared.executions()
    first = await create(shared, key)
    once, twice = await create(shared, key, **retry(1)), await create(shared, key, **retry(2))
    assert first.content == once.content == twice.content
    other = await create(shared, key, **retry(1))
    assert (other.status_code, DEDUPLICATED in other.headers) == (200, False)
    assert await shared.executions() == before + 2


async def test_what_the_upstream_refused_answers_for_no_retry(shared: World) -> None:
    key, before = await shared.key(), await shared.executions()
    await shared.control.fault("500-envelope", operation="create")
    assert (await create(shared, key)).status_code == 500
    again = await create(shared, key, **retry())
    assert (again.status_code, DEDUPLICATED in again.headers) == (200, False)
    assert await shared.executions() == before + 1


async def test_a_retry_of_what_was_refused_does_not_get_the_video_before_it(
    shared: World,
) -> None:
    key, before = await shared.key(), await shared.executions()
    first = await create(shared, key)
    await shared.control.fault("503-envelope", operation="create")
    shared.timeline.offset_seconds += 1
    async with AsyncOpenAI(base_url=shared.base_url, api_key=key.value, max_retries=2) as sdk:
        second, deduplicated = await by_sdk(sdk, "a cat")
    assert second != first.json()["id"]
    assert not deduplicated
    assert await shared.executions() == before + 2


async def test_the_retry_of_what_a_limit_refused_does_not_get_the_video_before_it(
    shared: World,
) -> None:
    key, before = await shared.key(), await shared.executions()
    first = await create(shared, key)
    await shared.limit(KEY, key.id, requests_per_minute=1)
    assert (await create(shared, key, {"prompt": "another"})).status_code == 200
    refused = await create(shared, key, **retry(0))
    assert (refused.status_code, "x-should-retry" in refused.headers) == (429, False)
    still = await create(shared, key, **retry(1))
    assert still.status_code == 429
    await shared.limit(KEY, key.id, requests_per_minute=9)
    again = await create(shared, key, **retry(2))
    assert (again.status_code, DEDUPLICATED in again.headers) == (200, False)
    assert again.json()["id"] != first.json()["id"]
    assert await shared.executions() == before + 3


@pytest.mark.parametrize("given_up_after", [0, 1, 2])
async def test_a_refusal_that_was_given_up_does_not_buy_again_for_a_later_purchase(
    shared: World, given_up_after: int
) -> None:
    key = await shared.key()
    await shared.limit(KEY, key.id, requests_per_minute=1)
    assert (await create(shared, key, {"prompt": "another"})).status_code == 200
    for count in range(given_up_after + 1):
        assert (await create(shared, key, **retry(count))).status_code == 429
    await shared.limit(KEY, key.id, requests_per_minute=9)
    before = await shared.executions()
    bought = await create(shared, key, **retry(0))
    for count in (1, 2):
        again = await create(shared, key, **retry(count))
        assert (again.json()["id"], again.headers[DEDUPLICATED]) == (bought.json()["id"], "true")
    assert await shared.executions() == before + 1


async def test_a_retry_that_bought_after_a_refusal_is_not_bought_again_for_an_older_refusal(
    shared: World,
) -> None:
    key = await shared.key()
    await shared.limit(KEY, key.id, requests_per_minute=1)
    assert (await create(shared, key, {"prompt": "another"})).status_code == 200
    for count in (0, 1, 2, 0):
        assert (await create(shared, key, **retry(count))).status_code == 429
    await shared.limit(KEY, key.id, requests_per_minute=9)
    before = await shared.executions()
    bought = await create(shared, key, **retry(1))
    again = await create(shared, key, **retry(2))
    assert (bought.status_code, DEDUPLICATED in bought.headers) == (200, False)
    assert again.json()["id"] == bought.json()["id"]
    assert await shared.executions() == before + 1


async def test_several_of_one_prompt_that_a_limit_refused_are_all_bought_by_their_retries(
    shared: World,
) -> None:
    key = await shared.key()
    await shared.limit(KEY, key.id, requests_per_minute=2)
    before = await shared.executions()
    answers = [await create(shared, key, **retry(0)) for _ in range(5)]
    assert [answer.status_code for answer in answers] == [200, 200, 429, 429, 429]
    await shared.limit(KEY, key.id, requests_per_minute=9)
    again = [await create(shared, key, **retry(1)) for _ in range(3)]
    ids = {answer.json()["id"] for answer in (*answers[:2], *again)}
    assert len(ids) == 5
    assert await shared.executions() == before + 5


@pytest.mark.parametrize(
    ("read_seconds", "retry_count", "window_seconds"),
    [
        ("600", 1, 780),
        ("600", 2, 1380),
        ("30", 1, 210),
        (None, 1, 900),
        (None, 2, 1800),
        ("nonsense", 1, 900),
        ("7200", 1, 3780),
    ],
)
async def test_a_retry_looks_back_as_long_as_its_client_may_have_waited(
    shared: World, read_seconds: str | None, retry_count: int, window_seconds: int
) -> None:
    said = {} if read_seconds is None else {"x_stainless_read_timeout": read_seconds}
    for seconds, answered in ((window_seconds - 30, True), (window_seconds + 30, False)):
        key = await shared.key()
        first = await create(shared, key, **said)
        shared.timeline.offset_seconds += seconds
        again = await create(shared, key, **said, **retry(retry_count))
        assert again.status_code == 200
        assert (DEDUPLICATED in again.headers) is answered
        assert (again.json()["id"] == first.json()["id"]) is answered


async def test_a_refused_attempt_that_had_a_key_answers_for_no_retry_without_one(
    shared: World,
) -> None:
    key, before = await shared.key(), await shared.executions()
    first = await create(shared, key)
    await shared.control.fault("500-envelope", operation="create")
    assert (await create(shared, key, idempotency_key="mine")).status_code == 500
    again = await create(shared, key, **retry())
    assert again.json()["id"] == first.json()["id"]
    assert await shared.executions() == before + 1


async def test_a_client_that_left_while_it_waited_for_an_attempt_buys_nothing(
    shared: World,
) -> None:
    key, before = await shared.key(), await shared.executions()
    await shared.control.fault("500-envelope", operation="create", delay=2)
    async with asyncio.TaskGroup() as group:
        first = group.create_task(create(shared, key))

        async def under_way() -> bool:
            return bool(
                await shared.rows("SELECT 1 AS one FROM attempts WHERE key_id = $1", key.id)
            )

        await eventually(under_way)
        async with shared.client(key) as client:
            headers = {"x-stainless-retry-count": "1"}
            with pytest.raises(httpx.ReadTimeout):
                await client.post("/videos", json=CAT, headers=headers, timeout=0.5)
        assert (await first).status_code == 500
    last = await create(shared, key, **retry(2))
    assert last.status_code == 200
    assert await shared.executions() == before + 1


async def test_a_dry_run_knows_the_budget_of_a_day_on_which_nothing_was_bought(
    shared: World,
) -> None:
    key = await shared.key(budget="0.10", period="day")
    shared.timeline.offset_seconds += 24 * 3600
    answer = await create(shared, key, x_gateway_dry_run="true")
    assert answer.json()["allowed"] is False
    assert [one["period"] for one in answer.json()["budgets"]] == ["day"]


async def test_another_key_of_the_same_project_does_not_get_the_video(shared: World) -> None:
    first = await create(shared, await shared.key(name="a"))
    other = await create(shared, await shared.key(name="b"), **retry())
    assert other.json()["id"] != first.json()["id"]
    assert DEDUPLICATED not in other.headers


async def test_other_fields_do_not_get_the_video(shared: World) -> None:
    key = await shared.key()
    await create(shared, key)
    for fields in ({"prompt": "a cat "}, {**CAT, "seconds": "8"}, {**CAT, "size": "1280x720"}):
        answer = await create(shared, key, fields, **retry())
        assert (answer.status_code, DEDUPLICATED in answer.headers) == (200, False)


async def test_a_file_is_known_by_its_bytes_and_not_by_name_or_boundary(shared: World) -> None:
    key = await shared.key()

    async def sent(image: bytes, *, filename: str, boundary: str, **headers: str) -> httpx.Response:
        named = {
            "content-type": f"multipart/form-data; boundary={boundary}",
            **{name.replace("_", "-"): value for name, value in headers.items()},
        }
        file = (filename, image, "image/png")
        async with shared.client(key) as client:
            return await client.post(
                "/videos", data=CAT, files={"input_reference": file}, headers=named
            )

    first = await sent(png(), filename="a.png", boundary="one")
    same = await sent(png(), filename="upload", boundary="two", **retry(1))
    assert (same.content, same.headers[DEDUPLICATED]) == (first.content, "true")
    other = await sent(png((9, 9, 9)), filename="a.png", boundary="one", **retry(2))
    assert (other.status_code, DEDUPLICATED in other.headers) == (200, False)
    none = await create(shared, key, **retry(2))
    assert (none.status_code, DEDUPLICATED in none.headers) == (200, False)


async def test_a_retry_of_an_unknown_outcome_is_told_so_and_buys_nothing(shared: World) -> None:
    key, before = await shared.key(), await shared.executions()
    await shared.control.fault("504", operation="create")
    assert code(await create(shared, key)) == "outcome_unknown"
    answer = await create(shared, key, **retry())
    assert (answer.status_code, code(answer)) == (502, "outcome_unknown")
    assert await shared.executions() == before + 1


async def test_an_attempt_with_an_idempotency_key_answers_for_no_retry_without_one(
    shared: World,
) -> None:
    key = await shared.key()
    first = await create(shared, key, idempotency_key="keyed")
    answer = await create(shared, key, **retry())
    assert answer.json()["id"] != first.json()["id"]
    keyed = await create(shared, key, idempotency_key="keyed", **retry())
    assert (keyed.content, keyed.headers[REPLAYED]) == (first.content, "true")


async def test_a_restart_between_attempt_and_retry_changes_nothing(tmp_path: Path) -> None:
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=0)
    async with Simulator(settings=simulated) as upstream, Control(upstream.base_url) as control:
        settings = settings_for(tmp_path, upstream.base_url)
        async with open_database(settings, clock=system_clock()) as database:
            key = await new_key(database, system_clock())
        answers = []
        for headers in (
            {},
            {"x-stainless-retry-count": "1"},
            {"idempotency-key": "a"},
            {"idempotency-key": "a"},
        ):
            async with (
                running(settings) as gateway,
                httpx.AsyncClient(
                    verify=NO_TLS, base_url=gateway.base_url, trust_env=False
                ) as client,
            ):
                authorization = {"authorization": f"Bearer {key.value}"}
                answers.append(
                    await client.post("/videos", json=CAT, headers={**authorization, **headers})
                )
        first, again, keyed, replayed = answers
        assert (again.content, again.headers[DEDUPLICATED]) == (first.content, "true")
        assert (replayed.content, replayed.headers[REPLAYED]) == (keyed.content, "true")
        assert (await control.totals())["executions"] == 2


# Dry runs


async def finished(made: World, key: NewKey) -> str:
    video_id = await made.buy(key)
    await made.ended(video_id)
    return video_id


def operations(source: str) -> dict[str, tuple[str, dict[str, Any]]]:
    named = {"video": {"id": source}}
    return {
        "create": ("/videos", {"json": {**CAT, "seconds": "8"}}),
        "remix": (f"/videos/{source}/remix", {"json": CAT}),
        "edit": ("/videos/edits", {"json": {**CAT, **named}}),
        "extension": ("/videos/extensions", {"json": {**CAT, **named, "seconds": "12"}}),
    }


@pytest.mark.parametrize(
    ("operation", "usd"),
    [
        ("create", "0.80"),
        ("remix", "0.40"),
        ("edit", "0.40"),
        ("extension", "1.20"),
        ("character", "0.00"),
    ],
)
async def test_a_dry_run_tells_the_price_and_does_nothing(
    shared: World, operation: str, usd: str
) -> None:
    key = await shared.key(budget="1.50")
    source = await finished(shared, key)
    mp4 = await shared.control.content(source)
    upload = {"data": {"name": "Mossy"}, "files": {"video": ("a.mp4", mp4, "video/mp4")}}
    path, body = {**operations(source), "character": ("/videos/characters", upload)}[operation]
    before = await facts(shared, key)
    dry = {"x-gateway-dry-run": "true"}
    async with shared.client(key) as client:
        send = partial(client.post, path, **body)
        answer = await send(headers={**dry, "idempotency-key": f"dry {operation}"})
        told = answer.json()
        assert (answer.status_code, told["object"]) == (200, "video.dry_run")
        assert (told["operation"], told["cost_usd"]) == (operation, usd)
        assert "id" not in told
        fits = float(usd) <= 1.10
        assert (told["allowed"], told["message"] is None) == (fits, fits)
        assert {one["level"] for one in told["budgets"]} == {"key"}
        wrong = await send(headers={"x-gateway-dry-run": "yes"})
        assert (wrong.status_code, wrong.json()["error"]["param"]) == (400, "x-gateway-dry-run")
        misspelt = await send(headers={"x-gateway-dryrun": "true"})
        assert (misspelt.status_code, code(misspelt)) == (400, "unknown_header")
        assert await facts(shared, key) == before
        await shared.budget(KEY, key.id, "100.00", period="month")
        bought = await send(headers={"idempotency-key": f"dry {operation}"})
        assert (bought.status_code, REPLAYED in bought.headers) == (200, False)


async def facts(made: World, key: NewKey) -> tuple[Any, ...]:
    """Return what a dry run must not change."""
    counts = [
        await made.one(f"SELECT COUNT(*) FROM {table}") for table in ("holds", "entries", "videos")
    ]
    # Those of others may be a day old, which is when they are forgotten.
    mine = "SELECT COUNT(*) FROM attempts WHERE key_id = $1"
    counts.append(await made.one(mine, key.id))
    totals = (await made.control.totals())["requests"]
    submits = {name: count for name, count in totals.items() if name not in {"retrieve", "content"}}
    return (*counts, submits)


@pytest.mark.parametrize("value", ["false", "1", "True", "", "true, true"])
async def test_any_other_value_of_the_dry_run_header_is_a_400_and_buys_nothing(
    shared: World, value: str
) -> None:
    key, before = await shared.key(), await creates(shared)
    answer = await create(shared, key, x_gateway_dry_run=value)
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "x-gateway-dry-run")
    assert await creates(shared) == before


async def test_a_dry_run_is_checked_like_any_other_request(shared: World) -> None:
    answer = await create(
        shared, await shared.key(), {**CAT, "seconds": "5"}, x_gateway_dry_run="true"
    )
    assert (answer.status_code, answer.json()["error"]["param"]) == (400, "seconds")


@pytest.mark.parametrize("name", ["", "x" * 256])
async def test_a_dry_run_refuses_the_idempotency_key_that_a_purchase_would_refuse(
    shared: World, name: str
) -> None:
    key = await shared.key()
    for headers in ({"x_gateway_dry_run": "true"}, {}):
        answer = await create(shared, key, idempotency_key=name, **headers)
        assert (answer.status_code, answer.json()["error"]["param"]) == (400, "Idempotency-Key")


async def test_a_dry_run_that_a_budget_would_refuse_says_what_a_purchase_would(
    shared: World,
) -> None:
    key = await shared.key(budget="0.50")
    fields = {**CAT, "model": "sora-2-pro"}
    told = (await create(shared, key, fields, x_gateway_dry_run="true")).json()
    refused = (await create(shared, key, fields)).json()["error"]
    assert (told["allowed"], told["message"]) == (False, refused["message"])
    assert told["budgets"] == [{"level": "key", "period": "month", "remaining_usd": "-0.70"}]
