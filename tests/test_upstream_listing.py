"""What does the client make of the upstream's list, and when does it stop to ask for more?"""

import json
from typing import Any

import pytest
from test_upstream_client import head_of, started
from test_upstream_server import answer, reply

from gateway.upstream.envelopes import RequestIds
from gateway.upstream.listing import (
    MAX_LIST_BYTES,
    Listed,
    ListFailed,
    NotOffered,
    Reply,
    judge_list,
    listed,
)
from gateway.upstream.replies import Unclear


def page(*ids: object, has_more: object = True, **more: object) -> dict[str, Any]:
    return {"object": "list", "data": [{"id": one} for one in ids], "has_more": has_more} | more


def judged(value: object, *, status: int = 200) -> Reply:
    return judge_list(status=status, headers={}, body=json.dumps(value).encode())


async def ids_of(*pages: Reply, max_pages: int = 10) -> list[tuple[str, ...]]:
    """Walk pages; each has to be asked for by the last id of the one before."""
    left = iter(pages)
    behind: list[str | None] = [None]

    async def ask(after: str | None) -> Reply:
        assert after == behind[-1]
        found = next(left)
        behind.append(found.last_id if isinstance(found, Listed) else None)
        return found

    return [one.ids async for one in listed(ask, max_pages=max_pages)]


async def test_a_page_is_asked_for_by_limit_order_and_cursor() -> None:
    body = reply(body=json.dumps(page("video_1", last_id="video_1")).encode())
    async with started(answer(body), answer(body)) as (server, upstream):
        assert await upstream.list_videos() == Listed(("video_1",), 0, "video_1", has_more=True)
        await upstream.list_videos("a/b?c&d e")
    firsts = [head_of(request)[0] for request in server.requests]
    assert firsts == [
        "GET /v1/videos?limit=100&order=desc HTTP/1.1",
        "GET /v1/videos?limit=100&order=desc&after=a%2Fb%3Fc%26d%20e HTTP/1.1",
    ]


async def test_a_page_may_be_longer_than_a_video_and_not_without_end() -> None:
    long, too_long = (
        reply(body=json.dumps(page("video_1", padding="x" * size)).encode())
        for size in (MAX_LIST_BYTES - 1000, MAX_LIST_BYTES)
    )
    async with started(answer(long), answer(too_long)) as (_, upstream):
        assert isinstance(await upstream.list_videos(), Listed)
        assert await upstream.list_videos() == Unclear("too_large", RequestIds())


@pytest.mark.parametrize("status", [404, 405, 410, 501])
def test_an_upstream_without_a_list_says_so_by_its_status(status: int) -> None:
    assert judged({"error": {"message": "Invalid URL"}}, status=status) == NotOffered()


@pytest.mark.parametrize("body", [b"<!doctype html>", b"", b'{"data": 5}', b"[]", b'{"data": ['])
def test_an_answer_that_is_no_list_is_none(body: bytes) -> None:
    assert judge_list(status=200, headers={}, body=body) == NotOffered()


@pytest.mark.parametrize(
    ("status", "reason"), [(401, "auth"), (429, "rate_limited"), (502, "server_error")]
)
def test_what_may_pass_is_no_missing_list(status: int, reason: str) -> None:
    assert judged({}, status=status) == Unclear(reason, RequestIds())


def test_videos_without_a_usable_id_are_counted() -> None:
    strange = judged(page("video_1", None, 7, "", "a\x00b", "x" * 257))
    assert strange == Listed(("video_1",), 5, "video_1", has_more=True)
    no_objects = judge_list(status=200, headers={}, body=b'{"data": [1, "a", null]}')
    assert no_objects == Listed((), 3, None, has_more=True)


def test_a_page_without_a_last_id_goes_on_after_its_last_video() -> None:
    assert judged(page("a", "b")) == Listed(("a", "b"), 0, "b", has_more=True)
    assert judged(page("a", "b", last_id="c")) == Listed(("a", "b"), 0, "c", has_more=True)


async def test_pages_are_read_until_one_says_that_it_is_the_last() -> None:
    first, last = judged(page("a", "b")), judged(page("c", has_more=False))
    assert await ids_of(first, last, first) == [("a", "b"), ("c",)]


@pytest.mark.parametrize("has_more", [True, None, "yes"])
async def test_a_page_that_brings_nothing_new_is_the_last(has_more: object) -> None:
    same = judged(page("a", "b", has_more=has_more))
    assert await ids_of(same, same, same) == [("a", "b"), ()]
    assert await ids_of(same, judged(page(has_more=has_more)), same) == [("a", "b"), ()]


async def test_pages_that_overlap_tell_each_video_once() -> None:
    pages = [judged(page("a", "b", "b")), judged(page("b", "c")), judged(page(has_more=False))]
    assert await ids_of(*pages) == [("a", "b"), ("c",), ()]


async def test_a_list_without_an_end_is_given_up() -> None:
    with pytest.raises(ListFailed, match="too_long"):
        await ids_of(*(judged(page(f"video_{number}")) for number in range(4)), max_pages=3)


async def test_a_list_that_breaks_off_is_no_shorter_list() -> None:
    broken = Unclear("auth", RequestIds())
    with pytest.raises(ListFailed, match="auth"):
        await ids_of(judged(page("a")), broken)
    with pytest.raises(ListFailed, match="not_offered"):
        await ids_of(NotOffered())
