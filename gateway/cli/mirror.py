"""`video-gateway mirror`: is the content of every video safe, and where is it?"""

import click


@click.group()
def mirror() -> None:
    """Content of finished videos, kept beyond the upstream's copy."""
