"""How does a file become one that SQLite can serve many connections from?"""

import os
import sqlite3
import time
from contextlib import closing, suppress
from pathlib import Path

OPEN_RETRY_SECONDS = 0.01
# What is left is the primary code of an error: https://www.sqlite.org/rescode.html
PRIMARY_CODE_MASK = 0xFF


def prepare_file(path: Path, *, busy_seconds: float) -> None:
    """Make the file if there is none, with mode 0600, and see to it that it has a write-ahead log.

    A new file is in its folder durably on return.

    Raises:
        OSError, sqlite3.Error: it cannot be made or opened, or is locked for all that time.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with suppress(FileExistsError):
        # O_EXCL: to open and close a file that SQLite has open elsewhere in this process would
        # drop its locks (https://www.sqlite.org/howtocorrupt.html, 2.2).
        os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))
        folder = os.open(path.parent, os.O_RDONLY)
        try:
            os.fsync(folder)  # else a crash of the machine may forget the file with its rows
        finally:
            os.close(folder)
    until = time.monotonic() + busy_seconds
    with closing(sqlite3.connect(path, timeout=busy_seconds)) as connection:
        while not _is_wal(connection, until):
            time.sleep(OPEN_RETRY_SECONDS)


def _is_wal(connection: sqlite3.Connection, until: float) -> bool:
    try:
        connection.execute("PRAGMA journal_mode = WAL").fetchall()
    except sqlite3.OperationalError as error:
        # Of two that turn one new file to WAL at once, one is told "locked" without a wait.
        busy = error.sqlite_errorcode & PRIMARY_CODE_MASK == sqlite3.SQLITE_BUSY
        if not busy or time.monotonic() > until:
            raise
        return False
    return True
