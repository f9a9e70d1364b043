"""Does /metrics say what the ledger says?"""

from pathlib import Path

import httpx
import pytest
from conftest import World, world
from plain_http import NO_TLS
from prometheus_client.parser import text_string_to_metric_families

from gateway.billing.balances import ORGANIZATION, ORGANIZATION_ID, PROJECT
from gateway.billing.money import MICROS_PER_USD

SPENT, HELD, BUDGET = (f"video_gateway_ledger_{name}_usd" for name in ("spent", "held", "budget"))


async def scrape(made: World) -> dict[tuple[str, str, str, str], int]:
    """Return the micros of every gauge, by its name, level, project and period."""
    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        answer = await client.get(f"http://127.0.0.1:{made.gateway.ops_port}/metrics")
    assert answer.status_code == 200
    assert answer.headers["content-type"].startswith("text/plain; version=0.0.4")
    return {
        (
            sample.name,
            sample.labels["level"],
            sample.labels["project"],
            sample.labels["period"],
        ): round(sample.value * MICROS_PER_USD)
        for family in text_string_to_metric_families(answer.text)
        if family.name in {SPENT, HELD, BUDGET}
        for sample in family.samples
    }


async def test_spend_held_and_budgets_are_those_of_the_balances(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        studio, lab = await made.key(project="studio"), await made.key(project="lab")
        await made.budget(ORGANIZATION, ORGANIZATION_ID, "100", period="month")
        await made.budget(PROJECT, studio.project_id, "5.25", period="total")
        for key, seconds in ((studio, "4"), (studio, "8"), (lab, "12")):
            await made.ended(await made.buy(key, seconds=seconds))
        await made.ended(await made.buy(lab, prompt="[[fail]]"))
        found = await scrape(made)
    for period in ("day", "month", "total"):
        assert found[SPENT, ORGANIZATION, "", period] == 2_400_000
        assert found[SPENT, PROJECT, "studio", period] == 1_200_000
        assert found[SPENT, PROJECT, "lab", period] == 1_200_000
        assert found[HELD, ORGANIZATION, "", period] == 0
    budgets = {told: micros for told, micros in found.items() if told[0] == BUDGET}
    assert budgets == {
        (BUDGET, ORGANIZATION, "", "month"): 100_000_000,
        (BUDGET, PROJECT, "studio", "total"): 5_250_000,
    }


async def test_what_is_on_hold_is_held_and_not_spent(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        key = await made.key()
        await made.buy(key, prompt="[[stuck]]")
        found = await scrape(made)
    assert found[HELD, PROJECT, "studio", "month"] == 400_000
    assert found[SPENT, PROJECT, "studio", "month"] == 0


async def test_projects_beyond_the_limit_are_one_and_nothing_is_lost(tmp_path: Path) -> None:
    async with world(tmp_path, metrics_max_projects=1) as made:
        for project, seconds in (("small", "4"), ("large", "12"), ("middle", "8")):
            await made.ended(await made.buy(await made.key(project=project), seconds=seconds))
        found = await scrape(made)
    assert {told[2] for told in found} == {"", "large", "other"}
    assert found[SPENT, PROJECT, "other", "total"] == 1_200_000
    assert (
        found[SPENT, PROJECT, "other", "total"] + found[SPENT, PROJECT, "large", "total"]
        == found[SPENT, ORGANIZATION, "", "total"]
    )


@pytest.mark.costly
async def test_more_videos_add_no_series(tmp_path: Path) -> None:
    async with world(tmp_path) as made:
        key = await made.key()
        await made.ended(await made.buy(key))
        before = await scrape(made)
        for _ in range(20):
            await made.ended(await made.buy(key))
        assert (await scrape(made)).keys() == before.keys()
