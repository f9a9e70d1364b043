"""How does a test run gateways as processes that die, stop, and are followed by others?"""

import asyncio
import json
import os
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar

import httpx
from conftest import eventually, new_key, settings_for
from databases import look
from plain_http import NO_TLS

from gateway.billing.audit_log import COMMAND, Change
from gateway.clock import system_clock
from gateway.config import Settings
from gateway.db.script import Script
from gateway.setup import open_database
from gateway.simulator.control import Control
from gateway.simulator.server import Simulator
from gateway.simulator.world import Settings as SimulatorSettings

T = TypeVar("T")

# The folder becomes a disk of its own, which only this command sees and which is gone with it.
SMALL_DISK = 'mount -t tmpfs -o size="$1" tmpfs "$2" && shift 2 && exec "$@"'
ENTRY = Path(__file__).with_name("crash_server.py")
# Of sora-2, 4 seconds, 720p: what `create` asks for.
PRICE_MICROS = 400_000
# Longer than the lease of a poll or a mirror turn.
PAST_A_TURN_SECONDS = 75
COMMAND_SECONDS = 30


def is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    return True


async def gone(pids: list[int], *, seconds: float) -> None:
    """Wait until none of these processes is left."""

    async def met() -> bool:
        return not any(map(is_alive, pids))

    await eventually(met, seconds=seconds)


@dataclass
class Process:
    """One gateway process; its log, and every step it reached, are read as they come."""

    popen: subprocess.Popen[str]
    lines: list[dict[str, Any]] = field(default_factory=list)
    base_url: str = ""

    def said(self, event: str) -> list[dict[str, Any]]:
        """Return the lines of its log with an event's name."""
        return [line for line in list(self.lines) if line.get("event") == event]

    @property
    def steps(self) -> list[str]:
        return [line["step"] for line in self.said("step")]

    async def died(self, *, seconds: float = COMMAND_SECONDS) -> int:
        """Wait for its end and return the exit code; raises TimeoutError."""
        await self.until(self._is_dead, seconds=seconds)
        return int(self.popen.returncode)

    async def stopped(self) -> None:
        """Wait until it has stopped itself."""
        await self.until(self._is_stopped)

    def resume(self) -> None:
        self.popen.send_signal(signal.SIGCONT)

    def terminate(self) -> None:
        self.popen.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        self.popen.kill()

    async def reached(self, step: str, *, times: int = 1) -> None:
        """Wait until it has reached a step so many times."""
        await self.until(lambda: self.steps.count(step) >= times)

    async def logged(self, event: str) -> dict[str, Any]:
        """Wait for the first line with an event's name and return it."""
        await self.until(lambda: bool(self.said(event)))
        return self.said(event)[0]

    async def until(
        self, condition: Callable[[], bool], *, seconds: float = COMMAND_SECONDS
    ) -> None:
        async def met() -> bool:
            return condition()

        await eventually(met, seconds=seconds)

    async def served(self) -> bool:
        """Wait until it serves; tell whether it does, or died at one of its first steps."""
        await self.until(lambda: bool(self.said("gateway_started")) or self._is_dead())
        for started in self.said("gateway_started"):
            self.base_url = f"http://127.0.0.1:{started['port']}/v1"
        return bool(self.base_url)

    def _is_dead(self) -> bool:
        return self.popen.poll() is not None

    def _is_stopped(self) -> bool:
        # Only looked at: whether it has ended is for Popen to find out.
        flags = os.WSTOPPED | os.WNOHANG | os.WNOWAIT
        return os.waitid(os.P_PID, self.popen.pid, flags) is not None


@dataclass
class Scene:
    """One folder, one upstream, and the gateway processes that follow each other on them."""

    folder: Path
    simulator: Simulator
    control: Control
    settings: Settings
    key: str
    offset_seconds: int = 0

    @asynccontextmanager
    async def process(
        self,
        step: str | None = None,
        *,
        nth: int = 1,
        act: str = "kill",
        under: Callable[[list[str]], list[str]] = list,
        **changes: Any,
    ) -> AsyncIterator[Process]:
        """Start a gateway, which serves from now on; it is gone when the context ends.

        One that is to strike may have done so before it serves. `under` returns the command that
        runs this one, such as on_a_small_disk; the process must stay the same.
        """
        told = {
            "settings": self._plain() | changes,
            "clock_file": str(self._clock_file),
            "step": step,
            "nth": nth,
            "act": act,
        }
        with _started(under([sys.executable, str(ENTRY), json.dumps(told)])) as process:
            assert await process.served() or step is not None
            yield process

    def jump(self, seconds: int) -> None:
        """Move the time of all gateway processes."""
        self.offset_seconds += seconds
        fresh = self._clock_file.with_suffix(".new")
        fresh.write_text(str(self.offset_seconds))
        fresh.replace(self._clock_file)

    def now(self) -> int:
        """Return the time of all gateway processes."""
        return system_clock().now() + self.offset_seconds

    def change(self) -> Change:
        """Somebody at a shell changes something now."""
        return Change(system_clock().new_id("audit_log"), self.now(), COMMAND, "tests")

    def client(self, process: Process) -> httpx.AsyncClient:
        return httpx.AsyncClient(
            verify=NO_TLS,
            base_url=process.base_url,
            headers={"authorization": f"Bearer {self.key}"},
            trust_env=False,
            timeout=COMMAND_SECONDS,
        )

    async def create(self, process: Process, prompt: str = "a heron") -> httpx.Response:
        async with self.client(process) as client:
            return await client.post("/videos", json={"prompt": prompt})

    async def command(self, *words: str) -> tuple[int, str]:
        """Run `video-gateway` as an operator does; return exit code and output."""
        done = await asyncio.to_thread(
            subprocess.run,
            [
                *(sys.executable, "-m", "gateway", *words),
                *("--database-url", self.settings.database_url),
            ],
            capture_output=True,
            text=True,
            timeout=COMMAND_SECONDS,
            check=False,
        )
        return done.returncode, done.stdout + done.stderr

    async def orphans(self) -> list[dict[str, Any]]:
        code, text = await self.command("orphans", "list", "--json")
        assert code == 0, text
        return list(json.loads(text))

    async def adds_up(self) -> None:
        """Insist that every balance is the sum of its entries."""
        code, text = await self.command("ledger", "audit")
        assert code == 0, text

    async def run(self, script: Callable[[], Script[T]]) -> T:
        """Run a script beside the processes; call it while one of them is up."""
        async with open_database(self.settings, clock=system_clock()) as database:
            return await database.run(script)

    def rows(self, text: str, *args: str) -> list[Any]:
        """Look into the database; while a process is up, so that looking recovers nothing."""
        return look(self.settings.database_url, text, *args)

    def money(self) -> tuple[int, int]:
        """Return spent and held micros of the organization."""
        ((spent, held),) = self.rows(
            "SELECT COALESCE(SUM(spent_micros), 0), COALESCE(SUM(held_micros), 0) FROM balances"
            " WHERE level = 'organization' AND period = 'total'"
        )
        return spent, held

    def entries(self) -> Counter[str]:
        """Return how many entries of each kind there are."""
        rows = self.rows("SELECT kind, COUNT(*) AS count FROM entries GROUP BY kind")
        return Counter({str(row["kind"]): int(row["count"]) for row in rows})

    async def mirrored(self, count: int = 1) -> None:
        """Wait until so many videos are in the store."""
        await self.counted("SELECT id FROM assets WHERE mirrored_at IS NOT NULL", count)

    async def orphaned(self, count: int = 1) -> None:
        """Wait until so many videos are orphans."""
        await self.counted("SELECT id FROM videos WHERE orphaned_at IS NOT NULL", count)

    async def counted(self, text: str, count: int) -> None:
        async def met() -> bool:
            return len(self.rows(text)) == count

        await eventually(met, seconds=COMMAND_SECONDS)

    async def executed(self) -> list[dict[str, Any]]:
        """Return every video that the upstream has made."""
        return list((await self.control.state())["executed"])

    async def happened(self, count: int = 1) -> None:
        """Wait until the upstream has made so many videos."""

        async def met() -> bool:
            return len(await self.executed()) == count

        await eventually(met)

    async def downloads(self, process: Process, video_id: str) -> None:
        """Insist that a client gets the bytes that the upstream has made."""
        async with self.client(process) as client:
            answer = await client.get(f"/videos/{video_id}/content")
        assert answer.status_code == 200, answer.text
        assert answer.content == await self.control.content(video_id)

    @property
    def _clock_file(self) -> Path:
        return self.folder / "clock"

    def _plain(self) -> dict[str, Any]:
        names = (
            *("port", "ops_port", "database_url", "store_url", "upstream_base_url"),
            *("upstream_api_key", "poll_interval_seconds", "shutdown_seconds"),
            *("upstream_post_seconds", "reply_seconds"),
        )
        return {name: getattr(self.settings, name) for name in names}


@asynccontextmanager
async def scene(folder: Path, **changes: Any) -> AsyncIterator[Scene]:
    """Run a simulated upstream whose videos are finished at once; a gateway may start beside it."""
    simulated = SimulatorSettings(queue_seconds=0, generation_seconds=0)
    async with (
        Simulator(settings=simulated) as simulator,
        Control(simulator.base_url) as control,
    ):
        settings = settings_for(folder, simulator.base_url, **changes)
        clock = system_clock()
        async with open_database(settings, clock=clock) as database:
            key = await new_key(database, clock)
        made = Scene(folder, simulator, control, settings, key=key.value)
        made.jump(0)
        yield made


def on_a_small_disk(folder: Path, *, size: str, command: Sequence[str | Path]) -> list[str]:
    """Return a command that runs this one where a folder is a real disk of that size, such as 4m.

    From outside it is seen_by() the process.
    """
    alone = ["unshare", "--mount"] if os.geteuid() == 0 else ["unshare", "-Urm"]
    return [*alone, "sh", "-c", SMALL_DISK, "sh", size, str(folder), *map(str, command)]


def seen_by(process: Process, path: Path) -> Path:
    """Return where a path leads as a process sees it."""
    return Path(f"/proc/{process.popen.pid}/root{path}")


def with_faults(*injected: str, command: Sequence[str]) -> list[str]:
    """Return a command that runs this one with system calls that fail; see strace(1), inject."""
    names = ",".join(one.partition(":")[0] for one in injected)
    faults = [f"--inject={one}" for one in injected]
    # -D: the command keeps the process id, and strace ends with it.
    return ["strace", "-D", "-f", "-qqq", "-o", "/dev/null", "-e", names, *faults, *command]


def memory(process: Process) -> tuple[int, int]:
    """Return how many bytes of memory a process has resident, and had at most."""
    status = Path(f"/proc/{process.popen.pid}/status").read_text()
    resident, peak = (
        int(status.partition(f"{name}:")[2].split()[0]) << 10 for name in ("VmRSS", "VmHWM")
    )
    return resident, peak


def forget_peak(process: Process) -> None:
    """Let the most memory that a process had be what it has now (proc(5), clear_refs)."""
    Path(f"/proc/{process.popen.pid}/clear_refs").write_text("5")


@contextmanager
def _started(command: list[str]) -> Iterator[Process]:
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as popen:
        process = Process(popen)
        reader = threading.Thread(target=_read, args=(process,))
        reader.start()
        try:
            yield process
        finally:
            popen.kill()
            reader.join()


def _read(process: Process) -> None:
    assert process.popen.stdout is not None
    for line in process.popen.stdout:
        process.lines.append(json.loads(line))
