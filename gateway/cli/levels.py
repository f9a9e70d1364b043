"""Which level does a command mean: the organization, a project or a key?"""

from collections.abc import Callable
from typing import Final, ParamSpec, TypeVar

import click

from gateway.billing.balances import KEY, ORGANIZATION, ORGANIZATION_ID, PROJECT, Level
from gateway.billing.levels import find_level
from gateway.cli.common import fail
from gateway.db.script import Script

P = ParamSpec("P")
T = TypeVar("T")

_OPTIONS: Final = {
    ORGANIZATION: click.option("--organization", is_flag=True, help="The whole organization."),
    PROJECT: click.option("--project", help="The project with this id or name."),
    KEY: click.option("--key", help="The key with this id."),
}


def level_options(function: Callable[P, T]) -> Callable[P, T]:
    """Give a command the options that name any level."""
    return _OPTIONS[ORGANIZATION](below_options(function))


def below_options(function: Callable[P, T]) -> Callable[P, T]:
    """Give a command the options that name a project or a key."""
    return _OPTIONS[PROJECT](_OPTIONS[KEY](function))


def named_level(
    *, project: str | None, key: str | None, organization: bool | None = None
) -> tuple[str, str]:
    """Return which level is named, and by what; `organization` is None where it cannot be.

    Raises:
        click.UsageError: it is not exactly one.
    """
    found = named_level_or_none(project=project, key=key, organization=organization)
    if found is None:
        raise _not_one(organization)
    return found


def named_level_or_none(
    *, project: str | None, key: str | None, organization: bool | None = None
) -> tuple[str, str] | None:
    """Return which level is named, None: none is.

    Raises:
        click.UsageError: there are several.
    """
    named = {
        ORGANIZATION: ORGANIZATION_ID if organization else None,
        PROJECT: project,
        KEY: key,
    }
    found = [(level, name) for level, name in named.items() if name is not None]
    if len(found) > 1:
        raise _not_one(organization)
    return found[0] if found else None


def _not_one(organization: bool | None) -> click.UsageError:  # noqa: FBT001 - the option itself
    if organization is None:
        return click.UsageError("say exactly one of --project and --key")
    return click.UsageError("say exactly one of --organization, --project and --key")


def existing_level(name: str, named: str) -> Script[Level]:
    """Return the level that is named; ends the command, and undoes the script, if there is none."""
    level = yield from find_level(name, named=named)
    if level is None:
        where = "projects list" if name == PROJECT else "keys list"
        raise fail(f"there is no {name} {named!r}; `{where}` shows them")
    return level


def whose(name: str, named: str) -> str:
    """Return how a level is spoken of."""
    return "the organization" if name == ORGANIZATION else f"{name} {named}"
