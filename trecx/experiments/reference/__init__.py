"""The authors' released weights in this package's networks, and what they score.

The repository of the paper, https://github.com/nikhilghanathe/t-recx, holds trained Keras models: TensorFlow
checkpoints and `.h5` files. They are read as plain arrays (nothing is unpickled, no code of theirs runs), brought to
one form, {layer: {variable: array}}, and go into our networks by layer name. Weights that arrive in the right places
give the answers of the original models to about 1e-6.
"""

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from trecx import data as datasets
from trecx import paths
from trecx.errors import TrecxError
from trecx.evaluation.points import chosen_point, crossfit_point, operating_points, point_row
from trecx.evaluation.trace import Trace, confidence
from trecx.experiments import intact
from trecx.experiments.machine import hardware, versions
from trecx.experiments.records import Record, copy_files, pack, whole_folder, write
from trecx.experiments.runs import labels
from trecx.models.build import build
from trecx.models.cost import measure
from trecx.models.heads import DepthwiseExit, EarlyViewHead, ExitHead
from trecx.models.methods import get_method
from trecx.models.network import EarlyExitNetwork
from trecx.paper import paper
from trecx.tasks import get_task
from trecx.training.batches import to_input
from trecx.training.loop import log_probs
from trecx.training.weights import save_weights

GROUP = "reference"  # folder of these records, beside those of the data sets

Layers = Mapping[str, Mapping[str, NDArray[Any]]]  # layer -> variable -> array, all as Keras names and shapes them
Say = Callable[[str], None]


@dataclass(frozen=True)
class Released:
    """A trained model in the authors' repository."""

    task: str
    method: str
    path: str  # in the repository: an .h5 file, or the folder of a saved model
    golden: str  # its name under `authors_checkpoints` in paper.yaml

    @property
    def name(self) -> str:
        """Name of its record."""
        return f"{self.task}-{self.method}"


MODELS = (
    Released("ic", "baseline", "image_classification/trained_models/pretrainedResnet.h5", "baseline"),
    Released("ic", "trecx_ev", "image_classification/trained_models/model_with_ev_assist", "ev"),
    Released("ic", "trecx_no_ev", "image_classification/trained_models/model_without_ev_assist", "no_ev"),
    Released("ic", "branchynet", "image_classification/trained_models/model_branchynet", "branchynet"),
    Released("ic", "sdn", "image_classification/trained_models/model_sdn", "sdn"),
    Released("kws", "baseline_mlperf", "keyword_spotting/trained_models/kws_ref_model", "baseline"),
    Released("kws", "trecx_ev", "keyword_spotting/trained_models/model_with_ev_assist", "ev"),
    Released("kws", "trecx_no_ev", "keyword_spotting/trained_models/model_without_ev_assist", "no_ev"),
    Released("kws", "trecx_concat", "keyword_spotting/trained_models/model_eefmaps_concat", "concat"),
    Released("kws", "branchynet", "keyword_spotting/trained_models/model_branchynet", "branchynet"),
    Released("kws", "sdn", "keyword_spotting/trained_models/model_sdn", "sdn"),
    Released("vww", "baseline", "visual_wake_words/trained_models/vww_96.h5", "baseline"),
    Released("vww", "trecx_ev", "visual_wake_words/trained_models/model_with_ev_assist", "ev"),
    Released("vww", "trecx_no_ev", "visual_wake_words/trained_models/model_without_ev_assist", "no_ev"),
)


class ReferenceRecord(Record):
    """A record of released weights; its manifest names source files instead of a recipe, its history has no row.

    `predictions` also holds `test_scores` (n, exits - 1) float32, the early exits' largest softmax values. The float16
    log-probabilities would move a few samples across a threshold, and with them the third decimal of a mean cost.
    """

    def trace(self, split: str = "test", *, score: str = "max_prob", unit: str = "flops", rule: str = "") -> Trace:
        """As in `Record`, with the exact scores where they are kept."""
        trace = super().trace(split, score=score, unit=unit, rule=rule)
        exact = split == "test" and score == "max_prob"
        return replace(trace, scores=self.predictions["test_scores"]) if exact else trace


# --- Reading -----------------------------------------------------------------------------------------------------


def find_models(root: Path) -> tuple[list[Released], list[Released]]:
    """The models that a clone of the authors' repository has, and those that it lacks; TrecxError if it has none."""
    if not root.is_dir():
        raise TrecxError(f"{root} is no folder: give a clone of the authors' repository, {_repository()}")
    present = [model for model in MODELS if files_of(root / model.path)]
    if not present:
        raise TrecxError(
            f"{root} holds none of the authors' models, such as {MODELS[0].path}: give a clone of {_repository()}"
        )
    return present, [model for model in MODELS if model not in present]


def files_of(path: Path) -> list[Path]:
    """The files that hold a model's weights; empty if it is not there, or not whole."""
    if path.suffix == ".h5":
        return [path] if path.is_file() else []
    found = sorted((path / "variables").glob("variables.*"))
    return found if len(found) > 1 and found[-1].name == "variables.index" else []


def read_layers(*models: Path) -> list[Layers]:
    """Read the weights of models, each an `.h5` file or the folder of a saved model, without the optimiser's state.

    Raises:
        TrecxError: no such model, a damaged file, or the package that reads it is not installed.
    """
    for path in models:
        if not files_of(path):
            raise TrecxError(f"{path} is no whole Keras model: an .h5 file or a folder with variables/ is needed")
    saved = [path for path in models if path.suffix != ".h5"]
    checkpoints = dict(zip(saved, _read_checkpoints(saved), strict=True))
    return [checkpoints[path] if path in checkpoints else _read_h5(path) for path in models]


def _read_h5(path: Path) -> Layers:
    _need("h5py")
    h5py: Any = import_module("h5py")
    layers: dict[str, dict[str, NDArray[Any]]] = {}

    def visit(name: str, item: Any) -> None:
        if isinstance(item, h5py.Dataset):
            layer, *_, variable = name.split("/")  # conv2d/conv2d/kernel:0
            layers.setdefault(layer, {})[variable.removesuffix(":0")] = item[()]

    try:
        with h5py.File(path, "r") as file:
            file["model_weights"].visititems(visit)
    except (OSError, KeyError, ValueError) as error:
        reason = " ".join(str(error).split())
        raise TrecxError(f"{path} cannot be read as a Keras model ({reason}): fetch it again") from error
    return layers


def _read_checkpoints(folders: Sequence[Path]) -> list[Layers]:
    if not folders:
        return []
    _need("tensorflow")
    found: list[dict[str, dict[str, NDArray[Any]]]] = [{} for _ in folders]
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(temporary) / "arrays.npz"
        done = subprocess.run(
            [sys.executable, "-P", str(Path(__file__).with_name("checkpoint.py")), str(out), *map(str, folders)],
            env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3", "CUDA_VISIBLE_DEVICES": ""},
            capture_output=True,
            text=True,
            check=False,
        )
        if done.returncode == 1 and done.stdout:
            raise TrecxError(f"{done.stdout.strip()}: fetch it again")
        if done.returncode:
            reason = done.stderr.strip().splitlines()[-1:] or [f"exit status {done.returncode}"]
            raise TrecxError(f"TensorFlow failed ({reason[0]}): run `pip install '.[reference]'` again")
        with np.load(out, allow_pickle=False) as arrays:
            for key in arrays.files:
                number, layer, variable = key.split("/")
                found[int(number)].setdefault(layer, {})[variable] = arrays[key]
    return list(found)


def _need(package: str) -> None:
    """TrecxError if a package of the extra `reference` is not installed."""
    if find_spec(package) is None:
        raise TrecxError(f"the authors' weights need the package {package}: run `pip install '.[reference]'`")


def _repository() -> str:
    return paper()["official_code"]["repository"]


# --- Placing -----------------------------------------------------------------------------------------------------


def convert(models: Sequence[Released], root: Path) -> list[EarlyExitNetwork]:
    """Our networks with the weights of models in `root`; TrecxError as `read_layers` and `assign`."""
    files = [root / model.path for model in models]
    networks = [build(model.task, model.method) for model in models]
    for network, layers, file in zip(networks, read_layers(*files), files, strict=True):
        assign(network, layers, source=str(file))
    return networks


@torch.no_grad()
def assign(network: EarlyExitNetwork, layers: Layers, source: str = "the checkpoint") -> None:
    """Put the variables of Keras layers into `network`, each exactly once, or leave it as it is.

    Layers that the authors named (`depth_conv_ee_1`, `ef_out`, ...) go by name. The others carry Keras's automatic
    names (`conv2d_7`), whose numbers count up in the order of creation but may start anywhere: they go, kind by kind,
    to the modules that are left, in the order of our networks, which is the same.

    Raises:
        TrecxError: a layer or variable is missing, unknown or left over, or has another shape.
    """
    places = _places(network, layers, source)
    copies: list[tuple[Tensor, Tensor]] = []
    for layer, module in places.items():
        tensors = _tensors(module)
        if set(layers[layer]) != set(tensors):
            found = ", ".join(sorted(layers[layer]))
            raise TrecxError(f"{source} does not fit: layer {layer} has {found} and not {', '.join(sorted(tensors))}")
        for variable, array in layers[layer].items():
            value = torch.from_numpy(np.ascontiguousarray(_our_layout(variable, array), dtype=np.float32))
            if value.shape != tensors[variable].shape:
                raise TrecxError(
                    f"{source} does not fit: {layer}/{variable} has shape {array.shape}, "
                    f"which is no {tuple(tensors[variable].shape)} of ours"
                )
            copies.append((tensors[variable], value))
    for tensor, value in copies:
        tensor.copy_(value)


_AUTOMATIC = re.compile(r"(conv2d|depthwise_conv2d|batch_normalization|dense)(?:_(\d+))?")


def _places(network: EarlyExitNetwork, names: Iterable[str], source: str) -> dict[str, nn.Module]:
    """The module that every layer's variables go to."""
    named = _named(network)
    places: dict[str, nn.Module] = {}
    automatic: dict[str, list[tuple[int, str]]] = {}
    for name in names:
        match = _AUTOMATIC.fullmatch(name)
        if name in named:
            places[name] = named[name]
        elif match:
            automatic.setdefault(match[1], []).append((int(match[2] or 0), name))
        else:
            raise TrecxError(f"{source} does not fit: layer {name} has no place in this network")
    taken = {id(module) for module in places.values()}
    if len(taken) < len(places):
        raise TrecxError(f"{source} does not fit: two of the layers {', '.join(sorted(places))} have the same place")
    left: dict[str, list[nn.Module]] = {kind: [] for kind in automatic}
    for module in network.modules():
        if (kind := _kind(module)) and id(module) not in taken:
            left.setdefault(kind, []).append(module)
    for kind, modules in left.items():
        found = [name for _, name in sorted(automatic.get(kind, []))]
        if len(found) != len(modules):
            raise TrecxError(f"{source} does not fit: {len(found)} layers {kind} for {len(modules)} places")
        places |= zip(found, modules, strict=True)
    return places


def _named(network: EarlyExitNetwork) -> dict[str, nn.Module]:
    """The layers that the authors' code names, by every name it uses for them."""
    named: dict[str, nn.Module] = {"ef_out": network.final.classifier}
    for k, head in enumerate(network.exits.values(), start=1):
        assert isinstance(head, ExitHead)
        named[f"ee_{k}"] = head.classify[-1]
        if len(network.exits) == 1:
            named["ee_out"] = head.classify[-1]
        if isinstance(head.features, DepthwiseExit):
            named["depth_conv_ee_1"] = head.features.depthwise
            if isinstance(first := head.features[0], nn.Sequential):  # the 1x1 convolution; else a mere slice
                named["pointwise_conv_ee_1"] = named["pointwise_conv_ee1"] = first[0]
    if isinstance(network.final, EarlyViewHead):
        named["depth_conv_eefinal_out"] = network.final.view.depthwise
    return named


def _kind(module: nn.Module) -> str:
    """Keras's automatic name for a module with weights, empty for others."""
    if isinstance(module, nn.Conv2d):
        return "conv2d" if module.groups == 1 else "depthwise_conv2d"
    return {nn.BatchNorm2d: "batch_normalization", nn.Linear: "dense"}.get(type(module), "")


def _tensors(module: nn.Module) -> dict[str, Tensor]:
    """A module's tensors by the names that Keras gives them."""
    ours = dict(module.named_parameters()) | dict(module.named_buffers())
    if isinstance(module, nn.BatchNorm2d):
        names = {"gamma": "weight", "beta": "bias", "moving_mean": "running_mean", "moving_variance": "running_var"}
    else:
        names = {"depthwise_kernel" if _kind(module) == "depthwise_conv2d" else "kernel": "weight", "bias": "bias"}
    return {keras: ours[name] for keras, name in names.items()}


def _our_layout(variable: str, array: NDArray[Any]) -> NDArray[Any]:
    """Keras (h, w, in, out), depthwise (h, w, channels, 1) and dense (in, out) with the output first, as in PyTorch."""
    if variable == "depthwise_kernel" and array.ndim == 4:
        return array.transpose(2, 3, 0, 1)
    if variable == "kernel":
        return array.transpose(3, 2, 0, 1) if array.ndim == 4 else array.T
    return array


# --- Evaluating --------------------------------------------------------------------------------------------------


def evaluate_released(
    path: str | Path, *, publish: bool = False, say: Say = lambda line: None
) -> list[ReferenceRecord]:
    """Evaluate every released model in `path` on the official data sets and write a record of each.

    Args:
        path: a clone of the authors' repository, or a folder with the same layout; models may be missing.
        publish: also copy the records, without weights, into the book's folder.
        say: receives one line a model, and one about those that are missing.

    Raises:
        TrecxError: as `find_models`, `read_layers` and `assign`; a data set that was not prepared.
    """
    root = Path(path).expanduser()
    models, missing = find_models(root)
    # Everything is read first: what is wrong is told before anything runs.
    networks = convert(models, root)
    data = {task: datasets.load(get_task(task).full_data) for task in dict.fromkeys(m.task for m in models)}
    if missing:
        say(f"not in {root}: {', '.join(model.path for model in missing)}")
    records = []
    for model, network in zip(models, networks, strict=True):
        record = _write_record(model, network, data[model.task], root)
        if publish:
            with whole_folder(paths.PUBLISHED / GROUP / model.name) as folder:
                copy_files(record.folder, folder)  # never the weights: they are the authors'
        shown = " / ".join(f"{100 * a:.2f}" for a in record.accuracies())
        say(f"{model.task} {model.method}: {shown} % of {len(data[model.task].y_test)} test samples")
        records.append(record)
    return records


def _write_record(model: Released, network: EarlyExitNetwork, data: datasets.Dataset, root: Path) -> ReferenceRecord:
    """Run one model over validation and test samples, on the processor: a GPU may round coarser than float32."""
    predictions: dict[str, Any] = {}
    for split in ("val", "test"):
        exact = log_probs(network, to_input(getattr(data, f"x_{split}")), model.task)
        predictions[f"{split}_log_probs"] = pack(exact)
        predictions[f"{split}_labels"] = labels(data, split).numpy().astype(np.uint8)
    predictions["test_scores"] = confidence(exact.numpy())[:, :-1].astype(np.float32)
    manifest = {
        "run": {"task": model.task, "method": model.method, "data": data.name},
        "source": {
            "repository": _repository(),
            "path": model.path,
            "sha256": {f.name: hashlib.sha256(f.read_bytes()).hexdigest() for f in files_of(root / model.path)},
        },
        "cost": asdict(measure(network, get_task(model.task).input_shape)),
        "data": {
            "name": data.name,
            "title": data.title,
            "stand_in": data.stand_in,
            "checksum": data.checksum,
            "sizes": {split: len(getattr(data, f"y_{split}")) for split in ("val", "test")},
        },
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "hardware": hardware(torch.device("cpu")),
    }
    target = paths.RECORDS / GROUP / model.name
    with whole_folder(target) as folder:
        save_weights(network, folder / "weights.safetensors")
        write(folder, manifest, pd.DataFrame(columns=["epoch"]), predictions)
    return ReferenceRecord(target)


def released() -> list[ReferenceRecord]:
    """The records in the book's folder, in the order of MODELS; TrecxError without any, or if one is not whole."""
    folders = [paths.PUBLISHED / GROUP / model.name for model in MODELS]
    found = [ReferenceRecord(folder) for folder in folders if folder.is_dir()]
    for record in found:
        intact.check(record.folder)
    if not found:
        raise TrecxError(f"no records in {paths.PUBLISHED / GROUP}: run `python -m trecx reference PATH --publish`")
    return found


def released_points(record: ReferenceRecord, drops: Sequence[float] = (1, 2, 3)) -> pd.DataFrame:
    """Operating points `drops` points below the paper's baseline accuracy and below the own final exit.

    Two protocols: the paper's, and `other half`, see `trecx.evaluation.points.crossfit_point`. No validation set will
    do here: the authors trained on samples that are in ours. Reductions are relative to the paper's figure for the
    unmodified network. Columns as in `trecx.evaluation.points.operating_points`; empty without an early exit.
    """
    run = record.manifest["run"]
    if not get_method(run["method"]).head:
        return pd.DataFrame()
    printed = paper()["table_1"][run["task"]]["baseline"]
    trace, constant, cost = record.trace(), printed["accuracy"] / 100, 1e6 * printed["mflops"]
    rows = operating_points(trace, cost, {"paper's baseline": constant}, drops=drops).to_dict("records")
    for reference, accuracy in (("paper's baseline", constant), ("own final exit", None)):
        for drop in drops:

            def choose(
                chosen_on: Trace, applied_to: Trace, accuracy: float | None = accuracy, drop: float = drop
            ) -> Any:
                wanted = [t.final_accuracy if accuracy is None else accuracy for t in (chosen_on, applied_to)]
                return chosen_point(chosen_on, applied_to, wanted[0] - drop / 100, wanted[1] - drop / 100, cost)

            rows.append(point_row(reference, drop, crossfit_point(trace, choose)))
    order = {"paper's baseline": 0, "own final exit": 1}
    return pd.DataFrame(sorted(rows, key=lambda row: (order[str(row["reference"])], row["drop"])))


def beside(task: str) -> dict[str, ReferenceRecord]:
    """Method -> published record of the authors' weights, to stand beside our own; the MLPerf baseline as baseline."""
    found = {r.manifest["run"]["method"]: r for r in released() if r.manifest["run"]["task"] == task}
    return {("baseline" if method == "baseline_mlperf" else method): record for method, record in found.items()}


def released_row(task: str) -> pd.Series:
    """What the released weights put into the row of Table 1, paper protocol: quantity -> value."""
    found = beside(task)
    row = {"baseline accuracy": 100 * float(found["baseline"].accuracies()[-1])} if "baseline" in found else {}
    if (record := found.get("trecx_ev")) is not None:
        early, final = 100 * record.accuracies()
        row |= {"T-RecX early exit": float(early), "T-RecX final exit": float(final)}
        rows = released_points(record)
        rows = rows[(rows["reference"] == "paper's baseline") & (rows["protocol"] == "paper")]
        for at in rows.itertuples():
            row[f"cost at -{at.drop} point{'s' * (at.drop > 1)}"] = at.cost / 1e6
    return pd.Series(row, dtype=float)


def summary(record: ReferenceRecord) -> dict[str, Any]:
    """What `python -m trecx reference --json` prints of a model: percent, MFLOPs, None where not reached."""
    run, rows = record.manifest["run"], []
    for row in released_points(record).to_dict("records"):
        numbers = {
            "target": (100 * row["target"], 4),
            "threshold": (row["threshold"], 4),
            "accuracy": (100 * row["accuracy"], 4),
            "mflops": (row["cost"] / 1e6, 6),
            "reduction": (100 * row["reduction"], 4),
            "exit_rate": (100 * row["exit_rate"], 4),
        }
        rows.append(
            {key: row[key] for key in ("reference", "drop", "protocol")}
            | {key: None if np.isnan(value) else round(value, digits) for key, (value, digits) in numbers.items()}
            | {"reached": bool(row["reached"])}
        )
    return {
        "task": run["task"],
        "method": run["method"],
        "samples": len(record.predictions["test_labels"]),
        "accuracies": [round(100 * float(a), 4) for a in record.accuracies()],
        "points": rows,
    }
