"""How does a SQLite file that is in use become another file, whole and of one moment?

SQLite's own backup reads under one snapshot, which holds up nobody who writes. The copy gets its
name only when it is on the disk and has been looked through; a file of that name is never touched.
"""

import os
import sqlite3
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final, NamedTuple

from gateway.db.script import Script
from gateway.db.sqlite import drive

PAGES: Final = 2_000  # at once
BUSY_SECONDS: Final = 10.0


class BackupFailed(Exception):
    """There is no backup; the text says why."""


class Backup(NamedTuple):
    """A file that has been written."""

    size_bytes: int


def back_up(
    source: Path,
    file: Path,
    *,
    audit: Callable[[], Script[Sequence[object]]],
    told: Callable[[int], None],
) -> Backup:
    """Write what a database file has at this moment into a new file, with mode 0600.

    Args:
        source: may be in use.
        file: must not be there; durable, and all of it, on return.
        audit: returns what does not add up.
        told: how many more bytes are copied.

    Raises:
        BackupFailed: and there is no such file, unless there was one before.
    """
    if file.exists():
        raise BackupFailed(f"{file} is there already: a backup replaces nothing")
    try:
        with _new(file) as temporary:
            with closing(_opened(source, "ro")) as connection:
                _copy(connection, temporary, told)
            _look_through(temporary, audit)
            return Backup(temporary.stat().st_size)
    except FileExistsError as error:
        raise BackupFailed(f"{file} is there already: a backup replaces nothing") from error
    except OSError as error:
        raise BackupFailed(f"cannot write {file}: {error.strerror}") from error
    except sqlite3.Error as error:
        raise BackupFailed(f"cannot back up {source}: {error}") from error


@contextmanager
def _new(file: Path) -> Iterator[Path]:
    """Yield a temporary file, which has the name of `file` once it is on the disk."""
    folder = file.absolute().parent
    number, name = tempfile.mkstemp(dir=folder, prefix=f".{file.name}.")  # mode 0600
    os.close(number)
    temporary = Path(name)
    try:
        yield temporary
        _sync(temporary)
        file.hardlink_to(temporary)  # a rename would replace what came there meanwhile
    finally:
        for leftover in ("", "-wal", "-shm", "-journal"):
            Path(f"{name}{leftover}").unlink(missing_ok=True)
    _sync(folder)


def _sync(path: Path) -> None:
    number = os.open(path, os.O_RDONLY)
    try:
        os.fsync(number)
    finally:
        os.close(number)


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    # As a URI, or SQLite would make a file where there is none.
    connection = sqlite3.connect(
        f"{path.absolute().as_uri()}?mode={mode}",
        uri=True,
        timeout=BUSY_SECONDS,
        isolation_level=None,
    )
    connection.row_factory = sqlite3.Row
    return connection


def _copy(source: sqlite3.Connection, temporary: Path, told: Callable[[int], None]) -> None:
    # Else each page that is written elsewhere lets the backup begin anew.
    source.execute("BEGIN")
    source.execute("SELECT COUNT(*) FROM sqlite_schema").fetchall()
    ((page_bytes,),) = source.execute("PRAGMA page_size").fetchall()
    with closing(_opened(temporary, "rw")) as target:
        target.execute("PRAGMA synchronous = OFF")  # synced once, at the end
        source.backup(target, pages=PAGES, progress=lambda *_: told(PAGES * page_bytes))
        # One file, without a log beside it; whoever serves it makes one again.
        target.execute("PRAGMA journal_mode = DELETE").fetchall()


def _look_through(file: Path, audit: Callable[[], Script[Sequence[object]]]) -> None:
    with closing(_opened(file, "ro")) as connection:
        found = [row[0] for row in connection.execute("PRAGMA integrity_check(1)")]
        if found != ["ok"]:
            raise BackupFailed(f"the database is damaged: {found[0]}")
        if connection.execute("PRAGMA foreign_key_check").fetchone() is not None:
            raise BackupFailed("the database is damaged: a row refers to one that is not there")
        differences = drive(connection, audit())
        if differences:
            raise BackupFailed(
                f"the books do not add up in {len(differences)} places: see `ledger audit`"
            )
