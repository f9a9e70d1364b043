"""`video-gateway demo`: see it work, without an account and without a cent.

A simulated upstream and a gateway, in a temporary folder, over real sockets: two videos are bought
in the wire format of the official SDK, one of them fails on purpose, a third is over budget.
"""

import asyncio
import signal
import tempfile
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Final

import click
import httpx
import uvloop
from prometheus_client import CollectorRegistry

from gateway.app import Running, running
from gateway.billing.audit import audit
from gateway.billing.balances import KEY, Level
from gateway.billing.budgets import set_budget
from gateway.billing.key_values import VIRTUAL, new_value
from gateway.billing.keys import NewKey
from gateway.billing.ledger import list_entries
from gateway.billing.levels import make_key
from gateway.billing.money import format_usd, parse_usd
from gateway.cli.common import a_change, begin_logs, fail
from gateway.cli.demo_watching import write_config
from gateway.clock import Clock, system_clock
from gateway.config import Settings
from gateway.db.database import Database
from gateway.db.script import Script, Sql
from gateway.setup import open_database
from gateway.simulator.server import Simulator
from gateway.videos.mp4 import Mp4Check

BUDGET_USD: Final = "1.50"
DEADLINE_SECONDS: Final = 60
_LOOK_SECONDS: Final = 0.5
_OVER: Final = ("completed", "failed")

SNIPPET: Final = """\
from openai import OpenAI

client = OpenAI(base_url="{base_url}", api_key="{api_key}")
video = client.videos.create_and_poll(
    model="sora-2", prompt="A heron lands on a still lake", seconds="4", size="1280x720"
)
client.videos.download_content(video.id).write_to_file("heron.mp4")
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """What the demo plays on."""

    gateway: Running
    key: NewKey
    client: httpx.AsyncClient
    database: Database
    folder: Path


@click.command()
@click.option("--keep", is_flag=True, help="Stay up afterwards and print the SDK snippet.")
def demo(*, keep: bool) -> None:
    """Buy two simulated videos, follow the money, download one; ends by itself.

    Nothing leaves this machine and nothing is billed.
    """
    folder = Path(tempfile.mkdtemp(prefix="video-gateway-demo-"))
    uvloop.run(_demo(folder, keep=keep))


async def _demo(folder: Path, *, keep: bool) -> None:
    with (folder / "gateway.log").open("w", encoding="utf-8") as log:
        registry = begin_logs("json", stream=log)
        async with _stage(folder, registry) as stage:
            click.echo(f"A simulated upstream and a gateway are up at {stage.gateway.base_url}")
            click.echo(f"Records, content and log are in {folder}\n")
            await _play(stage)
            if keep:
                await _keep(stage)


@asynccontextmanager
async def _stage(folder: Path, registry: CollectorRegistry) -> AsyncIterator[Stage]:
    clock = system_clock()
    async with Simulator() as simulator:
        settings = Settings(
            port=0,
            ops_port=0,
            database_url=f"sqlite:///{folder / 'gateway.db'}",
            store_url=f"file://{folder / 'content'}",
            upstream_base_url=simulator.base_url,
            upstream_api_key="sk-simulator",
            poll_interval_seconds=1,
        )
        async with (
            open_database(settings, clock=clock) as database,
            running(settings, clock=clock, registry=registry) as gateway,
        ):
            key = await database.run(partial(_make_key, value=new_value(VIRTUAL), clock=clock))
            headers = {"authorization": f"Bearer {key.value}"}
            async with httpx.AsyncClient(
                base_url=gateway.base_url,
                headers=headers,
                trust_env=False,
                timeout=DEADLINE_SECONDS,
            ) as client:
                yield Stage(gateway, key, client, database, folder)


def _make_key(*, value: str, clock: Clock) -> Script[NewKey]:
    key = yield from make_key(
        a_change(clock),
        project="demo",
        name="demo",
        value=value,
        key_id=clock.new_id("key"),
        account_id=clock.new_id("svc_acct"),
        project_id=clock.new_id("proj"),
    )
    level = Level(KEY, key.id, key.project_id)
    limit_micros = parse_usd(BUDGET_USD)
    yield from set_budget(a_change(clock), level, period="month", limit_micros=limit_micros)
    return key


async def _play(stage: Stage) -> None:
    click.echo(f"1. A key with a monthly budget of ${BUDGET_USD}, and two videos:")
    good = await _create(stage, prompt="A heron lands on a still lake", seconds="4")
    bad = await _create(stage, prompt="This one is made to fail [[fail]]", seconds="8")
    click.echo("\n2. Their progress:")
    await _follow(stage, good, bad)
    click.echo("\n3. What the ledger says (hold, then settle or release):")
    for video in (good, bad):
        await _show_entries(stage, video)
    click.echo("\n4. The finished video:")
    await _download(stage, good)
    click.echo("\n5. A request over budget:")
    await _refused(stage)
    differences = await stage.database.read(audit)
    if differences:
        raise fail(f"the ledger does not add up: {differences}")
    click.echo("\nThe ledger adds up: every balance is the sum of its entries.")


async def _create(stage: Stage, *, prompt: str, seconds: str) -> str:
    # The SDKs send multipart also where there is no file.
    fields = {"prompt": prompt, "model": "sora-2", "seconds": seconds, "size": "1280x720"}
    response = await stage.client.post(
        "/videos", files={name: (None, text) for name, text in fields.items()}
    )
    if response.status_code != httpx.codes.OK:
        raise fail(f"the video was refused: {response.text}")
    video: dict[str, Any] = response.json()
    cost, left = (
        response.headers[f"x-gateway-{name}"] for name in ("cost-usd", "budget-remaining-usd")
    )
    click.echo(f"   {video['id']}  {seconds} s  ${cost} held, ${left} left  ({prompt!r})")
    return str(video["id"])


async def _follow(stage: Stage, *ids: str) -> None:
    shown: dict[str, str] = {}
    async with asyncio.timeout(DEADLINE_SECONDS):
        while not all(shown.get(one, "").startswith(_OVER) for one in ids):
            for one in ids:
                video = (await stage.client.get(f"/videos/{one}")).json()
                status = f"{video['status']} {video['progress']} %"
                if video["error"]:
                    status += f" ({video['error']['code']})"
                if shown.get(one) != status:
                    click.echo(f"   {one}  {status}")
                shown[one] = status
            await asyncio.sleep(_LOOK_SECONDS)


async def _show_entries(stage: Stage, upstream_id: str) -> None:
    rows = await stage.database.read(partial(_entries, upstream_id))
    for kind, held, spent, reason in rows:
        why = f"  ({reason})" if reason else ""
        click.echo(
            f"   {upstream_id}  {kind:<8} held {format_usd(held):>6}"
            f"  spent {format_usd(spent):>6}{why}"
        )


def _entries(upstream_id: str) -> Script[list[tuple[str, int, int, str]]]:
    ((hold_id,),) = yield Sql("SELECT hold_id FROM videos WHERE upstream_id = $1", (upstream_id,))
    rows = yield from list_entries(hold_id=hold_id)
    return [(row["kind"], row["held_micros"], row["spent_micros"], row["reason"]) for row in rows]


async def _download(stage: Stage, upstream_id: str) -> None:
    path = stage.folder / f"{upstream_id}.mp4"
    check = Mp4Check()
    async with stage.client.stream("GET", f"/videos/{upstream_id}/content") as response:
        with path.open("wb") as file:
            async for chunk in response.aiter_bytes():
                file.write(chunk)
                check.feed(chunk)
        facts = check.facts()
    click.echo(f"   {path}")
    click.echo(
        f"   {path.stat().st_size} bytes, {facts.width}x{facts.height},"
        f" {facts.duration_seconds:g} seconds, ETag {response.headers['etag'][:14]}…"
    )


async def _refused(stage: Stage) -> None:
    response = await stage.client.post(
        "/videos", json={"prompt": "Too dear", "model": "sora-2", "seconds": "12"}
    )
    error = response.json()["error"]
    click.echo(f"   {response.status_code} {error['code']}: {error['message']}")


async def _keep(stage: Stage) -> None:
    click.echo("\nStill up. In another terminal, with `pip install openai`:\n")
    click.echo(SNIPPET.format(base_url=stage.gateway.base_url, api_key=stage.key.value))
    click.echo(f"Health: http://127.0.0.1:{stage.gateway.ops_port}/readyz?verbose")
    click.echo(write_config(stage.folder, ops_port=stage.gateway.ops_port))
    click.echo("Ctrl-C ends it.")
    stop = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stop.set)
    await stop.wait()
