"""Files written whole or not at all, also by a process that is killed, with the permissions that the umask gives."""

import glob
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import BinaryIO

from filelock import FileLock, Timeout

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]


@contextmanager
def whole_file(path: Path) -> Iterator[BinaryIO]:
    """A file to write that takes the place of `path` when the block has succeeded and the bytes are on the disk.

    What killed processes left of earlier attempts is removed.
    """
    sweep(path)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as file:  # not by `tempfile`, whose files nobody else may read
            if fcntl:
                fcntl.flock(file, fcntl.LOCK_EX)  # the sign that somebody writes it: see `sweep`
            yield file
            file.flush()
            os.fsync(file.fileno())
            if fcntl:
                temporary.replace(path)  # while nobody can take it for stale
        if not fcntl:
            temporary.replace(path)
    except BaseException as error:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.filename is None:
            error.filename = str(path)  # a full disk is told of no file
        raise
    sync(path.parent)


def sweep(path: Path) -> None:
    """Remove what killed processes left of attempts to write `path`; a file that is being written stays.

    The operating system's lock on a file ends with the process that holds it, wherever that ran.
    """
    if not fcntl:
        return
    stale = path.parent.glob(f".{glob.escape(path.name)}.*.tmp")
    for temporary in stale:
        with suppress(OSError), temporary.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            temporary.unlink()


@contextmanager
def locked(file: Path, waiting: str = "") -> Iterator[None]:
    """Nobody else, in any process, is in a block of this lock file; `waiting` is said once if somebody was.

    The lock is one of the operating system's: a process that is killed gives it back.
    """
    file.parent.mkdir(parents=True, exist_ok=True)
    lock = FileLock(file)
    try:
        lock.acquire(timeout=0)
    except Timeout:
        if waiting:
            print(waiting, file=sys.stderr)
        lock.acquire()
    try:
        yield
    finally:
        lock.release()


def sync(path: Path) -> None:
    """Have the disk hold a file's bytes or a folder's names before anything that relies on them."""
    with suppress(PermissionError):  # Windows opens no folders
        descriptor = os.open(path, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
