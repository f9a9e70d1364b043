"""What does Schemathesis upload? Files that are what they are said to be; without, no upload would
get as far as being bought."""

import io
from typing import Any

import schemathesis
from hypothesis import strategies
from PIL import Image

from gateway.simulator.mp4 import make_mp4

CLIPS = [
    make_mp4(width=width, height=height, seconds=4, tag=b"fuzz")
    for width, height in ((1280, 720), (720, 1280), (640, 360))
]


def picture(kind: str, size: tuple[int, int]) -> bytes:
    out = io.BytesIO()
    Image.new("RGB", size, (10, 120, 200)).save(out, kind)
    return out.getvalue()


schemathesis.openapi.media_type("video/mp4", strategies.sampled_from([*CLIPS, b"no clip"]))
for kind in ("jpeg", "png", "webp"):
    pictures = [picture(kind, size) for size in ((720, 1280), (1280, 720), (64, 64))]
    schemathesis.openapi.media_type(
        f"image/{kind}", strategies.sampled_from([*pictures, b"no image"])
    )


@schemathesis.hook
def filter_case(_: schemathesis.HookContext, case: "schemathesis.Case[Any]") -> bool:
    """Leave out forms of numbers and lists: a form has nothing but text, so they are not wrong."""
    body: Any = case.body
    if case.media_type != "multipart/form-data" or not isinstance(body, dict):
        return True
    return not any(
        isinstance(value, bool | int | float | list | dict | None) for value in body.values()
    )
