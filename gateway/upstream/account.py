"""How is the upstream's bill read?

`GET /api/log/self` of the account, authorised by the account's own token (bare: neither "Bearer"
nor the upstream key). The relay asks for windows of a day at most, one request at a time and a
second between pages; a query that takes it longer than 60 seconds is an error, and asked again will
not be faster, so nothing is asked twice. What one page says is bill.py's business.

    AccountError
    ├── TokenRefused   the account's token is wrong
    ├── LogRefused     the relay understood, and said no
    ├── Unreachable    no answer, or not in time
    ├── Unreadable     an answer that is no page of a log
    └── TooMuch        more rows than are read

Each of them means "could not find out": no list of rows is ever returned with a part missing.
"""

import asyncio
import zlib
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from http import HTTPStatus
from typing import Final

import httpx

from gateway import __version__
from gateway.upstream.bill import KINDS, BillRow, NotABill, Page, SaidNo, read_page
from gateway.upstream.envelopes import read_error
from gateway.upstream.transport import tls_context

PATH: Final = "/api/log/self"
WINDOW_SECONDS: Final = 86_400
MAX_PAGES: Final = 50
"""Pages of one window; a fuller one is halved, because it is the skipped rows that cost."""

MAX_ROWS: Final = 1_000_000
MAX_PAGE_BYTES: Final = 32 * 1024 * 1024
"""Of a page, compressed and not; one of 1,000 rows has about 1 MB."""

_GZIP_OR_ZLIB: Final = zlib.MAX_WBITS + 32
_GZIP_MAGIC: Final = b"\x1f\x8b"


@dataclass(frozen=True, slots=True)
class AccountSettings:
    """How one account at an upstream is read.

    Attributes:
        url: the origin, such as https://api.apiyi.com.
        token: the account's token, not the upstream key.
        page_rows: rows asked for at once; the relay allows 5,000.
        page_seconds: deadline of one page; the relay's own is 60.
        pause_seconds: between a full page and the next.
    """

    url: str
    token: str = field(repr=False)
    page_rows: int = 1_000
    page_seconds: float = 60
    pause_seconds: float = 1


class AccountError(Exception):
    """The bill could not be read; the message is for the operator and holds no secret."""


class TokenRefused(AccountError):
    """The relay does not accept the account's token."""


class LogRefused(AccountError):
    """The relay answered that it will not, or cannot, tell."""


class Unreachable(AccountError):
    """The relay did not answer, or not in time."""


class Unreadable(AccountError):
    """What came is no page of a log."""


class TooMuch(AccountError):
    """There are more rows than are read."""


async def read_bill(settings: AccountSettings, *, start: int, end: int) -> list[BillRow]:
    """Return every charge and refund from `start` to `end`, Unix seconds, both included.

    The order is the relay's, day by day. `end` should have passed: rows that are still being added
    move the pages under the reader.

    Raises:
        AccountError: one of its kinds; nothing is known then.
    """
    if not (settings.token.isascii() and settings.token.isprintable()):
        raise TokenRefused("The account's token has characters that no token has.")
    rows: list[BillRow] = []
    async with _client(settings) as client:
        for since, until in _days(start, end):
            for kind in KINDS:
                async for page in _window(client, settings, kind=kind, start=since, end=until):
                    rows += page.rows
                    if len(rows) > MAX_ROWS:
                        raise TooMuch(f"There are more than {MAX_ROWS} rows: reconcile fewer days.")
    return rows


def _client(settings: AccountSettings) -> httpx.AsyncClient:
    return httpx.AsyncClient(
        base_url=settings.url.rstrip("/"),
        headers={
            "authorization": settings.token,
            "accept": "application/json",
            "accept-encoding": "gzip",
            "user-agent": f"video-gateway/{__version__}",
        },
        timeout=settings.page_seconds,
        trust_env=False,
        verify=tls_context(),
    )


def _days(start: int, end: int) -> Iterator[tuple[int, int]]:
    for since in range(start, end + 1, WINDOW_SECONDS):
        yield since, min(since + WINDOW_SECONDS - 1, end)


async def _window(
    client: httpx.AsyncClient, settings: AccountSettings, *, kind: str, start: int, end: int
) -> AsyncIterator[Page]:
    pages: list[Page] = []
    before = b""
    for number in range(MAX_PAGES):
        query = {
            "p": number,
            "pageSize": settings.page_rows,
            "type": KINDS[kind],
            "start_timestamp": start,
            "end_timestamp": end,
        }
        body = await _ask(client, settings, query=query)
        page = _read(body, settings, kind=kind)
        # Only an empty page is the end: a relay may give fewer rows than it was asked for.
        if page.count == 0:
            break
        if body == before:
            raise Unreadable("The log answers every page alike: it cannot be read to its end.")
        before = body
        pages.append(page)
        if page.count >= settings.page_rows:
            await asyncio.sleep(settings.pause_seconds)
    else:
        if start == end:
            raise TooMuch(f"One second of the log has more than {MAX_PAGES} pages.")
        pages.clear()
        middle = (start + end) // 2
        for half in ((start, middle), (middle + 1, end)):
            async for page in _window(client, settings, kind=kind, start=half[0], end=half[1]):
                yield page
    for page in pages:
        yield page


async def _ask(
    client: httpx.AsyncClient, settings: AccountSettings, *, query: dict[str, int]
) -> bytes:
    """Return the body of one page, unpacked.

    Raises:
        TokenRefused: it was refused with 401 or 403.
        LogRefused: with another status that is not 200.
        Unreachable: nothing came, or not in time.
        Unreadable: it is too long, or broken.
    """
    try:
        async with (
            asyncio.timeout(settings.page_seconds),
            client.stream("GET", PATH, params=query) as response,
        ):
            packed = await _packed(response)
    except (TimeoutError, httpx.TimeoutException) as error:
        raise Unreachable(
            f"{settings.url} did not answer within {settings.page_seconds:g} seconds. Asking again"
            " will not be faster: reconcile fewer or younger days."
        ) from error
    except (httpx.HTTPError, httpx.InvalidURL) as error:
        raise Unreachable(
            f"{settings.url} could not be reached, or broke off ({type(error).__name__}); look at"
            " account_url."
        ) from error
    body = _unpacked(packed)
    status = response.status_code
    if status == HTTPStatus.OK:
        return body
    said = read_error(body, headers=response.headers).message
    words = f" It said: {_without(said, settings.token)}" if said else ""
    if status in {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN}:
        raise TokenRefused(
            "The relay does not accept the account's token. It is made in the account's profile"
            f" (system token); the upstream key does not work there.{words}"
        )
    raise LogRefused(f"The account's log answered with status {status}.{words}")


async def _packed(response: httpx.Response) -> bytes:
    packed = bytearray()
    # Raw: whether it is gzip is seen in the bytes, since the relay is known to mislabel them.
    async for chunk in response.aiter_raw():
        packed += chunk
        if len(packed) > MAX_PAGE_BYTES:
            raise Unreadable("A page of the log is too long to be read.")
    return bytes(packed)


def _unpacked(packed: bytes) -> bytes:
    if not packed.startswith(_GZIP_MAGIC):
        return packed
    unpacking = zlib.decompressobj(_GZIP_OR_ZLIB)
    try:
        body = unpacking.decompress(packed, MAX_PAGE_BYTES + 1)
    except zlib.error as error:
        raise Unreadable("A page of the log is broken: it says gzip and is not.") from error
    if len(body) > MAX_PAGE_BYTES:
        raise Unreadable("A page of the log is too long to be read.")
    if not unpacking.eof:
        raise Unreadable("A page of the log breaks off in its middle.")
    return body


def _read(body: bytes, settings: AccountSettings, *, kind: str) -> Page:
    try:
        return read_page(body, kind=kind)
    except SaidNo as error:
        words = _without(str(error), settings.token)
        raise LogRefused(
            f"The relay does not tell its log. It said: {words or 'nothing'}"
        ) from error
    except NotABill as error:
        raise Unreadable(
            f"What {settings.url}{PATH} answers cannot be read: {error}. Look at account_url."
        ) from error


def _without(words: str, secret: str) -> str:
    return words.replace(secret, "…") if secret else words
