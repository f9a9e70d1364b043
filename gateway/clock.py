"""Where do time, ids and chance come from?

Everything that needs one of them takes a Clock as an argument, so that a test decides.
"""

import random
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass

_BASE62 = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_TIME_CHARACTERS = 7
_RANDOM_CHARACTERS = 17
_RANDOM_BITS = 101


@dataclass(frozen=True, slots=True)
class Clock:
    """Sources of time, ids and chance.

    Attributes:
        now: Unix time in whole seconds.
        elapsed: seconds that never run backwards and go on counting while the machine is
            suspended (CLOCK_BOOTTIME): what a lease is measured with inside a process.
        new_id: an id that was never given before: the prefix, `_`, and 24 base62 characters
            (milliseconds first, then about 101 random bits), so that ids sort roughly by age.
        chance: a float in [0, 1), for jitter only.
    """

    now: Callable[[], int]
    elapsed: Callable[[], float]
    new_id: Callable[[str], str]
    chance: Callable[[], float]


def system_clock(ahead_seconds: Callable[[], float] = lambda: 0.0) -> Clock:
    """Return the clock that a running gateway uses; `now` is so much ahead of this machine's."""
    return Clock(
        now=lambda: int(time.time() + ahead_seconds()),
        elapsed=_elapsed,
        new_id=_new_id,
        chance=random.random,
    )


def _elapsed() -> float:
    return time.clock_gettime(_BOOTTIME)


def _new_id(prefix: str) -> str:
    age = _base62(time.time_ns() // 1_000_000, _TIME_CHARACTERS)
    return f"{prefix}_{age}{_base62(secrets.randbits(_RANDOM_BITS), _RANDOM_CHARACTERS)}"


def _base62(number: int, characters: int) -> str:
    return "".join(_BASE62[number // 62**place % 62] for place in range(characters - 1, -1, -1))


# macOS has no CLOCK_BOOTTIME; its monotonic clock is the nearest it offers.
_BOOTTIME: int = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)
