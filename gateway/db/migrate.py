"""Which tables does the database have, and how does it come by those it lacks?

Migrations are files `NNNN_name.sql` in `gateway/db/migrations`, numbered from 1 without a gap.
Each is applied in one script together with its row in `schema_migrations`, so it is there whole
or not at all, and of two processes that migrate at once the second finds it done.

While replicas are replaced one by one, programs of two versions run on one database. Whether the
older one may is said by the newer one's migration, in a line of its own:

    -- compatible with: 4

A program that knows the migrations up to 4 may run on what this one leaves behind: it only adds
what that program does not look at (a table, an index, a column that may be NULL). It is written
down with the migration, because the older program does not have the file. Without the line, no
program may run that does not know the migration itself.

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
from gateway.db.script import Row, Script, Sql

_FILE_NAME = re.compile(r"(\d{4})_(\w+)\.sql")
_COMPATIBLE = re.compile(r"^-- compatible with:(.*)$", re.MULTILINE)

_CREATE = Sql("""
CREATE TABLE IF NOT EXISTS schema_migrations (
    number BIGINT PRIMARY KEY,
    name TEXT NOT NULL,
    sha256 TEXT NOT NULL,
    compatible_with BIGINT NOT NULL,
    applied_at BIGINT NOT NULL
)""")
_APPLIED = Sql(
    "SELECT number, name, sha256, compatible_with FROM schema_migrations ORDER BY number"
)
_INSERT = """
INSERT INTO schema_migrations (number, name, sha256, compatible_with, applied_at)
VALUES ($1, $2, $3, $4, $5)"""


class SchemaError(Exception):
    """The database's tables are not those that this program was made for; nothing was changed."""


class Named(NamedTuple):
    """A migration."""

    number: int
    name: str


class Standing(NamedTuple):
    """How a database stands to this program.

    Attributes:
        missing: what this program would apply.
        newer: what it does not know, and may run with all the same.
    """

    missing: list[Named]
    newer: list[Named]


class Migration(NamedTuple):
    """A file of migrations; compatible_with: the oldest program that may run once it is applied."""

    number: int
    name: str
    sha256: str
    compatible_with: int
    statements: tuple[Sql, ...]


async def migrate(
    database: Database, *, now: int, folder: Traversable | None = None
) -> list[Named]:
    """Apply what is missing, in order, and return what this call applied.

    Each is durable before the next begins; a call that died halfway is simply made again. Raises
    SchemaError if the database is too new for the program, if an applied file was changed since,
    or if the files themselves are not in order.
    """
    migrations = read_migrations(folder)
    missing = (await database.run(partial(_stand, migrations))).missing
    return [
        migration
        for migration in missing
        if await database.run(partial(_apply, migrations, migration, now))
    ]


async def standing(database: Database, *, folder: Traversable | None = None) -> Standing:
    """Return what `migrate` would apply, having shown that the database can write.

    Raises SchemaError as `migrate` does.
    """
    return await database.run(partial(_stand, read_migrations(folder)))


def read_migrations(folder: Traversable | None = None) -> list[Migration]:
    """Return the migrations of this program, in order.

    Raises:
        SchemaError: they are not in order.
    """
    if folder is None:
        folder = files("gateway.db").joinpath("migrations")
    sources = [file for file in folder.iterdir() if file.name.endswith(".sql")]
    migrations = sorted(_parse(file.name, file.read_text(encoding="utf-8")) for file in sources)
    numbers = [migration.number for migration in migrations]
    if not numbers or numbers != list(range(1, len(numbers) + 1)):
        raise SchemaError(f"the migrations of this program are not numbered 1, 2 … : {numbers}")
    return migrations


def _parse(file_name: str, text: str) -> Migration:
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
    number = int(match[1])
    return Migration(
        number,
        match[2],
        sha256=hashlib.sha256(text.encode()).hexdigest(),
        compatible_with=_compatible_with(file_name, number, text),
        statements=tuple(statements),
    )


def _compatible_with(file_name: str, number: int, text: str) -> int:
    said = [words.strip() for words in _COMPATIBLE.findall(text)]
    if not said:
        return number
    if len(said) == 1 and said[0].isdecimal() and 1 <= int(said[0]) <= number:
        return int(said[0])
    raise SchemaError(f"{file_name}: 'compatible with' is not one number from 1 to {number}")


def stand(migrations: list[Migration]) -> Script[Standing]:
    """Return how a database that was migrated once stands to these migrations; it only reads.

    Raises SchemaError as `migrate` does.
    """
    missing, newer = yield from _compare(migrations)
    return Standing([_named(one) for one in missing], newer)


def _stand(migrations: list[Migration]) -> Script[Standing]:
    yield _CREATE
    return (yield from stand(migrations))


def _compare(migrations: list[Migration]) -> Script[tuple[list[Migration], list[Named]]]:
    applied = {row["number"]: row for row in (yield _APPLIED)}
    for migration in migrations:
        row = applied.get(migration.number)
        if row and (row["name"], row["sha256"]) != (migration.name, migration.sha256):
            raise SchemaError(
                f"migration {migration.number}, {migration.name}, was changed after it was applied"
            )
    newer = [row for number, row in applied.items() if number > len(migrations)]
    _insist_on_compatible(newer, known=len(migrations))
    missing = [migration for migration in migrations if migration.number not in applied]
    return missing, [_named(row) for row in newer]


def _insist_on_compatible(newer: list[Row], *, known: int) -> None:
    needed = max((row["compatible_with"] for row in newer), default=0)
    if needed > known:
        raise SchemaError(
            f"the database is newer than this program: it has migration {newer[-1]['number']},"
            f" {newer[-1]['name']}, and needs a program that knows migration {needed}; this one"
            f" knows {known}"
        )


def _apply(migrations: list[Migration], wanted: Named, now: int) -> Script[bool]:
    missing, _ = yield from _compare(migrations)
    for migration in missing:
        if migration.number == wanted.number:
            break
    else:
        return False
    for statement in migration.statements:  # noqa: UP028 - `yield from` a tuple cannot be sent rows
        yield statement
    number, name, sha256, compatible_with, _ = migration
    yield Sql(_INSERT, (number, name, sha256, compatible_with, now))
    return True


def _named(one: Migration | Row) -> Named:
    number, name, *_ = one
    return Named(number, name)
