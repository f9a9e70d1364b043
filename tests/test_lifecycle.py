"""Does each answer about a video mean for its money what the table says?"""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gateway.videos.lifecycle import (
    Completed,
    Failed,
    Pending,
    Terms,
    judge,
    normalise,
)
from gateway.videos.order import EXTENSION

TERMS = Terms(
    operation="create",
    unit="second",
    rate_micros=300_000,
    images_micros=0,
    moderated_is_billed=False,
    list_micros=2_400_000,
)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(10**9), 10**9) | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=5,
)


@pytest.mark.parametrize(
    ("status", "words"),
    [
        ("queued", ["queued", "submitted", "pending", "not_start", "NOT_START", "Queued"]),
        ("in_progress", ["in_progress", "processing", "running", "generating", "in-progress"]),
        ("completed", ["completed", "success", "SUCCEEDED", "done", "finished", " completed "]),
        ("failed", ["failed", "failure", "error", "cancelled", "canceled"]),
        (None, ["unknown", "", "expired", "complete?", "完成"]),
    ],
)
def test_every_known_word_is_one_of_four_statuses_and_no_other_is(
    status: str | None, words: list[str]
) -> None:
    assert [normalise(word) for word in words] == [status] * len(words)


@pytest.mark.parametrize("word", ["unknown", "", None, 4, ["completed"], {"completed": True}])
def test_an_unknown_status_moves_nothing(word: object) -> None:
    assert judge({"status": word, "seconds": "4"}, TERMS) is None
    assert judge({}, TERMS) is None


def test_a_video_that_is_not_over_stays_held() -> None:
    assert judge({"status": "submitted"}, TERMS) == Pending("queued")
    assert judge({"status": "running"}, TERMS) == Pending("in_progress")


@pytest.mark.parametrize(
    ("seconds", "micros"),
    [
        ("8", 2_400_000),
        ("4", 1_200_000),
        (4, 1_200_000),
        (4.0, 1_200_000),
        ("7.5", 2_250_000),
        ("0.0000001", 1),
        ("12", 3_600_000),
    ],
)
def test_a_completed_video_costs_its_actual_seconds(seconds: object, micros: int) -> None:
    judged = judge({"status": "completed", "seconds": seconds}, TERMS)
    assert judged == Completed(list_micros=micros, above_hold=micros > 2_400_000, has_content=True)


@pytest.mark.parametrize(
    "seconds", [None, "", "many", "-4", "0", 0, True, "nan", "inf", "3601", 1e300, ["4"], {}]
)
def test_seconds_that_cannot_be_read_cost_what_was_held(seconds: object) -> None:
    judged = judge({"status": "completed", "seconds": seconds}, TERMS)
    assert judged == Completed(list_micros=2_400_000, above_hold=False, has_content=True)
    assert judge({"status": "completed"}, TERMS) == judged


@pytest.mark.parametrize(
    "terms",
    [
        Terms(
            operation=EXTENSION,
            unit="second",
            rate_micros=300_000,
            images_micros=0,
            moderated_is_billed=False,
            list_micros=1_200_000,
        ),
        Terms(
            operation="create",
            unit="request",
            rate_micros=1_200_000,
            images_micros=0,
            moderated_is_billed=False,
            list_micros=1_200_000,
        ),
    ],
)
def test_extensions_and_flat_rates_cost_what_was_held(terms: Terms) -> None:
    judged = judge({"status": "completed", "seconds": "20"}, terms)
    assert judged == Completed(list_micros=1_200_000, above_hold=False, has_content=True)


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        ({"code": "moderation_blocked", "message": "no"}, "moderation_blocked"),
        ({"code": ""}, "unspecified"),
        ({"code": 3}, "unspecified"),
        ("moderation_blocked", "unspecified"),
        (None, "unspecified"),
    ],
)
def test_a_failed_video_says_why_in_one_word(error: object, reason: str) -> None:
    assert judge({"status": "failed", "error": error, "seconds": "8"}, TERMS) == Failed(
        reason, list_micros=0
    )


@given(video=st.dictionaries(st.sampled_from(["seconds", "error", "else"]), JSON))
def test_no_object_whatever_breaks_the_judgement(video: dict[str, Any]) -> None:
    assert isinstance(judge({**video, "status": "completed"}, TERMS), Completed)
    assert isinstance(judge({**video, "status": "failed"}, TERMS), Failed)
