"""Do many clients in many processes, over one budget, get exactly what fits into it?"""

import asyncio
import json
import sys
from collections import Counter
from functools import partial
from pathlib import Path

from conftest import DEADLINE_SECONDS, environ_for, new_key, serving, settings_for
from ledger_tools import rows

from gateway.billing.audit import audit
from gateway.billing.audit_log import COMMAND, Change
from gateway.billing.balances import THE_ORGANIZATION
from gateway.billing.budgets import set_budget
from gateway.clock import system_clock
from gateway.setup import open_database
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings

CLIENTS = 8
CREATES = 25
PRICE = 400_000
# Not a multiple of the price: 37 fit, and not one micro of a 38th.
BUDGET = 38 * PRICE - 1
FIT = 37

CLIENT = """
import asyncio, collections, json, sys
import httpx

base_url, *keys = sys.argv[1:]

async def one(client, number):
    key = keys[number % len(keys)]
    answer = await client.post(
        "/videos",
        json={"prompt": f"cat {number}"},
        headers={"authorization": f"Bearer {key}"},
    )
    code = None if answer.status_code == 200 else answer.json()["error"]["code"]
    return f"{answer.status_code} {code}"

async def main():
    async with httpx.AsyncClient(base_url=base_url, trust_env=False, timeout=60) as client:
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.readline)
        answers = await asyncio.gather(*(one(client, number) for number in range(CREATES)))
    print(json.dumps(collections.Counter(answers)), flush=True)

asyncio.run(main())
""".replace("CREATES", str(CREATES))


async def test_creates_of_eight_processes_over_one_budget_buy_exactly_what_fits(
    tmp_path: Path,
) -> None:
    clock = system_clock()
    slow = SimulatorSettings(queue_seconds=3600, generation_seconds=3600)
    async with Simulator(settings=slow) as simulator, Control(simulator.base_url) as control:
        settings = settings_for(tmp_path, simulator.base_url)
        async with open_database(settings, clock=clock) as database:
            keys = [
                await new_key(database, clock, project=f"project {number % 3}")
                for number in range(6)
            ]
            change = Change(clock.new_id("audit_log"), clock.now(), COMMAND, "tests")
            await database.run(
                partial(set_budget, change, THE_ORGANIZATION, period="total", limit_micros=BUDGET)
            )
        async with serving(environ_for(tmp_path, simulator.base_url)) as gateway:
            answers = await bought(gateway.base_url, [key.value for key in keys])
        assert answers == {"200 None": FIT, "429 insufficient_quota": CLIENTS * CREATES - FIT}
        assert (await control.totals())["executions"] == FIT
    async with open_database(settings, clock=clock) as database:
        assert await database.read(audit) == []
        (total,) = await database.read(
            partial(
                rows,
                "SELECT spent_micros, held_micros FROM balances WHERE level = 'organization'"
                " AND period = 'total'",
            )
        )
        assert total == {"spent_micros": 0, "held_micros": FIT * PRICE}
        entries = await database.read(partial(rows, "SELECT kind FROM entries"))
        assert [entry["kind"] for entry in entries] == ["hold"] * FIT


async def bought(base_url: str, keys: list[str]) -> Counter[str]:
    """Let all clients begin at one moment, and return what they were answered."""
    async with asyncio.timeout(DEADLINE_SECONDS):
        processes = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", CLIENT, base_url, *keys),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for _ in range(CLIENTS)
        ]
        for process in processes:
            assert process.stdout is not None
            assert await process.stdout.readline() == b"ready\n"
        told = await asyncio.gather(*(process.communicate(b"\n") for process in processes))
    answers: Counter[str] = Counter()
    for out, _ in told:
        answers.update(json.loads(out))
    return answers
