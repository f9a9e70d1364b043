"""What do the tests of commands stand on? A person in front of a database."""

import asyncio
import csv
import getpass
import io
import json
from pathlib import Path
from typing import Any, NamedTuple

from click.testing import CliRunner, Result
from databases import opened_at, url_of
from ledger_tools import (
    NO_IDS,
    NOW,
    RATE_MICROS,
    a_submit,
    claim_one,
    followed,
)

from gateway.cli.root import main
from gateway.clock import system_clock
from gateway.db.migrate import migrate
from gateway.db.script import Script
from gateway.videos.lifecycle import Completed
from gateway.videos.opening import open_submit
from gateway.videos.polls import write_completed
from gateway.videos.records import record_orphan


class Terminal(NamedTuple):
    """A person in front of one database."""

    path: Path

    @property
    def option(self) -> str:
        return f"--database-url={url_of(self.path)}"

    def run(self, *words: str, exit_code: int = 0, answer: str | None = None) -> Result:
        result = CliRunner().invoke(main, [*words, self.option], input=answer)
        assert result.exit_code == exit_code, result.output
        return result

    def json(self, *words: str, exit_code: int = 0) -> Any:
        return json.loads(self.run(*words, "--json", exit_code=exit_code).stdout)

    def error(self, *words: str, exit_code: int) -> str:
        """Return the message of a command that fails, as a program reads it."""
        result = self.run(*words, "--json", exit_code=exit_code)
        assert result.stdout == ""
        error = json.loads(result.stderr)["error"]
        assert error["exit_code"] == exit_code
        return str(error["message"])

    def key(self, project: str = "films", **options: str) -> dict[str, Any]:
        words = [f"--{name.replace('_', '-')}={value}" for name, value in options.items()]
        made: dict[str, Any] = self.json(
            "keys", "create", "--project", project, "--name", "tests", *words
        )
        return made

    def changes(self) -> list[dict[str, Any]]:
        """Return what this person has changed, the newest first."""
        lines = self.json("audit-log", "list")
        return [line for line in lines if line["actor_id"] == getpass.getuser()]


def new_terminal(folder: Path) -> Terminal:
    """Make a database in a folder."""

    async def make() -> None:
        async with opened_at(folder / "gateway.db") as database:
            await migrate(database, now=now())

    asyncio.run(make())
    return Terminal(folder / "gateway.db")


def now() -> int:
    return system_clock().now()


def an_orphan(number: int, *, at: int) -> Script[None]:
    yield from open_submit(a_submit(number, now=at), now=at)
    yield from record_orphan(f"vid_{number}", reason="broken", request_ids=NO_IDS, now=at)


def a_completed_video(number: int = 1, *, list_micros: int = RATE_MICROS) -> Script[None]:
    yield from followed(number)
    claim = yield from claim_one()
    yield from write_completed(
        claim,
        Completed(list_micros=list_micros, above_hold=False, has_content=True),
        {"status": "completed"},
        assets={"video": f"asset_{number}"},
        retention_seconds=60,
        now=NOW,
    )


def parsed(text: str) -> list[dict[str, str]]:
    """Read CSV as a program would."""
    return list(csv.DictReader(io.StringIO(text, newline=""), strict=True))
