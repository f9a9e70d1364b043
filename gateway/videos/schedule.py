"""When is a video asked about again, and when was it asked about for too long? Pure.

What is refused fails within the first polls; nothing is finished before half the typical time of
its model. In between, half as many polls tell as much.
"""

from collections.abc import Mapping
from typing import Final

from gateway.videos.claims import Claim

ORPHAN_INTERVAL_SECONDS: Final = 3600
_JITTER: Final = 0.2
_FIRST_POLLS: Final = 3


def next_poll(
    claim: Claim,
    *,
    interval_seconds: int,
    typical_seconds: Mapping[str, int],
    chance: float,
    now: int,
) -> int:
    """Return when the next poll of a video is due that is no orphan, Unix seconds.

    Args:
        claim: the video.
        interval_seconds: between two polls, give or take a tenth.
        typical_seconds: how long each model takes at least, typically.
        chance: in [0, 1).
        now: Unix seconds.
    """
    age = now - claim.recorded_at
    early = _FIRST_POLLS * interval_seconds <= age < typical_seconds.get(claim.model, 0) / 2
    interval = 2 * interval_seconds if early else interval_seconds
    return now + max(1, round(interval * (1 + _JITTER * (chance - 0.5))))


def is_out_of_patience(claim: Claim, *, patience_seconds: int, now: int) -> bool:
    """Tell whether a video has had its time; it begins anew once a person settles an orphan."""
    since = max(claim.recorded_at, claim.settled_at or 0)
    return now - since > patience_seconds
