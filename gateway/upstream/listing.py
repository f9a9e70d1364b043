"""Which videos does the upstream say that it has?

OpenAI's list is a cursor page: `{"object": "list", "data": […], "last_id", "has_more"}`, and the
next page is what comes after `last_id`. Relays need not have one: they answer 404, or with the page
of their own web site. Nothing here is believed but the ids; whoever walks the pages ends at one
that brings none anew, whatever `has_more` says.
"""

from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from http import HTTPStatus
from typing import Any, Final, TypeAlias
from urllib.parse import quote

from gateway.upstream.envelopes import read_json, request_ids
from gateway.upstream.patience import patiently
from gateway.upstream.replies import Unclear, is_usable_id, judge_retrieve

PAGE_VIDEOS: Final = 100
"""Videos asked for at once: the most that OpenAI's description allows."""

MAX_LIST_BYTES: Final = 32 * 1024 * 1024
"""Of a page; one of 100 videos has 19 MB where each prompt is 32,000 escaped characters."""

MAX_PAGES: Final = 1_000

_NO_SUCH_PATH: Final = frozenset({HTTPStatus.METHOD_NOT_ALLOWED, HTTPStatus.NOT_IMPLEMENTED})


@dataclass(frozen=True, slots=True)
class Listed:
    """One page.

    Attributes:
        ids: those of its videos that can be asked for, in its order.
        unusable: how many it has besides, which cannot.
        last_id: what the next page comes after; None: there can be none.
        has_more: False where the upstream says that this is the last page.
    """

    ids: tuple[str, ...]
    unusable: int
    last_id: str | None
    has_more: bool


@dataclass(frozen=True, slots=True)
class NotOffered:
    """The upstream has no list of its videos, as far as its answer tells."""


Reply: TypeAlias = Listed | NotOffered | Unclear


class ListFailed(Exception):
    """The list could not be read to its end.

    Attributes:
        reason: a fixed word: `not_offered`, `too_long`, or why there was no answer.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


async def listed(
    ask: Callable[[str | None], Awaitable[Reply]], *, max_pages: int = MAX_PAGES
) -> AsyncIterator[Listed]:
    """Yield the list page by page, each without the ids that were on an earlier one.

    Args:
        ask: returns the page behind a video, or the first.
        max_pages: a longer list is given up, once so much of it was yielded.

    Raises:
        ListFailed: there is none, or it could not be read to its end.
    """
    seen: set[str] = set()
    after: str | None = None
    for _ in range(max_pages):
        page = await patiently(partial(ask, after))
        if not isinstance(page, Listed):
            raise ListFailed("not_offered" if isinstance(page, NotOffered) else page.reason)
        fresh = tuple(one for one in dict.fromkeys(page.ids) if one not in seen)
        seen.update(fresh)
        yield replace(page, ids=fresh)
        if not fresh or not page.has_more or page.last_id is None:
            return
        after = page.last_id
    raise ListFailed("too_long")


def page_path(after: str | None) -> str:
    """Return the path of the page behind a video, or of the first; the newest come first."""
    cursor = "" if after is None else f"&after={quote(after, safe='')}"
    return f"/videos?limit={PAGE_VIDEOS}&order=desc{cursor}"


def judge_list(*, status: int, headers: Mapping[str, str], body: bytes) -> Reply:
    """Return what a list's reply says. Never raises; header names are in lower case."""
    if status in _NO_SUCH_PATH:
        return NotOffered()
    if status != HTTPStatus.OK:
        # What it means for one video it means for all of them.
        reply = judge_retrieve(status=status, headers=headers, body=b"")
        return reply if isinstance(reply, Unclear) else NotOffered()
    if len(body) > MAX_LIST_BYTES:
        return Unclear("too_large", request_ids=request_ids(headers))
    try:
        value = read_json(body, max_bytes=MAX_LIST_BYTES)
    except ValueError:
        return NotOffered()
    videos = value.get("data") if isinstance(value, dict) else None
    return _page(value, videos) if isinstance(videos, list) else NotOffered()


def _page(value: dict[str, Any], videos: list[Any]) -> Listed:
    named: list[Any] = [one.get("id") if isinstance(one, dict) else None for one in videos]
    ids: tuple[str, ...] = tuple(one for one in named if is_usable_id(one))
    last_id = value.get("last_id")
    if not is_usable_id(last_id):
        last_id = ids[-1] if ids else None
    return Listed(
        ids=ids,
        unusable=len(named) - len(ids),
        last_id=last_id,
        has_more=value.get("has_more") is not False,
    )
