"""Runs as data, and the way to one record: find it, or train it."""

import ast
import hashlib
import json
import shutil
import sys
import warnings
from dataclasses import MISSING, asdict, dataclass, fields
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
from trecx.errors import TrecxError
from trecx.experiments.machine import hardware, versions
from trecx.experiments.records import (
    FILES,
    WEIGHTS,
    Record,
    all_records,
    copy_files,
    locked,
    pack,
    settle,
    whole_folder,
    write,
)
from trecx.files import whole_file
from trecx.models.build import build, input_shape
from trecx.models.cost import Cost, measure
from trecx.models.methods import Method, Ramp, get_method
from trecx.models.network import EarlyExitNetwork
from trecx.tasks import TASKS, get_task
from trecx.training import start
from trecx.training.batches import Examples, resize, scale, to_input
from trecx.training.device import arithmetic, default_device, keep_freed_memory
from trecx.training.loop import Report, Training, log_probs, train
from trecx.training.losses import early_weights
from trecx.training.recipes import Recipe, get_recipe
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
    (they need not be there before the training); `frozen` then trains the heads alone.
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
        if self.resolved_recipe.teacher and not self.start:
            raise TrecxError(f"recipe {self.recipe!r} learns from trained weights: give start as well")
        if task.input_shape[1:] == (self.resolution, self.resolution):
            self._set("resolution", 0)
        self._settle_taps(method)
        self._settle_weight(method)

    def _set(self, field: str, value: Any) -> None:
        object.__setattr__(self, field, value)  # while the run is being made

    def _check_types(self) -> None:
        """Refuse values of the wrong type or out of range; numbers become plain int and float."""
        for field in ("task", "method", "data", "recipe", "start"):
            if not isinstance(getattr(self, field), str):
                raise TrecxError(f"{field} {getattr(self, field)!r} is impossible: give a name, as text")
        if not isinstance(self.frozen, bool):
            raise TrecxError(f"frozen {self.frozen!r} is impossible: choose True or False")
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
        """Refuse a loss weight that would change nothing; the method's own is left out."""
        if self.w_early is None:
            return
        exits = self.taps or method.taps[self.task]
        if not exits or isinstance(method.loss, Ramp):
            why = "its loss weights follow a ramp" if exits else "it has no early exit"
            raise TrecxError(f"w_early {self.w_early} is impossible for method {self.method!r}: {why}, so leave it out")
        if early_weights(method, self.task, None, 0, (1.0,) * len(exits)) == [self.w_early] * len(exits):
            self._set("w_early", None)

    @property
    def resolved_recipe(self) -> Recipe:
        """The recipe with this run's epochs."""
        return get_recipe(self.recipe, self.task, self.epochs)

    @property
    def name(self) -> str:
        """Readable and unique among the runs of a data set."""
        options = [f"w{_digits(self.w_early)}"] if self.w_early is not None else []
        options += [f"tap-{'-'.join(self.taps)}"] if self.taps is not None else []
        options += [f"width{_digits(self.width)}"] if self.width != 1 else []
        options += [f"extra{self.extra_classes}"] if self.extra_classes else []
        options += [f"res{self.resolution}"] if self.resolution else []
        options += [f"from-{self.start}"] if self.start else []
        options += ["frozen"] if self.frozen else []
        parts = [self.task, self.method, *options, f"{self.recipe}{self.resolved_recipe.epochs}", f"seed{self.seed}"]
        return "-".join(parts)

    @property
    def design(self) -> "Design":
        """What decides the network, weights aside."""
        classes = len(TASKS[self.task].classes) + self.extra_classes
        return Design(self.task, self.method, self.taps, self.width, classes, self.resolution)

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

    def build(self) -> EarlyExitNetwork:
        """The network with weights from torch's random state."""
        return build(
            self.task,
            self.method,
            taps=self.taps,
            width=self.width,
            classes=self.classes,
            resolution=self.resolution,
        )


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


def find(run: Run) -> Record | None:
    """The record of `run`, if one exists that this code and this data would make again.

    Records in the book's folder are published results: they count as long as run and recipe are the same.
    """
    for root, same_code in ((paths.RECORDS, True), (paths.PUBLISHED, False)):
        folder = root / run.data / run.name
        if not (folder / "manifest.json").is_file():
            continue
        record = Record(folder)
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
        with whole_folder(target) as folder:
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
    place = f"{run.data}/{run.name}"
    waiting = f"{place} is being trained by another process: waiting for its record"
    with locked(place.replace("/", "-"), waiting):
        settle(paths.RECORDS)
        target = paths.RECORDS / run.data / run.name
        if not _is_finished(run, target):
            _train(run, target, report)
        _remove(_partial(target))
    return Record(target)


def _is_finished(run: Run, target: Path) -> bool:
    """Whether `target` has every file of a record that this code and this data would make again."""
    found = find(run)
    return found is not None and found.folder == target and all((target / f).is_file() for f in (*FILES, WEIGHTS))


def _train(run: Run, target: Path, report: Report) -> None:
    """Train `run` and write its record."""
    _refuse_another(target, run)
    keep_freed_memory()
    data = datasets.load(run.data)
    device = default_device()
    network, recipe = run.network(), run.resolved_recipe
    if run.start:
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
        teacher=start.teacher(run.start) if recipe.teacher else None,
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
        write(folder, manifest, pd.DataFrame(progress.rows), predictions)
        save_weights(network, folder / WEIGHTS)


def evaluate(record: Record, threshold: float | None = None) -> dict[str, Any]:
    """Run the record's weights over its test data again: accuracies now and as recorded, in percent an exit.

    With a `threshold` also the accuracy, the exit shares and the mean FLOPs of really stopping early there.
    """
    run = run_of(record)
    network = run.network()
    load_weights(network, record.weights)
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
    """The run that made a record."""
    return Run(**record.manifest["run"])


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
    """What makes two runs the same: settings, data, weights to start from, and the code and arithmetic that train.

    `start` is the sha256 of these weights, empty if they are not there; absent for a run from scratch.
    """
    recipe = run.resolved_recipe
    ident = {
        "run": asdict(run),
        "recipe": asdict(recipe),
        "checksum": checksum,
        "engine": engine_fingerprint(),
        "arithmetic": arithmetic(default_device(), recipe.precision),
    }
    if run.start:
        ident["start"] = start.checksum(run.start)
    return _as_json(ident)


@cache
def engine_fingerprint(package: Path = Path(__file__).parents[1]) -> str:
    """Checksum of the code in `package` that decides a training's outcome; comments, docstrings and layout aside."""
    files = [package / "tasks.py", *(package / "models").glob("*.py"), *(package / "training").glob("*.py")]
    # Both of these make something else of networks that are trained already.
    deciding = sorted(file for file in files if file.stem not in ("int8", "cascade"))
    digest = hashlib.sha256()
    for file in deciding:
        tree = _WithoutDocstrings().visit(ast.parse(file.read_text(encoding="utf-8")))
        digest.update(f"{file.relative_to(package).as_posix()}\n{ast.unparse(tree)}\n".encode())
    return digest.hexdigest()[:16]


class _WithoutDocstrings(ast.NodeTransformer):
    """Drops every text that stands alone as a statement."""

    def visit_Expr(self, node: ast.Expr) -> ast.Expr | None:
        return None if isinstance(node.value, ast.Constant) and isinstance(node.value.value, str) else node


def _refuse_another(target: Path, run: Run) -> None:
    """Raise TrecxError if `target` holds the record of another run, which must not be replaced."""
    if (target / "manifest.json").is_file() and settings(Record(target))["run"] != _as_json(asdict(run)):
        raise TrecxError(f"{target} holds the record of another run: move it away before you train {run.name}")


def _partial(target: Path) -> Path:
    """Where an unfinished run keeps its state."""
    return target.with_name(f"{target.name}.partial")


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
