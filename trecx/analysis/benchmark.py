"""The tables of one benchmark, each from a sweep's results; costs in the unit asked for, `flops` or `macs`."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import pandas as pd

from trecx.analysis import tables
from trecx.analysis.claims import CONCAT_ALIKE, ON_COUNTS, Material, as_table, find_claims
from trecx.analysis.compare import (
    TOO_FEW,
    against_static,
    difference,
    differences,
    place_differences,
    place_savings,
)
from trecx.analysis.compare import settled as can_be_settled
from trecx.analysis.findings import Finding
from trecx.errors import TrecxError
from trecx.evaluation.points import oracle
from trecx.experiments import reference, robustness
from trecx.experiments.records import Record, chosen_thresholds
from trecx.experiments.results import Results, published
from trecx.models.methods import label_of
from trecx.tasks import TASKS

DROPS = (0, 1, 2, 3)  # percentage points below the reference accuracy

# Sweeps on other training data than the paper's: no figure of its, and no released weights, stand beside their runs.
APART = frozenset({"vww96_scratch"})
# What claims are judged on besides a sweep's runs, see `trecx.analysis.claims.Material`.
MATERIAL: dict[str, dict[str, Any]] = {
    "vww96_finetune": {
        "carried_over": True,
        "reasons": {"C2": {"vww": "the accuracy comes with the weights that these runs start from"}},
    },
    "vww96_scratch": {
        "carried_over": True,
        "reasons": {"C2": {"vww": "trained on a small part of the official images"}},
    },
}

# Sweep -> the one that trains the same networks for more epochs.
LONGER = {"cifar10": "cifar10_long"}

# Which differences are asked for: the paper's claims first, then the controls.
PAIRS = (
    ("trecx_ev", "baseline"),
    ("trecx_no_ev", "baseline"),
    ("trecx_ev", "trecx_no_ev"),
    ("trecx_ev", "trecx_no_transfer"),
    ("trecx_no_transfer", "trecx_no_ev"),
    ("trecx_ev", "trecx_concat"),
    ("trecx_ev", CONCAT_ALIKE),
    (CONCAT_ALIKE, "trecx_no_transfer"),
    ("trecx_concat", CONCAT_ALIKE),
    ("trecx_stride_first", "trecx_no_ev"),
    ("trecx_stride_first", "trecx_ev"),
    ("trecx_ev", "branchynet"),
    ("trecx_ev", "branchynet_fair"),
    ("trecx_ev", "sdn"),
    ("trecx_ev", "sdn_fair"),
    ("trecx_ev", "baseline_ee"),
)

# Field of an oracle -> column.
ORACLE = {
    "both": "both",
    "only_early": "only early",
    "only_final": "only final",
    "none": "none",
    "accuracy": "oracle accuracy",
}

# Whose confidence is looked at.
CALIBRATED = ("baseline", "trecx_ev", "trecx_no_ev", "trecx_no_transfer", "baseline_ee", "sdn_fair")


def with_paper(found: Results) -> bool:
    """Whether the paper's accuracies may stand beside a sweep's."""
    return not (found.stand_in or found.sweep in APART)


def runs(found: Results, unit: str = "flops") -> pd.DataFrame:
    """The networks, how often each was trained, what they cost (and in the paper), and the minutes of a training."""
    alone = {f"{method}, heads alone": records for method, records in found.frozen.items()}
    return tables.trainings({**found.groups, **alone}, found.static, found.task)


def standalone(found: Results, unit: str = "flops") -> pd.DataFrame:
    """Test accuracy of every exit alone, beside the paper's and the authors' weights: the rows of Table 2."""
    return standalone_of(found, found.groups)


def standalone_of(found: Results, groups: Mapping[str, list[Record]]) -> pd.DataFrame:
    """The same of some of the networks."""
    beside = with_paper(found)
    authors = reference.beside(found.task) if beside else None
    return tables.standalone(groups, found.task, with_paper=beside, authors=authors, pool_samples=True)


def frozen(found: Results, unit: str = "flops") -> pd.DataFrame:
    """The same for heads trained alone."""
    return tables.standalone(found.frozen, found.task, with_paper=False, pool_samples=True)


def frozen_savings(found: Results, unit: str = "flops") -> pd.DataFrame:
    """What heads trained alone save below the mean accuracy of our own baseline, the network trained as a whole."""
    if not found.frozen:
        return pd.DataFrame()
    return tables.savings(frozen_points(found, unit), ["own baseline"]).drop(columns="reference")


def frozen_points(found: Results, unit: str = "flops") -> pd.DataFrame:
    """Operating points of heads trained alone, see `trecx.analysis.tables.method_points`."""
    options: dict[str, Any] = {"with_paper": False, "drops": (1, 2, 3), "unit": unit}
    return tables.method_points(found.frozen, found.task, found.methods["baseline"], **options)


def table_1(found: Results, unit: str = "flops") -> pd.DataFrame:
    """The row of Table 1, beside the paper's and the authors' weights."""
    if found.sweep in APART:
        raise TrecxError(f"sweep {found.sweep} has other training data than the paper, so it has no row in Table 1")
    return tables.baseline_and_trecx(
        found.methods, found.task, authors=reference.released_row(found.task) if with_paper(found) else None
    )


def points(found: Results, unit: str = "flops") -> pd.DataFrame:
    """Operating points of every method and seed, see `trecx.analysis.tables.method_points`."""
    options: dict[str, Any] = {"with_paper": with_paper(found), "drops": DROPS, "unit": unit}
    return tables.method_points(found.groups, found.task, found.methods["baseline"], **options)


def all_savings(found: Results, unit: str = "flops") -> pd.DataFrame:
    """What every method saves below our own baseline, the paper's baseline if it applies, and its own final exit."""
    references = ["own baseline", *["paper's baseline"] * with_paper(found), "own final exit"]
    return tables.savings(points(found, unit), references)


def savings(found: Results, unit: str = "flops") -> pd.DataFrame:
    """What every method saves below our own baseline."""
    frame = all_savings(found, unit)
    return frame[frame["reference"] == "own baseline"].drop(columns="reference")


def savings_others(found: Results, unit: str = "flops") -> pd.DataFrame:
    """The same one point below the other references."""
    frame = all_savings(found, unit)
    return frame[(frame["reference"] != "own baseline") & (frame["drop"] == 1)].drop(columns="drop")


def paired(found: Results, unit: str = "flops") -> pd.DataFrame:
    """Paired differences in test accuracy."""
    return differences(found.groups, PAIRS)


def static(found: Results, unit: str = "flops", methods: Sequence[str] = ("trecx_ev",)) -> pd.DataFrame:
    """Smaller networks without exits against T-RecX, or other methods, at their cost."""
    frames = []
    for method in methods:
        frame = against_static(found.methods[method], found.static, unit)
        frame.insert(0, "method", label_of(method))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True)


def loss_weight(found: Results, unit: str = "flops") -> pd.DataFrame:
    """Accuracy of both exits by the loss weight w: on validation, where w is chosen, and on test; one seed."""
    return tables.loss_weights(found.weights)


def placement(found: Results, unit: str = "flops") -> pd.DataFrame:
    """Early and final accuracy by the place of the exit, and what is saved one point below our own baseline.

    The saving has its 95 % interval over seeds; its threshold is chosen on validation.
    """
    frame = tables.places(found.places, unit)
    at = tables.place_points(found.places, found.task, found.methods["baseline"])
    for name, column in (("saved at -1 point", "reduction"), ("low", "low"), ("high", "high")):
        frame.insert(len(frame.columns) - 1, name, 100 * at[column].to_numpy(dtype=float))
    return frame


def placement_differences(found: Results, unit: str = "flops") -> pd.DataFrame:
    """A later place of the exit minus an earlier one, accuracy of both exits, paired."""
    return place_differences({method: taps for method, taps in found.places.items() if len(taps) > 1})


def placement_savings(found: Results, unit: str = "flops") -> pd.DataFrame:
    """What an earlier place of the exit saves more than a later one, one point below our own baseline, paired."""
    return place_savings(found.places, found.task, found.methods["baseline"], unit)


def settled(found: Results, unit: str = "flops") -> pd.DataFrame:
    """Which of the paper's differences these runs could tell from none."""
    return can_be_settled(found.methods, found.task)


def one_more_class(found: Results, unit: str = "flops") -> pd.DataFrame:
    """Accuracy that T-RecX loses to an additional class which no sample has (C11), in points, paired."""
    rows: list[dict[str, Any]] = []
    for k, place in enumerate(("early", "final") if found.extra_class else ()):
        lost = difference(found.methods["trecx_ev"], found.extra_class, k)
        rows.append({"exit": place, "accuracy lost": lost.estimate, "low": lost.low, "high": lost.high})
        rows[-1]["seeds"] = len(found.extra_class)
    return pd.DataFrame(rows)


def confusion(found: Results, unit: str = "flops", method: str = "trecx_ev") -> pd.DataFrame:
    """Wrong answers of a two-class task by class and exit, threshold one point below our own baseline."""
    if found.task != "vww":
        raise TrecxError("mistakes are sorted by class and exit for visual wake words only, which has two classes")
    records = found.methods[method]
    return tables.confusion(records, chosen_thresholds(records, found.methods["baseline"]))


def classes(found: Results, unit: str = "flops") -> pd.DataFrame:
    """T-RecX class by class, threshold one point below our own baseline; empty where a seed has no such threshold."""
    records = found.methods["trecx_ev"]
    thresholds = chosen_thresholds(records, found.methods.get("baseline", []))
    if np.isnan(thresholds).any():
        return pd.DataFrame()
    return tables.by_class(records, thresholds, TASKS[found.task].classes)


def calibrated(found: Results, unit: str = "flops") -> pd.DataFrame:
    """Calibration of each exit before and after the temperature that was fitted on validation; mean over seeds."""
    frames = []
    for method in (m for m in CALIBRATED if found.methods.get(m)):
        frame = tables.calibration(found.methods[method])
        frame.insert(0, "method", label_of(method))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def in_noise(found: Results, unit: str = "flops") -> pd.DataFrame:
    """Accuracy, exit rate and trust under every condition of `trecx.experiments.robustness`; mean over seeds."""
    frames = []
    for method, records in heard(found).items():
        frame = robustness.summary(records)
        frame.insert(0, "method", label_of(method))
        frame.insert(1, "seeds", len(records))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def heard(found: Results) -> dict[str, list[robustness.RobustnessRecord]]:
    """Method -> published results in noise, of the methods that have any."""
    results = {
        m: robustness.published_robustness(found.methods.get(m, [])) for m in ("trecx_ev", "trecx_no_ev", "baseline")
    }
    return {method: records for method, records in results.items() if records}


def findings(found: Results) -> list[Finding]:
    """The paper's claims about this task, our verdicts, and the numbers behind them."""
    task = found.task
    placement = found.places.get("trecx_ev", {}) if task == "kws" else {}  # claim C10 is about DS-CNN
    material = Material({task: found.groups}, placement, found.extra_class, **MATERIAL.get(found.sweep, {}))
    name = TASKS[task].title if found.stand_in else TASKS[task].full_title
    return [finding.renamed({task: name}) for finding in find_claims(material)]


def claims(found: Results, unit: str = "flops") -> pd.DataFrame:
    """The same as a table."""
    return as_table(findings(found))


def trained_longer(found: Results) -> tuple[dict[str, list[Record]], dict[str, list[Record]]]:
    """The networks and seeds that were trained for longer too: after as many epochs as here, and after more.

    Method -> records, a seed each, the same methods and seeds in both; empty where nothing was trained for longer.
    """
    if found.sweep not in LONGER:
        return {}, {}
    ways = (found.methods, published(LONGER[found.sweep]).methods)
    names = [name for name in ways[0] if name in ways[1]]
    seeds = set.intersection(*({r.seed for r in way[name]} for way in ways for name in names)) if names else set()
    here, more = ({name: [r for r in way[name] if r.seed in seeds] for name in names if seeds} for way in ways)
    return here, more


def longer(found: Results, unit: str = "flops") -> pd.DataFrame:
    """The numbers that claims are judged by, for `trained_longer` both ways.

    Columns: claim, measure, paper, epochs, seeds, value, unit, low, high, verdict ('one seed' or 'two seeds' where
    there are too few to judge by). Empty where nothing was trained for longer.
    """
    rows: list[dict[str, Any]] = []
    for group in trained_longer(found):
        for finding in find_claims(Material({found.task: group})) if group else ():
            records = next(iter(group.values()))
            for item in (item for item in finding.evidence if item.verdict and finding.claim not in ON_COUNTS):
                row = {"claim": finding.claim, "measure": item.measure, "paper": item.paper}
                row |= {"epochs": records[0].manifest["recipe"]["epochs"], "seeds": len(records)}
                row |= {"value": item.estimate, "unit": item.unit, "low": item.low, "high": item.high}
                rows.append(row | {"verdict": TOO_FEW.get(len(records), item.verdict)})
    frame = pd.DataFrame(rows)
    return frame if frame.empty else frame.sort_values(["claim", "measure"], kind="stable", ignore_index=True)


def gates(found: Results, unit: str = "flops") -> pd.DataFrame:
    """Which exits are right, and what an oracle gate would reach: percent of the test samples, means over seeds."""
    rows = []
    for method in (m for m in ("trecx_ev", "trecx_no_ev", "trecx_no_transfer") if m in found.methods):
        best = [oracle(record.trace(unit=unit)) for record in found.methods[method]]
        row: dict[str, Any] = {"method": label_of(method)}
        for key, name in ORACLE.items():
            row[name] = 100 * float(np.mean([getattr(o, key) for o in best]))
        rows.append(row | {"oracle cost": float(np.mean([o.cost for o in best])) / 1e6})
    return pd.DataFrame(rows)


def early_confidences(found: Results, unit: str = "flops") -> pd.DataFrame:
    """The confidences of Figure 5 in numbers: share of test samples in the range, mean and quartiles, all seeds."""
    rows = []
    for method in (m for m in ("trecx_ev", "trecx_no_ev", "baseline_ee") if m in found.methods):
        records = found.methods[method]
        kept, samples = tables.early_confidences(records), sum(len(r.predictions["test_labels"]) for r in records)
        row = {"method": label_of(method), "samples": 100 * len(kept) / samples, "mean": kept.mean()}
        rows.append(row | {"quartile 1": kept.quantile(0.25), "quartile 3": kept.quantile(0.75)})
    return pd.DataFrame(rows)
