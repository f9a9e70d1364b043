"""What does a file with every setting look like?"""

import json
import textwrap
from collections.abc import Iterator
from dataclasses import Field, fields
from typing import Any, Final

from gateway.config.settings import settings_fields
from gateway.config.upstreams import UpstreamConfig

_WIDTH: Final = 100
_HEAD: Final = """\
# Settings of video-gateway: all of them, each with its default. Take the # away in front of what
# you change. The environment counts more than this file (GATEWAY_PORT for port). A secret, and what
# says so, may be read from a file instead: upstream_api_key_file = "/run/secrets/upstream_api_key".
"""
_UPSTREAM_HEAD: Final = """
# Another upstream, one such table for each; the catalogue's `upstream` says which model goes there.
#[upstreams.studio]
"""


def sample_toml() -> str:
    """Return a TOML file in which every setting stands with its default, behind a #."""
    lines = [*_lines(list(settings_fields()))]
    of_upstreams = [*_lines([one for one in fields(UpstreamConfig) if one.metadata])]
    return _HEAD + "".join(lines) + _UPSTREAM_HEAD + "".join(of_upstreams)


def _lines(settings: "list[Field[Any]]") -> Iterator[str]:
    for one in settings:
        text = one.metadata["help"]
        if one.metadata["from_file"]:
            text += f"; or {one.name}_file"
        comment = textwrap.fill(text, _WIDTH, initial_indent="# ", subsequent_indent="# ")
        yield f"\n{comment}\n#{one.name} = {_toml(one.default)}\n"


def _toml(value: Any) -> str:
    # What JSON writes of texts, numbers, booleans and lists of texts is TOML, too.
    return json.dumps(list(value) if isinstance(value, tuple) else value, ensure_ascii=False)
