"""The tables of the full-scale chapters, each from published records alone; `python -m trecx results` prints them."""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from trecx.analysis import tables
from trecx.analysis.claims import CONCAT_ALIKE, Material, claims_table
from trecx.analysis.compare import against_static, difference, differences, place_differences, place_savings
from trecx.analysis.compare import settled as can_be_settled
from trecx.analysis.tables import calibration
from trecx.errors import TrecxError
from trecx.experiments import reference, robustness
from trecx.experiments.records import Record, chosen_thresholds
from trecx.experiments.results import Published, published
from trecx.models import methods
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

# Whose confidence is looked at.
CALIBRATED = ("baseline", "trecx_ev", "trecx_no_ev", "trecx_no_transfer", "baseline_ee", "sdn_fair")


def task_of(found: Published) -> str:
    """The task that the records are of."""
    return found.records[0].manifest["run"]["task"]


def with_paper(found: Published) -> bool:
    """Whether the paper's accuracies may stand beside a sweep's."""
    return found.sweep not in APART


def runs(found: Published) -> pd.DataFrame:
    """The networks, how often each was trained, what they cost (and in the paper), and the minutes of a training."""
    alone = {f"{method}, heads alone": records for method, records in found.frozen.items()}
    return tables.trainings({**found.groups, **alone}, found.static, task_of(found))


def standalone(found: Published, authors: Mapping[str, Record] | None = None) -> pd.DataFrame:
    """Test accuracy of every exit alone, beside the paper's and the authors' weights: the rows of Table 2.

    `authors`: method -> record of released weights, the published ones by default.
    """
    task = task_of(found)
    if not with_paper(found):
        return tables.standalone(found.groups, task, with_paper=False, pool_samples=True)
    authors = reference.beside(task) if authors is None else authors
    return tables.standalone(found.groups, task, with_paper=True, authors=authors, pool_samples=True)


def frozen(found: Published) -> pd.DataFrame:
    """The same for heads trained alone."""
    return tables.standalone(found.frozen, task_of(found), with_paper=False, pool_samples=True)


def frozen_savings(found: Published, unit: str = "flops") -> pd.DataFrame:
    """What heads trained alone save below the mean accuracy of our own baseline, the network trained as a whole."""
    if not found.frozen:
        return pd.DataFrame()
    return tables.savings(frozen_points(found, unit), ["own baseline"]).drop(columns="reference")


def frozen_points(found: Published, unit: str = "flops") -> pd.DataFrame:
    """Operating points of heads trained alone, see `trecx.analysis.tables.points`."""
    options: dict[str, Any] = {"with_paper": False, "drops": (1, 2, 3), "unit": unit}
    return tables.points(found.frozen, task_of(found), found.methods["baseline"], **options)


def table_1(found: Published) -> pd.DataFrame:
    """The row of Table 1, beside the paper's and the authors' weights."""
    if not with_paper(found):
        raise TrecxError(f"sweep {found.sweep} has other training data than the paper, so it has no row in Table 1")
    task = task_of(found)
    return tables.table_1(found.methods, task, authors=reference.table_1(task))


def points(found: Published, unit: str = "flops") -> pd.DataFrame:
    """Operating points of every method and seed, see `trecx.analysis.tables.points`."""
    options: dict[str, Any] = {"with_paper": with_paper(found), "drops": DROPS, "unit": unit}
    return tables.points(found.groups, task_of(found), found.methods["baseline"], **options)


def savings(found: Published, unit: str = "flops") -> pd.DataFrame:
    """What every method saves below our own baseline, the paper's baseline if it applies, and its own final exit."""
    references = ["own baseline", *["paper's baseline"] * with_paper(found), "own final exit"]
    return tables.savings(points(found, unit), references)


def paired(found: Published) -> pd.DataFrame:
    """Paired differences in test accuracy."""
    return differences(found.groups, PAIRS)


def static(found: Published, unit: str = "flops", method: str = "trecx_ev") -> pd.DataFrame:
    """Smaller networks without exits against T-RecX, or another method, at their cost."""
    return against_static(found.methods[method], found.static, unit)


def loss_weight(found: Published) -> pd.DataFrame:
    """Accuracy of both exits by the loss weight w: on validation, where w is chosen, and on test; one seed."""
    return tables.loss_weights(found.weights)


def placement(found: Published, unit: str = "flops") -> pd.DataFrame:
    """Early and final accuracy by the place of the exit, and what is saved one point below our own baseline.

    The saving has its 95 % interval over seeds; its threshold is chosen on validation.
    """
    frame = tables.places(found.places, unit)
    at = tables.place_points(found.places, task_of(found), found.methods["baseline"])
    for name, column in (("saved at -1 point", "reduction"), ("low", "low"), ("high", "high")):
        frame.insert(len(frame.columns) - 1, name, 100 * at[column].to_numpy(dtype=float))
    return frame


def placement_differences(found: Published) -> pd.DataFrame:
    """A later place of the exit minus an earlier one, accuracy of both exits, paired."""
    return place_differences({method: taps for method, taps in found.places.items() if len(taps) > 1})


def placement_savings(found: Published, unit: str = "flops") -> pd.DataFrame:
    """What an earlier place of the exit saves more than a later one, one point below our own baseline, paired."""
    return place_savings(found.places, task_of(found), found.methods["baseline"], unit)


def settled(found: Published) -> pd.DataFrame:
    """Which of the paper's differences these runs could tell from none."""
    return can_be_settled(found.methods, task_of(found))


def one_more_class(found: Published) -> pd.DataFrame:
    """Accuracy that T-RecX loses to an additional class which no sample has (C11), in points, paired."""
    rows: list[dict[str, Any]] = []
    for k, place in enumerate(("early", "final") if found.extra_class else ()):
        lost = difference(found.methods["trecx_ev"], found.extra_class, k)
        rows.append({"exit": place, "accuracy lost": lost.estimate, "low": lost.low, "high": lost.high})
        rows[-1]["seeds"] = len(found.extra_class)
    return pd.DataFrame(rows)


def confusion(found: Published, method: str = "trecx_ev") -> pd.DataFrame:
    """Wrong answers of a two-class task by class and exit, threshold one point below our own baseline."""
    if task_of(found) != "vww":
        raise TrecxError("mistakes are sorted by class and exit for visual wake words only, which has two classes")
    records = found.methods[method]
    return tables.confusion(records, chosen_thresholds(records, found.methods["baseline"]))


def classes(found: Published) -> pd.DataFrame:
    """T-RecX class by class, threshold one point below our own baseline; empty where a seed has no such threshold."""
    records = found.methods["trecx_ev"]
    thresholds = chosen_thresholds(records, found.methods.get("baseline", []))
    if np.isnan(thresholds).any():
        return pd.DataFrame()
    return tables.by_class(records, thresholds, TASKS[task_of(found)].classes)


def calibrated(found: Published) -> pd.DataFrame:
    """Calibration of each exit before and after the temperature that was fitted on validation; mean over seeds."""
    frames = []
    for method in (m for m in CALIBRATED if found.methods.get(m)):
        frame = calibration(found.methods[method])
        frame.insert(0, "method", methods.label_of(method))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def in_noise(found: Published) -> pd.DataFrame:
    """Accuracy, exit rate and trust under every condition of `trecx.experiments.robustness`; mean over seeds."""
    frames = []
    for method, records in heard(found).items():
        frame = robustness.summary(records)
        frame.insert(0, "method", methods.label_of(method))
        frame.insert(1, "seeds", len(records))
        frames.append(frame)
    return pd.concat(frames, ignore_index=True) if frames else pd.DataFrame()


def heard(found: Published) -> dict[str, list[robustness.RobustnessRecord]]:
    """Method -> published results in noise, of the methods that have any."""
    results = {m: robustness.published(found.methods.get(m, [])) for m in ("trecx_ev", "trecx_no_ev", "baseline")}
    return {method: records for method, records in results.items() if records}


def claims(found: Published) -> pd.DataFrame:
    """The paper's claims about this task, our verdicts, and the numbers behind them."""
    task = task_of(found)
    placement = found.places.get("trecx_ev", {}) if task == "kws" else {}  # claim C10 is about DS-CNN
    return claims_table(Material({task: found.groups}, placement, found.extra_class, **MATERIAL.get(found.sweep, {})))


TABLES: dict[str, Callable[[Published], pd.DataFrame]] = {
    "runs": runs,
    "standalone": standalone,
    "frozen": frozen,
    "frozen-savings": frozen_savings,
    "table-1": table_1,
    "savings": savings,
    "differences": paired,
    "static": static,
    "loss-weight": loss_weight,
    "placement": placement,
    "placement-differences": placement_differences,
    "placement-savings": placement_savings,
    "one-more-class": one_more_class,
    "confusion": confusion,
    "classes": classes,
    "calibration": calibrated,
    "robustness": in_noise,
    "settled": settled,
    "claims": claims,
}


def _released(column: Callable[[Record], pd.DataFrame]) -> pd.DataFrame:
    frames = []
    for record in reference.published():
        frame = column(record)
        for key in ("method", "task"):
            frame.insert(0, key, record.manifest["run"][key])
        frames.append(frame)
    return pd.concat([frame for frame in frames if len(frame)], ignore_index=True)


def _released_accuracies(record: Record) -> pd.DataFrame:
    cost = record.manifest["cost"]["flops"]
    exits = [*map(str, range(1, len(cost))), "final"]
    return pd.DataFrame({"exit": exits, "MFLOPs": np.array(cost) / 1e6, "accuracy": 100 * record.accuracies()})


REFERENCE_TABLES: dict[str, Callable[[], pd.DataFrame]] = {
    "standalone": partial(_released, _released_accuracies),
    "points": lambda: tables.readable(_released(reference.points)),  # type: ignore[arg-type]
}


def table(results: str, name: str) -> pd.DataFrame:
    """One table of a sweep's published records, or of the authors' weights (`reference`).

    Raises:
        TrecxError: unknown results or table, nothing published, or nothing in it.
    """
    if results == reference.GROUP:
        if name not in REFERENCE_TABLES:
            raise TrecxError(f"unknown table {name!r}: choose one of {', '.join(REFERENCE_TABLES)}")
        return REFERENCE_TABLES[name]()
    if name not in TABLES:
        raise TrecxError(f"unknown table {name!r}: choose one of {', '.join(TABLES)}")
    try:
        frame = TABLES[name](found := published(results))
    except KeyError as error:
        raise TrecxError(f"table {name} needs records of {error}, which sweep {results} has not published") from error
    if frame.empty:
        raise TrecxError(f"table {name} is empty: {len(found.missing)} runs of sweep {results} are not published yet")
    return frame
