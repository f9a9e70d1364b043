"""How does a person see that a command which runs long gets on?

On a terminal there is a bar on standard error while it runs, gone when it has ended. In a pipe, in
a log, or with `--json` there is none.
"""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

import click
from rich.console import Console
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TextColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.text import Text

# Of a million that fail the same way, the first tell enough.
MAX_LINES: Final = 1_000


class Bar:
    """What a command tells of its progress; made by progress()."""

    def __init__(self, shown: Progress, task: TaskID, *, as_json: bool) -> None:
        self._shown = shown
        self._task = task
        self._lines = MAX_LINES if as_json else 0

    def moved(self, *, items: int = 0, size_bytes: int = 0) -> None:
        """Say that so much more is done."""
        if self._shown.disable:
            return
        task = self._shown.tasks[self._task]
        task.fields["items"] += items
        self._shown.advance(self._task, size_bytes if task.fields["counts_bytes"] else items)

    def say(self, line: str) -> None:
        """Print a line on standard error, above the bar; no more than MAX_LINES.

        Nothing where a program reads what the command says: it is told at the end.
        """
        self._lines += 1
        if self._lines > MAX_LINES:
            return
        if self._shown.disable:
            click.echo(line, err=True)
        else:
            self._shown.console.print(Text(line), soft_wrap=True)


@contextmanager
def progress(
    label: str, *, as_json: bool, items: int | None = None, size_bytes: int | None = None
) -> Iterator[Bar]:
    """Yield the bar of a command, which is seen only by a person who sits in front of it.

    Args:
        label: what is done, such as `copying`.
        as_json: whether a program reads what the command says.
        items: how many there are to do; None: nobody knows.
        size_bytes: how many bytes there are to do: the bar shows them instead of the items.
    """
    # Not asked of rich: a variable such as FORCE_COLOR makes it take a pipe for a terminal.
    seen = sys.stderr.isatty() and not as_json
    columns: list[ProgressColumn] = [TextColumn("{task.description}"), BarColumn(), _Items()]
    if size_bytes is not None:
        columns += [DownloadColumn(), TransferSpeedColumn()]
    columns.append(TimeRemainingColumn())
    with Progress(
        *columns, console=Console(stderr=True), transient=True, disable=not seen
    ) as shown:
        task = shown.add_task(
            label,
            total=items if size_bytes is None else size_bytes,
            items=0,
            of_items=items,
            counts_bytes=size_bytes is not None,
        )
        yield Bar(shown, task, as_json=as_json)


class _Items(ProgressColumn):
    """`3/10`, or `3` where nobody knows of how many."""

    def render(self, task: Task) -> Text:
        """Return the column."""
        done, of_items = task.fields["items"], task.fields["of_items"]
        return Text(f"{done}" if of_items is None else f"{done}/{of_items}")
