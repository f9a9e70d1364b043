"""`video-gateway database`: how do records get into another database, or into a backup?"""

import click

from gateway.cli.database_backup import backup
from gateway.cli.database_copy import copy


@click.group()
def database() -> None:
    """Where records live, as a whole."""


database.add_command(copy)
database.add_command(backup)
