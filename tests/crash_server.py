"""How does a gateway die at a named step? Run as a process of its own: see processes.py.

It serves as `video-gateway serve` does, and prints each step it reaches as a line of its log. At
the n-th time of one step it kills or stops itself, for real. Its time is moved by a file.
"""

import dataclasses
import json
import os
import signal
import sqlite3
import sys
from collections.abc import Callable
from contextlib import closing, suppress
from pathlib import Path
from typing import Any

import uvloop

import gateway.__main__  # noqa: F401 - everything is loaded as `video-gateway` loads it
from gateway.cli.serve import serve_until_signal
from gateway.clock import Clock, system_clock
from gateway.config import Settings
from gateway.telemetry.logs import configure_logs

SIGNALS = {"kill": signal.SIGKILL, "stop": signal.SIGSTOP}


def main(told: dict[str, Any]) -> None:
    configure_logs("json")
    settings = Settings(**told["settings"])

    def strike() -> None:
        if told["act"] == "stop" and settings.database_path is not None:
            # Stopped in the middle of a write, it would keep everybody else from writing.
            with closing(sqlite3.connect(settings.database_path)) as connection:
                connection.execute("BEGIN IMMEDIATE")
        if told["act"] == "mute":
            os.dup2(os.open("/dev/full", os.O_WRONLY), sys.stdout.fileno())
        else:
            os.kill(os.getpid(), SIGNALS[told["act"]])

    uvloop.run(
        serve_until_signal(
            settings,
            clock=moved_by(Path(told["clock_file"])),
            on_step=at(told["step"], nth=told["nth"], strike=strike),
        )
    )


def moved_by(file: Path) -> Clock:
    """Return the system's clock, ahead by the seconds in a file."""
    system = system_clock()

    def offset() -> int:
        return int(file.read_text())

    return dataclasses.replace(
        system,
        now=lambda: system.now() + offset(),
        elapsed=lambda: system.elapsed() + offset(),
    )


def at(step: str | None, *, nth: int, strike: Callable[[], None]) -> Callable[[str], None]:
    """Return an `on_step` that says each step, and strikes at the n-th time of one."""
    left = nth

    def on_step(reached: str) -> None:
        nonlocal left
        with suppress(OSError):
            sys.stdout.write(json.dumps({"event": "step", "step": reached}) + "\n")
            sys.stdout.flush()
        if reached == step:
            left -= 1
            if left == 0:
                strike()

    return on_step


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
