"""`video-gateway database backup`: how do all records get into a file, while they are in use?

Exits with 0 if the file is there and was found sound, 1 if there is none, 2 on wrong usage or
settings.
"""

import shlex
from pathlib import Path

import click

from gateway.billing.audit import audit
from gateway.cli.common import database_command, fail, look_for, read_settings, show_facts
from gateway.cli.progress import progress
from gateway.db.backup import BackupFailed, back_up
from gateway.db.url import shown


@click.command("backup")
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@database_command
def backup(*, file: Path, config: Path | None, database_url: str | None, as_json: bool) -> None:
    """Write the records of a SQLite database into FILE, as they are at this moment.

    The gateway may run meanwhile. FILE must not be there; it is only there once it is whole, on the
    disk, and has been checked and audited.
    """
    settings = read_settings(config, database_url=database_url)
    source = settings.database_path
    if source is None:
        url = shlex.quote(shown(settings.database_url))
        raise click.UsageError(
            "this is for SQLite. A backup of PostgreSQL is made by its own programs:\n"
            f"  pg_dump --format=custom --file={shlex.quote(str(file))} --dbname={url}\n"
            "or continuously, with pg_basebackup and archived WAL:"
            " https://www.postgresql.org/docs/current/continuous-archiving.html"
        )
    look_for(source.absolute(), make=False)
    size_bytes = source.stat().st_size
    with progress("backing up", as_json=as_json, size_bytes=size_bytes) as bar:
        try:
            done = back_up(source, file, audit=audit, told=lambda n: bar.moved(size_bytes=n))
        except BackupFailed as error:
            raise fail(str(error)) from error
    facts = {"file": str(file.absolute()), "size_bytes": done.size_bytes}
    text = f"{file} is there, {done.size_bytes} bytes, whole and audited"
    show_facts(facts, text=text, as_json=as_json)
