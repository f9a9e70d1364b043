"""Does a defect of ours leave a hold that says what became of it?

The settings of these gateways are wrong in ways that their checks refuse: the defects are real,
and nothing is in their place.
"""

from pathlib import Path
from typing import Any

import httpx
from conftest import LogLines, World, world

from gateway.billing.keys import NewKey
from gateway.config import UpstreamConfig
from gateway.db.script import Row
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.videos.orphans import list_orphans

PRICE_MICROS = 400_000
NO_CODE: Any = 7


async def create(made: World, key: NewKey) -> httpx.Response:
    async with made.client(key) as client:
        return await client.post("/videos", json={"prompt": "a cat"})


async def only_hold(made: World) -> Row:
    (row,) = await made.rows(
        "SELECT holds.state, videos.id, videos.refused_at, entries.reason FROM videos"
        " JOIN holds ON holds.id = videos.hold_id"
        " LEFT JOIN entries ON entries.hold_id = holds.id AND entries.kind <> 'hold'"
    )
    return row


async def test_a_defect_before_the_first_byte_releases_the_hold_and_is_told(
    tmp_path: Path, logged: LogLines
) -> None:
    async with world(tmp_path, upstream_api_key="sk-x\n") as made:
        answer = await create(made, await made.key())
        error = answer.json()["error"]
        assert (answer.status_code, error["code"]) == (502, "upstream_unreachable")
        assert set(error) == {"message", "type", "param", "code"}
        assert "x-should-retry" not in answer.headers
        row = await only_hold(made)
        assert (row["state"], row["reason"]) == ("released", "not_sent:defect")
        assert await made.total() == (0, 0)
        assert await made.database.read(list_orphans) == []
        assert "create" not in (await made.control.totals())["requests"]
        assert "submit.sending" not in made.steps
        assert await made.adds_up()
    (alarm,) = logged.lines("submit_failed")
    assert (alarm["level"], alarm["video_id"]) == ("error", row["id"])
    assert "Traceback" in alarm["exception"]
    assert [line["reason"] for line in logged.lines("submit_not_sent")] == ["defect"]
    assert "sk-x" not in logged.getvalue()


async def test_a_defect_after_the_first_byte_keeps_the_hold_and_is_told(
    tmp_path: Path, logged: LogLines
) -> None:
    async with Simulator() as simulator, Control(simulator.base_url) as control:
        upstream = UpstreamConfig(
            base_url=simulator.base_url,
            api_key="sk-simulator",
            unknown_codes=(NO_CODE,),
        )
        async with world(tmp_path, upstreams=(upstream,)) as made:
            await control.fault("500-executed", operation="create")
            answer = await create(made, await made.key())
            error = answer.json()["error"]
            assert (answer.status_code, error["code"]) == (502, "outcome_unknown")
            assert set(error) == {"message", "type", "param", "code"}
            assert answer.headers["x-should-retry"] == "false"
            totals = await control.totals()
            assert (totals["requests"]["create"], totals["executions"]) == (1, 1)
            row = await only_hold(made)
            assert (row["state"], row["refused_at"]) == ("held", None)
            assert await made.total() == (0, PRICE_MICROS)
            (orphan,) = await made.database.read(list_orphans)
            assert (orphan["id"], orphan["orphan_reason"]) == (row["id"], "defect")
            assert await made.adds_up()
    (alarm,) = logged.lines("submit_failed")
    assert (alarm["level"], alarm["video_id"]) == ("error", row["id"])
    assert [line["reason"] for line in logged.lines("submit_outcome_unknown")] == ["defect"]
