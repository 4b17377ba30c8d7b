"""Whether a record is whole: every file there, readable, unaltered, and with numbers that can be.

New manifests carry a version of their form (`format`) and the sha256 of the files beside them (`files`). Older ones
have neither and stay valid; what can be read without them is checked all the same.
"""

import hashlib
import json
import math
from collections.abc import Callable, Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from trecx.errors import TrecxError, check_choice
from trecx.tasks import TASKS
from trecx.training.weights import load_tensors

FORMAT = 1  # of the manifests that this code writes; raise it when older code could misread one
FILES = ("manifest.json", "history.csv", "predictions.npz")
WEIGHTS = "weights.safetensors"
TOLERANCE = 0.01  # how far from 1 probabilities may add up after rounding to float16


class Damaged(TrecxError):
    """A record that is not whole, and worth nothing to any version of this package."""


class Newer(TrecxError):
    """A record that a later version of this package wrote."""


# A field of a manifest: path, what it is, test.
Field = tuple[str, str, Callable[[Any], bool]]


def is_number(value: Any) -> bool:
    """A finite number."""
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def is_count(value: Any) -> bool:
    """A whole number from 0."""
    return isinstance(value, int) and not isinstance(value, bool) and value >= 0


def is_costs(value: Any) -> bool:
    """One cost an exit, none lower than the one before."""
    fits = isinstance(value, list) and bool(value) and all(map(is_number, value))
    return fits and value[0] > 0 and value == sorted(value)


def is_a(*kinds: type) -> Callable[[Any], bool]:
    """A test for one of these types."""
    return lambda value: isinstance(value, kinds)


# What every manifest has, and what must be right where it is there: path, what it is, test.
_NEEDED = (
    ("run.task", "a text", is_a(str)),
    ("run.method", "a text", is_a(str)),
    ("cost.params", "a whole number", is_count),
    ("cost.macs", "a list of rising costs", is_costs),
    ("cost.flops", "a list of rising costs", is_costs),
    ("data.name", "a text", is_a(str)),
    ("data.checksum", "a text", is_a(str)),
    ("data.stand_in", "true or false", is_a(bool)),
    ("data.sizes.val", "a whole number", is_count),
    ("data.sizes.test", "a whole number", is_count),
)
_OPTIONAL = (
    ("run.seed", "a whole number", is_count),
    ("run.extra_classes", "a whole number", is_count),
    ("data.title", "a text", is_a(str)),
    ("recipe", "a set of fields", is_a(dict)),
    ("seconds", "a number", is_number),
    ("hardware", "a set of fields", is_a(dict)),
    ("versions", "a set of fields", is_a(dict)),
    ("files", "a set of checksums", is_a(dict)),
)
# What a record of a training has as well; one of released weights has a source in its place.
_TRAINED = tuple(
    (f"recipe.{name}", "a text or number", is_a(str, int, float)) for name in ("name", "epochs", "precision")
)


def check(folder: Path) -> None:
    """Raise Damaged or Newer, one sentence, unless the record in `folder` is whole; its weights may be absent.

    A record that has not changed since is not read again in the same process.
    """
    stats = {name: _stat(folder / name) for name in (*FILES, WEIGHTS)}
    if missing := [name for name in FILES if stats[name] is None]:
        raise Damaged(f"{folder} is no complete run record: {', '.join(missing)} missing")
    _check(folder, tuple(stats.values()))


@cache
def _check(folder: Path, stats: tuple[tuple[int, int] | None, ...]) -> None:
    manifest = read_manifest(folder)
    check_files(folder, manifest, FILES[1:])
    read_history(folder)
    read_predictions(folder, manifest)
    if (folder / WEIGHTS).exists():
        check_weights(folder / WEIGHTS)


def _stat(path: Path) -> tuple[int, int] | None:
    """Size and time of change of a file, None if it is none."""
    try:
        stat = path.stat()
    except OSError:
        return None
    return (stat.st_size, stat.st_mtime_ns) if path.is_file() else None


def read_json(path: Path) -> dict[str, Any]:
    """The object in a JSON file of a record; Damaged if there is none, Newer if its form is of a later version."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is no JSON"
        raise Damaged(f"{path} is damaged ({reason})") from error
    if not isinstance(found, dict):
        raise Damaged(f"{path} is damaged (it holds {type(found).__name__} and no set of fields)")
    version = found.get("format", 0)
    if not is_count(version):
        raise Damaged(f"{path} is damaged (format is {version!r}: a whole number is needed)")
    if version > FORMAT:
        raise Newer(
            f"{path} was written by a later version of trecx (format {version}; this one reads up to {FORMAT}): "
            "update trecx"
        )
    return found


def read_manifest(folder: Path) -> dict[str, Any]:
    """The manifest of a record, every field that this package reads of the right type; Damaged or Newer otherwise."""
    path = folder / FILES[0]
    manifest = read_json(path)
    check_fields(path, manifest, _NEEDED, _OPTIONAL)
    check_fields(path, manifest, () if "source" in manifest else _TRAINED)
    try:
        check_choice("task", manifest["run"]["task"], TASKS)
    except TrecxError as error:
        raise Damaged(f"{path} is damaged ({error})") from error
    if len(manifest["cost"]["macs"]) != len(manifest["cost"]["flops"]):
        raise Damaged(f"{path} is damaged (cost.macs and cost.flops are of different numbers of exits)")
    return manifest


def check_fields(
    path: Path, manifest: Mapping[str, Any], needed: Iterable[Field], optional: Iterable[Field] = (), where: str = ""
) -> None:
    """Damaged, with the first that is wrong, unless all `needed` fields are there and right; `optional` if there.

    `where` names a part of a record, if `manifest` is one.
    """
    optional = (field for field in optional if _at(manifest, field[0]) is not None)
    for field, wanted, fits in (*needed, *optional):
        value = _at(manifest, field)
        if not fits(value):
            what = "missing" if value is None else f"{value!r:.80}"
            raise Damaged(f"{path} is damaged ({where}{field} is {what}: {wanted} is needed)")


def _at(manifest: Any, field: str) -> Any:
    for key in field.split("."):
        manifest = manifest.get(key) if isinstance(manifest, dict) else None
    return manifest


def checksums(folder: Path) -> dict[str, str]:
    """sha256 (hex) of every file of a record but its manifest, for the manifest's `files`."""
    return {path.name: _sha256(path) for path in sorted(folder.iterdir()) if path.name != FILES[0]}


def check_files(folder: Path, manifest: Mapping[str, Any], names: tuple[str, ...]) -> None:
    """Damaged unless `names`, and what else is there of the files in the manifest, have the sha256 it says."""
    if "files" not in manifest:
        return
    written = manifest["files"]
    for name in {*names, *written}:
        path = folder / str(name)
        if (name in names or path.exists()) and _sha256(path) != written.get(name):
            raise Damaged(f"{path} is damaged (its checksum is not the one in the manifest)")


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise Damaged(f"{path} is damaged ({error.strerror})") from error


def read_history(folder: Path) -> pd.DataFrame:
    """One row an epoch, all numbers finite (the paper's authors published none); Damaged otherwise."""
    path = folder / "history.csv"
    try:
        history = pd.read_csv(path)
    except (OSError, ValueError, pd.errors.ParserError) as error:
        raise Damaged(f"{path} is damaged ({_short(error)})") from error
    numbers = [pd.api.types.is_numeric_dtype(history[c]) and np.isfinite(history[c]).all() for c in history]
    if "epoch" not in history or (len(history) and not all(numbers)):
        raise Damaged(f"{path} is damaged (it needs a column epoch, and finite numbers in all columns)")
    return history


def read_arrays(path: Path) -> dict[str, NDArray[Any]]:
    """The arrays of an .npz file; Damaged if it is none."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            return {name: arrays[name] for name in arrays.files}
    except Exception as error:  # of zipfile, zlib, ast, tokenize, ... as the damage has it
        raise Damaged(f"{path} is damaged ({_short(error)})") from error


def read_predictions(folder: Path, manifest: Mapping[str, Any]) -> dict[str, NDArray[Any]]:
    """`val_log_probs`, `test_log_probs` (n, exits, classes) as stored; `val_labels`, `test_labels` (n,).

    Of released weights also `test_scores` (n, exits - 1). Damaged unless shapes and types are these, n is that of the
    manifest, the logarithms are of probabilities, and every label is a class.
    """
    path = folder / "predictions.npz"
    arrays = read_arrays(path)

    def need(fits: Any, what: str) -> None:
        if not fits:
            raise Damaged(f"{path} is damaged ({what})")

    exits = len(manifest["cost"]["macs"])
    known = len(TASKS[manifest["run"]["task"]].classes)
    classes = known + (manifest["run"].get("extra_classes") or 0)
    for split in ("val", "test"):
        names = f"{split}_log_probs", f"{split}_labels"
        need(set(names) <= {*arrays}, f"{names[0]} or {names[1]} is missing")
        log_probs, labels = (arrays[name] for name in names)
        n = manifest["data"]["sizes"][split]
        need(log_probs.dtype.kind == "f", f"{names[0]} is {log_probs.dtype}: floating point is needed")
        shape = (n, exits, classes)
        need(n > 0 and log_probs.shape == shape, f"{names[0]} has shape {log_probs.shape}: {shape} is needed")
        need(labels.dtype.kind in "iu", f"{names[1]} is {labels.dtype}: whole numbers are needed")
        need(labels.shape == (n,), f"{names[1]} has shape {labels.shape}: {(n,)} is needed")
        need(labels.min() >= 0 and labels.max() < known, f"{names[1]} goes beyond the {known} classes, from 0")
        wide = log_probs.astype(np.float32)
        sums = np.exp(wide).sum(-1) if np.isfinite(wide).all() and wide.max() <= TOLERANCE else np.zeros(1)
        need((np.abs(sums - 1) < TOLERANCE).all(), f"{names[0]} holds no logarithms of probabilities")
    if "source" in manifest:
        scores = arrays.get("test_scores", np.zeros(0))
        wanted = (manifest["data"]["sizes"]["test"], exits - 1)
        fits = scores.shape == wanted and scores.dtype.kind == "f" and ((scores >= 0) & (scores <= 1)).all()
        need(fits, f"test_scores needs shape {wanted} and values from 0 to 1")
    return arrays


def check_weights(path: Path) -> None:
    """Damaged unless a file holds weights as training leaves them: float32, finite, whole numbers only as counts."""
    try:
        tensors, _ = load_tensors(path)
    except TrecxError as error:
        raise Damaged(f"{path} is damaged (it is no intact safetensors file)") from error
    for name, tensor in tensors.items():
        wanted = torch.int64 if name.endswith("num_batches_tracked") else torch.float32
        if tensor.dtype != wanted:
            raise Damaged(f"{path} is damaged ({name} is {tensor.dtype}: {wanted} is needed)")
        if not tensor.isfinite().all():
            raise Damaged(f"{path} is damaged ({name} is not finite)")


def _short(error: BaseException) -> str:
    reason = error.strerror if isinstance(error, OSError) and error.strerror else str(error)
    return " ".join(reason.split())[:200] or type(error).__name__
