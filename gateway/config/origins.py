"""Where was each setting said? For people who look for why a value is what it is."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, NamedTuple

from gateway.config.reading import PREFIX, variable_of
from gateway.config.settings import Settings, settings_fields
from gateway.config.upstreams import UpstreamConfig

DEFAULT = "default"


class Said(NamedTuple):
    """One setting in force: its name (upstreams.studio.base_url), its value, where it was said."""

    name: str
    value: Any
    secret: bool
    origin: str


def said(settings: Settings, *, file: Path | None, environ: Mapping[str, str]) -> Iterator[Said]:
    """Yield every setting of `settings`, which were read from this file and this environment."""
    document = {} if file is None else tomllib.loads(file.read_text(encoding="utf-8"))
    for one in settings_fields():
        variable = f"{PREFIX}{one.name.upper()}"
        origin = _origin(one, document, str(file), variable, environ)
        yield Said(one.name, getattr(settings, one.name), one.metadata["secret"], origin)
    for upstream in settings.upstreams:
        table = document["upstreams"][upstream.name]
        for one in fields(UpstreamConfig):
            if one.metadata:
                secret = one.metadata["secret"]
                variable = variable_of(upstream.name, one.name) if secret else ""
                origin = _origin(one, table, str(file), variable, environ)
                value = getattr(upstream, one.name)
                yield Said(f"upstreams.{upstream.name}.{one.name}", value, secret, origin)


def _origin(
    one: "Field[Any]",
    table: Mapping[str, Any],
    file: str,
    variable: str,
    environ: Mapping[str, str],
) -> str:
    # In the order in which one counts more than the next; see reading.py.
    from_file = one.metadata["from_file"]
    names = [variable, f"{variable}_FILE"] if from_file else [variable]
    # Of a setting that is in both, the file that is named wins: it is read later.
    for name in reversed(names):
        if name in environ:
            return name
    found = [name for name in table if name in {one.name, f"{one.name}_file"}]
    return f"{file}: {found[-1]}" if found else DEFAULT
