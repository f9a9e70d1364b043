"""`video-gateway catalogue`: what can be asked for, and is the file right?"""

from pathlib import Path

import click

from gateway.billing.money import format_usd
from gateway.cli.common import (
    EXIT_FAILED,
    WrongSettings,
    database_command,
    read_settings,
    show,
)
from gateway.config import SettingsError
from gateway.setup import load_catalogue


class _WrongCatalogue(WrongSettings):
    """Every mistake in a catalogue: what the command was to find out, so it failed."""

    exit_code = EXIT_FAILED


@click.group()
def catalogue() -> None:
    """Models, sizes, seconds and rates."""


@catalogue.command("check")
@click.argument("file", required=False, type=click.Path(path_type=Path))
@database_command
def check(
    *, file: Path | None, config: Path | None, database_url: str | None, as_json: bool
) -> None:
    """Report every mistake in a catalogue (the one in force, or FILE), or list its rates.

    Exits with 1 if there are mistakes.
    """
    settings = read_settings(
        config, database_url=database_url, catalogue=None if file is None else str(file)
    )
    try:
        found = load_catalogue(settings)
    except SettingsError as error:
        raise _WrongCatalogue(error) from error
    rows = [
        {
            "model": model.id,
            "size": size,
            "tier": rate.tier,
            "seconds": " ".join(rate.seconds),
            "rate_usd": format_usd(rate.micros),
            "per": rate.unit,
            "upstream": model.upstream,
            "sunset": None if model.sunset is None else model.sunset.isoformat(),
        }
        for model in found.models.values()
        for size, rate in model.rates.items()
    ]
    columns = ("model", "size", "tier", "seconds", "rate_usd", "per", "upstream", "sunset")
    show(rows, columns=columns, as_json=as_json, empty="The catalogue has no rates.")
    if not as_json:
        click.echo(f"\nsha256 {found.sha256}")
