"""The unit of result: a run record, a folder with everything the book computes from.

    manifest.json         run, recipe, data, versions, hardware, wall time, parameters, cost of every exit
    history.csv           one row an epoch: learning rate, loss and validation accuracy of every exit
    predictions.npz       log-softmax of every exit and labels, validation and test
    weights.safetensors   the last epoch's weights (may be left out of a published record)

Log-probabilities are float16: their relative precision is highest where they are near zero, which is where
confidence thresholds decide; the predicted class is kept exactly.
"""

import hashlib
import json
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd
import torch
from filelock import FileLock, Timeout
from numpy.typing import NDArray
from torch import Tensor

from trecx import paths
from trecx.errors import TrecxError
from trecx.evaluation.calibration import fit_temperature
from trecx.evaluation.points import chosen_point
from trecx.evaluation.trace import Trace
from trecx.files import sync
from trecx.models.methods import get_method

FILES = ("manifest.json", "history.csv", "predictions.npz")
WEIGHTS = "weights.safetensors"
STAGING = ".staging"  # folder at the root of a tree of records: what is being written


@dataclass(frozen=True)
class Record:
    """A finished run on disk."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Everything about the run but its numbers per epoch and sample."""
        return json.loads((self.folder / "manifest.json").read_text())

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch."""
        return pd.read_csv(self.folder / "history.csv")

    @cached_property
    def predictions(self) -> dict[str, NDArray[Any]]:
        """`val_log_probs`, `test_log_probs` (n, exits, classes) float32; `val_labels`, `test_labels` (n,)."""
        path = self.folder / "predictions.npz"
        try:
            with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return {k: _unpack(arrays[k]) if "probs" in k else arrays[k] for k in arrays.files}
        except Exception as error:
            raise TrecxError(f"{path} is damaged ({error}): delete {self.folder} and train the run again") from error

    @property
    def name(self) -> str:
        """Name of the run."""
        return self.folder.name

    @property
    def weights(self) -> Path:
        """File of the trained weights."""
        return self.folder / WEIGHTS

    @property
    def run(self) -> dict[str, Any]:
        """The run's settings, see `trecx.experiments.runs.Run`; released weights have only some of them."""
        return self.manifest["run"]

    @property
    def task(self) -> str:
        """Name of the task."""
        return self.run["task"]

    @property
    def method(self) -> str:
        """Name of the method."""
        return self.run["method"]

    @property
    def seed(self) -> int | None:
        """Seed of the training; None for released weights, whose seed is not known."""
        return self.run.get("seed")

    @property
    def stand_in(self) -> bool:
        """Whether the data stand in for the paper's."""
        return bool(self.manifest["data"]["stand_in"])

    @property
    def params(self) -> int:
        """Number of trained parameters."""
        return self.manifest["cost"]["params"]

    @property
    def seconds(self) -> float:
        """Wall time of the training."""
        return self.manifest["seconds"]

    def cost(self, unit: str = "flops") -> NDArray[np.float64]:
        """Cost of leaving at each exit, all before it included (exits,), in `flops` or `macs`."""
        return np.asarray(self.manifest["cost"][unit], dtype=float)

    def trace(self, split: str = "test", *, score: str = "max_prob", unit: str = "flops", rule: str = "") -> Trace:
        """Scores, hits and cumulative costs of every exit on `split` (`val` or `test`).

        Args:
            split: which samples.
            score: `max_prob`, `margin` or `entropy`.
            unit: `flops` (keras-flops, as the paper) or `macs`.
            rule: `>` or `>=`, the method's own by default.
        """
        method = get_method(self.method)
        return Trace.from_log_probs(
            self.predictions[f"{split}_log_probs"],
            self.predictions[f"{split}_labels"],
            self.cost(unit),
            rule=rule or method.rule,
            score=score,
        )

    def accuracies(self, split: str = "test") -> NDArray[np.float64]:
        """Standalone accuracy of every exit, all samples through that exit, as fractions (exits,)."""
        hits = self.predictions[f"{split}_log_probs"].argmax(2) == self.predictions[f"{split}_labels"][:, None]
        return hits.mean(0)


def mean_accuracy(records: Sequence[Record], exit_index: int = -1, split: str = "test") -> float:
    """Mean over seeds of one exit's standalone accuracy on `split` (`val` or `test`), a fraction."""
    return float(np.mean([record.accuracies(split)[exit_index] for record in records]))


def checksum(folders: Iterable[Path]) -> str:
    """sha256 over the files of records, whatever their order: the same numbers give the same text."""
    digest = hashlib.sha256()
    for folder in sorted(set(folders), key=lambda folder: folder.name):
        for path in sorted(p for p in folder.iterdir() if p.suffix in (".json", ".csv", ".npz")):
            digest.update(f"{folder.name}/{path.name}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def open_record(path: str | Path) -> Record:
    """Return the record in the folder `path`, or of that name in the records folder or the book's.

    `.trace("val")` and `.trace("test")` are what it did there, `.accuracies()` those of every exit, as fractions.

    Raises:
        TrecxError: there is no such folder and no record of that name, two data sets have one of that name, or one of
            its files is missing.
    """
    folder = Path(path)
    if not folder.is_dir():
        named = [f for root in (paths.RECORDS, paths.PUBLISHED) for f in root.glob("*/*") if f.name == str(path)]
        if not named:
            raise TrecxError(f"no record {str(path)!r}: give a record's folder, or a name from {paths.RECORDS}")
        groups = list(dict.fromkeys(found.parent.name for found in named))
        if len(groups) > 1:
            raise TrecxError(f"two data sets have a record {str(path)!r}, {' and '.join(groups)}: give its folder")
        folder = named[0]
    missing = [name for name in FILES if not (folder / name).is_file()]
    if missing:
        raise TrecxError(f"{folder} is no complete run record: {', '.join(missing)} missing")
    return Record(folder)


def all_records(data: str, *, published_only: bool = False) -> list[Record]:
    """Every complete record of a data set; a fresh one stands in for a published one of the same name."""
    roots = [paths.PUBLISHED] if published_only else [paths.PUBLISHED, paths.RECORDS]
    found = (f for root in roots for f in sorted((root / data).glob("*")))
    folders = {f.name: f for f in found if not f.name.startswith(".") and not f.name.endswith(".partial")}
    return [Record(f) for f in folders.values() if all((f / name).is_file() for name in FILES)]


def pack(log_probs: Tensor) -> NDArray[np.float16]:
    """(n, exits, classes) float32 -> float16 with every row's largest entry still the only largest."""
    exact = log_probs.clamp(min=-6e4).numpy()
    packed = exact.astype(np.float16)
    top = exact.argmax(-1)[..., None]
    # Rounding can tie or swap the two best classes: lower whatever now matches or beats the true best.
    best = np.take_along_axis(packed, top, -1)
    rivals = packed >= best
    np.put_along_axis(rivals, top, False, -1)
    packed[rivals] = np.broadcast_to(np.nextafter(best, np.float16(-np.inf)), packed.shape)[rivals]
    return packed


def _unpack(packed: NDArray[np.float16]) -> NDArray[np.float32]:
    """float16 log-probabilities as float32, normalised again after the rounding."""
    wide = torch.from_numpy(packed.astype(np.float32))
    return wide.log_softmax(-1).numpy()


def write(folder: Path, manifest: Mapping[str, Any], history: pd.DataFrame, predictions: Mapping[str, Any]) -> None:
    """Write the three files of a record into `folder`."""
    (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
    history.to_csv(folder / "history.csv", index=False, float_format="%.6g")
    np.savez_compressed(folder / "predictions.npz", **predictions)


@contextmanager
def whole_folder(target: Path) -> Iterator[Path]:
    """A new folder that takes the place of `target` when the block has succeeded and its files are on the disk.

    It grows in `.staging` at the root of the records, where no listing looks, and only one grows there at a time: what
    a killed process left there is of no one else, see `settle`.
    """
    root = next((r for r in (paths.RECORDS, paths.PUBLISHED) if target.is_relative_to(r)), target.parent)
    label = quote(str(target.relative_to(root)), safe="")
    new, old = (root / STAGING / kind / label for kind in ("new", "old"))
    with _alone(root):
        _settle(root)
        try:
            new.mkdir(parents=True)
            yield new
            for path in (*new.iterdir(), new):
                sync(path)
            target.parent.mkdir(parents=True, exist_ok=True)
            if target.exists():
                old.parent.mkdir()
                target.rename(old)
            new.rename(target)
            sync(target.parent)
        finally:
            _settle(root)


def settle(root: Path) -> None:
    """Finish what a killed process left in a tree of records: the old record comes back if no new one replaced it."""
    if (root / STAGING).exists():
        with _alone(root):
            _settle(root)


def _settle(root: Path) -> None:
    staging = root / STAGING
    for old in (staging / "old").glob("*"):
        target = root / unquote(old.name)
        if not target.exists():
            old.rename(target)
            sync(target.parent)
        else:  # under another name first: half deleted, it must never come back
            spent = staging / "spent" / old.name
            spent.parent.mkdir(exist_ok=True)
            old.rename(spent)
    if staging.exists():
        shutil.rmtree(staging)


@contextmanager
def locked(name: str, waiting: str = "") -> Iterator[None]:
    """Nobody else, in any process, is in a block of this `name`; `waiting` is said once if somebody was.

    The lock is one of the operating system's: a process that is killed gives it back.
    """
    folder = paths.RECORDS / ".locks"
    folder.mkdir(parents=True, exist_ok=True)
    lock = FileLock(folder / f"{name}.lock")
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


def _alone(root: Path) -> AbstractContextManager[None]:
    return locked(f"staging-{hashlib.sha256(str(root).encode()).hexdigest()[:16]}")


def copy_files(source: Path, target: Path, names: Iterable[str] = FILES) -> None:
    """Copy those of `names` that are there from one record's folder into another that exists."""
    for name in names:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)


def temperatures(record: Record) -> NDArray[np.float64]:
    """The temperature (K,) of each exit of a record, fitted on its validation samples."""
    log_probs, labels = record.predictions["val_log_probs"], record.predictions["val_labels"]
    return np.array([fit_temperature(log_probs[:, k], labels) for k in range(log_probs.shape[1])])


def chosen_thresholds(records: Sequence[Record], baseline: Sequence[Record] = (), drop: float = 1) -> list[float]:
    """The threshold of each record, chosen on its validation part: the cheapest that keeps the accuracy there.

    `drop` points below the mean of `baseline`, or below the record's own final exit where there is none. NaN: no
    threshold keeps it.
    """
    found = []
    for record in records:
        val = record.trace("val")
        wanted = mean_accuracy(baseline, split="val") if baseline else val.final_accuracy
        found.append(chosen_point(val, val, wanted - drop / 100).threshold)
    return found
