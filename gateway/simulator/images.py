"""What do a video's still images look like?

The same colour bars as the video, drawn with Pillow: a thumbnail (image/webp) and a spritesheet
(image/jpeg) of one column and row per picture. `tag` makes the bytes differ between videos.
"""

import hashlib
import io

from PIL import Image

from gateway.simulator.h264 import BARS

SPRITE_COLUMNS = 4
SPRITE_ROWS = 3

_SHRINK = 4
_TAG_PIXELS = 16
_TAG_SQUARES = 16


def make_thumbnail(*, width: int, height: int, tag: bytes) -> bytes:
    """Return the video's first picture at full size, as image/webp."""
    return _encoded(_bars(width=width, height=height, shift=0), kind="WEBP", tag=tag)


def make_spritesheet(*, width: int, height: int, tag: bytes) -> bytes:
    """Return twelve shrunken pictures in four columns, as image/jpeg."""
    across, down = width // _SHRINK, height // _SHRINK
    sheet = Image.new("RGB", (across * SPRITE_COLUMNS, down * SPRITE_ROWS))
    for shift in range(SPRITE_COLUMNS * SPRITE_ROWS):
        row, column = divmod(shift, SPRITE_COLUMNS)
        picture = _bars(width=across, height=down, shift=shift)
        sheet.paste(picture, (column * across, row * down))
    return _encoded(sheet, kind="JPEG", tag=tag)


def _bars(*, width: int, height: int, shift: int) -> Image.Image:
    row = Image.new("YCbCr", (len(BARS), 1))
    row.putdata([BARS[(bar + shift) % len(BARS)] for bar in range(len(BARS))])
    return row.resize((width, height), Image.Resampling.NEAREST).convert("RGB")


def _encoded(image: Image.Image, *, kind: str, tag: bytes) -> bytes:
    for position, byte in enumerate(hashlib.sha256(tag).digest()[:_TAG_SQUARES]):
        left = position * _TAG_PIXELS
        image.paste((byte, byte, byte), (left, 0, left + _TAG_PIXELS, _TAG_PIXELS))
    into = io.BytesIO()
    # Of the methods of WebP the quickest: a thumbnail takes a quarter of the time.
    image.save(into, kind, quality=80, method=0)
    return into.getvalue()
