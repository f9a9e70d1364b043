"""How does finished content get into our store before the upstream's copy expires?

One turn: claim the asset nearest to its expiry, stream it from the upstream into the store, and
make it visible there only when it is whole: the length is the one announced and the MP4's boxes
add up. Then write down length and SHA-256. What is true if the process dies at each step:

| step             | the store has      | what happens then                                     |
|---|---|---|
| mirror.claimed   | nothing            | the lease ends, the asset is fetched                  |
| mirror.written   | a temporary file   | the same; the file is swept away                      |
| mirror.stored    | the whole content  | it is hashed again and recorded, without a download   |
| mirror.recorded  | the whole content  | nothing is left to do                                 |
"""

import asyncio
import hashlib
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.db.database import Database
from gateway.errors import StoreUnavailable
from gateway.store import ContentStore
from gateway.turns import Loop, work_off
from gateway.upstream.client import Upstream
from gateway.upstream.content import ContentStream, ContentUnavailable
from gateway.videos.assets import (
    AssetClaim,
    claim_assets,
    give_back,
    renew,
    write_failure,
    write_gone,
    write_mirrored,
)
from gateway.videos.mp4 import Mp4Check

STEPS: Final = ("mirror.claimed", "mirror.written", "mirror.stored", "mirror.recorded")
TURN_SECONDS: Final = 1.0
# How long after its expiry content is asked for, unless the upstream says that it is gone.
GRACE_SECONDS: Final = 3600
_GONE_STATUSES: Final = (404, 410)
LEASE_SECONDS: Final = 60
RENEW_SECONDS: Final = 20
# A second, then twice as long each time: content may be missing for seconds after completion.
_BACKOFF_LIMIT_SECONDS: Final = 300
_BACKOFF_DOUBLINGS: Final = 9
# What a variant is when the store has it but the record died: the types of OpenAI's guide.
_TYPES: Final = {"video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg"}

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Mirroring:
    """What the mirror works with.

    Attributes:
        concurrency: downloads under way at once.
        max_content_bytes: a longer asset is not mirrored.
        wake: set when an asset has become due.
        on_step: told the name of each of STEPS as it is reached.
    """

    database: Database
    store: ContentStore
    upstreams: Mapping[str, Upstream]
    clock: Clock
    concurrency: int
    max_content_bytes: int
    wake: asyncio.Event
    on_step: Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Mirrored:
    """Content that is whole in the store."""

    content_type: str
    size_bytes: int
    sha256: str


class _UnusableError(Exception):
    """What the upstream sent is not the asset; the text says why in fixed words."""


async def mirror_forever(mirroring: Mirroring) -> None:
    """Mirror assets until cancelled."""
    await work_off(
        Loop(
            name="mirror",
            concurrency=mirroring.concurrency,
            idle_seconds=TURN_SECONDS,
            wake=mirroring.wake,
            claim=partial(_claim, mirroring),
            turn=partial(mirror, mirroring),
            give_back=partial(_give_back, mirroring),
        )
    )


def _is_gone(claim: AssetClaim, error: Exception, *, now: int) -> bool:
    """Tell whether the upstream's copy has gone: one fault of the network is not the end of it."""
    if now < claim.expires_at:
        return False
    said_so = isinstance(error, ContentUnavailable) and error.status in _GONE_STATUSES
    return said_so or now >= claim.expires_at + GRACE_SECONDS


async def _claim(mirroring: Mirroring, limit: int) -> list[AssetClaim]:
    now = mirroring.clock.now()
    return await mirroring.database.run(
        partial(claim_assets, limit=limit, lease_ends_at=now + LEASE_SECONDS, now=now)
    )


async def _give_back(mirroring: Mirroring, claims: Sequence[AssetClaim]) -> None:
    await mirroring.database.run(partial(give_back, claims, now=mirroring.clock.now()))


async def mirror(mirroring: Mirroring, claim: AssetClaim) -> None:
    """Mirror one claimed asset, or write down why that failed and when it is tried again."""
    mirroring.on_step("mirror.claimed")
    log = _log.bind(video_id=claim.video_id, variant=claim.variant, attempt=claim.attempts)
    begun = mirroring.clock.elapsed()
    try:
        mirrored = await _stored(mirroring, claim) or await _fetch(mirroring, claim)
    except StoreUnavailable as error:
        log.error("mirror_store_failed", cause=repr(error.__cause__))
        await _try_again(mirroring, claim, "store_unavailable", log=log)
        return
    except (ContentUnavailable, _UnusableError) as error:
        failure = error.reason if isinstance(error, ContentUnavailable) else str(error)
        if _is_gone(claim, error, now=mirroring.clock.now()):
            await _give_up(mirroring, claim, failure, log=log)
        else:
            await _try_again(mirroring, claim, failure, log=log)
        return
    mirroring.on_step("mirror.stored")
    script = partial(
        write_mirrored,
        claim,
        content_type=mirrored.content_type,
        size_bytes=mirrored.size_bytes,
        sha256=mirrored.sha256,
        now=mirroring.clock.now(),
    )
    if await mirroring.database.run(script):
        log.info(
            "video_mirrored",
            size_bytes=mirrored.size_bytes,
            duration_seconds=round(mirroring.clock.elapsed() - begun, 3),
        )
    mirroring.on_step("mirror.recorded")


async def _stored(mirroring: Mirroring, claim: AssetClaim) -> Mirrored | None:
    # Only whole content gets the key: a turn that died before its record had finished the work.
    found = await mirroring.store.sha256(claim.asset_id)
    return None if found is None else Mirrored(_TYPES[claim.variant], *found)


async def _fetch(mirroring: Mirroring, claim: AssetClaim) -> Mirrored:
    upstream = mirroring.upstreams.get(claim.upstream)
    if upstream is None:
        raise _UnusableError("no_such_upstream")
    digest = hashlib.sha256()
    boxes = Mp4Check()
    size_bytes = 0
    async with (
        upstream.content(claim.upstream_id, claim.variant) as stream,
        mirroring.store.writing(claim.asset_id) as writing,
    ):
        async for chunk in _renewing(mirroring, claim, stream):
            size_bytes += len(chunk)
            if size_bytes > mirroring.max_content_bytes:
                raise _UnusableError("too_large")
            digest.update(chunk)
            boxes.feed(chunk)
            await writing.write(chunk)
        if stream.size is not None and size_bytes != stream.size:
            raise _UnusableError("wrong_length")
        content_type = _content_type(claim.variant, stream.content_type, boxes=boxes)
        mirroring.on_step("mirror.written")
        await writing.commit()
    return Mirrored(content_type, size_bytes, digest.hexdigest())


def _content_type(variant: str, announced: str | None, *, boxes: Mp4Check) -> str:
    """Return the type that a variant is served under, once it is known to be one."""
    if variant == "video":
        if not boxes.facts().complete:
            raise _UnusableError("not_a_whole_mp4")
        return _TYPES[variant]
    kind = (announced or "").partition(";")[0].strip().lower()
    if not kind.startswith("image/"):
        raise _UnusableError("not_an_image")
    return kind


async def _renewing(
    mirroring: Mirroring, claim: AssetClaim, stream: ContentStream
) -> AsyncIterator[bytes]:
    renewed = mirroring.clock.elapsed()
    async for chunk in stream.chunks():
        if mirroring.clock.elapsed() - renewed > RENEW_SECONDS:
            lease_ends_at = mirroring.clock.now() + LEASE_SECONDS
            if not await mirroring.database.run(partial(renew, claim, lease_ends_at=lease_ends_at)):
                raise _UnusableError("lease_lost")
            renewed = mirroring.clock.elapsed()
        yield chunk


async def _try_again(
    mirroring: Mirroring,
    claim: AssetClaim,
    failure: str,
    *,
    log: structlog.typing.FilteringBoundLogger,
) -> None:
    wait_seconds = min(2 ** min(claim.attempts - 1, _BACKOFF_DOUBLINGS), _BACKOFF_LIMIT_SECONDS)
    log.warning("mirror_failed", failure=failure, retry_seconds=wait_seconds)
    due_at = mirroring.clock.now() + wait_seconds
    await mirroring.database.run(partial(write_failure, claim, failure=failure, due_at=due_at))


async def _give_up(
    mirroring: Mirroring,
    claim: AssetClaim,
    failure: str,
    *,
    log: structlog.typing.FilteringBoundLogger,
) -> None:
    # Paid for and never obtainable: a person decides whether the spend is adjusted.
    log.error("content_lost", failure=failure, expires_at=claim.expires_at)
    now = mirroring.clock.now()
    await mirroring.database.run(partial(write_gone, claim, failure=failure, now=now))
