"""How is the gateway set up?

One frozen Settings, from defaults < TOML file < environment < flags. Every mistake is reported at
once, by the name it was set under, and then nothing starts. A setting `poll_interval_seconds` is
`poll_interval_seconds = 10` in the file, `GATEWAY_POLL_INTERVAL_SECONDS` in the environment and
`--poll-interval-seconds` on the command line; a secret is never a flag, and can also be read from a
file (`GATEWAY_UPSTREAM_API_KEY_FILE`, `upstream_api_key_file`).
"""

import re
import tomllib
from collections.abc import Callable, Iterator, Mapping
from dataclasses import Field, dataclass, field, fields
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from gateway.billing.catalogue import DEFAULT_UPSTREAM
from gateway.billing.keys import ADMIN, well_formed
from gateway.upstream.requests import OPERATIONS

PREFIX: Final = "GATEWAY_"
# What the relay documents; the other operations are a clear error there, not a forwarded surprise.
DOCUMENTED: Final = ("create", "retrieve", "content")
RELAY_BASE_URL: Final = "https://api.apiyi.com/v1"
DAY_SECONDS: Final = 86_400
MIB: Final = 1 << 20
_MAX_PORT: Final = 65_535
_UPSTREAM_NAME: Final = re.compile(r"[a-z][a-z0-9_]{0,31}")


class SettingsError(Exception):
    """Settings are unknown or wrong; `problems` lists all of them."""

    def __init__(self, problems: list[str]) -> None:
        super().__init__("; ".join(problems))
        self.problems = problems


def _setting(
    default: Any, text: str, *, least: int | None = None, secret: bool = False, check: Any = None
) -> Any:
    metadata = {"help": text, "least": least, "secret": secret, "check": check}
    return field(default=default, metadata=metadata, repr=not secret)


def _http_url(value: str) -> str | None:
    complaint = "must be an http(s) URL such as https://api.apiyi.com/v1"
    try:
        parts = urlsplit(value)
        _ = parts.port  # raises where it is no port
    except ValueError:
        return complaint
    if parts.scheme not in {"http", "https"} or not parts.hostname or parts.query or parts.fragment:
        return complaint
    return None


def _port(value: int) -> str | None:
    return None if value <= _MAX_PORT else f"must be at most {_MAX_PORT}, not {value}"


def _database_url(value: str) -> str | None:
    path = value.removeprefix("sqlite:///")
    if path not in {value, "", ":memory:"}:
        return None
    return "must be sqlite:///relative/path or sqlite:////absolute/path"


def _store_url(value: str) -> str | None:
    try:
        parts = urlsplit(value)
    except ValueError:
        parts = urlsplit("")
    if parts.scheme == "file" and not parts.netloc and parts.path.strip("/"):
        return None
    return "must be file:///absolute/path or file:relative/path"


def _log_format(value: str) -> str | None:
    return None if value in {"auto", "json", "console"} else "must be auto, json or console"


def _operations(value: tuple[str, ...]) -> str | None:
    unknown = [one for one in value if one not in OPERATIONS]
    return f"has unknown operations: {', '.join(map(repr, unknown))}" if unknown else None


def _admin_key(value: str) -> str | None:
    if not value or well_formed(value, ADMIN):
        return None
    return "is not an admin key: vga_ and 36 letters and digits, the last six a checksum"


@dataclass(frozen=True, slots=True)
class UpstreamConfig:
    """One upstream, `[upstreams.NAME]` in the file. The setting names are those of the file."""

    name: str = DEFAULT_UPSTREAM
    base_url: str = _setting(RELAY_BASE_URL, "where it is, with /v1", check=_http_url)
    api_key: str = _setting("", "the upstream key", secret=True)
    post_seconds: int = _setting(120, "deadline for the answer to a POST", least=1)
    retention_seconds: int = _setting(
        DAY_SECONDS, "how long it keeps content when its object does not say", least=0
    )
    offers: tuple[str, ...] = _setting(
        DOCUMENTED, f"what it has, of {', '.join(OPERATIONS)}", check=_operations
    )
    pass_unknown_parameters: bool = _setting(
        default=False, text="forward unknown parameters of a create instead of refusing them"
    )
    bad_gateway_is_refusal: bool = _setting(
        default=False, text="a 502 means that nothing was executed"
    )
    unknown_codes: tuple[str, ...] = _setting(
        ("write_response_body_failed",),
        "error codes of a 500 or 503 after which the outcome is unknown all the same",
    )


@dataclass(frozen=True, slots=True)
class Settings:
    """Everything an operator can set. Secrets are not in the repr."""

    host: str = _setting("127.0.0.1", "address the API listens on")
    port: int = _setting(8080, "port of the API; 0 takes a free one", least=0, check=_port)
    ops_host: str = _setting("127.0.0.1", "address the ops port listens on")
    ops_port: int = _setting(9090, "port for health; 0 takes a free one", least=0, check=_port)
    database_url: str = _setting(
        "sqlite:///data/gateway.db", "where records live", check=_database_url
    )
    store_url: str = _setting("file:data/content", "where content lives", check=_store_url)
    upstream_base_url: str = _setting(RELAY_BASE_URL, "the upstream, with /v1", check=_http_url)
    upstream_api_key: str = _setting("", "the upstream key", secret=True)
    upstream_post_seconds: int = _setting(
        120, "deadline for the upstream's answer to a POST, from the last body byte", least=1
    )
    upstream_offers: tuple[str, ...] = _setting(
        DOCUMENTED, f"what the upstream has, of {', '.join(OPERATIONS)}", check=_operations
    )
    admin_key: str = _setting(
        "", "first key of the admin API (vga_…)", secret=True, check=_admin_key
    )
    catalogue: str = _setting("", "path of a catalogue that replaces the packaged one")
    disclose_budgets: bool = _setting(
        default=False, text="key holders see the organization's budget figures in refusals"
    )
    poll_interval_seconds: int = _setting(10, "between two polls of one video", least=1)
    poll_concurrency: int = _setting(64, "polls under way at once", least=1)
    patience_seconds: int = _setting(
        DAY_SECONDS, "after which a video without an end becomes an orphan", least=1
    )
    mirror_concurrency: int = _setting(4, "downloads under way at once", least=1)
    max_content_bytes: int = _setting(2048 * MIB, "longest content that is mirrored", least=1)
    content_wait_seconds: int = _setting(
        20, "how long a download waits for the mirror before it is told to come again", least=0
    )
    max_body_bytes: int = _setting(32 * MIB, "longest request body", least=1)
    upload_idle_seconds: int = _setting(30, "longest silence while a body is sent", least=1)
    reply_seconds: int = _setting(
        10, "how long a client waits for the record once the upstream has answered", least=1
    )
    shutdown_seconds: int = _setting(150, "how long SIGTERM waits for what is in flight", least=0)
    log_format: str = _setting("auto", "json, console, or auto by terminal", check=_log_format)
    upstreams: tuple[UpstreamConfig, ...] = field(default=(), repr=True)

    def all_upstreams(self) -> tuple[UpstreamConfig, ...]:
        """Return the upstreams: the one of the two variables, unless the file names it itself."""
        if any(one.name == DEFAULT_UPSTREAM for one in self.upstreams):
            return self.upstreams
        default = UpstreamConfig(
            base_url=self.upstream_base_url,
            api_key=self.upstream_api_key,
            post_seconds=self.upstream_post_seconds,
            offers=self.upstream_offers,
        )
        return (default, *self.upstreams)

    @property
    def database_path(self) -> Path:
        """The SQLite file."""
        return Path(self.database_url.removeprefix("sqlite:///"))

    @property
    def store_path(self) -> Path:
        """The folder for content."""
        return Path(urlsplit(self.store_url).path)


def settings_fields() -> Iterator["Field[Any]"]:
    """Yield the fields that are settings of their own (not the upstream tables)."""
    return (one for one in fields(Settings) if one.name != "upstreams")


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
    values = _read(Settings, document, where=str(file), problems=problems)
    values |= _environment(environ, tables, problems)
    values |= {name: value for name, value in flags.items() if value is not None}
    values["upstreams"] = tuple(_upstreams(tables, environ, problems))
    settings = Settings(**values)
    _check(settings, "", problems)
    # A key may stand in the very file that could not be read.
    if serving and not unread:
        problems += [
            f"the upstream {one.name!r} has no key: set {_key_variable(one.name)}, or"
            f" {_key_variable(one.name)}_FILE"
            for one in settings.all_upstreams()
            if not one.api_key
        ]
    if problems:
        raise SettingsError(problems)
    return settings


def _document(file: Path | None, problems: list[str]) -> dict[str, Any]:
    if file is None:
        return {}
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        problems.append(f"{file}: {error}")
        return {}


def _read(
    record: type, table: Mapping[str, Any], *, where: str, problems: list[str]
) -> dict[str, Any]:
    known = {one.name: one for one in fields(record) if one.metadata}
    values: dict[str, Any] = {}
    for name, value in table.items():
        plain = name.removesuffix("_file")
        if name in known:
            _keep(values, known[name], value, where=f"{where}: {name}", problems=problems)
        elif plain in known and known[plain].metadata["secret"]:
            _keep_secret(values, plain, str(value), where=f"{where}: {name}", problems=problems)
        else:
            problems.append(f"{where}: unknown setting {name!r}")
    return values


def _environment(
    environ: Mapping[str, str], tables: Mapping[str, Any], problems: list[str]
) -> dict[str, Any]:
    known = {f"{PREFIX}{one.name.upper()}": one for one in settings_fields()}
    upstream_keys = {_key_variable(name) for name in tables if name != DEFAULT_UPSTREAM}
    values: dict[str, Any] = {}
    for variable, text in sorted(environ.items()):
        plain = variable.removesuffix("_FILE")
        if not variable.startswith(PREFIX) or variable == f"{PREFIX}CONFIG":
            continue
        if variable in known:
            one = known[variable]
            _keep(values, one, _parsed(one, text), where=variable, problems=problems)
        elif plain in known and known[plain].metadata["secret"]:
            _keep_secret(values, known[plain].name, text, where=variable, problems=problems)
        elif plain not in upstream_keys:
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
        variable = _key_variable(name)
        if variable in environ:
            values["api_key"] = environ[variable]
        if f"{variable}_FILE" in environ:
            path = environ[f"{variable}_FILE"]
            _keep_secret(values, "api_key", path, where=f"{variable}_FILE", problems=problems)
        upstream = UpstreamConfig(name=name, **values)
        _check(upstream, f"{where}.", problems)
        yield upstream


def _key_variable(upstream: str) -> str:
    if upstream == DEFAULT_UPSTREAM:
        return f"{PREFIX}UPSTREAM_API_KEY"
    return f"{PREFIX}UPSTREAM_{upstream.upper()}_API_KEY"


def _keep(
    values: dict[str, Any], one: "Field[Any]", value: Any, *, where: str, problems: list[str]
) -> None:
    if isinstance(one.default, tuple) and isinstance(value, list):
        value = tuple(value) if all(isinstance(item, str) for item in value) else value
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


_KINDS: Final = {
    str: "a text",
    int: "a whole number",
    bool: "true or false",
    tuple: "a list of texts",
}
