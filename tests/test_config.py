"""Is every setting taken from where it should be, and every mistake told at once?"""

import base64
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest

from gateway.billing.key_values import ADMIN, VIRTUAL, new_value
from gateway.config import (
    PREFIX,
    RELAY_BASE_URL,
    Settings,
    SettingsError,
    UpstreamConfig,
    load,
    settings_fields,
)

SECRET = "sk-upstream-secret"
WEBHOOK_SECRET = f"whsec_{base64.b64encode(bytes(24)).decode()}"


def settings(
    *,
    file: Path | None = None,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, Any] | None = None,
    serving: bool = False,
) -> Settings:
    return load(file=file, environ=environ or {}, flags=flags or {}, serving=serving)


def problems(**given: Any) -> list[str]:
    with pytest.raises(SettingsError) as caught:
        settings(**given)
    return caught.value.problems


def toml(folder: Path, text: str) -> Path:
    file = folder / "gateway.toml"
    file.write_text(text, encoding="utf-8")
    return file


def test_without_any_setting_the_defaults_are_in_force() -> None:
    assert settings() == Settings()
    assert settings().upstream_base_url == RELAY_BASE_URL


def test_a_flag_wins_over_the_environment_which_wins_over_the_file(tmp_path: Path) -> None:
    text = "port = 1\nops_port = 1\npoll_interval_seconds = 1"
    found = settings(
        file=toml(tmp_path, text),
        environ={"GATEWAY_PORT": "2", "GATEWAY_OPS_PORT": "2"},
        flags={"port": 3, "host": None},
    )
    assert (found.port, found.ops_port, found.poll_interval_seconds) == (3, 2, 1)
    assert (found.host, found.poll_concurrency) == ("127.0.0.1", 64)


SERVER = {"database_url": "postgresql://gateway@pooler.internal/gateway"}


@pytest.mark.parametrize("name", [one.name for one in settings_fields()])
def test_every_setting_can_be_set_in_file_and_environment(tmp_path: Path, name: str) -> None:
    default = getattr(Settings(), name)
    texts = {
        "database_url": "sqlite:////tmp/other.db",
        "database_direct_url": "postgresql://gateway@db.internal/gateway",
        "store_url": "file:///tmp/content",
        "upstream_base_url": "http://localhost:9/v1",
        "upstream_account_url": "http://localhost:9",
        "admin_key": new_value(ADMIN),
        "budget_basis": "cost",
        "smtp_security": "tls",
        "alert_webhook_secret": WEBHOOK_SECRET,
        "log_format": "json",
        "smtp_from": "Alerts <alerts@example.org>",
        "front_server": "x-accel-redirect",
        "trace_url": "http://localhost:4318/v1/traces",
    }
    # What some of them need beside them.
    beside = {
        "smtp_host": {"smtp_from": "alerts@example.org"},
        "store_redirect_seconds": {"store_url": "s3://bucket/prefix"},
        "database_password": SERVER,
        "database_direct_url": SERVER,
        "workers": SERVER,
    }
    flags = beside.get(name, {})
    value: object
    if isinstance(default, bool):
        value, written = not default, str(not default).lower()
    elif isinstance(default, int):
        value = default - 1 if name == "trace_sample_ppm" else default + 1  # all of them at most
        written = str(value)
    elif isinstance(default, tuple):
        value, written = ("create", "remix"), '["create", "remix"]'
    else:
        value = texts.get(name, "other")
        written = f'"{value}"'
    file = toml(tmp_path, f"{name} = {written}")
    assert getattr(settings(file=file, flags=flags), name) == value
    text = ", ".join(value) if isinstance(value, tuple) else str(value)
    environ = {f"{PREFIX}{name.upper()}": text.lower() if value is True else text}
    assert getattr(settings(environ=environ, flags=flags), name) == value


@pytest.mark.parametrize("text", ["true", "1", "TRUE"])
def test_a_switch_is_turned_on_in_words_or_digits(text: str) -> None:
    assert settings(environ={"GATEWAY_DISCLOSE_BUDGETS": text}).disclose_budgets


def test_names_without_our_prefix_are_nobodys_business() -> None:
    assert settings(environ={"PORT": "x", "GATEWAY_CONFIG": "x", "HOME": "/"}) == Settings()


def test_every_problem_is_told_at_once_by_the_name_it_was_set_under(tmp_path: Path) -> None:
    file = toml(
        tmp_path,
        """
port = "80"
colour = "red"
patience_seconds = 0
upstream_api_key_file = "no/such/file"

[upstreams.Big]
[upstreams.other]
base_url = "other"
account_url = "other"
cost_multiplier_ppm = 0
post_seconds = true
shade = 1
unknown_codes = [1]
""",
    )
    environ = {
        "GATEWAY_PORTS": "1",
        "GATEWAY_POLL_CONCURRENCY": "many",
        "GATEWAY_DISCLOSE_BUDGETS": "yes",
        "GATEWAY_DATABASE_URL": "mysql://x",
        "GATEWAY_STORE_URL": "ftp://x",
        "GATEWAY_LOG_FORMAT": "xml",
        "GATEWAY_SMTP_HOST": "mail.example.org",
        "GATEWAY_SMTP_SECURITY": "ssl",
        "GATEWAY_BUDGET_BASIS": "lists",
        "GATEWAY_ALERT_WEBHOOK_SECRET": "whsec_x",
        "GATEWAY_ADMIN_KEY": new_value(VIRTUAL),
        "GATEWAY_UPSTREAM_NOBODY_API_KEY": "x",
    }
    found = problems(file=file, environ=environ, flags={"ops_port": -1}, serving=True)
    assert sorted(found) == sorted(
        [
            f"{file}: port must be a whole number",
            f"{file}: unknown setting 'colour'",
            f"{file}: upstream_api_key_file: [Errno 2] No such file or directory: 'no/such/file'",
            "patience_seconds must be at least 1, not 0",
            "ops_port must be at least 0, not -1",
            "unknown setting GATEWAY_PORTS",
            "unknown setting GATEWAY_UPSTREAM_NOBODY_API_KEY",
            "GATEWAY_POLL_CONCURRENCY must be a whole number",
            "GATEWAY_DISCLOSE_BUDGETS must be true or false",
            (
                "database_url must be sqlite:///relative/path, sqlite:////absolute/path or"
                " postgresql://user@host:port/name"
            ),
            (
                "store_url must be file:///absolute/path, file:relative/path, s3://bucket/prefix,"
                " gs://bucket/prefix or az://container/prefix"
            ),
            "log_format must be auto, json or console",
            "smtp_from must be set, because smtp_host is: an alert mail has a sender",
            "smtp_security must be starttls, tls or none",
            "budget_basis must be list or cost",
            "alert_webhook_secret must be whsec_ and base64 of 24 to 64 bytes",
            (
                "admin_key is not an admin key: vga_ and 36 letters and digits, the last six a"
                " checksum"
            ),
            "upstreams.Big: must be a table; its name small letters, digits and _",
            "upstreams.other.base_url must be an http(s) URL such as https://api.apiyi.com/v1",
            (
                "upstreams.other.account_url must be empty, or an http(s) URL such as"
                " https://api.apiyi.com"
            ),
            (
                "upstreams.other.cost_multiplier_ppm must be from 10000 to 100000000 (1 % to 100"
                " times), not 0"
            ),
            "upstreams.other: post_seconds must be a whole number",
            "upstreams.other: unknown setting 'shade'",
            "upstreams.other: unknown_codes must be a list of texts",
            (
                "the upstream 'default' has no key: set GATEWAY_UPSTREAM_API_KEY, or"
                " GATEWAY_UPSTREAM_API_KEY_FILE"
            ),
            (
                "the upstream 'other' has no key: set GATEWAY_UPSTREAM_OTHER_API_KEY, or"
                " GATEWAY_UPSTREAM_OTHER_API_KEY_FILE"
            ),
        ]
    )


@pytest.mark.parametrize("text", ["port = ", 'port = "', "\xff"])
def test_a_file_that_is_not_toml_is_one_problem_among_others(tmp_path: Path, text: str) -> None:
    file = tmp_path / "gateway.toml"
    file.write_bytes(text.encode("latin-1"))
    found = problems(file=file, environ={"GATEWAY_PORTS": "1"})
    assert found[0].startswith(f"{file}: ")
    assert found[1:] == ["unknown setting GATEWAY_PORTS"]


def test_a_file_that_is_not_there_is_a_problem(tmp_path: Path) -> None:
    (found,) = problems(file=tmp_path / "no.toml")
    assert "No such file or directory" in found


@pytest.mark.parametrize("value", ["5", '"x"', "[1]", "true"])
def test_upstreams_that_are_no_tables_are_a_problem(tmp_path: Path, value: str) -> None:
    file = toml(tmp_path, f"upstreams = {value}")
    assert problems(file=file) == [f"{file}: upstreams must be tables [upstreams.NAME]"]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *[("upstream_base_url", url) for url in ("", "api", "ftp://x", "http://", "http://[::1")],
        *[("upstream_base_url", url) for url in ("http://me@x", "http://me:secret@x/v1")],
        *[("upstream_base_url", url) for url in ("http://x:99999", "http://x/?a=1", "http://x/#a")],
        *[("database_url", url) for url in ("", "sqlite:///", "sqlite:///:memory:", "x.db")],
        *[("database_url", url) for url in ("postgresql://", "postgresql://h/", "mysql://h/x")],
        *[("database_direct_url", url) for url in ("x", "sqlite:///x.db", "postgresql://[::1/x")],
        *[("store_url", url) for url in ("", "file:", "file:///", "file://host/x", "file://[")],
        *[(port, value) for port in ("port", "ops_port") for value in (65_536, -1)],
        *[("log_format", "xml"), ("admin_key", "vga_x"), ("poll_interval_seconds", 0)],
        *[("upstream_account_url", url) for url in ("api", "ftp://x", "http://x/?a=1")],
        *[("upstream_cost_multiplier_ppm", value) for value in (0, -1, 1, 9_999, 100_000_001)],
        *[("smtp_from", value) for value in ("nobody", "Alerts", "a@", "a@b@c", "a b@example.org")],
        *[("budget_basis", ""), ("smtp_security", "STARTTLS"), ("read_requests_per_minute", -1)],
        *[("smtp_port", value) for value in (0, 65_536)],
        *[("trace_url", url) for url in ("on", "127.0.0.1:4318", "http://me:secret@collector/x")],
        *[("trace_sample_ppm", value) for value in (-1, 1_000_001)],
    ],
)
def test_a_value_that_cannot_work_is_refused_before_anything_starts(
    name: str, value: object
) -> None:
    (problem,) = problems(flags={name: value})
    assert problem.startswith(f"{name} ")


@pytest.mark.parametrize("size", [24, 64])
def test_a_webhook_secret_is_base64_of_24_to_64_bytes(size: int) -> None:
    secret = f"whsec_{base64.b64encode(bytes(range(size))).decode()}"
    assert settings(flags={"alert_webhook_secret": secret}).alert_webhook_secret == secret


@pytest.mark.parametrize(
    "secret",
    [
        "whsec_",
        WEBHOOK_SECRET.removeprefix("whsec_"),
        f"whsek_{base64.b64encode(bytes(24)).decode()}",
        f"whsec_{base64.b64encode(bytes(23)).decode()}",
        f"whsec_{base64.b64encode(bytes(65)).decode()}",
        f"whsec_{base64.b64encode(bytes(25)).decode().rstrip('=')}",
        f"whsec_{base64.urlsafe_b64encode(bytes([255] * 24)).decode()}",
        f"{WEBHOOK_SECRET}é",
        f"{WEBHOOK_SECRET} ",
    ],
)
def test_any_other_webhook_secret_is_refused_and_not_repeated(secret: str) -> None:
    assert problems(flags={"alert_webhook_secret": secret}) == [
        "alert_webhook_secret must be whsec_ and base64 of 24 to 64 bytes"
    ]


def test_mail_needs_a_sender_wherever_its_parts_are_set(tmp_path: Path) -> None:
    file = toml(tmp_path, 'smtp_host = "mail.example.org"')
    assert problems(file=file) == [
        "smtp_from must be set, because smtp_host is: an alert mail has a sender"
    ]
    found = settings(file=file, environ={"GATEWAY_SMTP_FROM": "alerts@example.org"})
    assert (found.smtp_host, found.smtp_from) == ("mail.example.org", "alerts@example.org")
    assert settings(flags={"smtp_from": "alerts@example.org"}).smtp_host == ""


def test_paths_are_read_from_their_urls() -> None:
    found = settings(flags={"database_url": "sqlite:////d/g.db", "store_url": "file:///d/c"})
    assert (found.database_path, found.store_path) == (Path("/d/g.db"), Path("/d/c"))
    assert Settings().database_path == Path("data/gateway.db")
    assert settings(flags={"database_url": "postgresql://db/gateway"}).database_path is None
    assert Settings().store_path == Path("data/content")


def test_a_secret_can_be_read_from_a_file(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text(f"{SECRET}\n", encoding="utf-8")
    environ = {"GATEWAY_UPSTREAM_API_KEY_FILE": str(secret)}
    assert settings(environ=environ, serving=True).upstream_api_key == SECRET
    file = toml(tmp_path, f'upstream_api_key_file = "{secret}"')
    assert settings(file=file, serving=True).upstream_api_key == SECRET


@pytest.mark.parametrize("name", ["database_url", "database_direct_url"])
def test_what_may_have_a_secret_in_it_can_be_read_from_a_file_and_is_not_shown(
    tmp_path: Path, name: str
) -> None:
    url = f"postgresql://gateway:{SECRET}@db.internal/gateway"
    file = tmp_path / "url"
    file.write_text(f"{url}\n", encoding="utf-8")
    server = {} if name == "database_url" else SERVER
    found = settings(environ={f"{PREFIX}{name.upper()}_FILE": str(file)}, flags=server)
    assert getattr(found, name) == url
    assert SECRET not in repr(found)
    text = f'{name}_file = "{file}"'
    assert getattr(settings(file=toml(tmp_path, text), flags=server), name) == url
    assert getattr(settings(flags={name: url, **server}), name) == url
    assert SECRET not in str(problems(flags={name: f"mysql://gateway:{SECRET}@db.internal/x"}))


def test_nothing_else_can_be_read_from_a_file(tmp_path: Path) -> None:
    assert problems(environ={"GATEWAY_HOST_FILE": "x"}) == ["unknown setting GATEWAY_HOST_FILE"]
    file = toml(tmp_path, 'host_file = "x"')
    assert problems(file=file) == [f"{file}: unknown setting 'host_file'"]


def test_no_secret_is_in_the_repr_or_in_a_problem(tmp_path: Path) -> None:
    secrets: dict[str, Any] = {
        one.name: SECRET for one in settings_fields() if one.metadata["secret"]
    }
    held = Settings(**secrets)
    assert SECRET not in f"{held!r} {held.all_upstreams()!r}"
    text = f'upstream_api_key = "{SECRET}"\n[upstreams.other]\napi_key = "{SECRET}"'
    found = settings(file=toml(tmp_path, text), flags={"admin_key": (admin := new_value(ADMIN))})
    assert found.upstream_api_key == found.upstreams[0].api_key == SECRET
    assert SECRET not in f"{found!r} {found.all_upstreams()!r}"
    assert admin not in repr(found)
    assert SECRET not in str(problems(environ={"GATEWAY_ADMIN_KEY": SECRET}))


def test_a_named_upstream_has_its_own_settings_and_key_variable(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-a-file", encoding="utf-8")
    text = """
[upstreams.grok]
base_url = "https://grok.example/v1"
post_seconds = 30
retention_seconds = 3600
bad_gateway_is_refusal = true
unknown_codes = ["a", "b"]
[upstreams.veo]
[upstreams.wan]
api_key = "from-the-table"
"""
    environ = {
        "GATEWAY_UPSTREAM_API_KEY": SECRET,
        "GATEWAY_UPSTREAM_GROK_API_KEY": "grok's",
        "GATEWAY_UPSTREAM_VEO_API_KEY_FILE": str(secret),
    }
    found = settings(file=toml(tmp_path, text), environ=environ, serving=True)
    default, grok, veo, wan = found.all_upstreams()
    assert (default.name, default.api_key, default.base_url) == ("default", SECRET, RELAY_BASE_URL)
    assert grok == UpstreamConfig(
        name="grok",
        base_url="https://grok.example/v1",
        api_key="grok's",
        post_seconds=30,
        retention_seconds=3600,
        bad_gateway_is_refusal=True,
        unknown_codes=("a", "b"),
    )
    assert (veo.name, veo.api_key) == ("veo", "from-a-file")
    assert (wan.api_key, wan.base_url) == ("from-the-table", RELAY_BASE_URL)


def test_an_upstream_has_an_account_and_a_cost_of_its_own(tmp_path: Path) -> None:
    secret = tmp_path / "secret"
    secret.write_text("from-a-file\n", encoding="utf-8")
    text = f"""
upstream_cost_multiplier_ppm = 909091
upstream_account_url = "https://relay.example"
[upstreams.grok]
cost_multiplier_ppm = 800000
account_url = "https://grok.example"
account_token_file = "{secret}"
[upstreams.veo]
account_token = "from-the-table"
[upstreams.wan]
"""
    environ = {
        "GATEWAY_UPSTREAM_ACCOUNT_TOKEN": SECRET,
        "GATEWAY_UPSTREAM_VEO_ACCOUNT_TOKEN": "veo's",
        "GATEWAY_UPSTREAM_WAN_ACCOUNT_TOKEN_FILE": str(secret),
    }
    found = settings(file=toml(tmp_path, text), environ=environ).all_upstreams()
    assert [(one.cost_multiplier_ppm, one.account_token, one.account_url) for one in found] == [
        (909_091, SECRET, "https://relay.example"),
        (800_000, "from-a-file", "https://grok.example"),
        (1_000_000, "veo's", ""),
        (1_000_000, "from-a-file", ""),
    ]
    environ = {"GATEWAY_UPSTREAM_NOBODY_ACCOUNT_TOKEN": "x"}
    assert problems(environ=environ) == ["unknown setting GATEWAY_UPSTREAM_NOBODY_ACCOUNT_TOKEN"]


def test_the_default_upstream_may_have_a_table_of_its_own(tmp_path: Path) -> None:
    file = toml(tmp_path, "[upstreams.default]\nretention_seconds = 60")
    environ = {"GATEWAY_UPSTREAM_API_KEY": SECRET}
    (only,) = settings(file=file, environ=environ, serving=True).all_upstreams()
    assert (only.name, only.retention_seconds, only.api_key) == ("default", 60, SECRET)


def test_without_serving_no_upstream_key_is_needed() -> None:
    assert problems(serving=True) == [
        (
            "the upstream 'default' has no key: set GATEWAY_UPSTREAM_API_KEY, or"
            " GATEWAY_UPSTREAM_API_KEY_FILE"
        )
    ]
    assert settings(serving=False).upstream_api_key == ""


def test_every_setting_says_what_it_is() -> None:
    for record in (Settings, UpstreamConfig):
        for one in fields(record):
            assert one.name in {"name", "upstreams"} or one.metadata["help"]


@pytest.mark.parametrize("value", [10_000, 100_000_000])
def test_a_cost_multiplier_is_from_a_hundredth_to_a_hundredfold(value: int) -> None:
    found = settings(flags={"upstream_cost_multiplier_ppm": value})
    assert found.upstream_cost_multiplier_ppm == value


def test_blanks_around_a_text_are_no_part_of_it_wherever_it_is_set(tmp_path: Path) -> None:
    text = f"""
upstream_api_key = " {SECRET}\\n"
[upstreams.grok]
api_key = "\\tfrom-the-table "
[upstreams.veo]
"""
    environ = {
        "GATEWAY_UPSTREAM_VEO_API_KEY": " veo's\r\n",
        "GATEWAY_UPSTREAM_ACCOUNT_TOKEN": f"{SECRET}\n",
        "GATEWAY_HOST": " 127.0.0.2\n",
        "GATEWAY_PORT": " 81 ",
        "GATEWAY_SMTP_PASSWORD": "open sesame\n",
        "GATEWAY_DISCLOSE_BUDGETS": "true\n",
    }
    found = settings(file=toml(tmp_path, text), environ=environ, serving=True)
    assert [one.api_key for one in found.all_upstreams()] == [SECRET, "from-the-table", "veo's"]
    assert (found.upstream_account_token, found.smtp_password) == (SECRET, "open sesame")
    assert (found.host, found.port, found.disclose_budgets) == ("127.0.0.2", 81, True)
    blank = {"GATEWAY_UPSTREAM_API_KEY": " \n"}
    assert "has no key" in str(problems(environ=blank, serving=True))


@pytest.mark.parametrize("key", ["sk-walrus nine", "sk-walrus\nnine", "sk-walrus\x7f", "sk-wälrus"])
def test_an_upstream_key_that_no_header_can_hold_is_refused_and_not_repeated(
    tmp_path: Path, key: str
) -> None:
    file = toml(tmp_path, "[upstreams.grok]")
    environ = {
        "GATEWAY_UPSTREAM_API_KEY": key,
        "GATEWAY_UPSTREAM_ACCOUNT_TOKEN": key,
        "GATEWAY_UPSTREAM_GROK_API_KEY": key,
        "GATEWAY_UPSTREAM_GROK_ACCOUNT_TOKEN": key,
    }
    complaint = "must be printable ASCII characters without spaces"
    assert sorted(problems(file=file, environ=environ)) == [
        f"upstream_account_token {complaint}",
        f"upstream_api_key {complaint}",
        f"upstreams.grok.account_token {complaint}",
        f"upstreams.grok.api_key {complaint}",
    ]


def test_what_a_table_of_the_default_upstream_would_hide_is_a_problem(tmp_path: Path) -> None:
    text = """
upstream_api_key = "k"
upstream_account_token_file = "/dev/null"
upstream_offers = ["create"]
[upstreams.default]
retention_seconds = 60
"""
    environ = {
        "GATEWAY_UPSTREAM_BASE_URL": "http://localhost:9/v1",
        "GATEWAY_UPSTREAM_POST_SECONDS": "9",
        "GATEWAY_UPSTREAM_OFFERS": "create",
        "GATEWAY_UPSTREAM_COST_MULTIPLIER_PPM": "909091",
        "GATEWAY_UPSTREAM_ACCOUNT_URL": "http://localhost:9",
        "GATEWAY_UPSTREAM_API_KEY": SECRET,
        "GATEWAY_UPSTREAM_ACCOUNT_TOKEN": SECRET,
    }
    file = toml(tmp_path, text)
    flags = {"upstream_base_url": "http://localhost:9/v1", "upstream_offers": None}
    hidden = {
        f"{file}: upstream_api_key": "api_key",
        f"{file}: upstream_account_token_file": "account_token_file",
        f"{file}: upstream_offers": "offers",
        "GATEWAY_UPSTREAM_BASE_URL": "base_url",
        "GATEWAY_UPSTREAM_POST_SECONDS": "post_seconds",
        "GATEWAY_UPSTREAM_OFFERS": "offers",
        "GATEWAY_UPSTREAM_COST_MULTIPLIER_PPM": "cost_multiplier_ppm",
        "GATEWAY_UPSTREAM_ACCOUNT_URL": "account_url",
        "--upstream-base-url": "base_url",
    }
    assert sorted(problems(file=file, environ=environ, flags=flags)) == sorted(
        f"{where} would be ignored: set {name} in the table [upstreams.default]"
        for where, name in hidden.items()
    )
    other = toml(tmp_path, '[upstreams.other]\napi_key = "k"')
    assert settings(file=other, environ=environ, flags=flags).upstream_post_seconds == 9
