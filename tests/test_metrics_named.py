"""Does the README name every metric that there is, and no other?"""

import asyncio
import re
import shutil
import subprocess
from pathlib import Path

import pytest
from conftest import environ_for, new_key, serving, settings_for
from metrics_tools import Scrape, scrape
from test_documents import README

from gateway.clock import system_clock
from gateway.setup import open_database

SAME = " The same in every replica: take the maximum, never the sum."
NOWHERE = "http://127.0.0.1:9/v1"


@pytest.fixture(scope="module")
def everything(tmp_path_factory: pytest.TempPathFactory) -> Scrape:
    """All that a gateway shows, also what has to be asked for."""
    return asyncio.run(shown(tmp_path_factory.mktemp("named")))


async def shown(folder: Path) -> Scrape:
    async with open_database(settings_for(folder, NOWHERE), clock=system_clock()) as database:
        await new_key(database, system_clock())
    async with serving(environ_for(folder, NOWHERE, metrics_max_keys=1)) as served:
        return await scrape(served.ops_port)


def metrics_table(found: Scrape) -> str:
    rows = ["| metric | type | replicas | |", "|---|---|---|---|"]
    for name, (kind, text) in found.families.items():
        told = "same" if text.endswith(SAME) else "each"
        rows.append(f"| `{name}` | {kind} | {told} | {text.removesuffix(SAME)} |")
    return "\n".join(rows)


def test_every_metric_is_in_the_readme_as_it_is(everything: Scrape) -> None:
    table = re.search(r"<!-- table: metrics -->\n(.*?)\n<!-- end: metrics -->", README, re.DOTALL)
    assert table is not None
    assert table[1] == metrics_table(everything)


def test_every_metric_the_readme_names_exists(everything: Scrape) -> None:
    named = set(re.findall(r"\bvideo_gateway_[a-z_]+\b", README))
    suffixes = re.compile("_(bucket|sum|count)$")
    assert {one for one in named if suffixes.sub("", one) not in everything.families} == set()


def test_prometheus_itself_has_nothing_to_say_about_their_names(everything: Scrape) -> None:
    promtool = shutil.which("promtool")
    assert promtool is not None, "needs Prometheus' own tools: apt-get install prometheus"
    said = subprocess.run(
        [promtool, "check", "metrics"],
        input=everything.text,
        capture_output=True,
        text=True,
        check=False,
    )
    assert (said.returncode, said.stdout + said.stderr) == (0, "")


def test_prometheus_would_complain_of_a_counter_without_total() -> None:
    text = "# HELP a_seconds x\n# TYPE a_seconds counter\na_seconds 1\n"
    command = ["promtool", "check", "metrics"]
    said = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    assert said.returncode == 3
    assert "_total" in said.stderr + said.stdout
