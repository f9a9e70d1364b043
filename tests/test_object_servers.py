"""Do the servers that tests start end with whoever has started them?"""

import os
import socket
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

from object_servers import HOST

DEADLINE_SECONDS = 20.0

STARTER = """
import sys
from pathlib import Path
sys.path.insert(0, sys.argv[1])
from object_servers import moto_server, swift_server

with moto_server() as moto, swift_server(Path(sys.argv[2])) as swift:
    print(moto.port, swift.port, flush=True)
    sys.stdin.read()
"""


def test_object_servers_end_when_whoever_started_them_is_killed(tmp_path: Path) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", STARTER, Path(__file__).parent, tmp_path],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as starter:
        assert starter.stdout is not None
        ports = [int(port) for port in starter.stdout.readline().split()]
        assert [_is_served(port) for port in ports] == [True, True]
        starter.kill()
    deadline = time.monotonic() + DEADLINE_SECONDS
    while any(_is_served(port) for port in ports):
        assert time.monotonic() < deadline
        os.sched_yield()


def _is_served(port: int) -> bool:
    with suppress(ConnectionRefusedError):
        socket.create_connection((HOST, port), timeout=5).close()
        return True
    return False
