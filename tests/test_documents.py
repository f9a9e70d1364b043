"""Do the documents say what is true?"""

import re
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any

import click

from gateway import errors
from gateway.alerts import deliver
from gateway.cli.root import main
from gateway.config import PREFIX, UpstreamConfig, settings_fields
from gateway.mirror import retention, turn
from gateway.telemetry.metrics.log import ALARMS
from gateway.videos import poller, submit

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")
MAP = (ROOT / "gateway" / "README.md").read_text(encoding="utf-8")


def settings_table() -> str:
    rows = [
        "| setting (TOML) | environment | default | |",
        "|---|---|---|---|",
    ]
    for one in settings_fields():
        variable = f"`{PREFIX}{one.name.upper()}`"
        if one.metadata["from_file"]:
            variable += ", `…_FILE`"
        rows.append(f"| `{one.name}` | {variable} | {_default(one)} | {one.metadata['help']} |")
    return "\n".join(rows)


def upstream_table() -> str:
    rows = ["| setting (TOML, per upstream) | default | |", "|---|---|---|"]
    rows += [
        f"| `{one.name}` | {_default(one)} | {one.metadata['help']} |"
        for one in fields(UpstreamConfig)
        if one.metadata
    ]
    return "\n".join(rows)


def _default(one: Any) -> str:
    if one.metadata["secret"] or one.default == "":
        return ""
    if isinstance(one.default, bool):
        return f"`{str(one.default).lower()}`"
    if isinstance(one.default, tuple):
        return ", ".join(f"`{value}`" for value in one.default)
    return f"`{one.default}`"


def _table(name: str) -> str:
    found = re.search(rf"<!-- table: {name} -->\n(.*?)\n<!-- end: {name} -->", README, re.DOTALL)
    assert found is not None
    return found[1]


def _commands(group: click.Group, above: str = "") -> Iterator[str]:
    for name, command in group.commands.items():
        if isinstance(command, click.Group):
            yield from _commands(command, f"{above}{name} ")
        else:
            yield f"{above}{name}"


def _error_classes() -> set[type[errors.GatewayError]]:
    return {
        found
        for found in vars(errors).values()
        if isinstance(found, type)
        and issubclass(found, errors.GatewayError)
        and not found.__name__.startswith("_")
    }


def test_every_setting_is_in_the_readme_as_it_is() -> None:
    assert _table("settings") == settings_table()
    assert _table("upstream settings") == upstream_table()


def test_every_command_is_in_the_readme() -> None:
    missing = [name for name in _commands(main) if f"`{name}`" not in README]
    assert [one for one in missing if f"video-gateway {one}" not in README] == []


def test_every_command_the_readme_names_exists() -> None:
    named = set(re.findall(r"video-gateway ([a-z][a-z-]*(?: [a-z]+)?)", README))
    known = set(_commands(main))
    assert {one for one in named if one not in known and one.split()[0] not in known} == set()


def test_every_error_code_of_ours_is_in_the_readme() -> None:
    own = {one.code for one in _error_classes()} - {None, "internal_error", "method_not_allowed"}
    assert {code for code in own if f"`{code}`" not in README} == set()


def test_every_alarm_is_in_the_readme_and_the_reverse() -> None:
    # An alarm whose name is no plain text is found as "", which is in no README.
    alarm = re.compile(r'log\.(?:error|exception|critical)\((?:\s*"([a-z_]+)")?')
    raised = {
        event
        for path in (ROOT / "gateway").rglob("*.py")
        for event in alarm.findall(path.read_text(encoding="utf-8"))
    }
    paragraph = README.split("**Alarms**")[1].split("\n\n")[0]
    assert set(re.findall(r"`([a-z_]+_[a-z_]+)`", paragraph)) == raised == set(ALARMS)


def test_every_step_is_in_the_map() -> None:
    steps = {*submit.STEPS, *poller.STEPS, *turn.STEPS, *retention.STEPS, *deliver.STEPS}
    assert set(re.findall(r"`((?:submit|poll|mirror|retention|alert)\.[a-z]+)`", MAP)) == steps


def test_every_file_the_map_names_exists() -> None:
    for name in re.findall(r"`([a-z_]+/(?:[a-z_]+\.py)?)`", MAP):
        assert (ROOT / "gateway" / name).exists(), name
