"""How do several workers count as one?

Each keeps its values in files of one folder, and whichever worker is scraped adds all of them up:
the multiprocess mode of prometheus_client, with the worker's number in place of its process id. So
a worker that is started anew goes on counting where the one before it stopped, and the folder does
not grow with every restart. What was true only of a process that has died is forgotten.
"""

import os
from contextlib import suppress
from pathlib import Path

from prometheus_client import CollectorRegistry, multiprocess, values
from prometheus_client.registry import Collector

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
# More than all series take: labels come from closed lists.
_FILE_BYTES = 2 << 20
_KINDS = ("counter", "histogram", "gauge_livesum", "gauge_livemax", "gauge_livemin")


def share(folder: Path, *, worker: int) -> None:
    """Let instruments that are made from here on keep their values in a folder.

    To be called once in a process, before anything is counted; no two that run have one number.
    """
    os.environ[_FOLDER] = str(folder)
    for kind in _KINDS:
        _take_room(folder / f"{kind}_{worker}.db")
    values.ValueClass = values.MultiProcessValue(lambda: worker)  # type: ignore[no-untyped-call]


def _take_room(path: Path) -> None:
    """Let a file have its room on the disk now.

    The library maps it with holes: where a disk is full, to count something for the first time
    would else end the process (SIGBUS), in the middle of whatever it does.
    """
    with suppress(OSError), path.open("ab") as file:
        os.posix_fallocate(file.fileno(), 0, _FILE_BYTES)


def forget(folder: Path, *, worker: int) -> None:
    """Forget what was true only while a worker lived; what it has counted stays."""
    multiprocess.mark_process_dead(worker, str(folder))  # type: ignore[no-untyped-call]


def counted(registry: CollectorRegistry) -> Collector:
    """Return what collects what this process has counted, or all those that share with it."""
    folder = os.environ.get(_FOLDER)
    if folder is None:
        return registry
    return multiprocess.MultiProcessCollector(None, folder)  # type: ignore[no-untyped-call]
