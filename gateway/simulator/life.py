"""How does a video go from queued to its end?

By the simulator's clock alone: nothing runs in the background, each question is answered from the
moment it is asked at. A plan says how long each stretch takes and how it ends; faults of stage
"life" change the plan (faults.py).

    created ── queue_seconds ──> in_progress ── generation_seconds ──> completed | failed
    completed ── retention_seconds ──> its content is gone
"""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from typing import Any

from gateway.simulator.faults import Fault
from gateway.simulator.models import MODELS
from gateway.simulator.rules import Asked, price_micros

_FAILED = {"code": "generation_failed", "message": "Video generation failed."}
_MODERATED = {
    "code": "moderation_blocked",
    "message": "Your request was blocked by our moderation system.",
}
_ENDINGS: dict[str, dict[str, Any]] = {
    "fail-bare": {"status": "failed"},
    "moderate-later": {"status": "failed", "error": _MODERATED},
    "moderate-completed": {"error": _MODERATED, "has_content": False},
    "stuck": {"status": "in_progress"},
}


@dataclass(frozen=True, slots=True)
class Plan:
    """What will become of one video.

    Attributes:
        queue_seconds: until it is in progress.
        generation_seconds: from then to its end.
        retention_seconds: from then until its content expires.
        status: how it ends; "in_progress" for never.
        error: the object's error once it has ended.
        has_content: whether a completed video can be downloaded.
        content_late_seconds: how long after completion content is still refused.
        content_late_status: with which status.
    """

    queue_seconds: float
    generation_seconds: float
    retention_seconds: float
    status: str = "completed"
    error: dict[str, str] | None = None
    has_content: bool = True
    content_late_seconds: float = 0
    content_late_status: int = 400


@dataclass(slots=True)
class Video:
    """One executed request, and what was asked about it since.

    Attributes:
        id: as answered.
        operation: which operation made it.
        asked: what was asked, with the seconds that are made and billed.
        shown_seconds: what the object says; of an extension, the stitched total.
        plan: what becomes of it.
        created_at: Unix seconds.
        index: its place in order of creation.
        faults: what its prompt wants broken later.
        source: the id of the video it was made from.
        relay_id: the `X-Shellapi-Request-Id` of the request that made it.
        expired_by_hand: its content is gone before its time.
        gone: deleted or forgotten, for every request.
        retrieves: how often it was retrieved.
        contents: how often each variant was asked for.
        edition: how often its content has become another since.
    """

    id: str
    operation: str
    asked: Asked
    shown_seconds: int
    plan: Plan
    created_at: float
    index: int
    faults: list[Fault] = field(default_factory=list)
    source: str | None = None
    relay_id: str = ""
    expired_by_hand: bool = False
    gone: bool = False
    retrieves: int = 0
    contents: Counter[str] = field(default_factory=Counter)
    edition: int = 0

    @property
    def ends_at(self) -> float:
        """When it completes or fails."""
        return self.created_at + self.plan.queue_seconds + self.plan.generation_seconds


def planned(plan: Plan, faults: Iterable[Fault]) -> Plan:
    """Return the plan as the faults of stage "life" change it; others change nothing."""
    for fault in faults:
        plan = replace(plan, **_changes(fault))
    return plan


def _changes(fault: Fault) -> dict[str, Any]:
    match fault.name:
        case "fail":
            error = {**_FAILED, "code": fault.value or _FAILED["code"]}
            return {"status": "failed", "error": error}
        case "queue" | "generation" | "retention":
            return {f"{fault.name}_seconds": fault.number(default=0)}
        case "late":
            return {
                "content_late_seconds": fault.number(default=5),
                "content_late_status": int(fault.arguments.get("status", 400)),
            }
        case _:
            return _ENDINGS.get(fault.name, {})


def status_of(video: Video, *, now: float) -> str:
    """Return queued, in_progress, completed or failed."""
    if now >= video.ends_at:
        return video.plan.status
    started = video.created_at + video.plan.queue_seconds
    return "in_progress" if now >= started else "queued"


def progress_of(video: Video, *, now: float) -> int:
    """Return 0 to 100; the veo family knows only 0, 50 and 100."""
    match status_of(video, now=now):
        case "completed":
            return 100
        case "queued":
            return 0
        case _:
            pass
    if MODELS[video.asked.model].family == "veo":
        return 50
    elapsed = now - video.created_at - video.plan.queue_seconds
    return min(99, int(100 * elapsed / max(video.plan.generation_seconds, 1e-9)))


def content_expired(video: Video, *, now: float) -> bool:
    """Return whether the content of a completed video is gone."""
    return video.expired_by_hand or now >= video.ends_at + video.plan.retention_seconds


def billed_micros(video: Video, *, now: float) -> int:
    """Return what the relay bills for this video so far: the price once completed, else 0."""
    if status_of(video, now=now) != "completed" or ended_unbilled(video, now=now):
        return 0
    return price_micros(video.asked)


def ended_unbilled(video: Video, *, now: float) -> bool:
    """Return whether it has ended without being billed: what was charged for it is given back."""
    match status_of(video, now=now):
        case "failed":
            return True
        case "completed":
            return not (video.plan.has_content or MODELS[video.asked.model].bills_moderated)
        case _:
            return False


def video_object(video: Video, *, now: float) -> dict[str, Any]:
    """Return the object as JSON tells it, in its family's dialect."""
    status = status_of(video, now=now)
    ended = status in {"completed", "failed"}
    completed_at = int(video.ends_at) if status == "completed" else None
    shown = {
        "id": video.id,
        "object": "video",
        "created_at": int(video.created_at),
        "status": status,
        "completed_at": completed_at,
        "error": video.plan.error if ended else None,
        "expires_at": completed_at and int(video.ends_at + video.plan.retention_seconds),
        "model": video.asked.model,
        "progress": progress_of(video, now=now),
        "prompt": video.asked.prompt,
        "remixed_from_video_id": video.source if video.operation == "remix" else None,
        "seconds": str(video.shown_seconds),
        "size": video.asked.size,
    }
    if MODELS[video.asked.model].family != "veo":
        return shown
    dialect = ("id", "object", "model", "status", "progress", "created_at", "completed_at")
    kept = {key: shown[key] for key in dialect if shown[key] is not None}
    return {**kept, "task_id": video.id, **({"error": shown["error"]} if shown["error"] else {})}
