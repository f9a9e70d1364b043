"""/v1/organization/alert_deliveries: what have spend alerts rung for, and who was told?"""

import json
from collections.abc import Mapping
from functools import partial
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.organization.asking import admin, cursor_of, page_of
from gateway.api.parts import Parts
from gateway.billing.alerts import list_deliveries
from gateway.billing.money import format_usd
from gateway.db.script import Row


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with one page of what alerts have rung for, and how far its delivery is."""
    await admin(parts, request)
    page = await parts.database.read(partial(list_deliveries, cursor_of(request)))
    return page_of(page, _shown)


def _shown(row: Row) -> Mapping[str, Any]:
    limit_micros = row["limit_micros"]
    return {
        "id": row["id"],
        "object": "alert_delivery",
        "alert_id": row["alert_id"],
        "level": row["level"],
        "level_id": row["level_id"],
        "name": row["name"],
        "period": row["period"],
        "period_start": row["period_start"],
        "threshold_usd": format_usd(row["threshold_micros"]),
        "spent_usd": format_usd(row["spent_micros"]),
        "limit_usd": None if limit_micros is None else format_usd(limit_micros),
        "notification_channel": json.loads(row["channel"]),
        "created_at": row["created_at"],
        "attempts": row["attempts"],
        "delivered_at": row["delivered_at"],
        "given_up_at": row["given_up_at"],
        "failure": row["failure"],
    }
