"""Is what came told apart from what was asked for, however it is cut into pieces?"""

import itertools
import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.mirror.kinds import (
    HEAD_BYTES,
    MAX_FILENAME_CHARACTERS,
    VARIANTS,
    KindCheck,
    NotTheContentError,
    file_name,
    type_of,
)
from gateway.simulator.images import make_spritesheet, make_thumbnail
from gateway.simulator.mp4 import make_mp4

FILM = make_mp4(width=720, height=1280, seconds=4, tag=b"film")
WEBP = make_thumbnail(width=720, height=1280, tag=b"thumbnail")
JPEG = make_spritesheet(width=720, height=1280, tag=b"spritesheet")
PNG = b"\x89PNG\r\n\x1a\n" + bytes(100)
AVIF = b"\0\0\0\x1cftypavif" + bytes(100)
PAGE = b"<!DOCTYPE html><html><body>502 Bad Gateway</body></html>"
KINDS = [
    ("video", FILM, "video/mp4"),
    ("thumbnail", WEBP, "image/webp"),
    ("thumbnail", PNG, "image/png"),
    ("thumbnail", AVIF, "image/avif"),
    ("spritesheet", JPEG, "image/jpeg"),
]


def looked_at(variant: str, content: bytes, *, cuts: list[int] | None = None) -> KindCheck:
    check = KindCheck(variant)
    edges = sorted({0, len(content), *(cuts or [])})
    for begin, end in itertools.pairwise(edges):
        check.feed(content[begin:end])
    return check


@given(
    kind=st.sampled_from(KINDS),
    cuts=st.lists(st.integers(min_value=0, max_value=40), max_size=12),
)
def test_the_first_bytes_say_what_it_is_however_they_are_cut(
    kind: tuple[str, bytes, str], cuts: list[int]
) -> None:
    variant, content, content_type = kind
    check = looked_at(variant, content, cuts=cuts)
    assert check.content_type == content_type
    assert check.finish() == content_type


@pytest.mark.parametrize(("variant", "content", "content_type"), KINDS)
def test_before_its_first_bytes_are_there_it_is_nothing_yet(
    variant: str, content: bytes, content_type: str
) -> None:
    check = looked_at(variant, content[: HEAD_BYTES - 1])
    assert check.content_type is None
    check.feed(content[HEAD_BYTES - 1 : HEAD_BYTES])
    assert check.content_type == content_type


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("content", [PAGE, b'{"error": {"message": "no"}}', bytes(100)])
@pytest.mark.parametrize("cuts", [[], [1], list(range(100))])
def test_a_page_or_an_error_is_not_the_content_as_soon_as_it_begins(
    variant: str, content: bytes, cuts: list[int]
) -> None:
    with pytest.raises(NotTheContentError) as told:
        looked_at(variant, content, cuts=cuts)
    assert str(told.value) == ("not_an_mp4" if variant == "video" else "not_an_image")


@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("content", [b"", b"<p>", b"not found"])
def test_what_is_shorter_than_any_beginning_is_not_the_content(
    variant: str, content: bytes
) -> None:
    with pytest.raises(NotTheContentError):
        looked_at(variant, content).finish()


def test_a_film_that_ends_anywhere_else_is_not_a_whole_one() -> None:
    chance = random.Random(1)
    for end in [HEAD_BYTES, len(FILM) - 1, *(chance.randrange(len(FILM)) for _ in range(50))]:
        with pytest.raises(NotTheContentError, match="not_a_whole_mp4"):
            looked_at("video", FILM[:end]).finish()
    with pytest.raises(NotTheContentError, match="not_a_whole_mp4"):
        looked_at("video", FILM + b"more").finish()


def test_a_picture_is_no_film_and_a_film_is_no_picture() -> None:
    with pytest.raises(NotTheContentError, match="not_an_mp4"):
        looked_at("video", JPEG)
    for variant in ("thumbnail", "spritesheet"):
        with pytest.raises(NotTheContentError, match="not_an_image"):
            looked_at(variant, FILM)


def test_what_is_in_the_store_is_told_by_its_beginning() -> None:
    for variant, content, content_type in KINDS:
        assert type_of(variant, content[:HEAD_BYTES]) == content_type
    with pytest.raises(NotTheContentError):
        type_of("thumbnail", PAGE[:HEAD_BYTES])


@pytest.mark.parametrize(
    ("upstream_id", "content_type", "name"),
    [
        ("video_1", "video/mp4", "video_1.mp4"),
        ("video_1", "image/jpeg", "video_1.jpg"),
        ("video_1", "image/webp", "video_1.webp"),
        ("video_1", "image/avif", "video_1.avif"),
        ('a"b\r\nset-cookie: x', "video/mp4", "a_b__set-cookie__x.mp4"),
        ("../../etc/passwd", "video/mp4", "_.._etc_passwd.mp4"),
        ("übung", "video/mp4", "_bung.mp4"),
        (".hidden", "video/mp4", "hidden.mp4"),
        ("", "video/mp4", "content.mp4"),
        ("...", "video/mp4", "content.mp4"),
        ("x" * 500, "video/mp4", "x" * MAX_FILENAME_CHARACTERS + ".mp4"),
    ],
)
def test_a_file_name_is_safe_in_a_header_and_in_a_folder(
    upstream_id: str, content_type: str, name: str
) -> None:
    assert file_name(upstream_id, content_type) == name
