"""Short texts for the running text of the chapters, from records.

A chapter says what surprised us in words; every number in it comes from here.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd

from trecx.analysis.claims import TOPICS
from trecx.analysis.compare import TOO_FEW, against_static, difference, dominance, shown
from trecx.analysis.tables import Group, cost_unit
from trecx.errors import TrecxError
from trecx.evaluation.points import at
from trecx.evaluation.stats import Interval
from trecx.experiments.records import Record, mean_accuracy
from trecx.experiments.results import Results


def effect(
    groups: Group,
    first: str,
    second: str,
    exit_index: int = -1,
    against: int | None = None,
    split: str = "test",
) -> str:
    """Accuracy of one method minus another's at one exit, in points: `+0.12 [-0.30, +0.54]`.

    `against` is the exit of the second method, the same as that of the first unless told; `split` is `test` or `val`.
    """
    return shown(difference(groups[first], groups[second], exit_index, against, split))


def accuracy(groups: Group, method: str, exit_index: int = -1) -> str:
    """Mean test accuracy of one exit: `94.32 %`."""
    return f"{100 * mean_accuracy(groups[method], exit_index):.2f} %"


def cost(groups: Group, method: str, exit_index: int = 0, unit: str = "flops") -> str:
    """Cost of leaving at one exit, the first unless told: `3.13 MFLOPs`."""
    return f"{groups[method][0].cost(unit)[exit_index] / 1e6:.2f} {cost_unit(unit)}"


def cheaper(groups: Group, method: str, than: str, exit_index: int = 0, unit: str = "flops") -> str:
    """How much less leaving one method at one exit costs than the whole of another: `27.9 %`."""
    ours, theirs = (groups[name][0].cost(unit) for name in (method, than))
    return f"{100 * (1 - ours[exit_index] / theirs[-1]):.1f} %"


def saves(
    points: pd.DataFrame,
    method: str,
    protocol: str = "validation",
    like: str = "",
    reference: str = "own baseline",
) -> str:
    """What a method saves one point below a reference, our own baseline unless told: `41.0 %`.

    Args:
        points: of every method and seed, as `trecx.analysis.tables.method_points`.
        method: a name in its column `method`.
        protocol: how the threshold is chosen, `validation` or `paper`.
        like: only the seeds that this other method has too.
        reference: a name in the column `reference`, such as `own final exit`.
    """
    rows = at(points, reference=reference, protocol=protocol)
    seeds = rows.loc[rows["method"] == (like or method), "seed"]
    rows = rows[(rows["method"] == method) & rows["seed"].isin(seeds)]
    if rows.empty:
        raise TrecxError(f"no operating point of {method} below {reference} under the protocol {protocol}")
    return f"{100 * rows['reduction'].mean():.1f} %" if rows["reached"].all() else "not in every training"


def lost(points: pd.DataFrame, method: str, baseline: Sequence[Record]) -> str:
    """Test accuracy that a method really gives up where it asks for one point on validation, in points: `1.36`."""
    rows = at(points)
    rows = rows[rows["method"] == method]
    if not rows["reached"].all():
        return "(not known: a seed misses)"
    return f"{100 * (mean_accuracy(baseline) - rows['accuracy'].astype(float).mean()):.2f}"


def at_cost_of(
    found: Results,
    network: str,
    method: str = "trecx_ev",
    unit: str = "flops",
    records: Sequence[Record] | None = None,
) -> str:
    """Accuracy of a method at the cost of a smaller network without exits, minus that network's, in points.

    `records` are compared in place of the method's where they are given. `out of reach` if these cannot be that cheap.
    Of one seed the interval is over samples alone, and says so.
    """
    ours = found.methods[method] if records is None else records
    gain = against_static(ours, {network: found.static[network]}, unit).iloc[0]
    if not np.isfinite(gain["gain"]):
        return "out of reach"
    return shown(Interval(*gain[["gain", "low", "high"]])) + (" (one training of it)" if gain["seeds"] == 1 else "")


def ahead(groups: Group, rival: str, method: str = "trecx_ev") -> str:
    """Share of the costs that both reach at which a method is at least as accurate as a rival: `63%`."""
    return f"{dominance(groups[method], groups[rival]):.0%}"


def longer(frame: pd.DataFrame) -> dict[str, str]:
    """What more epochs change, from rows of `trecx.analysis.benchmark.longer`: name -> text.

    `verdict` is a sentence on the verdicts. The others are numbers, for the longer trainings and with `-before` for the
    shorter: `epochs`, `baseline` and what T-RecX saves at one point below it, `saves`, in percent; `exit` and `ev` in
    points.
    """
    short, long = (rows.set_index("claim") for _, rows in frame.groupby("epochs"))
    epochs = [int(rows["epochs"].iloc[0]) for rows in (long, short)]
    trained = f"{epochs[0]} epochs in place of {epochs[1]}"
    if (few := str(long["verdict"].iloc[0])) in TOO_FEW.values():
        verdict = f"{few.capitalize()} had {trained}: too few for a verdict."
    else:
        changed = [
            f"{TOPICS[claim]} ({claim}) from {short.loc[claim, 'verdict']} to {long.loc[claim, 'verdict']}"
            for claim in long.index
            if short.loc[claim, "verdict"] != long.loc[claim, "verdict"]
        ]
        verdict = f"With {trained} {'verdicts change: ' + '; '.join(changed) if changed else 'no verdict changes'}."

    forms = {
        "baseline": ("C2", "{:.2f} %"),
        "saves": ("C4", "{:.1f} %"),
        "exit": ("C3", "{:+.2f}"),
        "ev": ("C6", "{:+.2f}"),
    }
    texts = {"verdict": verdict, "epochs": f"{epochs[0]}", "epochs-before": f"{epochs[1]}"}
    for name, (claim, form) in forms.items():
        texts[name] = form.format(long.loc[claim, "value"])
        texts[f"{name}-before"] = form.format(short.loc[claim, "value"])
    return texts
