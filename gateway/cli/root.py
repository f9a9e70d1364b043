"""Which commands are there? Each is a noun and a verb, but for the four that run something."""

import click

from gateway import __version__
from gateway.cli.budgets import budgets
from gateway.cli.catalogue import catalogue
from gateway.cli.demo import demo
from gateway.cli.keys import keys
from gateway.cli.ledger import ledger
from gateway.cli.orphans import orphans
from gateway.cli.serve import serve
from gateway.cli.simulate import simulate
from gateway.cli.spend import spend
from gateway.cli.upstream import upstream
from gateway.cli.videos import videos


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="video-gateway")
def main() -> None:
    """An OpenAI-compatible caching and accounting gateway for /v1/videos."""


for command in (
    serve,
    demo,
    simulate,
    keys,
    budgets,
    ledger,
    videos,
    orphans,
    spend,
    upstream,
    catalogue,
):
    main.add_command(command)
