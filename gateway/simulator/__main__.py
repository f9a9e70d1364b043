"""How is the simulator started as a process of its own?

`python -m gateway.simulator --port N`; the first line on stdout is {"base_url": …}.
"""

import argparse

from gateway.simulator.server import run
from gateway.simulator.world import Settings


def main() -> None:
    """Read the command line and serve until told to stop."""
    usual = Settings()
    parser = argparse.ArgumentParser(prog="python -m gateway.simulator")
    parser.add_argument("--host", default="127.0.0.1")
    parser.add_argument("--port", type=int, default=0, help="0 takes a free one")
    parser.add_argument("--key", action="append", help="an accepted key; may be repeated")
    parser.add_argument("--queue-seconds", type=float, default=usual.queue_seconds)
    parser.add_argument("--generation-seconds", type=float, default=usual.generation_seconds)
    parser.add_argument("--retention-seconds", type=float, default=usual.retention_seconds)
    parser.add_argument("--expired-status", type=int, choices=(404, 410), default=404)
    parser.add_argument("--content-bytes", type=int, default=0, help="content is at least so big")
    said = parser.parse_args()
    settings = Settings(
        keys=tuple(said.key) if said.key else usual.keys,
        queue_seconds=said.queue_seconds,
        generation_seconds=said.generation_seconds,
        retention_seconds=said.retention_seconds,
        expired_status=said.expired_status,
        content_bytes=said.content_bytes,
    )
    run(host=said.host, port=said.port, settings=settings)


if __name__ == "__main__":
    main()
