"""How does any billable request become an answer?

Read once, check, price; then buy, or find the attempt that has bought it already and answer with
that one's first answer. Every billable operation goes this way.
"""

import asyncio
from dataclasses import dataclass, replace
from datetime import UTC, datetime, time
from email.utils import format_datetime
from functools import partial
from typing import Any, Final

import structlog
from starlette.requests import ClientDisconnect, Request
from starlette.responses import JSONResponse, Response

from gateway.api.body import ReadBody
from gateway.api.edge import call
from gateway.api.intent import idempotency_key_of, intent_of
from gateway.api.parts import Parts
from gateway.billing.budgets import Account, Standing, accounting_day, look
from gateway.billing.explain import refusal_message, remaining
from gateway.billing.keys import Key
from gateway.billing.money import format_usd
from gateway.errors import (
    Draining,
    InternalError,
    InvalidRequest,
    OperationNotOffered,
    OutcomeUnknown,
    StoreUnavailable,
)
from gateway.upstream.client import Body, FilePart, Upstream
from gateway.videos.attempts import (
    Earlier,
    Intent,
    look_again,
    write_left,
)
from gateway.videos.order import Order
from gateway.videos.outcomes import UNKNOWN_MESSAGE
from gateway.videos.submit import Submitted, submit

DRY_RUN: Final = "x-gateway-dry-run"
_OWN_HEADERS: Final = "x-gateway-"
_MILLISECONDS: Final = 1000
_LOOK_AGAIN_SECONDS: Final = 0.25

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checked request, and what of it is forwarded as it came."""

    order: Order
    body: ReadBody


def is_dry_run(request: Request) -> bool:
    """Tell whether a request only asks for its price.

    Raises:
        InvalidRequest: another `x-gateway-*` header, or another value: a misspelt one must not buy.
    """
    for name in request.headers:
        if name.startswith(_OWN_HEADERS) and name != DRY_RUN:
            raise InvalidRequest(
                f"Unknown request header '{name}'. A misspelt header must not buy a video.",
                param=name,
                code="unknown_header",
            )
    value = request.headers.get(DRY_RUN)
    if value not in {None, "true"}:
        raise InvalidRequest(
            f"Invalid value of '{DRY_RUN}': '{value}'. The only value is 'true'.", param=DRY_RUN
        )
    return value is not None


def check_health(parts: Parts) -> None:
    """Refuse to buy while the process drains, or when content could not be kept."""
    if parts.health.draining:
        raise Draining("This process is shutting down. Nothing was held.")
    if not parts.health.store_works:
        raise StoreUnavailable(
            "Content cannot be stored at the moment, so no video is bought. Nothing was held."
        )


def upstream_offering(parts: Parts, name: str, operation: str) -> Upstream:
    """Return an upstream, if it has an operation.

    Raises:
        OperationNotOffered: it has not.
    """
    upstream = parts.upstreams.get(name)
    if upstream is None:
        raise InternalError("The catalogue names an upstream that is not set up.")
    if operation not in upstream.settings.offers:
        raise OperationNotOffered(
            f"The upstream does not offer '{operation}'. It offers:"
            f" {', '.join(sorted(upstream.settings.offers))}."
        )
    return upstream


async def buy(parts: Parts, request: Request, key: Key, wanted: Wanted, *, offer: str) -> Response:
    """Answer a billable request: with its price alone, with a new purchase, or an earlier one."""
    upstream = upstream_offering(parts, wanted.order.upstream, offer)
    idempotency_key = idempotency_key_of(request)  # a dry run uses none, but refuses a wrong one
    if is_dry_run(request):
        return await _dry_run(parts, key, wanted.order)
    check_health(parts)
    intent = await intent_of(
        request, wanted.order, files=wanted.body.files, idempotency_key=idempotency_key
    )
    while True:
        outcome = await _attempt(parts, request, key, wanted, upstream=upstream, intent=intent)
        if isinstance(outcome, Submitted):
            return _created(parts, request, outcome, order=wanted.order)
        earlier = await _wait_for(parts, request, outcome)
        if not earlier.refused:
            return _replayed(parts, request, earlier, intent)
        # It bought nothing, so this request is the first of its intent now.
        check_health(parts)
        intent = replace(intent, is_first=True)


async def _attempt(
    parts: Parts,
    request: Request,
    key: Key,
    wanted: Wanted,
    *,
    upstream: Upstream,
    intent: Intent,
) -> Submitted | Earlier:
    video_id = parts.clock.new_id("vid")
    # Not awaited directly: a client that leaves now changes nothing.
    bought = parts.work.start(
        submit(
            parts.submitting,
            wanted.order,
            _outgoing(wanted),
            project_id=key.project_id,
            key_id=key.id,
            video_id=video_id,
            intent=intent,
            upstream=upstream,
            rate_card_sha256=parts.catalogue.sha256,
        )
    )
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(_note_leaving(parts, request, video_id))
        await asyncio.wait([bought])
        watcher.cancel()
    return bought.result()


async def _note_leaving(parts: Parts, request: Request, video_id: str) -> None:
    """Write down that the client has left before its answer: a retry of its SDK is for this one."""
    while (await request.receive())["type"] != "http.disconnect":
        pass
    call(request).facts["ending"] = "client_left"
    parts.work.start(parts.database.run(partial(write_left, video_id, now=parts.clock.now())))


async def _wait_for(parts: Parts, request: Request, earlier: Earlier) -> Earlier:
    """Return how the earlier attempt ended; a client that leaves meanwhile buys nothing."""
    while not earlier.over:
        await asyncio.sleep(_LOOK_AGAIN_SECONDS)
        earlier = await parts.database.read(
            partial(look_again, earlier.video_id, now=parts.clock.now())
        )
        if await request.is_disconnected():
            raise ClientDisconnect
    return earlier


def _created(parts: Parts, request: Request, submitted: Submitted, *, order: Order) -> Response:
    call(request).facts |= {"video_id": submitted.video_id, "cost_micros": submitted.price_micros}
    headers = {"x-gateway-cost-usd": format_usd(submitted.price_micros), **poll_after(parts)}
    left = remaining(submitted.standings, disclose=parts.settings.disclose_budgets)
    if left is not None:
        headers["x-gateway-budget-remaining-usd"] = format_usd(left.available_micros)
        headers["x-gateway-budget-level"] = left.level
    ids = submitted.accepted.request_ids
    upstream_request_id = ids.relay or ids.provider
    if upstream_request_id is not None:
        headers["x-upstream-request-id"] = upstream_request_id
    headers |= _notices(order, now=parts.clock.now())
    return Response(submitted.answer, media_type="application/json", headers=headers)


def _notices(order: Order, *, now: int) -> dict[str, str]:
    """Return RFC 8594's Sunset, and RFC 9745's Deprecation once that day has come."""
    if order.model is None or order.model.sunset is None:
        return {}
    begins = datetime.combine(order.model.sunset, time(), UTC)
    headers = {"sunset": format_datetime(begins, usegmt=True)}
    if now >= begins.timestamp():
        _log.info("model_past_sunset", model=order.model.id, sunset=str(order.model.sunset))
        headers["deprecation"] = f"@{int(begins.timestamp())}"
    return headers


def _replayed(parts: Parts, request: Request, earlier: Earlier, intent: Intent) -> Response:
    call(request).facts |= {"video_id": earlier.video_id, "deduplicated": True}
    if earlier.answer is None:
        raise OutcomeUnknown(UNKNOWN_MESSAGE)
    by_key = intent.idempotency_key is not None
    name = "idempotent-replayed" if by_key else "x-gateway-deduplicated"
    headers = {name: "true", **poll_after(parts)}
    return Response(earlier.answer, media_type="application/json", headers=headers)


def poll_after(parts: Parts) -> dict[str, str]:
    """Return the header that tells an SDK how fast to poll."""
    return {"openai-poll-after-ms": str(parts.settings.poll_interval_seconds * _MILLISECONDS)}


async def _dry_run(parts: Parts, key: Key, order: Order) -> Response:
    account = Account(key.project_id, key.id, accounting_day(parts.clock.now()))
    standings = await parts.database.read(partial(look, account))
    refusing = tuple(one for one in standings if one.available_micros < order.price_micros)
    shown = [one for one in standings if _may_see(parts, one)]
    message = None
    if refusing:
        message = refusal_message(
            refusing,
            price_micros=order.price_micros,
            model=order.model,
            disclose=parts.settings.disclose_budgets,
        )
    facts: dict[str, Any] = {
        "object": "video.dry_run",
        "operation": order.operation,
        **order.shown,
        "cost_usd": format_usd(order.price_micros),
        "allowed": not refusing,
        "message": message,
        "budgets": [
            {
                "level": one.level,
                "period": one.period,
                "remaining_usd": format_usd(one.available_micros - order.price_micros),
            }
            for one in shown
        ],
    }
    facts.pop("prompt", None)
    return JSONResponse(facts)


def _may_see(parts: Parts, standing: Standing) -> bool:
    return remaining((standing,), disclose=parts.settings.disclose_budgets) is not None


def _outgoing(wanted: Wanted) -> Body:
    attachment = wanted.order.attachment
    if attachment is None:
        return Body(fields=wanted.order.fields)
    return Body(
        fields=wanted.order.fields,
        file=FilePart(
            field=attachment.field,
            # SDKs send `upload` and application/octet-stream; the upstream wants the truth.
            filename=f"{attachment.field}.{attachment.extension}",
            content_type=attachment.content_type,
            content=wanted.body.files[attachment.field].file,
        ),
    )
