"""Is the bandwidth of all together kept, without anybody waiting for somebody who sleeps?"""

import asyncio
import time
from collections.abc import Awaitable
from pathlib import Path

from conftest import world

from gateway.mirror.throttle import Throttle
from gateway.simulator.world import Settings as SimulatorSettings


async def lasted(work: Awaitable[object]) -> float:
    """Return how many seconds something took; what it must take at least does not depend on us."""
    begun = time.monotonic()
    await work
    return time.monotonic() - begun


async def test_without_a_limit_nobody_waits() -> None:
    throttle = Throttle(0, elapsed=lambda: 0)
    async with asyncio.timeout(5):
        for _ in range(1000):
            await throttle.take(1 << 40)


async def test_all_together_take_as_long_as_their_bytes_at_that_rate() -> None:
    throttle = Throttle(1_000_000, elapsed=time.monotonic)

    async def download() -> None:
        for _ in range(10):
            await throttle.take(10_000)

    assert await lasted(asyncio.gather(*(download() for _ in range(5)))) >= 0.49


async def test_what_was_not_used_is_good_for_one_second_only() -> None:
    now = 100.0
    throttle = Throttle(1000, elapsed=lambda: now)
    now += 3600
    async with asyncio.timeout(5):
        # Of an hour's worth a second's worth is left.
        for _ in range(10):
            await throttle.take(100)
    assert await lasted(throttle.take(100)) >= 0.09


async def test_who_leaves_while_he_waits_keeps_nobody_from_going_on() -> None:
    throttle = Throttle(1_000_000, elapsed=time.monotonic)
    async with asyncio.timeout(5), asyncio.TaskGroup() as group:
        waiting = group.create_task(throttle.take(100_000))
        await asyncio.sleep(0)
        waiting.cancel()
        await throttle.take(100_000)


async def test_two_downloads_from_the_upstream_share_the_limit_of_the_settings(
    tmp_path: Path,
) -> None:
    size, rate = 1_000_000, 2_000_000
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=0, content_bytes=size)
    async with world(tmp_path, simulated=simulated, fetch_bytes_per_second=rate) as made:
        key = await made.key()
        begun = time.monotonic()
        for video_id in [await made.buy(key), await made.buy(key), await made.buy(key)]:
            asset = await made.mirrored(video_id)
            assert asset["size_bytes"] >= size
        # Less the second's worth that was free when the first began.
        assert time.monotonic() - begun >= 3 * size / rate - 1
