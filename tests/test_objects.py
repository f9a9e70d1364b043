"""Does a client see the upstream's object, complete, and with a status it understands?"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.videos.objects import Facts, outcome_unknown, visible

FACTS = Facts(
    upstream_id="up_1",
    created_at=100,
    completed_at=None,
    fields={"prompt": "a cat", "model": "sora-2", "seconds": "8", "size": "720x1280"},
)
THIRTEEN = {
    *("id", "object", "model", "status", "progress", "created_at", "completed_at", "expires_at"),
    *("prompt", "size", "seconds", "remixed_from_video_id", "error"),
}
VALUES = st.none() | st.integers() | st.text() | st.dictionaries(st.text(), st.text())


@given(video=st.dictionaries(st.text() | st.sampled_from(sorted(THIRTEEN)), VALUES))
def test_nothing_is_removed_and_only_id_and_status_are_rewritten(video: dict[str, Any]) -> None:
    shown = visible(video, FACTS)
    assert set(shown) >= THIRTEEN
    assert shown["id"] == "up_1"
    assert shown["status"] in {"queued", "in_progress", "completed", "failed"}
    for name, value in video.items():
        assert name in {"id", "status"} or shown[name] == value


def test_missing_keys_are_filled_from_our_record() -> None:
    assert visible({"task_id": "x"}, FACTS) == {
        "task_id": "x",
        "id": "up_1",
        "object": "video",
        "model": "sora-2",
        "status": "queued",
        "progress": 0,
        "created_at": 100,
        "completed_at": None,
        "expires_at": None,
        "prompt": "a cat",
        "size": "720x1280",
        "seconds": "8",
        "remixed_from_video_id": None,
        "error": None,
    }


@pytest.mark.parametrize(
    ("word", "status"),
    [
        ("SUCCESS", "completed"),
        ("running", "in_progress"),
        ("no such word", "queued"),
        (7, "queued"),
    ],
)
def test_a_dialect_is_told_in_the_four_words_that_pollers_know(word: object, status: str) -> None:
    assert visible({"status": word}, FACTS)["status"] == status


def test_a_completed_video_without_progress_has_all_of_it() -> None:
    assert visible({"status": "completed"}, FACTS)["progress"] == 100
    assert visible({"status": "completed", "progress": 99}, FACTS)["progress"] == 99


def test_a_failed_video_has_an_error() -> None:
    assert visible({"status": "failed"}, FACTS)["error"]["code"] == "unspecified"
    error = {"code": "moderation_blocked", "message": "no"}
    assert visible({"status": "failed", "error": error}, FACTS)["error"] == error


def test_an_orphan_with_a_known_id_is_shown_as_failed_with_an_unknown_outcome() -> None:
    shown = outcome_unknown(visible({"status": "running"}, FACTS))
    assert (shown["status"], shown["error"]["code"]) == ("failed", "outcome_unknown")
    assert set(shown) >= THIRTEEN
    assert "stays on hold" in shown["error"]["message"]
