"""How does a gateway come to log its defects? Run as a process of its own: see test_secrets.py.

It serves as `video-gateway serve` does, with the settings of its environment. At the first time of
some steps it fails, for real, on a text that the message of the error then quotes.
"""

import json
import os
import sys
from collections.abc import Callable
from typing import Any

import uvloop

from gateway.cli.common import begin_logs
from gateway.cli.serve import serve_until_signal
from gateway.config import load


def main(told: dict[str, Any]) -> None:
    registry = begin_logs("auto")
    settings = load(file=None, environ=os.environ, flags={}, serving=True)
    on_step = failing(set(told["steps"]), told["text"])
    uvloop.run(serve_until_signal(settings, on_step=on_step, registry=registry))


def failing(steps: set[str], text: str) -> Callable[[str], None]:
    def on_step(reached: str) -> None:
        if reached in steps:
            steps.remove(reached)
            int(text)

    return on_step


if __name__ == "__main__":
    main(json.loads(sys.argv[1]))
