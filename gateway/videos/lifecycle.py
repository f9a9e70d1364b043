"""What does an answer about a video mean, for its status and for the money? Pure.

A video goes queued -> in_progress -> completed | failed. Relays say it in their own words; every
known word is in the table below, and a word that is not there moves nothing. Only a completed or a
failed video ends its hold:

| status        | money                                              | then                |
|---|---|---|
| queued        | stays held                                         | polled again        |
| in_progress   | stays held                                         | polled again        |
| completed     | settled: actual seconds x the rate of the hold     | content is mirrored |
| failed        | released; settled where its model bills moderation | nothing             |
| anything else | stays held                                         | polled again        |

The actual seconds are the object's `seconds`; where that is missing or unreadable, the held amount
is settled. The price of reference images comes on top. More than was held is settled too, and
reported: the upstream bills it. An extension is settled as held, because the object's seconds are
the stitched total and not what was bought. A video that moderation blocked has no content, also
where its upstream calls it completed; then it costs nothing unless its model bills moderation.
"""

from dataclasses import dataclass
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from gateway.billing.money import charge
from gateway.videos.order import EXTENSION

QUEUED: Final = "queued"
IN_PROGRESS: Final = "in_progress"
COMPLETED: Final = "completed"
FAILED: Final = "failed"

MODERATED: Final = "moderation_blocked"

_DIALECTS: Final = {
    QUEUED: ("queued", "submitted", "pending", "not_start", "not_started", "created", "waiting"),
    IN_PROGRESS: ("in_progress", "processing", "running", "generating", "started"),
    COMPLETED: ("completed", "complete", "success", "succeeded", "done", "finished"),
    FAILED: ("failed", "failure", "error", "cancelled", "canceled"),
}
_STATUSES: Final = {word: status for status, words in _DIALECTS.items() for word in words}
# A clip longer than an hour is a misread number, not a duration.
_MAX_CLIP_SECONDS: Final = 3600


@dataclass(frozen=True, slots=True)
class Terms:
    """What a hold says about its price."""

    operation: str
    unit: str
    rate_micros: int
    images_micros: int
    moderated_is_billed: bool
    list_micros: int


@dataclass(frozen=True, slots=True)
class Pending:
    """Not over: the hold stays."""

    status: str


@dataclass(frozen=True, slots=True)
class Completed:
    """Over, and billed.

    Attributes:
        above_hold: more is billed than was held: an alarm, but it is what it costs.
        has_content: False where the object itself says that there is none.
    """

    list_micros: int
    above_hold: bool
    has_content: bool


@dataclass(frozen=True, slots=True)
class Failed:
    """Over, and billed only where the model's moderation is (`list_micros`, mostly 0)."""

    reason: str
    list_micros: int


def normalise(status: str) -> str | None:
    """Return OpenAI's status for a relay's word, or None for a word nobody knows."""
    return _STATUSES.get(status.strip().lower().replace("-", "_").replace(" ", "_"))


def judge(video: dict[str, Any], terms: Terms) -> Pending | Completed | Failed | None:
    """Return what an upstream's video object says; None where its status is unknown."""
    word = video.get("status")
    status = normalise(word) if isinstance(word, str) else None
    match status:
        case None:
            return None
        case "completed":
            has_content = failure_code(video) != MODERATED
            billed = has_content or terms.moderated_is_billed
            amount = _actual_micros(video, terms) if billed else 0
            return Completed(
                list_micros=amount,
                above_hold=amount > terms.list_micros,
                has_content=has_content,
            )
        case "failed":
            reason = failure_code(video)
            billed = terms.moderated_is_billed and reason == MODERATED
            return Failed(reason=reason, list_micros=terms.list_micros if billed else 0)
    return Pending(status=status)


def failure_code(video: dict[str, Any]) -> str:
    """Return the upstream's code for a failure, or `unspecified`."""
    error = video.get("error")
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, str) and code else "unspecified"


def _actual_micros(video: dict[str, Any], terms: Terms) -> int:
    if terms.unit != "second" or terms.operation == EXTENSION:
        return terms.list_micros
    seconds = clip_seconds_of(video)
    if seconds is None:
        return terms.list_micros
    return charge(rate_micros=terms.rate_micros, units=seconds) + terms.images_micros


def clip_seconds_of(video: dict[str, Any]) -> Decimal | None:
    """Return the seconds that a video object has, or None where they cannot be read."""
    value = video.get("seconds")
    if isinstance(value, bool) or not isinstance(value, str | int | float):
        return None
    try:
        seconds = Decimal(str(value))
    except InvalidOperation:
        return None
    return seconds if seconds.is_finite() and 0 < seconds <= _MAX_CLIP_SECONDS else None
