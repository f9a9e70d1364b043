"""Which content stores does a command work on?"""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path
from typing import Final, ParamSpec, TypeVar

import click

from gateway.cli.common import fail
from gateway.config import Settings
from gateway.store import ContentStore
from gateway.store.opening import open_store_url
from gateway.store.url import BucketUrl, StoreUrlError, parse_store_url

P = ParamSpec("P")
T = TypeVar("T")

# Assets read or written at once, by a command that does nothing else.
CONCURRENCY: Final = 4


def store_option(function: Callable[P, T]) -> Callable[P, T]:
    """Give a command the option that says which store it works on."""
    return click.option("--store-url", help="Where content lives, such as file:data/content.")(
        function
    )


def rate_option(function: Callable[P, T]) -> Callable[P, T]:
    """Give a command the option that says how fast it may read."""
    return click.option(
        "--bytes-per-second",
        type=click.IntRange(min=0),
        default=0,
        help="Read no faster than this; 0 is no limit.",
    )(function)


@asynccontextmanager
async def open_at(
    url: str, settings: Settings, *, make: bool = False
) -> AsyncIterator[ContentStore]:
    """Yield the store that a URL names, with the credentials of the settings where it takes any.

    Only with `make` is a folder made where there is none: an empty one, found in the wrong place,
    would say that everything is missing.

    Raises:
        click.ClickException: it names no store, or a folder that is not there.
    """
    async with AsyncExitStack() as stack:
        try:
            named = parse_store_url(url)
            if isinstance(named, Path) and not make:
                _insist_on(named)
            # The keys of the settings are a bucket's: a folder would refuse them.
            keyed = isinstance(named, BucketUrl) and named.scheme == "s3"
            store = await stack.enter_async_context(
                open_store_url(
                    url,
                    access_key_id=settings.store_access_key_id if keyed else "",
                    secret_access_key=settings.store_secret_access_key if keyed else "",
                )
            )
        except StoreUrlError as error:
            raise fail(f"{url} {error}") from error
        yield store


def _insist_on(folder: Path) -> None:
    try:
        there = folder.is_dir()
    except OSError as error:
        raise fail(f"cannot look at {folder}: {error.strerror}") from error
    if not there:
        raise fail(
            f"there is no content at {folder.absolute()}: is this the folder that `serve` runs in,"
            " or is --store-url missing?"
        )
