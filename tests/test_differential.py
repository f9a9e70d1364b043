"""Do our rules and prices agree with an upstream that was written without them?

Every request goes to a gateway in front of a simulator, and as it stands to a second simulator,
whose rules and rates are typed from the relay's pages and not from our catalogue. Where the two may
differ is listed here; everywhere else they must not. The gateway may refuse what the upstream would
take and then bill by a rate nobody has written down; it must never take what the upstream refuses.
"""

import asyncio
import io
import json
import os
from collections.abc import Iterator
from contextlib import AsyncExitStack
from dataclasses import dataclass, field, replace
from functools import lru_cache
from importlib.resources import files
from pathlib import Path
from typing import Any, Final

import httpx
import pytest
from conftest import World, eventually, world
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from plain_http import NO_TLS

from gateway.billing.catalogue import Model
from gateway.billing.catalogue_file import read_catalogue
from gateway.billing.money import parse_usd
from gateway.simulator.rules import price_micros
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings

LONG: Final = os.environ.get("HYPOTHESIS_PROFILE") == "long"
EXAMPLES: Final = 4_000 if LONG else 100
TEST_SECONDS: Final = 3_600 if LONG else 120

CATALOGUE: Final = read_catalogue(
    files("gateway.billing").joinpath("catalogue.toml").read_text(encoding="utf-8")
)
MODELS: Final = tuple(CATALOGUE.models.values())
SIZES: Final = sorted({size for model in MODELS for size in model.rates})
KINDS: Final = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
SECONDS: Final = ("5", "10", "15", "16", "20", "0", "-4", "4.0", " 4", "04", "4s", "", "four", "٤")
NO_SIZES: Final = (
    "640x360",
    "720X1280",
    "1280\u00d7720",
    "",
    "720x1280 ",
    "720",
    "1280x720x1",
    "0x0",
)
NO_MODELS: Final = ("sora-3", "", "SORA-2", "sora-2 ", "sora-2-pro-2025-12-08", "gpt-4o")
UNKNOWN: Final = ("n", "width", "duration", "aspect_ratio", "user", "metadata", "Prompt", "stream")
NO_TEXT: Final = st.sampled_from((4, 8, 720, 4.0, True, False, ["4"], [], {}, {"a": "4"}))
LONGEST_PROMPT: Final = 32_000
# What the gateway leaves out of a request, as if it had not been said; the upstream refuses it.
ABSENT: Final = None

PROMPTS = st.text(st.characters(codec="utf-8"), min_size=1, max_size=80).filter(
    lambda text: bool(text.strip()) and "[[" not in text
)


@dataclass(frozen=True)
class Ask:
    """One request.

    Attributes:
        fields: of POST /v1/videos, as JSON has them.
        image: the bytes of `input_reference` and their type.
        form: sent as multipart/form-data; with an image it always is.
        mutated: which parameter was spoilt, None where everything is as it should be.
        stricter: the gateway refuses it by a rule of its own.
    """

    model: Model
    fields: dict[str, Any] = field(default_factory=dict)
    image: tuple[bytes, str] | None = None
    form: bool = False
    mutated: str | None = None
    stricter: bool = False


@dataclass(frozen=True)
class Bench:
    """Both ways to the same upstream."""

    runner: asyncio.Runner
    made: World
    direct: Simulator
    through_gateway: httpx.AsyncClient
    to_upstream: httpx.AsyncClient

    def ask(self, ask: Ask) -> tuple[httpx.Response, httpx.Response]:
        """Send a request both ways at once; return the gateway's answer, then the upstream's."""

        async def both() -> tuple[httpx.Response, httpx.Response]:
            return await asyncio.gather(
                send(self.through_gateway, ask), send(self.to_upstream, ask)
            )

        return self.runner.run(both())


@pytest.fixture(scope="module")
def bench(place: Path) -> Iterator[Bench]:
    folder = place / "differential"
    with asyncio.Runner() as runner:
        stack = AsyncExitStack()
        try:
            yield runner.run(_bench(stack, runner, folder))
        finally:
            runner.run(stack.aclose())


async def _bench(stack: AsyncExitStack, runner: asyncio.Runner, folder: Path) -> Bench:
    made = await stack.enter_async_context(world(folder))
    # Content is another matter, and to make it takes longer than everything here.
    await made.control.fault("404", operation="content", times=None)
    at_once = SimulatorSettings(queue_seconds=0, generation_seconds=0)
    direct = await stack.enter_async_context(Simulator(settings=at_once))
    key = await made.key()
    to_upstream = httpx.AsyncClient(
        verify=NO_TLS,
        base_url=direct.base_url,
        headers={"authorization": "Bearer sk-simulator"},
        trust_env=False,
        timeout=60,
    )
    return Bench(
        runner=runner,
        made=made,
        direct=direct,
        through_gateway=await stack.enter_async_context(made.client(key)),
        to_upstream=await stack.enter_async_context(to_upstream),
    )


async def send(client: httpx.AsyncClient, ask: Ask) -> httpx.Response:
    if ask.image is None and not ask.form:
        return await client.post("/videos", json=ask.fields)
    parts: list[tuple[str, Any]] = [
        (name, (None, str(value).encode())) for name, value in ask.fields.items()
    ]
    if ask.image is not None:
        data, content_type = ask.image
        parts.append(("input_reference", ("image", data, content_type)))
    return await client.post("/videos", files=parts)


@lru_cache(maxsize=256)
def picture(kind: str, size: str) -> tuple[bytes, str]:
    width, height = (int(side) for side in size.split("x"))
    out = io.BytesIO()
    Image.new("RGB", (width, height)).save(out, kind)
    return out.getvalue(), KINDS[kind]


@st.composite
def allowed(draw: st.DrawFn) -> Ask:
    """Draw a request that the catalogue allows."""
    model = draw(st.sampled_from(MODELS))
    size = draw(st.sampled_from(list(model.rates)))
    seconds = draw(st.sampled_from(model.rates[size].seconds))
    names = st.sampled_from((model.id, *model.aliases, *model.snapshots))
    fields = {"prompt": draw(PROMPTS), "model": draw(names), "size": size, "seconds": seconds}
    if size == model.default_size:
        for name in ("size", "seconds"):
            if draw(st.booleans()):
                del fields[name]
    if model is CATALOGUE.default and draw(st.booleans()):
        del fields["model"]
    image = None
    if model.image is not None and draw(st.booleans()):
        sizes = st.just(size) if model.image.must_equal_size else st.sampled_from(SIZES)
        image = picture(draw(st.sampled_from(list(KINDS))), draw(sizes))
    order = draw(st.permutations(list(fields)))
    return Ask(
        model=model,
        fields={name: fields[name] for name in order},
        image=image,
        form=image is not None or draw(st.booleans()),
    )


def _seconds(draw: st.DrawFn, ask: Ask) -> Ask:
    size = ask.fields.get("size", ask.model.default_size)
    wrong = [one for one in SECONDS if one not in ask.model.rates[size].seconds]
    said = draw(st.sampled_from(wrong) if ask.form else st.sampled_from(wrong) | NO_TEXT)
    return spoilt(ask, "seconds", said)


def _size(draw: st.DrawFn, ask: Ask) -> Ask:
    wrong = [one for one in (*SIZES, *NO_SIZES) if one not in ask.model.rates]
    said = draw(st.sampled_from(wrong) if ask.form else st.sampled_from(wrong) | NO_TEXT)
    # The relay names Grok's sizes by their shorter side; the catalogue lists those it knows.
    return replace(spoilt(ask, "size", said), stricter=ask.model.id.startswith("grok"))


def _prompt(draw: st.DrawFn, ask: Ask) -> Ask:
    texts = st.sampled_from(("", "a" * (LONGEST_PROMPT + 1), "界" * (LONGEST_PROMPT + 1)))
    said = draw(st.sampled_from((ABSENT,)) | (texts if ask.form else texts | NO_TEXT))
    return spoilt(ask, "prompt", said)


def _model(draw: st.DrawFn, ask: Ask) -> Ask:
    names = st.sampled_from(NO_MODELS)
    return spoilt(ask, "model", draw(names if ask.form else names | NO_TEXT))


def _unknown(draw: st.DrawFn, ask: Ask) -> Ask:
    spoiled = spoilt(ask, draw(st.sampled_from(UNKNOWN)), draw(st.sampled_from(("1", "4", ""))))
    # The other families drop in silence what they do not know; whoever sent it meant something.
    return replace(spoiled, stricter=not ask.model.id.startswith("sora"))


def _characters(draw: st.DrawFn, ask: Ask) -> Ask:
    wrong = ["a", {}, {"id": "a"}, [{"id": "char_none"}], [{"id": "a"}] * 3, True, 7]
    return replace(spoilt(ask, "characters", draw(st.sampled_from(wrong))), form=False, image=None)


def _image(draw: st.DrawFn, ask: Ask) -> Ask:
    damaged = [
        (b"", "image/png"),
        (b"not an image", "image/png"),
        (picture("PNG", "720x1280")[0][:20], "image/png"),
        (b"GIF89a" + bytes(60), "image/png"),
    ]
    if ask.model.image is not None and ask.model.image.must_equal_size:
        size = ask.fields.get("size", ask.model.default_size)
        damaged += [picture(kind, other) for kind in KINDS for other in SIZES if other != size]
    image = draw(st.sampled_from(damaged))
    return replace(ask, image=image, form=True, mutated="input_reference")


def _reference(draw: st.DrawFn, ask: Ask) -> Ask:
    said = ["aGVsbG8=", {"image_url": "https://example.com/a.png"}, {"file_id": "f"}, 7, [], {}]
    spoiled = spoilt(ask, "input_reference", draw(st.sampled_from(said)))
    return replace(spoiled, form=False, image=None)


MUTATIONS: Final = {
    "seconds": _seconds,
    "size": _size,
    "prompt": _prompt,
    "model": _model,
    "unknown": _unknown,
    "characters": _characters,
    "input_reference": _image,
    "named reference": _reference,
}


def spoilt(ask: Ask, name: str, value: Any) -> Ask:
    """Return a request with another value of one parameter, or without it."""
    fields = {**ask.fields, name: value}
    if value is ABSENT:
        del fields[name]
    return replace(ask, fields=fields, mutated=name)


@st.composite
def forbidden(draw: st.DrawFn) -> Ask:
    """Draw a request that the catalogue allows but for one thing."""
    ask = draw(allowed())
    mutation = draw(st.sampled_from(list(MUTATIONS)))
    return MUTATIONS[mutation](draw, ask)


@pytest.mark.timeout(TEST_SECONDS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(ask=allowed())
def test_what_the_catalogue_allows_is_accepted_at_the_price_that_is_billed(
    bench: Bench, ask: Ask
) -> None:
    ours, theirs = bench.ask(ask)
    assert (ours.status_code, theirs.status_code) == (200, 200), (ours.text, theirs.text)
    executed = bench.direct.world.executed[-1]
    assert parse_usd(ours.headers["x-gateway-cost-usd"]) == price_micros(executed.asked)
    told, wanted = ours.json(), theirs.json()
    for name in ("model", "prompt", "size", "seconds", "object"):
        assert told[name] == wanted.get(name, told[name]), name
    assert told["prompt"] == ask.fields["prompt"]
    assert set(wanted) <= set(told)


@pytest.mark.timeout(TEST_SECONDS)
@settings(max_examples=2 * EXAMPLES, deadline=None)
@given(ask=forbidden())
def test_what_is_forbidden_is_refused_by_both_and_for_the_same_reason(
    bench: Bench, ask: Ask
) -> None:
    ours, theirs = bench.ask(ask)
    assert ours.status_code in {400, 404}, ours.text
    assert ours.headers["x-should-retry"] == "false"
    error = ours.json()["error"]
    assert error["param"] == ask.mutated, error
    if theirs.status_code == 200:
        assert ask.stricter, error
    elif ask.mutated == "model":
        # The relay has no channel for a model that it does not know.
        assert theirs.status_code == 503
    else:
        assert theirs.status_code == ours.status_code
        assert (theirs.json()["error"]["param"] or ask.mutated) == ask.mutated


ANYTHING = st.recursive(
    st.booleans()
    | st.integers(-20, 20)
    | st.text(max_size=5)
    | st.floats(allow_nan=False, allow_infinity=False),
    lambda inner: (
        st.lists(inner, max_size=2) | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=4,
)


@pytest.mark.timeout(TEST_SECONDS)
@settings(max_examples=EXAMPLES, deadline=None)
@given(
    ask=allowed(),
    said=st.dictionaries(
        st.sampled_from(("prompt", "model", "seconds", "size", "characters", "input_reference"))
        | st.text(max_size=8),
        ANYTHING | st.sampled_from((*SIZES, *SECONDS, *NO_MODELS, *CATALOGUE.names)),
        min_size=1,
        max_size=3,
    ),
)
def test_nothing_that_the_upstream_refuses_is_accepted(
    bench: Bench, ask: Ask, said: dict[str, Any]
) -> None:
    ours, theirs = bench.ask(replace(ask, fields=ask.fields | said, form=False, image=None))
    assert ours.status_code in {200, 400, 404}, ours.text
    if ours.status_code == 200:
        # A length that was left out is filled in here, where the upstream's own would not do.
        filled = (ask.fields | said).get("seconds") is None
        refused = None if theirs.status_code == 200 else theirs.json()["error"]["param"]
        assert refused is None or (filled and refused == "seconds"), theirs.text
        assert json.loads(ours.text)["prompt"] == (ask.fields | said)["prompt"]


def test_everything_that_was_bought_here_costs_what_the_upstream_bills(bench: Bench) -> None:
    async def compared() -> tuple[int, int]:
        async def over() -> bool:
            held = await bench.made.one("SELECT COUNT(*) FROM holds WHERE state = 'held'")
            return int(held) == 0

        await eventually(over)
        states = await bench.made.rows("SELECT DISTINCT state FROM holds")
        # None was forwarded that the upstream refused.
        assert {row["state"] for row in states} <= {"settled"}
        assert await bench.made.adds_up()
        spent, _ = await bench.made.total()
        return spent, int((await bench.made.control.totals())["billed_micros"])

    spent, billed = bench.runner.run(compared())
    assert spent == billed
