"""`video-gateway config`: what is set, where was it said, and would the gateway start with it?"""

import os
from pathlib import Path
from typing import Any, Final

import click

from gateway.cli.common import (
    WrongSettings,
    database_command,
    file_of,
    read_settings,
    show,
    show_facts,
)
from gateway.config import SettingsError, said, sample_toml
from gateway.db.url import shown
from gateway.setup import load_catalogue

_URLS: Final = frozenset({"database_url", "database_direct_url"})
_HIDDEN: Final = "(set)"


@click.group()
def config() -> None:
    """The settings of the gateway."""


@config.command("check")
@database_command
def check(*, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Report every mistake in settings and catalogue, as `serve` would; connects to nothing.

    Exits with 2 if there are mistakes.
    """
    settings = read_settings(config, database_url=database_url, serving=True)
    try:
        load_catalogue(settings)
    except SettingsError as error:
        raise WrongSettings(error) from error
    facts = {
        "database": shown(settings.database_url),
        "content": settings.store_url,
        "upstreams": {one.name: one.base_url for one in settings.all_upstreams()},
    }
    show_facts(facts, text="Settings and catalogue are right.", as_json=as_json)


@config.command("show")
@database_command
def show_(*, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """List every setting, its value, and where it was said; secrets are only said to be set."""
    settings = read_settings(config, database_url=database_url)
    rows = [
        {
            "setting": one.name,
            "value": _shown(one.name, one.value, secret=one.secret, as_json=as_json),
            "origin": (
                "--database-url"
                if one.name == "database_url" and database_url is not None
                else one.origin
            ),
        }
        for one in said(settings, file=file_of(config), environ=os.environ)
    ]
    show(rows, columns=("setting", "value", "origin"), as_json=as_json, empty="")


@config.command("sample")
def sample() -> None:
    """Print a TOML file with every setting, each with its default, behind a #."""
    click.echo(sample_toml(), nl=False)


def _shown(name: str, value: Any, *, secret: bool, as_json: bool) -> Any:
    if not value and value != 0:
        return [] if isinstance(value, tuple) and as_json else ""
    if secret:
        return _HIDDEN
    if name in _URLS:
        return shown(value)
    if as_json:
        return list(value) if isinstance(value, tuple) else value
    if isinstance(value, tuple):
        return ", ".join(value)
    return str(value).lower() if isinstance(value, bool) else str(value)
