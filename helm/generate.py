"""Which values does the chart take? Writes what the chart says of its values, and of the settings.

    python helm/generate.py            writes values.schema.json and the table in README.md
    python helm/generate.py --check    ends with 1, and the names, if one of them is out of date

Names, defaults and comments come from values.yaml, the settings from the program itself.
"""  # noqa: INP001 - a program, in no package

import json
import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any, Final, NamedTuple

import yaml

from gateway.config import PREFIX, UpstreamConfig, settings_fields

CHART: Final = Path(__file__).parent / "video-gateway"
# The chart sets these from values of its own.
OF_THE_CHART: Final = frozenset({"migrate_at_start", "catalogue"})
# A key that has such names below it takes others too: they are Kubernetes' own.
OPEN: Final = (
    *("commonLabels", "podSecurityContext", "securityContext", "resources"),
    "metrics.dashboards.labels",
)
_OBJECTS: Final = {"type": "array", "items": {"type": "object"}}
_SECONDS: Final = {"type": "integer", "minimum": 0}
_TEXT: Final = {"type": "string", "minLength": 1}
_FROM: Final = {
    "type": "object",
    "additionalProperties": False,
    "anyOf": [{"required": ["secretName", "key"]}, {"required": ["file"]}],
    "properties": {
        "secretName": _TEXT,
        "key": _TEXT,
        "file": {"type": "string", "pattern": "^/"},
    },
}
_TEXTS: Final = {"type": "array", "items": _TEXT}
_QUANTITY: Final = {"type": ["string", "number"]}
# A label of RFC 1035, as Services have to have it, or nothing. A digit first would be one of RFC
# 1123, but YAML takes a name of digits for a number.
_NAME: Final = {"pattern": "^([a-z]([-a-z0-9]*[a-z0-9])?)?$"}
# What a default does not tell about a value.
NARROWER: Final[Mapping[str, Mapping[str, Any]]] = {
    "nameOverride": _NAME,
    "fullnameOverride": _NAME,
    "image.digest": {"pattern": "^(sha256:[0-9a-f]{64})?$"},
    "image.pullPolicy": {"enum": ["Always", "IfNotPresent", "Never"]},
    "replicaCount": {"minimum": 1},
    "persistence.accessModes": _TEXTS,
    "migration.deadlineSeconds": {"minimum": 1},
    "service.type": {"enum": ["ClusterIP", "NodePort", "LoadBalancer"]},
    "service.port": {"minimum": 1, "maximum": 65535},
    "ingress.hosts": _TEXTS,
    "ingress.paths": {**_TEXTS, "minItems": 1},
    "httpRoute.hostnames": _TEXTS,
    "httpRoute.paths": {**_TEXTS, "minItems": 1},
    "autoscaling.minReplicas": {"minimum": 1},
    "autoscaling.maxReplicas": {"minimum": 1},
    "autoscaling.targetCPUUtilizationPercentage": {"minimum": 0},
    "podDisruptionBudget.maxUnavailable": {"type": ["integer", "string"]},
    "securityContext.capabilities.drop": _TEXTS,
    "resources.requests.cpu": _QUANTITY,
    "resources.requests.memory": _QUANTITY,
    "resources.requests.ephemeral-storage": _QUANTITY,
    "resources.limits.memory": _QUANTITY,
    "preStopSeconds": _SECONDS,
    "terminationGracePeriodSeconds": _SECONDS,
    **{
        f"networkPolicy.{name}Ports": {
            "type": "array",
            "items": {"type": "integer", "minimum": 1, "maximum": 65535},
        }
        for name in ("upstream", "database", "store")
    },
}


class Value(NamedTuple):
    """One key of values.yaml; a key that others are below has its own comment, or none."""

    path: str
    comment: str
    default: Any


def values() -> Iterator[Value]:
    """Yield every key, in order, with the comment above it."""
    text = (CHART / "values.yaml").read_text(encoding="utf-8")
    document = yaml.safe_load(text)
    above: list[str] = []
    path: list[str] = []
    for line in text.splitlines():
        comment = re.fullmatch(r" *# (.*)", line)
        key = re.match(r"( *)([A-Za-z_-]+):( |$)", line)
        if comment:
            above.append(comment[1])
        elif key and "- " not in line[: key.end()]:
            path = [*path[: len(key[1]) // 2], key[2]]
            default = document
            for name in path:
                default = default.get(name) if isinstance(default, dict) else None
            if default is not None:
                yield Value(".".join(path), " ".join(above), default)
            above = []
        elif not line:
            above = []


def schema() -> dict[str, Any]:
    """Return the JSON schema of all values."""
    root: dict[str, Any] = {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart video-gateway",
        "type": "object",
        "additionalProperties": False,
        # What a chart that has this one below it passes on.
        "properties": {"global": {"type": "object"}},
    }
    for one in values():
        *above, name = one.path.split(".")
        if one.path in _GENERATED:
            root["properties"][name] = {"description": one.comment, **_GENERATED[one.path]()}
        elif one.path.partition(".")[0] not in _GENERATED:
            parent = root
            for key in above:
                parent = parent["properties"][key]
            parent["properties"][name] = _value_schema(one)
    return root


def _value_schema(one: Value) -> dict[str, Any]:
    found: dict[str, Any] = {"description": one.comment} if one.comment else {}
    if isinstance(one.default, dict):
        found["type"] = "object"
        if one.default:
            found["additionalProperties"] = one.path.startswith(OPEN)
            found["properties"] = {}
    elif isinstance(one.default, list):
        found |= _OBJECTS
    else:
        found["type"] = {bool: "boolean", int: "integer", str: "string"}[type(one.default)]
    return {**found, **NARROWER.get(one.path, {})}


def _setting_schema(one: Any) -> dict[str, Any]:
    found: dict[str, Any] = {"description": one.metadata["help"]}
    if isinstance(one.default, tuple):
        return found | _TEXTS
    found["type"] = {bool: "boolean", int: "integer", str: "string"}[type(one.default)]
    if one.metadata["least"] is not None:
        found["minimum"] = one.metadata["least"]
    return found


def _settings() -> dict[str, Any]:
    shown = {
        one.name: _setting_schema(one)
        for one in settings_fields()
        if not one.metadata["secret"] and one.name not in OF_THE_CHART
    }
    return {"type": "object", "additionalProperties": False, "properties": shown}


def _secrets() -> dict[str, Any]:
    names = [one.name for one in settings_fields() if one.metadata["from_file"]]
    return {
        "type": "object",
        "additionalProperties": False,
        "properties": dict.fromkeys(names, _FROM),
    }


def _upstreams() -> dict[str, Any]:
    known = [one for one in fields(UpstreamConfig) if one.metadata]
    secrets = {one.name: _FROM for one in known if one.metadata["secret"]}
    properties: dict[str, Any] = {
        one.name: _setting_schema(one) for one in known if not one.metadata["secret"]
    }
    properties["secrets"] = {
        "type": "object",
        "additionalProperties": False,
        "properties": secrets,
    }
    table = {"type": "object", "additionalProperties": False, "properties": properties}
    return {
        "type": "object",
        "additionalProperties": False,
        "patternProperties": {"^[a-z][a-z0-9_]{0,31}$": table},
    }


def _extra_env() -> dict[str, Any]:
    names = [one.name.upper() for one in settings_fields() if one.metadata["secret"]]
    names += [
        f"UPSTREAM_[A-Z0-9_]+_{one.name.upper()}"
        for one in fields(UpstreamConfig)
        if one.metadata and one.metadata["secret"]
    ]
    a_secret = {
        "required": ["value"],
        "properties": {"name": {"pattern": f"^{PREFIX}({'|'.join(names)})$"}},
    }
    return {"type": "array", "items": {"type": "object", "required": ["name"], "not": a_secret}}


_GENERATED: Final = {
    "settings": _settings,
    "secrets": _secrets,
    "upstreams": _upstreams,
    "extraEnv": _extra_env,
}


def table() -> str:
    """Return the table of README.md: every value that has none below it, and every comment."""
    rows = ["| value | default | |", "|---|---|---|"]
    for one in values():
        below = isinstance(one.default, dict) and one.default
        if below and not one.comment:
            continue
        default = "" if below or one.default == "" else f"`{json.dumps(one.default)}`"
        rows.append(f"| `{one.path}` | {default} | {one.comment.replace('|', chr(92) + '|')} |")
    return "\n".join(rows)


def files() -> dict[Path, str]:
    """Return what each generated file should hold."""
    readme = CHART / "README.md"
    begin, end = "<!-- table: values -->\n", "\n<!-- end: values -->"
    before, _, rest = readme.read_text(encoding="utf-8").partition(begin)
    after = rest.partition(end)[2]
    return {
        CHART / "values.schema.json": json.dumps(schema(), indent=2, ensure_ascii=False) + "\n",
        readme: f"{before}{begin}{table()}{end}{after}",
    }


def main(arguments: list[str]) -> int:
    """Write the files, or say which are out of date."""
    stale = [
        path
        for path, text in files().items()
        if not path.exists() or path.read_text(encoding="utf-8") != text
    ]
    for path in stale:
        sys.stdout.write(f"{path.name} is out of date: run python helm/generate.py\n")
        if "--check" not in arguments:
            path.write_text(files()[path], encoding="utf-8")
    return int(bool(stale) and "--check" in arguments)


if __name__ == "__main__":
    raise SystemExit(main(sys.argv[1:]))
