"""Does a reader ever get anything but whole content, whoever writes, evicts, sweeps and dies?

A real folder and a real database, and the turns of several processes taken apart into their steps,
so that every order of them can be tried: leases end while somebody writes, the upstream's content
becomes another, files get lost, videos are deleted, temporary files are swept away.
"""

import asyncio
import hashlib
import random
import time
from collections.abc import AsyncGenerator, Callable
from contextlib import AbstractAsyncContextManager, AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
from databases import a_folder, opened_at, url_of
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from ledger_tools import KEYS, NOW, opened, profile, rows
from test_assets import an_asset

from gateway.db.script import Script
from gateway.errors import StoreUnavailable
from gateway.mirror.assets import (
    AssetClaim,
    claim_asset,
    give_back,
    is_removed,
    renew,
    write_failure,
    write_mirrored,
)
from gateway.mirror.eviction import remove
from gateway.mirror.keeping import IS_KEPT
from gateway.mirror.kept import list_kept, write_damaged
from gateway.mirror.purge import write_purged
from gateway.store import ContentMissing, Reading, Writing
from gateway.store.folder import FolderStore
from gateway.turns import LEASE_SECONDS
from gateway.videos.listing import delete_video

T = TypeVar("T")

ASSETS = {f"asset_{number}": f"up_{number}" for number in range(1, 41)}
# Of these so many are looked at; what is purged is followed by the next.
PLACES = 2
PROJECT = KEYS["key_a"]
LONG_SECONDS = 3600
# More than the store writes at once, so that files are seen that are half there.
CONTENT_BYTES = (1, 70_000, 1_200_000)

picks = st.integers(min_value=0, max_value=9)
places = st.integers(min_value=0, max_value=PLACES - 1)


@dataclass(eq=False)
class Writer:
    """A turn of some process.

    Attributes:
        opened: its file, until it is committed or the turn is over.
        whole: size and SHA-256 of what it has put into the store, or found there.
    """

    claim: AssetClaim
    content: bytes = b""
    at: int = 0
    opened: AbstractAsyncContextManager[Writing] | None = None
    writing: Writing | None = None
    whole: tuple[int, str] | None = None


@dataclass(eq=False)
class Reader:
    """Somebody who downloads from the store.

    Attributes:
        content: what he is to get.
    """

    opened: AbstractAsyncContextManager[Reading]
    reading: Reading
    content: bytes


@dataclass
class Upstream:
    """What the upstream has, and has ever had."""

    editions: dict[str, int] = field(default_factory=lambda: dict.fromkeys(ASSETS, 0))
    contents: dict[str, bytes] = field(default_factory=dict)

    def content(self, asset_id: str) -> bytes:
        chance = random.Random(f"{asset_id} {self.editions[asset_id]}")
        content = chance.randbytes(chance.choice(CONTENT_BYTES))
        self.contents[hashed(content)] = content
        return content


def hashed(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


class Mirrors(RuleBasedStateMachine):
    """A few assets, and everybody who has to do with them.

    Attributes:
        template: the database that each begins with.
    """

    template: ClassVar[Path]

    def __init__(self) -> None:
        super().__init__()
        self.gone = ExitStack()
        self.folder = self.gone.enter_context(a_folder())
        url_of(self.folder / "gateway.db", like=self.template)
        self.runner = asyncio.Runner()
        self.stack = AsyncExitStack()
        self.database = self.runner.run(
            self.stack.enter_async_context(opened_at(self.folder / "gateway.db"))
        )
        self.store = FolderStore(self.folder / "content")
        self.upstream = Upstream()
        self.now = NOW
        self.writers: list[Writer] = []
        self.readers: list[Reader] = []
        self.dead: list[Writer] = []
        self.kept: list[dict[str, Any]] = []
        self.lost: set[str] = set()
        self.coming = iter(ASSETS)
        self.assets = [next(self.coming) for _ in range(PLACES)]

    def teardown(self) -> None:
        try:
            self.everything_can_still_be_mirrored()
        finally:
            for one in [*self.writers, *self.dead]:
                self.let_go(one)
            for reader in self.readers:
                self.leave(reader.opened)
            self.runner.run(self.stack.aclose())
            self.runner.close()
            self.gone.close()

    @rule(place=places, late=st.booleans(), lost=st.booleans())
    def begin(self, place: int, *, late: bool = False, lost: bool = False) -> None:
        """Somebody claims an asset that is due; what the store has he takes for his own."""
        if late:
            self.time_passes(place, LEASE_SECONDS, changed=True)
        if lost:
            self.lose(self.assets[place])
            self.verify()
        asset_id = self.assets[place]
        claims = self.run(
            partial(claim_asset, asset_id, lease_ends_at=self.now + LEASE_SECONDS, now=self.now)
        )
        if not claims:
            return
        writer = Writer(claims[0])
        found = self.runner.run(self.store.sha256(asset_id))
        if found is not None and writer.claim.sha256 in {None, found[1]}:
            writer.whole = found
        else:
            writer.content = self.upstream.content(asset_id)
            writer.opened = self.store.writing(asset_id)
            writer.writing = self.runner.run(entered(writer.opened))
        self.writers.append(writer)

    @precondition(lambda self: self.writers)
    @rule(pick=picks, changed=st.booleans())
    def somebody_is_overtaken(self, pick: int, *, changed: bool) -> None:
        """His lease ends, and a whole turn of another process follows."""
        asset_id = self.picked(pick).claim.asset_id
        if asset_id in self.assets:
            self.mirror_wholly(self.assets.index(asset_id), changed=changed)

    def mirror_wholly(self, place: int, *, changed: bool) -> None:
        self.time_passes(place, LEASE_SECONDS, changed=changed)
        before = len(self.writers)
        self.begin(place)
        for writer in self.writers[before:]:
            self.put(writer)
            self.tell(writer)

    @precondition(lambda self: self.writers)
    @rule(pick=picks, size=st.integers(min_value=1, max_value=1_200_000))
    def somebody_writes(self, pick: int, size: int) -> None:
        self.write(self.picked(pick), size)

    @precondition(lambda self: self.writers)
    @rule(pick=picks)
    def somebody_puts_it_into_the_store(self, pick: int) -> None:
        self.put(self.picked(pick))

    @precondition(lambda self: self.writers)
    @rule(pick=picks)
    def somebody_writes_it_down(self, pick: int) -> None:
        self.tell(self.picked(pick))

    @precondition(lambda self: self.writers)
    @rule(pick=picks, act=st.sampled_from(["renew", "give up", "die", "all die"]))
    def somebody_comes_to_an_end(self, pick: int, act: str) -> None:
        writer = self.picked(pick)
        match act:
            case "renew" if self.renewed(writer):
                pass
            case "renew":
                self.end(writer)
            case "give up":
                self.run(partial(give_back, [writer.claim], now=self.now))
                self.end(writer)
            case "die":
                self.crash([writer])
            case _:
                self.crash(list(self.writers))
                self.store = FolderStore(self.folder / "content")

    def write(self, writer: Writer, size: int) -> None:
        if writer.writing is not None:
            piece = writer.content[writer.at : writer.at + size]
            self.runner.run(writer.writing.write(piece))
            writer.at += len(piece)

    def put(self, writer: Writer) -> None:
        """Write the rest and make it visible; whose temporary file was swept away cannot."""
        if writer.writing is None:
            return
        self.write(writer, len(writer.content))
        if not self.renewed(writer):
            self.end(writer)
            return
        try:
            self.runner.run(writer.writing.commit())
        except StoreUnavailable:
            due_at = self.now + 1
            self.run(partial(write_failure, writer.claim, failure="store", due_at=due_at))
            self.end(writer)
            return
        self.lost.discard(writer.claim.asset_id)
        writer.whole = len(writer.content), hashed(writer.content)
        self.let_go(writer)

    def tell(self, writer: Writer) -> None:
        """Write down what was put into the store."""
        if writer.whole is None:
            return
        size_bytes, sha256 = writer.whole
        written = self.run(
            partial(
                write_mirrored,
                writer.claim,
                content_type="video/mp4",
                size_bytes=size_bytes,
                sha256=sha256,
                now=self.now,
            )
        )
        if not written and self.run(partial(is_removed, writer.claim.asset_id)):
            self.runner.run(self.store.delete(writer.claim.asset_id))
        self.end(writer)

    def crash(self, dying: list[Writer]) -> None:
        """Nothing is cleaned up."""
        self.dead += dying
        self.writers = [one for one in self.writers if one not in dying]

    @precondition(lambda self: self.kept and len(self.readers) < PLACES)
    @rule(pick=picks)
    def open_for_reading(self, pick: int) -> None:
        """Somebody opens what the record says is there."""
        row = self.kept[pick % len(self.kept)]
        asset_id = row["id"]
        manager = self.store.reading(asset_id)
        try:
            reading = self.runner.run(entered(manager))
        except ContentMissing:
            assert asset_id in self.lost
            return
        assert reading.size == row["size_bytes"]
        content = self.upstream.contents[row["sha256"]]
        self.readers.append(Reader(manager, reading, content))

    @precondition(lambda self: self.readers)
    @rule(
        pick=picks,
        cuts=st.lists(st.integers(min_value=0, max_value=1_300_000), max_size=2),
        leaves=st.booleans(),
    )
    def read(self, pick: int, cuts: list[int], *, leaves: bool) -> None:
        """Somebody reads a part, or the whole, and may leave then."""
        reader = self.readers[pick % len(self.readers)]
        size = reader.reading.size
        start, *_, end = sorted([0, size] if len(cuts) < 2 else [min(cut, size) for cut in cuts])
        with suppress(StoreUnavailable):
            part = self.runner.run(collected(reader.reading.chunks(start=start, end=end)))
            assert part == reader.content[start:end]
        if leaves:
            self.readers.remove(reader)
            self.leave(reader.opened)

    @rule(
        place=places,
        act=st.sampled_from(
            ["evict", "delete", "purge", "purge and die", "lose", "verify", "sweep", "wait"]
        ),
    )
    def something_else_happens(self, place: int, act: str) -> None:
        asset_id = self.assets[place]
        match act:
            case "evict":
                self.run(partial(remove, [asset_id], reason="space", now=self.now))
            case "delete":
                owned = {"project_id": PROJECT, "upstream_id": ASSETS[asset_id]}
                self.run(partial(delete_video, **owned, now=self.now))
            case "purge" | "purge and die":
                self.purge(place, dies=act != "purge")
            case "lose":
                self.lose(asset_id)
            case "verify":
                self.verify()
            case "wait":
                self.time_passes(place, LEASE_SECONDS // 2, changed=True)
            case _:
                # All temporary files are old, also of those who still write.
                later = int(time.time()) + 60
                self.runner.run(self.store.sweep(older_than_seconds=0, now=later))

    def time_passes(self, place: int, seconds: int, *, changed: bool) -> None:
        """Leases end, and what the upstream has may become another."""
        self.now += seconds
        self.upstream.editions[self.assets[place]] += changed

    def purge(self, place: int, *, dies: bool) -> None:
        """Let the bytes go of what was removed; whoever dies has not written it down."""
        asset_id = self.assets[place]
        if self.row(asset_id)["removed_at"] is None:
            return
        self.runner.run(self.store.delete(asset_id))
        if not dies:
            self.run(partial(write_purged, [asset_id], now=self.now))
            self.assets[place] = next(self.coming, asset_id)

    def lose(self, asset_id: str) -> None:
        for path in self.visible():
            if path.name == asset_id:
                path.unlink()
                self.lost.add(asset_id)

    def verify(self) -> None:
        """Read everything again: what is lost is mirrored once more."""
        for kept in self.run(partial(list_kept, project_id=None, after=None, limit=99)):
            if self.runner.run(self.store.sha256(kept.asset_id)) is None:
                script = partial(write_damaged, kept, failure="missing", again=True, now=self.now)
                self.run(script)
                self.lost.discard(kept.asset_id)

    @invariant()
    def what_is_said_to_be_mirrored_is_there(self) -> None:
        self.kept = self.rows(f"SELECT * FROM assets WHERE {IS_KEPT}")
        for row in self.kept:
            if row["id"] not in self.lost:
                found = self.runner.run(self.store.sha256(row["id"]))
                assert found == (row["size_bytes"], row["sha256"])

    @invariant()
    def what_is_visible_is_whole(self) -> None:
        for path in self.visible():
            assert path.name in ASSETS
            assert hashed(path.read_bytes()) in self.upstream.contents

    @invariant()
    def what_was_purged_comes_back_only_while_somebody_has_still_to_look(self) -> None:
        looks = {writer.claim.asset_id for writer in [*self.writers, *self.dead] if writer.whole}
        for row in self.rows("SELECT * FROM assets WHERE purged_at IS NOT NULL"):
            if row["id"] not in looks:
                assert self.runner.run(self.store.size(row["id"])) is None

    def everything_can_still_be_mirrored(self) -> None:
        self.crash(list(self.writers))
        self.verify()
        for place, asset_id in enumerate(self.assets):
            self.mirror_wholly(place, changed=False)
            row = self.row(asset_id)
            assert row["mirrored_at"] is not None or row["removed_at"] is not None
        self.what_is_said_to_be_mirrored_is_there()

    def renewed(self, writer: Writer) -> bool:
        ends_at = self.now + LEASE_SECONDS
        return self.run(partial(renew, writer.claim, lease_ends_at=ends_at))

    def picked(self, pick: int) -> Writer:
        return self.writers[pick % len(self.writers)]

    def end(self, writer: Writer) -> None:
        self.writers.remove(writer)
        self.let_go(writer)

    def let_go(self, writer: Writer) -> None:
        """Leave the file of a writing, as whoever is alive does."""
        if writer.opened is not None:
            self.leave(writer.opened)
            writer.opened = writer.writing = None

    def leave(self, manager: AbstractAsyncContextManager[Any]) -> None:
        self.runner.run(left(manager))

    def visible(self) -> list[Path]:
        return [path for path in (self.folder / "content").glob("??/*") if path.is_file()]

    def row(self, asset_id: str) -> dict[str, Any]:
        (row,) = self.rows("SELECT * FROM assets WHERE id = $1", asset_id)
        return row

    def rows(self, text: str, *args: str) -> list[dict[str, Any]]:
        return self.run(partial(rows, text, *args))

    def run(self, script: Callable[[], Script[T]]) -> T:
        return self.runner.run(self.database.run(script))


async def make_template(path: Path) -> None:
    """Make a database with the assets of videos that have just been completed."""
    async with opened(path) as database:
        for number in range(1, len(ASSETS) + 1):
            await database.run(partial(an_asset, number, expires_at=NOW + 86_400))


async def entered(manager: AbstractAsyncContextManager[T]) -> T:
    return await manager.__aenter__()


async def left(manager: AbstractAsyncContextManager[Any]) -> None:
    await manager.__aexit__(None, None, None)


async def collected(chunks: AsyncGenerator[bytes, None]) -> bytes:
    return b"".join([chunk async for chunk in chunks])


@pytest.mark.timeout(LONG_SECONDS)
def test_whatever_happens_readers_get_whole_content_and_the_record_is_true(tmp_path: Path) -> None:
    Mirrors.template = tmp_path / "gateway.db"
    asyncio.run(make_template(Mirrors.template))
    run_state_machine_as_test(Mirrors, settings=profile())
