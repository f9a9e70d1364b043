"""How does any billable request become an answer?

Read once, check, price; then buy, or find the attempt that has bought it already and answer with
that one's first answer. Every billable operation goes this way.
"""

import asyncio
import contextlib
from dataclasses import dataclass, replace
from functools import partial
from typing import Final

from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response

from gateway.api.body import ReadBody
from gateway.api.dry_run import dry_run, is_dry_run
from gateway.api.edge import call
from gateway.api.headers import cost, limits_left, notices, poll_after
from gateway.api.intent import idempotency_key_of, intent_of
from gateway.api.parts import Parts
from gateway.billing.balances import Account, accounting_day, look
from gateway.billing.keys import ALL
from gateway.billing.usable_keys import Key
from gateway.errors import (
    DatabaseUnavailable,
    Draining,
    InsufficientPermissions,
    InternalError,
    OperationNotOffered,
    OutcomeUnknown,
    RateLimitExceeded,
    StoreUnavailable,
)
from gateway.upstream.client import Body, FilePart, Upstream
from gateway.videos.admission import Admitted
from gateway.videos.attempts import (
    Earlier,
    Intent,
    look_again,
    write_left,
    write_refused,
)
from gateway.videos.order import Order
from gateway.videos.outcomes import UNKNOWN_MESSAGE
from gateway.videos.submit import Submitted, submit

_LOOK_AGAIN_SECONDS: Final = 0.25


@dataclass(frozen=True, slots=True)
class Wanted:
    """A checked request, and what of it is forwarded as it came."""

    order: Order
    body: ReadBody


def check_health(parts: Parts) -> None:
    """Refuse to buy once the process ends or should, or when content could not be kept."""
    if parts.health.refusing:
        raise Draining("This process is shutting down. Nothing was held.")
    if parts.health.unfit is not None:
        # What is held might not be recorded; a newer process is there, or about to be.
        raise Draining("This process does not fit its database any more. Nothing was held.")
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
    if key.scope != ALL:
        raise InsufficientPermissions(
            "This key may only read. Ask whoever manages the gateway for a key that may buy."
        )
    upstream = upstream_offering(parts, wanted.order.upstream, offer)
    idempotency_key = idempotency_key_of(request)  # a dry run uses none, but refuses a wrong one
    if is_dry_run(request):
        call(request).facts["dry_run"] = True
        return await dry_run(parts, key, wanted.order, basis=parts.submitting.basis(upstream))
    intent = await intent_of(
        request, wanted.order, files=wanted.body.files, idempotency_key=idempotency_key
    )
    while True:
        try:
            check_health(parts)
            outcome = await _attempt(parts, request, key, wanted, upstream=upstream, intent=intent)
        except (RateLimitExceeded, Draining, StoreUnavailable) as error:
            if error.may_retry and intent.idempotency_key is None:
                is_new = isinstance(error, RateLimitExceeded)  # it is looked for before limits are
                await _note_refused(parts, key, intent, is_new=is_new)
            raise
        if isinstance(outcome, Submitted):
            return _created(parts, request, outcome, order=wanted.order)
        earlier = await _wait_for(parts, request, outcome)
        if not earlier.refused:
            return await _replayed(parts, request, key, earlier, intent)
        # It bought nothing, so this request is the first of its intent now.
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
            key=key,
            video_id=video_id,
            intent=intent,
            upstream=upstream,
            rate_card_sha256=parts.catalogue.sha256,
            facts=call(request).facts,
        )
    )
    async with asyncio.TaskGroup() as group:
        watcher = group.create_task(_note_leaving(parts, request, video_id))
        await asyncio.wait([bought])
        watcher.cancel()
    return bought.result()


async def _note_refused(parts: Parts, key: Key, intent: Intent, *, is_new: bool) -> None:
    """Write down that nothing was held: an SDK's retry of this is no repeat of what was bought."""
    script = partial(
        write_refused,
        intent,
        refused_id=parts.clock.new_id("refused"),
        key_id=key.id,
        is_new=is_new,
        now=parts.clock.now(),
    )
    with contextlib.suppress(DatabaseUnavailable):
        await parts.database.run(script)


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
    call(request).facts["cost_micros"] = submitted.price_micros
    headers = {
        **cost(submitted.price_micros),
        **poll_after(parts),
        **limits_left(parts, submitted.admitted),
        **notices(order, now=parts.clock.now()),
    }
    if "deprecation" in headers:
        call(request).facts["past_sunset"] = True
    ids = submitted.accepted.request_ids
    upstream_request_id = ids.relay or ids.provider
    if upstream_request_id is not None:
        headers["x-upstream-request-id"] = upstream_request_id
    return Response(submitted.answer, media_type="application/json", headers=headers)


async def _replayed(
    parts: Parts, request: Request, key: Key, earlier: Earlier, intent: Intent
) -> Response:
    call(request).facts |= {"video_id": earlier.video_id, "deduplicated": True}
    if earlier.answer is None:
        raise OutcomeUnknown(UNKNOWN_MESSAGE)
    by_key = intent.idempotency_key is not None
    account = Account(key.project_id, key.id, accounting_day(parts.clock.now()))
    standings = await parts.database.read(partial(look, account))
    headers = {
        "idempotent-replayed" if by_key else "x-gateway-deduplicated": "true",
        **cost(earlier.price_micros),
        **poll_after(parts),
        **limits_left(parts, Admitted(standings, ())),
    }
    return Response(earlier.answer, media_type="application/json", headers=headers)


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
