"""Does the container that the chart describes run, serve, and end, as Kubernetes would run it?"""

import asyncio
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, NamedTuple

import httpx
import openai
import pytest
from chart_tools import CHART, ROOT, one, template, workload
from conftest import eventually
from plain_http import NO_TLS

from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings

AS_POD = Path(__file__).with_name("as_pod.py")
SECONDS = 60
POD_USER = 10001
# What a container must not be able to do, as a program: it prints the errno of each try.
TRY = """
import os
print("user", os.getuid(), os.getgid(), os.getgroups())
for path in ("/x", "/etc/video-gateway/x", "/run/secrets/video-gateway/x", "/usr/x", "/tmp/x",
             "/data/x"):
    try:
        with open(path, "w"):
            print(path, "written")
    except OSError as error:
        print(path, os.strerror(error.errno))
try:
    os.setuid(0)
    print("became root")
except OSError as error:
    print("setuid", os.strerror(error.errno))
"""

pytestmark = [
    pytest.mark.skipif(os.geteuid() != 0, reason="NOT RUN: mounts and other users need root"),
    pytest.mark.filterwarnings("ignore:The Sora API is scheduled:DeprecationWarning"),
]


class Pod(NamedTuple):
    """A pod of the chart on this machine: its objects, and where its volumes are."""

    objects: list[dict[str, Any]]
    folder: Path

    @property
    def container(self) -> dict[str, Any]:
        return dict(workload(self.objects)["spec"]["template"]["spec"]["containers"][0])

    def command(self, command: list[str]) -> list[str]:
        """Return the command that runs this one in the container."""
        spec = workload(self.objects)["spec"]["template"]["spec"]
        context = spec["securityContext"]
        mounts = {
            mount["mountPath"]: {
                "path": str(self.folder / mount["name"]),
                "readonly": mount.get("readOnly", False),
            }
            for mount in self.container["volumeMounts"]
        }
        programs = f"{sys.prefix}/bin"
        told = {
            "root": str(self.folder / "root"),
            "programs": [sys.base_prefix, str(ROOT), sys.prefix],
            "mounts": mounts,
            "uid": context["runAsUser"],
            "gid": context["runAsGroup"],
            "groups": context["fsGroup"],
            "command": command,
            "env": {one["name"]: one["value"] for one in self.container["env"]}
            | {"PATH": f"{programs}:/usr/bin:/bin"},
        }
        return [sys.executable, str(AS_POD), json.dumps(told)]

    async def run(self, *command: str) -> str:
        """Return what a command prints in the container, as `kubectl exec` would."""
        done = await asyncio.to_thread(
            subprocess.run,
            self.command(list(command)),
            capture_output=True,
            text=True,
            timeout=SECONDS,
            check=False,
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return str(done.stdout)

    @contextmanager
    def started(self) -> Iterator[tuple[subprocess.Popen[str], Path]]:
        """Start the container's own command; yield the process and the file of its log."""
        log = self.folder / "log"
        own = [*self.container["command"], *self.container["args"]]
        with log.open("w") as out, subprocess.Popen(self.command(own), stdout=out, text=True) as up:
            try:
                yield up, log
            finally:
                up.kill()


def pod(folder: Path, *sets: str, key: str) -> Pod:
    """Return a pod with its volumes: files of ConfigMap and Secrets, folders for the rest."""
    objects = template("default-values.yaml", sets=sets)
    spec = workload(objects)["spec"]["template"]["spec"]
    (folder / "root").mkdir()
    for mount in spec["containers"][0]["volumeMounts"]:
        (folder / mount["name"]).mkdir(mode=0o755)
    name = next(each["configMap"]["name"] for each in spec["volumes"] if "configMap" in each)
    for file, text in one(objects, "ConfigMap", name)["data"].items():
        (folder / "config" / file).write_text(text)
    (secrets,) = (each["projected"] for each in spec["volumes"] if "projected" in each)
    for source in secrets["sources"]:
        for item in source["secret"]["items"]:
            file = folder / "secrets" / item["path"]
            file.write_text(f"{key}\n")
            # As the kubelet makes them: of root, and of the group of fsGroup.
            file.chmod(secrets["defaultMode"])
            os.chown(file, 0, spec["securityContext"]["fsGroup"])
    for name in ("data", "tmp"):
        os.chown(folder / name, 0, spec["securityContext"]["fsGroup"])
        (folder / name).chmod(0o2775)
    return Pod(objects, folder)


def free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])


async def test_the_container_serves_as_the_chart_runs_it_and_ends_with_0(tmp_path: Path) -> None:
    port, ops_port = free_port(), free_port()
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=0)
    async with Simulator(settings=simulated) as upstream, Control(upstream.base_url) as control:
        made = pod(
            tmp_path,
            *(f"settings.port={port}", f"settings.ops_port={ops_port}"),
            *("settings.host=127.0.0.1", "settings.ops_host=127.0.0.1"),
            *(f"settings.upstream_base_url={upstream.base_url}",),
            *("settings.poll_interval_seconds=1", "settings.drain_delay_seconds=1"),
            key="sk-simulator",
        )
        with made.started() as (process, log):
            await _ready(made, process, ops_port)
            text = await made.run(
                *("video-gateway", "keys", "create", "--project", "studio", "--name", "a"),
                "--json",
            )
            base_url, key = f"http://127.0.0.1:{port}", str(json.loads(text)["value"])
            await _buy(f"{base_url}/v1", key, control)
            await _helm_test(base_url, f"http://127.0.0.1:{ops_port}")
            tried = await made.run("python", "-c", TRY)
            assert tried.splitlines() == [
                f"user {POD_USER} {POD_USER} [{POD_USER}]",
                "/x Read-only file system",
                "/etc/video-gateway/x Read-only file system",
                "/run/secrets/video-gateway/x Read-only file system",
                "/usr/x Read-only file system",
                "/tmp/x written",
                "/data/x written",
                "setuid Operation not permitted",
            ]
            process.send_signal(signal.SIGTERM)
            code = await asyncio.to_thread(process.wait, SECONDS)
            assert code == 0, log.read_text()
    events = [json.loads(line) for line in log.read_text().splitlines()]
    assert events[-1]["event"] == "gateway_stopped"
    assert [each for each in events if each["level"] == "error"] == []
    assert "sk-simulator" not in log.read_text()
    assert (tmp_path / "data" / "gateway.db").stat().st_uid == POD_USER
    assert any((tmp_path / "data" / "content").rglob("*"))


async def _ready(made: Pod, process: subprocess.Popen[str], port: int) -> None:
    path = made.container["readinessProbe"]["httpGet"]["path"]

    async def ready() -> bool:
        assert process.poll() is None
        try:
            answer = await client.get(f"http://127.0.0.1:{port}{path}")
        except httpx.TransportError:
            return False
        return answer.status_code == 200

    async with httpx.AsyncClient(verify=NO_TLS, trust_env=False) as client:
        await eventually(ready, seconds=SECONDS)


async def _buy(base_url: str, key: str, control: Control) -> None:
    async with openai.AsyncOpenAI(base_url=base_url, api_key=key) as client:
        video = await client.videos.create_and_poll(
            model="sora-2", prompt="a heron", seconds="4", size="1280x720"
        )
        assert video.status == "completed"
        content = await client.videos.download_content(video.id)
    assert content.content == await control.content(video.id)


async def _helm_test(api: str, ops: str) -> None:
    """Run what `helm test` runs; the addresses of services do not exist here."""
    (container,) = one(template("default-values.yaml"), "Pod")["spec"]["containers"]
    script = container["args"][0]
    assert script.strip() == (CHART / "files" / "serves.py").read_text().strip()
    for addresses, code in (((api, ops), 0), ((ops, ops), 1)):
        done = await asyncio.to_thread(
            subprocess.run,
            [shutil.which("python3") or sys.executable, "-c", script, *addresses],
            capture_output=True,
            text=True,
            timeout=SECONDS,
            env={"PATH": os.environ["PATH"]},
            check=False,
        )
        assert done.returncode == code, done.stdout + done.stderr
