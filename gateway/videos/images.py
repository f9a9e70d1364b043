"""Is this file a picture that can be sent as a reference, and how large is it?

Only headers are read, never pixels. A picture's EXIF orientation is ignored: width and height are
those of the stored pixels, as the upstream counts them.
"""

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from typing import BinaryIO, Literal

from PIL import Image as Pillow
from PIL import ImageFile, JpegImagePlugin, PngImagePlugin, WebPImagePlugin

ContentType = Literal["image/jpeg", "image/png", "image/webp"]

SNIFFED_BYTES = 16
MAX_PIXELS = 50_000_000


@dataclass(frozen=True, slots=True, kw_only=True)
class Image:
    """A picture: what it is, and its size in pixels."""

    content_type: ContentType
    width: int
    height: int


class BadImage(Exception):
    """Not a picture that can be sent; `reason` is one of a few fixed sentences."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


def sniff(head: bytes) -> ContentType | None:
    """Return what the first SNIFFED_BYTES of a file show it to be, or None."""
    if head.startswith(b"\xff\xd8\xff"):
        return "image/jpeg"
    if head.startswith(b"\x89PNG\r\n\x1a\n"):
        return "image/png"
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "image/webp"
    return None


def read_image(file: BinaryIO) -> Image:
    """Return what picture this file is, or raise BadImage; the file is rewound either way."""
    file.seek(0)
    try:
        head = file.read(SNIFFED_BYTES)
        content_type = sniff(head)
        if content_type is None:
            raise BadImage("The file is not a JPEG, PNG or WebP image." if head else _EMPTY)
        file.seek(0)
        width, height = _size(file, content_type=content_type)
    finally:
        file.seek(0)
    if width * height > MAX_PIXELS:
        raise BadImage(_TOO_LARGE)
    return Image(content_type=content_type, width=width, height=height)


# The reader of that one format, not Image.open: this tries no other, and nothing is registered.
_READERS: dict[ContentType, Callable[[BinaryIO], ImageFile.ImageFile]] = {
    "image/jpeg": JpegImagePlugin.JpegImageFile,
    "image/png": PngImagePlugin.PngImageFile,
    "image/webp": WebPImagePlugin.WebPImageFile,
}

_EMPTY = "The file is empty."
_DAMAGED = "The image is damaged or cut off."
_TOO_LARGE = f"The image has more than {MAX_PIXELS} pixels."


def _size(file: BinaryIO, *, content_type: ContentType) -> tuple[int, int]:
    try:
        with warnings.catch_warnings():
            # Pillow warns of very many pixels, and of nothing else that matters before a header.
            warnings.simplefilter("error", Pillow.DecompressionBombWarning)
            return _READERS[content_type](file).size
    except (Pillow.DecompressionBombError, Pillow.DecompressionBombWarning) as bomb:
        raise BadImage(_TOO_LARGE) from bomb
    # What Pillow's readers raise on damaged headers, by its own documentation and sources.
    except (SyntaxError, OSError, ValueError, OverflowError) as damage:
        raise BadImage(_DAMAGED) from damage
