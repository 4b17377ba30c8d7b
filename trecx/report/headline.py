"""The paper's headline on real data: what the full-scale sweeps of the three benchmarks say together."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from trecx.analysis import tables
from trecx.analysis.claims import Material, claims_table
from trecx.errors import TrecxError
from trecx.evaluation.points import operating_points
from trecx.evaluation.stats import Interval, mean_of_means
from trecx.experiments import reference
from trecx.experiments.records import Record
from trecx.experiments.results import Published, published
from trecx.paper import paper
from trecx.report import catalogue as results

ALL = "all"  # the name of these results for `python -m trecx results`

# Visual wake words counts as trained on from the reference weights: only there does accuracy reach the paper's range.
SWEEPS = {"ic": "cifar10", "kws": "speech_commands", "vww": "vww96_finetune"}
WHY_NOT = {"C2": {"vww": "its accuracy comes with the weights that the runs start from"}}

# Row of the table (below which reference, how the threshold is chosen) -> reference and protocol of `tables.points`.
WAYS = {
    ("our baseline", "chosen on validation"): ("own baseline", "validation"),
    ("our baseline", "paper protocol"): ("own baseline", "paper"),
    ("the paper's baseline", "paper protocol"): ("paper's baseline", "paper"),
    ("its own final exit", "chosen on validation"): ("own final exit", "validation"),
}

Found = Mapping[str, Published]  # task -> its published runs


def gather() -> dict[str, Published]:
    """The published runs of each task; any may be missing."""
    return {task: published(sweep, may_be_empty=True) for task, sweep in SWEEPS.items()}


def saved(found: Published, task: str, method: str = "trecx_ev") -> dict[tuple[str, str], np.ndarray]:
    """FLOPs that a method saves one point below each reference of `WAYS`, percent of the unmodified network's, by seed.

    Way (reference, protocol) -> (seeds,): NaN for a seed that does not reach the accuracy, empty without the runs.
    """
    groups = found.methods
    if not (groups.get(method) and groups.get("baseline")):
        return {way: np.empty(0) for way in WAYS.values()}
    frame = tables.points({method: groups[method]}, task, groups["baseline"], with_paper=True, drops=(1,))
    by_way = {way: rows["reduction"].to_numpy(dtype=float) for way, rows in frame.groupby(["reference", "protocol"])}
    return {way: 100 * by_way[way] for way in WAYS.values()}


def redrawn(found: Published, task: str, resamples: int = 100, seed: int = 0) -> dict[tuple[str, str], np.ndarray]:
    """`saved` of T-RecX when validation and test samples are drawn anew: way -> (resamples, seeds).

    Weights stay; all seeds, and the baseline that sets the reference, see the same draw. Empty without the runs.
    """
    groups = found.methods
    if not (groups.get("trecx_ev") and groups.get("baseline")):
        return {}
    rng = np.random.default_rng(seed)
    ours = [(record.trace("val"), record.trace("test")) for record in groups["trecx_ev"]]
    base = [np.stack([r.trace(split).correct[:, -1] for r in groups["baseline"]]) for split in ("val", "test")]
    cost = groups["baseline"][0].manifest["cost"]["flops"][-1]
    printed = paper()["table_1"][task]["baseline"]["accuracy"] / 100
    rows: dict[tuple[str, str], list[list[float]]] = {way: [] for way in WAYS.values()}
    for _ in range(resamples):
        draws = [rng.integers(hits.shape[1], size=(hits.shape[1],)) for hits in base]
        own = tuple(float(hits[:, draw].mean()) for hits, draw in zip(base, draws, strict=True))
        references = {"own baseline": (own[0], own[1]), "paper's baseline": printed}
        seeds = []
        for pair in ours:
            val, test = (trace.take(draw) for trace, draw in zip(pair, draws, strict=True))
            frame = operating_points(test, cost, references, val=val, drops=(1,))
            seeds.append(frame.set_index(["reference", "protocol"])["reduction"].astype(float))
        for way, kept in rows.items():
            kept.append([100 * saved[way] for saved in seeds])
    return {way: np.array(kept) for way, kept in rows.items()}


def saved_interval(found: Published, task: str) -> Interval:
    """What T-RecX saves one point below our own baseline, threshold from validation: percent, with a 95 % interval.

    Over seeds and, with them, the samples of validation and test; NaN without the runs or where a seed misses it.
    """
    way = ("own baseline", "validation")
    values = saved(found, task)[way]
    if not (len(values) and np.isfinite(values).all()):
        return Interval(float("nan"), float("nan"), float("nan"))
    return mean_of_means([values], known=[float(np.nanvar(redrawn(found, task)[way].mean(1)))])


def smaller(found: Published) -> float:
    """FLOPs saved by a smaller network without exits that is one point less accurate than the baseline, percent.

    Interpolated between the published ones, mean test accuracy over seeds. If the smallest is still more accurate than
    that, what it saves: a lower bound. NaN without such networks.
    """
    base = found.methods.get("baseline")
    if not (base and found.static):
        return float("nan")

    def place(records: Sequence[Record]) -> tuple[float, float]:
        accuracy = float(np.mean([100 * record.accuracies()[-1] for record in records]))
        return records[0].manifest["cost"]["flops"][-1], accuracy

    full, accuracy = place(base)
    cost, wanted = full, accuracy - 1
    left = (full, accuracy)
    for there in sorted((place(records) for records in found.static.values()), reverse=True):
        if there[1] < wanted:
            share = (left[1] - wanted) / (left[1] - there[1])
            cost = left[0] + share * (there[0] - left[0])
            break
        cost, left = there[0], there
    return 100 * (1 - cost / full)


def headline(found: Found) -> pd.DataFrame:
    """What T-RecX saves one point below several references: percent of the unmodified network's FLOPs.

    Columns: below (the reference), threshold (how it is chosen), a task each, their mean with its 95 % interval over
    seeds and, with them, the samples of validation and test. NaN where a seed did not reach the accuracy; a row counts
    such seeds as saving nothing.
    """
    rows: list[dict[str, Any]] = []
    ours = {task: saved(found[task], task) for task in SWEEPS}
    again = {task: redrawn(found[task], task) for task in SWEEPS}
    for (label, how), way in WAYS.items():
        by_task = {task: values[way] for task, values in ours.items()}
        other = {task: draws[way] for task, draws in again.items() if draws}
        rows.append(_row(label, how, by_task, other))
        if way == ("own baseline", "validation"):
            rows.append(_row(label, f"{how}; a miss saves nothing", _or_nothing(by_task), _or_nothing(other)))
    released = {task: _released(task) for task in SWEEPS}
    rows.append(_row("the paper's baseline", "paper protocol, the authors' weights", released))
    printed = paper()["headline"]
    rows.append({"below": "the paper's baseline", "threshold": "as the paper prints"} | printed["reduction"])
    rows[-1]["mean"] = printed["mean_reduction"]
    less = {task: smaller(found[task]) for task in SWEEPS}
    rows.append({"below": "our baseline", "threshold": "no exit: a smaller network, interpolated on test"} | less)
    rows[-1]["mean"] = float(np.mean([*less.values()]))
    return pd.DataFrame(rows)


def _or_nothing(by_task: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {task: np.nan_to_num(values) for task, values in by_task.items()}


def _row(
    label: str, how: str, by_task: Mapping[str, np.ndarray], other: Mapping[str, np.ndarray] | None = None
) -> dict[str, Any]:
    """Means by task and over tasks; NaN where there are no runs or one of them is NaN.

    `other`: task -> the same on other samples (draws, seeds). A draw in which a seed misses the accuracy does not count
    towards their variance.
    """
    means = {task: float(np.mean(values)) if len(values) else float("nan") for task, values in by_task.items()}
    mean = Interval(float("nan"), float("nan"), float("nan"))
    if np.isfinite([*means.values()]).all():
        mean = mean_of_means([*by_task.values()], known=[float(np.nanvar(d.mean(1))) for d in (other or {}).values()])
    return {"below": label, "threshold": how} | means | {"mean": mean.estimate, "low": mean.low, "high": mean.high}


def _released(task: str) -> np.ndarray:
    """The same of the authors' released weights: one value, or none where they released no T-RecX."""
    record = reference.beside(task).get("trecx_ev")
    if record is None:
        return np.empty(0)
    rows = reference.points(record)
    at = (rows["reference"] == "paper's baseline") & (rows["protocol"] == "paper") & (rows["drop"] == 1)
    return 100 * rows.loc[at, "reduction"].to_numpy(dtype=float)


def static(found: Found) -> pd.DataFrame:
    """Smaller networks without exits against T-RecX at their cost, every task; columns of `results.static`."""
    frames = []
    for task, runs in found.items():
        if runs.methods.get("trecx_ev") and runs.static:
            frame = results.static(runs)
            frame.insert(0, "task", task)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def claims(found: Found) -> pd.DataFrame:
    """The twelve claims on all real data together; the placement claim on DS-CNN, one more class on ResNet-8."""
    groups = {task: runs.groups for task, runs in found.items() if runs.methods}
    places = found["kws"].places.get("trecx_ev", {})
    return claims_table(Material(groups, places, found["ic"].extra_class, reasons=WHY_NOT))


def runs(found: Found) -> pd.DataFrame:
    """Every network of the three sweeps: columns of `results.runs`, and the task."""
    frames = []
    for task, part in found.items():
        if part.records:
            frame = results.runs(part)
            frame.insert(0, "task", task)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


TABLES: dict[str, Callable[[Found], pd.DataFrame]] = {
    "headline": headline,
    "static": static,
    "claims": claims,
    "runs": runs,
}


def table(name: str) -> pd.DataFrame:
    """One table of all real data together; TrecxError if it is unknown or nothing is in it."""
    if name not in TABLES:
        raise TrecxError(f"unknown table {name!r}: choose one of {', '.join(TABLES)}")
    frame = TABLES[name](gather())
    if frame.empty:
        raise TrecxError(f"table {name} is empty: no run that it needs is published yet")
    return frame
