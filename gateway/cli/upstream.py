"""`video-gateway upstream`: does the upstream accept us?"""

import asyncio
from dataclasses import asdict
from pathlib import Path

import click

from gateway.cli.common import EXIT_FAILED, database_command, read_settings, show_json
from gateway.config import Settings, UpstreamConfig
from gateway.setup import load_catalogue, upstream_settings
from gateway.upstream.check import CheckReport
from gateway.upstream.client import Upstream


@click.group()
def upstream() -> None:
    """The server that requests are forwarded to."""


@upstream.command("check")
@database_command
def check(*, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Make one unbilled call to each upstream and explain the answer.

    Exits with 1 if one is not well.
    """
    settings = read_settings(config, database_url=database_url, serving=True)
    reports = [(one, asyncio.run(_check(settings, one))) for one in settings.all_upstreams()]
    if as_json:
        show_json([{"upstream": one.name, **asdict(report)} for one, report in reports])
    else:
        for one, report in reports:
            mark = "fine" if report.ok else "NOT WELL"
            click.echo(f"{one.name} ({one.base_url}): {mark}\n  {report.explanation}")
    if not all(report.ok for _, report in reports):
        raise SystemExit(EXIT_FAILED)


async def _check(settings: Settings, config: UpstreamConfig) -> CheckReport:
    sold = [
        model.id
        for model in load_catalogue(settings).models.values()
        if model.upstream == config.name
    ]
    async with Upstream(upstream_settings(config)) as client:
        return await client.check(sold)
