"""How is a playable video made without a video library?

H.264 colour bars and silent AAC-LC, described first and stored after (faststart), so that the
beginning of the file is enough to start playing. The same arguments give the same bytes.
"""

import hashlib
import random
import struct
from functools import lru_cache

from gateway.simulator.boxes import (
    AUDIO_FRAME_SAMPLES,
    AUDIO_RATE,
    SILENT_FRAME,
    Track,
    box,
    movie,
    picture_entry,
    silence_entry,
)
from gateway.simulator.h264 import (
    drawn_picture,
    level_of,
    picture_parameters,
    repeated_picture,
    sequence_parameters,
)

LONGEST_SECONDS = 120  # what a chain of extensions may reach
LARGEST_BYTES = 256 * 1024 * 1024
PICTURES_PER_SECOND = 30

_PICTURE_UNITS = 1000
_BOX_HEADER_BYTES = 8
_CACHED_TRACKS = 64
_FILLING_BYTES = 65_521  # a prime: the filling repeats at no offset that chunks are cut at


def make_mp4(
    *, width: int, height: int, seconds: int, tag: bytes, at_least_bytes: int = 0
) -> bytes:
    """Return a whole MP4 file; `tag` stands in it, so that different tags give different files.

    Args:
        width: even, at least 16.
        height: even, at least 48.
        seconds: 1 to LONGEST_SECONDS.
        tag: any bytes.
        at_least_bytes: the file is filled up to this size, with bytes that depend on the tag.

    Raises:
        ValueError: seconds or at_least_bytes is out of range.
    """
    if not 1 <= seconds <= LONGEST_SECONDS:
        raise ValueError(f"seconds must be 1 to {LONGEST_SECONDS}, not {seconds}")
    if at_least_bytes > LARGEST_BYTES:
        raise ValueError(f"at_least_bytes must be at most {LARGEST_BYTES}, not {at_least_bytes}")
    tracks = _tracks(width=width, height=height, seconds=seconds)
    stored = [b"".join(track.samples) for track in tracks]
    kind = box(b"ftyp", b"isom\0\0\2\0isomiso2avc1mp41")
    described_bytes = len(movie(tracks=tracks, offsets=(0, 0), seconds=seconds))
    unfilled_bytes = len(kind) + described_bytes + sum(map(len, stored)) + 2 * _BOX_HEADER_BYTES
    filling = _filling(tag=tag, at_least_bytes=at_least_bytes - unfilled_bytes)
    pictures_at = len(kind) + described_bytes + len(filling) + 2 * _BOX_HEADER_BYTES
    offsets = (pictures_at, pictures_at + len(stored[0]))
    described = movie(tracks=tracks, offsets=offsets, seconds=seconds)
    return b"".join((kind, described, box(b"free", filling), box(b"mdat", *stored)))


@lru_cache(maxsize=_CACHED_TRACKS)
def _tracks(*, width: int, height: int, seconds: int) -> tuple[Track, Track]:
    sps, pps = sequence_parameters(width=width, height=height), picture_parameters()
    level = level_of(width=width, height=height)
    numbers = range(seconds * PICTURES_PER_SECOND)
    pictures = Track(
        number=1,
        handler=b"vide",
        timescale=PICTURES_PER_SECOND * _PICTURE_UNITS,
        sample_units=_PICTURE_UNITS,
        samples=tuple(_picture(width=width, height=height, number=number) for number in numbers),
        key_samples=tuple(number + 1 for number in numbers if number % PICTURES_PER_SECOND == 0),
        entry=picture_entry(width=width, height=height, level=level, sps=sps, pps=pps),
        width=width,
        height=height,
    )
    frames = -(-seconds * AUDIO_RATE // AUDIO_FRAME_SAMPLES)
    silence = Track(
        number=2,
        handler=b"soun",
        timescale=AUDIO_RATE,
        sample_units=AUDIO_FRAME_SAMPLES,
        samples=(SILENT_FRAME,) * frames,
        key_samples=(),
        entry=silence_entry(),
    )
    return pictures, silence


def _picture(*, width: int, height: int, number: int) -> bytes:
    second, since_drawn = divmod(number, PICTURES_PER_SECOND)
    if since_drawn == 0:
        unit = drawn_picture(width=width, height=height, second=second)
    else:
        unit = repeated_picture(width=width, height=height, number=since_drawn)
    return struct.pack(">I", len(unit)) + unit


def _filling(*, tag: bytes, at_least_bytes: int) -> bytes:
    missing = at_least_bytes - len(tag)
    if missing <= 0:
        return tag
    seed = int.from_bytes(hashlib.sha256(tag).digest(), "big")
    block = random.Random(seed).randbytes(_FILLING_BYTES)  # noqa: S311 - filler, not a secret
    return tag + (block * (missing // _FILLING_BYTES + 1))[:missing]
