"""What may be said in an option, and what is said of what may not?"""

from collections.abc import Sequence
from datetime import date
from typing import Any, Final

import click

from gateway.alerts.mail import is_address
from gateway.alerts.webhook import is_hook
from gateway.billing.money import parse_usd

# As long as the admin API takes them.
MAX_NAME_CHARACTERS: Final = 256
MAX_URL_CHARACTERS: Final = 2_048
NONE: Final = "none"
# What is given a longer life is better given none.
MAX_EXPIRES_IN_SECONDS: Final = 10 * 366 * 86_400
_MAX_COUNT_DIGITS: Final = 9


class Usd(click.ParamType[int]):
    """An amount of US dollars, such as 2.50; becomes micros."""

    name = "usd"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> int:
        """Return micros."""
        if isinstance(value, int):
            return value
        try:
            return parse_usd(str(value))
        except ValueError as error:
            self.fail(str(error), param, ctx)


class Text(click.ParamType[str]):
    """A name or a reason: one line that is not blank."""

    name = "text"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return it without the blanks around it."""
        text = str(value).strip()
        if not text:
            self.fail("must not be blank", param, ctx)
        if len(text) > MAX_NAME_CHARACTERS or not text.isprintable():
            self.fail(
                f"must be at most {MAX_NAME_CHARACTERS} printable characters, in one line",
                param,
                ctx,
            )
        return text


class Day(click.ParamType[date]):
    """A UTC day, such as 2026-11-22."""

    name = "day"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> date:
        """Return the day."""
        if isinstance(value, date):
            return value
        text = str(value)
        try:
            day = date.fromisoformat(text)
        except ValueError:
            day = None
        # Python also reads 20261122 and 2026-W47-7.
        if day is None or day.isoformat() != text:
            self.fail(f"{text!r} is not a day such as 2026-11-22", param, ctx)
        return day


class Words(click.ParamType[tuple[str, ...]]):
    """Words with commas between them, of a list where there is one; said twice counts once."""

    name = "words"

    def __init__(self, choices: Sequence[str] = ()) -> None:
        self.choices = choices

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> tuple[str, ...]:
        """Return the words in the order they were said."""
        if isinstance(value, tuple):
            return value
        words = tuple(dict.fromkeys(word.strip() for word in str(value).split(",")))
        if "" in words:
            self.fail(f"{value!r} is not a list such as a,b", param, ctx)
        for word in words:
            if self.choices and word not in self.choices:
                self.fail(f"{word!r} is none of: {', '.join(self.choices)}", param, ctx)
        return words


class Limit(click.ParamType[int | str]):
    """A limit: a whole number, or `none` for no limit."""

    name = "number|none"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return the number, or NONE."""
        text = str(value)
        if text == NONE:
            return NONE
        if not (text.isascii() and text.isdecimal() and len(text) <= _MAX_COUNT_DIGITS):
            self.fail(f"{text!r} is neither a whole number nor `{NONE}`", param, ctx)
        return int(text)


class UsdLimit(click.ParamType[int | str]):
    """A limit in US dollars, or `none` for no limit; becomes micros."""

    name = "usd|none"

    def convert(
        self, value: Any, param: click.Parameter | None, ctx: click.Context | None
    ) -> int | str:
        """Return micros, or NONE."""
        return NONE if value == NONE else Usd().convert(value, param, ctx)


class Email(click.ParamType[str]):
    """An address of a mailbox."""

    name = "email"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the address."""
        text = str(value)
        if not is_address(text):
            self.fail(f"{text!r} is not a mail address such as finance@example.com", param, ctx)
        return text


class Url(click.ParamType[str]):
    """An http(s) address, without a login."""

    name = "url"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> str:
        """Return the URL."""
        text = str(value)
        if len(text) > MAX_URL_CHARACTERS or not is_hook(text):
            # Not repeated: a password may stand in it.
            self.fail(
                "that is not an http(s) URL without a login, such as https://example.com/hook",
                param,
                ctx,
            )
        return text
