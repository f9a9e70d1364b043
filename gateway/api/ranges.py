"""Which part of the content does a request ask for, and does it have that already?

RFC 9110, sections 13.1 and 14. A server may ignore a Range; a client must then take the whole. So
everything but one plain range of bytes is answered with the whole:

    bytes=a-b     from a to b, both included; b is cut to the end
    bytes=a-      from a on
    bytes=-n      the last n bytes; all of them where there are fewer
    a behind the end, or n = 0                      unsatisfiable: 416
    several ranges, other units, anything else      the whole: 200
"""

import re
from dataclasses import dataclass
from enum import Enum
from typing import Final

# Sizes of files have no more; int() refuses thousands of digits with an exception of its own.
MAX_DIGITS = 19

_RANGE = re.compile(
    rf"bytes=[ \t]*([0-9]{{0,{MAX_DIGITS}}})-([0-9]{{0,{MAX_DIGITS}}})[ \t]*", re.IGNORECASE
)
_ENTITY_TAG = re.compile(r'(?:W/)?("[\x21\x23-\x7e\x80-\xff]*")')


@dataclass(frozen=True, slots=True, kw_only=True)
class Span:
    """A part that is not empty: the bytes from `start` up to, without, `end`."""

    start: int
    end: int


class NoSpan(Enum):
    """A request that is not answered with a part."""

    WHOLE = "everything"
    UNSATISFIABLE = "nothing that is there"


WHOLE: Final = NoSpan.WHOLE
UNSATISFIABLE: Final = NoSpan.UNSATISFIABLE


def requested_range(header: str | None, *, size: int) -> Span | NoSpan:
    """Return which part of content of this size a Range header asks for."""
    match = None if header is None else _RANGE.fullmatch(header)
    if match is None:
        return WHOLE
    first, last = match.groups()
    if not first:
        return _suffix(int(last), size=size) if last else WHOLE
    start = int(first)
    if last and int(last) < start:
        return WHOLE
    if start >= size:
        return UNSATISFIABLE
    return Span(start=start, end=min(int(last) + 1, size) if last else size)


def _suffix(length: int, *, size: int) -> Span | NoSpan:
    if length == 0:
        return UNSATISFIABLE
    # Section 14.1.2 calls the end of empty content satisfiable, but no Content-Range can say it.
    return Span(start=max(0, size - length), end=size) if size else WHOLE


def content_range(span: Span | None, *, size: int) -> str:
    """Return the Content-Range of a part, or of none: what a 416 says."""
    return f"bytes */{size}" if span is None else f"bytes {span.start}-{span.end - 1}/{size}"


def range_applies(if_range: str | None, *, etag: str | None) -> bool:
    """Return whether a Range still means this content (section 13.1.5).

    The comparison is strong, and a date never matches: we send no Last-Modified to compare it with.
    """
    return if_range is None or if_range.strip() == etag


def has_already(if_none_match: str | None, *, etag: str | None) -> bool:
    """Return whether the client holds this content already (section 13.1.2, weak comparison)."""
    if if_none_match is None:
        return False
    return if_none_match.strip() == "*" or etag in _ENTITY_TAG.findall(if_none_match)
