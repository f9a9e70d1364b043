"""…/spend_alerts: who is told when spend crosses a threshold?

Of the organization and of projects as OpenAI has them; ours besides are those of keys, intervals of
a day and in total, and webhooks.
"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.alerts.mail import is_address, is_recipient
from gateway.alerts.message import SHOWN_CHARACTERS
from gateway.alerts.webhook import is_hook
from gateway.api.organization.asking import (
    admin,
    change,
    checked,
    cursor_of,
    fields_of,
    in_path,
    no_such,
    page_of,
)
from gateway.api.organization.checks import one_of, text, texts, whole
from gateway.api.organization.levels import level_of, level_to_change
from gateway.api.parts import Parts
from gateway.billing.alerts import (
    create_alert,
    delete_alert,
    get_alert,
    list_alerts,
    update_alert,
)
from gateway.billing.audit_log import Change
from gateway.billing.balances import KEY, Level
from gateway.billing.money import MAX_MICROS, MICROS_PER_CENT, format_usd
from gateway.config import Settings
from gateway.db.paging import Cursor, Page
from gateway.db.script import Row, Script
from gateway.errors import InvalidRequest

EMAIL: Final = "email"
WEBHOOK: Final = "webhook"
MAX_RECIPIENTS: Final = 50
_LONGEST_URL: Final = 2048
_LONGEST_ADDRESS: Final = 320
# Why nobody would be told, by type of channel.
_UNHEARD: Final = {
    EMAIL: "No mail server is set up (setting smtp_host): nobody will be told.",
    WEBHOOK: "No secret is set (setting alert_webhook_secret): nobody will be told.",
}


def _object(value: Any) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise TypeError("an object")
    return value


def _address(value: Any) -> str:
    found: str = text(most=_LONGEST_ADDRESS)(value)
    if not is_recipient(found):
        raise ValueError(f"e-mail addresses, and '{found}' is none")
    return found


def _recipients(value: Any) -> list[str]:
    found: list[str] = texts(most=MAX_RECIPIENTS, each=_address)(value)
    if not found:
        raise ValueError("at least one e-mail address")
    return found


def _url(value: Any) -> str:
    found: str = text(most=_LONGEST_URL)(value)
    if not is_hook(found):
        raise ValueError("an http or https URL without a login")
    return found


_CHECKS: Final = {
    "threshold_amount": whole(least=0, most=MAX_MICROS // MICROS_PER_CENT),
    "currency": one_of("USD"),
    "interval": one_of("month", "day", "total"),
    "notification_channel": _object,
}
_INSIDE: Final = "notification_channel."
_TYPE: Final = {"type": one_of(EMAIL, WEBHOOK)}
_EMAIL: Final = {
    **_TYPE,
    "recipients": _recipients,
    "subject_prefix": text(most=SHOWN_CHARACTERS),
}
_WEBHOOK: Final = {**_TYPE, "url": _url}


async def create(parts: Parts, request: Request) -> Response:
    """Make an alert; it rings at once where its threshold was crossed before."""
    admin_key_id = await admin(parts, request)
    wanted = await _wanted(parts.settings, request)
    alert_id = parts.clock.new_id("alert")

    def script(made: Change) -> Script[tuple[Level, Row]]:
        level = yield from level_to_change(request)
        return level, (yield from create_alert(made, level, alert_id=alert_id, **wanted))

    level, alert = await change(parts, request, admin_key_id, script)
    return JSONResponse(_shown(parts.settings, level, alert))


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with one page of the alerts of a level."""
    await admin(parts, request)
    level, page = await parts.database.read(partial(_list, request, cursor_of(request)))
    return page_of(page, partial(_shown, parts.settings, level))


async def retrieve(parts: Parts, request: Request) -> Response:
    """Answer with one alert."""
    await admin(parts, request)
    level, alert = await parts.database.read(partial(_get, request))
    return JSONResponse(_shown(parts.settings, level, alert))


async def update(parts: Parts, request: Request) -> Response:
    """Say all of an alert anew."""
    admin_key_id = await admin(parts, request)
    wanted = await _wanted(parts.settings, request)
    alert_id = in_path(request, "alert_id")

    def script(made: Change) -> Script[tuple[Level, Row]]:
        level = yield from level_to_change(request)
        alert = yield from update_alert(made, level, alert_id=alert_id, **wanted)
        if alert is None:
            raise no_such("spend alert", alert_id)
        return level, alert

    level, alert = await change(parts, request, admin_key_id, script)
    return JSONResponse(_shown(parts.settings, level, alert))


async def delete(parts: Parts, request: Request) -> Response:
    """End an alert; what it has rung for is still delivered."""
    admin_key_id = await admin(parts, request)
    alert_id = in_path(request, "alert_id")

    def script(made: Change) -> Script[Level]:
        level = yield from level_to_change(request)
        if not (yield from delete_alert(made, level, alert_id=alert_id)):
            raise no_such("spend alert", alert_id)
        return level

    level = await change(parts, request, admin_key_id, script)
    return JSONResponse({"id": alert_id, "object": f"{_name(level)}.deleted", "deleted": True})


async def _wanted(settings: Settings, request: Request) -> dict[str, Any]:
    """Return what a body says of an alert: period, threshold_micros and channel."""
    fields = await fields_of(request, _CHECKS, required=tuple(_CHECKS))
    given = fields["notification_channel"]
    kind = checked({"type": given.get("type")}, _TYPE, required=("type",), inside=_INSIDE)["type"]
    if kind == EMAIL:
        channel = checked(given, _EMAIL, required=("recipients",), inside=_INSIDE)
    else:
        channel = checked(given, _WEBHOOK, required=("url",), inside=_INSIDE)
        if not settings.alert_webhook_secret:
            raise InvalidRequest(
                "Webhooks need the setting alert_webhook_secret, which signs them; it is empty.",
                param=f"{_INSIDE}type",
            )
    return {
        "period": fields["interval"],
        "threshold_micros": fields["threshold_amount"] * MICROS_PER_CENT,
        "channel": channel,
    }


def _list(request: Request, cursor: Cursor) -> Script[tuple[Level, Page]]:
    level = yield from level_of(request)
    return level, (yield from list_alerts(cursor, level=level))


def _get(request: Request) -> Script[tuple[Level, Row]]:
    level = yield from level_of(request)
    alert_id = in_path(request, "alert_id")
    alert = yield from get_alert(level, alert_id=alert_id)
    if alert is None:
        raise no_such("spend alert", alert_id)
    return level, alert


def _shown(settings: Settings, level: Level, alert: Row) -> dict[str, Any]:
    channel = json.loads(alert["channel"])
    warning = _warning(settings, channel)
    return {
        "id": alert["id"],
        "object": _name(level),
        "threshold_amount": alert["threshold_micros"] // MICROS_PER_CENT,
        "threshold_usd": format_usd(alert["threshold_micros"]),
        "currency": "USD",
        "interval": alert["period"],
        "notification_channel": channel,
        "created_at": alert["created_at"],
        **({} if warning is None else {"warning": warning}),
    }


def _name(level: Level) -> str:
    return "project.api_key.spend_alert" if level.name == KEY else f"{level.name}.spend_alert"


def _warning(settings: Settings, channel: Mapping[str, Any]) -> str | None:
    """Return why an alert may never be heard, although it may be set."""
    kind = channel["type"]
    if not (settings.smtp_host if kind == EMAIL else settings.alert_webhook_secret):
        return _UNHEARD[kind]
    local = [one for one in channel.get("recipients", ()) if not is_address(one)]
    if local:
        return f"Only a mail server that has a mailbox '{local[0]}' of its own can deliver there."
    return None
