"""`video-gateway mirror`: is the content of every video safe, and where is it?"""

import click

from gateway.cli.mirror_adopt import adopt_
from gateway.cli.mirror_copy import copy
from gateway.cli.mirror_export import export
from gateway.cli.mirror_gc import gc
from gateway.cli.mirror_status import status
from gateway.cli.mirror_verify import verify_


@click.group()
def mirror() -> None:
    """Content of finished videos, kept beyond the upstream's copy."""


mirror.add_command(gc)
mirror.add_command(adopt_)
mirror.add_command(verify_)
mirror.add_command(status)
mirror.add_command(export)
mirror.add_command(copy)
