"""/v1/organization/orphans: which holds does no evidence end, and what does a person say?

Look at the upstream's account first: what is said here moves money, once and for good.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, Final, TypeVar

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from gateway.api.organization.asking import (
    admin,
    change,
    cursor_of,
    fields_of,
    in_path,
    no_such,
    page_of,
)
from gateway.api.organization.checks import usd
from gateway.api.parts import Parts
from gateway.billing.audit_log import Change
from gateway.billing.money import format_usd
from gateway.db.script import Row, Script
from gateway.errors import InvalidRequest
from gateway.upstream.replies import MAX_ID_BYTES, is_usable_id
from gateway.videos.orphans import (
    NoOrphan,
    TooEarly,
    attach_orphan,
    page_of_orphans,
    release_orphan,
    settle_orphan,
)
from gateway.videos.records import Recorded

T = TypeVar("T")


def _upstream_id(value: Any) -> str:
    # Of a relay's ids nothing is certain but this: one may have a blank or a sign in it.
    if not isinstance(value, str):
        raise TypeError("a string")
    if not is_usable_id(value):
        raise ValueError(f"1 to {MAX_ID_BYTES} bytes without control characters")
    return value


_CHECKS: Final = {"amount_usd": usd, "upstream_id": _upstream_id}


async def list_(parts: Parts, request: Request) -> Response:
    """Answer with one page of orphans, those asked for longest ago first."""
    await admin(parts, request)
    cursor = cursor_of(request, newest_first=False)
    return page_of(await parts.database.read(partial(page_of_orphans, cursor)), _shown)


async def settle(parts: Parts, request: Request) -> Response:
    """Charge what is held, or what the bill says; or follow the upstream's video with an id."""
    admin_key_id = await admin(parts, request)
    fields = await fields_of(request, _CHECKS)
    video_id = in_path(request, "orphan_id")
    if len(fields) > 1:
        raise InvalidRequest(
            "Say 'amount_usd', or 'upstream_id' and what that video costs is found out: not both.",
            param="amount_usd",
        )
    upstream_id, amount = fields.get("upstream_id"), fields.get("amount_usd")
    if upstream_id is not None:
        attach = partial(_attach, video_id=video_id, upstream_id=upstream_id)
        outcome = await _end(parts, request, admin_key_id, attach)
        ended = {"outcome": outcome.value, "upstream_id": upstream_id}
    else:
        charge = partial(settle_orphan, video_id=video_id, list_micros=amount)
        settled_micros = await _end(parts, request, admin_key_id, charge)
        ended = {"outcome": "settled", "settled_usd": format_usd(settled_micros)}
    return JSONResponse({"id": video_id, "object": "orphan.ended", **ended})


async def release(parts: Parts, request: Request) -> Response:
    """Charge nothing: the upstream has made and billed nothing."""
    admin_key_id = await admin(parts, request)
    video_id = in_path(request, "orphan_id")
    await fields_of(request, {})
    free = partial(release_orphan, video_id=video_id)
    released_micros = await _end(parts, request, admin_key_id, free)
    ended = {"outcome": "released", "released_usd": format_usd(released_micros)}
    return JSONResponse({"id": video_id, "object": "orphan.ended", **ended})


async def _end(
    parts: Parts, request: Request, admin_key_id: str, script: Callable[[Change], Script[T]]
) -> T:
    try:
        return await change(parts, request, admin_key_id, script)
    except NoOrphan as error:
        raise no_such("orphan", in_path(request, "orphan_id")) from error
    except TooEarly as error:
        raise InvalidRequest(
            "What this orphan came from may still be under way: look at the upstream's account"
            f" again in {error.seconds} seconds.",
            param="orphan_id",
            code="orphan_too_early",
        ) from error


def _attach(made: Change, *, video_id: str, upstream_id: str) -> Script[Recorded]:
    recorded = yield from attach_orphan(made, video_id, upstream_id=upstream_id)
    if recorded is Recorded.DUPLICATE:
        raise InvalidRequest(
            f"The upstream's video '{upstream_id}' belongs to another video here.",
            param="upstream_id",
            code="upstream_id_taken",
        )
    return recorded


def _shown(row: Row) -> Mapping[str, Any]:
    return {
        "id": row["id"],
        "object": "orphan",
        "reason": row["orphan_reason"],
        "project_id": row["project_id"],
        "project_name": row["project"],
        "api_key_id": row["key_id"],
        "upstream": row["upstream"],
        "upstream_id": row["upstream_id"],
        "operation": row["operation"],
        "model": row["model"] or None,
        "size": row["size"] or None,
        "seconds": row["clip_seconds"],
        "price_usd": format_usd(row["list_micros"]),
        "held_usd": format_usd(row["amount_micros"]),
        "created_at": row["created_at"],
        "orphaned_at": row["orphaned_at"],
        "provider_request_id": row["provider_request_id"],
        "relay_request_id": row["relay_request_id"],
    }
