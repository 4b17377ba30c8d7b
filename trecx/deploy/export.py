"""From run records to stages: ONNX in float32 and int8, checked against PyTorch, and C where it is asked for.

An export is a folder:

    export.json       what it was made from, its stages, and what the checks found
    float/, int8/     stage1.onnx, stage2.onnx, ...
    predictions.npz   log-softmax of every exit under int8 and labels, validation and test
    c/                the int8 stages in C, see `trecx.deploy.source`
    README.md         what to do with all this

Two records make a cascade: the stages of the second run where no exit of the first is confident.
"""

import hashlib
import json
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import ArrayLike, NDArray
from torch import Tensor, nn

from trecx import data as datasets
from trecx.deploy import graphs, needs, source
from trecx.deploy.graphs import Affine
from trecx.deploy.runtime import Stages, log_softmax
from trecx.errors import TrecxError
from trecx.evaluation.trace import Trace, mixed
from trecx.experiments.composed import joined, network_of
from trecx.experiments.intact import read_arrays, read_json
from trecx.experiments.machine import versions
from trecx.experiments.records import Record, whole_folder
from trecx.experiments.runs import Run, inputs, labels, run_of
from trecx.models.build import input_shape
from trecx.models.network import inference
from trecx.tasks import get_task
from trecx.training.batches import scale

Say = Callable[[str], None]

KINDS = ("float", "int8")
CALIBRATION = 512  # training samples that show how large the activations get
COMPARED = 256  # test samples whose float logits are held against PyTorch's
FLOAT_TOLERANCE = 1e-4  # of the largest logit: other kernels sum in another order
SEED = 0  # of the samples drawn


@dataclass(frozen=True)
class Export:
    """An export on disk."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """What `export.json` says; Damaged if it cannot be read."""
        return read_json(self.folder / "export.json")

    @property
    def name(self) -> str:
        """Names of its records."""
        return "+".join(self.manifest["records"])

    @property
    def affine(self) -> Affine:
        """How the int8 input stands for real numbers."""
        return Affine(self.manifest["input"]["scale"], self.manifest["input"]["zero_point"])

    @property
    def c(self) -> Path:
        """Folder of the C code."""
        return self.folder / "c"

    @cached_property
    def run(self) -> Run:
        """The run of its first record."""
        return Run(**self.manifest["run"])

    def inputs(self, split: str) -> NDArray[np.float32]:
        """Network inputs of a part of its data (n, C, H, W); `affine.to_int8` of them are the int8 stages'."""
        return _real(inputs(datasets.load(self.run.data), split, self.run), self.run)

    def stages(self, kind: str) -> Stages:
        """The `float` or `int8` stages, ready to run."""
        return _stages(self.folder, kind, self.manifest)

    @cached_property
    def predictions(self) -> dict[str, NDArray[Any]]:
        """As of a run record, under int8: `val_log_probs`, `test_log_probs` (n, exits, classes) and the labels (n,)."""
        return read_arrays(self.folder / "predictions.npz")

    def trace(self, split: str, cost: ArrayLike) -> Trace:
        """What int8 did on `split` (`val` or `test`), with the cumulative cost of every exit in any unit."""
        log_probs, truth = (self.predictions[f"{split}_{what}"] for what in ("log_probs", "labels"))
        return Trace.from_log_probs(log_probs, truth, cost, rule=self.manifest["rule"])


@dataclass(frozen=True)
class _Member:
    """One network of an export, with what its weights were trained for."""

    record: Record
    run: Run
    network: nn.Module
    exits: int


def export(
    records: Sequence[Record], folder: Path, *, c: bool = False, mix: float = 0.0, say: Say = lambda line: None
) -> Export:
    """Write the stages of a record, or of a cascade of two, into `folder` and check them.

    Args:
        records: one or two run records with weights, of the same data; one alone may be cut short
            (`trecx.experiments.composed.shorten`).
        folder: made, or taken over from an earlier export.
        c: also write the int8 stages as C.
        mix: of a cascade, the share that the second network's answers keep of the first one's last.
        say: told what is being done.

    Raises:
        TrecxError: a package, the data or the weights are missing, records that do not fit together, a folder that is
            no export, or float stages that differ from PyTorch by more than FLOAT_TOLERANCE of the largest logit.
    """
    needs.packages("an export", needs.EXPORT, *[needs.GENERATE] * c)
    if folder.exists() and not (folder / "export.json").is_file() and (not folder.is_dir() or any(folder.iterdir())):
        raise TrecxError(f"{folder} is there and is no export: give a new folder")
    mix = float(mix)
    whole, members = joined(records, mix), _members(records)
    first = members[0]
    data = datasets.load(first.run.data)
    for member in members:
        if data.checksum != member.record.manifest["data"]["checksum"]:
            raise TrecxError(f"data set {data.name} is not the one that {member.record.name} was trained on")
    x = {split: inputs(data, split, first.run) for split in ("train", "val", "test")}
    rows = np.random.default_rng(SEED).permutation(len(x["train"]))[:CALIBRATION]
    samples = _real(x["train"][np.sort(rows)], first.run)
    with whole_folder(folder.resolve()) as new:
        stages: dict[str, list[Any]] = {kind: [] for kind in KINDS}
        affines, maps = set(), 0
        sizes = dict.fromkeys(KINDS, 0)
        for member in members:
            say(f"exporting {member.record.name}")
            shape = input_shape(member.run.task, member.run.resolution)
            traced = graphs.trace(member.network, shape, len(stages["float"]))
            quantised, affine = graphs.quantise(traced, samples)
            affines.add(affine)
            for kind, graph in zip(KINDS, (traced, quantised), strict=True):
                own = graphs.cut(graph, maps)
                stages[kind] += own
                sizes[kind] += graphs.weight_bytes(own)
            maps += len({o.name for stage in own for o in stage.graph.output}) - len(own)
        (affine,) = affines  # all see the same samples
        for kind in KINDS:
            graphs.save(stages[kind], new / kind)
        manifest = _manifest(members, whole, mix, affine, stages, len(samples)) | {"bytes": sizes}
        run = {kind: _stages(new, kind, manifest) for kind in KINDS}
        say("checking float stages against PyTorch")
        manifest["check"] = _compare(members, run["float"], x["test"][:COMPARED], first.run)
        predictions: dict[str, Any] = {}
        for split in ("val", "test"):
            say(f"running int8 stages on {len(x[split])} samples ({split})")
            logits = run["int8"].logits(affine.to_int8(_real(x[split], first.run)))
            predictions[f"{split}_log_probs"] = mixed(log_softmax(logits), mix, manifest["first"])
            predictions[f"{split}_labels"] = labels(data, split).numpy()
        manifest["accuracy"] = {
            split: {
                "float": whole.accuracies(split).tolist(),
                "int8": _accuracies(predictions[f"{split}_log_probs"], predictions[f"{split}_labels"]),
            }
            for split in ("val", "test")
        }
        np.savez_compressed(new / "predictions.npz", **predictions)
        if c:
            say("generating C")
            source.write(new / "c", stages["int8"], manifest)
        (new / "export.json").write_text(json.dumps(manifest, indent=1) + "\n")
        (new / "README.md").write_text(source.readme(manifest, c))
    return Export(folder)


def open_export(folder: Path) -> Export:
    """The export in a folder; TrecxError if there is none."""
    if not (folder / "export.json").is_file():
        raise TrecxError(f"{folder} is no export: make one with `python -m trecx export RECORD {folder}`")
    return Export(folder)


def _members(records: Sequence[Record]) -> list[_Member]:
    """The networks with their weights; TrecxError where they cannot run in a row."""
    members = []
    for record in records:
        run = run_of(record)
        network = network_of(record, trained=True)
        members.append(_Member(record, run, network, network.num_exits))
    for field in ("data", "resolution", "extra_classes"):
        values = [getattr(member.run, field) for member in members]
        if len(set(values)) > 1:
            raise TrecxError(f"a cascade needs two records of the same {field}, not {values[0]!r} and {values[1]!r}")
    return members


def _real(x: Tensor, run: Run) -> NDArray[np.float32]:
    """Samples as stored -> network inputs."""
    return np.ascontiguousarray(scale(x, run.task).numpy())


def _stages(folder: Path, kind: str, manifest: dict[str, Any]) -> Stages:
    files = [folder / kind / f"stage{k + 1}.onnx" for k in range(len(manifest["stages"]))]
    return Stages(files, manifest["rule"], manifest.get("mix", 0.0), manifest.get("first", 0))  # none in older exports


def code() -> str:
    """Checksum of what makes an export: the modules and the hand-written C of this folder."""
    files = sorted(f for f in Path(__file__).parent.rglob("*") if f.is_file() and f.suffix != ".pyc")
    return hashlib.sha256(b"".join(file.read_bytes() for file in files)).hexdigest()


def sha256(file: Path) -> str:
    """Checksum of a file."""
    return hashlib.sha256(file.read_bytes()).hexdigest()


def _accuracies(log_probs: NDArray[Any], truth: NDArray[Any]) -> list[float]:
    return (log_probs.argmax(2) == truth[:, None]).mean(0).tolist()


def _manifest(
    members: Sequence[_Member], whole: Record, mix: float, affine: Affine, stages: dict[str, list[Any]], samples: int
) -> dict[str, Any]:
    run = members[0].run
    shape = input_shape(run.task, run.resolution)
    shapes = {name: s for stage in stages["int8"] for name, s in graphs.shapes(stage).items()}
    return {
        "records": [member.record.name for member in members],
        "weights": [sha256(member.record.weights) for member in members],
        "code": code(),
        "run": asdict(run),
        "data": {"checksum": members[0].record.manifest["data"]["checksum"]},
        "methods": [member.run.method for member in members],
        "rule": whole.rule,
        "mix": mix,
        "first": members[0].exits,
        "classes": shapes[graphs.logits_name(0)][1],
        "input": {"shape": shape, "divided_by": get_task(run.task).input_scale, **asdict(affine)},
        "stages": [
            {"reads": [i.name for i in s.graph.input], "writes": [o.name for o in s.graph.output]}
            for s in stages["int8"]
        ],
        "maps": {name: shape for name, shape in shapes.items() if name.startswith("maps")},
        "cost": {unit: whole.manifest["cost"][unit] for unit in ("flops", "macs")},
        "operations": [graphs.operations(stage) for stage in stages["int8"]],
        "activations": [graphs.peak_bytes(stage) for stage in stages["int8"]],
        "calibration": {"split": "train", "samples": samples, "ranges": "smallest and largest value"},
        "versions": versions() | needs.package_versions(needs.EXPORT.values()),
    }


def _compare(members: Sequence[_Member], stages: Stages, x: Tensor, run: Run) -> dict[str, Any]:
    """The largest difference between float stages and PyTorch on some samples, relative to the largest logit."""
    expected = []
    for member in members:
        with inference(member.network):
            expected.append(torch.stack(member.network(scale(x, run.task)), 1).numpy())
    logits = np.concatenate(expected, axis=1)
    difference = float(np.abs(stages.logits(_real(x, run)) - logits).max() / np.abs(logits).max())
    if not difference <= FLOAT_TOLERANCE:
        raise TrecxError(
            f"float stages differ from PyTorch by {difference:.2g} of the largest logit, more than {FLOAT_TOLERANCE:g}"
        )
    return {"samples": len(x), "float_difference": difference, "float_tolerance": FLOAT_TOLERANCE}
