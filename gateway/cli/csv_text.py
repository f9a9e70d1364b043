"""How is a row of CSV written, so that every program reads it back and none carries it out?

As RFC 4180 has it: commas, double quotes, CRLF; thus a name with a line break in it is quoted.
A spreadsheet takes a cell that begins with `=`, `+`, `-` or `@` for a formula, and some take one
behind a tab or a line break, too (https://owasp.org/www-community/attacks/CSV_Injection): such a
text gets an apostrophe. Amounts and counts are written by us and stay as they are.
"""

import csv
import io
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, Final

_FORMULA: Final = ("=", "+", "-", "@", "\t", "\r", "\n")


def csv_header(columns: Sequence[str]) -> str:
    """Return the line of column names."""
    return _lines([columns])


def csv_rows(rows: Iterable[Mapping[str, Any]], *, columns: Sequence[str]) -> str:
    """Return one line per row; a column whose name ends with `_usd` is an amount of ours."""
    return _lines([_cell(column, row[column]) for column in columns] for row in rows)


def _cell(column: str, value: Any) -> Any:
    if not isinstance(value, str) or column.endswith("_usd"):
        return value
    return f"'{value}" if value.startswith(_FORMULA) else value


def _lines(rows: Iterable[Sequence[Any]]) -> str:
    text = io.StringIO(newline="")
    csv.writer(text, lineterminator="\r\n").writerows(rows)
    return text.getvalue()
