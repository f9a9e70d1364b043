"""Is a whole MP4 told from one that broke off, and are its facts read while it streams by?"""

import random
import struct
import tempfile
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.videos.mp4 import (
    MAX_MOOV_BOXES,
    MAX_MOOV_BYTES,
    MAX_TOP_BOXES,
    Mp4Check,
    Mp4Facts,
)

WIDTH, HEIGHT, FPS, CLIP_SECONDS = 160, 90, 10, 2


def _film(*, audio: bool = True, movflags: str = "") -> bytes:
    """Make a real film: black pictures, and silence where asked for."""
    # In a folder, because faststart opens its file a second time.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "film.mp4"
        options = {"movflags": movflags} if movflags else {}
        with av.open(path, "w", options=options) as container:
            video = container.add_stream("libx264", rate=FPS)
            video.width, video.height, video.pix_fmt = WIDTH, HEIGHT, "yuv420p"
            sound = container.add_stream("aac", rate=48_000, layout="mono") if audio else None
            for picture in _black_pictures():
                container.mux(video.encode(picture))
            container.mux(video.encode(None))
            if sound is not None:
                for silence in _silence():
                    container.mux(sound.encode(silence))
                container.mux(sound.encode(None))
        return path.read_bytes()


def _black_pictures() -> Iterator[av.VideoFrame]:
    for number in range(FPS * CLIP_SECONDS):
        picture = av.VideoFrame(WIDTH, HEIGHT, "yuv420p")
        picture.pts, picture.time_base = number, Fraction(1, FPS)
        for plane in picture.planes:
            plane.update(bytes(plane.buffer_size))
        yield picture


def _silence() -> Iterator[av.AudioFrame]:
    for number in range(48_000 * CLIP_SECONDS // 1024):
        silence = av.AudioFrame(format="fltp", layout="mono", samples=1024)
        silence.planes[0].update(bytes(silence.planes[0].buffer_size))
        silence.pts, silence.rate = number * 1024, 48_000
        silence.time_base = Fraction(1, 48_000)
        yield silence


FILM = _film()


def _facts(content: bytes, *, chunk_bytes: int = 1 << 20) -> Mp4Facts:
    check = Mp4Check()
    for start in range(0, len(content), chunk_bytes):
        check.feed(content[start : start + chunk_bytes])
    return check.facts()


def _box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _long_box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4sQ", 1, kind, 16 + len(content)) + content


def _top_boxes(content: bytes) -> Iterator[tuple[bytes, int, int]]:
    at = 0
    while at < len(content):
        size, kind = struct.unpack_from(">I4s", content, at)
        yield kind, at, at + size
        at += size


def _track(handler: bytes, *, width: int = 0, height: int = 0, long: bool = False) -> bytes:
    size = struct.pack(">II", width << 16, height << 16)
    header = b"\1" + bytes(87) + size if long else bytes(76) + size
    hdlr = _box(b"hdlr", bytes(8), handler, bytes(12))
    return _box(b"trak", _box(b"tkhd", header), _box(b"mdia", hdlr))


MVHD = _box(b"mvhd", struct.pack(">12xII", 1000, 4000), bytes(80))
FTYP = _box(b"ftyp", b"isom\0\0\2\0isom")
MDAT = _box(b"mdat", b"pictures")
MOOV = _box(b"moov", MVHD, _track(b"vide", width=1280, height=720))


@pytest.mark.parametrize("movflags", ["", "faststart"])
def test_a_real_film_is_complete_and_says_what_it_is(movflags: str) -> None:
    film = _film(movflags=movflags)
    order = [kind for kind, _, _ in _top_boxes(film) if kind in {b"moov", b"mdat"}]
    assert order == ([b"moov", b"mdat"] if movflags else [b"mdat", b"moov"])
    facts = _facts(film)
    assert facts.complete
    assert facts.problem is None
    assert facts.duration_seconds == pytest.approx(CLIP_SECONDS, abs=0.05)
    assert (facts.width, facts.height, facts.has_audio) == (WIDTH, HEIGHT, True)


def test_a_film_without_sound_says_so() -> None:
    assert _facts(_film(audio=False)).has_audio is False


def test_a_fragmented_film_is_complete() -> None:
    facts = _facts(_film(movflags="frag_keyframe+empty_moov"))
    assert facts.complete
    assert (facts.width, facts.height, facts.has_audio) == (WIDTH, HEIGHT, True)
    assert facts.duration_seconds is None


@pytest.mark.parametrize("version", [0, 1])
def test_the_duration_of_a_fragmented_film_is_taken_from_mehd(version: int) -> None:
    mehd = _box(b"mehd", struct.pack(">B3xQ" if version else ">B3xI", version, 7000))
    unknown = _box(b"mvhd", struct.pack(">12xII", 1000, 0))
    film = FTYP + _box(b"moov", unknown, _box(b"mvex", mehd)) + MDAT
    assert _facts(film).duration_seconds == 7


@given(chunk_bytes=st.integers(1, 64))
def test_the_size_of_chunks_makes_no_difference(chunk_bytes: int) -> None:
    film = FTYP + _long_box(b"free", b"filler") + MOOV + _box(b"free") + MDAT
    assert _facts(film, chunk_bytes=chunk_bytes) == _facts(film)


@given(cut=st.integers(0, len(FILM) - 1))
def test_a_film_cut_anywhere_is_not_complete(cut: int) -> None:
    facts = _facts(FILM[:cut])
    assert not facts.complete
    assert facts.problem is not None


@given(tail=st.binary(min_size=1, max_size=64))
def test_a_film_with_a_tail_of_garbage_is_complete_only_if_that_is_boxes(tail: bytes) -> None:
    assert _facts(FILM + tail).complete is _are_boxes(tail)


def _are_boxes(content: bytes) -> bool:
    while content:
        if len(content) < 8:
            return False
        length, size = 8, int.from_bytes(content[:4])
        if size == 0:
            return True
        if size == 1:
            length, size = 16, int.from_bytes(content[8:16])
        if not length <= size <= len(content):
            return False
        content = content[size:]
    return True


def test_facts_of_a_faststart_film_are_there_before_it_has_come_whole() -> None:
    facts = _facts(FTYP + MOOV + MDAT[:10])
    assert not facts.complete
    assert (facts.duration_seconds, facts.width, facts.height) == (4, 1280, 720)


def test_64_bit_sizes_are_read() -> None:
    facts = _facts(FTYP + _long_box(b"moov", MOOV[8:]) + _long_box(b"mdat", b"pictures"))
    assert facts.complete
    assert facts.width == 1280


@pytest.mark.parametrize("last", ["mdat", "moov"])
def test_a_last_box_may_go_to_the_end_of_the_file(last: str) -> None:
    if last == "mdat":
        film = FTYP + MOOV + struct.pack(">I4s", 0, b"mdat") + b"pictures"
    else:
        film = FTYP + MDAT + struct.pack(">I4s", 0, b"moov") + MOOV[8:]
    facts = _facts(film, chunk_bytes=5)
    assert facts.complete
    assert (facts.duration_seconds, facts.width) == (4, 1280)


def test_64_bit_times_are_read() -> None:
    mvhd = _box(b"mvhd", struct.pack(">B19xIQ", 1, 90_000, 12 * 90_000))
    film = FTYP + _box(b"moov", mvhd, _track(b"vide", width=720, height=1280, long=True)) + MDAT
    facts = _facts(film)
    assert (facts.duration_seconds, facts.width, facts.height) == (12, 720, 1280)


def test_the_size_of_subtitles_is_not_the_size_of_the_picture() -> None:
    text = _track(b"sbtl", width=400, height=60)
    film = FTYP + _box(b"moov", text, _track(b"vide", width=720, height=1280)) + MDAT
    assert (_facts(film).width, _facts(film).height) == (720, 1280)


@pytest.mark.parametrize("duration", [0, 0xFFFFFFFF])
def test_an_unknown_duration_is_none(duration: int) -> None:
    mvhd = _box(b"mvhd", struct.pack(">12xII", 1000, duration))
    assert _facts(FTYP + _box(b"moov", mvhd) + MDAT).duration_seconds is None


def test_a_time_scale_of_nothing_gives_no_duration() -> None:
    mvhd = _box(b"mvhd", struct.pack(">12xII", 0, 4000))
    assert _facts(FTYP + _box(b"moov", mvhd) + MDAT).duration_seconds is None


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"", "empty"),
        (b"\0\0", "it breaks off inside a box"),
        (b"<!DOCTYPE html><html>502 Bad Gateway</html>", "not an MP4"),
        (b'{"error": {"message": "gone"}}', "not an MP4"),
        (bytes(64), "not an MP4"),
        (FTYP, "no moov box"),
        (FTYP + MOOV, "no mdat box"),
        (FTYP + MDAT, "no moov box"),
        (MOOV + MDAT, "no ftyp box"),
        (FTYP + MOOV + MDAT[:-1], "it breaks off inside a box"),
        (FTYP + MOOV + MDAT + b"\0\0\0", "it breaks off inside a box"),
        (FTYP + MOOV + MDAT + struct.pack(">I4sI", 1, b"free", 0), "it breaks off inside a box"),
        (FTYP + MOOV + MDAT + struct.pack(">I4s", 7, b"free"), "a box is smaller than its header"),
        (FTYP + struct.pack(">I4sQ", 1, b"mdat", 15), "a box is smaller than its header"),
        (FTYP + MDAT + _box(b"moov", b"x" * 30)[:20], "it breaks off inside a box"),
    ],
)
def test_what_is_no_whole_film_is_named(content: bytes, problem: str) -> None:
    facts = _facts(content)
    assert (facts.complete, facts.problem) == (False, problem)
    assert _facts(content, chunk_bytes=1) == facts


@pytest.mark.parametrize(
    "inside",
    [
        struct.pack(">I4s", 1000, b"trak"),
        struct.pack(">I4s", 7, b"trak"),
        struct.pack(">I4sQ", 1, b"trak", 1 << 63),
        struct.pack(">I4s", 1, b"trak"),
        _box(b"trak", struct.pack(">I4s", 1000, b"tkhd")),
        _box(b"mvhd", b"\0\0"),
        _box(b"trak", _box(b"tkhd", bytes(20))),
        _box(b"free") * (MAX_MOOV_BOXES + 1),
    ],
)
def test_boxes_inside_moov_that_lie_give_no_facts(inside: bytes) -> None:
    facts = _facts(FTYP + _box(b"moov", inside) + MDAT)
    assert facts == Mp4Facts(complete=True, problem="moov is damaged")


def test_boxes_nested_without_end_are_survived() -> None:
    nested = b""
    for kind in (b"trak", b"mdia") * 500:
        nested = _box(kind, nested)
    assert _facts(FTYP + _box(b"moov", nested) + MDAT).complete


def test_a_moov_over_the_limit_is_passed_over_and_not_kept() -> None:
    check = Mp4Check()
    check.feed(FTYP + struct.pack(">I4s", 8 + 3 * MAX_MOOV_BYTES, b"moov"))
    for _ in range(3):
        check.feed(bytes(MAX_MOOV_BYTES))
    check.feed(MDAT)
    assert check.facts() == Mp4Facts(complete=True, problem="moov is over the limit")
    assert check._moov is not None
    assert len(check._moov) == MAX_MOOV_BYTES + 1


def test_the_picture_itself_is_not_kept() -> None:
    check = Mp4Check()
    check.feed(FTYP + MOOV + struct.pack(">I4sQ", 1, b"mdat", 16 + (64 << 30)))
    chunk = bytes(1 << 20)
    for _ in range(64 << 10):
        check.feed(chunk)
    assert check.facts().complete


def test_too_many_boxes_are_given_up_on() -> None:
    facts = _facts(FTYP + _box(b"free") * MAX_TOP_BOXES + MOOV + MDAT)
    assert (facts.complete, facts.problem) == (False, "too many boxes")


@given(content=st.binary(max_size=400), chunk_bytes=st.integers(1, 50))
def test_no_bytes_make_it_raise(content: bytes, chunk_bytes: int) -> None:
    facts = _facts(FTYP + content, chunk_bytes=chunk_bytes)
    assert facts.complete is (facts.problem is None or facts.problem.startswith("moov is"))


@given(places=st.lists(st.tuples(st.integers(0), st.integers(0, 255)), min_size=1, max_size=20))
def test_no_damage_of_a_header_makes_it_raise(places: list[tuple[int, int]]) -> None:
    film = bytearray(FILM)
    start = next(start for kind, start, _ in _top_boxes(FILM) if kind == b"moov")
    for place, value in places:
        film[start + place % (len(film) - start)] = value
    _facts(bytes(film))


def test_random_headers_are_survived() -> None:
    chance = random.Random(7)
    kinds = [b"moov", b"trak", b"mdia", b"mvhd", b"tkhd", b"hdlr", b"mvex", b"mehd"]
    for _ in range(2000):
        parts = [
            struct.pack(">I4s", chance.choice([0, 1, 7, 8, 12, 40, 1 << 31]), chance.choice(kinds))
            + chance.randbytes(chance.choice([0, 4, 8, 40]))
            for _ in range(8)
        ]
        _facts(FTYP + _box(b"moov", *parts) + MDAT)
