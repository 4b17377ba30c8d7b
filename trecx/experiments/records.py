"""The unit of result: a run record, a folder with everything the book computes from.

    manifest.json         run, recipe, data, versions, hardware, wall time, parameters, cost of every exit; its form's
                          version and the sha256 of the other files
    history.csv           one row an epoch: learning rate, loss and validation accuracy of every exit
    predictions.npz       log-softmax of every exit and labels, validation and test
    weights.safetensors   the last epoch's weights (may be left out of a published record)

Log-probabilities are float16: their relative precision is highest where they are near zero, which is where
confidence thresholds decide; the predicted class is kept exactly. `trecx.experiments.intact` says what a whole record
is; wherever a record is found or opened here, it is one.
"""

import hashlib
import json
import os
import shutil
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any
from urllib.parse import quote, unquote

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor

from trecx import paths
from trecx.errors import TrecxError
from trecx.evaluation.calibration import fit_temperature
from trecx.evaluation.points import chosen_point
from trecx.evaluation.trace import Trace
from trecx.experiments import intact
from trecx.experiments.intact import FILES, WEIGHTS
from trecx.files import locked as locked_file
from trecx.files import sync
from trecx.models.methods import get_method

PARTIAL = ".partial"  # ends the name of an unfinished run's folder
STAGING = ".staging"  # folder at the root of a tree of records: what is being written


@dataclass(frozen=True)
class Record:
    """A finished run on disk."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Everything about the run but its numbers per epoch and sample."""
        return intact.read_manifest(self.folder)

    @cached_property
    def history(self) -> pd.DataFrame:
        """One row an epoch."""
        return intact.read_history(self.folder)

    @cached_property
    def predictions(self) -> dict[str, NDArray[Any]]:
        """`val_log_probs`, `test_log_probs` (n, exits, classes) float32; `val_labels`, `test_labels` (n,)."""
        arrays = intact.read_predictions(self.folder, self.manifest)
        return {name: _unpack(array) if "probs" in name else array for name, array in arrays.items()}

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
    def rule(self) -> str:
        """How a confidence must compare with the threshold, the method's own."""
        return get_method(self.method).rule

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
        key = split, score, unit, rule or self.rule
        if key not in self._traces:
            self._traces[key] = Trace.from_log_probs(
                self.predictions[f"{split}_log_probs"],
                self.predictions[f"{split}_labels"],
                self.cost(unit),
                rule=rule or self.rule,
                score=score,
            )
        return self._traces[key]

    @cached_property
    def _traces(self) -> dict[tuple[str, str, str, str], Trace]:
        """Those asked for so far: the same are looked at many times."""
        return {}

    def accuracies(self, split: str = "test") -> NDArray[np.float64]:
        """Standalone accuracy of every exit, all samples through that exit, as fractions (exits,)."""
        hits = self.predictions[f"{split}_log_probs"].argmax(2) == self.predictions[f"{split}_labels"][:, None]
        return hits.mean(0)


def mean_accuracy(records: Sequence[Record], exit_index: int = -1, split: str = "test") -> float:
    """Mean over seeds of one exit's standalone accuracy on `split` (`val` or `test`), a fraction."""
    return float(np.mean([record.accuracies(split)[exit_index] for record in records]))


def checksum(places: Iterable[Path]) -> str:
    """sha256 over the files of records, whatever their order: the same numbers give the same text.

    places: folders of records, or files where a record is a single one.
    """
    digest = hashlib.sha256()
    for place in sorted(set(places), key=lambda place: place.name):
        inside = sorted(p for p in place.iterdir() if p.suffix in (".json", ".csv", ".npz")) if place.is_dir() else []
        for path in inside or [place]:
            digest.update(f"{path.relative_to(place.parent).as_posix()}\n".encode())
            digest.update(hashlib.sha256(path.read_bytes()).digest())
    return digest.hexdigest()


def open_record(path: str | Path) -> Record:
    """Return the record in the folder `path`, or of that name in the records folder or the book's.

    `.trace("val")` and `.trace("test")` are what it did there, `.accuracies()` those of every exit, as fractions.

    Raises:
        TrecxError: there is no such folder and no record of that name, two data sets have one of that name, it is an
            unfinished run's, or it is not whole.
    """
    name = str(path)
    folder = Path(name)
    if not name or not os.path.isdir(name):  # noqa: PTH112 (`Path` raises for a name that is too long)
        groups = [group for root in (paths.RECORDS, paths.PUBLISHED) for group in _groups(root)]
        entries = {folder: folder.name for group in groups for folder in group.iterdir()}
        named = [folder for folder, entry in entries.items() if entry == name and folder.is_dir()]
        if not named and f"{name}{PARTIAL}" in entries.values():
            name = f"{name}{PARTIAL}"
            named = [folder for folder, entry in entries.items() if entry == name]
        if not named or name.startswith("."):
            raise TrecxError(
                f"no record {str(path)!r}: give a record's folder, or a name from {paths.PUBLISHED} or {paths.RECORDS}"
            )
        of = list(dict.fromkeys(found.parent.name for found in named))
        if len(of) > 1:
            raise TrecxError(f"two data sets have a record {str(path)!r}, {' and '.join(of)}: give its folder")
        folder = named[0]
    if folder.name.endswith(PARTIAL):
        raise TrecxError(f"{folder} is an unfinished run's: the command that trains it goes on from its last epoch")
    intact.check(folder)
    return Record(folder)


def _groups(root: Path) -> list[Path]:
    """The folders of data sets in a tree of records, none where there is no tree; OSError for a name that cannot be."""
    with suppress(FileNotFoundError, NotADirectoryError):
        os.lstat(root)  # from Python 3.13 on, `glob` is silent about a name that is too long
    return [group for group in sorted(root.glob("*")) if group.is_dir() and not group.name.startswith(".")]


def all_records(data: str, *, published_only: bool = False) -> list[Record]:
    """Every whole record of a data set; a fresh one stands in for a published one of the same name.

    A record that is not whole is left out, with one line on standard error.
    """
    roots = [paths.PUBLISHED] if published_only else [paths.PUBLISHED, paths.RECORDS]
    found = (f for root in roots for f in sorted((root / data).glob("*")))
    named = {f.name: f for f in found if not f.name.startswith(".") and not f.name.endswith(PARTIAL)}
    folders = [f for f in named.values() if any((f / name).exists() for name in (*FILES, WEIGHTS))]
    return [record for folder in folders if (record := whole_record(folder)) is not None]


_told: set[str] = set()


def whole_record(folder: Path, say: bool = True) -> Record | None:
    """The record in `folder` if it is whole; otherwise None, with one line on standard error, once in a process."""
    try:
        intact.check(folder)
    except (intact.Damaged, intact.Newer) as error:
        if say and str(error) not in _told:
            _told.add(str(error))
            print(f"left out: {error}", file=sys.stderr)
        return None
    return Record(folder)


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
    """Write the three files of a record into `folder`, where its weights may lie already."""
    history.to_csv(folder / "history.csv", index=False, float_format="%.6g")
    np.savez_compressed(folder / "predictions.npz", **predictions)
    write_manifest(folder, manifest)


def write_manifest(folder: Path, manifest: Mapping[str, Any]) -> None:
    """Write a manifest with its form's version and the checksums of the files that are in `folder`."""
    whole = {"format": intact.FORMAT, **manifest, "files": intact.checksums(folder)}
    (folder / "manifest.json").write_text(json.dumps(whole, indent=1) + "\n", encoding="utf-8")


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
            if os.path.lexists(target):  # also a link that leads nowhere
                old.parent.mkdir()
                target.rename(old)
            new.rename(target)
            sync(target.parent)
        except OSError as error:
            error.filename = error.filename or str(target)  # a full disk is told of no file
            raise
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
        if not os.path.lexists(target):
            old.rename(target)
            sync(target.parent)
        else:  # under another name first: half deleted, it must never come back
            spent = staging / "spent" / old.name
            spent.parent.mkdir(exist_ok=True)
            old.rename(spent)
    if staging.exists():
        shutil.rmtree(staging)


def locked(name: str, waiting: str = "") -> AbstractContextManager[None]:
    """Nobody else, in any process, is in a block of this `name`; see `trecx.files.locked`."""
    return locked_file(paths.RECORDS / ".locks" / f"{name}.lock", waiting)


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
