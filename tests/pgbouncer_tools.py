"""Where does a test get a pooler from? Debian's package pgbouncer, in transaction mode."""

import contextlib
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

DEADLINE_SECONDS = 20.0
_SETTINGS = """
[databases]
* = host={host} port={port} user=postgres

[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {listen}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = 20
min_pool_size = 0
server_login_retry = 1
server_reset_query =
logfile = {folder}/log
"""


def pgbouncer() -> str | None:
    """Return the program, if it is installed."""
    return shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")


@contextlib.contextmanager
def pooler(url: str) -> Iterator[int]:
    """Run a pooler before the server of a URL, and yield its port."""
    program = pgbouncer()
    assert program is not None
    folder = Path(tempfile.mkdtemp(prefix="pgbouncer"))
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:  # as root it refuses
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    parts = urlsplit(url)
    settings = folder / "pgbouncer.ini"
    settings.write_text(
        _SETTINGS.format(host=parts.hostname, port=parts.port, listen=port, folder=folder)
    )
    process = subprocess.Popen([program, "-q", settings], cwd=folder, **owner)
    try:
        _wait_for(port)
        yield port
    finally:
        process.kill()
        process.wait()
        shutil.rmtree(folder, ignore_errors=True)


def _wait_for(port: int) -> None:
    until = time.monotonic() + DEADLINE_SECONDS
    while True:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        assert time.monotonic() < until, "the pooler does not listen"
        time.sleep(0.02)
