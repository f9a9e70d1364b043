"""Is a picture told from what is none, without looking at its pixels?"""

import io
import struct
import zlib
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image as Pillow

from gateway.videos.images import MAX_PIXELS, SNIFFED_BYTES, BadImage, Image, read_image, sniff

TYPES = {"JPEG": "image/jpeg", "PNG": "image/png", "WEBP": "image/webp"}
FORMATS = sorted(TYPES)


def _picture(
    image_format: str, *, width: int = 72, height: int = 128, mode: str = "RGB", **options: Any
) -> bytes:
    file = io.BytesIO()
    picture = Pillow.new(mode, (width, height), 0)
    picture.save(file, image_format, **options)
    return file.getvalue()


def _png_header(*, width: int, height: int) -> bytes:
    header = b"IHDR" + struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    data = b"IDAT" + zlib.compress(b"")
    chunks = [
        struct.pack(">I", len(chunk) - 4) + chunk + struct.pack(">I", zlib.crc32(chunk))
        for chunk in (header, data)
    ]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def _webp_header(*, width: int, height: int) -> bytes:
    bits = (width - 1) | (height - 1) << 14
    data = b"\x2f" + struct.pack("<I", bits) + bytes(11)
    chunk = b"VP8L" + struct.pack("<I", len(data)) + data
    return b"RIFF" + struct.pack("<I", 4 + len(chunk)) + b"WEBP" + chunk


PICTURES = {image_format: _picture(image_format) for image_format in FORMATS}


@pytest.mark.parametrize("image_format", FORMATS)
def test_type_and_size_are_read(image_format: str) -> None:
    file = io.BytesIO(PICTURES[image_format])
    assert read_image(file) == Image(content_type=TYPES[image_format], width=72, height=128)  # type: ignore[arg-type]


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_file_is_rewound(image_format: str) -> None:
    for content in (PICTURES[image_format], PICTURES[image_format][:20], b""):
        file = io.BytesIO(content)
        file.seek(0, io.SEEK_END)
        with suppress(BadImage):
            read_image(file)
        assert file.tell() == 0


@pytest.mark.parametrize("image_format", FORMATS)
def test_the_head_is_enough_to_sniff(image_format: str) -> None:
    assert sniff(PICTURES[image_format][:SNIFFED_BYTES]) == TYPES[image_format]


@pytest.mark.parametrize(
    ("image_format", "mode", "options"),
    [
        ("JPEG", "L", {"progressive": True}),
        ("JPEG", "CMYK", {}),
        ("PNG", "P", {}),
        ("PNG", "RGBA", {}),
        ("PNG", "I;16", {}),
        ("WEBP", "RGBA", {"lossless": True}),
        ("WEBP", "RGBA", {"save_all": True}),
    ],
)
def test_every_mode_is_read(image_format: str, mode: str, options: dict[str, Any]) -> None:
    image = read_image(io.BytesIO(_picture(image_format, mode=mode, **options)))
    assert (image.width, image.height) == (72, 128)


def test_orientation_is_ignored() -> None:
    exif = Pillow.Exif()
    exif[0x0112] = 6
    image = read_image(io.BytesIO(_picture("JPEG", exif=exif.tobytes())))
    assert (image.width, image.height) == (72, 128)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "The file is empty."),
        (b"<html>", "The file is not a JPEG, PNG or WebP image."),
        (b"GIF89a" + bytes(40), "The file is not a JPEG, PNG or WebP image."),
        (b"RIFF\0\0\0\0WAVE", "The file is not a JPEG, PNG or WebP image."),
        (b"\xff\xd8\xff", "The image is damaged or cut off."),
        (PICTURES["JPEG"][:100], "The image is damaged or cut off."),
        (PICTURES["PNG"][:20], "The image is damaged or cut off."),
        (PICTURES["PNG"][:8] + b"garbage" * 9, "The image is damaged or cut off."),
        (PICTURES["WEBP"][:16], "The image is damaged or cut off."),
        (PICTURES["WEBP"][:20] + b"garbage" * 9, "The image is damaged or cut off."),
    ],
)
def test_what_is_no_picture_is_refused_in_fixed_words(content: bytes, reason: str) -> None:
    with pytest.raises(BadImage) as refusal:
        read_image(io.BytesIO(content))
    assert refusal.value.reason == reason


@pytest.mark.parametrize(
    ("width", "height"), [(MAX_PIXELS + 1, 1), (10_000, 10_000), (65_535, 65_535)]
)
def test_too_many_pixels_are_refused_from_the_header(width: int, height: int) -> None:
    with pytest.raises(BadImage, match=f"more than {MAX_PIXELS} pixels"):
        read_image(io.BytesIO(_png_header(width=width, height=height)))


@pytest.mark.parametrize("side", [10_000, 16_383])
def test_a_webp_that_claims_too_many_pixels_is_refused_without_a_warning(side: int) -> None:
    file = io.BytesIO(_webp_header(width=side, height=side))
    with pytest.raises(BadImage, match=f"more than {MAX_PIXELS} pixels"):
        read_image(file)


def test_exactly_the_limit_is_read() -> None:
    image = read_image(io.BytesIO(_png_header(width=MAX_PIXELS // 10_000, height=10_000)))
    assert image.width * image.height == MAX_PIXELS


@given(
    image_format=st.sampled_from(FORMATS),
    cut=st.integers(0, 400),
    places=st.lists(st.tuples(st.integers(0, 200), st.integers(0, 255)), max_size=12),
)
def test_damage_is_refused_or_read_but_nothing_else_raised(
    image_format: str, cut: int, places: list[tuple[int, int]]
) -> None:
    content = bytearray(PICTURES[image_format])
    for place, value in places:
        content[place % len(content)] = value
    with suppress(BadImage):
        read_image(io.BytesIO(bytes(content[:cut])))


@given(
    magic=st.sampled_from([PICTURES[image_format][:16] for image_format in FORMATS]),
    rest=st.binary(max_size=300),
)
def test_any_bytes_after_the_magic_are_survived(magic: bytes, rest: bytes) -> None:
    with suppress(BadImage):
        read_image(io.BytesIO(magic + rest))
