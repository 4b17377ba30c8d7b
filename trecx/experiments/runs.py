"""Runs as data, and the way to one record: find it, or train it."""

import hashlib
import json
import shutil
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import MISSING, asdict, dataclass, fields, replace
from datetime import UTC, datetime
from functools import cache
from numbers import Integral, Real
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch

from trecx import data as datasets
from trecx import paths
from trecx.errors import TrecxError, check_choice, system_errors
from trecx.experiments import intact
from trecx.experiments.fingerprint import engine_fingerprint, method_settings
from trecx.experiments.machine import hardware, versions
from trecx.experiments.records import (
    FILES,
    PARTIAL,
    WEIGHTS,
    Record,
    all_records,
    copy_files,
    locked,
    pack,
    settle,
    whole_folder,
    whole_record,
    write,
)
from trecx.files import whole_file
from trecx.models.backbones import BACKBONES
from trecx.models.build import build, input_shape
from trecx.models.cost import Cost, measure
from trecx.models.methods import Method, Ramp, get_method
from trecx.models.network import EarlyExitNetwork, stages
from trecx.tasks import TASKS, get_task
from trecx.training import start
from trecx.training.batches import Examples, resize, scale, to_input
from trecx.training.device import arithmetic, default_device, keep_freed_memory
from trecx.training.loop import Report, Training, log_probs, train
from trecx.training.losses import early_weights
from trecx.training.recipes import DISTILLED, Recipe, get_recipe
from trecx.training.weights import load_weights, save_weights

# Fields of older manifests, with the value that changed nothing.
RETIRED: dict[str, dict[str, Any]] = {"run": {}, "recipe": {"mixup": 0.0}}


@dataclass(frozen=True)
class Range:
    """The numbers that a field of a run may have."""

    kind: type[int] | type[float]
    what: str
    least: float
    most: float

    def read(self, field: str, value: Any) -> Any:
        """`value` as a plain int or float; TrecxError if it is another type or out of range."""
        fits = _is_whole(value) if self.kind is int else isinstance(value, Real) and not isinstance(value, bool)
        if not fits or not self.least <= value <= self.most:
            raise TrecxError(f"{field} {value!r} is impossible: choose {self.what} from {self.least} to {self.most}")
        return self.kind(value)


NUMBERS = {
    "seed": Range(int, "a whole number", 0, 2**32 - 1),
    "epochs": Range(int, "a whole number", 1, 10_000),
    "extra_classes": Range(int, "a whole number", 0, 1000),
    "width": Range(float, "a positive factor", 1 / 64, 4),
    "w_early": Range(float, "a positive loss weight", 1e-6, 100),
}
NARROW = Range(float, "positive factors", 1 / 64, 4)

# What a run may learn from besides the labels: a trained baseline, or (early exits only) its own final exit.
TEACHERS = ("baseline", "final")


def _is_whole(value: Any) -> bool:
    return isinstance(value, Integral) and not isinstance(value, bool)


def _digits(value: float) -> str:
    """The shortest text that gives back exactly `value`, without the .0 of a whole number."""
    return repr(value).removesuffix(".0")


@dataclass(frozen=True)
class Run:
    """One training: what to train, on which data, how, under which seed. Checked when it is made.

    What says the same in another way becomes the same run: a value that recipe or method have of their own is left out,
    and taps stand in the backbone's order.

    `data` is a prepared data set, by default the task's quick stand-in. `epochs`, `w_early` and `taps`
    replace the recipe's and the method's own where given; `width` and `extra_classes` change the network, `resolution`
    (pixels, 0 for the task's own) its inputs. `start` names trained weights to go on from, see `trecx.training.start`
    (they need not be there before the training); `frozen` then trains the heads alone. `narrow` are the widths inside a
    nested network, `ends` is the stage after which the backbone stops. `teacher` adds knowledge distillation: from a
    trained `baseline` of the same data and recipe, or to the early exits from the `final` one. `staged` trains one exit
    after the other, each with all epochs, and what leads to it stands still afterwards.
    """

    task: str
    method: str
    data: str = ""
    recipe: str = "quick"
    seed: int = 0
    epochs: int | None = None
    w_early: float | None = None
    taps: tuple[str, ...] | None = None
    width: float = 1.0
    extra_classes: int = 0
    start: str = ""
    frozen: bool = False
    resolution: int = 0
    narrow: tuple[float, ...] | None = None
    ends: str = ""
    teacher: str = ""
    staged: bool = False

    def __post_init__(self) -> None:
        self._check_types()
        task = get_task(self.task)
        method = get_method(self.method, self.task)
        self._set("data", self.data or task.quick_data)
        if self.data not in (task.quick_data, task.full_data):
            raise TrecxError(
                f"data set {self.data!r} is not of task {self.task}: choose {task.quick_data} or {task.full_data}"
            )
        if self.epochs == get_recipe(self.recipe, self.task).epochs:
            self._set("epochs", None)
        if self.start and start.task_of(self.start) != self.task:
            raise TrecxError(f"start {self.start!r} is of task {start.task_of(self.start)}, not {self.task}")
        if self.start and (self.width != 1 or self.extra_classes):
            raise TrecxError(
                f"start {self.start!r} has the benchmark's own size: it takes width 1 and no extra classes"
            )
        if self.frozen and not self.start:
            raise TrecxError("a frozen backbone needs trained weights: give start as well")
        own_teacher = get_recipe(self.recipe, self.task).teacher
        if own_teacher and not self.start:
            raise TrecxError(f"recipe {self.recipe!r} learns from trained weights: give start as well")
        if self.teacher and own_teacher:
            raise TrecxError(f"recipe {self.recipe!r} has a teacher of its own: leave teacher out")
        if self.start and method.head == "nested":
            raise TrecxError(f"start {self.start!r} has no network inside: choose another method than 'nested'")
        if self.narrow == method.narrow.get(self.task):
            self._set("narrow", None)
        if self.ends and self.ends == _last_stage(self.task):
            self._set("ends", "")
        if task.input_shape[1:] == (self.resolution, self.resolution):
            self._set("resolution", 0)
        self._settle_taps(method)
        self._settle_weight(method)

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)  # while the run is being made

    def _check_types(self) -> None:
        """Refuse values of the wrong type or out of range; numbers become plain int and float."""
        for field in ("task", "method", "data", "recipe", "start", "ends", "teacher"):
            if not isinstance(getattr(self, field), str):
                raise TrecxError(f"{field} {getattr(self, field)!r} is impossible: give a name, as text")
        for field in ("frozen", "staged"):
            if not isinstance(getattr(self, field), bool):
                raise TrecxError(f"{field} {getattr(self, field)!r} is impossible: choose True or False")
        if self.teacher:
            check_choice("teacher", self.teacher, TEACHERS)
        if self.narrow is not None:
            if not isinstance(self.narrow, list | tuple):
                raise TrecxError(f"narrow {self.narrow!r} is impossible: give a tuple of widths, such as (0.5, 0.75)")
            self._set("narrow", tuple(NARROW.read("narrow", width) for width in self.narrow))
        for field, allowed in NUMBERS.items():
            value = getattr(self, field)
            if value is not None or field not in ("epochs", "w_early"):
                self._set(field, allowed.read(field, value))
        if not _is_whole(self.resolution):
            raise TrecxError(f"resolution {self.resolution!r} is impossible: choose a whole number of pixels, or 0")
        self._set("resolution", int(self.resolution))
        if self.taps is None:
            return
        if not isinstance(self.taps, list | tuple) or not all(isinstance(tap, str) for tap in self.taps):
            raise TrecxError(f"taps {self.taps!r} is impossible: give a tuple of stages, such as ('block1', 'block3')")
        self._set("taps", tuple(self.taps))

    def _settle_taps(self, method: Method) -> None:
        """Refuse an impossible network now, not after the runs before it; taps as in the class's docstring."""
        own = method.taps[self.task]
        if self.taps is not None and len(set(self.taps)) != len(self.taps):
            raise TrecxError(f"taps {self.taps!r} names a stage twice: give each stage once")
        if self.taps == () != own:
            raise TrecxError(
                f"taps () leaves method {self.method!r} without an exit: give a stage, or None for its own"
            )
        ordered = _exits(self.design)
        self._set("taps", None if self.taps is None or ordered == own else ordered)

    def _settle_weight(self, method: Method) -> None:
        """Refuse a teacher, stages or a loss weight that would change nothing; the method's own weight is left out."""
        if self.teacher == "final" and not (self.taps or method.taps[self.task]):
            raise TrecxError(f"method {self.method!r} has no early exit to teach: choose teacher 'baseline', or none")
        exits = self.taps or method.taps[self.task]
        if self.staged and not exits:
            raise TrecxError(f"method {self.method!r} has one exit and so one stage: leave staged out")
        if self.staged and self.teacher == "final":
            raise TrecxError("staged training has the final exit last: choose teacher 'baseline', or none")
        if self.w_early is None:
            return
        if self.staged:
            raise TrecxError(
                f"w_early {self.w_early} is impossible with staged, where each exit is trained alone: leave it out"
            )
        if not exits or isinstance(method.loss, Ramp):
            why = "its loss weights follow a ramp" if exits else "it has no early exit"
            raise TrecxError(f"w_early {self.w_early} is impossible for method {self.method!r}: {why}, so leave it out")
        if early_weights(method, self.task, None, 0, (1.0,) * len(exits)) == [self.w_early] * len(exits):
            self._set("w_early", None)

    @property
    def resolved_recipe(self) -> Recipe:
        """The recipe with this run's epochs, and the share of a teacher if the run has one."""
        recipe = get_recipe(self.recipe, self.task, self.epochs)
        return replace(recipe, teacher=DISTILLED) if self.teacher else recipe

    @property
    def total_epochs(self) -> int:
        """Epochs that the training takes, those of all stages together."""
        return self.resolved_recipe.epochs * (len(_exits(self.design)) + 1 if self.staged else 1)

    @property
    def name(self) -> str:
        """Readable and unique among the runs of a data set."""
        options = [f"w{_digits(self.w_early)}"] if self.w_early is not None else []
        options += [f"tap-{'-'.join(self.taps)}"] if self.taps is not None else []
        options += [f"narrow{'-'.join(map(_digits, self.narrow))}"] if self.narrow is not None else []
        options += [f"width{_digits(self.width)}"] if self.width != 1 else []
        options += [f"ends-{self.ends}"] if self.ends else []
        options += [f"extra{self.extra_classes}"] if self.extra_classes else []
        options += [f"res{self.resolution}"] if self.resolution else []
        options += [f"from-{self.start}"] if self.start else []
        options += ["frozen"] if self.frozen else []
        options += [f"teacher-{self.teacher}"] if self.teacher else []
        options += ["staged"] if self.staged else []
        parts = [self.task, self.method, *options, f"{self.recipe}{self.resolved_recipe.epochs}", f"seed{self.seed}"]
        return "-".join(parts)

    @property
    def design(self) -> "Design":
        """What decides the network, weights aside."""
        classes = len(TASKS[self.task].classes) + self.extra_classes
        return Design(self.task, self.method, self.taps, self.width, classes, self.resolution, self.narrow, self.ends)

    def network(self) -> EarlyExitNetwork:
        """The network with fresh weights; those of `start` come in when it is trained."""
        torch.manual_seed(self.seed)
        return self.design.build()


@dataclass(frozen=True)
class Design:
    """The settings of a run that decide its network: runs that differ in the others have the same design."""

    task: str
    method: str
    taps: tuple[str, ...] | None
    width: float
    classes: int
    resolution: int
    narrow: tuple[float, ...] | None
    ends: str

    def build(self) -> EarlyExitNetwork:
        """The network with weights from torch's random state."""
        return build(
            self.task,
            self.method,
            taps=self.taps,
            width=self.width,
            classes=self.classes,
            resolution=self.resolution,
            narrow=self.narrow,
            ends=self.ends,
        )


@cache
def _last_stage(task: str) -> str:
    """The stage that a task's backbone ends with."""
    with torch.random.fork_rng(devices=[]):
        return stages(BACKBONES[task]())[-1][0]


# Both build each network once, however many runs share it, and leave torch's random state alone.
@cache
def _exits(design: Design) -> tuple[str, ...]:
    """The stages with an exit, in the backbone's order; TrecxError for an impossible tap, width or resolution."""
    with torch.random.fork_rng(devices=[]), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's warning about what is refused below
        try:
            return tuple(design.build().exits)
        except (IndexError, ValueError) as error:  # torch's own words for a layer of no channels
            raise TrecxError(
                f"width {design.width} is impossible for method {design.method!r} on {design.task}: an exit would have "
                "no channel left, choose a larger width"
            ) from error


@cache
def _cost(design: Design) -> Cost:
    with torch.random.fork_rng(devices=[]):
        return measure(design.build(), input_shape(design.task, design.resolution))


def find(run: Run, say: bool = True) -> Record | None:
    """The record of `run`, if a whole one exists that this code and this data would make again.

    Records in the book's folder are published results: they count as long as run and recipe are the same. A record
    that is not whole is passed over, with one line on standard error if `say`.
    """
    for root, same_code in ((paths.RECORDS, True), (paths.PUBLISHED, False)):
        folder = root / run.data / run.name
        record = whole_record(folder, say) if folder.is_dir() else None
        if record is None:
            continue
        wanted = identity(run, datasets.checksum(run.data) if same_code else "")
        made = record.manifest | settings(record)
        keys = [key for key in wanted if key != "start" or wanted[key]] if same_code else ["run", "recipe"]
        if all(made.get(key) == wanted[key] for key in keys):
            return record
    return None


def settings(record: Record) -> dict[str, dict[str, Any]]:
    """`run` and `recipe` of a record, with today's defaults for fields that did not exist when it was made.

    Fields that do not exist any more are left out where they changed nothing; what says the same in another way, such
    as the recipe's own number of epochs, is written as `Run` has it.
    """
    kinds: dict[str, Any] = {"run": Run, "recipe": Recipe}
    made = {key: _defaults(kind) | record.manifest.get(key, {}) for key, kind in kinds.items()}
    kept = {key: {k: v for k, v in part.items() if (k, v) not in RETIRED[key].items()} for key, part in made.items()}
    return kept | {"run": _settled(kept["run"])}


def _settled(fields: dict[str, Any]) -> dict[str, Any]:
    """The fields of a run as they are once it is made; unchanged where there is no such run (any more)."""
    try:
        return _as_json(asdict(Run(**fields)))
    except (TrecxError, TypeError):
        return fields


def _as_json(value: dict[str, Any]) -> dict[str, Any]:
    """Through JSON, so that it compares with a manifest."""
    return json.loads(json.dumps(value))


def _defaults(kind: Any) -> dict[str, Any]:
    """Default values of a dataclass, as JSON gives them back."""
    return _as_json({f.name: f.default for f in fields(kind) if f.default is not MISSING})


def publish(record: Record) -> Record:
    """Copy a record into the book's folder, where it counts as a result whatever becomes of the build folder.

    Of the seeds of one setting only the best on validation (final exit) keeps its weights; killed on the way, more do.
    """
    target = paths.PUBLISHED / record.folder.parent.name / record.name
    if target != record.folder:
        intact.check(record.folder)
        with system_errors(), whole_folder(target) as folder:
            ours, there = (place / "manifest.json" for place in (record.folder, target))
            if there.is_file() and there.read_bytes() == ours.read_bytes():
                copy_files(target, folder, (WEIGHTS,))  # the record published again may have lost its own
            copy_files(record.folder, folder, (*FILES, WEIGHTS))

    def setting(r: Record) -> dict[str, Any]:
        return settings(r)["run"] | {"seed": None}

    published = all_records(target.parent.name, published_only=True)
    siblings = [r for r in published if r.weights.is_file() and setting(r) == setting(record)]
    for sibling in sorted(siblings, key=lambda r: r.accuracies("val")[-1], reverse=True)[1:]:
        sibling.weights.unlink()
    return Record(target)


def execute(run: Run, report: Report = lambda epochs, row: None) -> Record:
    """The record of `run`: the one that is there, or that of a training (from its last finished epoch on).

    Another process that trains the same run is waited for, and its record taken.

    Args:
        run: what to train; a quick data set that is missing is built, a full one must be prepared.
        report: called after each epoch with the number of finished epochs and the last row of the history.

    Returns:
        The record, a folder named after the run in `_build/records` (or TRECX_RECORDS).

    Raises:
        TrecxError: the data or the start's weights are missing or damaged, another run's record is in the place of
            this one's, or the loss is not finite any more.
    """
    with alone(run) as target:
        if not _is_finished(run, target):
            _train(run, target, report)
        _remove(_partial(target))
    return Record(target)


@contextmanager
def alone(run: Run) -> Iterator[Path]:
    """Nobody else trains `run` or writes its record, whose folder this is; another process that does is waited for.

    Raises:
        TrecxError: what the operating system refuses.
    """
    place = f"{run.data}/{run.name}"
    waiting = f"{place} is being trained by another process: waiting for its record"
    with system_errors(), locked(place.replace("/", "-"), waiting):
        settle(paths.RECORDS)
        yield paths.RECORDS / run.data / run.name


def _is_finished(run: Run, target: Path) -> bool:
    """Whether `target` is a record, weights and all, that this code and this data would make again."""
    found = find(run, say=False)
    return found is not None and found.folder == target and found.weights.is_file()


def _train(run: Run, target: Path, report: Report) -> None:
    """Train `run` and write its record."""
    refuse_another(target, run)
    keep_freed_memory()
    data = datasets.load(run.data)
    device = default_device()
    network, recipe = run.network(), run.resolved_recipe
    if run.start:
        if start.weights_of(run.start).is_file():
            intact.check_weights(start.weights_of(run.start))
        start.apply(network, run.start)
    cost = cost_of(run)
    splits = [(inputs(data, s, run), labels(data, s)) for s in ("train", "val", "test")]
    ident = identity(run, data.checksum)
    partial = _partial(target)
    _start_or_go_on(partial, ident)
    training = Training(
        get_method(run.method),
        recipe,
        run.task,
        run.seed,
        shares=tuple(c / cost.macs[-1] for c in cost.macs[:-1]),
        w_early=run.w_early,
        frozen=run.frozen,
        teacher=_teacher(run, device),
        final_teaches=run.teacher == "final",
        staged=run.staged,
    )
    examples = Examples(*splits[0], *splits[1])
    progress = train(network, training, examples, state=partial / "state.safetensors", report=report, device=device)
    predictions: dict[str, Any] = {}
    for name, (x, y) in zip(("val", "test"), splits[1:], strict=True):
        predictions[f"{name}_log_probs"] = pack(log_probs(network, x.to(device), run.task))
        predictions[f"{name}_labels"] = y.numpy().astype(np.uint8)
    manifest = ident | {
        "cost": asdict(cost),
        "data": {
            "name": data.name,
            "title": data.title,
            "description": data.description,
            "stand_in": data.stand_in,
            "checksum": data.checksum,
            "sizes": {s: len(getattr(data, f"y_{s}")) for s in ("train", "val", "test")},
        },
        "seconds": round(progress.seconds, 2),
        "finished": datetime.now(UTC).isoformat(timespec="seconds"),
        "versions": versions(),
        "hardware": hardware(device),
    }
    with whole_folder(target) as folder:
        save_weights(network, folder / WEIGHTS)
        write(folder, manifest, pd.DataFrame(progress.rows), predictions)


def evaluate(record: Record, threshold: float | None = None) -> dict[str, Any]:
    """Run the record's weights over its test data again: accuracies now and as recorded, in percent an exit.

    With a `threshold` also the accuracy, the exit shares and the mean FLOPs of really stopping early there.
    """
    if threshold is not None and not 0 <= threshold <= 1:
        raise TrecxError(f"threshold {threshold} is impossible: choose a confidence from 0 to 1")
    run = run_of(record)
    network = network_of(record)
    data = datasets.load(run.data)
    if data.checksum != record.manifest["data"]["checksum"]:
        raise TrecxError(
            f"data set {run.data} is not the one that {record.name} was trained on: "
            f"its checksum is {data.checksum[:12]}, the record's {record.manifest['data']['checksum'][:12]}"
        )
    x, y = inputs(data, "test", run), labels(data, "test")
    again = log_probs(network, x, run.task).argmax(2) == y[:, None]
    answer = {
        "record": str(record.folder),
        "samples": len(data.y_test),
        "accuracies": [round(100 * a, 4) for a in again.double().mean(0).tolist()],
        "recorded": [round(100 * float(a), 4) for a in record.accuracies("test")],
    }
    if threshold is not None:
        parts = [network.predict(scale(rows, run.task), threshold) for rows in x.split(500)]
        probabilities, taken = (torch.cat(values) for values in zip(*parts, strict=True))
        shares = torch.bincount(taken, minlength=network.num_exits).double() / len(y)
        answer |= {
            "threshold": threshold,
            "accuracy": round(100 * (probabilities.argmax(1) == y).double().mean().item(), 4),
            "exit_shares": shares.tolist(),
            "mean_flops": float(shares @ torch.tensor(record.manifest["cost"]["flops"], dtype=torch.double)),
        }
    return answer


def run_of(record: Record) -> Run:
    """The run that made a record; TrecxError if this version of the code has no such run."""
    made = settings(record)["run"]
    if unknown := [name for name in made if name not in {field.name for field in fields(Run)}]:
        raise TrecxError(
            f"{record.folder} is of a run with the field {unknown[0]!r}, which this version of trecx does not know: "
            "update trecx"
        )
    return Run(**made)


def network_of(record: Record) -> EarlyExitNetwork:
    """The trained network of a record; TrecxError if its weights are missing, damaged or of another network."""
    if not record.weights.is_file():
        raise TrecxError(
            f"no weights at {record.weights}: give the record of another seed, or move the folder away and train again"
        )
    intact.check_weights(record.weights)
    network = run_of(record).network()
    load_weights(network, record.weights)
    return network


def inputs(data: datasets.Dataset, split: str, run: Run) -> torch.Tensor:
    """Network inputs of a split (n, C, H, W) in their stored type, at the run's resolution."""
    return resize(to_input(getattr(data, f"x_{split}")), run.resolution)


def labels(data: datasets.Dataset, split: str) -> torch.Tensor:
    """Labels of a split (n,) int64."""
    return torch.from_numpy(np.asarray(getattr(data, f"y_{split}"), dtype=np.int64))


def cost_of(run: Run) -> Cost:
    """Parameters and cost of the run's network, without training it."""
    return _cost(run.design)


def identity(run: Run, checksum: str) -> dict[str, Any]:
    """What makes two runs the same: settings, method, data, weights to start from, the code and arithmetic that train.

    `start` is the sha256 of these weights, empty if they are not there; absent for a run from scratch.
    """
    recipe = run.resolved_recipe
    ident = {
        "run": asdict(run),
        "recipe": asdict(recipe),
        "method": method_settings(run.method, run.task),
        "checksum": checksum,
        "engine": engine_fingerprint(),
        "arithmetic": arithmetic(default_device(), recipe.precision),
    }
    if run.start:
        ident["start"] = start.checksum(run.start)
    if run.teacher == "baseline":
        ident["start"] = hashlib.sha256(_taught_by(run).weights.read_bytes()).hexdigest()
    return _as_json(ident)


def _taught_by(run: Run) -> Record:
    """The trained baseline that `run` learns from: of its seeds the best on validation of those that have weights.

    Raises:
        TrecxError: there is none.
    """
    wanted = Run(run.task, "baseline", run.data, run.recipe, epochs=run.epochs, resolution=run.resolution)
    for published_only in (True, False):
        trained = [r for r in all_records(run.data, published_only=published_only) if r.weights.is_file()]
        fitting = [r for r in trained if settings(r)["run"] | {"seed": 0} == _as_json(asdict(wanted))]
        if fitting:
            return max(fitting, key=lambda r: float(r.accuracies("val")[-1]))
    raise TrecxError(
        f"{run.name} learns from a trained baseline and there is none: run `python -m trecx train --task {run.task} "
        f"--method baseline --data {run.data} --recipe {run.recipe}` first"
    )


def _teacher(run: Run, device: torch.device) -> torch.nn.Module | None:
    """The trained network that `run` learns from, if there is one."""
    if run.teacher == "baseline":
        return network_of(_taught_by(run))
    return start.teacher(run.start) if run.start and run.resolved_recipe.teacher else None


def refuse_another(target: Path, run: Run) -> None:
    """Raise TrecxError if at `target` is the record of another run, of a later version, or no folder.

    Only a damaged record may be replaced.
    """
    if target.is_file():
        raise TrecxError(f"{target} is a file in the place of a record: move it away before you train {run.name}")
    if not target.is_dir():
        return
    try:
        same = settings(Record(target))["run"] == _as_json(asdict(run))
    except intact.Damaged:
        return
    if not same:
        raise TrecxError(f"{target} holds the record of another run: move it away before you train {run.name}")


def _partial(target: Path) -> Path:
    """Where an unfinished run keeps its state."""
    return target.with_name(f"{target.name}{PARTIAL}")


def _start_or_go_on(partial: Path, ident: dict[str, Any]) -> None:
    """Keep an interrupted run's state only if it is of the very same run."""
    note = partial / "identity.json"
    if partial.exists():
        try:
            same = json.loads(note.read_text()) == ident
        except (OSError, ValueError):
            print(f"{partial} is damaged: the training starts over", file=sys.stderr)
            same = False
        if not same:
            _remove(partial)
    partial.mkdir(parents=True, exist_ok=True)
    for stray in partial.glob(".*"):  # of a process that was killed while it wrote
        stray.unlink()
    with whole_file(note) as file:
        file.write(json.dumps(ident).encode())


def _remove(path: Path) -> None:
    """Remove a folder, or a file, that may be there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
