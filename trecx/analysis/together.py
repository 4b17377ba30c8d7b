"""The tables of all benchmarks together: the headline, the claims, and the comparison with prior work."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from trecx.analysis import benchmark, beyond
from trecx.analysis.claims import RULES, Material, as_table, find_claims
from trecx.analysis.compare import difference, dominance, shown, static_saving
from trecx.analysis.findings import Finding
from trecx.analysis.saving import WAYS, redrawn, rereferenced, saved
from trecx.evaluation.points import OperatingPoint, chosen_point
from trecx.evaluation.stats import Interval, Jackknife, bootstrap_points, mean_of_means
from trecx.evaluation.trace import Trace
from trecx.experiments import reference
from trecx.experiments.results import Results
from trecx.models.methods import label_of
from trecx.paper import paper
from trecx.tasks import TASKS

# Prior work as the authors coded it and as it was published: Table 2 and Figure 7.
RIVALS = ("branchynet", "branchynet_fair", "sdn", "sdn_fair")
PRIOR = ("baseline", "trecx_ev", *RIVALS)
SCORES = {"max_prob": "largest softmax", "margin": "margin", "entropy": "entropy"}

WHY_NOT = {"C2": {"vww": "its accuracy comes with the weights that the runs start from"}}

# The part of the data that chooses the size of a smaller network without exits -> how a row says it.
SMALLER = {"val": "chosen on validation", "test": "interpolated on test"}

Found = Mapping[str, Results]  # task -> its runs


def headline(found: Found, here: Mapping[str, beyond.Benchmark]) -> pd.DataFrame:
    """What T-RecX saves one point below several references: percent of the unmodified network's FLOPs.

    Columns: below (the reference), threshold (how it is chosen), a task each, their mean with its 95 % interval over
    seeds, those of the reference too, and, with them, the samples of validation and test. NaN where a seed did not
    reach the accuracy; a row counts such seeds as saving nothing. `here`: all networks that were trained alike, the
    smaller ones without exits among them.
    """
    rows: list[dict[str, Any]] = []
    ours = {task: saved(found[task].methods, task) for task in found}
    again = {task: redrawn(found[task].methods, task) for task in found}
    references = {task: rereferenced(found[task].methods, task) for task in found}
    real = not any(results.stand_in for results in found.values())
    for (label, how), way in WAYS.items():
        if way[0] == "paper's baseline" and not real:
            continue  # no figure of the paper's stands beside stand-in data
        by_task = {task: values[way] for task, values in ours.items()}
        other = {task: draws[way] for task, draws in again.items() if draws}
        trainings = [ways[way] for ways in references.values() if ways]
        rows.append(_row(label, how, by_task, other, trainings))
        if way == ("own baseline", "validation"):
            missed = f"{how}; a miss saves nothing"
            rows.append(_row(label, missed, _or_nothing(by_task), _or_nothing(other), trainings))
    if real:
        released = {task: _released(task) for task in found}
        rows.append(_row("the paper's baseline", "paper protocol, the authors' weights", released))
        printed = paper()["headline"]
        rows.append({"below": "the paper's baseline", "threshold": "as the paper prints"} | printed["reduction"])
        rows[-1]["mean"] = printed["mean_reduction"]
    for split, how in SMALLER.items():
        row: dict[str, Any] = {"below": "our baseline", "threshold": f"no exit: a smaller network, {how}"}
        rows.append(row | _smaller(here, split))
    return pd.DataFrame(rows)


def _smaller(here: Mapping[str, beyond.Benchmark], split: str) -> dict[str, float]:
    """What the smaller networks that none beats save, a task each, and their mean.

    On validation the row of `trecx.analysis.beyond.savings`; without its interval where the size is chosen on test.
    """
    if split == "test":
        ladders = {task: {one.label: one.records for one in of.ladder[1:]} for task, of in here.items()}
        less = {task: static_saving(of.baseline, ladders[task], split=split).saved for task, of in here.items()}
        return less | {"mean": float(np.mean([*less.values()]))}
    lines = {task: beyond.static_saving(of, 1) for task, of in here.items()}
    known = [line for line in lines.values() if line]
    mean = Interval(np.nan, np.nan, np.nan)
    if len(known) == len(lines):
        mean = beyond.mean_saving(known)
    row = {task: float(line.saved.mean()) if line else np.nan for task, line in lines.items()}
    return row | {"mean": mean.estimate, "low": mean.low, "high": mean.high}


def _or_nothing(by_task: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {task: np.nan_to_num(values) for task, values in by_task.items()}


def _row(
    label: str,
    how: str,
    by_task: Mapping[str, np.ndarray],
    other: Mapping[str, np.ndarray] | None = None,
    references: Sequence[Jackknife] = (),
) -> dict[str, Any]:
    """Means by task and over tasks; NaN where there are no runs or one of them is NaN.

    `other`: task -> the same on other samples (draws, seeds). A draw in which a seed misses the accuracy does not count
    towards their variance. `references`: that of the trainings of what each task is measured against.
    """
    means = {task: float(np.mean(values)) if len(values) else float("nan") for task, values in by_task.items()}
    mean = Interval(float("nan"), float("nan"), float("nan"))
    if np.isfinite([*means.values()]).all():
        known = [float(np.nanvar(draws.mean(1))) for draws in (other or {}).values()]
        mean = mean_of_means([*by_task.values()], known=known, references=references)
    return {"below": label, "threshold": how} | means | {"mean": mean.estimate, "low": mean.low, "high": mean.high}


def _released(task: str) -> np.ndarray:
    """The same of the authors' released weights: one value, or none where they released no T-RecX."""
    record = reference.beside(task).get("trecx_ev")
    if record is None:
        return np.empty(0)
    rows = reference.released_points(record)
    at = (rows["reference"] == "paper's baseline") & (rows["protocol"] == "paper") & (rows["drop"] == 1)
    return 100 * rows.loc[at, "reduction"].to_numpy(dtype=float)


def static(found: Found, unit: str = "flops") -> pd.DataFrame:
    """Smaller networks without exits against T-RecX at their cost, every task: `trecx.analysis.benchmark.static`."""
    frames = []
    for task, runs in found.items():
        if runs.methods.get("trecx_ev") and runs.static:
            frame = benchmark.static(runs, unit)
            frame.insert(0, "task", task)
            frames.append(frame.drop(columns="method"))
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def names(found: Found) -> dict[str, str]:
    """What the benchmarks are called: by their data sets, and by their tasks on stand-in data."""
    return {task: TASKS[task].title if runs.stand_in else TASKS[task].full_title for task, runs in found.items()}


def findings(found: Found) -> list[Finding]:
    """The twelve claims on all data together; the placement claim on DS-CNN, one more class on ResNet-8."""
    groups = {task: runs.groups for task, runs in found.items() if runs.methods}
    places = found["kws"].places.get("trecx_ev", {})
    real = not any(results.stand_in for results in found.values())
    material = Material(groups, places, found["ic"].extra_class, reasons=WHY_NOT if real else {})
    return [finding.renamed(names(found)) for finding in find_claims(material)]


def claims(found: Found, unit: str = "flops") -> pd.DataFrame:
    """The same as a table, with the evidence in words."""
    return as_table(findings(found))


def runs(found: Found, unit: str = "flops") -> pd.DataFrame:
    """Every network of the three sweeps: columns of `trecx.analysis.benchmark.runs`, and the task."""
    frames = []
    for task, part in found.items():
        if part.records:
            frame = benchmark.runs(part)
            frame.insert(0, "task", task)
            frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def intervals(found: Found, unit: str = "flops", resamples: int = 500) -> pd.DataFrame:
    """What T-RecX saves one point below two references, bootstrapped over the samples of validation and test.

    First seed, percent. 'fixed': the threshold as it was chosen; 're-chosen': each resample of the validation set
    chooses its own. A resample that does not reach the accuracy counts as the worst outcome; 'reached' is the share of
    the others.
    """
    rows = []
    for task, results in found.items():
        record, base = results.methods["trecx_ev"][0], results.methods["baseline"]
        cost = float(base[0].manifest["cost"][unit][-1])
        wanted = float(np.mean([r.accuracies("val")[-1] for r in base])) - 0.01
        for name, target in (("own baseline", wanted), ("own final exit", None)):

            def choose(
                val: Trace | None, test: Trace, target: float | None = target, cost: float = cost
            ) -> OperatingPoint:
                assert val is not None
                asked = val.final_accuracy - 0.01 if target is None else target
                return chosen_point(val, test, asked, baseline_cost=cost)

            traces = record.trace(unit=unit), record.trace("val", unit=unit)
            summary = bootstrap_points(traces[0], choose, traces[1], resamples=resamples).summary()
            for row in summary[summary["quantity"] == "reduction"].to_dict("records"):
                values = {key: 100 * row[name] for key, name in INTERVAL.items()}
                rows.append({"task": task, "reference": name, "threshold": row["threshold"]} | values)
    return pd.DataFrame(rows)


INTERVAL = {"saved": "estimate", "low": "low", "high": "high", "reached": "reached"}  # column -> of a bootstrap


def rules(found: Found, unit: str = "flops") -> pd.DataFrame:
    """What the verdict 'reproduced' asks for."""
    return pd.DataFrame(RULES.items(), columns=["claim", "reproduced asks for"])


def rivals(found: Found, unit: str = "flops") -> pd.DataFrame:
    """T-RecX against each rival: share of the common costs at which it is ahead, gain of the final exit, parameters."""
    rows = []
    for task, results in found.items():
        ours = results.methods["trecx_ev"]
        for rival in (r for r in RIVALS if r in results.methods):
            theirs = results.methods[rival]
            gain = difference(ours, theirs)
            sizes = [records[0].manifest["cost"]["params"] for records in (ours, theirs)]
            row: dict[str, Any] = {"task": task, "rival": label_of(rival)}
            row["T-RecX ahead"] = 100 * dominance(ours, theirs)
            row |= {"final exit": gain.estimate, "95 % interval": shown(gain).split(" ", 1)[1]}
            rows.append(row | {"parameters": 100 * (1 - sizes[0] / sizes[1])})
    return pd.DataFrame(rows)


def scores(found: Found, unit: str = "flops") -> pd.DataFrame:
    """Accuracy and cost saved two points below our baseline under three measures of confidence, from validation."""
    rows = []
    for task, results in found.items():
        val, test = (np.mean([r.accuracies(s)[-1] for r in results.methods["baseline"]]) for s in ("val", "test"))
        base = results.methods["baseline"][0].manifest["cost"][unit][-1]
        for method in ("trecx_ev", "branchynet_fair"):
            for score, name in SCORES.items():
                at = [
                    chosen_point(
                        record.trace("val", score=score, unit=unit),
                        record.trace(score=score, unit=unit),
                        float(val) - 0.02,
                        float(test) - 0.02,
                        base,
                    )
                    for record in results.methods[method]
                ]
                row: dict[str, Any] = {"task": task, "method": label_of(method), "confidence": name}
                row |= {"accuracy": 100 * float(np.mean([point.accuracy for point in at]))}  # NaN where one misses
                rows.append(row | {"reduction": 100 * float(np.mean([point.reduction for point in at]))})
    return pd.DataFrame(rows)
