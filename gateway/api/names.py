"""What does a request call something, and can anything be called that?

PostgreSQL has no text with NUL, and refuses a statement that carries one. So nothing is named with
it: whoever asks for such a name is told that there is none, and the database is not asked.
"""

from typing import Final
from urllib.parse import unquote

from starlette.requests import Request

_NUL: Final = "\0"


def part_of_path(request: Request, name: str) -> str:
    """Return a part of the path, decoded: it is matched as it was sent, so it may hold any byte."""
    return unquote(request.path_params[name])


def is_name(text: str) -> bool:
    """Tell whether something may be called that, so that the database can be asked for it."""
    return _NUL not in text
