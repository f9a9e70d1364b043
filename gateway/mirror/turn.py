"""How does finished content get into our store before the upstream's copy expires?

One turn: claim the asset nearest to its expiry, join its download, copy it into the store as it
comes, and make it visible there only when it is whole: the length is the one announced and the
MP4's boxes add up. Then write down length and SHA-256. What is true if the process dies at each
step:

| step             | the store has      | what happens then                                     |
|---|---|---|
| mirror.claimed   | nothing            | the lease ends, the asset is fetched                  |
| mirror.written   | a temporary file   | the same; the file is swept away                      |
| mirror.stored    | the whole content  | it is hashed again and recorded, without a download   |
| mirror.recorded  | the whole content  | nothing is left to do                                 |
"""

import asyncio
import hashlib
from collections.abc import Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from functools import partial
from typing import Final

import structlog

from gateway.clock import Clock
from gateway.db.database import Database
from gateway.errors import StoreUnavailable
from gateway.mirror.assets import (
    AssetClaim,
    claim_asset,
    claim_assets,
    give_back,
    is_removed,
    renew,
    write_mirrored,
)
from gateway.mirror.failures import STORE_UNAVAILABLE, try_again, write_down
from gateway.mirror.fetch import Fetch
from gateway.mirror.fetched import FetchFailed, Whole
from gateway.mirror.fetches import Fetches
from gateway.mirror.kinds import HEAD_BYTES, NotTheContentError, file_name, type_of
from gateway.store import CHUNK_BYTES, ContentMissing, ContentStore, Described, Writing
from gateway.telemetry.metrics.mirror import STORE_FAILED, MirrorMetrics
from gateway.telemetry.traces import UNTRACED, Tracer, traced_turn
from gateway.turns import LEASE_SECONDS, Loop, Turns

STEPS: Final = ("mirror.claimed", "mirror.written", "mirror.stored", "mirror.recorded")
TURN_SECONDS: Final = 1.0

_log: structlog.typing.FilteringBoundLogger = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Mirroring:
    """What the mirror works with.

    Attributes:
        concurrency: assets mirrored at once, but for those that a client waits for.
        wake: set when an asset has become due.
        on_step: told the name of each of STEPS as it is reached.
    """

    database: Database
    store: ContentStore
    fetches: Fetches
    clock: Clock
    concurrency: int
    wake: asyncio.Event
    on_step: Callable[[str], None]
    metrics: MirrorMetrics
    tracer: Tracer = UNTRACED


class Mirror:
    """Mirrors assets while it runs; those that somebody waits for at once."""

    def __init__(self, mirroring: Mirroring) -> None:
        self._mirroring = mirroring
        self._turns = Turns(
            Loop(
                name="mirror",
                concurrency=mirroring.concurrency,
                idle_seconds=TURN_SECONDS,
                wake=mirroring.wake,
                claim=partial(_claim, mirroring),
                renew=partial(_renew, mirroring),
                turn=traced_turn(mirroring.tracer, "mirror", partial(mirror, mirroring)),
                give_back=partial(_give_back, mirroring),
            )
        )

    @property
    def fetches(self) -> Fetches:
        """The downloads that are under way in this process."""
        return self._mirroring.fetches

    def wake(self) -> None:
        """Look at once for what is due."""
        self._mirroring.wake.set()

    async def run(self) -> None:
        """Mirror what is due until cancelled."""
        await self._turns.run()

    async def begin(self, asset_id: str) -> bool:
        """Mirror an asset now, if it is due; tell whether it is being mirrored here."""
        mirroring = self._mirroring
        now = mirroring.clock.now()
        claims = await mirroring.database.run_beside(
            partial(claim_asset, asset_id, lease_ends_at=now + LEASE_SECONDS, now=now)
        )
        for claim in claims:
            await self._turns.begin(claim)
        return bool(claims)


class _LeaseLost(Exception):
    """Somebody else mirrors it, or nobody is to do it any more."""


async def _claim(mirroring: Mirroring, limit: int) -> list[AssetClaim]:
    now = mirroring.clock.now()
    return await mirroring.database.run_beside(
        partial(claim_assets, limit=limit, lease_ends_at=now + LEASE_SECONDS, now=now)
    )


async def _renew(mirroring: Mirroring, claim: AssetClaim) -> bool:
    lease_ends_at = mirroring.clock.now() + LEASE_SECONDS
    return await mirroring.database.run_beside(partial(renew, claim, lease_ends_at=lease_ends_at))


async def _give_back(mirroring: Mirroring, claims: Sequence[AssetClaim]) -> None:
    await mirroring.database.run_beside(partial(give_back, claims, now=mirroring.clock.now()))


async def mirror(mirroring: Mirroring, claim: AssetClaim) -> None:
    """Mirror one claimed asset, or write down why that failed and when it is tried again."""
    database, clock = mirroring.database, mirroring.clock
    mirroring.on_step("mirror.claimed")
    begun = clock.elapsed()

    def timed() -> structlog.typing.FilteringBoundLogger:
        return _log.bind(
            **claim.log_facts,
            attempt=claim.attempts,
            duration_seconds=round(clock.elapsed() - begun, 3),
        )

    try:
        whole = await _stored(mirroring, claim) or await _copied(mirroring, claim)
    except StoreUnavailable as error:
        log = timed()
        log.error("mirror_store_failed", cause=repr(error.__cause__))
        mirroring.metrics.turn(claim.variant, STORE_FAILED)
        await try_again(database, clock, claim, STORE_UNAVAILABLE, log=log)
    except FetchFailed as error:
        end = await write_down(database, clock, claim, error, log=timed())
        mirroring.metrics.turn(claim.variant, end)
    except _LeaseLost:
        timed().warning("lease_lost", loop="mirror")
    else:
        mirroring.on_step("mirror.stored")
        await _record(mirroring, claim, whole, log=timed())
        mirroring.on_step("mirror.recorded")


async def _stored(mirroring: Mirroring, claim: AssetClaim) -> Whole | None:
    # Only whole content gets the key: a turn that died before its record had finished the work.
    if claim.attempts == 1:
        return None
    digest, beginning = hashlib.sha256(), b""
    try:
        async with (
            mirroring.store.reading(claim.asset_id) as reading,
            aclosing(reading.chunks(start=0, end=reading.size)) as chunks,
        ):
            async for chunk in chunks:
                digest.update(chunk)
                beginning += chunk[: HEAD_BYTES - len(beginning)]
    except ContentMissing:
        return None
    # What has been found damaged is believed only as what it once was.
    if claim.sha256 not in (None, digest.hexdigest()):
        return None
    try:
        return Whole(type_of(claim.variant, beginning), reading.size, digest.hexdigest())
    except NotTheContentError:
        return None


async def _copied(mirroring: Mirroring, claim: AssetClaim) -> Whole:
    async with mirroring.fetches.join(claim.wanted) as fetch:
        await fetch.ready()
        name = file_name(claim.upstream_id, fetch.content_type)
        async with mirroring.store.writing(
            claim.asset_id, Described(fetch.content_type, name)
        ) as writing:
            whole = await _copy(fetch, writing)
            mirroring.on_step("mirror.written")
            # Whoever slept past his lease would put this in place of what others have mirrored.
            if not await _renew(mirroring, claim):
                raise _LeaseLost
            await writing.commit()
    return whole


async def _copy(fetch: Fetch, writing: Writing) -> Whole:
    offset = 0
    while fetch.whole is None or offset < fetch.whole.size_bytes:
        chunk = await fetch.read(offset=offset, length=CHUNK_BYTES)
        await writing.write(chunk)
        offset += len(chunk)
    return fetch.whole


async def _record(
    mirroring: Mirroring,
    claim: AssetClaim,
    whole: Whole,
    *,
    log: structlog.typing.FilteringBoundLogger,
) -> None:
    written = await mirroring.database.run_beside(
        partial(
            write_mirrored,
            claim,
            content_type=whole.content_type,
            size_bytes=whole.size_bytes,
            sha256=whole.sha256,
            now=mirroring.clock.now(),
        )
    )
    if written:
        mirroring.metrics.mirrored(
            claim.variant,
            size_bytes=whole.size_bytes,
            lag_seconds=mirroring.clock.now() - claim.created_at,
        )
        log.info("video_mirrored", size_bytes=whole.size_bytes)
    elif await mirroring.database.run(partial(is_removed, claim.asset_id)):
        # Deleted while it was on its way, perhaps after the store had been cleared of it.
        await mirroring.store.delete(claim.asset_id)
    else:
        log.warning("lease_lost", loop="mirror")
