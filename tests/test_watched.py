"""Does a real Prometheus see what happened at a real gateway, and the same dollars as finance?"""

import csv
import io
import json
import re
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import pytest
import pytest_asyncio
from conftest import ADMIN_KEY, eventually
from grafana_tools import metrics_used, panel_queries, rules
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
            since = time.time()
            for _ in range(ROUNDS):
                await made.happen()
                # What a counter has when it is first seen is no increase.
                await scraped(server)
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


async def scraped(server: Prometheus) -> None:
    """Wait until everything that is counted by now has been seen."""
    scrapes = 'sum(count_over_time(up{job="video-gateway"}[10m])) or vector(0)'
    before = await server.value(scrapes)

    async def again() -> bool:
        # The next one may have begun already.
        return await server.value(scrapes) >= before + 2

    await eventually(again)


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


async def test_every_panel_shows_what_happened(run: Seen) -> None:
    empty = set()
    for query in panel_queries({"__rate_interval": "10s", "__interval": "1s"}):
        if query.instant:
            found = await run.prometheus.query(query.expr, at=run.until)
            values = [one["value"][1] for one in found]
        else:
            series = await run.prometheus.query_range(query.expr, start=run.since, end=run.until)
            values = [value for one in series for _, value in one["values"]]
        if not any(value != "NaN" for value in values):
            empty.add(query.title)
    assert empty == set()


async def test_every_series_that_is_asked_for_has_been_there(run: Seen) -> None:
    missing = set()
    for where, selectors in metrics_used().items():
        for selector in selectors:
            if ":" in selector.name:
                continue
            if not await run.prometheus.query(f"last_over_time({selector.text}[10m])"):
                missing.add((where, selector.name))
    assert missing == set()


async def test_every_rule_works_and_every_alert_can_be_read(run: Seen) -> None:
    loaded = await run.prometheus.rules()
    assert {rule["name"] for rule in loaded} == {one.alert or one.record for one in rules()}

    async def evaluated() -> bool:
        return all(rule["health"] == "ok" for rule in await run.prometheus.rules())

    await eventually(evaluated)
    rung = [alert for rule in loaded for alert in rule.get("alerts", ())]
    assert {"VideoGatewayAlarm", "VideoGatewayUpstreamKeyRefused"} <= {
        alert["labels"]["alertname"] for alert in rung
    }
    for alert in rung:
        for text in alert["annotations"].values():
            assert not re.search(r"<|no value|  |\bNaN\b", text), alert
