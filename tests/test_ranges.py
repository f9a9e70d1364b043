"""Does a Range mean what RFC 9110 says?"""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.api.ranges import (
    UNSATISFIABLE,
    WHOLE,
    Span,
    content_range,
    has_already,
    range_applies,
    requested_range,
)

SIZES = st.integers(1, 40)
NUMBERS = st.integers(0, 60)


def _cut(content: bytes, header: str) -> bytes:
    span = requested_range(header, size=len(content))
    assert isinstance(span, Span)
    return content[span.start : span.end]


@given(size=SIZES, first=NUMBERS, last=NUMBERS)
def test_a_range_cuts_as_a_slice_does(size: int, first: int, last: int) -> None:
    content = bytes(range(size))
    header = f"bytes={first}-{last}"
    if last < first:
        assert requested_range(header, size=size) is WHOLE
    elif first >= size:
        assert requested_range(header, size=size) is UNSATISFIABLE
    else:
        assert _cut(content, header) == content[first : last + 1]


@given(size=SIZES, first=NUMBERS)
def test_an_open_range_cuts_to_the_end(size: int, first: int) -> None:
    content = bytes(range(size))
    header = f"bytes={first}-"
    if first >= size:
        assert requested_range(header, size=size) is UNSATISFIABLE
    else:
        assert _cut(content, header) == content[first:]


@given(size=SIZES, length=NUMBERS)
def test_a_suffix_cuts_from_the_end(size: int, length: int) -> None:
    content = bytes(range(size))
    header = f"bytes=-{length}"
    if length == 0:
        assert requested_range(header, size=size) is UNSATISFIABLE
    else:
        assert _cut(content, header) == content[-length:]


@given(header=st.text() | st.from_regex(r"bytes=[-0-9, ]*", fullmatch=True), size=st.integers(0))
def test_no_header_raises_and_a_span_is_never_empty_or_outside(header: str, size: int) -> None:
    answer = requested_range(header, size=size)
    if isinstance(answer, Span):
        assert 0 <= answer.start < answer.end <= size


@pytest.mark.parametrize(
    "header",
    [
        None,
        "",
        "bytes",
        "bytes=",
        "bytes=-",
        "bytes=a-b",
        "bytes=5-2",
        "bytes=0-1,4-5",
        "bytes=0-1,",
        "bytes=--5",
        "bytes=+1-2",
        "bytes=0x1-2",
        "bytes=\u0660-\u0661",
        "bytes=0-1-2",
        "bytes = 0-1",
        "items=0-1",
        "0-1",
        "bytes=" + "9" * 5000 + "-",
        "bytes=0-1\n",
    ],
)
def test_all_else_is_answered_with_the_whole(header: str | None) -> None:
    assert requested_range(header, size=10) is WHOLE


def test_the_unit_is_spelt_in_any_case() -> None:
    assert requested_range("Bytes=0-0", size=10) == Span(start=0, end=1)


@pytest.mark.parametrize(
    ("header", "answer"),
    [("bytes=0-", UNSATISFIABLE), ("bytes=0-0", UNSATISFIABLE), ("bytes=-1", WHOLE)],
)
def test_empty_content_has_no_part(header: str, answer: object) -> None:
    assert requested_range(header, size=0) is answer


def test_content_range_counts_from_zero_and_includes_the_last() -> None:
    assert content_range(Span(start=2, end=5), size=10) == "bytes 2-4/10"
    assert content_range(None, size=10) == "bytes */10"


@pytest.mark.parametrize(
    ("if_range", "applies"),
    [
        (None, True),
        ('"abc"', True),
        (' "abc" ', True),
        ('W/"abc"', False),
        ('"abd"', False),
        ("abc", False),
        ("Wed, 21 Oct 2026 07:28:00 GMT", False),
        ("", False),
    ],
)
def test_if_range_compares_strongly_and_never_matches_a_date(
    *, if_range: str | None, applies: bool
) -> None:
    assert range_applies(if_range, etag='"abc"') is applies


@pytest.mark.parametrize(
    ("if_none_match", "has"),
    [
        (None, False),
        ("*", True),
        ('"abc"', True),
        ('W/"abc"', True),
        ('"x", "abc"', True),
        ('"x",W/"abc" , "y"', True),
        ('"x"', False),
        ('"x, abc"', False),
        ("abc", False),
        ('"abc', False),
        ("", False),
    ],
)
def test_if_none_match_compares_weakly_in_a_list(*, if_none_match: str | None, has: bool) -> None:
    assert has_already(if_none_match, etag='"abc"') is has
