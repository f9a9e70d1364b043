"""How does the Python SDK's own suite, unchanged, come to use our keys and things that exist?

A pytest plugin of that suite's process: the tests name it with `-p`. Its needs:

- The suite writes its keys down in its conftest; ours take their place before any client is made.
- It deletes video_123 in many tests, and a deleted video is gone. Each of these tests asks a
  gateway of its own, in which that video still exists.
- The ids in the admin tests are words such as project_id. Rows with these ids are written into the
  gateway's database before each test, which restores what the test before has changed.
- Some ids are not ours to choose: they are replaced in the path.
- Tests that ask for what the gateway rightly refuses are named, each with the reason: a 400, and
  nothing else, is what they must fail with.
"""

import json
import os
import sqlite3
import sys
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import openai
import pytest

VARIABLE = "SDK_SUITE"
RESOURCES = "tests/api_resources/"

_TOLD = pytest.StashKey[dict[str, Any]]()


def pytest_configure(config: pytest.Config) -> None:
    config.stash[_TOLD] = json.loads(os.environ[VARIABLE])


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Function]) -> None:
    told = config.stash[_TOLD]
    suite: Any = sys.modules["tests.conftest"]
    for name in ("api_key", "admin_api_key"):
        setattr(suite, name, told.get(name, getattr(suite, name)))
    for item in items:
        reason = told["refused"].get(_file_of(item), {}).get(item.originalname)
        if reason is not None:
            item.add_marker(_refused(reason))
    # Of some files only the tests with a word in their names are about what there is here.
    words = told.get("only", {})
    items[:] = [item for item in items if words.get(_file_of(item), "") in item.name]


def _refused(reason: str) -> pytest.MarkDecorator:
    # Such a test still runs: strictly, so that one which is let through fails, and only a 400 is
    # the refusal meant.
    return pytest.mark.xfail(raises=openai.BadRequestError, strict=True, reason=reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Function) -> Iterator[None]:
    told = item.config.stash[_TOLD]
    _restore(told, _file_of(item))
    client: Any = item.funcargs.get("client") or item.funcargs["async_client"]
    _rename(client, told.get("renamed", {}))
    if item.originalname not in told.get("deleting", ()):
        yield
        return
    usual = client.base_url, client.api_key
    client.base_url, client.api_key = told["spare"].pop()
    try:
        yield
    finally:
        client.base_url, client.api_key = usual


def _file_of(item: pytest.Item) -> str:
    return item.nodeid.partition("::")[0].removeprefix(RESOURCES)


def _restore(told: dict[str, Any], file: str) -> None:
    if "database" not in told:
        return
    # Foreign keys are off in SQLite unless asked for: a row is replaced under what points to it.
    with closing(sqlite3.connect(told["database"], timeout=10)) as connection, connection:
        for table, row in (*told["rows"], *told.get("rows_of", {}).get(file, ())):
            marks = ", ".join("?" for _ in row)
            connection.execute(
                f"INSERT OR REPLACE INTO {table} ({', '.join(row)}) VALUES ({marks})",
                list(row.values()),
            )


def _rename(client: Any, renamed: dict[str, str]) -> None:
    """Replace parts of the path of everything that a client asks for from now on."""
    usual = type(client)._prepare_options

    def replaced(options: Any) -> Any:
        parts = options.url.split("/")
        options.url = "/".join(renamed.get(part, part) for part in parts)
        return options

    def prepare(options: Any) -> Any:
        return usual(client, replaced(options))

    client._prepare_options = prepare


def pytest_terminal_summary(terminalreporter: Any, config: pytest.Config) -> None:
    counted = ("passed", "failed", "error", "skipped", "xfailed", "xpassed")
    outcomes = {
        outcome: [report.nodeid for report in terminalreporter.stats.get(outcome, [])]
        for outcome in counted
    }
    Path(config.stash[_TOLD]["report"]).write_text(json.dumps(outcomes), encoding="utf-8")
