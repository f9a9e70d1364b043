"""How does the Python SDK's own suite, unchanged, come to use our key and videos that exist?

A pytest plugin of that suite's process: the tests name it with `-p`. Its three needs:

- The suite writes its key down in its conftest; ours takes its place before any client is made.
- It deletes video_123 in many tests, and a deleted video is gone. Each of these tests asks a
  gateway of its own, in which that video still exists.
- Tests that upload bytes that are no image and no video are expected to be refused: a 400, and
  nothing else, is what they must fail with.
"""

import json
import os
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest

VARIABLE = "SDK_SUITE"

_TOLD = pytest.StashKey[dict[str, Any]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TOLD] = json.loads(os.environ[VARIABLE])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    told = config.stash[_TOLD]
    sys.modules["tests.conftest"].api_key = told["api_key"]  # type: ignore[attr-defined]
    # These upload bytes that are no image or video, which is rightly refused. They still run:
    # strictly, so that one which is let through fails, and only a 400 is the refusal meant.
    refused = pytest.mark.xfail(raises=openai.BadRequestError, strict=True)
    for item in items:
        if item.originalname in told["refused"]:
            item.add_marker(refused)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Iterator[None]:
    told = item.config.stash[_TOLD]
    if item.originalname not in told["deleting"]:
        yield
        return
    client: Any = item.funcargs.get("client") or item.funcargs["async_client"]
    usual = client.base_url, client.api_key
    client.base_url, client.api_key = told["spare"].pop()
    try:
        yield
    finally:
        client.base_url, client.api_key = usual


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    counted = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
    outcomes = {
        outcome: [report.nodeid for report in terminalreporter.stats.get(outcome, [])]
        for outcome in counted
    }
    Path(config.stash[_TOLD]["report"]).write_text(json.dumps(outcomes), encoding="utf-8")
