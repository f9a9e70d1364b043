"""Is this a whole MP4, and how long and how large is its picture?

An MP4 (ISO/IEC 14496-12, section 4.2) is a row of boxes: 32-bit size, four letters, content. Size 1
says that a 64-bit size follows the letters, size 0 that the box goes on to the end of the file. A
download that broke off does not end where its last box ends; that is found out here while the bytes
pass by, keeping nothing but one box header and `moov`, the box that describes the others:

    ftyp   moov ─ mvhd: time scale, duration            mdat: pictures and sound, not looked at
                ├ mvex ─ mehd: duration of a fragmented film
                └ trak ─ tkhd: width, height
                       └ mdia ─ hdlr: picture or sound
"""

import struct
from collections.abc import Iterator
from dataclasses import dataclass, replace

MAX_MOOV_BYTES = 8 << 20
MAX_TOP_BOXES = 100_000
MAX_MOOV_BOXES = 10_000

_SHORT_HEADER, _LONG_HEADER = 8, 16
_SIZE_FOLLOWS, _TO_THE_END = 1, 0
_NEEDED = ("ftyp", "moov", "mdat")
# What may stand first: `ftyp` in every MP4 of today, the others in older files.
_FIRST = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pdin", b"uuid")
_UNKNOWN_DURATIONS = (0, (1 << 32) - 1, (1 << 64) - 1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Mp4Facts:
    """What was found out.

    Attributes:
        complete: the boxes add up exactly to the bytes seen, and ftyp, moov and mdat are there.
            A file whose last box goes "to the end" cannot be told from one that broke off in it.
        duration_seconds: of the film; None where the file does not say.
        width: of the first track with a picture, in pixels, before any rotation that the file asks
            for; None where the file does not say.
        height: the same.
        has_audio: there is a track with sound.
        problem: fixed words, or None. Never None where `complete` is False; in a complete file it
            says why there are no facts.
    """

    complete: bool
    duration_seconds: float | None = None
    width: int | None = None
    height: int | None = None
    has_audio: bool = False
    problem: str | None = None


class Mp4Check:
    """Looks at an MP4 that streams by: feed() it chunks of any size in order, then ask for facts().

    No bytes make it raise, and it never keeps more than MAX_MOOV_BYTES of them.
    """

    def __init__(self) -> None:
        self._header = bytearray()
        self._content_left = 0
        self._to_the_end = False
        self._boxes = 0
        self._seen: set[str] = set()
        self._moov: bytearray | None = None
        self._in_moov = False
        self._lost: str | None = None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes of the file."""
        rest = memoryview(chunk)
        while rest and self._lost is None:
            inside = self._to_the_end or self._content_left > 0
            taken = self._take_content(rest) if inside else self._take_header(rest)
            rest = rest[taken:]

    @property
    def lost(self) -> bool:
        """Whether the bytes so far can be the beginning of no MP4."""
        return self._lost is not None

    def facts(self) -> Mp4Facts:
        """Return what follows from the bytes so far, taken as the whole file."""
        problem = self._lost or self._missing()
        facts = Mp4Facts(complete=problem is None, problem=problem)
        if self._moov is None or (self._in_moov and not self._to_the_end):
            return facts
        if len(self._moov) > MAX_MOOV_BYTES:
            return replace(facts, problem=problem or "moov is over the limit")
        try:
            return _read_moov(memoryview(self._moov), facts=facts)
        except (_Damaged, struct.error):
            return replace(facts, problem=problem or "moov is damaged")

    def _take_header(self, rest: memoryview) -> int:
        taken = rest[: self._header_length() - len(self._header)]
        self._header += taken
        if len(self._header) == self._header_length():
            self._begin_box()
        return len(taken)

    def _header_length(self) -> int:
        long = self._header[:4] == _SIZE_FOLLOWS.to_bytes(4) and len(self._header) >= _SHORT_HEADER
        return _LONG_HEADER if long else _SHORT_HEADER

    def _begin_box(self) -> None:
        length = len(self._header)
        size, kind = struct.unpack_from(">I4s", self._header)
        if length == _LONG_HEADER:
            (size,) = struct.unpack_from(">Q", self._header, _SHORT_HEADER)
        self._header.clear()
        self._boxes += 1
        self._to_the_end = size == _TO_THE_END and length == _SHORT_HEADER
        if self._boxes == 1 and kind not in _FIRST:
            self._lost = "not an MP4"
        elif self._boxes > MAX_TOP_BOXES:
            self._lost = "too many boxes"
        elif size < length and not self._to_the_end:
            self._lost = "a box is smaller than its header"
        else:
            self._content_left = 0 if self._to_the_end else size - length
            self._seen |= {name for name in _NEEDED if name.encode() == kind}
            self._in_moov = kind == b"moov" and self._moov is None
            if self._in_moov:
                self._moov = bytearray()

    def _take_content(self, rest: memoryview) -> int:
        taken = len(rest) if self._to_the_end else min(len(rest), self._content_left)
        if self._in_moov and self._moov is not None:
            # One byte over the limit is kept to know that it was passed.
            self._moov += rest[: min(taken, MAX_MOOV_BYTES + 1 - len(self._moov))]
        if not self._to_the_end:
            self._content_left -= taken
            self._in_moov = self._in_moov and self._content_left > 0
        return taken

    def _missing(self) -> str | None:
        if self._boxes == 0 and not self._header:
            return "empty"
        if self._header or self._content_left > 0:
            return "it breaks off inside a box"
        absent = (name for name in _NEEDED if name not in self._seen)
        return next((f"no {name} box" for name in absent), None)


class _Damaged(Exception):
    """A box inside moov lies about its size, or there are too many."""


@dataclass(frozen=True, slots=True)
class _Track:
    handler: bytes = b""
    width: int = 0
    height: int = 0


def _read_moov(moov: memoryview, *, facts: Mp4Facts) -> Mp4Facts:
    budget = iter(range(MAX_MOOV_BOXES))
    scale = duration = fragmented = 0
    tracks = []
    for kind, content in _boxes(moov, budget=budget):
        if kind == b"mvhd":
            scale, duration = _fields(content, ">12xII", ">20xIQ")
        elif kind == b"mvex":
            fragmented = _read_mvex(content, budget=budget)
        elif kind == b"trak":
            tracks.append(_read_track(content, budget=budget))
    if duration in _UNKNOWN_DURATIONS:
        duration = fragmented
    known = scale > 0 and duration not in _UNKNOWN_DURATIONS
    picture = next((t for t in tracks if t.handler == b"vide" and t.width and t.height), None)
    return replace(
        facts,
        duration_seconds=duration / scale if known else None,
        width=picture.width if picture else None,
        height=picture.height if picture else None,
        has_audio=any(track.handler == b"soun" for track in tracks),
    )


def _read_mvex(mvex: memoryview, *, budget: Iterator[int]) -> int:
    for kind, content in _boxes(mvex, budget=budget):
        if kind == b"mehd":
            return _fields(content, ">4xI", ">4xQ")[0]
    return 0


def _read_track(track: memoryview, *, budget: Iterator[int]) -> _Track:
    read = _Track()
    for kind, content in _boxes(track, budget=budget):
        if kind == b"tkhd":
            # 16.16 fixed point, at the very end of the box.
            width, height = _fields(content, ">76xII", ">88xII")
            read = replace(read, width=width >> 16, height=height >> 16)
        elif kind == b"mdia":
            for name, inner in _boxes(content, budget=budget):
                if name == b"hdlr":
                    read = replace(read, handler=bytes(inner[8:12]))
    return read


def _fields(content: memoryview, short: str, long: str) -> tuple[int, ...]:
    """Read a full box whose version, its first byte, says whether times have 32 or 64 bits."""
    return struct.unpack_from(long if content[:1].tobytes() == b"\1" else short, content)


def _boxes(content: memoryview, *, budget: Iterator[int]) -> Iterator[tuple[bytes, memoryview]]:
    # Fewer bytes than a header are padding, which some writers leave at the end of a box.
    while len(content) >= _SHORT_HEADER:
        size, kind = struct.unpack_from(">I4s", content)
        length = _SHORT_HEADER
        if size == _SIZE_FOLLOWS:
            length = _LONG_HEADER
            (size,) = struct.unpack_from(">Q", content, _SHORT_HEADER)
        elif size == _TO_THE_END:
            size = len(content)
        if not length <= size <= len(content) or next(budget, None) is None:
            raise _Damaged
        yield kind, content[length:size]
        content = content[size:]
