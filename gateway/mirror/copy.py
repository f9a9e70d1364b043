"""How does all content get from one store into another?

Asset by asset, in the order in which they were mirrored, so that what is mirrored meanwhile comes
last; each is compared with its record while it streams through, and becomes visible in the other
store only if it is right. What is there already is passed over, so a copy that was broken off goes
on where it was. Nothing is ever deleted.
"""

from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from enum import Enum
from functools import partial

from gateway.db.database import Database
from gateway.errors import StoreUnavailable
from gateway.mirror.kept import Kept, is_unchanged, list_kept
from gateway.mirror.kinds import file_name
from gateway.mirror.rereading import Damaged, reread
from gateway.mirror.throttle import Throttle
from gateway.mirror.walk import Patience, at_once, pages
from gateway.store import ContentStore, Described


class Outcome(Enum):
    """What came of copying one asset."""

    COPIED = "copied"
    THERE = "there"  # it was there already
    DAMAGED = "damaged"  # the store copied from has not the right bytes
    FAILED = "failed"  # one of the two stores could not do it
    CHANGED = "changed"  # mirrored anew or removed meanwhile


@dataclass(frozen=True, slots=True)
class Copied:
    """What became of one asset.

    Attributes:
        found: a fixed word that says what is damaged.
        cause: what the failure of a store was, for a person.
    """

    asset: Kept
    outcome: Outcome
    found: str | None = None
    cause: str | None = None


@dataclass(frozen=True, slots=True)
class Copying:
    """What is copied with.

    Attributes:
        reread_target: whether what is there already is read again; else its length is believed.
        throttle: lets the bytes that are read from the source pass.
        concurrency: assets copied at once.
        told: told of each asset when something has become of it.
    """

    database: Database
    source: ContentStore
    target: ContentStore
    reread_target: bool
    throttle: Throttle
    concurrency: int
    told: Callable[[Copied], None]


async def copy(copying: Copying) -> None:
    """Copy all that is kept.

    Raises:
        StoreUnavailable: a store has failed several times in a row; the rest was not looked at.
    """
    patience = Patience()
    work = partial(_copy_one, copying, patience)
    listing = partial(list_kept, project_id=None)
    async with aclosing(pages(copying.database, listing)) as found:
        async for page in found:
            await at_once(page, work, concurrency=copying.concurrency)


async def _copy_one(copying: Copying, patience: Patience, asset: Kept) -> None:
    unavailable: StoreUnavailable | None = None
    try:
        if await _is_there(copying, asset):
            copied = Copied(asset, Outcome.THERE)
        else:
            await _copy(copying, asset)
            copied = Copied(asset, Outcome.COPIED)
    except Damaged as error:
        copied = Copied(asset, Outcome.DAMAGED, found=error.found)
    except StoreUnavailable as error:
        copied = Copied(asset, Outcome.FAILED, cause=f"{error} {error.__cause__ or ''}".strip())
        unavailable = error
    # What is written anew or removed while it is read cannot be read to its end everywhere.
    went_wrong = copied.outcome in {Outcome.DAMAGED, Outcome.FAILED}
    if went_wrong and not await copying.database.read(partial(is_unchanged, asset)):
        copied, unavailable = Copied(asset, Outcome.CHANGED), None
    copying.told(copied)
    if unavailable is None:
        patience.answered()
    else:
        patience.failed(unavailable)


async def _is_there(copying: Copying, asset: Kept) -> bool:
    if await copying.target.size(asset.asset_id) != asset.size_bytes:
        return False
    if not copying.reread_target:
        return True
    try:
        async with aclosing(reread(copying.target, asset)) as chunks:
            async for _ in chunks:
                pass
    except Damaged:
        return False
    return True


async def _copy(copying: Copying, asset: Kept) -> None:
    described = Described(asset.content_type, file_name(asset.upstream_id, asset.content_type))
    async with copying.target.writing(asset.asset_id, described) as writing:
        async with aclosing(reread(copying.source, asset)) as chunks:
            async for chunk in chunks:
                await writing.write(chunk)
                await copying.throttle.take(len(chunk))
        await writing.commit()
