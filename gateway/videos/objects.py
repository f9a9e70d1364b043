"""What does a client see of a video? Pure.

The upstream's JSON as it came: nothing is removed. Its status is rewritten to OpenAI's four words,
because SDK pollers stop at any other; the id is the one the client was given at creation; and keys
that are missing of the thirteen that OpenAI's description requires are filled from our record.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

from gateway.videos.lifecycle import COMPLETED, FAILED, QUEUED, normalise

_OVER: Final = 100
_NO_REASON: Final = {"code": "unspecified", "message": "The upstream gave no reason."}
_UNKNOWN: Final = {
    "code": "outcome_unknown",
    "message": (
        "The upstream no longer says what became of this video. Its price stays on hold until"
        " that is found out."
    ),
}


@dataclass(frozen=True, slots=True)
class Facts:
    """What our own record knows of a video.

    Attributes:
        fields: the parameters as they were forwarded.
        completed_at: when it was first seen completed, or None.
    """

    upstream_id: str
    created_at: int
    completed_at: int | None
    fields: Mapping[str, str]


def visible(video: Mapping[str, Any], facts: Facts) -> dict[str, Any]:
    """Return the video object that clients get."""
    word = video.get("status")
    status = normalise(word) if isinstance(word, str) else None
    status = status or QUEUED
    shown = {**video, "id": facts.upstream_id, "status": status}
    record = {
        "object": "video",
        "model": facts.fields.get("model"),
        "progress": _OVER if status == COMPLETED else 0,
        "created_at": facts.created_at,
        "completed_at": facts.completed_at,
        "expires_at": None,
        "prompt": facts.fields.get("prompt"),
        "size": facts.fields.get("size"),
        "seconds": facts.fields.get("seconds"),
        "remixed_from_video_id": facts.fields.get("remixed_from_video_id"),
        "error": _NO_REASON if status == FAILED else None,
    }
    return shown | {name: value for name, value in record.items() if name not in shown}


def outcome_unknown(shown: Mapping[str, Any]) -> dict[str, Any]:
    """Return the object of an orphan whose id is known: failed, with a code that says why."""
    return {**shown, "status": FAILED, "error": _UNKNOWN}
