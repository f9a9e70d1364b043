"""What is a client told of the models there are, and is it true?"""

import asyncio
from importlib.resources import files
from typing import Any

import pytest
from conftest import World, world
from openai import AsyncOpenAI

from gateway.billing.catalogue_file import read_catalogue
from gateway.billing.money import parse_usd

pytestmark = pytest.mark.asyncio(loop_scope="module")

CATALOGUE = read_catalogue(
    files("gateway.billing").joinpath("catalogue.toml").read_text(encoding="utf-8")
)
OWN = """
[models.small]
unit = "second"
seconds = ["4", "8"]
default_seconds = "4"
default_size = "720x1280"
prompt_max_characters = 100
typical_generation_seconds = [1, 2]
aliases = ["sora-2", "little"]

[[models.small.rates]]
tier = "720p"
sizes = ["720x1280"]
usd = "0.000001"
"""


async def described(made: World) -> dict[str, dict[str, Any]]:
    async with made.client(await made.key()) as client:
        answer = await client.get("/videos/models")
    assert answer.status_code == 200
    told = answer.json()
    assert told["object"] == "list"
    return {model["id"]: model for model in told["data"]}


async def test_every_name_that_a_model_may_have_is_listed_for_the_sdk(shared: World) -> None:
    key = await shared.key()
    async with AsyncOpenAI(base_url=shared.base_url, api_key=key.value) as sdk:
        models = [model async for model in sdk.models.list()]
    assert [model.id for model in models] == list(CATALOGUE.names)
    assert {model.object for model in models} == {"model"}


async def test_every_listed_name_can_be_asked_for(shared: World) -> None:
    async with shared.client(await shared.key()) as client:
        for name in CATALOGUE.names:
            answer = await client.post(
                "/videos",
                json={"prompt": "a cat", "model": name},
                headers={"x-gateway-dry-run": "true"},
            )
            assert (answer.status_code, answer.json()["model"]) == (200, name)


async def test_every_size_and_duration_that_is_told_costs_what_is_told(shared: World) -> None:
    dry = {"x-gateway-dry-run": "true"}
    async with shared.client(await shared.key()) as client:

        async def costs(name: str, offer: dict[str, Any], seconds: str) -> None:
            fields = {"model": name, "size": offer["size"], "seconds": seconds}
            answer = await client.post("/videos", json={"prompt": "a", **fields}, headers=dry)
            assert answer.status_code == 200, answer.text
            units = int(seconds) if offer["per"] == "second" else 1
            assert parse_usd(answer.json()["cost_usd"]) == units * parse_usd(offer["usd"])

        for name, model in (await described(shared)).items():
            offers = model["sizes"]
            await asyncio.gather(
                *(costs(name, offer, seconds) for offer in offers for seconds in offer["seconds"])
            )


async def test_the_defaults_that_are_told_are_those_of_a_bare_prompt(shared: World) -> None:
    async with shared.client(await shared.key()) as client:
        for name, model in (await described(shared)).items():
            answer = await client.post(
                "/videos",
                json={"prompt": "a cat", "model": name},
                headers={"x-gateway-dry-run": "true"},
            )
            told = answer.json()
            assert told["seconds"] == model["default_seconds"]
            assert told["size"] == model["default_size"]


async def test_a_model_is_told_whole(shared: World) -> None:
    models = await described(shared)
    assert list(models) == list(CATALOGUE.models)
    sora, grok = models["sora-2"], models["grok-imagine-video"]
    veo = models["veo-3.1-generate-preview"]
    assert sora["snapshots"] == ["sora-2-2025-12-08", "sora-2-2025-10-06"]
    assert sora["deprecated_snapshots"] == ["sora-2-2025-10-06"]
    assert (sora["sunset"], grok["sunset"]) == ("2026-09-24", None)
    assert sora["aliases"] == []
    assert sora["prompt_max_characters"] == 32_000
    assert sora["typical_generation_seconds"] == [180, 300]
    assert sora["input_reference"] == {
        "types": ["image/jpeg", "image/png", "image/webp"],
        "must_equal_size": True,
        "references": [],
        "usd": "0.00",
    }
    assert grok["input_reference"]["usd"] == "0.002"
    assert grok["seconds"] == [str(number) for number in range(1, 16)]
    assert (sora["moderated_is_billed"], grok["moderated_is_billed"]) == (False, True)
    by_size = {offer["size"]: offer for offer in veo["sizes"]}
    assert by_size["1280x720"] == {
        "size": "1280x720",
        "tier": "720p",
        "usd": "1.20",
        "per": "request",
        "seconds": ["4", "6", "8"],
    }
    assert by_size["3840x2160"]["seconds"] == ["8"]


async def test_models_are_told_to_key_holders_only_and_nobody_is_asked(shared: World) -> None:
    for path in ("/models", "/videos/models"):
        async with shared.client("sk-nobody") as client:
            assert (await client.get(path)).status_code == 401
        async with shared.client(await shared.key()) as client:
            assert (await client.get(path)).status_code == 200
            assert (await client.head(path)).status_code == 200
    assert "models" not in (await shared.control.totals())["requests"]


async def test_a_catalogue_of_the_operators_own_is_told_instead(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    folder = tmp_path_factory.mktemp("own")
    (folder / "own.toml").write_text(OWN)
    async with world(folder, catalogue=str(folder / "own.toml")) as made:
        models = await described(made)
        assert list(models) == ["small"]
        assert models["small"]["aliases"] == ["sora-2", "little"]
        assert models["small"]["input_reference"] is None
        key = await made.key()
        video_id = await made.buy(key, model="sora-2", seconds="8")
        facts = await made.facts(video_id)
        assert facts["hold_micros"] == 8
        assert (await made.control.received("create"))[-1]["fields"]["model"] == "sora-2"
        async with made.client(key) as client:
            files_sent = {"input_reference": ("a.png", PNG, "image/png")}
            answer = await client.post("/videos", data={"prompt": "a"}, files=files_sent)
            error = answer.json()["error"]
            assert (answer.status_code, error["param"]) == (400, "input_reference")
            unknown = await client.post("/videos", json={"prompt": "a", "model": "sora-2-pro"})
            assert unknown.json()["error"]["code"] == "model_not_found"


PNG = (
    (b"\x89PNG\r\n\x1a\n\x00\x00\x00\rIHDR" + (720).to_bytes(4, "big") + (1280).to_bytes(4, "big"))
    + b"\x08\x02\x00\x00\x00"
    + bytes(40)
)
