"""Is what happened counted once, under the right name?"""

import asyncio
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import World, eventually, world
from metrics_tools import Scrape, scrape
from prometheus_client import CollectorRegistry
from test_health import BREAK, MEND

from gateway.api.metrics.disks import folders_of
from gateway.api.metrics.reading import KEPT_SECONDS
from gateway.config import Settings
from gateway.simulator.world import Settings as SimulatorSettings
from gateway.telemetry.metrics.labels import Known, Sold
from gateway.telemetry.metrics.log import ALARMS, LogMetrics
from gateway.telemetry.metrics.videos import VideoMetrics

SOLD = {"model": "sora-2", "size": "720x1280", "seconds": "4"}


async def counted(made: World) -> Scrape:
    return await scrape(made.gateway.ops_port)


async def test_a_purchase_its_polls_its_end_and_its_download_are_each_counted_once(
    tmp_path: Path,
) -> None:
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=60)
    async with world(tmp_path, simulated=simulated) as made:
        key = await made.key()
        video_id = await made.buy(key)

        async def polled() -> bool:
            return (await counted(made)).sum("polls_total", outcome="pending") >= 1

        await eventually(polled)
        async with made.client(key) as client:
            status = (await client.get(f"/videos/{video_id}")).json()["status"]
            await made.control.advance(60)
            await made.mirrored(video_id)
            await client.get(f"/videos/{video_id}")
            content = (await client.get(f"/videos/{video_id}/content")).content
            part = await client.get(f"/videos/{video_id}/content", headers={"range": "bytes=0-99"})
        made.timeline.offset_seconds += int(KEPT_SECONDS)
        found = await counted(made)
    for used in ("cpu_seconds_total", "resident_memory_bytes", "open_fds"):
        assert found.sum(f"process_{used}") > 0
    assert abs(found.sum("start_timestamp_seconds") - time.time()) < 60
    assert found.sum("videos_bought_total", operation="create", **SOLD) == 1
    assert found.sum("videos_bought_total") == 1
    assert found.sum("upstream_requests_total", endpoint="submit", outcome="ok") == 1
    assert found.sum("upstream_request_duration_seconds_count", endpoint="submit") == 1
    assert found.sum("upstream_requests_total", endpoint="content", outcome="ok") == 1
    polls = found.sum("polls_total")
    assert found.sum("upstream_requests_total", endpoint="retrieve", outcome="ok") == polls
    assert found.sum("polls_total", outcome="completed") == 1
    assert found.sum("status_reads_total", status=status) == 1
    assert found.sum("status_reads_total", status="completed") == 1
    assert found.sum("videos_ended_total", outcome="completed", model="sora-2") == 1
    assert found.sum("videos_ended_total") == 1
    assert found.sum("video_generation_seconds_count", model="sora-2") == 1
    assert found.sum("mirror_turns_total", variant="video", outcome="mirrored") == 1
    assert found.sum("mirrored_bytes_total") == len(content)
    assert found.sum("mirror_lag_seconds_count", variant="video") == 1
    assert found.sum("content_sent_bytes_total", source="store") == len(content) + len(part.content)
    route = {"route": "/v1/videos/{video_id}/content", "method": "GET"}
    assert found.sum("http_requests_total", code="206", **route) == 1
    assert found.sum("http_request_duration_seconds_count", **route) == 2
    assert found.sum("http_requests_in_flight") == 0
    assert found.sum("store_duration_seconds_count", operation="commit") == 1
    assert found.sum("store_kept_bytes") == len(content)


@pytest.mark.parametrize(
    ("prompt", "outcome", "end", "reason"),
    [
        ("[[refuse]]", "refused", "refused", "upstream_refused"),
        ("[[401]]", "auth", "refused", "upstream_auth"),
        ("[[403]]", "misconfigured", "refused", "upstream_misconfigured"),
        ("[[402]]", "balance", "refused", "upstream_balance"),
        ("[[429]]", "rate_limited", "refused", "upstream_rate_limited"),
        ("[[500-executed]]", "unknown", "orphaned", "outcome_unknown"),
    ],
)
async def test_what_the_upstream_says_to_a_submit_is_counted_as_what_it_means(
    studio: World, prompt: str, outcome: str, end: str, reason: str
) -> None:
    key = await studio.key()
    async with studio.client(key) as client:
        assert (await client.post("/videos", json={"prompt": prompt})).is_error
    found = await counted(studio)
    assert found.sum("upstream_requests_total", endpoint="submit", outcome=outcome) == 1
    assert found.sum("upstream_requests_total", endpoint="submit") == 1
    assert found.sum("videos_ended_total", model="sora-2", outcome=end) == 1
    assert found.sum("requests_refused_total", reason=reason) == 1
    assert found.sum("requests_refused_total") == 1
    assert found.sum("orphans") == (1 if end == "orphaned" else 0)
    assert found.sum("orphans_held_usd") == (0.4 if end == "orphaned" else 0)
    assert found.has("orphans_oldest_timestamp_seconds") is (end == "orphaned")


async def test_what_never_left_is_counted_for_each_try_and_as_one_end(tmp_path: Path) -> None:
    # The discard port: nobody listens there.
    async with world(tmp_path, upstream_base_url="http://127.0.0.1:9/v1") as made:
        async with made.client(await made.key()) as client:
            answer = await client.post("/videos", json={"prompt": "a cat"})
        found = await counted(made)
    assert answer.json()["error"]["code"] == "upstream_unreachable"
    assert found.sum("upstream_requests_total", endpoint="submit", outcome="not_sent") == 3
    assert found.sum("videos_ended_total", outcome="not_sent") == 1
    assert found.sum("videos_ended_total") == 1


async def test_failures_are_counted_by_reasons_from_a_closed_list(studio: World) -> None:
    key = await studio.key()
    for prompt in ("[[moderate-later]]", "[[fail a_code_nobody_knows]]", "[[fail-bare]]"):
        await studio.ended(await studio.buy(key, prompt=prompt))
    found = await counted(studio)
    assert found.sum("videos_ended_total", model="sora-2", outcome="failed") == 3
    for reason in ("moderation_blocked", "other", "unspecified"):
        assert found.sum("video_failures_total", model="sora-2", reason=reason) == 1
    assert found.sum("polls_total", outcome="failed") == 3
    assert found.sum("ledger_spent_usd", level="organization", period="total") == 0


async def test_polls_that_learn_nothing_are_counted_as_that(studio: World) -> None:
    key = await studio.key()
    for prompt in ("[[retrieve:404*1]]", "[[retrieve:html*1]]", "[[retrieve:401*1]]"):
        await studio.ended(await studio.buy(key, prompt=prompt))
    found = await counted(studio)
    assert found.sum("polls_total", outcome="nothing") == 3
    for outcome in ("missing", "unclear", "auth"):
        assert found.sum("upstream_requests_total", endpoint="retrieve", outcome=outcome) == 1


async def test_refusals_of_ours_are_counted_by_their_kind(studio: World) -> None:
    key = await studio.key(budget="0.10")
    async with studio.client(key) as client:
        assert (await client.post("/videos", json={"prompt": "a cat"})).status_code == 429
        assert (await client.post("/videos", json={"size": "1x1"})).status_code == 400
        assert (await client.get("/nowhere")).status_code == 404
    async with studio.client("vgk_nobody") as client:
        assert (await client.get("/videos")).status_code == 401
    found = await counted(studio)
    for reason in ("budget_exceeded", "invalid_request", "not_found", "invalid_api_key"):
        assert found.sum("requests_refused_total", reason=reason) == 1
    assert found.sum("requests_refused_total") == 4
    assert found.sum("http_requests_total", route="none", code="404") == 1


async def test_a_mirror_that_fails_is_counted_and_its_backlog_is_seen(studio: World) -> None:
    key = await studio.key()
    video_id = await studio.buy(key, prompt="[[content:html]]")
    await studio.ended(video_id)

    async def failed() -> bool:
        return (await counted(studio)).sum("mirror_turns_total", outcome="failed") >= 1

    await eventually(failed)
    found = await counted(studio)
    assert found.sum("mirror_backlog") == 1
    asset = await studio.asset(video_id)
    assert asset is not None
    assert found.sum("mirror_next_expiry_timestamp_seconds") == asset["expires_at"]
    assert found.sum("mirror_oldest_unmirrored_timestamp_seconds") == asset["created_at"]


async def test_without_its_database_the_gateway_still_tells_what_it_counted(
    tmp_path: Path,
) -> None:
    async with world(tmp_path) as made:
        await made.buy(await made.key())
        path, kept = str(made.settings.database_path), str(tmp_path / "kept")
        await in_a_process(BREAK, path, kept)

        async def unreadable() -> Scrape | None:
            found = await counted(made)
            return None if found.sum("records_readable") else found

        found = await eventually(unreadable)
        assert found.sum("videos_bought_total") == 1
        assert found.sum("database_errors_total", kind="read") >= 1
        assert not found.has("ledger_spent_usd")
        await in_a_process(MEND, path, kept)
        # SQLite keeps the page it read until somebody writes.
        await made.key(name="another")

        async def readable() -> bool:
            return bool((await counted(made)).sum("records_readable"))

        await eventually(readable)


async def in_a_process(program: str, *args: str) -> None:
    await asyncio.to_thread(subprocess.run, [sys.executable, "-c", program, *args], check=True)


async def test_a_thousand_videos_add_no_series(tmp_path: Path) -> None:
    # The first audit adds what the last one found, whatever is bought meanwhile.
    async with world(tmp_path, audit_hours=0) as made:
        key = await made.key()

        async def buy_and_look(client: httpx.AsyncClient, number: int) -> None:
            answer = await client.post("/videos", json={"prompt": f"cat {number}", "seconds": "4"})
            await client.get(f"/videos/{answer.json()['id']}")

        async def over() -> bool:
            return bool((await counted(made)).sum("mirror_backlog") == 0) and not await made.rows(
                "SELECT id FROM videos WHERE due_at IS NOT NULL LIMIT 1"
            )

        async with made.client(key) as client:
            await buy_and_look(client, 0)
            await eventually(over)
            await buy_and_look(client, 1)
            await eventually(over)
            before = await counted(made)
            for first in range(0, 1_000, 20):
                await asyncio.gather(*(buy_and_look(client, first + one) for one in range(20)))
        await eventually(over, seconds=60)
        after = await counted(made)
    assert after.sum("videos_bought_total") == 1_002
    assert named(after) == named(before)


def named(found: Scrape) -> set[Any]:
    # A status that nobody has any more, and what waits, come and go.
    passing = ("videos_in_flight", "mirror_oldest", "mirror_next", "orphans_oldest")
    return {name for name in found.series if not any(one in name[0] for one in passing)}


async def test_keys_have_series_only_where_that_is_asked_for_and_only_so_many(
    tmp_path: Path,
) -> None:
    async with world(tmp_path, metrics_max_keys=2) as made:
        for name, seconds in (("little", "4"), ("much", "12"), ("some", "8")):
            key = await made.key(name=name, budget="5")
            await made.ended(await made.buy(key, seconds=seconds))
        found = await counted(made)
    spent = {
        dict(labels)["key"]: value
        for (name, labels), value in found.series.items()
        if name == "video_gateway_ledger_key_spent_usd" and ("period", "month") in labels
    }
    assert spent == {"much": 1.2, "some": 0.8}
    assert found.sum("ledger_key_budget_usd", key="much", period="month") == 5


def test_what_the_catalogue_does_not_sell_is_one_series() -> None:
    registry = CollectorRegistry()
    sold = [Sold("one", "1x1", "4")]
    videos = VideoMetrics(registry, Known(models=["one"], sold=sold))
    for number in range(100):
        videos.bought("edit", model="one", size="1x1", clip_seconds=5 + number)
        videos.bought("create", model=f"gone {number}", size="1x1", clip_seconds=4)
        videos.failed(f"gone {number}", reason=f"reason {number}", is_billed=False)
    videos.bought("create", model="one", size="1x1", clip_seconds=4)
    videos.bought("create_character", model="", size="", clip_seconds=0)
    bought = {
        tuple(sample.labels.values()): sample.value
        for family in registry.collect()
        if family.name == "video_gateway_videos_bought"
        for sample in family.samples
    }
    assert bought == {
        ("create", "one", "1x1", "4"): 1,
        ("create", "other", "other", "other"): 100,
        ("edit", "one", "other", "other"): 100,
        ("create_character", "none", "none", "none"): 1,
    }
    assert (
        registry.get_sample_value(
            "video_gateway_video_failures_total", {"model": "other", "reason": "other"}
        )
        == 100
    )


def test_alarms_and_lost_leases_are_counted_from_the_log() -> None:
    registry = CollectorRegistry()
    log = LogMetrics(registry)
    log.line({"level": "error", "event": "video_orphaned"})
    log.line({"level": "info", "event": "video_orphaned"})
    log.line({"level": "warning", "event": "lease_lost", "loop": "poll"})
    log.line({"level": "error", "event": "from a library"})
    alarms = {
        sample.labels["event"]: sample.value
        for family in registry.collect()
        if family.name == "video_gateway_alarms"
        for sample in family.samples
    }
    assert alarms.keys() == {*ALARMS, "other"}
    assert {event for event, value in alarms.items() if value} == {"video_orphaned", "other"}
    lost = registry.get_sample_value("video_gateway_leases_lost_total", {"loop": "poll"})
    assert lost == 1


def test_the_disks_are_those_that_the_gateway_writes_to(tmp_path: Path) -> None:
    at_home = Settings(database_url="sqlite:///data/gateway.db", store_url="file:data/content")
    assert folders_of(at_home, temporary=tmp_path) == {
        "spool": tmp_path,
        "database": Path("data"),
        "store": Path("data/content"),
    }
    away = Settings(
        database_url="postgresql://db/gateway", store_url="s3://bucket", spool_path="/spool"
    )
    assert folders_of(away, temporary=tmp_path) == {"spool": Path("/spool")}


def test_workers_count_where_their_room_is_taken_so_that_no_full_disk_can_end_them(
    tmp_path: Path,
) -> None:
    program = (
        "import sys, pathlib; from gateway.telemetry.metrics.sharing import share;"
        "share(pathlib.Path(sys.argv[1]), worker=3)"
    )
    subprocess.run([sys.executable, "-c", program, str(tmp_path)], check=True)
    files = {path.name: path.stat() for path in tmp_path.iterdir()}
    assert {"counter_3.db", "histogram_3.db", "gauge_livesum_3.db"} <= files.keys()
    for stat in files.values():
        assert stat.st_blocks * 512 >= stat.st_size == 2 << 20
