"""Google Speech Commands v2 in the MLPerf Tiny setting, from the official archives (CC BY 4.0).

The parts are those of TensorFlow Datasets, which the benchmark trains on. Validation and test speakers come from the
official lists; the test set is the official test archive, with the silence and the unknown words that it has. In
training and validation every other word is 'unknown', and 'silence' is the background recordings in pieces of 1 s
that start every 0.5 s: the running tap for validation, the other five for training. 85 511 / 10 102 / 4 890 clips.

Names of folders and files are compared without regard to capitals: a folder `Yes` holds the word yes. A recording of
another form than the official ones (16 kHz, mono, 16 bits) is refused, not converted.
"""

import io
import tarfile
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trecx import paths
from trecx.data.download import fetch
from trecx.data.mfcc import RATE, mfcc
from trecx.data.sound import read_wav
from trecx.errors import TrecxError
from trecx.tasks import KWS

MAIN = "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_v0.02.tar.gz"
MAIN_SHA256 = "af14739ee7dc311471de98f5f9d2c9191b18aedfe957f4a6ff791c709868ff58"
TEST = "https://storage.googleapis.com/download.tensorflow.org/data/speech_commands_test_set_v0.02.tar.gz"
TEST_SHA256 = "baa084f6b62c91de660ff0588ae4dfc4e4d534aa99ac0e5f406cba75836cbd00"
LISTS = ("validation_list.txt", "testing_list.txt")
NOISE = "_background_noise_"
VALIDATION_NOISE = f"{NOISE}/running_tap.wav"
_BATCH = 1000  # clips


def build() -> dict[str, NDArray]:
    """Return x_* float32 (N, 49, 10, 1) and y_* uint8 (indices into KWS.classes) for train, val and test.

    Raises TrecxError: no network, a wrong checksum, a full disk, a damaged archive.
    """
    main = fetch(MAIN, paths.DOWNLOADS, MAIN_SHA256, spare=300_000_000)
    test = fetch(TEST, paths.DOWNLOADS, TEST_SHA256)
    return read(main, test)


def read(main: Path, test: Path) -> dict[str, NDArray]:
    """Return the arrays of `build` from the main archive and the test archive (.tar.gz)."""
    validation, testing = _lists(main)
    parts: dict[str, _Part] = {split: _Part() for split in ("train", "val", "test")}
    for name, clip in _clips(main):
        if name == VALIDATION_NOISE or name in validation:
            parts["val"].add(name, clip)
        elif name not in testing:
            parts["train"].add(name, clip)
    for name, clip in _clips(test):
        parts["test"].add(name, clip)
    arrays: dict[str, NDArray] = {}
    for split, part in parts.items():
        arrays[f"x_{split}"], arrays[f"y_{split}"] = part.arrays()
    return arrays


def class_of(folder: str) -> int:
    """Index of the class that the clips in an archive's folder have; capitals or not makes no difference."""
    word = "silence" if folder.casefold() in (NOISE, "_silence_") else folder.casefold()
    return KWS.classes.index(word if word in KWS.classes else "unknown")


class _Part:
    """Collects clips and turns each full batch into features, so that the audio never is in memory as a whole."""

    def __init__(self) -> None:
        self._waiting: list[NDArray[np.int16]] = []
        self._features: list[NDArray[np.float32]] = []
        self._labels: list[int] = []

    def add(self, name: str, clip: NDArray[np.int16]) -> None:
        label = class_of(name.partition("/")[0])
        # As in TensorFlow Datasets, the last whole second is left out.
        starts = range(0, len(clip) - RATE, RATE // 2) if name.startswith(NOISE) else (0,)
        for start in starts:
            piece = clip[start : start + RATE]
            self._waiting.append(np.pad(piece, (0, RATE - len(piece))))
            self._labels.append(label)
        if len(self._waiting) >= _BATCH:
            self._flush()

    def _flush(self) -> None:
        if self._waiting:
            self._features.append(mfcc(np.stack(self._waiting)))
            self._waiting.clear()

    def arrays(self) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        self._flush()
        if not self._features:
            raise TrecxError("the Speech Commands archives lack clips of a part: delete them and download them again")
        return np.concatenate(self._features), np.array(self._labels, dtype=np.uint8)


def _members(archive: Path) -> Iterator[tuple[str, bytes]]:
    """Yield the name and the content of each file of a .tar.gz, without its leading './'."""
    try:
        with tarfile.open(archive, "r|gz") as tar:
            for member in tar:
                file = tar.extractfile(member)
                if file is not None:
                    yield member.name.removeprefix("./"), file.read()
    except (tarfile.TarError, EOFError, OSError, zlib.error) as error:
        raise TrecxError(f"{archive} is damaged ({error}): delete it and run the command again") from error


def _lists(main: Path) -> tuple[frozenset[str], frozenset[str]]:
    """Return the file names of the official validation list and testing list."""
    found: dict[str, frozenset[str]] = {}
    for name, content in _members(main):
        if name in LISTS:
            found[name] = frozenset(content.decode().casefold().split())
            if len(found) == len(LISTS):
                return found[LISTS[0]], found[LISTS[1]]
    raise TrecxError(f"{main} has no {' or no '.join(LISTS)}: delete it and run the command again")


def _clips(archive: Path) -> Iterator[tuple[str, NDArray[np.int16]]]:
    """Yield 'word/file.wav', in small letters, and the samples of every recording."""
    from tqdm import tqdm

    for name, content in tqdm(_members(archive), desc=archive.name, unit=" files"):
        if name.casefold().endswith(".wav"):
            yield name.casefold(), read_wav(io.BytesIO(content), f"{name} in {archive}")
