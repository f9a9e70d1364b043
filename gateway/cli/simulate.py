"""`video-gateway simulate`: run an upstream that behaves like the relay."""

import click

from gateway.cli.common import fail
from gateway.simulator.server import run


@click.command()
@click.option("--host", default="127.0.0.1", show_default=True)
@click.option("--port", default=8081, show_default=True, help="0 takes a free one.")
def simulate(host: str, port: int) -> None:
    """Run a simulated upstream; its key is `sk-simulator`. Nothing is billed, nothing leaves.

    Prints one JSON line with its base_url once it listens.
    """
    try:
        run(host=host, port=port)
    except OSError as error:
        raise fail(f"cannot listen on {host}:{port}: {error.strerror}") from error
