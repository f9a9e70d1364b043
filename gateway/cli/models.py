"""`video-gateway limits models`: which models may a project or a key ask for?"""

from functools import partial
from pathlib import Path

import click

from gateway.billing.audit_log import Change
from gateway.billing.balances import Level
from gateway.billing.permissions import (
    ALLOW,
    DENY,
    EVERYTHING,
    Permissions,
    set_permissions,
)
from gateway.cli.common import (
    WrongSettings,
    a_change,
    database_command,
    read_settings,
    run_script,
    show_facts,
)
from gateway.cli.levels import below_options, existing_level, named_level
from gateway.cli.values import Words
from gateway.clock import system_clock
from gateway.config import Settings, SettingsError
from gateway.db.script import Script
from gateway.setup import load_catalogue


@click.command("models")
@below_options
@click.option("--allow", type=Words(), help="Only these models, such as sora-2,sora-2-pro.")
@click.option("--deny", type=Words(), help="All models but these.")
@click.option("--any", "everything", is_flag=True, help="All models.")
@database_command
def models(
    *,
    project: str | None,
    key: str | None,
    allow: tuple[str, ...] | None,
    deny: tuple[str, ...] | None,
    everything: bool,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Say which models a project or a key may ask for; it replaces what was said before."""
    name, named = named_level(project=project, key=key)
    said = [
        Permissions(mode, ids)
        for mode, ids in ((ALLOW, allow), (DENY, deny), (DENY, () if everything else None))
        if ids is not None
    ]
    if len(said) != 1:
        raise click.UsageError("say exactly one of --allow, --deny and --any")
    settings = read_settings(config, database_url=database_url)
    permissions = Permissions(said[0].mode, known_models(settings, said[0].model_ids))
    change = a_change(system_clock())
    level = run_script(settings, partial(_permit, change, name, named, permissions))
    facts = {
        "level": level.name,
        "id": level.id,
        "mode": permissions.mode,
        "model_ids": list(permissions.model_ids),
    }
    text = f"the {level.name} {level.id} may ask for {in_words(permissions)}"
    show_facts(facts, text=text, as_json=as_json)


def _permit(change: Change, name: str, named: str, permissions: Permissions) -> Script[Level]:
    level = yield from existing_level(name, named)
    yield from set_permissions(change, level, permissions)
    return level


def known_models(settings: Settings, named: tuple[str, ...]) -> tuple[str, ...]:
    """Return the ids of the models that are named, by id or alias.

    Raises:
        click.UsageError: the catalogue of the settings has no such model.
    """
    try:
        catalogue = load_catalogue(settings)
    except SettingsError as error:
        raise WrongSettings(error) from error
    names = {
        name: model.id for model in catalogue.models.values() for name in (model.id, *model.aliases)
    }
    unknown = [name for name in named if name not in names]
    if unknown:
        raise click.UsageError(
            f"the catalogue has no {', '.join(map(repr, unknown))}; it has: {', '.join(names)}"
        )
    return tuple(dict.fromkeys(names[name] for name in named))


def in_words(permissions: Permissions) -> str:
    """Return what may be asked for, as people say it."""
    ids = ", ".join(permissions.model_ids)
    if permissions.mode == ALLOW:
        return f"only {ids}"
    return "all models" if permissions == EVERYTHING else f"all models but {ids}"
