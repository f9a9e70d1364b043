"""How do files get into a folder that a person named: whole, and into no other?

Temporary name, fsync, rename, fsync of the folder. Everything is done relative to the folder that
was opened, by plain names, and no symbolic link is followed. Whoever writes into it holds a lock on
it, so what another has left under temporary names is nobody's.
"""

import fcntl
import hashlib
import os
import re
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Final

_TEMPORARY: Final = re.compile(r"\.export-.+\.part")


class FolderFailed(Exception):
    """The folder cannot be written to; the text is for a person."""


class NameTaken(Exception):
    """Something that is no file has the name."""


class Folder:
    """A folder to export into; made by open_folder()."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self._path = path
        self._descriptor = descriptor

    def has(self, name: str, *, size_bytes: int, sha256: str) -> bool:
        """Tell whether a file is there and is this one; its bytes are read."""
        with self._told():
            try:
                about = os.stat(name, dir_fd=self._descriptor, follow_symlinks=False)
                if not stat.S_ISREG(about.st_mode) or about.st_size != size_bytes:
                    return False
                flags = os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW
                number = os.open(name, flags, dir_fd=self._descriptor)
            except FileNotFoundError:
                return False
            with os.fdopen(number, "rb") as file:
                return hashlib.file_digest(file, "sha256").hexdigest() == sha256

    @contextmanager
    def writing(self, name: str) -> Iterator["FileWriting"]:
        """Open a file for writing; without commit() nothing of it is left."""
        temporary = f".export-{_plain(name)}.part"
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
        with self._told():
            number = os.open(temporary, flags, 0o666, dir_fd=self._descriptor)
        try:
            yield FileWriting(self, number, temporary=temporary, name=name)
        finally:
            os.close(number)
            with suppress(OSError):  # committed, or for the next export to remove
                os.unlink(temporary, dir_fd=self._descriptor)

    def write(self, number: int, chunk: bytes) -> None:
        """Append to a file that is being written."""
        rest = memoryview(chunk)
        with self._told():
            while rest:
                rest = rest[os.write(number, rest) :]

    def commit(self, number: int, *, temporary: str, name: str) -> None:
        """Give a file that is being written its name, durably."""
        with self._told():
            os.fsync(number)
            try:
                os.rename(temporary, name, src_dir_fd=self._descriptor, dst_dir_fd=self._descriptor)
            except IsADirectoryError as error:
                raise NameTaken(name) from error
            os.fsync(self._descriptor)

    def sweep(self) -> None:
        """Remove what an export that was killed has left."""
        with self._told(), os.scandir(self._descriptor) as entries:
            for entry in entries:
                if _TEMPORARY.fullmatch(entry.name):
                    os.unlink(entry.name, dir_fd=self._descriptor)

    @contextmanager
    def _told(self) -> Iterator[None]:
        try:
            yield
        except OSError as error:
            raise FolderFailed(f"cannot write into {self._path}: {error.strerror}") from error


class FileWriting:
    """A file on its way; made by Folder.writing()."""

    def __init__(self, folder: Folder, number: int, *, temporary: str, name: str) -> None:
        self._folder = folder
        self._number = number
        self._temporary = temporary
        self._name = name

    def write(self, chunk: bytes) -> None:
        """Append bytes."""
        self._folder.write(self._number, chunk)

    def commit(self) -> None:
        """Make what was written the file of that name, durably."""
        self._folder.commit(self._number, temporary=self._temporary, name=self._name)


@contextmanager
def open_folder(path: Path) -> Iterator[Folder]:
    """Yield a folder to export into, made where there is none; nobody else exports into it.

    Raises:
        FolderFailed: it is a file, cannot be made, or another export is writing into it.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
        number = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileExistsError, NotADirectoryError) as error:
        raise FolderFailed(f"{path} is no folder") from error
    except OSError as error:
        raise FolderFailed(f"cannot open {path}: {error.strerror}") from error
    try:
        _lock(number, path)
        folder = Folder(path, number)
        folder.sweep()
        yield folder
    finally:
        os.close(number)


def _lock(number: int, path: Path) -> None:
    try:
        fcntl.flock(number, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise FolderFailed(f"another export is writing into {path}") from error
    except OSError:
        return  # a filesystem without locks on folders, such as NFS


def _plain(name: str) -> str:
    if not name or name in {".", ".."} or "/" in name or "\0" in name:
        raise ValueError("the name of a file in a folder is a single plain one")
    return name
