"""/v1/organization/videos: what was bought, by whom, and where is it? Never what was prompted."""

from collections.abc import Mapping
from dataclasses import asdict
from functools import partial
from typing import Any, Final

from starlette.requests import Request
from starlette.responses import Response

from gateway.api.organization.asking import admin, cursor_of, page_of, several_of
from gateway.api.parts import Parts
from gateway.billing.ledger import HELD
from gateway.billing.money import format_usd
from gateway.db.script import Row
from gateway.errors import InvalidRequest
from gateway.videos.lifecycle import COMPLETED, FAILED, IN_PROGRESS, QUEUED
from gateway.videos.overview import list_all_videos
from gateway.videos.reading import shown_by

_STATUSES: Final = (QUEUED, IN_PROGRESS, COMPLETED, FAILED)
_FACTS: Final = (
    *("id", "kind", "upstream", "upstream_id", "project_id", "project_name", "operation"),
    *("status", "hold_id", "hold_state", "created_at", "recorded_at", "completed_at", "failed_at"),
    *("expires_at", "deleted_at", "refused_at", "orphaned_at", "orphan_reason", "mirrored_at"),
    *("size_bytes", "provider_request_id", "relay_request_id"),
)


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with one page of the videos of all projects, the newest first."""
    await admin(parts, request)
    script = partial(
        list_all_videos,
        cursor_of(request),
        project_ids=several_of(request, "project_ids"),
        statuses=_statuses(request),
    )
    return page_of(await parts.database.read(script), _shown)


def _statuses(request: Request) -> list[str]:
    found = several_of(request, "status")
    for one in found:
        if one not in _STATUSES:
            raise InvalidRequest(
                f"Invalid value: '{one}'. Supported values are: {', '.join(map(repr, _STATUSES))}.",
                param="status",
            )
    return found


def _shown(row: Row) -> Mapping[str, Any]:
    held = row["hold_state"] == HELD
    made = row if row["adopted_object"] is None else asdict(shown_by(row["adopted_object"]))
    return {
        "object": "organization.video",
        **{name: row[name] for name in _FACTS},
        "api_key_id": row["key_id"],
        "api_key_name": row["key_name"],
        "model": made["model"] or None,
        "size": made["size"] or None,
        "seconds": made["clip_seconds"],
        # Of an adopted one nobody knows what it cost, and nobody here has paid for it.
        "price_usd": None if row["list_micros"] is None else format_usd(row["list_micros"]),
        "held_usd": format_usd(row["amount_micros"] if held else 0),
        "spent_usd": format_usd(row["settled_micros"] or 0),
        "mirrored": row["mirrored_at"] is not None and row["gone_at"] is None,
    }
