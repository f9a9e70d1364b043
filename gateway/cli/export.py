"""`video-gateway ledger export`: every entry, for somebody else's books.

Entries are read and written a page at a time: a year needs no more memory than a day. A file is
there whole or not at all.
"""

import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, date, datetime
from functools import partial
from pathlib import Path
from typing import IO, Any, Final

import click

from gateway.billing.entries import read_entries
from gateway.billing.money import format_usd
from gateway.cli.common import database_command, fail, read_settings, with_database
from gateway.cli.csv_text import csv_header, csv_rows
from gateway.cli.values import Day
from gateway.db.database import Database
from gateway.db.script import Row

PAGE_ENTRIES: Final = 2_000
DAY_SECONDS: Final = 86_400
COLUMNS: Final = (
    *("entry_id", "time", "accounting_day", "kind", "reason"),
    *("project_id", "project", "key_id", "key", "hold_id", "video_id", "upstream", "upstream_id"),
    *("operation", "model", "size", "seconds", "held_usd", "spent_usd", "list_usd", "cost_usd"),
)


@click.command("export")
@click.option("--from", "first", type=Day(), required=True, help="First day, UTC.")
@click.option("--to", "last", type=Day(), required=True, help="Last day, UTC, included.")
@click.option("--format", "shape", type=click.Choice(("csv",)), default="csv", show_default=True)
@click.option(
    "--output",
    type=click.Path(dir_okay=False, path_type=Path),
    help="A file, which is replaced once the export is whole; left out, standard output.",
)
@database_command
def export(
    *,
    first: date,
    last: date,
    shape: str,
    output: Path | None,
    config: Path | None,
    database_url: str | None,
    as_json: bool,
) -> None:
    """Write all entries that were made from one UTC day to another, in the order of their time.

    The amounts are signed changes: their sum is the balance. An entry has two days: `time` is when
    it was made, `accounting_day` the day of its video, on which it counts in `spend report`.
    """
    if first > last:
        raise click.UsageError(f"--from {first} is after --to {last}: nothing lies between")
    settings = read_settings(config, database_url=database_url)
    shape = "json" if as_json else shape
    since = int(datetime(first.year, first.month, first.day, tzinfo=UTC).timestamp())
    until = since + ((last - first).days + 1) * DAY_SECONDS
    script = partial(_write, shape=shape, since=since, until=until)
    if output is None:
        with_database(settings, partial(script, write=partial(click.echo, nl=False)))
        return
    try:
        with _replacing(output) as file:
            count = with_database(settings, partial(script, write=file.write))
    except OSError as error:
        raise fail(f"cannot write {output}: {error.strerror}") from error
    click.echo(f"{count} entries are in {output}", err=True)


async def _write(
    database: Database,
    *,
    write: Callable[[str], object],
    shape: str,
    since: int,
    until: int,
) -> int:
    """Write all pages, and return how many entries there were."""
    write(csv_header(COLUMNS) if shape == "csv" else "[")
    count, after = 0, None
    while True:
        page = await database.read(
            partial(read_entries, after=after, since=since, until=until, limit=PAGE_ENTRIES)
        )
        rows = [_facts(row) for row in page]
        if shape == "csv":
            write(csv_rows(rows, columns=COLUMNS))
        else:
            write(_json_rows(rows, begins=count == 0))
        count += len(rows)
        if len(rows) < PAGE_ENTRIES:
            write("" if shape == "csv" else "\n]\n")
            return count
        after = (page[-1]["created_at"], page[-1]["id"])


def _json_rows(rows: Sequence[dict[str, Any]], *, begins: bool) -> str:
    lines = ",\n".join(json.dumps(row, ensure_ascii=False) for row in rows)
    return f"{'' if begins or not rows else ','}\n{lines}" if rows else ""


def _facts(row: Row) -> dict[str, Any]:
    made_at = datetime.fromtimestamp(row["created_at"], UTC)
    return {
        "entry_id": row["id"],
        "time": made_at.strftime("%Y-%m-%dT%H:%M:%SZ"),
        "accounting_day": row["accounting_day"],
        "kind": row["kind"],
        "reason": row["reason"],
        "project_id": row["project_id"],
        "project": row["project_name"],
        "key_id": row["key_id"],
        "key": row["key_name"],
        "hold_id": row["hold_id"],
        "video_id": row["video_id"],
        "upstream": row["upstream"],
        "upstream_id": row["upstream_id"],
        "operation": row["operation"],
        "model": row["model"],
        "size": row["size"],
        "seconds": row["clip_seconds"],
        "held_usd": format_usd(row["held_micros"]),
        "spent_usd": format_usd(row["spent_micros"]),
        "list_usd": format_usd(row["list_micros"]),
        "cost_usd": format_usd(row["cost_micros"]),
    }


@contextmanager
def _replacing(path: Path) -> Iterator[IO[str]]:
    """Yield a new file, which takes the place of `path` once all of it is on the disk."""
    folder = path.absolute().parent
    with tempfile.NamedTemporaryFile(
        "w", encoding="utf-8", newline="", dir=folder, prefix=f".{path.name}.", delete=False
    ) as file:
        temporary = Path(file.name)
        try:
            yield file
            file.flush()
            os.fsync(file.fileno())
            temporary.replace(path)
        except BaseException:
            temporary.unlink()
            raise
    number = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(number)  # else a crash of the machine may forget the new name
    finally:
        os.close(number)
