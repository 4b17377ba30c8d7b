"""The data sets of the three benchmarks, as NumPy arrays.

`full` sets are downloaded and prepared once (`prepare`, or `python -m trecx data NAME`); `quick` sets are small
stand-ins that are built from installed packages, without a download, the first time they are loaded.
"""

import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from trecx import paths
from trecx.data import contract, store
from trecx.errors import TrecxError
from trecx.tasks import IC, KWS, VWW

__all__ = ["DATASETS", "Dataset", "Source", "checksum", "load", "prepare"]


@dataclass(frozen=True)
class Source:
    """A data set that this package can make."""

    name: str
    title: str
    description: str
    stand_in: bool  # built on the spot; False: downloaded
    classes: tuple[str, ...]
    sample: tuple[int, int, int]  # height, width and 3 of a picture; frames, coefficients and 1 of features
    module: str  # of trecx.data; its build() returns the arrays
    recipe: int = 1  # raise it when build() changes, so that older files of a stand-in are built again

    @property
    def path(self) -> Path:
        """The prepared file."""
        return paths.DATA / f"{self.name}.npz"

    @property
    def rebuild(self) -> str:
        """What a user does about a missing or damaged file, as the end of a sentence."""
        return f"delete it and run `python -m trecx data {self.name}`"


@dataclass(frozen=True)
class Dataset:
    """A loaded data set. x: images (N, H, W, 3) uint8 or MFCC (N, 49, 10, 1) float32; y: class indices (N,).

    `trecx.data.contract` says it in full.
    """

    name: str
    title: str
    description: str
    stand_in: bool
    classes: tuple[str, ...]
    x_train: NDArray
    y_train: NDArray
    x_val: NDArray
    y_val: NDArray
    x_test: NDArray
    y_test: NDArray
    checksum: str  # sha256 over the prepared arrays, before any validation split is taken


DATASETS = {
    source.name: source
    for source in (
        Source(
            name="cifar10",
            title="CIFAR-10",
            description="The complete CIFAR-10: 32 x 32 colour photographs of ten kinds of things, 50 000 for training "
            "and 10 000 for testing.",
            stand_in=False,
            classes=IC.classes,
            sample=(32, 32, 3),
            module="full.cifar10",
        ),
        Source(
            name="speech_commands",
            title="Speech Commands v2",
            description="Google Speech Commands v2 in the MLPerf Tiny setting: MFCC features of one-second clips, ten "
            "command words, silence, and unknown words; the test set is the official one.",
            stand_in=False,
            classes=KWS.classes,
            sample=(49, 10, 1),
            module="full.speech_commands",
        ),
        Source(
            name="vww96",
            title="Visual Wake Words",
            description="COCO 2014 photographs at 96 x 96, labelled by whether a person covers more than 2.5 % of "
            "the picture; the test set is COCO's val2017 under the same rule.",
            stand_in=False,
            classes=VWW.classes,
            sample=(96, 96, 3),
            module="full.vww",
        ),
        Source(
            name="quick_photos",
            title="Quick photos",
            description="Stand-in for CIFAR-10: 32 x 32 crops of ten photographs that come with scikit-image and "
            "scikit-learn, and the class is the photograph; training and test crops come from different parts of it.",
            stand_in=True,
            classes=(
                "astronaut", "cat", "coffee", "rocket", "galaxies",
                "retina", "tissue", "motorcycle", "temple", "flower",
            ),
            sample=(32, 32, 3),
            module="quick.photos",
            recipe=4,
        ),
        Source(
            name="quick_words",
            title="Quick words",
            description="Stand-in for Speech Commands: the same ten words, unknown words and silence, spoken by the "
            "eSpeak NG synthesiser in artificial voices with noise; training and test voices differ.",
            stand_in=True,
            classes=KWS.classes,
            sample=(49, 10, 1),
            module="quick.words",
        ),
        Source(
            name="quick_faces",
            title="Quick faces",
            description="Stand-in for Visual Wake Words: small photographs of faces (Labeled Faces in the Wild) pasted "
            "into 96 x 96 scenes, against empty scenes and scenes with a patch that shows no face.",
            stand_in=True,
            classes=VWW.classes,
            sample=(96, 96, 3),
            module="quick.faces",
            recipe=3,
        ),
    )
}  # fmt: skip


def source_of(name: str) -> Source:
    """Return the data set called `name`; raise TrecxError with the allowed names otherwise."""
    if name not in DATASETS:
        raise TrecxError(f"unknown data set {name!r}: choose one of {', '.join(DATASETS)}")
    return DATASETS[name]


def _on_stderr(line: str) -> None:
    print(line, file=sys.stderr)


def prepare(name: str, force: bool = False, say: Callable[[str], None] = _on_stderr) -> Path:
    """Make the prepared file of a data set unless it is there, and return its path.

    A quick set takes seconds and no network; a full set is downloaded (gigabytes) into `paths.DOWNLOADS`.
    `force` makes it again; `say` hears of it. Raises TrecxError: unknown name, no network, full disk, a package that is
    not installed.
    """
    source = source_of(name)
    if not force and source.path.exists():
        return source.path
    build: Callable[[], dict[str, NDArray]] = import_module(f"trecx.data.{source.module}").build
    say(f"Making the data set {name} ({source.path}) ...")
    try:
        arrays = build()
    except ImportError as error:
        raise TrecxError(f"making {name} needs the package {error.name}: run `pip install '.[data]'`") from error
    store.write(source.path, arrays, source.recipe)
    return source.path


def load(name: str, split_seed: int = 0) -> Dataset:
    """Load a data set; a quick set that is missing is built first.

    A set without a validation part of its own gets a tenth of every class of its training part, one sample at least,
    drawn with `split_seed`. Raises TrecxError: unknown name, a full set that was not prepared, a damaged file, or one
    that breaks the contract (`trecx.data.contract`).
    """
    source = ready(name)
    arrays, digest = _read(source)
    if "x_val" not in arrays:
        arrays |= _hold_out(arrays["x_train"], arrays["y_train"], split_seed)
    return Dataset(
        name=name,
        title=source.title,
        description=source.description,
        stand_in=source.stand_in,
        classes=source.classes,
        checksum=digest,
        **arrays,
    )


def checksum(name: str) -> str:
    """`load(name).checksum` at the cost of a look at the file's size and times, where it was computed before.

    Raises TrecxError as `load` does.
    """
    path = source_of(name).path
    if not path.exists():
        ready(name)
    return _checksum(name, path, store.stamp(path))


@cache
def _checksum(name: str, path: Path, stamp: store.Stamp) -> str:
    """The checksum of the file at `path` as long as it has this stamp."""
    source = ready(name)
    return store.remembered(path) or _read(source)[1]


def ready(name: str, say: Callable[[str], None] = _on_stderr) -> Source:
    """The data set called `name` once its file is there: a stand-in is built if it is missing or of older code.

    Raises TrecxError: unknown name, or a full set that was not prepared.
    """
    source = source_of(name)
    if source.stand_in:
        if source.path.exists() and store.recipe_of(source.path, source.rebuild) != source.recipe:
            prepare(name, True, say)  # left by an older version of this package
        prepare(name, say=say)
    elif not source.path.exists():
        raise TrecxError(
            f"{source.path} is missing: run `python -m trecx data {name}` to download and prepare it, or set "
            "TRECX_DATA to the folder that has it"
        )
    return source


def _read(source: Source) -> tuple[dict[str, NDArray], str]:
    """The arrays of a prepared file, which keep the contract, and their checksum."""
    arrays, digest = store.read(source.path, source.rebuild)
    if wrong := contract.breach(arrays, source.sample, len(source.classes)):
        raise TrecxError(f"{source.path} does not fit {source.title}: {wrong}; or {source.rebuild}")
    return arrays, digest


def _hold_out(x: NDArray, y: NDArray, seed: int) -> dict[str, NDArray]:
    """Move a tenth of every class, drawn with `seed`, from train to val; both keep the order of the file.

    At least one of a class moves: an empty part has no accuracy.
    """
    rng = np.random.default_rng(seed)
    held = np.zeros(len(y), dtype=bool)
    for label in np.unique(y):
        of_class = np.flatnonzero(y == label)
        held[rng.permutation(of_class)[: max(1, round(len(of_class) / 10))]] = True
    return {"x_train": x[~held], "y_train": y[~held], "x_val": x[held], "y_val": y[held]}
