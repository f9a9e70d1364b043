"""How is a track described inside an MP4 file?

Box names and field orders are those of ISO/IEC 14496-12 (the file format), 14496-15 (`avcC`) and
14496-1 (`esds`). Every file has two tracks: pictures and silence.
"""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

from gateway.simulator.h264 import PROFILE_BASELINE, PROFILE_CONSTRAINED

MOVIE_TIMESCALE = 1000
AUDIO_RATE = 48_000
AUDIO_FRAME_SAMPLES = 1024  # one AAC-LC frame
SILENT_FRAME = b"\0\0\0\7"  # a raw_data_block whose only element is the end marker
IDENTITY_MATRIX = struct.pack(">9i", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)

_AAC_LC_48K_MONO = b"\x11\x88"  # AudioSpecificConfig
_SELF_CONTAINED = 1


@dataclass(frozen=True, slots=True)
class Track:
    """What one track's boxes say.

    Attributes:
        number: 1 for pictures, 2 for sound.
        handler: b"vide" or b"soun".
        timescale: units a second of `sample_units`.
        sample_units: how long each sample lasts.
        samples: the samples' bytes, in order.
        key_samples: numbers (from 1) of samples a player may start at; empty means all.
        entry: the sample description box.
        width: 0 for sound.
        height: 0 for sound.
    """

    number: int
    handler: bytes
    timescale: int
    sample_units: int
    samples: tuple[bytes, ...]
    key_samples: tuple[int, ...]
    entry: bytes
    width: int = 0
    height: int = 0


def box(name: bytes, *parts: bytes) -> bytes:
    """Return a box: its length, its name, its parts."""
    payload = b"".join(parts)
    return struct.pack(">I4s", 8 + len(payload), name) + payload


def full_box(name: bytes, *parts: bytes, flags: int = 0) -> bytes:
    """Return a box of version 0 with flags."""
    return box(name, struct.pack(">I", flags), *parts)


def movie(*, tracks: Sequence[Track], offsets: Sequence[int], seconds: int) -> bytes:
    """Return the `moov` box; its length does not depend on the offsets of the samples."""
    header = full_box(
        b"mvhd",
        struct.pack(">IIII", 0, 0, MOVIE_TIMESCALE, seconds * MOVIE_TIMESCALE),
        struct.pack(">IH10x", 0x10000, 0x100),
        IDENTITY_MATRIX,
        struct.pack(">24xI", len(tracks) + 1),
    )
    described = (
        _track(track=track, offset=offset, seconds=seconds)
        for track, offset in zip(tracks, offsets, strict=True)
    )
    return box(b"moov", header, *described)


def picture_entry(*, width: int, height: int, level: int, sps: bytes, pps: bytes) -> bytes:
    """Return the `avc1` sample description of pictures with these parameter sets."""
    configuration = box(
        b"avcC",
        bytes([1, PROFILE_BASELINE, PROFILE_CONSTRAINED, level, 0xFF, 0xE1]),
        struct.pack(">H", len(sps)) + sps,
        struct.pack(">BH", 1, len(pps)) + pps,
    )
    return box(
        b"avc1",
        struct.pack(">6xH16x", _SELF_CONTAINED),
        struct.pack(">HHIIIH", width, height, 0x480000, 0x480000, 0, 1),
        struct.pack(">32xHh", 24, -1),
        configuration,
    )


def silence_entry() -> bytes:
    """Return the `mp4a` sample description of mono AAC-LC at 48 kHz."""
    specific = _descriptor(5, _AAC_LC_48K_MONO)
    decoder = _descriptor(4, struct.pack(">BBBHII", 0x40, 0x15, 0, 0, 4000, 1500) + specific)
    elementary = _descriptor(3, struct.pack(">HB", 2, 0) + decoder + _descriptor(6, b"\2"))
    return box(
        b"mp4a",
        struct.pack(">6xH8x", _SELF_CONTAINED),
        struct.pack(">HHHHI", 1, 16, 0, 0, AUDIO_RATE << 16),
        full_box(b"esds", elementary),
    )


def _track(*, track: Track, offset: int, seconds: int) -> bytes:
    sound = track.handler == b"soun"
    header = full_box(
        b"tkhd",
        struct.pack(">IIIII8x", 0, 0, track.number, 0, seconds * MOVIE_TIMESCALE),
        struct.pack(">hhhH", 0, 0, 0x100 if sound else 0, 0),
        IDENTITY_MATRIX,
        struct.pack(">II", track.width << 16, track.height << 16),
        flags=3,
    )
    length = len(track.samples) * track.sample_units
    undetermined = 0x55C4
    media = full_box(
        b"mdhd", struct.pack(">IIIIHH", 0, 0, track.timescale, length, undetermined, 0)
    )
    handler = full_box(b"hdlr", struct.pack(">4x4s12x", track.handler), b"simulator\0")
    kind = full_box(b"smhd", bytes(4)) if sound else full_box(b"vmhd", bytes(8), flags=1)
    where = full_box(b"dref", struct.pack(">I", 1), full_box(b"url ", flags=_SELF_CONTAINED))
    information = box(b"minf", kind, box(b"dinf", where), _samples(track=track, offset=offset))
    return box(b"trak", header, box(b"mdia", media, handler, information))


def _samples(*, track: Track, offset: int) -> bytes:
    count = len(track.samples)
    sizes = struct.pack(f">{count}I", *map(len, track.samples))
    parts = [
        full_box(b"stsd", struct.pack(">I", 1), track.entry),
        full_box(b"stts", struct.pack(">III", 1, count, track.sample_units)),
        full_box(b"stsc", struct.pack(">IIII", 1, 1, count, 1)),
        full_box(b"stsz", struct.pack(">II", 0, count), sizes),
        full_box(b"stco", struct.pack(">II", 1, offset)),
    ]
    if track.key_samples:
        keys = struct.pack(f">{len(track.key_samples)}I", *track.key_samples)
        parts.insert(2, full_box(b"stss", struct.pack(">I", len(track.key_samples)), keys))
    return box(b"stbl", *parts)


def _descriptor(tag: int, payload: bytes) -> bytes:
    return bytes([tag, len(payload)]) + payload
