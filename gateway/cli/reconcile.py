"""`video-gateway reconcile`: does the upstream bill what the ledger says?

Exits with 0 if it does, 1 on any difference, 2 on wrong usage or settings, 3 if it could not be
found out. Nothing is changed: what to do about an orphan is printed.
"""

import asyncio
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import click

from gateway.billing.catalogue import DEFAULT_UPSTREAM
from gateway.billing.comparisons import Comparison
from gateway.cli.common import (
    EXIT_FAILED,
    EXIT_USAGE,
    database_command,
    keep_comparison,
    read_settings,
    run_script,
)
from gateway.cli.reconcile_output import Account, show_csv, show_object, show_tables
from gateway.clock import system_clock
from gateway.config import Settings, UpstreamConfig
from gateway.upstream.account import AccountError, AccountSettings, TokenRefused, read_bill
from gateway.videos.reconciliation import DIFFERENCES, UNDER_WAY, Finding, reconcile
from gateway.videos.reconciliation_records import holds_of_upstream

EXIT_UNKNOWN: Final = 3
DAY_SECONDS: Final = 86_400
MAX_DAYS: Final = 92
BEFORE_SECONDS: Final = 7_200
AFTER_SECONDS: Final = DAY_SECONDS + 7_200
"""Both sides are read beyond the range: a charge may fall on its other side, a refund come late."""

_FORMATS: Final = {"table": show_tables, "json": show_object, "csv": show_csv}
_DAY: Final = click.DateTime(["%Y-%m-%d"])


class _WrongSetting(click.ClickException):
    exit_code = EXIT_USAGE


class _NotFoundOut(click.ClickException):
    exit_code = EXIT_UNKNOWN


@click.command("reconcile")
@click.option("--from", "first", type=_DAY, required=True, help="First day, UTC.")
@click.option("--to", "last", type=_DAY, required=True, help="Last day, UTC, included.")
@click.option("--upstream", "name", default=DEFAULT_UPSTREAM, show_default=True, help="Which one.")
@click.option("--format", "shape", type=click.Choice(list(_FORMATS)), default="table")
@database_command
def reconcile_(
    *,
    first: datetime,
    last: datetime,
    name: str,
    shape: str,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Compare what an upstream has billed with the ledger, at list prices.

    Exits with 0 if both agree, 1 on a difference, 3 if it could not be found out.
    """
    now = system_clock().now()
    days = (last - first).days + 1
    start = int(first.replace(tzinfo=UTC).timestamp())
    if not 1 <= days <= MAX_DAYS:
        raise click.UsageError(f"--to must be --from or up to {MAX_DAYS - 1} days later")
    if start >= now:
        raise click.UsageError("--from lies in the future")
    settings = read_settings(config, database_url=database_url)
    account = _account(settings, name)
    end = start + days * DAY_SECONDS - 1
    findings = [
        one
        for one in _findings(settings, name, account, start=start, end=end, now=now)
        if start <= one.at <= end
    ]
    keep_comparison(settings, _result_of(findings, upstream=name, now=now))
    about = Account(name, account.url, first=first.date(), last=last.date(), read_at=now)
    _FORMATS["json" if as_json else shape](about, findings)
    if any(one.kind in DIFFERENCES for one in findings):
        raise SystemExit(EXIT_FAILED)


def _result_of(findings: list[Finding], *, upstream: str, now: int) -> Comparison:
    return Comparison(
        upstream,
        compared_at=now,
        differences=sum(one.kind in DIFFERENCES for one in findings),
        drift_micros=sum(
            one.theirs_micros - one.ours_micros for one in findings if one.kind != UNDER_WAY
        ),
    )


def _account(settings: Settings, name: str) -> AccountSettings:
    """Return how the account is read; ends the command where that is not set."""
    for one in settings.all_upstreams():
        if one.name == name:
            if one.account_token:
                return AccountSettings(_account_url(one), one.account_token)
            message = (
                f"the account's token is not set: {_token_setting(settings, name)}. At the relay it"
                " is the system token of the account's profile, not the upstream key."
            )
            raise _WrongSetting(message)
    known = ", ".join(one.name for one in settings.all_upstreams())
    raise _WrongSetting(f"there is no upstream {name!r}; there is {known}")


def _account_url(upstream: UpstreamConfig) -> str:
    parts = urlsplit(upstream.account_url or upstream.base_url)
    path = parts.path.rstrip("/") if upstream.account_url else ""
    return f"{parts.scheme}://{parts.netloc}{path}"


def _token_setting(settings: Settings, name: str) -> str:
    if any(one.name == name for one in settings.upstreams):
        return f"upstreams.{name}.account_token"
    return "upstream_account_token, or GATEWAY_UPSTREAM_ACCOUNT_TOKEN"


def _findings(
    settings: Settings, name: str, account: AccountSettings, *, start: int, end: int, now: int
) -> list[Finding]:
    """Return the findings of the range and its margins; ends the command if they cannot be had."""
    read_from = start - BEFORE_SECONDS
    # The running second may still get rows, which would move the pages under the reader.
    read_to = min(end + AFTER_SECONDS, now - 1)
    # Holds first: what has ended here then has ended in the bill that is read afterwards.
    script = partial(holds_of_upstream, name, start=read_from, end=read_to)
    try:
        holds = run_script(settings, script)
        rows = asyncio.run(read_bill(account, start=read_from, end=read_to))
    except TokenRefused as error:
        message = f"{error} Look at {_token_setting(settings, name)}."
        raise _WrongSetting(message) from error
    except (AccountError, click.ClickException) as error:
        raise _NotFoundOut(str(error)) from error
    return reconcile(holds, rows, read_from=read_from, read_to=read_to)
