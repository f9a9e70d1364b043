"""Where does each setting come from?

Defaults < TOML file < environment < flags, and every mistake is reported at once, by the name it
was set under. A setting `poll_interval_seconds` is `poll_interval_seconds = 10` in the file,
`GATEWAY_POLL_INTERVAL_SECONDS` in the environment and `--poll-interval-seconds` on the command
line; a secret is never a flag, and can also be read from a file (`GATEWAY_UPSTREAM_API_KEY_FILE`,
`upstream_api_key_file`).
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, fields
from pathlib import Path
from typing import Any, Final

from gateway.billing.catalogue import DEFAULT_UPSTREAM
from gateway.config.checks import database, mail, serving, several
from gateway.config.settings import Settings, settings_fields
from gateway.config.upstreams import UpstreamConfig

PREFIX: Final = "GATEWAY_"
# How the settings of the upstream without a table begin.
_OF_UPSTREAM: Final = "upstream_"
_UPSTREAM_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")
_UPSTREAM_SECRETS: Final = tuple(
    one.name for one in fields(UpstreamConfig) if one.metadata and one.metadata["secret"]
)
_KINDS: Final = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    tuple: "a list of texts",
}


class SettingsError(Exception):
    """Settings are unknown or wrong; `problems` lists all of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def load(
    *,
    file: Path | None,
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    serving: bool,
) -> Settings:
    """Return the settings in force.

    Args:
        file: the TOML file, or None.
        environ: the environment; only names that begin with GATEWAY_ are looked at.
        flags: given on the command line, by setting name; None means not given.
        serving: whether the upstreams will be called, so that their keys must be there.

    Raises:
        SettingsError: with every problem found.
    """
    problems: list[str] = []
    document = _document(file, problems)
    unread = bool(problems)
    tables = document.pop("upstreams", {})
    if not isinstance(tables, dict):
        problems.append(f"{file}: upstreams must be tables [upstreams.NAME]")
        tables = {}
    if DEFAULT_UPSTREAM in tables:
        problems += _hidden(document, environ, flags, file=file)
    values = _read(Settings, document, where=str(file), problems=problems)
    values |= _environment(environ, tables, problems)
    values |= {name: value for name, value in flags.items() if value is not None}
    values["upstreams"] = tuple(_upstreams(tables, environ, problems))
    settings = Settings(**values)
    _check(settings, "", problems)
    problems += [problem for problem in _together(settings) if problem is not None]
    # A key may stand in the very file that could not be read.
    if serving and not unread:
        problems += [
            f"the upstream {one.name!r} has no key: set {variable_of(one.name, 'api_key')}, or"
            f" {variable_of(one.name, 'api_key')}_FILE"
            for one in settings.all_upstreams()
            if not one.api_key
        ]
    if problems:
        raise SettingsError(problems)
    return settings


def _together(settings: Settings) -> Iterator[str | None]:
    yield database(
        database_url=settings.database_url,
        password=settings.database_password,
        direct_url=settings.database_direct_url,
    )
    yield several(workers=settings.workers, database_url=settings.database_url)
    yield mail(smtp_host=settings.smtp_host, smtp_from=settings.smtp_from)
    yield serving(
        store_url=settings.store_url,
        front_server=settings.front_server,
        redirect_seconds=settings.store_redirect_seconds,
    )


def _document(file: Path | None, problems: list[str]) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"{file}: {error}")
        return {}


def _hidden(
    document: Mapping[str, Any],
    environ: Mapping[str, str],
    flags: Mapping[str, Any],
    *,
    file: Path | None,
) -> Iterator[str]:
    """Yield a problem per setting of the default upstream that its table would make void."""
    # By variables the secrets are set of an upstream with a table, too.
    found = {f"{file}: {name}": name for name in document}
    for one in settings_fields():
        variable = f"{PREFIX}{one.name.upper()}"
        if variable in environ and not one.metadata["secret"]:
            found[variable] = one.name
        if flags.get(one.name) is not None:
            found[f"--{one.name.replace('_', '-')}"] = one.name
    for where, name in found.items():
        if name.startswith(_OF_UPSTREAM):
            own = name.removeprefix(_OF_UPSTREAM)
            yield f"{where} would be ignored: set {own} in the table [upstreams.{DEFAULT_UPSTREAM}]"


def _read(
    record: type, table: Mapping[str, Any], *, where: str, problems: list[str]
) -> dict[str, Any]:
    known = {one.name: one for one in fields(record) if one.metadata}
    values: dict[str, Any] = {}
    for name, value in table.items():
        plain = name.removesuffix("_file")
        if name in known:
            _keep(values, known[name], value, where=f"{where}: {name}", problems=problems)
        elif plain in known and known[plain].metadata["from_file"]:
            _keep_secret(values, plain, str(value), where=f"{where}: {name}", problems=problems)
        else:
            problems.append(f"{where}: unknown setting {name!r}")
    return values


def _environment(
    environ: Mapping[str, str], tables: Mapping[str, Any], problems: list[str]
) -> dict[str, Any]:
    known = {f"{PREFIX}{one.name.upper()}": one for one in settings_fields()}
    of_upstreams = {variable_of(name, secret) for name in tables for secret in _UPSTREAM_SECRETS}
    values: dict[str, Any] = {}
    for variable, text in sorted(environ.items()):
        plain = variable.removesuffix("_FILE")
        if not variable.startswith(PREFIX) or variable == f"{PREFIX}CONFIG":
            continue
        if variable in known:
            one = known[variable]
            _keep(values, one, _parsed(one, text.strip()), where=variable, problems=problems)
        elif plain in known and known[plain].metadata["from_file"]:
            _keep_secret(values, known[plain].name, text, where=variable, problems=problems)
        elif plain not in of_upstreams:
            problems.append(f"unknown setting {variable}")
    return values


def _upstreams(
    tables: Mapping[str, Any], environ: Mapping[str, str], problems: list[str]
) -> Iterator[UpstreamConfig]:
    for name, table in tables.items():
        where = f"upstreams.{name}"
        if not _UPSTREAM_NAME.fullmatch(name) or not isinstance(table, dict):
            problems.append(f"{where}: must be a table; its name small letters, digits and _")
            continue
        values = _read(UpstreamConfig, table, where=where, problems=problems)
        for secret in _UPSTREAM_SECRETS:
            variable = variable_of(name, secret)
            if variable in environ:
                values[secret] = environ[variable].strip()
            if f"{variable}_FILE" in environ:
                path = environ[f"{variable}_FILE"]
                _keep_secret(values, secret, path, where=f"{variable}_FILE", problems=problems)
        upstream = UpstreamConfig(name=name, **values)
        _check(upstream, f"{where}.", problems)
        yield upstream


def variable_of(upstream: str, secret: str) -> str:
    """Return the name of the variable that holds a secret of an upstream."""
    name = "" if upstream == DEFAULT_UPSTREAM else f"{upstream.upper()}_"
    return f"{PREFIX}UPSTREAM_{name}{secret.upper()}"


def _keep(
    values: dict[str, Any], one: "Field[Any]", value: Any, *, where: str, problems: list[str]
) -> None:
    if isinstance(one.default, tuple) and isinstance(value, list):
        value = tuple(value) if all(isinstance(item, str) for item in value) else value
    if one.metadata["secret"] and isinstance(value, str):
        value = value.strip()  # pasted or piped, a secret often ends in a line break
    if type(value) is not type(one.default):
        problems.append(f"{where} must be {_KINDS[type(one.default)]}")
    else:
        values[one.name] = value


def _keep_secret(
    values: dict[str, Any], name: str, path: str, *, where: str, problems: list[str]
) -> None:
    try:
        values[name] = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        problems.append(f"{where}: {error}")


def _parsed(one: "Field[Any]", text: str) -> Any:
    if isinstance(one.default, bool):
        return {"true": True, "1": True, "false": False, "0": False}.get(text.lower(), text)
    if isinstance(one.default, tuple):
        return tuple(part.strip() for part in text.split(",") if part.strip())
    if isinstance(one.default, int):
        return int(text) if re.fullmatch(r"-?[0-9]{1,18}", text) else text
    return text


def _check(record: Settings | UpstreamConfig, where: str, problems: list[str]) -> None:
    for one in fields(record):
        if not one.metadata:
            continue
        value = getattr(record, one.name)
        least: int | None = one.metadata["least"]
        check: Callable[[Any], str | None] | None = one.metadata["check"]
        if least is not None and value < least:
            problems.append(f"{where}{one.name} must be at least {least}, not {value}")
        complaint = check(value) if check is not None else None
        if complaint is not None:
            problems.append(f"{where}{one.name} {complaint}")
