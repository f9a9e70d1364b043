"""Does the store still have what was mirrored, and what happens where it does not?

Content is read again, those verified longest ago first, and compared with its record. What is
damaged is served no more from that moment on; the mirror fetches it again as long as the upstream
has it, and else an alarm rings. What could not be found out changes nothing.

Several may verify at once: each write says how the record looked before the content was read.
"""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from functools import partial
from typing import Final

from gateway.clock import Clock
from gateway.db.database import Database
from gateway.errors import StoreUnavailable
from gateway.mirror.kept import (
    Kept,
    is_unchanged,
    list_lost,
    list_to_verify,
    some_kept,
    write_damaged,
    write_found_again,
    write_verified,
)
from gateway.mirror.rereading import MISSING, Damaged, reread
from gateway.mirror.throttle import Throttle
from gateway.mirror.walk import Patience, at_once, pages
from gateway.store import ContentStore

# Of the first mirrored, and as many of the last.
_SAMPLE: Final = 10
_TOO_FEW_TO_TELL: Final = 3


class WrongStore(Exception):
    """The store has none of our content: it is another one, or empty.

    Such a store says "missing" of everything: a disk that is not mounted, or a setting that was
    changed. To believe it would give up all that the upstream no longer has.
    """


class Verdict(Enum):
    """What came of reading one asset again."""

    RIGHT = "right"
    DAMAGED = "damaged"  # it is fetched again
    LOST = "lost"  # damaged, and the upstream's copy has gone
    FOUND_AGAIN = "found_again"  # it was lost, and is in the store again
    NOT_CHECKED = "not_checked"
    CHANGED = "changed"  # mirrored anew or removed meanwhile


@dataclass(frozen=True, slots=True)
class Verified:
    """What was found out about one asset.

    Attributes:
        found: a fixed word that says what is wrong, or why it could not be found out.
        cause: what the store's failure was, for a person.
    """

    asset: Kept
    verdict: Verdict
    found: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Verifying:
    """What is verified with.

    Attributes:
        throttle: lets the bytes that are read pass.
        concurrency: assets read at once.
        told: told of each asset when it has been looked at.
    """

    database: Database
    store: ContentStore
    clock: Clock
    throttle: Throttle
    concurrency: int
    told: Callable[[Verified], None]


async def verify(
    verifying: Verifying, *, before: int, project_id: str | None = None, limit: int | None = None
) -> None:
    """Read again what was last verified at a moment or before, longest ago first.

    Raises:
        StoreUnavailable: the store has failed several times in a row; the rest was not looked at.
        WrongStore: it has nothing of what is looked for; nothing was changed.
    """
    round_ = _Round(before, Patience(), set())
    listing = partial(list_to_verify, before=before, project_id=project_id)
    work = partial(_verify_one, verifying, round_)
    async with aclosing(pages(verifying.database, listing, limit=limit)) as found:
        async for page in found:
            await at_once(page, work, concurrency=verifying.concurrency)


async def look_for_lost(verifying: Verifying, *, project_id: str | None = None) -> None:
    """Serve again what was lost and is in the store again: a person may have put it back.

    Raises:
        StoreUnavailable: the store has failed several times in a row; the rest was not looked at.
    """
    patience = Patience()
    listing = partial(list_lost, project_id=project_id)
    work = partial(_look_for_one, verifying, patience)
    async with aclosing(pages(verifying.database, listing)) as found:
        async for page in found:
            await at_once(page, work, concurrency=verifying.concurrency)


@dataclass(frozen=True, slots=True)
class _Round:
    """One call of verify().

    Attributes:
        verified: what was verified before that second was over, and is therefore listed again.
    """

    before: int
    patience: Patience
    verified: set[str]


async def _verify_one(verifying: Verifying, round_: _Round, asset: Kept) -> None:
    if asset.asset_id in round_.verified:
        return
    try:
        found = await _compare(verifying, asset)
        if found == MISSING:
            await _insist_on_store(verifying)
    except StoreUnavailable as error:
        await _not_checked(verifying, round_.patience, asset, error)
    else:
        round_.patience.answered()
        now = verifying.clock.now()
        if now <= round_.before:
            round_.verified.add(asset.asset_id)
        verdict = await _write(verifying, asset, found=found, now=now)
        verifying.told(Verified(asset, verdict, found))


async def _look_for_one(verifying: Verifying, patience: Patience, asset: Kept) -> None:
    try:
        found = await _compare(verifying, asset)
    except StoreUnavailable as error:
        verifying.told(_unknown(asset, error))
        patience.failed(error)
    else:
        patience.answered()
        if found is None:
            now = verifying.clock.now()
            await verifying.database.run(partial(write_found_again, asset, now=now))
            verifying.told(Verified(asset, Verdict.FOUND_AGAIN))


async def _compare(verifying: Verifying, asset: Kept) -> str | None:
    """Return what is wrong with the store's bytes, None: nothing is."""
    try:
        async with aclosing(reread(verifying.store, asset)) as chunks:
            async for chunk in chunks:
                await verifying.throttle.take(len(chunk))
    except Damaged as error:
        return error.found
    return None


async def _insist_on_store(verifying: Verifying) -> None:
    """Raise WrongStore unless the store has any of our content."""
    sample = await verifying.database.read(partial(some_kept, limit=_SAMPLE))
    for asset_id in sample:
        if await verifying.store.size(asset_id) is not None:
            return
    if len(sample) >= _TOO_FEW_TO_TELL:
        raise WrongStore


async def _not_checked(
    verifying: Verifying, patience: Patience, asset: Kept, error: StoreUnavailable
) -> None:
    # What is written anew or removed while it is read cannot be read to its end everywhere.
    if await verifying.database.read(partial(is_unchanged, asset)):
        verifying.told(_unknown(asset, error))
        patience.failed(error)
    else:
        verifying.told(Verified(asset, Verdict.CHANGED))


def _unknown(asset: Kept, error: StoreUnavailable) -> Verified:
    cause = str(error.__cause__ or error)
    return Verified(asset, Verdict.NOT_CHECKED, "store_unavailable", cause)


async def _write(verifying: Verifying, asset: Kept, *, found: str | None, now: int) -> Verdict:
    if found is None:
        script = partial(write_verified, asset, now=now)
        verdict = Verdict.RIGHT
    else:
        again = now < asset.expires_at
        script = partial(write_damaged, asset, failure=found, again=again, now=now)
        verdict = Verdict.DAMAGED if again else Verdict.LOST
    return verdict if await verifying.database.run(script) else Verdict.CHANGED
