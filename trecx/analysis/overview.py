"""Saving against accuracy lost, benchmark by benchmark: the rows behind the book's first figure."""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from trecx.analysis import beyond
from trecx.analysis.saving import saving
from trecx.analysis.tables import Group, method_points
from trecx.analysis.together import names
from trecx.analysis.wording import sizes_in_words
from trecx.evaluation.points import at
from trecx.evaluation.trace import benefit_curve
from trecx.experiments.records import Record, mean_accuracy
from trecx.experiments.results import Results
from trecx.models.methods import label_of
from trecx.paper import paper

METHODS = ("trecx_ev",)  # whose benefit curves are drawn; those that a benchmark lacks are passed over
SMALLER = "smaller network"
PRINTED = "T-RecX, the paper"
COLUMNS = ["benchmark", "series", "kind", "lost", "saved", "low", "high"]


def savings(
    found: Mapping[str, Results],
    here: Mapping[str, beyond.Benchmark],
    methods: Sequence[str] = METHODS,
    best: pd.DataFrame | None = None,
) -> pd.DataFrame:
    """What is saved for the accuracy that is lost, below our own baseline's mean, on test.

    Columns: benchmark; series (a method's name, `SMALLER`, `PRINTED` or the name of a network); kind ('curve': the
    benefit curve, a row a cost; 'chosen': one point given up on validation; 'network': trained as it is; 'printed': by
    the paper, below its own baseline; 'beyond': the best of all other ways, chosen on validation); lost (points); saved
    (percent of the unmodified network's FLOPs) with the ends of the 95 % interval of a point that is chosen. A seed
    that misses the accuracy counts there as the unmodified network.

    here: all networks that were trained alike, whose best ones without exits are the smaller networks.
    best: rows of `trecx.analysis.beyond.savings`, of which the chosen ones one point below the baseline are taken.
    """
    rows = []
    for task, name in names(found).items():
        results = found[task]
        groups, base = results.methods, results.methods["baseline"]
        full, accuracy = base[0].cost()[-1], 100 * mean_accuracy(base)
        if not results.stand_in:
            printed = paper()["table_1"][task]
            for drop, cost in printed["trecx"]["mflops_at_drop"].items():
                less = 100 * (1 - cost / printed["baseline"]["mflops"])
                rows.append([name, PRINTED, "printed", float(drop), less, np.nan, np.nan])
        for records in [one.records for one in here[task].ladder[1:]]:
            lost = accuracy - 100 * mean_accuracy(records)
            rows.append([name, SMALLER, "network", lost, 100 * (1 - records[0].cost()[-1] / full), np.nan, np.nan])
        for method in (m for m in methods if groups.get(m)):
            for lost, saved in _curve(groups[method], accuracy, full):
                rows.append([name, method, "curve", lost, saved, np.nan, np.nan])
            chosen = saving(groups, 1, method)
            rows.append([name, method, "chosen", _given_up(groups, task, method, accuracy), *chosen.interval])
        if best is not None and task in (ours := beyond.chosen(best)).index:
            row = ours.loc[task]
            network = sizes_in_words(str(row["network"]))
            rows.append([name, network, "beyond", *row[["given up", "saved", "low", "high"]]])
    return pd.DataFrame(rows, columns=COLUMNS)


def label(series: str) -> str:
    """What a series is called in the figure."""
    return series if series in (SMALLER, PRINTED) else label_of(series)


def _curve(records: Sequence[Record], accuracy: float, full: float) -> list[tuple[float, float]]:
    """Points lost and percent saved along the mean benefit curve."""
    curves = [benefit_curve(record.trace()) for record in records]
    cost = np.linspace(records[0].cost()[0], records[0].cost()[-1], 60)
    mean = np.mean([np.interp(cost, curve.cost[::-1], curve.accuracy[::-1]) for curve in curves], axis=0)
    return [(accuracy - 100 * y, 100 * (1 - x / full)) for x, y in zip(cost, mean, strict=True)]


def _given_up(groups: Group, task: str, method: str, accuracy: float) -> float:
    """Points really lost on test where one is given up on validation; none by a seed that misses it."""
    frame = method_points({method: groups[method]}, task, groups["baseline"], with_paper=False, drops=(1,))
    kept = at(frame)["accuracy"].astype(float)
    return float((accuracy - 100 * kept).fillna(0).mean())
