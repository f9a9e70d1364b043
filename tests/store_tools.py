"""What do the tests of object stores have in common?"""

import resource
from collections.abc import AsyncIterator, Awaitable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import pytest
from object_servers import ACCESS_KEY_ID, SECRET_ACCESS_KEY, Line, ObjectServer, line_to

from gateway.errors import StoreUnavailable
from gateway.store import UNNAMED, ContentStore, Described
from gateway.store.buckets import Credentials, Deadlines, open_bucket
from gateway.store.objects import ObjectReading, ObjectStore
from gateway.store.url import BucketUrl, parse_store_url

MIB: Final = 1 << 20
KEYS: Final = Credentials(ACCESS_KEY_ID, SECRET_ACCESS_KEY)
# Everything that a hanging store makes wait, made short; long enough for a busy machine.
IMPATIENT: Final = Deadlines(
    connect_seconds=1,
    answer_seconds=1,
    part_seconds=2,
    again_seconds=0.5,
    abandon_seconds=1,
    check_seconds=1,
)


def open_objects(
    url: str, *, credentials: Credentials = KEYS, deadlines: Deadlines | None = None
) -> ObjectStore:
    bucket = open_bucket(_named(url), credentials=credentials, deadlines=deadlines or Deadlines())
    return ObjectStore(bucket)


def prefix_of(url: str) -> str:
    return _named(url).prefix


def _named(url: str) -> BucketUrl:
    named = parse_store_url(url)
    assert isinstance(named, BucketUrl)
    return named


@dataclass(frozen=True)
class Far:
    """A store behind a line, and the same store without the line."""

    url: str
    line: Line
    store: ObjectStore
    direct: ObjectStore


@asynccontextmanager
async def far_store(
    server: ObjectServer, *, deadlines: Deadlines = IMPATIENT
) -> AsyncIterator[Far]:
    async with line_to(server) as line:
        url = server.url()
        behind = server.url(prefix_of(url), port=line.port)
        yield Far(url, line, open_objects(behind, deadlines=deadlines), open_objects(url))


async def put(
    store: ContentStore, key: str, content: bytes, described: Described = UNNAMED
) -> None:
    async with store.writing(key, described) as writing:
        for start in range(0, len(content), 70_001):
            await writing.write(content[start : start + 70_001])
        await writing.commit()


async def get(store: ObjectStore, key: str) -> bytes:
    async with store.reading(key) as reading:
        return await get_all(reading)


async def get_all(reading: ObjectReading) -> bytes:
    return b"".join([chunk async for chunk in reading.chunks(start=0, end=reading.size)])


async def keys_of(store: ContentStore) -> list[str]:
    return [one.key async for one in store.stored()]


async def is_unavailable(operation: Awaitable[object]) -> BaseException:
    """Insist on StoreUnavailable, and return its cause."""
    with pytest.raises(StoreUnavailable) as failure:
        await operation
    assert str(failure.value).startswith("The content store could not be ")
    cause = failure.value.__cause__
    assert cause is not None
    return cause


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
