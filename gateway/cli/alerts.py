"""`video-gateway alerts`: who is told when spend crosses a threshold?"""

from functools import partial
from pathlib import Path
from typing import Any, Final

import click

from gateway.billing.alerts import (
    create_alert,
    delete_alert,
    find_alert,
    list_alerts,
)
from gateway.billing.audit_log import Change, already_made
from gateway.billing.balances import PERIODS
from gateway.billing.money import format_usd
from gateway.cli.alert_deliveries import deliveries, shown_channel
from gateway.cli.common import (
    a_change,
    database_command,
    fail,
    read_rows,
    read_settings,
    run_script,
    show,
    show_facts,
    when,
)
from gateway.cli.levels import (
    existing_level,
    level_options,
    named_level,
    named_level_or_none,
    whose,
)
from gateway.cli.values import Email, Text, Url, Usd
from gateway.clock import system_clock
from gateway.config import Settings
from gateway.db.paging import Cursor, Page
from gateway.db.script import Row, Script

MAX_RECIPIENTS: Final = 50
_WITHIN: Final = {"day": "within a day", "month": "within a month", "total": "in total"}
_ELSEWHERE: Final = "note: {} is not set in this shell; what counts is whether `serve` has it"


@click.group()
def alerts() -> None:
    """Alerts: they tell that spend has crossed a threshold, and refuse nothing."""


alerts.add_command(deliveries)


@alerts.command("create")
@level_options
@click.option("--threshold", type=Usd(), required=True, help="Settled spend, in US dollars.")
@click.option("--period", type=click.Choice(PERIODS), default="month", show_default=True)
@click.option("--email", "emails", type=Email(), multiple=True, help="May be said several times.")
@click.option("--webhook", type=Url(), help="Where a signed event is posted to.")
@click.option("--subject-prefix", type=Text(), help="What the mail's subject begins with.")
@database_command
def create(
    *,
    organization: bool,
    project: str | None,
    key: str | None,
    threshold: int,
    period: str,
    emails: tuple[str, ...],
    webhook: str | None,
    subject_prefix: str | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Make an alert. It rings once per period, and at once if its threshold is crossed already."""
    name, named = named_level(organization=organization, project=project, key=key)
    channel = _channel(emails=emails, webhook=webhook, subject_prefix=subject_prefix)
    settings = read_settings(config, database_url=database_url)
    clock = system_clock()
    made = run_script(
        settings,
        partial(
            _create,
            a_change(clock),
            name,
            named,
            alert_id=clock.new_id("alert"),
            period=period,
            threshold_micros=threshold,
            channel=channel,
        ),
    )
    _warn(settings, channel)
    text = (
        f"made {made['id']}: it rings once {whose(name, named)} has spent ${format_usd(threshold)}"
        f" {_WITHIN[period]}"
    )
    show_facts(_facts(made, as_json=as_json), text=text, as_json=as_json)


def _create(
    change: Change,
    name: str,
    named: str,
    *,
    alert_id: str,
    period: str,
    threshold_micros: int,
    channel: dict[str, Any],
) -> Script[Row]:
    level = yield from existing_level(name, named)
    return (
        yield from create_alert(
            change,
            level,
            alert_id=alert_id,
            period=period,
            threshold_micros=threshold_micros,
            channel=channel,
        )
    )


def _channel(
    *, emails: tuple[str, ...], webhook: str | None, subject_prefix: str | None
) -> dict[str, Any]:
    if bool(emails) == (webhook is not None):
        raise click.UsageError("say either --email, once or several times, or --webhook")
    if webhook is not None:
        if subject_prefix is not None:
            raise click.UsageError("--subject-prefix goes with --email")
        return {"type": "webhook", "url": webhook}
    recipients = list(dict.fromkeys(emails))
    if len(recipients) > MAX_RECIPIENTS:
        raise click.UsageError(f"at most {MAX_RECIPIENTS} --email can be told by one alert")
    return {"type": "email", "recipients": recipients, "subject_prefix": subject_prefix}


def _warn(settings: Settings, channel: dict[str, Any]) -> None:
    """Say what the alert still needs, as far as this shell's settings tell."""
    if channel["type"] == "email" and not settings.smtp_host:
        click.echo(_ELSEWHERE.format("smtp_host"), err=True)
    if channel["type"] == "webhook" and not settings.alert_webhook_secret:
        click.echo(_ELSEWHERE.format("alert_webhook_secret"), err=True)


@alerts.command("list")
@level_options
@database_command
def list_(
    *,
    organization: bool,
    project: str | None,
    key: str | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """List alerts, the oldest first, of all levels or of one."""
    named = named_level_or_none(organization=organization, project=project, key=key)
    settings = read_settings(config, database_url=database_url)
    found = read_rows(settings, partial(_list, named))
    rows = [_facts(row, as_json=as_json) for row in found]
    columns = ("id", "level", "level_id", "period", "threshold_usd", "channel", "created_at")
    show(rows, columns=columns, as_json=as_json, empty="There are no alerts yet.")


def _list(named: tuple[str, str] | None, cursor: Cursor) -> Script[Page]:
    level = None
    if named is not None:
        level = yield from existing_level(*named)
    return (yield from list_alerts(cursor, level=level))


@alerts.command("delete")
@click.argument("alert_id")
@database_command
def delete(*, alert_id: str, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """End an alert. What it has rung for is still delivered."""
    settings = read_settings(config, database_url=database_url)
    run_script(settings, partial(_delete, a_change(system_clock()), alert_id))
    facts = {"id": alert_id, "deleted": True}
    show_facts(facts, text=f"deleted {alert_id}", as_json=as_json)


def _delete(change: Change, alert_id: str) -> Script[None]:
    if (yield from already_made(change)) is not None:
        return
    found = yield from find_alert(alert_id)
    if found is None:
        raise fail("there is no alert with that id; `alerts list` shows the ids, alert_…")
    level = yield from existing_level(found["level"], found["level_id"])
    yield from delete_alert(change, level, alert_id=alert_id)


def _facts(row: Row, *, as_json: bool) -> dict[str, Any]:
    return {
        "id": row["id"],
        "level": row["level"],
        "level_id": row["level_id"],
        "period": row["period"],
        "threshold_usd": format_usd(row["threshold_micros"]),
        "channel": shown_channel(row["channel"], as_json=as_json),
        "created_at": when(row["created_at"], as_json=as_json),
    }
