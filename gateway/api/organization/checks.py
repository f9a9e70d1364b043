"""What may stand in the fields of more than one request to /v1/organization? Pure."""

from collections.abc import Callable
from typing import Any, Final, TypeAlias

from gateway.billing.keys import ALL, READ
from gateway.billing.money import parse_usd

# A hundred years: far above any policy, far below what a BIGINT holds.
MAX_LIFETIME_SECONDS: Final = 100 * 365 * 86_400
READ_ONLY: Final = "api.all.read"
_LONGEST_AMOUNT: Final = 32

# Returns a checked value, or raises ValueError with what would be right.
Check: TypeAlias = Callable[[Any], Any]


def text(*, most: int = 256) -> Check:
    """Return the check of a text that is not blank."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError("a string")
        if not value.strip() or len(value) > most or not value.isprintable():
            raise ValueError(f"1 to {most} printable characters")
        return value

    return check


def whole(*, least: int, most: int) -> Check:
    """Return the check of a whole number."""

    def check(value: Any) -> int:
        if isinstance(value, bool) or not isinstance(value, int):
            raise TypeError("an integer")
        if not least <= value <= most:
            raise ValueError(f"a number from {least} to {most}")
        return value

    return check


def one_of(*values: str) -> Check:
    """Return the check of a word out of a list."""

    def check(value: Any) -> str:
        if not isinstance(value, str):
            raise TypeError("a string")
        if value not in values:
            raise ValueError(f"one of: {', '.join(repr(one) for one in values)}")
        return value

    return check


def texts(*, most: int, each: Check) -> Check:
    """Return the check of a list of texts; what is said twice counts once."""

    def check(value: Any) -> list[str]:
        if not isinstance(value, list):
            raise TypeError("an array of strings")
        if len(value) > most:
            raise ValueError(f"at most {most} of them")
        return list(dict.fromkeys(each(one) for one in value))

    return check


def usd(value: Any) -> int:
    """Check an amount of dollars, a text such as `2.50`, and return its micros."""
    # A JSON number may have been rounded before it came here.
    if not isinstance(value, str):
        raise TypeError("a string such as '2.50'")
    if len(value) > _LONGEST_AMOUNT:
        raise ValueError("an amount in US dollars, such as 2.50")
    try:
        return parse_usd(value)
    except ValueError as error:
        raise ValueError(f"an amount, but {error}") from error


def flag(value: Any) -> bool:
    """Check true or false."""
    if not isinstance(value, bool):
        raise TypeError("a boolean")
    return value


lifetime: Final = whole(least=1, most=MAX_LIFETIME_SECONDS)


def unsupported(why: str) -> Check:
    """Return the check of a field that only null is right for, which never reaches a check."""

    def check(_: Any) -> None:
        raise ValueError(f"null, because {why}")

    return check


def scope(value: Any) -> str:
    """Check the scopes of a key, and return the scope that they mean."""
    if not isinstance(value, list):
        raise TypeError("an array of strings")
    if value == []:
        return ALL
    if value == [READ_ONLY]:
        return READ
    raise ValueError(f"[] for all permissions, or ['{READ_ONLY}'] for a key that buys nothing")


def scopes_of(scope: str) -> list[str]:
    """Return what OpenAI calls the scope of a key."""
    return [] if scope == ALL else [READ_ONLY]
