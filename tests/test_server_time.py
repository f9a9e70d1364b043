"""Do processes that share a server say `now` by its clock?"""

import time

import pytest
from conftest import World

from gateway.api.health import MAX_SKEW_SECONDS, Health
from gateway.clock import system_clock
from gateway.db.server_time import ServerTime

pytestmark = [
    pytest.mark.postgres("a file has no clock of its own"),
    pytest.mark.asyncio(loop_scope="module"),
]

MEASURED_SECONDS = 0.2


@pytest.mark.parametrize("off_seconds", [-5.0, 0.0, 1.5, 3600.0])
async def test_the_clock_of_a_machine_that_is_wrong_is_put_right(
    shared: World, off_seconds: float
) -> None:
    server_time = ServerTime(lambda: time.time() + off_seconds)
    await server_time.measure(shared.database)
    assert server_time.ahead_seconds == pytest.approx(-off_seconds, abs=MEASURED_SECONDS)


async def test_now_is_what_the_server_says(shared: World) -> None:
    server_time = ServerTime(time.time)
    server_time.ahead_seconds = 100.0
    assert system_clock(lambda: server_time.ahead_seconds).now() - time.time() > 98
    await server_time.measure(shared.database)
    assert abs(system_clock(lambda: server_time.ahead_seconds).now() - time.time()) < 2


@pytest.mark.parametrize("ahead_seconds", [-2.5, 2.5])
async def test_a_machine_whose_clock_is_too_wrong_is_not_ready(ahead_seconds: float) -> None:
    server_time = ServerTime(time.time)
    health = Health(clock=system_clock(), server_time=server_time)
    assert all(health.checks().values())
    server_time.ahead_seconds = MAX_SKEW_SECONDS * ahead_seconds / abs(ahead_seconds)
    assert health.checks()["clock"]
    server_time.ahead_seconds = ahead_seconds
    assert not health.checks()["clock"]
