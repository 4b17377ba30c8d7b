"""The paper's claims C1 to C12, each with a verdict and the numbers behind it.

A claim about accuracy can only be judged on the paper's own data: on stand-in data its verdict is 'not
testable here', and the evidence says what was seen there. Differences are paired (same seeds, same test
samples) and come with a 95 % bootstrap interval over both; 'reproduced' asks for the whole interval on the
paper's side on every task.
"""

from collections.abc import Mapping, Sequence

import numpy as np
import pandas as pd

from trecx.evaluate import benefit_curve
from trecx.int8 import quantise
from trecx.paper import paper
from trecx.records import Record
from trecx.stats import Interval, bootstrap_difference
from trecx.tables import Group, early_confidences, mean_points, points
from trecx.tasks import TASKS
from trecx.zoo import build

VERDICTS = ("reproduced", "partly", "not reproduced", "not testable here")


def difference(a: Sequence[Record], b: Sequence[Record], exit_index: int = -1) -> Interval:
    """Accuracy of `a` minus that of `b` at one exit, in points, with its 95 % interval over seeds and samples."""
    ours, theirs = (np.stack([record.trace().correct[:, exit_index] for record in records]) for records in (a, b))
    return Interval(*(100 * value for value in bootstrap_difference(ours, theirs)))


def judge(intervals: Sequence[Interval]) -> str:
    """'reproduced' if every difference is surely positive, 'not reproduced' if none is, else 'partly'."""
    sure = [interval.low > 0 for interval in intervals]
    return "reproduced" if all(sure) else "partly" if any(sure) else "not reproduced"


def shown(interval: Interval) -> str:
    """A difference as text."""
    return f"{interval.estimate:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def claims_table(
    results: Mapping[str, Group],
    placement: Mapping[str, Sequence[Record]],
    extra_class: Sequence[Record],
    costs: pd.DataFrame,
) -> pd.DataFrame:
    """One row a claim: what the paper says, the verdict, the evidence.

    Args:
        results: task -> method -> records, one a seed.
        placement: tap -> records of DS-CNN with its exit there (C10).
        extra_class: records of ResNet-8 T-RecX with one more class (C11).
        costs: `printed_counts()`.
    """
    stand_in = any(r.manifest["data"]["stand_in"] for group in results.values() for rs in group.values() for r in rs)
    rows = []

    def add(claim: str, verdict: str, evidence: str, accuracy: bool = True) -> None:
        text = paper()["claims"][claim]["text"].strip()
        source = paper()["claims"][claim]["source"]
        verdict = "not testable here" if accuracy and stand_in else verdict
        rows.append({"claim": claim, "paper": text, "source": source, "verdict": verdict, "evidence": evidence})

    worst = (costs["ours"] / costs["printed"] - 1).abs().max()
    add(
        "C1",
        "reproduced" if worst < 0.005 else "partly",
        f"{len(costs)} printed counts, the largest difference is {100 * worst:.2f} %",
        accuracy=False,
    )

    base = {task: 100 * np.mean([r.accuracies()[-1] for r in group["baseline"]]) for task, group in results.items()}
    printed = paper()["claims"]["C2"]["accuracy"]
    near = [abs(base[task] - printed[task]) <= 1 for task in base]
    add(
        "C2",
        "reproduced" if all(near) else "partly" if any(near) else "not reproduced",
        _each({task: f"{value:.1f} %" for task, value in base.items()}),
    )

    gains = {task: difference(group["trecx_ev"], group["baseline"]) for task, group in results.items()}
    add("C3", judge([*gains.values()]), "final exit minus baseline, points: " + _each(gains))

    for claim, drop in (("C4", 1), ("C5", 0)):
        saved = {task: reduction(group, task, drop) for task, group in results.items()}
        known = [value for value in saved.values() if np.isfinite(value)]
        wanted = paper()["claims"][claim]["reduction"]
        good = [np.isfinite(value) and value >= wanted[task] - 3 for task, value in saved.items()]
        mean = f"; mean {np.mean(known):.1f} %" if len(known) == len(saved) else "; no mean, a target was not reached"
        add(
            claim,
            "reproduced" if all(good) else "partly" if any(good) else "not reproduced",
            f"FLOPs saved {'one point below' if drop else 'at'} the baseline's accuracy, threshold from validation: "
            + _each({t: f"{v:.1f} %" if np.isfinite(v) else "not reached" for t, v in saved.items()})
            + mean,
        )

    gains = {task: difference(group["trecx_ev"], group["trecx_no_ev"]) for task, group in results.items()}
    add("C6", judge([*gains.values()]), "with minus without EV-assistance, final exit, points: " + _each(gains))

    kws = results["kws"]
    transfer = difference(kws["trecx_ev"], kws["trecx_no_transfer"])
    concat = difference(kws["trecx_ev"], kws["trecx_concat"])
    add("C7", judge([transfer]), f"transfer minus no transfer {shown(transfer)} points; minus concat {shown(concat)}")

    low, high = paper()["claims"]["C8"]["confidence_range"]
    spread = {}
    for method in ("trecx_ev", "baseline_ee"):
        kept = early_confidences(results["ic"][method], low, high)
        spread[method] = (kept.mean(), kept.quantile(0.75) - kept.quantile(0.25))
    (ours, our_width), (theirs, their_width) = spread["trecx_ev"], spread["baseline_ee"]
    add(
        "C8",
        "reproduced" if ours > theirs and our_width < their_width else "not reproduced",
        f"mean confidence {ours:.3f} against {theirs:.3f}, "
        f"interquartile range {our_width:.3f} against {their_width:.3f}",
    )

    ahead = {
        f"{task} {rival}": dominance(results[task]["trecx_ev"], results[task][rival])
        for task in ("ic", "kws")
        for rival in ("branchynet", "sdn")
    }
    known = [share for share in ahead.values() if np.isfinite(share)]
    add(
        "C9",
        "reproduced" if min(known, default=0) > 0.99 else "partly" if max(known, default=0) > 0.5 else "not reproduced",
        "share of the common FLOPs range in which T-RecX is more accurate: "
        + _each({k: f"{100 * v:.0f} %" if np.isfinite(v) else "has no common range" for k, v in ahead.items()}),
    )

    finals = [np.mean([100 * r.accuracies()[-1] for r in records]) for records in placement.values()]
    add(
        "C10",
        "reproduced" if all(np.diff(finals) > 0) else "not reproduced",
        "final exit by place of the early one: "
        + ", ".join(f"{tap} {value:.1f} %" for tap, value in zip(placement, finals, strict=True)),
    )

    loss = [difference(results["ic"]["trecx_ev"], extra_class, k) for k in (0, 1)]
    add("C11", judge(loss), f"accuracy lost, points: early {shown(loss[0])}, final {shown(loss[1])}")

    small = quantise(build("vww", "trecx_ev")).reduction
    add(
        "C12",
        "reproduced" if abs(100 * small - paper()["claims"]["C12"]["size_reduction"]["vww"]) < 5 else "partly",
        f"weights and scales alone {100 * small:.1f} % smaller; the paper's file also holds a graph",
        accuracy=False,
    )
    return pd.DataFrame(rows)


def printed_counts() -> pd.DataFrame:
    """Every parameter count and FLOPs figure that the paper prints, beside ours (thousands and millions)."""
    from trecx.cost import measure

    rows = []

    def add(table: str, task: str, method: str, quantity: str, printed: float) -> None:
        cost = measure(build(task, method), TASKS[task].input_shape)
        ours = cost.params / 1e3 if quantity == "parameters" else cost.flops[-1] / 1e6
        unit = "thousand" if quantity == "parameters" else "MFLOPs"
        rows.append({"table": table, "task": task, "method": method, "quantity": quantity, "unit": unit, "ours": ours})
        rows[-1]["printed"] = printed

    for task in TASKS:
        row = paper()["table_1"][task]
        add("Table 1", task, "baseline", "FLOPs", row["baseline"]["mflops"])
        add("Table 1", task, "baseline", "parameters", row["baseline"]["params_k"])
        add("Table 1", task, "trecx_ev", "parameters", row["trecx"]["params_k"])
        for name, printed in paper()["table_2"].get(task, {}).items():
            add("Table 2", task, "trecx_ev" if name == "trecx" else name, "parameters", printed["params_k"])
    return pd.DataFrame(rows)


def reduction(group: Group, task: str, drop: float, protocol: str = "validation") -> float:
    """FLOPs that T-RecX saves `drop` points below our own baseline, percent, mean over seeds; NaN if missed."""
    frame = points({"trecx_ev": group["trecx_ev"]}, task, group["baseline"], with_paper=False, drops=(drop,))
    mean = mean_points(frame)
    at = mean[(mean.protocol == protocol) & (mean.reference == "own baseline")]
    return 100 * float(at["reduction"].iloc[0])


def dominance(a: Sequence[Record], b: Sequence[Record], grid: int = 200) -> float:
    """Share of the cost range that both benefit curves cover in which `a` is at least as accurate as `b`."""
    lines = []
    for records in (a, b):
        curves = [benefit_curve(record.trace()) for record in records]
        low, high = max(c.cost.min() for c in curves), min(c.cost.max() for c in curves)
        lines.append((low, high, curves))
    low, high = max(line[0] for line in lines), min(line[1] for line in lines)
    if low >= high:
        return float("nan")
    cost = np.linspace(low, high, grid)
    # Cost falls along a curve, interpolation wants it rising.
    means = [np.mean([np.interp(cost, c.cost[::-1], c.accuracy[::-1]) for c in curves], axis=0) for *_, curves in lines]
    return float(np.mean(means[0] >= means[1]))


def _each(values: Mapping[str, object]) -> str:
    texts = {k: shown(v) if isinstance(v, Interval) else str(v) for k, v in values.items()}
    return ", ".join(f"{task} {text}" for task, text in texts.items())
