"""Is what operators install from what it says it is: sample, unit, image, locked packages?"""

import importlib.metadata
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from gateway import __version__
from gateway.config import Settings, UpstreamConfig, load, sample_toml, settings_fields

ROOT = Path(__file__).parent.parent
PACKAGING = ROOT / "gateway" / "packaging"
UNIT = PACKAGING / "video-gateway.service"
# What the image has beside the program itself.
EXTRAS = ("objects", "postgres", "traces")
# Licenses that ask for no more than that they are passed on, and MPL-2.0, which asks for changes to
# its own files (certifi: none are made).
ALLOWED = frozenset(
    {
        *("Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "MIT", "MIT-CMU"),
        *("MPL-2.0", "PSF-2.0"),
    }
)
# As packages without an SPDX expression say it.
IN_WORDS = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "3-Clause BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Python Software Foundation License": "PSF-2.0",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def test_the_sample_has_every_setting_with_its_default(tmp_path: Path) -> None:
    text = (PACKAGING / "gateway.toml").read_text(encoding="utf-8")
    assert text == sample_toml()
    assert tomllib.loads(text) == {}  # as it is, it changes nothing
    everything = re.sub(r"^#(?=[a-z_\[])", "", text, flags=re.MULTILINE)
    document = tomllib.loads(everything)
    (studio,) = document.pop("upstreams").values()
    assert set(document) == {one.name for one in settings_fields()}
    assert set(studio) == {one.name for one in fields(UpstreamConfig) if one.metadata}
    file = tmp_path / "gateway.toml"
    file.write_text(everything)
    settings = load(file=file, environ={}, flags={}, serving=False)
    assert settings == Settings(upstreams=(UpstreamConfig(name="studio"),))


def test_the_unit_is_hardened_and_right(tmp_path: Path) -> None:
    program = Path(sys.prefix, "bin", "video-gateway")
    unit = tmp_path / UNIT.name
    unit.write_text(UNIT.read_text().replace("/opt/video-gateway/bin/video-gateway", str(program)))
    # What it does not know is said, and nothing more: the exit code is 0.
    verified = _run("systemd-analyze", "verify", "--man=no", str(unit))
    assert (verified.returncode, verified.stdout + verified.stderr) == (0, "")
    # In tenths: 2.0 at most.
    arguments = ("security", "--offline=true", "--threshold=20", "--no-pager")
    assert _run("systemd-analyze", *arguments, str(unit)).returncode == 0
    unit.write_text(unit.read_text().replace("CapabilityBoundingSet=\n", ""))
    assert _run("systemd-analyze", *arguments, str(unit)).returncode != 0


def test_the_unit_names_settings_that_exist_and_waits_long_enough() -> None:
    said = _unit()
    variables = dict(one.split("=", 1) for one in said["Environment"])
    known = {f"GATEWAY_{one.name.upper()}" for one in settings_fields()} | {"GATEWAY_CONFIG"}
    assert {name.removesuffix("_FILE") for name in variables} <= known
    for credential in said["LoadCredential"]:
        name = credential.partition(":")[0]
        assert variables[f"GATEWAY_{name.upper()}_FILE"] == f"%d/{name}"
    settings = Settings()
    # With room for a drain delay such as the chart's.
    assert int(said["TimeoutStopSec"][0]) >= 10 + settings.shutdown_seconds + 10
    assert settings.shutdown_seconds >= settings.upstream_post_seconds + 10
    assert said["ExecStart"] == ["/opt/video-gateway/bin/video-gateway serve"]


def test_hadolint_has_nothing_against_the_dockerfile(tmp_path: Path) -> None:
    hadolint = str(Path(sys.prefix, "bin", "hadolint"))
    linted = _run(hadolint, str(ROOT / "Dockerfile"))
    assert (linted.returncode, linted.stdout + linted.stderr) == (0, "")
    worse = tmp_path / "Dockerfile"
    worse.write_text((ROOT / "Dockerfile").read_text() + "RUN cd /tmp && sudo true\n")
    assert _run(hadolint, str(worse)).returncode != 0


def test_the_image_is_what_the_chart_runs() -> None:
    text = (ROOT / "Dockerfile").read_text()
    values = (ROOT / "helm" / "video-gateway" / "values.yaml").read_text()
    assert "\nUSER 10001:10001\n" in text
    assert "runAsUser: 10001" in values
    assert "--require-hashes -r requirements.lock.txt" in text
    assert f"\nARG VERSION={__version__}\n" in text
    # Both exec forms: a shell would get the signals.
    assert '\nENTRYPOINT ["video-gateway"]\n' in text
    assert re.findall(r"^CMD (\[.*\])$", text, re.MULTILINE)
    assert "HEALTHCHECK" not in text
    # Everything that is copied gets past .dockerignore.
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE):
        for path in line.split():
            assert f"!{path}" in ignored
            assert (ROOT / path).exists()


def test_the_lock_is_what_the_program_asks_for() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    asked = list(project["project"]["dependencies"])
    for extra in EXTRAS:
        asked += project["project"]["optional-dependencies"][extra]
    locked = _locked(ROOT / "requirements.lock.txt")
    for requirement in map(Requirement, asked):
        version = locked[canonicalize_name(requirement.name)]
        assert requirement.specifier.contains(version, prereleases=True), requirement
    build = _locked(ROOT / ".ci" / "build.lock.txt")
    for requirement in map(Requirement, project["build-system"]["requires"]):
        assert requirement.specifier.contains(build[canonicalize_name(requirement.name)])
    # Whatever these need in their turn is there, and nothing else is.
    assert set(locked) == set(_closure(asked))


def test_every_locked_package_has_hashes_and_no_place() -> None:
    for path in (ROOT / "requirements.lock.txt", ROOT / ".ci" / "build.lock.txt"):
        text = path.read_text()
        entries = re.split(r"^(?=[a-z0-9])", text, flags=re.MULTILINE)[1:]
        assert len(entries) == len(_locked(path))
        assert [one for one in entries if "--hash=sha256:" not in one] == []
        assert re.findall(r"://|--(?:extra-)?index-url|--find-links", text) == []


def test_every_locked_package_has_a_license_that_may_be_passed_on() -> None:
    found = {name: _licenses(name) for name in _locked(ROOT / "requirements.lock.txt")}
    assert {name: said for name, said in found.items() if not said or said - ALLOWED} == {}


@pytest.mark.parametrize("name", ["README.md", "helm/video-gateway/README.md"])
def test_every_file_that_operators_are_told_of_is_there(name: str) -> None:
    text = (ROOT / name).read_text(encoding="utf-8")
    for path in re.findall(r"`((?:gateway|helm|grafana|\.ci)/[\w./-]*)`", text):
        assert (ROOT / path).exists(), path


def _run(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def _unit() -> Mapping[str, list[str]]:
    said: dict[str, list[str]] = {}
    for line in UNIT.read_text().splitlines():
        name, _, value = line.partition("=")
        if value and not line.startswith("#"):
            said.setdefault(name, []).append(value)
    return said


def _locked(path: Path) -> dict[str, str]:
    found = re.findall(r"^([A-Za-z0-9._-]+)==(\S+)", path.read_text(), re.MULTILINE)
    return {canonicalize_name(name): version for name, version in found}


def _closure(asked: list[str]) -> Iterator[str]:
    """Yield the names of all packages that these need, as the installed ones say."""
    todo = [(Requirement(one), "") for one in asked]
    seen: set[tuple[str, str]] = set()
    while todo:
        requirement, extra = todo.pop()
        if requirement.marker and not requirement.marker.evaluate({"extra": extra}):
            continue
        name = canonicalize_name(requirement.name)
        yield name
        needs = importlib.metadata.requires(name) or []
        for each in {"", *requirement.extras}:
            if (name, each) not in seen:
                seen.add((name, each))
                todo += [(Requirement(need), each) for need in needs]


def _licenses(name: str) -> set[str]:
    """Return the licenses of a package as it is installed here; all of them, where several hold."""
    metadata: Any = importlib.metadata.metadata(name)
    expression = metadata.get("License-Expression") or ""
    if not expression:
        of_classifiers = [
            one.rpartition(" :: ")[2]
            for one in metadata.get_all("Classifier") or []
            if one.startswith("License :: ") and one != "License :: OSI Approved"
        ]
        said = of_classifiers or (metadata.get("License") or "").splitlines()[:1]
        return {IN_WORDS.get(one, one) for one in said}
    return {IN_WORDS.get(one, one) for one in re.split(r" (?:AND|OR) ", expression.strip("()"))}
