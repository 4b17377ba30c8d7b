"""Prepared data sets on disk: `<name>.npz`, with its checksum inside when this package wrote it.

Beside each file, `<name>.sha256.json` remembers that this very file (inode, size, times of change) was verified, so
that a large file is hashed once and not at every load.
"""

import hashlib
import json
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from trecx.errors import TrecxError
from trecx.files import whole_file

REQUIRED = ("x_train", "y_train", "x_test", "y_test")
KEYS = ("x_train", "y_train", "x_val", "y_val", "x_test", "y_test")


class Stamp(NamedTuple):
    """What tells a file from another one that has taken its name. Nobody can set the time of status change back."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


def checksum(arrays: Mapping[str, NDArray]) -> str:
    """Return the sha256 (hex) of the arrays' names, types, shapes and bytes; the file's own packing does not matter.

    Downloaded images give the same checksum everywhere; audio features may differ in their last bit between processors.
    """
    digest = hashlib.sha256()
    for key in KEYS:
        if key in arrays:
            array = np.ascontiguousarray(arrays[key])
            digest.update(f"{key} {array.dtype.str} {array.shape}\n".encode())
            digest.update(array.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()


def write(path: Path, arrays: Mapping[str, NDArray], recipe: int) -> None:
    """Write a prepared set under a temporary name, then move it into place: readers see all of it or nothing.

    `recipe` is the version of the code that made it; see `recipe_of`. Raises TrecxError when it cannot be written.
    """
    digest = checksum(arrays)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            np.savez(file, **arrays, sha256=np.array(digest), recipe=np.array(recipe))  # type: ignore[arg-type]
    except OSError as error:
        raise TrecxError(
            f"{path} cannot be written: {error.strerror or error}; TRECX_DATA names another folder"
        ) from error
    with suppress(OSError):
        _remember(path, digest, stamp(path))


def recipe_of(path: Path, rebuild: str) -> int | None:
    """Return the recipe number that a prepared file was written with, None for a file from elsewhere; see `read`."""
    with _opened(path, rebuild) as file:
        return int(file["recipe"]) if "recipe" in file else None


def read(path: Path, rebuild: str) -> tuple[dict[str, NDArray], str]:
    """Return the arrays of a prepared file and their sha256.

    Raises TrecxError when the file is cut short, altered or not a prepared set; `rebuild` tells the user what to do.
    """
    with _opened(path, rebuild) as file:
        seen = stamp(path)  # not after the arrays: it may be another file by then
        arrays = {key: file[key] for key in KEYS if key in file}
        written = str(file["sha256"]) if "sha256" in file else None
    missing = [key for key in REQUIRED if key not in arrays]
    if missing:
        raise TrecxError(f"{path} has no {', '.join(missing)}, so it is not a prepared data set: {rebuild}")
    digest = remembered(path)
    if digest is None or (written is not None and digest != written):
        digest = checksum(arrays)
        if written is not None and digest != written:
            raise TrecxError(f"{path} is damaged (its checksum differs from the one it was written with): {rebuild}")
        _remember(path, digest, seen)
    return arrays, digest


@contextmanager
def _opened(path: Path, rebuild: str) -> Iterator[Mapping[str, NDArray]]:
    try:
        # NumPy leaves a path open when the file turns out to be damaged, hence our own `open`.
        with path.open("rb") as raw, np.load(raw) as file:
            yield file
    except (OSError, ValueError, TypeError, EOFError, KeyError, zipfile.BadZipFile, zlib.error) as error:
        raise TrecxError(f"{path} is damaged ({error}): {rebuild}") from error


def _note(path: Path) -> Path:
    return path.with_suffix(".sha256.json")


def stamp(path: Path) -> Stamp:
    """The stamp of the file that is at `path` now."""
    stat = path.stat()
    return Stamp(stat.st_size, stat.st_mtime_ns, stat.st_ctime_ns, stat.st_ino)


def remembered(path: Path) -> str | None:
    """The sha256 noted beside a file that has not changed since, None without such a note."""
    try:
        note = json.loads(_note(path).read_text())
        return str(note["sha256"]) if note.items() >= stamp(path)._asdict().items() else None
    except (OSError, ValueError, KeyError, AttributeError):
        return None


def _remember(path: Path, digest: str, seen: Stamp) -> None:
    """Note the checksum of the file that had this stamp when it was opened."""
    with suppress(OSError):  # a read-only folder only costs a hash at every load
        note = json.dumps({"sha256": digest, **seen._asdict()})
        with whole_file(_note(path)) as file:
            file.write(f"{note}\n".encode())
