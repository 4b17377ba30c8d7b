"""The tables of the full-scale chapters, each from published records alone; `python -m trecx results` prints them."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pandas as pd

from trecx import reference, tables
from trecx.claims import CONCAT_ALIKE, Material, claims_table
from trecx.compare import against_static, difference, differences
from trecx.errors import TrecxError
from trecx.experiments import Published, published
from trecx.records import Record

DROPS = (0, 1, 2, 3)  # percentage points below the reference accuracy

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
    ("trecx_stride_first", "trecx_no_ev"),
    ("trecx_stride_first", "trecx_ev"),
    ("trecx_ev", "branchynet"),
    ("trecx_ev", "branchynet_fair"),
    ("trecx_ev", "sdn"),
    ("trecx_ev", "sdn_fair"),
    ("trecx_ev", "baseline_ee"),
)


def task_of(found: Published) -> str:
    """The task that the records are of."""
    return found.records[0].manifest["run"]["task"]


def runs(found: Published) -> pd.DataFrame:
    """The networks, how often each was trained, what they cost, and the minutes that a training took."""
    frozen = {f"{method}, heads alone": records for method, records in found.frozen.items()}
    return tables.trainings({**found.groups, **frozen}, found.static)


def standalone(found: Published) -> pd.DataFrame:
    """Test accuracy of every exit alone, beside the paper's and the authors' weights: the rows of Table 2."""
    task = task_of(found)
    return tables.standalone(found.groups, task, with_paper=True, authors=reference.beside(task), pool_samples=True)


def table_1(found: Published) -> pd.DataFrame:
    """The row of Table 1, beside the paper's and the authors' weights."""
    task = task_of(found)
    return tables.table_1(found.methods, task, authors=reference.table_1(task))


def points(found: Published, unit: str = "flops") -> pd.DataFrame:
    """Operating points of every method and seed, see `trecx.tables.points`."""
    return tables.points(
        found.groups, task_of(found), found.methods["baseline"], with_paper=True, drops=DROPS, unit=unit
    )


def savings(found: Published, unit: str = "flops") -> pd.DataFrame:
    """What every method saves below our own baseline, the paper's baseline, and its own final exit."""
    return tables.savings(points(found, unit), ["own baseline", "paper's baseline", "own final exit"])


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


def one_more_class(found: Published) -> pd.DataFrame:
    """Accuracy that T-RecX loses to an additional class which no sample has (C11), in points, paired."""
    rows: list[dict[str, Any]] = []
    for k, place in enumerate(("early", "final") if found.extra_class else ()):
        lost = difference(found.methods["trecx_ev"], found.extra_class, k)
        rows.append({"exit": place, "accuracy lost": lost.estimate, "low": lost.low, "high": lost.high})
        rows[-1]["seeds"] = len(found.extra_class)
    return pd.DataFrame(rows)


def claims(found: Published, **material: Any) -> pd.DataFrame:
    """The paper's claims about this task, our verdicts, and the numbers behind them; more `Material` may be given."""
    task = task_of(found)
    placement = found.places.get("trecx_ev", {}) if task == "kws" else {}  # claim C10 is about DS-CNN
    return claims_table(Material({task: found.groups}, placement, found.extra_class, **material))


TABLES: dict[str, Callable[[Published], pd.DataFrame]] = {
    "runs": runs,
    "standalone": standalone,
    "table-1": table_1,
    "savings": savings,
    "differences": paired,
    "static": static,
    "loss-weight": loss_weight,
    "placement": placement,
    "one-more-class": one_more_class,
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
