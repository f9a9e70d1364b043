"""GET /v1/models and GET /v1/videos/models: what can be asked for, and what does it cost?"""

from typing import Any

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.parts import Parts
from gateway.api.videos import authenticate
from gateway.billing.catalogue import ImageRules, Model
from gateway.billing.money import format_usd


async def list_models(parts: Parts, request: Request) -> Response:
    """Answer with every name that `model` may have, in OpenAI's list shape."""
    await authenticate(parts, request)
    data = [
        {"id": name, "object": "model", "created": 0, "owned_by": model.upstream}
        for name, model in parts.catalogue.names.items()
    ]
    return JSONResponse({"object": "list", "data": data})


async def list_video_models(parts: Parts, request: Request) -> Response:
    """Answer with what a form needs to know of each model: seconds, sizes, rates, images."""
    await authenticate(parts, request)
    data = [_described(model) for model in parts.catalogue.models.values()]
    return JSONResponse({"object": "list", "data": data})


def _described(model: Model) -> dict[str, Any]:
    return {
        "id": model.id,
        "object": "video.model",
        "aliases": list(model.aliases),
        "snapshots": list(model.snapshots),
        "deprecated_snapshots": list(model.deprecated_snapshots),
        "seconds": list(model.seconds),
        "default_seconds": model.default_seconds,
        "default_size": model.default_size,
        "prompt_max_characters": model.prompt_max_characters,
        "typical_generation_seconds": list(model.typical_generation_seconds),
        "moderated_is_billed": model.moderated_is_billed,
        "sunset": None if model.sunset is None else model.sunset.isoformat(),
        "sizes": [
            {
                "size": size,
                "tier": rate.tier,
                "usd": format_usd(rate.micros),
                "per": rate.unit,
                "seconds": list(rate.seconds),
            }
            for size, rate in model.rates.items()
        ],
        "input_reference": None if model.image is None else _image(model.image),
    }


def _image(rules: ImageRules) -> dict[str, Any]:
    return {
        "types": list(rules.types),
        "must_equal_size": rules.must_equal_size,
        "references": list(rules.references),
        "usd": format_usd(rules.micros),
    }
