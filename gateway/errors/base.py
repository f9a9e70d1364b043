"""What does every error fix: status, type, code, and whether a client may retry?"""

import re
from collections.abc import Iterator, Mapping
from types import MappingProxyType
from typing import Any, Final

_CAPITAL: Final = re.compile(r"(?<!^)([A-Z])")
NO_HEADERS: Final[Mapping[str, str]] = MappingProxyType({})


class GatewayError(Exception):
    """An answer that is not a success, in OpenAI's envelope.

    Attributes:
        status: the HTTP status.
        type: OpenAI's error type.
        code: OpenAI's error code, or None.
        param: the parameter at fault, or None.
        may_retry: False puts `x-should-retry: false` on the answer, because the SDKs send
            408, 409, 429 and 5xx again by themselves.
        headers: further headers of the answer.
    """

    status: int = 500
    type: str = "server_error"
    code: str | None = None
    may_retry: bool = False

    def __init__(
        self,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        headers: Mapping[str, str] = NO_HEADERS,
    ) -> None:
        super().__init__(message)
        self.message = message
        self.param = param
        self.headers = headers
        if code is not None:
            self.code = code

    @classmethod
    def reason(cls) -> str:
        """Return what is counted: the name of the class, with underscores. A closed list."""
        return _CAPITAL.sub(r"_\1", cls.__name__).lower()

    def envelope(self) -> dict[str, Any]:
        """Return OpenAI's error object: message, type, param and code, always all four."""
        return {
            "error": {
                "message": self.message,
                "type": self.type,
                "param": self.param,
                "code": self.code,
            }
        }


def reasons() -> list[str]:
    """Return what may be counted: the reason of every error that there is."""
    return sorted(one.reason() for one in _below(GatewayError))


def _below(error: type[GatewayError]) -> Iterator[type[GatewayError]]:
    for one in error.__subclasses__():
        if not one.__name__.startswith("_"):
            yield one
        yield from _below(one)
