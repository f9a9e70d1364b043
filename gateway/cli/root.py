"""Which commands are there? Each is a noun and a verb, but for the few that run something."""

import json
from typing import Any, Final

import click

from gateway import __version__
from gateway.cli.admin_keys import admin_keys
from gateway.cli.alerts import alerts
from gateway.cli.audit_log import audit_log
from gateway.cli.budgets import budgets
from gateway.cli.catalogue import catalogue
from gateway.cli.config import config
from gateway.cli.database import database
from gateway.cli.demo import demo
from gateway.cli.keys import keys
from gateway.cli.ledger import ledger
from gateway.cli.limits import limits
from gateway.cli.migrate import migrate
from gateway.cli.mirror import mirror
from gateway.cli.orphans import orphans
from gateway.cli.projects import projects
from gateway.cli.reconcile import reconcile_
from gateway.cli.retention import retention
from gateway.cli.serve import serve
from gateway.cli.simulate import simulate
from gateway.cli.spend import spend
from gateway.cli.upstream import upstream
from gateway.cli.videos import videos

_AS_JSON: Final = "gateway.cli.as_json"


class _Main(click.Group):
    """The group of all commands, which reports errors as JSON where JSON was asked for.

    A subclass, because an option that is wrong is found before any command of ours runs.
    """

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[_AS_JSON] = "--json" in args
        return super().parse_args(ctx, args)

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except click.ClickException as error:
            if not ctx.meta[_AS_JSON]:
                raise
            facts = {"message": error.format_message(), "exit_code": error.exit_code}
            click.echo(json.dumps({"error": facts}, ensure_ascii=False), err=True)
            raise SystemExit(error.exit_code) from error


@click.group(cls=_Main, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="video-gateway")
def main() -> None:
    """An OpenAI-compatible caching and accounting gateway for /v1/videos."""


for command in (
    serve,
    config,
    demo,
    simulate,
    migrate,
    database,
    projects,
    keys,
    admin_keys,
    budgets,
    limits,
    alerts,
    spend,
    ledger,
    videos,
    mirror,
    retention,
    orphans,
    audit_log,
    upstream,
    catalogue,
    reconcile_,
):
    main.add_command(command)
