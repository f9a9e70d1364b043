"""Do the commands about settings say what is in force, and nothing that is secret?"""

import json
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from gateway.cli.root import main
from gateway.config import UpstreamConfig, settings_fields

SECRET = "sk-very-secret"
FILE = f"""
port = 8000
poll_interval_seconds = 5
database_url = "postgresql://gateway:{SECRET}@db/name"
upstream_api_key_file = "KEY"
[upstreams.studio]
base_url = "http://127.0.0.1:1/v1"
"""


@pytest.fixture
def file(tmp_path: Path) -> Path:
    key = tmp_path / "key"
    key.write_text(SECRET)
    made = tmp_path / "gateway.toml"
    made.write_text(FILE.replace("KEY", str(key)))
    return made


def run(*words: str, environ: dict[str, str] | None = None) -> Result:
    return CliRunner().invoke(main, ["config", *words], env=environ or {})


def shown(*words: str, environ: dict[str, str] | None = None) -> dict[str, tuple[Any, str]]:
    result = run("show", "--json", *words, environ=environ)
    assert result.exit_code == 0, result.output
    assert SECRET not in result.output
    rows = json.loads(result.stdout)
    return {row["setting"]: (row["value"], row["origin"]) for row in rows}


def test_each_setting_is_shown_with_where_it_was_said(file: Path) -> None:
    environ = {
        "GATEWAY_PORT": "9000",
        "GATEWAY_DATABASE_PASSWORD": SECRET,
        "GATEWAY_UPSTREAM_STUDIO_API_KEY_FILE": str(file.with_name("key")),
        "GATEWAY_CONFIG": str(file),
    }
    found = shown(environ=environ)
    of_studio = {f"upstreams.studio.{name}" for name in _names(UpstreamConfig)}
    assert set(found) == {one.name for one in settings_fields()} | of_studio
    assert found["port"] == (9000, "GATEWAY_PORT")
    assert found["poll_interval_seconds"] == (5, f"{file}: poll_interval_seconds")
    assert found["log_format"] == ("auto", "default")
    assert found["upstream_api_key"] == ("(set)", f"{file}: upstream_api_key_file")
    assert found["database_password"] == ("(set)", "GATEWAY_DATABASE_PASSWORD")
    assert found["database_url"] == ("postgresql://gateway@db/name", f"{file}: database_url")
    assert found["admin_key"] == ("", "default")
    assert found["upstreams.studio.base_url"] == ("http://127.0.0.1:1/v1", f"{file}: base_url")
    secret = ("(set)", "GATEWAY_UPSTREAM_STUDIO_API_KEY_FILE")
    assert found["upstreams.studio.api_key"] == secret
    moved = shown("--config", str(file), "--database-url", "sqlite:////x.db")
    assert moved["database_url"] == ("sqlite:////x.db", "--database-url")


def test_a_table_hides_secrets_as_well(file: Path) -> None:
    result = run("show", "--config", str(file))
    assert result.exit_code == 0
    assert SECRET not in result.output
    assert "create, retrieve, content" in result.output


def test_a_check_finds_every_mistake_that_would_keep_serve_from_starting(file: Path) -> None:
    key = {"GATEWAY_UPSTREAM_STUDIO_API_KEY": SECRET}
    fine = run("check", "--json", "--config", str(file), environ=key)
    assert fine.exit_code == 0
    assert SECRET not in fine.output
    assert json.loads(fine.stdout)["database"] == "postgresql://gateway@db/name"
    file.write_text(file.read_text().replace("port = 8000", "port = 80000\nprot = 1"))
    wrong = run("check", "--config", str(file))
    assert wrong.exit_code == 2
    problems = ("prot", "port must be at most", "upstream 'studio' has no key")
    assert [one for one in problems if one not in wrong.output] == []


def test_a_check_reads_the_catalogue(file: Path, tmp_path: Path) -> None:
    catalogue = tmp_path / "catalogue.toml"
    catalogue.write_text("[models]")
    environ = {
        "GATEWAY_CATALOGUE": str(catalogue),
        "GATEWAY_UPSTREAM_STUDIO_API_KEY": SECRET,
    }
    result = run("check", "--config", str(file), environ=environ)
    assert (result.exit_code, "catalogue:" in result.output) == (2, True)


def _names(record: Any) -> list[str]:
    return [name for name, one in record.__dataclass_fields__.items() if one.metadata]
