"""Does a real Prometheus see what happened at a real gateway, and the same dollars as finance?"""

import csv
import io
import json
import math
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import pytest
import pytest_asyncio
from conftest import ADMIN_KEY, eventually
from grafana_tools import metrics_used, panel_queries, rules
from metrics_tools import scrape
from prometheus_tools import Prometheus, prometheus, promtool
from watched_traffic import Watched, watched

from gateway.cli.demo_watching import write_config

pytestmark = pytest.mark.asyncio(loop_scope="module")

ROUNDS = 3
STUCK = ROUNDS
JOB = 'job="video-gateway"'


@dataclass
class Seen:
    """What happened, and a Prometheus that has seen it."""

    made: Watched
    prometheus: Prometheus
    since: float
    until: float


@asynccontextmanager
async def seen(folder: Path) -> AsyncIterator[Seen]:
    async with watched(folder) as made:
        write_config(folder, ops_port=made.served.ops_port)
        config = folder / "prometheus.yml"
        # Every second: what rates are made of is there within seconds.
        config.write_text(config.read_text().replace("5s", "1s"))
        assert (await promtool("check", "config", str(config)))[0] == 0
        async with prometheus(config) as server:
            # Prometheus takes some seconds until it first looks.
            await eventually(partial(server.query, f"up{{{JOB}}} == 1"))
            since = time.time()
            for _ in range(ROUNDS):
                await made.happen()
            await made.run("ledger", "audit")
            today = datetime.now(UTC).date().isoformat()
            await made.run("reconcile", "--from", today, "--to", today)

            async def all_scraped() -> bool:
                # What is read from the records at one scrape is one state of them.
                over = await server.query("sum(video_gateway_videos_in_flight)")
                compared = await server.query("video_gateway_reconciliation_differences")
                return bool(compared) and [one["value"][1] for one in over] == [str(STUCK)]

            await eventually(all_scraped)
            yield Seen(made, server, since, time.time())


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def run(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Seen]:
    async with seen(tmp_path_factory.mktemp("watched")) as everything:
        yield everything


async def test_costs_api_csv_report_and_prometheus_show_the_same_dollars(run: Seen) -> None:
    today = datetime.now(UTC).date()
    spent = await run.prometheus.value(
        f'max(video_gateway_ledger_spent_usd{{{JOB}, level="organization", period="month"}})'
    )
    assert spent > 0
    assert await of_costs(run.made) == spent
    exported = await run.made.run(
        *("ledger", "export", "--from", today.replace(day=1).isoformat(), "--to", today.isoformat())
    )
    rows = csv.DictReader(io.StringIO(exported))
    assert round(sum(float(row["spent_usd"]) for row in rows), 6) == spent
    report = json.loads(await run.made.run("spend", "report", "--period", "month", "--json"))
    told = {row["level"]: float(row["spent_usd"]) for row in report}
    assert told["organization"] == spent
    by_item = await run.prometheus.value(
        f"sum(max by (model, size, operation) (video_gateway_ledger_costs_usd{{{JOB},"
        ' period="month"}))'
    )
    assert round(by_item, 6) == spent


async def of_costs(made: Watched) -> float:
    first = int(datetime.now(UTC).replace(day=1, hour=0, minute=0, second=0).timestamp())
    async with made.served.client(ADMIN_KEY) as client:
        asked = {"start_time": first, "limit": 31}
        answer = await client.get("/organization/costs", params=asked)
    buckets = answer.raise_for_status().json()["data"]
    amounts = [float(one["amount"]["value"]) for day in buckets for one in day["results"]]
    return round(sum(amounts), 6)


async def test_every_query_of_every_panel_has_data(run: Seen) -> None:
    # All of the run lies within each window.
    values = {"__rate_interval": "1m", "__range": "1h", "__interval": "1s"}
    empty = []
    for query in panel_queries(values):
        if query.instant:
            found = await run.prometheus.query(query.expr)
            numbers = [float(series["value"][1]) for series in found]
        else:
            found = await run.prometheus.query_range(query.expr, start=run.since, end=run.until)
            numbers = [float(value) for series in found for _, value in series["values"]]
        if not any(map(math.isfinite, numbers)):
            empty.append((query.title, query.expr))
    assert empty == []


async def test_the_rules_are_loaded_and_healthy_and_what_happened_is_about_to_ring(
    run: Seen,
) -> None:
    loaded = {rule["name"]: rule for rule in await run.prometheus.rules()}
    assert loaded.keys() == {rule.alert or rule.record for rule in rules()}
    assert {name for name, rule in loaded.items() if rule["health"] != "ok"} == set()


async def test_every_metric_that_is_drawn_or_rings_exists(run: Seen) -> None:
    shown = await scrape(run.made.served.ops_port)
    suffixes = re.compile("_(bucket|sum|count)$")
    used = {
        suffixes.sub("", one.name) if suffixes.sub("", one.name) in shown.families else one.name
        for selected in metrics_used().values()
        for one in selected
    }
    assert used - shown.families.keys() == set()
