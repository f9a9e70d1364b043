"""Which tables does the database have, and how does it come by those it lacks?

Migrations are files `NNNN_name.sql` in `gateway/db/migrations`, numbered from 1 without a gap.
Each is applied in one script together with its row in `schema_migrations`, so it is there whole
or not at all, and of two processes that migrate at once the second finds it done.

A statement ends with `;` at the end of a line; `--` begins a comment, also behind a statement, so
neither may stand inside a literal.
"""

import hashlib
import re
from functools import partial
from importlib.resources import files
from importlib.resources.abc import Traversable
from typing import NamedTuple

from gateway.db.database import Database
from gateway.db.script import Script, Sql

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")

_CREATE = Sql("""
CREATE TABLE IF NOT EXISTS schema_migrations (
    number BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    applied_at BIGINT NOT NULL
)""")
_APPLIED = Sql("SELECT number, name, sha256 FROM schema_migrations ORDER BY number")
_INSERT = """
INSERT INTO schema_migrations (number, name, sha256, applied_at) VALUES ($1, $2, $3, $4)"""


class SchemaError(Exception):
    """The database's tables are not those that this program was made for; nothing was changed."""


async def migrate(database: Database, *, now: int, folder: Traversable | None = None) -> list[int]:
    """Apply what is missing, in order, and return the numbers that this call applied.

    Each is durable before the next begins; a call that died halfway is simply made again. Raises
    SchemaError if the database is newer than the program, if an applied file was changed since,
    or if the files themselves are not in order.
    """
    migrations = _read(folder)
    missing = await database.run(partial(_missing, migrations))
    return [
        migration.number
        for migration in missing
        if await database.run(partial(_apply, migrations, migration, now))
    ]


async def pending(database: Database, *, folder: Traversable | None = None) -> list[int]:
    """Return the numbers that `migrate` would apply, having shown that the database can write.

    Raises SchemaError as `migrate` does.
    """
    migrations = _read(folder)
    return [migration.number for migration in await database.run(partial(_missing, migrations))]


class _Migration(NamedTuple):
    number: int
    name: str
    sha256: str
    statements: tuple[Sql, ...]


def _read(folder: Traversable | None) -> list[_Migration]:
    if folder is None:
        folder = files("gateway.db").joinpath("migrations")
    sources = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    migrations = sorted(_parse(file.name, file.read_text(encoding="utf-8")) for file in sources)
    numbers = [migration.number for migration in migrations]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise SchemaError(f"the migrations of this program are not numbered 1, 2 … : {numbers}")
    return migrations


def _parse(file_name: str, text: str) -> _Migration:
    match = _FILE_NAME.fullmatch(file_name)
    if match is None:
        raise SchemaError(f"{file_name} is not named NNNN_name.sql")
    statements: list[Sql] = []
    lines: list[str] = []
    for line in text.splitlines():
        code = line.partition("--")[0].rstrip()
        if code:
            lines.append(code)
        if code.endswith(";"):
            statements.append(Sql("\n".join(lines).removesuffix(";")))
            lines.clear()
    if lines:
        raise SchemaError(f"{file_name}: the last statement does not end with ';'")
    sha256 = hashlib.sha256(text.encode()).hexdigest()
    return _Migration(int(match[1]), match[2], sha256, tuple(statements))


def _missing(migrations: list[_Migration]) -> Script[list[_Migration]]:
    yield _CREATE
    applied = {number: (name, sha256) for number, name, sha256 in (yield _APPLIED)}
    newer = sorted(applied.keys() - {migration.number for migration in migrations})
    if newer:
        raise SchemaError(
            f"the database is newer than this program: it has migration {newer[-1]}, "
            f"{applied[newer[-1]][0]}, and the program knows {len(migrations)}"
        )
    for migration in migrations:
        if applied.get(migration.number, (migration.name, migration.sha256)) != (
            migration.name,
            migration.sha256,
        ):
            raise SchemaError(
                f"migration {migration.number}, {migration.name}, was changed after it was applied"
            )
    return [migration for migration in migrations if migration.number not in applied]


def _apply(migrations: list[_Migration], migration: _Migration, now: int) -> Script[bool]:
    if migration not in (yield from _missing(migrations)):
        return False
    for statement in migration.statements:  # noqa: UP028 - `yield from` a tuple cannot be sent rows
        yield statement
    yield Sql(_INSERT, (migration.number, migration.name, migration.sha256, now))
    return True
