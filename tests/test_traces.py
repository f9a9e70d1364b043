"""Can the way of a request and of a video be followed, and does nobody wait for who is told?"""

import json
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest
from conftest import (
    ADMIN_KEY,
    Serving,
    command,
    environ_for,
    eventually,
    new_key,
    serving,
    settings_for,
)
from databases import POSTGRES
from trace_tools import Receiver, Told, receiver

from gateway.clock import system_clock
from gateway.db.script import Script, Sql
from gateway.setup import open_database
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings
from gateway.telemetry.exporting import FLUSH_SECONDS

TRACE_ID = "0af7651916cd43dd8448eb211c80319c"
CALLER_ID = "b7ad6b7169203331"
CALLER = f"00-{TRACE_ID}-{CALLER_ID}-01"
SECRET = "a purple walrus"
UPSTREAM_KEY = "sk-upstream-secret-0123456789"
ALERT: dict[str, Any] = {
    "threshold_amount": 1,
    "currency": "USD",
    "interval": "month",
    "notification_channel": {"type": "email", "recipients": ["ops@example.com"]},
}
# Found by every Python that is told to look here: as if the extra was not installed.
BLOCK = """
import importlib.abc, sys
class Blocked(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "opentelemetry":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
"""


@dataclass
class Stage:
    """A gateway in a process of its own, and a client of it."""

    served: Serving
    control: Control
    client: httpx.AsyncClient
    key: str
    folder: Path

    def lines(self, event: str) -> list[dict[str, Any]]:
        """Return what was logged of one event."""
        lines = [json.loads(line) for line in self.served.printed]
        return [line for line in lines if line["event"] == event]

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait until an event is logged, and return the first of its lines."""

        async def there() -> list[dict[str, Any]]:
            return self.lines(event)

        first: dict[str, Any] = (await eventually(there))[0]
        return first

    async def buy(self, prompt: str = "a cat", **headers: str) -> str:
        """Buy a video, and return its id."""
        answer = await self.client.post("/videos", json={"prompt": prompt}, headers=headers)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["id"])

    async def traceparent(self) -> str | None:
        """Return what is recorded of the first video."""

        def script() -> Script[str | None]:
            ((traceparent,),) = yield Sql("SELECT traceparent FROM videos ORDER BY id LIMIT 1")
            return None if traceparent is None else str(traceparent)

        settings = settings_for(self.folder, "http://upstream.invalid/v1")
        async with open_database(settings, clock=system_clock()) as database:
            return await database.read(script)


@asynccontextmanager
async def stage(
    folder: Path, *, variables: dict[str, str] | None = None, **changes: Any
) -> AsyncIterator[Stage]:
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=0)
    async with (
        Simulator(settings=simulated) as simulator,
        Control(simulator.base_url) as control,
    ):
        await control.settings(keys=[UPSTREAM_KEY])
        environ = environ_for(folder, simulator.base_url, **changes) | (variables or {})
        environ["GATEWAY_UPSTREAM_API_KEY"] = UPSTREAM_KEY
        settings = settings_for(folder, simulator.base_url)
        async with open_database(settings, clock=system_clock()) as database:
            key = await new_key(database, system_clock())
        async with serving(environ) as served, served.client(key) as client:
            yield Stage(served, control, client, key.value, folder)


def without_the_extra(folder: Path) -> dict[str, str]:
    blocked = folder / "blocked"
    blocked.mkdir()
    (blocked / "sitecustomize.py").write_text(BLOCK, encoding="utf-8")
    return {"PYTHONPATH": str(blocked)}


def named(spans: list[Told], trace_id: str) -> dict[str, Told]:
    """Return the spans of one trace by their names, each of which it has once."""
    found = [span for span in spans if span.trace_id == trace_id]
    by_name = {span.name: span for span in found}
    assert len(by_name) == len(found)
    return by_name


async def test_a_purchase_is_one_trace_and_what_is_done_for_its_video_links_to_it(
    tmp_path: Path, engine: str
) -> None:
    async with (
        receiver() as told,
        stage(tmp_path, trace_url=told.url, upstream_send_traceparent=True) as made,
    ):
        admin = {"authorization": f"Bearer {ADMIN_KEY}"}
        alert = await made.client.post("/organization/spend_alerts", json=ALERT, headers=admin)
        assert alert.status_code == 200, alert.text
        video_id = await made.buy(SECRET, traceparent=CALLER)
        (await made.logged("video_mirrored"), await made.logged("alert_delivery_failed"))
        await nonsense(made, video_id)
        created = await made.control.received("create")
        polled = await made.control.received("retrieve")
        assert await made.served.stop() == 0
        bought = check_purchase(told, engine)
        check_background(told, bought)
        assert created[0]["headers"]["traceparent"] == f"00-{TRACE_ID}-{upstream_id(told)}-01"
        asked = named(told.spans, told.named("poll")[-1].trace_id)["GET /videos/{id}"]
        sent = polled[-1]["headers"]["traceparent"]
        assert sent.startswith(f"00-{asked.trace_id}-{asked.span_id}-")
        assert await made.traceparent() == f"00-{TRACE_ID}-{bought.span_id}-01"
        for event in ("submit_accepted", "request", "video_completed", "video_mirrored"):
            ours = bought.facts["video_gateway.video_id"]
            lines = [line for line in made.lines(event) if line.get("video_id") == ours]
            assert [line["trace_id"] for line in lines] == [TRACE_ID], event
        for secret in (SECRET, "walrus", UPSTREAM_KEY, made.key, ADMIN_KEY, "Bearer"):
            assert [body for body in told.bodies if secret.encode() in body] == []


def upstream_id(told: Receiver) -> str:
    return named(told.spans, TRACE_ID)["POST /videos"].span_id


async def nonsense(made: Stage, video_id: str) -> None:
    """Have requests refused whose every part is a secret."""
    client = made.client
    said = json.dumps({"error": {"code": SECRET, "type": SECRET, "message": SECRET}})
    await made.control.fault("answer", operation="create", status=400, value=said)
    for answer in (
        await client.post("/videos", json={"prompt": SECRET}),
        await client.post("/videos", json={"prompt": SECRET, SECRET: SECRET}),
        await client.post("/videos", json={"prompt": SECRET, "model": SECRET}),
        await client.get(f"/videos/{SECRET}", params={"key": SECRET}),
        await client.get(f"/{SECRET}"),
        await client.get(f"/videos/{video_id}", headers={"authorization": f"Bearer {SECRET}"}),
    ):
        assert answer.status_code in {400, 401, 404}
    assert (await client.put("/videos")).status_code == 405


def check_purchase(told: Receiver, engine: str) -> Told:
    """Look at everything that is told of the purchase; return its outermost span."""
    spans = named(told.spans, TRACE_ID)
    bought = spans.pop("POST /v1/videos")
    assert (bought.kind, bought.parent_id, bought.links) == ("server", CALLER_ID, [])
    assert {
        "http.request.method": "POST",
        "http.route": "/v1/videos",
        "http.response.status_code": 200,
        "url.scheme": "http",
        "video_gateway.project": "studio",
        "video_gateway.cost_micros": 400_000,
    }.items() <= bought.facts.items()
    assert bought.service["service.name"] == "video-gateway"
    assert {"service.version", "service.instance.id"} <= set(bought.service)
    assert set(spans) == {
        "usable_keys.find_key",
        "opening.open_submit",
        "POST /videos",
        "outcomes._script",
    }
    assert {span.parent_id for span in spans.values()} == {bought.span_id}
    assert {span.kind for span in spans.values()} == {"client"}
    asked = spans.pop("POST /videos")
    assert {
        "http.request.method": "POST",
        "http.response.status_code": 200,
        "server.address": "127.0.0.1",
        "url.template": "/videos",
        "video_gateway.upstream": "default",
    }.items() <= asked.facts.items()
    system = "postgresql" if engine == POSTGRES else "sqlite"
    assert {span.facts["db.system.name"] for span in spans.values()} == {system}
    assert not any(span.is_error for span in told.spans if span.trace_id == TRACE_ID)
    return bought


def check_background(told: Receiver, bought: Told) -> None:
    """Look at everything that is told of what came after it."""
    polls, (mirror,) = told.named("poll"), told.named("mirror")
    for turn in (*polls, mirror):
        assert (turn.parent_id, turn.links) == ("", [bought.place])
        assert turn.facts["video_gateway.video_id"] == bought.facts["video_gateway.video_id"]
        assert turn.trace_id != TRACE_ID
    (settle,) = told.named("settle")
    assert (settle.trace_id, settle.links) == (polls[-1].trace_id, [bought.place])
    assert told.one("polls.write_completed").parent_id == settle.span_id
    assert told.one("assets.write_mirrored").parent_id == mirror.span_id
    assert named(told.spans, mirror.trace_id)["GET /videos/{id}/content"].facts[
        "video_gateway.upstream"
    ]
    alert = told.named("alert")[0]
    assert (alert.parent_id, alert.links) == ("", [])
    # Loops look for something to do several times a second: of that nothing is told.
    roots = {span.name for span in told.spans if not span.parent_id}
    assert roots == {
        *("poll", "mirror", "alert", "GET", "HTTP /v1/videos", "POST /v1/videos"),
        *("GET /v1/videos/{video_id}", "POST /v1/organization/spend_alerts"),
    }


@pytest.mark.costly
async def test_without_the_extra_the_trace_of_the_caller_is_logged_kept_and_passed_on(
    tmp_path: Path,
) -> None:
    variables = without_the_extra(tmp_path)
    async with stage(tmp_path, variables=variables, upstream_send_traceparent=True) as made:
        await made.buy(traceparent=CALLER)
        await made.logged("video_mirrored")
        await made.client.get("/videos", headers={"traceparent": CALLER.upper()})
        await made.client.get("/videos", headers={"traceparent": f"ff{CALLER[2:]}"})
        await made.client.get("/videos", headers=[("traceparent", CALLER)] * 2)
        assert await made.served.stop() == 0
        bought, *others = made.lines("request")
        assert [line.get("trace_id") for line in others] == [None] * 3
        about = ("submit_accepted", "video_completed", "video_mirrored")
        for line in (bought, *(made.lines(event)[0] for event in about)):
            assert line["trace_id"] == TRACE_ID
        assert await made.traceparent() == CALLER
        (created,) = await made.control.received("create")
        assert created["headers"]["traceparent"] == CALLER
        assert "traceparent" not in (await made.control.received("retrieve"))[0]["headers"]


@pytest.mark.costly
async def test_without_the_extra_it_is_said_in_words_what_tracing_needs(tmp_path: Path) -> None:
    environ = environ_for(
        tmp_path, "http://upstream.invalid/v1", trace_url="http://127.0.0.1:4318/v1/traces"
    )
    process = await command("serve", **environ, **without_the_extra(tmp_path))
    printed, _ = await process.communicate()
    assert process.returncode == 2
    assert printed.decode() == (
        "video-gateway: trace_url needs OpenTelemetry: pip install 'video-gateway[traces]'\n"
    )


@pytest.mark.costly
@pytest.mark.parametrize("fault", ["refuses", "dribbles"])
async def test_a_receiver_that_is_down_holds_nobody_up_and_is_one_line_in_the_log(
    tmp_path: Path, fault: str
) -> None:
    async with receiver(answering=fault != "dribbles") as told:
        url = told.url if fault == "dribbles" else "http://127.0.0.1:1/v1/traces"
        async with stage(tmp_path, trace_url=url) as made:
            await made.buy(traceparent=CALLER)
            if fault == "refuses":
                await made.logged("traces_not_exported")
            begun = time.monotonic()
            for _ in range(10):
                await made.buy(traceparent=CALLER)
            assert time.monotonic() - begun < 20
            begun = time.monotonic()
            assert await made.served.stop() == 0
            assert time.monotonic() - begun < FLUSH_SECONDS + 5
            said = made.lines("traces_not_exported")
            assert [line["level"] for line in said] == ["warning"] * len(said)
            # At the end, once more: no time was left.
            assert 1 <= len(said) <= 2
            assert fault != "refuses" or said[0]["cause"].startswith(
                "Transient error ConnectionError encountered"
            )
            assert all(line.startswith("{") for line in made.served.printed)
            assert made.lines("library_warned") + made.lines("library_failed") == []
            assert "Traceback" not in "".join(made.served.printed)
            assert made.lines("gateway_stopped")
        assert told.spans == []
