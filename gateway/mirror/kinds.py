"""Is what an upstream sends the content that was asked for? Judged while it streams by.

A relay may answer 200 with a page of HTML, or end an answer cleanly in the middle of a film. A
video has to be a whole MP4; a picture has to begin as one, and its type is what its first bytes
say, whatever the upstream announces.
"""

import re
from typing import Final

from gateway.videos.mp4 import Mp4Check

VARIANTS: Final = ("video", "thumbnail", "spritesheet")
MAX_FILENAME_CHARACTERS: Final = 128
_VIDEO_TYPE: Final = "video/mp4"
# As much as tells one kind of picture from another.
HEAD_BYTES: Final = 12
_PICTURES: Final = (
    (re.compile(rb"\xff\xd8\xff"), "image/jpeg"),
    (re.compile(rb"\x89PNG\r\n\x1a\n"), "image/png"),
    (re.compile(rb"RIFF....WEBP", re.DOTALL), "image/webp"),
    (re.compile(rb"....ftypavi[fs]", re.DOTALL), "image/avif"),
)
_EXTENSIONS: Final = {_VIDEO_TYPE: ".mp4", "image/jpeg": ".jpg"}


class NotTheContentError(Exception):
    """What was sent is not the content; the text says why in a fixed word."""


class KindCheck:
    """Looks at content that streams by: feed() it chunks of any size in order, then finish().

    Attributes:
        content_type: what it is served as; None until its first bytes have said so.
    """

    def __init__(self, variant: str) -> None:
        self.content_type: str | None = None
        self._variant = variant
        self._head = bytearray()
        self._mp4 = Mp4Check() if variant == "video" else None

    def feed(self, chunk: bytes) -> None:
        """Take the next bytes.

        Raises:
            NotTheContentError: `not_an_mp4` or `not_an_image`.
        """
        if self._mp4 is not None:
            self._mp4.feed(chunk)
        if self.content_type is None:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
            if len(self._head) == HEAD_BYTES:
                self._look_at_head()

    def finish(self) -> str:
        """Return the type of the whole content.

        Raises:
            NotTheContentError: `not_a_whole_mp4` or `not_an_image`.
        """
        if self._mp4 is not None and not self._mp4.facts().complete:
            raise NotTheContentError("not_a_whole_mp4")
        return self.content_type or self._look_at_head()

    def _look_at_head(self) -> str:
        if self._mp4 is not None and self._mp4.lost:
            raise NotTheContentError("not_an_mp4")
        self.content_type = type_of(self._variant, bytes(self._head))
        return self.content_type


def type_of(variant: str, head: bytes) -> str:
    """Return the type of content that begins so (HEAD_BYTES are enough).

    Raises:
        NotTheContentError: `not_an_image`.
    """
    if variant == "video":
        return _VIDEO_TYPE
    for pattern, content_type in _PICTURES:
        if pattern.match(head):
            return content_type
    raise NotTheContentError("not_an_image")


def file_name(upstream_id: str, content_type: str) -> str:
    """Return a file name that needs no quoting in a header and hides in no folder."""
    plain = re.sub(r"[^A-Za-z0-9._-]", "_", upstream_id)[:MAX_FILENAME_CHARACTERS].lstrip(".")
    extension = _EXTENSIONS.get(content_type) or f".{content_type.rpartition('/')[2]}"
    return f"{plain or 'content'}{extension}"
