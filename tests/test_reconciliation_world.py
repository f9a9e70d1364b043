"""Does `reconcile` show exactly how the bill and the ledger differ, and how to make them agree?"""

import csv
import io
import json
import shlex
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from conftest import Timeline, World, command, environ_for, eventually, settings_for

from gateway.app import running
from gateway.billing.comparisons import read_comparisons
from gateway.billing.money import format_usd
from gateway.setup import open_database
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Clock as SimulatorClock
from gateway.simulator.world import Settings as SimulatorSettings

# Long enough ago that the bill can be read an hour beyond, and no submit can be under way.
AGO_SECONDS = 3 * 3_600
TOKEN = "account-simulator"
OFFERS = ("create", "retrieve", "content", "remix", "edit", "extend")


class Books:
    """A gateway and its upstream, three hours ago; and a person with a terminal, now."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.control = world.control
        self.environ = environ_for(
            world.folder, world.simulator.base_url, upstream_account_token=TOKEN
        )

    async def command(self, *words: str, exit_code: int, **environ: str) -> str:
        process = await command(*words, **(self.environ | environ))
        printed, _ = await process.communicate()
        assert process.returncode == exit_code, printed.decode()
        return printed.decode()

    async def run(self, *words: str, exit_code: int, **environ: str) -> str:
        days = [
            datetime.fromtimestamp(self.world.timeline.base.now() - ago, UTC).strftime("%Y-%m-%d")
            for ago in (AGO_SECONDS, 0)
        ]
        return await self.command(
            "reconcile",
            *("--from", days[0], "--to", days[1], *words),
            exit_code=exit_code,
            **environ,
        )

    async def report(self, *, exit_code: int = 1) -> Any:
        """Reconcile; return the JSON object, with findings by kind."""
        told = json.loads(await self.run("--format", "json", exit_code=exit_code))
        assert told["matches"] is (exit_code == 0)
        return told

    async def carry_out(self, finding: dict[str, Any]) -> None:
        program, *words = shlex.split(finding["proposal"]["command"])
        assert program == "video-gateway"
        await self.command(*words, exit_code=0)

    async def lose(self, prompt: str, **fields: str) -> str:
        """Buy a video whose outcome stays unknown; return our id of it."""
        known = {row["id"] for row in await self.orphans()}
        key = await self.world.key()
        async with self.world.client(key) as client:
            answer = await client.post("/videos", json={"prompt": prompt, **fields})
        assert answer.json()["error"]["code"] == "outcome_unknown", answer.text
        (made,) = {row["id"] for row in await self.orphans()} - known
        return str(made)

    async def orphans(self) -> list[Any]:
        return await self.world.rows("SELECT id FROM videos WHERE orphaned_at IS NOT NULL")

    async def settled(self) -> int:
        """Wait until no hold is open; return what was spent."""

        async def over() -> bool:
            return not (await self.world.total())[1]

        await eventually(over)
        return (await self.world.total())[0]


@asynccontextmanager
async def some_books(folder: Path, **changes: Any) -> AsyncIterator[Books]:
    timeline = Timeline(offset_seconds=-AGO_SECONDS)
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=0)
    clock = SimulatorClock(offset_seconds=-AGO_SECONDS)
    async with (
        Simulator(settings=simulated, clock=clock) as simulator,
        Control(simulator.base_url) as control,
    ):
        settings = settings_for(folder, simulator.base_url, upstream_offers=OFFERS, **changes)
        async with (
            open_database(settings, clock=timeline.clock()) as database,
            running(settings, clock=timeline.clock()) as gateway,
        ):
            made = World(
                folder, settings, simulator, control, database, timeline, gateway, steps=[]
            )
            yield Books(made)


@pytest.fixture
async def books(tmp_path: Path) -> AsyncIterator[Books]:
    async with some_books(tmp_path) as made:
        yield made


def kinds(report: Any) -> dict[str, int]:
    return {kind: sums["count"] for kind, sums in report["kinds"].items() if sums["count"]}


async def test_everything_matches(books: Books) -> None:
    world = books.world
    key = await world.key()
    source = await world.buy(key, "a cat", seconds="8")
    await world.buy(key, "[[fail]]")
    await world.buy(key, "[[longer 12]]", seconds="4")
    await world.buy(key, "[[moderate-completed]]")
    await world.buy(key, "[[moderate-completed]]", model="grok-imagine-video", size="1280x720")
    await world.ended(source)
    async with world.client(key) as client:
        refused = await client.post("/videos", json={"prompt": "[[400]]"})
        assert refused.status_code == 400
        remixed = await client.post(f"/videos/{source}/remix", json={"prompt": "a dog"})
        extension = {"prompt": "on", "seconds": "4", "video": {"id": source}}
        extended = await client.post("/videos/extensions", json=extension)
        assert (remixed.status_code, extended.status_code) == (200, 200)
    spent = await books.settled()
    report = await books.report(exit_code=0)
    assert kinds(report) == {"equal": 7, "nothing": 1}
    assert report["ours_usd"] == report["theirs_usd"] == format_usd(spent)
    assert (report["difference_usd"], report["ratio"]) == ("0.00", "1.000000")
    assert report["findings"] == []
    assert spent == (await books.control.totals())["billed_micros"]
    text = await books.run(exit_code=0)
    assert "Everything matches." in text
    assert TOKEN not in text


@pytest.mark.costly
async def test_a_video_under_way_is_no_difference(books: Books) -> None:
    made = await books.world.buy(await books.world.key(), "[[generation 9000]]")
    report = await books.report(exit_code=0)
    (finding,) = report["findings"]
    assert (finding["finding"], finding["upstream_id"]) == ("under_way", made)
    assert (finding["ours_usd"], finding["theirs_usd"]) == ("0.00", "0.40")
    (kept,) = await books.world.database.read(read_comparisons)
    assert (kept.differences, kept.drift_micros) == (0, 0)


@pytest.mark.costly
async def test_a_dropped_a_foreign_and_a_changed_row_are_found(books: Books) -> None:
    key = await books.world.key()
    dropped, changed, _ = [await books.world.buy(key) for _ in range(3)]
    await books.settled()
    await books.control.drop_from_log(dropped)
    await books.control.change_in_log(changed, micros=500_000)
    await books.control.add_to_log(
        model="sora-2", micros=400_000, task_id="video_foreign1", request_id="foreign"
    )
    report = await books.report()
    assert kinds(report) == {"equal": 1, "different": 1, "only_ours": 1, "only_theirs": 1}
    found = {one["finding"]: one for one in report["findings"]}
    assert found["only_ours"]["upstream_id"] == dropped
    assert found["only_ours"]["theirs_usd"] is None
    assert found["different"]["upstream_id"] == changed
    assert (found["different"]["ours_usd"], found["different"]["theirs_usd"]) == ("0.40", "0.50")
    assert found["only_theirs"]["request_id"] == "foreign"
    # Kept for whoever looks at /metrics: 0.10 more, 0.40 less, 0.40 more.
    (kept,) = await books.world.database.read(read_comparisons)
    assert (kept.upstream, kept.differences, kept.drift_micros) == ("default", 3, 100_000)
    assert (report["ours_usd"], report["theirs_usd"]) == ("1.20", "1.30")
    assert (report["difference_usd"], report["ratio"]) == ("0.10", "1.083333")


@pytest.mark.costly
async def test_a_table_and_a_csv_tell_the_same(books: Books) -> None:
    key = await books.world.key()
    dropped = await books.world.buy(key)
    await books.settled()
    await books.control.drop_from_log(dropped)
    orphan = await books.lose("[[drop]]", seconds="8")
    text = await books.run(exit_code=1)
    assert "Settled here, not charged there:" in text
    assert f"video-gateway orphans settle {orphan} --amount 0.80 --upstream-id video_" in text
    assert "Everything matches." not in text
    rows = list(csv.DictReader(io.StringIO(await books.run("--format=csv", exit_code=1))))
    assert [(row["finding"], row["ours_usd"], row["theirs_usd"]) for row in rows] == [
        ("only_ours", "0.40", ""),
        ("orphan", "0.00", "0.80"),
    ]
    assert rows[1]["proposal"].startswith(f"video-gateway orphans settle {orphan}")
    told = json.loads(await books.run("--json", exit_code=1))
    assert Counter(one["finding"] for one in told["findings"]) == {"only_ours": 1, "orphan": 1}


async def test_orphans_are_told_apart_and_the_proposals_make_the_books_agree(books: Books) -> None:
    world = books.world
    await world.buy(await world.key())
    charged = await books.lose("[[drop]]", seconds="8")
    returned = await books.lose("[[half-body]] [[fail]]", seconds="12")
    uncharged = await books.lose("[[drop executed=0]]", model="sora-2-pro")
    report = await books.report()
    assert kinds(report) == {"equal": 1, "orphan": 3}
    found = {one["video"]: one for one in report["findings"]}
    settle, release = found[charged]["proposal"], found[returned]["proposal"]
    assert (settle["action"], settle["amount_usd"], settle["weak"]) == ("settle", "0.80", False)
    made = {one["seconds"]: one["id"] for one in (await books.control.state())["executed"]}
    assert settle["upstream_id"] == made[8]
    assert (release["action"], release["weak"]) == ("release", False)
    weak = found[uncharged]["proposal"]
    assert (weak["action"], weak["weak"]) == ("release", True)
    assert found[charged]["matched_by"] == "amount_and_time"
    for one in found.values():
        await books.carry_out(one)
    # What a person attached is due now, where the person is.
    world.timeline.offset_seconds = 0
    assert await books.settled() == 1_200_000
    assert kinds(await books.report(exit_code=0)) == {"equal": 3, "nothing": 1}
    assert await world.adds_up()


async def test_two_orphans_that_cannot_be_told_apart_get_no_proposal(books: Books) -> None:
    one = await books.lose("[[drop]]")
    other = await books.lose("[[drop executed=0]]")
    report = await books.report()
    assert kinds(report) == {"only_theirs": 1, "orphan": 2}
    found = {one["video"]: one for one in report["findings"]}
    (row,) = found[None]["rows"]
    for orphan in (one, other):
        assert found[orphan]["proposal"] is None
        assert found[orphan]["candidates"] == [row]
        assert "not certain" in found[orphan]["note"]
    assert row["row_id"] in await books.run(exit_code=1)


@pytest.mark.costly
async def test_a_second_video_with_the_same_id_is_known_by_its_request(books: Books) -> None:
    first = await books.world.buy(await books.world.key())
    second = await books.lose("[[duplicate-id]]")
    await books.world.ended(first)
    report = await books.report()
    (orphan,) = report["findings"]
    assert (orphan["video"], orphan["matched_by"]) == (second, "request_id")
    assert (orphan["proposal"]["amount_usd"], orphan["proposal"]["upstream_id"]) == ("0.40", None)
    assert first in orphan["upstream_id"]
    await books.carry_out(orphan)
    assert kinds(await books.report(exit_code=0)) == {"equal": 2}


async def test_a_young_orphan_is_not_released_for_lack_of_a_charge(books: Books) -> None:
    books.world.timeline.offset_seconds = -600
    await books.lose("[[drop executed=0]]")
    (orphan,) = (await books.report())["findings"]
    assert orphan["proposal"] is None
    assert "does not reach an hour" in orphan["note"]


@pytest.mark.costly
async def test_list_prices_are_compared_whatever_is_paid(tmp_path: Path) -> None:
    multiplied = {"upstream_cost_multiplier_ppm": 850_000, "budget_basis": "cost"}
    async with some_books(tmp_path, **multiplied) as books:
        await books.world.buy(await books.world.key())
        assert await books.settled() == 340_000
        assert (await books.report(exit_code=0))["ours_usd"] == "0.40"


@pytest.mark.costly
async def test_settings_and_usage_are_explained(books: Books) -> None:
    unset = await books.run(exit_code=2, GATEWAY_UPSTREAM_ACCOUNT_TOKEN="")
    assert "upstream_account_token, or GATEWAY_UPSTREAM_ACCOUNT_TOKEN" in unset
    wrong = await books.run(exit_code=2, GATEWAY_UPSTREAM_ACCOUNT_TOKEN="sk-simulator")
    assert "upstream_account_token" in wrong
    assert "sk-simulator" not in wrong
    nobody = await books.run("--upstream=nobody", exit_code=2)
    assert "there is no upstream 'nobody'; there is default" in nobody
    for days in (("2026-11-02", "2026-11-01"), ("2026-01-01", "2026-12-31")):
        told = await books.command("reconcile", "--from", days[0], "--to", days[1], exit_code=2)
        assert "--to must be" in told
    late = await books.command("reconcile", "--from=2126-01-01", "--to=2126-01-01", exit_code=2)
    assert "lies in the future" in late


@pytest.mark.costly
async def test_what_could_not_be_found_out_is_neither_yes_nor_no(books: Books) -> None:
    await books.control.fault("html", operation="account-log")
    assert "cannot be read" in (await books.run(exit_code=3))
    other = await books.run(exit_code=3, GATEWAY_UPSTREAM_ACCOUNT_URL="http://127.0.0.1:1")
    assert "could not be reached" in other
    nothing = await books.run(exit_code=3, GATEWAY_DATABASE_URL="sqlite:///nowhere/gateway.db")
    assert "there is no database" in nothing


@pytest.mark.costly
async def test_an_upstream_of_the_file_has_a_token_of_its_own(books: Books, tmp_path: Path) -> None:
    file = tmp_path / "gateway.toml"
    table = f'[upstreams.studio]\nbase_url = "{books.world.simulator.base_url}"\napi_key = "k"\n'
    file.write_text(table)
    words = ("--upstream=studio", f"--config={file}")
    assert "upstreams.studio.account_token" in (await books.run(*words, exit_code=2))
    file.write_text(f'{table}account_token = "{TOKEN}"\n')
    assert "Everything matches." in (await books.run(*words, exit_code=0))


@pytest.mark.costly
async def test_a_failure_is_one_json_object_where_json_was_asked_for(books: Books) -> None:
    unset = await books.run("--json", exit_code=2, GATEWAY_UPSTREAM_ACCOUNT_TOKEN="")
    lost = await books.run("--json", exit_code=3, GATEWAY_UPSTREAM_ACCOUNT_URL="http://127.0.0.1:1")
    missing = await books.run(
        "--json", exit_code=3, GATEWAY_DATABASE_URL="sqlite:///nowhere/gateway.db"
    )
    found = [json.loads(told)["error"] for told in (unset, lost, missing)]
    assert [one["exit_code"] for one in found] == [2, 3, 3]
    assert "upstream_account_token" in found[0]["message"]
