"""How is a defect shown, so that its traceback tells where, and not with which data?

A message often quotes what it failed on: `invalid literal for int() with base 10: 'a heron …'`,
and the driver of a database prints the value of an argument. That may be a prompt or a key. So
frames and types are shown as Python shows them, and of each message the first line without what
stands in quotes.
"""

import re
import traceback
from collections.abc import Iterator
from typing import Final

_QUOTES: Final = "'\"`"
# Up to the last one: what is quoted may hold quotes itself, or have lost its end.
_QUOTED: Final = re.compile(rf"[{_QUOTES}].*[{_QUOTES}]")
# Their messages name what stands in the program.
_OF_THE_PROGRAM: Final = (AttributeError, NameError, ImportError)
_CAUSE: Final = "\nThe above exception was the direct cause of the following exception:\n\n"
_CONTEXT: Final = "\nDuring handling of the above exception, another exception occurred:\n\n"
_HEAD: Final = "Traceback (most recent call last):\n"


def traceback_of(error: BaseException) -> str:
    """Return the traceback of an error, and of those that led to it, without data."""
    return "".join(_lines(error, seen=set())).rstrip()


def without_quotes(words: str) -> str:
    """Return the first line of a message, without what it quotes."""
    line = words.partition("\n")[0]
    line = _QUOTED.sub("'...'", line)
    at = min((line.find(quote) for quote in _QUOTES if quote in line), default=-1)
    return line if at < 0 or line[at:].startswith("'...'") else f"{line[:at]}..."


def _lines(error: BaseException, *, seen: set[int]) -> Iterator[str]:
    seen.add(id(error))
    before = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in seen:
        yield from _lines(before, seen=seen)
        yield _CAUSE if before is error.__cause__ else _CONTEXT
    if error.__traceback__ is not None:
        yield _HEAD
        yield from traceback.format_tb(error.__traceback__)
    yield f"{_name(type(error))}: {_message(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for number, one in enumerate(error.exceptions, 1):
            if id(one) not in seen:
                yield f"\n{number} of {len(error.exceptions)} in this group:\n"
                yield from _lines(one, seen=seen)


def _name(kind: type[BaseException]) -> str:
    known = kind.__module__ in {"builtins", "__main__"}
    return kind.__qualname__ if known else f"{kind.__module__}.{kind.__qualname__}"


def _message(error: BaseException) -> str:
    try:
        words = str(error)
    except Exception:  # noqa: BLE001 - it must not hide the defect that it belongs to
        return "..."
    return words.partition("\n")[0] if isinstance(error, _OF_THE_PROGRAM) else without_quotes(words)
