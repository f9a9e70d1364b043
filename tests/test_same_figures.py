"""Are entries, costs API, CSV and metrics the same figures? Random purchases, over sockets."""

import asyncio
import csv
import io
from collections.abc import Mapping
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import httpx
from conftest import ADMIN_KEY, World, command, world
from databases import a_folder
from hypothesis import given
from hypothesis import strategies as st
from ledger_tools import KEYS, examples, make_key
from plain_http import NO_TLS
from prometheus_client.parser import text_string_to_metric_families
from purchases import DAY_SECONDS, SINCE, UNTIL, Purchase, buy_all, purchases

from gateway.billing.money import MICROS_PER_USD, parse_usd

PROJECTS = sorted(set(KEYS.values()))


def test_the_sum_of_entries_is_what_costs_api_csv_and_metrics_say() -> None:
    @examples(6)
    @given(bought=st.lists(purchases, min_size=1, max_size=12))
    def they_are_the_same(bought: list[Purchase]) -> None:
        with a_folder() as folder:
            asyncio.run(check(folder, bought))

    they_are_the_same()


async def check(folder: Path, bought: list[Purchase]) -> None:
    async with world(folder) as made:
        for key_id in KEYS:
            await made.database.run(partial(make_key, key_id))
        await made.database.run(partial(buy_all, bought))
        entries = await of_entries(made)
        assert await of_costs(made) == entries
        assert await of_csv(made) == entries
        assert await of_metrics(made) == entries
        assert await made.adds_up()


async def of_entries(made: World) -> dict[str, int]:
    rows = await made.rows(
        "SELECT holds.project_id, SUM(entries.spent_micros) AS spent FROM entries"
        " JOIN holds ON holds.id = entries.hold_id GROUP BY holds.project_id"
    )
    return by_project({row["project_id"]: row["spent"] for row in rows})


async def of_costs(made: World) -> dict[str, int]:
    found: dict[str, int] = {}
    first = SINCE - SINCE % DAY_SECONDS
    async with made.client(ADMIN_KEY) as client:
        page: str | None = None
        while True:
            query: dict[str, Any] = {"start_time": first, "end_time": UNTIL, "limit": 180}
            query |= {"group_by[]": "project_id"} | ({} if page is None else {"page": page})
            answer = (await client.get("/organization/costs", params=query)).json()
            for bucket in answer["data"]:
                for result in bucket["results"]:
                    micros = round(result["amount"]["value"] * MICROS_PER_USD)
                    found[result["project_id"]] = found.get(result["project_id"], 0) + micros
            page = answer["next_page"]
            if page is None:
                return by_project(found)


async def of_csv(made: World) -> dict[str, int]:
    days = (datetime.fromtimestamp(one, UTC).date().isoformat() for one in (SINCE, UNTIL))
    first, last = days
    process = await command(
        *("ledger", "export", "--from", first, "--to", last),
        GATEWAY_DATABASE_URL=made.settings.database_url,
    )
    text, _ = await process.communicate()
    assert process.returncode == 0, text
    found: dict[str, int] = {}
    for row in csv.DictReader(io.StringIO(text.decode())):
        sign = -1 if row["spent_usd"].startswith("-") else 1
        micros = sign * parse_usd(row["spent_usd"].removeprefix("-"))
        found[row["project_id"]] = found.get(row["project_id"], 0) + micros
    return by_project(found)


async def of_metrics(made: World) -> dict[str, int]:
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{made.gateway.ops_port}/metrics")
    return by_project(
        {
            sample.labels["project_id"]: round(sample.value * MICROS_PER_USD)
            for family in text_string_to_metric_families(answer.text)
            for sample in family.samples
            if sample.name == "video_gateway_ledger_spent_usd"
            and (sample.labels["level"], sample.labels["period"]) == ("project", "total")
        }
    )


def by_project(found: Mapping[str, int]) -> dict[str, int]:
    """Say zero of a project in which nothing was spent, whether it is named or not."""
    assert set(found) <= set(PROJECTS)
    return {project_id: found.get(project_id, 0) for project_id in PROJECTS}
