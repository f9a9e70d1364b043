"""Does an alert arrive, under one id, wherever the process that delivers it is killed?"""

import asyncio
import json
import signal
import sys
from functools import partial
from pathlib import Path

import pytest
from conftest import DEADLINE_SECONDS
from databases import url_of
from mail_tools import (
    EMAIL,
    NOW,
    Hands,
    delivering,
    opened,
    outbox,
    post_office,
    put,
    settings,
    webhook,
)
from test_alerts_deliver import OK, ids, settled
from test_upstream_server import serving

from gateway.alerts.deliver import STEPS
from gateway.turns import LEASE_SECONDS

# How often the receiver has it after a crash at a step and the next process's turn.
ARRIVALS = {"alert.claimed": 1, "alert.sent": 2, "alert.recorded": 1}


async def die_at(step: str, database: Path, *, smtp_port: int) -> None:
    """Run a process that delivers until it kills itself at a step."""
    told = {"step": step, "database": url_of(database), "smtp_port": smtp_port, "now": NOW}
    program = str(Path(__file__).with_name("mail_tools.py"))
    process = await asyncio.create_subprocess_exec(sys.executable, program, json.dumps(told))
    try:
        async with asyncio.timeout(DEADLINE_SECONDS):
            assert await process.wait() == -signal.SIGKILL
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()


def test_a_crash_is_tried_at_every_step() -> None:
    assert set(ARRIVALS) == set(STEPS)


@pytest.mark.parametrize("step", STEPS)
async def test_a_webhook_arrives_wherever_the_process_dies(tmp_path: Path, step: str) -> None:
    path = tmp_path / "gateway.db"
    hands = Hands()
    async with opened(path) as database, serving([OK, OK]) as server:
        await database.run(partial(put, 1, channel=webhook(server.url)))
        await die_at(step, path, smtp_port=1)
        assert (await outbox(database))["alert_1"]["attempts"] == 1
        hands.now += LEASE_SECONDS
        async with delivering(database, hands.clock()):
            row = await settled(database)
    assert row["delivered_at"] is not None
    assert ids(server) == [row["id"]] * ARRIVALS[step]


@pytest.mark.parametrize("step", STEPS)
async def test_a_mail_arrives_wherever_the_process_dies(tmp_path: Path, step: str) -> None:
    path = tmp_path / "gateway.db"
    hands = Hands()
    async with opened(path) as database, post_office() as office:
        await database.run(partial(put, 1, channel=EMAIL))
        await die_at(step, path, smtp_port=office.port)
        hands.now += LEASE_SECONDS
        async with delivering(database, hands.clock(), mail=settings(office.port)):
            row = await settled(database)
    assert row["delivered_at"] is not None
    assert len(office.mails) == ARRIVALS[step]
    assert len({one.raw for one in office.mails}) == 1
