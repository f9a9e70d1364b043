"""Which bytes are a video's content, and who may have them when?

Content is made anew from the video's id whenever it is asked for, so that nothing is kept but a
few recent ones; the same video gives the same bytes each time.
"""

import hashlib
import re
from functools import lru_cache

from gateway.simulator.answers import Answer, RefusedError, not_ready, openai_error, told
from gateway.simulator.images import make_spritesheet, make_thumbnail
from gateway.simulator.life import Video, content_expired, status_of
from gateway.simulator.mp4 import LONGEST_SECONDS, make_mp4
from gateway.simulator.world import World

CONTENT_TYPES = {"video": "video/mp4", "thumbnail": "image/webp", "spritesheet": "image/jpeg"}

_RECENT_CONTENTS = 4
_RANGE = re.compile(r"bytes=([0-9]*)-([0-9]*)")


def content_answer(
    world: World, video: Video, *, variant: str, wanted: str | None, unless_changed: str | None
) -> Answer:
    """Return the content, or the part of it that the Range header `wanted` names.

    `unless_changed` is the If-Range header: with another ETag the whole content is sent.

    Raises:
        RefusedError: the variant is unknown, or there is no content yet, any more, or at all.
    """
    if variant not in CONTENT_TYPES:
        listed = "'video', 'thumbnail', and 'spritesheet'"
        message = f"Invalid value: '{variant}'. Supported values are: {listed}."
        raise RefusedError(openai_error(message, param="variant", code="invalid_value"))
    _check_there(world, video)
    if variant not in world.settings.variants:
        message = f"This video has no {variant}."
        raise RefusedError(openai_error(message, status=world.settings.absent_status))
    data = content_bytes(world, video, variant=variant)
    if not world.settings.ranges:
        return Answer(body=data, content_type=CONTENT_TYPES[variant])
    etag = f'"{hashlib.sha256(_tag(video, variant=variant)).hexdigest()}"'
    accepts = (("accept-ranges", "bytes"), ("etag", etag))
    if unless_changed not in (None, etag):
        wanted = None
    match = _RANGE.fullmatch(wanted or "")
    if match is None or match.group() == "bytes=-":
        return Answer(body=data, content_type=CONTENT_TYPES[variant], headers=accepts)
    first, last = _span(match, total=len(data))
    if first > last:
        unsatisfied = ("content-range", f"bytes */{len(data)}")
        return Answer(status=416, content_type="text/plain", headers=(*accepts, unsatisfied))
    part = ("content-range", f"bytes {first}-{last}/{len(data)}")
    return Answer(206, data[first : last + 1], CONTENT_TYPES[variant], (*accepts, part))


def content_bytes(world: World, video: Video, *, variant: str) -> bytes:
    """Return the whole content of one variant, whether or not it may be had now."""
    return _content(
        tag=_tag(video, variant=variant),
        variant=variant,
        size=video.asked.size,
        seconds=min(LONGEST_SECONDS, max(1, video.shown_seconds)),
        at_least_bytes=world.settings.content_bytes,
    )


def _tag(video: Video, *, variant: str) -> bytes:
    # Of the same length in every edition, and so is the content.
    return f"{video.id}{video.edition or ' '}{variant}".encode(errors="replace")


@lru_cache(maxsize=_RECENT_CONTENTS)
def _content(*, tag: bytes, variant: str, size: str, seconds: int, at_least_bytes: int) -> bytes:
    width, height = (int(side) // 2 * 2 for side in size.split("x"))
    match variant:
        case "thumbnail":
            return make_thumbnail(width=width, height=height, tag=tag)
        case "spritesheet":
            return make_spritesheet(width=width, height=height, tag=tag)
        case _:
            return make_mp4(
                width=width,
                height=height,
                seconds=seconds,
                tag=tag,
                at_least_bytes=at_least_bytes,
            )


def _check_there(world: World, video: Video) -> None:
    now, plan = world.clock.now(), video.plan
    if status_of(video, now=now) != "completed":
        raise RefusedError(not_ready())
    if not plan.has_content:
        raise RefusedError(openai_error("This video has no content.", status=404))
    if content_expired(video, now=now):
        message = "The content of this video has expired."
        raise RefusedError(openai_error(message, status=world.settings.expired_status))
    if now < video.ends_at + plan.content_late_seconds:
        message = "Task is not completed yet, current status: IN_PROGRESS"
        flat = {"code": "invalid_request", "message": message, "data": None}
        raise RefusedError(told(flat, status=plan.content_late_status))


def _span(match: re.Match[str], *, total: int) -> tuple[int, int]:
    first, last = match.groups()
    if not first:
        return max(0, total - int(last)), total - 1 if int(last) else -1
    return int(first), min(int(last) if last else total - 1, total - 1)
