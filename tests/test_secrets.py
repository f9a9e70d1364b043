"""Does a whole run tell nobody's secret, whatever goes wrong in it?"""

import asyncio
import base64
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import httpx
import pytest
import trustme
from conftest import ADMIN_KEY, DEADLINE_SECONDS, environ_for, eventually
from databases import bytes_of
from mail_tools import LOGIN, PASSWORD, SECRET, post_office
from test_alerts_mail import server_context

from gateway.simulator.control import Control
from gateway.simulator.server import Simulator

pytestmark = pytest.mark.postgres("a file has no password")

ENTRY = Path(__file__).with_name("failing_server.py")
PROMPT = "a purple walrus"
UPSTREAM_KEY = "sk-upstream-secret-0123456789"
ACCOUNT_TOKEN = "account-secret-0123456789"
DATABASE_PASSWORD = "database-secret-0123456789"
TRACES_KEY = "traces-secret-0123456789"
RECIPIENT = "otto@example.com"
PNG = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
)
# Where a defect is met that quotes the prompt: in a request, in a submit, in a poll and a mirror.
DEFECTS = ("submit.held", "submit.sending", "poll.recorded", "mirror.recorded")
EVENTS = {
    "alert_delivered",
    "alert_delivery_failed",
    "gateway_draining",
    "gateway_started",
    "gateway_stopped",
    "library_warned",
    "mirror_failed",
    "poll_said_nothing",
    "request",
    "request_failed",
    "submit_accepted",
    "submit_failed",
    "submit_outcome_unknown",
    "submit_refused",
    "traces_not_exported",
    "turn_failed",
    "video_completed",
    "video_failed",
    "video_mirrored",
}


@dataclass
class Run:
    """A gateway that has everything to tell that it must not."""

    base_url: str
    port: int
    control: Control
    printed: list[str]
    mails: list[Any]
    told: list[str] = field(default_factory=list)

    def client(self, authorization: str) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            base_url=self.base_url,
            headers={"authorization": authorization},
            trust_env=False,
            timeout=60,
        )

    async def said(self, event: str, *, times: int = 1) -> None:
        """Wait for so many lines of an event."""

        async def met() -> bool:
            return sum(f'"event": "{event}"' in line for line in self.printed) >= times

        await eventually(met)


@asynccontextmanager
async def a_run(folder: Path) -> AsyncIterator[Run]:
    """Run one to its orderly end."""
    authority = trustme.CA()
    authority.cert_pem.write_to_path(str(folder / "authority.pem"))
    async with (
        Simulator() as simulator,
        Control(simulator.base_url) as control,
        post_office(tls=server_context(authority)) as office,
    ):
        await control.settings(keys=[UPSTREAM_KEY])
        environ = environ_for(
            folder,
            simulator.base_url,
            upstream_post_seconds=1,
            upstream_account_token=ACCOUNT_TOKEN,
            smtp_host="localhost",
            smtp_port=office.port,
            smtp_security="tls",
            smtp_username=LOGIN,
            smtp_password=PASSWORD,
            smtp_from="gateway@example.com",
            alert_webhook_secret=SECRET,
            trace_url="http://127.0.0.1:9/v1/traces",
        )
        environ["GATEWAY_UPSTREAM_API_KEY"] = UPSTREAM_KEY
        environ["OTEL_EXPORTER_OTLP_HEADERS"] = f"authorization=Bearer {TRACES_KEY}"
        url = environ["GATEWAY_DATABASE_URL"]
        with_password = url.replace("@", f":{DATABASE_PASSWORD}@", 1)
        assert DATABASE_PASSWORD in with_password
        environ["GATEWAY_DATABASE_URL"] = environ["GATEWAY_DATABASE_DIRECT_URL"] = with_password
        told = json.dumps({"steps": DEFECTS, "text": f"{PROMPT} and {UPSTREAM_KEY}"})
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, str(ENTRY), told),
            env={**os.environ, **environ, "SSL_CERT_FILE": str(folder / "authority.pem")},
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.STDOUT,
            limit=1 << 20,
        )
        async with asyncio.TaskGroup() as group:
            run = Run("", 0, control, [], office.mails)
            group.create_task(read(process, run.printed))
            await run.said("gateway_started")
            started = json.loads(run.printed[0])
            run.base_url, run.port = started["base_url"], started["port"]
            try:
                yield run
            finally:
                process.terminate()
                async with asyncio.timeout(DEADLINE_SECONDS):
                    assert await process.wait() == 0
        kept = bytes_of(url)
    for value in run.told:
        assert value.encode() not in kept


async def read(process: asyncio.subprocess.Process, printed: list[str]) -> None:
    assert process.stdout is not None
    while line := await process.stdout.readline():
        printed.append(line.decode())


async def test_a_whole_run_tells_neither_prompts_nor_keys_nor_passwords(tmp_path: Path) -> None:
    async with a_run(tmp_path) as run:
        key = await manage(run)
        async with run.client(f"Bearer {key}") as client:
            await meet_defects(run, client)
            await ask_wrongly(run, client)
            await buy(run, client)
        await run.said("alert_delivered")
        await run.said("alert_delivery_failed")
    (mail,) = run.mails
    assert mail.login
    printed = "".join(run.printed)
    lines = [json.loads(line) for line in run.printed]  # nothing else is printed
    assert {line["event"] for line in lines} >= EVENTS
    assert sum("exception" in line for line in lines) == len(DEFECTS)
    secrets = [
        *(PROMPT, "walrus", UPSTREAM_KEY, ACCOUNT_TOKEN, DATABASE_PASSWORD, PASSWORD, SECRET),
        *(TRACES_KEY, ADMIN_KEY, RECIPIENT, "Bearer", "Basic"),
        *run.told,
    ]
    for secret in secrets:
        assert secret not in printed, secret
        # Cut off, as drivers cut what they quote; and as logins send it.
        assert secret[: max(6, len(secret) - 2)] not in printed, secret
        assert base64.b64encode(secret.encode()).decode().rstrip("=") not in printed, secret


async def manage(run: Run) -> str:
    """Make everything whose value is shown once; return a key that buys."""
    async with run.client(f"Bearer {ADMIN_KEY}") as client:

        async def made(path: str, **fields: Any) -> dict[str, Any]:
            answer = await client.post(f"/organization{path}", json=fields)
            assert answer.status_code == 200, answer.text
            found: dict[str, Any] = answer.json()
            return found

        admin = await made("/admin_api_keys", name="another")
        project = await made("/projects", name="studio")
        within = f"/projects/{project['id']}"
        account = await made(f"{within}/service_accounts", name="laptop")
        first = account["api_key"]
        rotated = await made(f"{within}/api_keys/{first['id']}/rotate", grace_seconds=60)
        run.told += [admin["value"], first["value"], rotated["value"]]
        month = {"threshold_amount": 1, "currency": "USD", "interval": "month"}
        for channel in (
            {"type": "email", "recipients": [RECIPIENT]},
            {"type": "webhook", "url": "http://127.0.0.1:9/hook"},
        ):
            await made(f"{within}/spend_alerts", **month, notification_channel=channel)
        await client.post("/organization/projects", json={"name": PROMPT, PROMPT: PROMPT})
    return str(rotated["value"])


async def meet_defects(run: Run, client: httpx.AsyncClient) -> None:
    """Buy until each of DEFECTS was met."""
    answers = [
        await client.post("/videos", json={"prompt": f"{PROMPT} {number}"}) for number in range(3)
    ]
    assert [answer.status_code for answer in answers] == [500, 502, 200]
    await run.control.advance(100)
    await run.said("turn_failed", times=2)


async def ask_wrongly(run: Run, client: httpx.AsyncClient) -> None:
    """Send what no client should, with a secret in every place."""
    key = client.headers["authorization"].partition(" ")[2]
    basic = base64.b64encode(f"{PROMPT}:{key}".encode()).decode()
    run.told += [basic, key[:-1], "vga_" + key[4:]]
    for wrong in (f"Basic {basic}", f"Bearer {key[:-1]}", key, "Bearer vga_" + key[4:], PROMPT):
        await client.get("/videos/none", headers={"authorization": wrong})
    await client.get("/videos", headers={"authorization": f"Bearer {ADMIN_KEY}"})
    await client.get("/organization/projects")
    await client.get(f"/videos/{PROMPT}", params={"key": key, "prompt": PROMPT})
    await client.get(f"/{PROMPT}", params={"key": key})
    said = {"x-request-id": PROMPT, "idempotency-key": PROMPT, "user-agent": PROMPT}
    assert (await client.get("/videos", headers=said)).status_code == 200
    for body in (
        {"prompt": PROMPT, PROMPT: PROMPT},
        {"prompt": PROMPT, "model": PROMPT},
        {"prompt": PROMPT, "seconds": PROMPT},
        {"prompt": [PROMPT]},
    ):
        assert (await client.post("/videos", json=body)).status_code == 400
    json_type = {"content-type": "application/json"}
    await client.post("/videos", content=PROMPT, headers=json_type)
    await client.post("/videos", json={"prompt": PROMPT}, headers={"x-gateway-walrus": PROMPT})
    form = {"content-type": f"multipart/form-data; boundary={key[:20]}"}
    await client.post("/videos", content=f"--walrus\r\n{PROMPT}", headers=form)
    for name, content in ((f"{PROMPT}.png", PROMPT.encode()), (f"{PROMPT}.gif", b"GIF89a")):
        file = {"input_reference": (name, content, "image/png")}
        answer = await client.post("/videos", data={"prompt": PROMPT}, files=file)
        assert answer.status_code == 400
    reader, writer = await asyncio.open_connection("127.0.0.1", run.port)
    writer.write(f"{PROMPT} {key}\r\n\r\n".encode())
    with contextlib.suppress(ConnectionError):
        await reader.read()
    writer.close()
    await run.said("library_warned")


async def buy(run: Run, client: httpx.AsyncClient) -> None:
    """Let everything happen to videos that leaves a line, with a secret in each prompt."""
    prompts = (
        "",
        "[[refuse]]",
        "[[moderate]]",
        "[[500-executed]]",
        "[[500]]",
        "[[hang]]",
        "[[fail]]",
        "[[retrieve:404*1]]",
        "[[retrieve:html*1]]",
        "[[content:html*1]]",
    )
    bought = []
    for prompt in prompts:
        answer = await client.post("/videos", json={"prompt": f"{PROMPT} {prompt}"})
        if answer.status_code == 200:
            bought.append(answer.json()["id"])
    file = {"input_reference": (f"{PROMPT}.png", PNG, "image/png")}
    await client.post("/videos", data={"prompt": PROMPT, "size": "720x1280"}, files=file)
    # The upstream says no, and quotes what it was asked in every field that there is.
    words = dict.fromkeys(("message", "type", "param", "code"), f"no {PROMPT}")
    for status, body in (
        (400, {"error": words}),
        (503, {"error": words}),
        (400, {"error": PROMPT}),
    ):
        await run.control.fault("answer", operation="create", status=status, value=json.dumps(body))
        await client.post("/videos", json={"prompt": f"{PROMPT} {status}"})
    await run.control.advance(100)

    async def over() -> bool:
        videos = [(await client.get(f"/videos/{video_id}")).json() for video_id in bought]
        contents = [
            (await client.get(f"/videos/{video['id']}/content")).status_code
            for video in videos
            if video["status"] == "completed"
        ]
        ends = {video["status"] for video in videos}
        return ends == {"completed", "failed"} and set(contents) == {200}

    await eventually(over)
    assert (await client.delete(f"/videos/{bought[0]}")).status_code == 200
