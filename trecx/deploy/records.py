"""Device records: what networks cost on an emulated microcontroller and what int8 leaves of them.

A device record is one JSON file of a few kB, `device/MACHINE/NAME.json` beside the run records, for a run record or,
as NAME+NAME, a cascade of two (NAME+NAME+mix0.3 where it mixes their answers). Of a network that was cut short the
name ends in the exits that are left and the stage that it ends after (NAME+exits-layer4-layer6+ends-layer8). It holds
accuracies of every exit in float32 and int8, instructions and memory of every stage, a benefit curve under int8 and,
where it was asked for, the latency on a processor, but neither firmware nor predictions. Reading one needs nothing
optional; `trecx.deploy.intact` says what a whole one is.
"""

import json
import sys
import time
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from trecx import data as datasets
from trecx import paths
from trecx.deploy import device, intact, needs
from trecx.deploy.export import SEED, Export, Say, code, export, sha256
from trecx.errors import TrecxError, check_choice
from trecx.evaluation.points import chosen_point, point_at
from trecx.evaluation.trace import Trace, at_thresholds
from trecx.experiments.composed import MIXED, Shortened, joined, params_of, remainder
from trecx.experiments.intact import FORMAT, Damaged, Newer
from trecx.experiments.machine import hardware
from trecx.experiments.records import Record, all_records
from trecx.experiments.results import settings_in_words
from trecx.experiments.runs import Run, run_of
from trecx.files import whole_file
from trecx.models.methods import label_of

GROUP = "device"
MACHINE = "mps2-an386"  # of the published records
DROPS = (1, 0)  # percentage points below the baseline's accuracy
LEVELS = 101  # of the benefit curve: quantiles of the confidences on validation
UNITS = ("flops", "macs", "instructions")
LATENCY_SAMPLES = 100
REPEATS = 15


@dataclass(frozen=True)
class DeviceRecord:
    """A device record on disk."""

    path: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Everything in it; Damaged or Newer, one sentence, where it is not whole."""
        return intact.read(self.path)

    @property
    def name(self) -> str:
        """Names of its run records, joined by +."""
        return self.path.stem

    @property
    def runs(self) -> list[Run]:
        """The runs of its networks."""
        return [Run(**run) for run in self.manifest["runs"]]

    @property
    def label(self) -> str:
        """What it is called in tables: method and size, 'then' between the networks of a cascade."""
        if self.exits is not None:  # those that it was trained with say nothing more
            return f"{_label(replace(self.runs[0], taps=None))}, {remainder(self.exits, self.end)}"
        return ", then ".join(_label(run) for run in self.runs) + MIXED * bool(self.mix)

    @property
    def mix(self) -> float:
        """Share of the first network's answer in those of the second."""
        return float(self.manifest.get("mix") or 0)

    @property
    def exits(self) -> tuple[str, ...] | None:
        """The exits that are left of a network that was cut short; None for one as it was trained."""
        exits = self.manifest.get("exits")
        return None if exits is None else tuple(exits)

    @property
    def end(self) -> str:
        """The stage that its network ends after, by its training or since it was cut short; empty for the whole."""
        return self.manifest.get("end") or self.runs[0].ends

    @property
    def params(self) -> int:
        """Trained parameters of all its networks."""
        return sum(params_of(run, self.exits, self.manifest.get("end") or "") for run in self.runs)

    @property
    def data_title(self) -> str:
        """The data set, as pages say it."""
        return datasets.DATASETS[self.runs[-1].data].title

    @property
    def setting(self) -> tuple[str, str, str]:
        """Data, recipe and start: what a network has in common with the baseline it is compared with."""
        run = self.runs[-1]
        return run.data, run.recipe, run.start

    @property
    def is_baseline(self) -> bool:
        """Whether others are compared with it."""
        return len(self.runs) == 1 and self.exits is None and _is_baseline(self.runs[0])

    def cost(self, unit: str) -> NDArray[np.float64]:
        """Cumulative cost (exits,) of leaving at each exit, decisions included, in `flops`, `macs` or `instructions`.

        Raises:
            TrecxError: another unit.
        """
        check_choice("unit", unit, UNITS)
        if unit != "instructions":
            return np.asarray(self.manifest["cost"][unit], dtype=float)
        stages = self.manifest["stages"]
        decided = [s["decision"] for s in stages] if len(stages) > 1 else [0]
        return np.cumsum([s["instructions"] + d for s, d in zip(stages, decided, strict=True)]).astype(float)

    def accuracy(self, kind: str, split: str = "test") -> NDArray[np.float64]:
        """Accuracy (exits,) of every exit in `float` or `int8`, as fractions."""
        return np.asarray(self.manifest["accuracy"][split][kind])

    def point(self, target: float) -> dict[str, Any] | None:
        """The cheapest threshold of the curve whose validation accuracy is at least `target` (a fraction), under int8.

        Returns:
            threshold (None without exits), accuracy and exit shares on test, val_accuracy and val_shares; None if no
            threshold reaches the target.
        """
        enough = [k for k, accuracy in enumerate(self.manifest["curve"]["val"]) if accuracy >= target - 1e-9]
        return self._at(enough[-1]) if enough else None

    def within(self, budget: float, unit: str = "instructions") -> dict[str, Any] | None:
        """The highest threshold of the curve whose mean cost on validation is at most `budget` units, under int8.

        Returns:
            as `point`; None if no threshold is that cheap.
        """
        spent = np.asarray(self.manifest["curve"]["val_shares"]) @ self.cost(unit)
        fits = np.flatnonzero(spent <= budget * (1 + 1e-9))
        return self._at(int(fits[0])) if len(fits) else None

    def _at(self, k: int) -> dict[str, Any]:
        curve = self.manifest["curve"]
        return {
            "threshold": curve["thresholds"][k],
            "accuracy": curve["test"][k],
            "shares": np.asarray(curve["shares"][k]),
            "val_accuracy": curve["val"][k],
            "val_shares": np.asarray(curve["val_shares"][k]),
        }


def published(machine: str = MACHINE, *, whole: bool = True) -> list[DeviceRecord]:
    """The device records in the book, by name.

    Args:
        machine: one of `trecx.deploy.device.MACHINES`.
        whole: raise for a record that is not whole, as pages must; else it is left out, with a line on standard error.

    Raises:
        TrecxError: another machine; Damaged or Newer.
    """
    check_choice("machine", machine, device.MACHINES)
    found = []
    for path in sorted((paths.PUBLISHED / GROUP / machine).glob("[!.]*.json")):
        record = DeviceRecord(path)
        try:
            record.manifest  # noqa: B018  reads and checks it
        except (Damaged, Newer) as error:
            if whole:
                raise
            print(f"left out: {error}", file=sys.stderr)
        else:
            found.append(record)
    return found


def measure(
    records: Sequence[Record],
    machine: str = MACHINE,
    *,
    latency: bool = False,
    publish: bool = False,
    mix: float = 0.0,
    say: Say = lambda line: None,
) -> DeviceRecord:
    """Export, build, run and check a record or a cascade of two, and write its device record.

    The export stays in `_build/deploy`, where the next measurement finds it; so does that of the baseline, which a
    latency is compared with.

    Args:
        records: one or two run records with weights; one alone may be cut short.
        machine: one of `trecx.deploy.device.MACHINES`.
        latency: also measure time on this processor, which must have nothing else to do.
        publish: write into the book's folder instead of the records folder.
        mix: of a cascade, the share that the second network's answers keep of the first one's last.
        say: told what is being done.

    Raises:
        TrecxError: as `trecx.deploy.export.export` and `trecx.deploy.device.measure`; no baseline with weights.
    """
    check_choice("machine", machine, device.MACHINES)
    needs.packages("a device record", needs.EXPORT, needs.GENERATE)
    needs.programs("a device record", needs.HOST | needs.CORTEX_M)
    compared = baseline_of(records[-1])
    made = _exported(records, say, mix)
    say(f"building, and running on {machine}")
    measured = device.measure(made, machine)
    known = made.manifest
    manifest = {
        "format": FORMAT,
        "runs": [record.run for record in records],
        **({"mix": mix} if mix else {}),
        **_cut(records),
        "baseline": compared.name,
        **{key: known[key] for key in ("data", "weights", "rule", "cost", "bytes", "accuracy", "check", "calibration")},
        **measured,
        "operations": known["operations"],
        "curve": _curve(made),
        "float_thresholds": _float_thresholds(made, records, compared),
        "latency": None,
    }
    if latency:
        reference = made if [*records] == [compared] else _exported([compared], say)
        say("measuring latency")
        manifest["latency"] = _latency(made, reference, records, compared)
    root = paths.PUBLISHED if publish else paths.RECORDS
    path = root / GROUP / machine / f"{_name(records, mix)}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        file.write((json.dumps(manifest, indent=None, separators=(", ", ": ")) + "\n").encode())
    return DeviceRecord(path)


def _cut(records: Sequence[Record]) -> dict[str, Any]:
    """What is left of a network that was cut short: its exits and its end; empty for others."""
    first = records[0]
    return {"exits": [*first.exits], "end": first.end} if isinstance(first, Shortened) else {}


def _name(records: Sequence[Record], mix: float) -> str:
    return intact.name([run_of(record) for record in records], mix, **_cut(records))


def baseline_of(record: Record) -> Record:
    """The unmodified network of the same data, recipe and start that has weights; TrecxError if there is none."""
    run = run_of(record)
    same = ("task", "data", "recipe", "start", "epochs")
    for other in all_records(run.data):
        if not other.weights.is_file() or other.run["method"] != "baseline":
            continue
        theirs = run_of(other)
        if _is_baseline(theirs) and all(getattr(theirs, field) == getattr(run, field) for field in same):
            return other
    raise TrecxError(f"{record.name} has no baseline to be compared with: train method baseline on the same data")


def _is_baseline(run: Run) -> bool:
    plain = Run(run.task, "baseline", run.data, run.recipe, start=run.start, epochs=run.epochs)
    return replace(run, seed=0) == plain


def _label(run: Run) -> str:
    """What a network is called; epochs that are not its recipe's are said."""
    return ", ".join([label_of(run.method), *settings_in_words(run, replace(run, epochs=None)).values()])


def _exported(records: Sequence[Record], say: Say, mix: float = 0.0) -> Export:
    """The export with C of these very weights that is there, or a new one."""
    folder = paths.BUILD / "deploy" / run_of(records[0]).data / _name(records, mix)
    there = Export(folder)
    if there.c.is_dir():
        now = needs.package_versions(needs.EXPORT.values())
        with suppress(Damaged, KeyError, AttributeError):  # one that is not whole is made anew
            same = there.manifest["weights"] == [sha256(r.weights) for r in records if r.weights.is_file()]
            same = same and there.manifest["code"] == code() and now.items() <= there.manifest["versions"].items()
            if same and there.manifest["mix"] == mix and there.predictions:
                return there
    folder.parent.mkdir(parents=True, exist_ok=True)
    return export(records, folder, c=True, mix=mix, say=say)


def _curve(made: Export) -> dict[str, Any]:
    """The benefit curve under int8 at thresholds that move about the same number of validation samples each.

    thresholds fall; val and test are accuracies, shares and val_shares the exit rates on test and validation. One entry
    without a threshold for a network without early exits.
    """
    exits = len(made.manifest["stages"])
    val, test = (made.trace(split, range(1, exits + 1)) for split in ("val", "test"))
    if exits == 1:
        alone = {"val": [val.final_accuracy], "test": [test.final_accuracy]}
        return {"thresholds": [None], **alone, "shares": [[1.0]], "val_shares": [[1.0]]}
    levels = np.quantile(val.highest, np.linspace(0, 1, LEVELS))
    grid = np.unique([float(f"{level:.6g}") for level in (0.0, *levels, 1.0)])[::-1]
    on_val, on_test = at_thresholds(val, grid), at_thresholds(test, grid)
    return {
        "thresholds": grid.tolist(),
        "val": on_val.accuracy.round(5).tolist(),
        "test": on_test.accuracy.round(5).tolist(),
        "shares": on_test.shares.round(5).tolist(),
        "val_shares": on_val.shares.round(5).tolist(),
    }


def _float_trace(records: Sequence[Record], known: dict[str, Any], split: str) -> Trace:
    """What the trained networks did on a part of the data, from their run records; one cost unit an exit."""
    found = joined(records, known["mix"]).predictions
    log_probs = found[f"{split}_log_probs"]
    exits = np.arange(1.0, log_probs.shape[1] + 1)
    return Trace.from_log_probs(log_probs, found[f"{split}_labels"], exits, rule=known["rule"])


def _float_thresholds(made: Export, records: Sequence[Record], compared: Record) -> list[dict[str, Any]]:
    """Thresholds chosen on validation in float32, `drop` points below the baseline's float accuracy there, under both.

    Empty without early exits; without a threshold where none reaches the accuracy.
    """
    val, test = (_float_trace(records, made.manifest, split) for split in ("val", "test"))
    if len(val.cost) == 1:
        return []
    rows = []
    for drop in DROPS:
        point = chosen_point(val, test, compared.accuracies("val")[-1] - drop / 100)
        row: dict[str, Any] = {"drop": drop, "threshold": point.threshold if point.reached else None}
        if point.reached:
            under = point_at(made.trace("test", test.cost), point.threshold)
            for kind, found in (("float", point), ("int8", under)):
                row[kind] = {"accuracy": round(found.accuracy, 5), "shares": found.shares.round(5).tolist()}
        rows.append(row)
    return rows


def _latency(made: Export, reference: Export, records: Sequence[Record], compared: Record) -> dict[str, Any]:
    """Time of the float stages on this processor, exits really taken, relative to the baseline in the same run.

    One thread, one sample at a time; processor time, so that other programs hardly count. Ratios are taken within a
    repeat, in which networks and thresholds take turns, then their median. Thresholds are those of `_float_thresholds`.
    """
    rows = np.random.default_rng(SEED).permutation(len(made.inputs("test")))[:LATENCY_SAMPLES]
    x, theirs = made.inputs("test")[rows], reference.inputs("test")[rows]
    own, other = made.stages("float"), reference.stages("float")
    thresholds = {row["drop"]: row["threshold"] for row in _float_thresholds(made, records, compared)}
    thresholds = {drop: threshold for drop, threshold in thresholds.items() if threshold is not None}
    times: dict[Any, list[float]] = {key: [] for key in ("baseline", "full", *thresholds)}
    for _ in range(REPEATS):
        times["baseline"].append(_seconds(lambda: other.logits(theirs)))
        times["full"].append(_seconds(lambda: own.logits(x)))
        for drop, threshold in thresholds.items():
            times[drop].append(_seconds(lambda t=threshold: own.predict(x, t)))

    def ratio(key: Any) -> float:
        return round(median(own / base for own, base in zip(times[key], times["baseline"], strict=True)), 4)

    points = []
    for drop, threshold in thresholds.items():
        taken = own.predict(x, threshold)[1]
        shares = np.bincount(taken, minlength=len(made.manifest["stages"])) / len(taken)
        points.append({"drop": drop, "ratio": ratio(drop), "shares": shares.round(5).tolist()})
    return {
        "samples": len(x),
        "repeats": REPEATS,
        "baseline_ms": round(1000 * median(times["baseline"]) / len(x), 4),
        "full_ratio": ratio("full"),
        "points": points,
        "hardware": hardware(torch.device("cpu")) | {"threads": 1},
    }


def _seconds(action: Any) -> float:
    started = time.process_time()
    action()
    return time.process_time() - started
