"""Does what is not mirrored yet show, and ring before it is too late?"""

from pathlib import Path

import httpx
import pytest
from conftest import LogLines, World, eventually, world
from plain_http import NO_TLS
from prometheus_client.parser import text_string_to_metric_families

GAUGES = (
    "video_gateway_mirror_backlog",
    "video_gateway_mirror_oldest_unmirrored_timestamp_seconds",
    "video_gateway_mirror_next_expiry_timestamp_seconds",
)


async def scraped(made: World) -> list[float | None]:
    """Return the values of the gauges, None where one has no sample."""
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{made.gateway.ops_port}/metrics")
    families = {family.name: family for family in text_string_to_metric_families(answer.text)}
    samples = [families[name].samples for name in GAUGES]
    assert all(len(found) <= 1 for found in samples)
    return [found[0].value if found else None for found in samples]


async def test_what_waits_to_be_mirrored_is_in_the_metrics_until_it_is(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        assert await scraped(made) == [0, None, None]
        key = await made.key()
        late = await made.buy(key, "[[late 30]] [[retention 7200]]")
        await made.mirrored(await made.buy(key))

        async def one_waits() -> bool:
            return (await scraped(made))[0] == 1

        await eventually(one_waits)
        asset = await made.asset(late)
        assert asset is not None
        assert await scraped(made) == [1, asset["created_at"], asset["expires_at"]]
        await made.control.advance(31)
        made.timeline.offset_seconds += 31
        await made.mirrored(late)
        assert await scraped(made) == [0, None, None]


@pytest.mark.costly
@pytest.mark.parametrize("retention_seconds", [900, 7200])
async def test_what_may_be_lost_soon_rings_once(
    tmp_path: Path, logged: LogLines, retention_seconds: int
) -> None:
    async with world(tmp_path, mirror_alarm_seconds=1800) as made:
        key = await made.key()
        video_id = await made.buy(key, f"[[content:404*1000]] [[retention {retention_seconds}]]")

        async def failed() -> bool:
            asset = await made.asset(video_id)
            return asset is not None and asset["failure"] is not None

        await eventually(failed)
        asset = await made.asset(video_id)
        assert asset is not None
        before = asset["expires_at"] - 1790
        now = made.timeline.clock().now()
        if before > now:
            assert logged.lines("content_at_risk") == []
            made.timeline.offset_seconds += before - now

        async def rung() -> bool:
            return bool(logged.lines("content_at_risk"))

        await eventually(rung, seconds=40)
        (line,) = logged.lines("content_at_risk")
        assert line["video_id"] == (await made.facts(video_id))["id"]
        assert (line["variant"], line["failure"]) == ("video", "http_status")
        assert line["minutes_left"] == (29 if retention_seconds == 7200 else 14)
