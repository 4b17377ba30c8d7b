"""The paper's claims C1 to C12, each with a verdict and the numbers behind it.

A claim about accuracy can only be judged on the paper's own data: on stand-in data its verdict is 'not
testable here', and the evidence says what was seen there. Differences are paired (same seeds, same test
samples) and come with a 95 % bootstrap interval over both; 'reproduced' asks for the whole interval on the
paper's side on every task.
"""

import itertools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import pandas as pd

from trecx.compare import difference, dominance, judge, shown
from trecx.int8 import quantise
from trecx.losses import W_EARLY
from trecx.paper import paper
from trecx.records import Record
from trecx.stats import Interval
from trecx.tables import Group, early_confidences, mean_points, points
from trecx.tasks import TASKS
from trecx.zoo import build

VERDICTS = ("reproduced", "partly", "not reproduced", "not testable here")
ON_COUNTS = ("C1", "C12")  # need no data
CONCAT_ALIKE = f"trecx_concat, w = {W_EARLY['kws']:g}"  # the authors trained it with 1, which confounds Figure 6


@dataclass(frozen=True)
class Material:
    """What the claims are judged on: any part may be missing, and with it the claims about it.

    results: task -> method -> records, one a seed. placement: tap -> records of DS-CNN with its exit there (C10).
    extra_class: records of ResNet-8 T-RecX with one more class (C11). carried_over: judge C9 on MobileNet too, which
    the paper leaves out. reasons: claim -> why these runs cannot settle it, whatever they show.
    """

    results: Mapping[str, Group]
    placement: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    extra_class: Sequence[Record] = ()
    carried_over: bool = False
    reasons: Mapping[str, str] = field(default_factory=dict)

    def having(self, *methods: str) -> dict[str, Group]:
        """The tasks that have records of all these methods."""
        return {task: group for task, group in self.results.items() if all(group.get(m) for m in methods)}


Finding = tuple[str, str] | None  # verdict and evidence, or nothing to judge


def claims_table(material: Material) -> pd.DataFrame:
    """One row a claim that can be judged: what the paper says, the verdict, the evidence."""
    records = [r for group in material.results.values() for rs in group.values() for r in rs]
    stand_in = any(record.manifest["data"]["stand_in"] for record in records)
    rows = []
    for claim, find in CLAIMS.items():
        if (finding := find(material)) is None:
            continue
        verdict, evidence = finding
        if stand_in and claim not in ON_COUNTS:
            verdict = "not testable here"
        if claim in material.reasons:
            verdict, evidence = "not testable here", f"{evidence}; {material.reasons[claim]}"
        said = paper()["claims"][claim]
        rows.append({"claim": claim, "paper": said["text"].strip(), "source": said["source"], "verdict": verdict})
        rows[-1]["evidence"] = evidence
    return pd.DataFrame(rows)


def _counts(m: Material) -> Finding:
    costs = printed_counts()
    costs = costs[costs["task"].isin([*m.results])]
    worst = (costs["ours"] / costs["printed"] - 1).abs().max()
    evidence = f"{len(costs)} printed counts, the largest difference is {100 * worst:.2f} %"
    return "reproduced" if worst < 0.005 else "partly", evidence


def _baselines(m: Material) -> Finding:
    if not m.having("baseline"):
        return None
    base = {t: 100 * np.mean([r.accuracies()[-1] for r in g["baseline"]]) for t, g in m.having("baseline").items()}
    printed = paper()["claims"]["C2"]["accuracy"]
    found = [value >= printed[task] - 1 for task, value in base.items()]
    return _counted(found), _each({task: f"{value:.2f} % (paper {printed[task]})" for task, value in base.items()})


def _final_exit(m: Material) -> Finding:
    if not m.having("trecx_ev", "baseline"):
        return None
    gains = {t: difference(g["trecx_ev"], g["baseline"]) for t, g in m.having("trecx_ev", "baseline").items()}
    return judge([*gains.values()]), "final exit minus baseline, points: " + _each(gains)


def _savings(m: Material, claim: str, drop: float) -> Finding:
    if not m.having("trecx_ev", "baseline"):
        return None
    saved = {task: reduction(group, task, drop) for task, group in m.having("trecx_ev", "baseline").items()}
    known = [value for value in saved.values() if np.isfinite(value)]
    wanted = paper()["claims"][claim]["reduction"]
    good = [np.isfinite(value) and value >= wanted[task] - 3 for task, value in saved.items()]
    mean = f"; mean {np.mean(known):.1f} %" if len(known) == len(saved) else "; no mean, a target was not reached"
    return _counted(good), (
        f"FLOPs saved {'one point below' if drop else 'at'} the baseline's accuracy, threshold from validation: "
        + _each(
            {
                task: (f"{value:.1f} %" if np.isfinite(value) else "not reached") + f" (paper {wanted[task]})"
                for task, value in saved.items()
            }
        )
        + mean * (len(saved) > 1)
    )


def _early_view(m: Material) -> Finding:
    if not (pairs := m.having("trecx_ev", "trecx_no_ev")):
        return None
    gains = {task: difference(group["trecx_ev"], group["trecx_no_ev"]) for task, group in pairs.items()}
    ahead = {task: 100 * dominance(group["trecx_ev"], group["trecx_no_ev"]) for task, group in pairs.items()}
    verdict = judge([*gains.values()])
    if verdict == "reproduced" and min(ahead.values()) < 99:
        verdict = "partly"
    return verdict, (
        "with minus without EV-assistance, final exit, points: "
        + _each(gains)
        + "; share of the common FLOPs range in which it is at least as accurate: "
        + _each({task: f"{value:.0f} %" for task, value in ahead.items()})
    )


def _transfer(m: Material) -> Finding:
    if "kws" not in m.having("trecx_ev", "trecx_no_transfer", "trecx_concat"):
        return None
    kws = m.results["kws"]
    transfer = difference(kws["trecx_ev"], kws["trecx_no_transfer"])
    concat = difference(kws["trecx_ev"], kws["trecx_concat"])
    evidence = f"transfer minus no transfer {shown(transfer)} points; minus concat {shown(concat)}"
    if alike := kws.get(CONCAT_ALIKE):
        evidence += f"; minus concat under the same loss weight {shown(difference(kws['trecx_ev'], alike))}"
    return judge([transfer]), evidence


def _confidences(m: Material) -> Finding:
    if "ic" not in m.having("trecx_ev", "baseline_ee"):
        return None
    low, high = paper()["claims"]["C8"]["confidence_range"]
    spread = {}
    for method in ("trecx_ev", "baseline_ee"):
        kept = early_confidences(m.results["ic"][method], low, high)
        spread[method] = (kept.mean(), kept.quantile(0.75) - kept.quantile(0.25))
    (ours, our_width), (theirs, their_width) = spread["trecx_ev"], spread["baseline_ee"]
    higher, tighter = ours > theirs, our_width < their_width
    evidence = f"mean confidence {ours:.3f} against {theirs:.3f}, "
    evidence += f"interquartile range {our_width:.3f} against {their_width:.3f}"
    return _counted([bool(higher), bool(tighter)]), evidence


def _prior_work(m: Material) -> Finding:
    ahead = {
        f"{task} {rival}": dominance(group["trecx_ev"], group[rival])
        for task, group in m.having("trecx_ev").items()
        if m.carried_over or task in ("ic", "kws")  # the paper has no MobileNet here
        for rival in _rivals(group)
    }
    if not ahead:
        return None
    known = [share for share in ahead.values() if np.isfinite(share)]
    verdict = "reproduced" if min(known, default=0) > 0.99 else "partly" if max(known, default=0) > 0.5 else ""
    return verdict or "not reproduced", "share of the common FLOPs range in which T-RecX is more accurate: " + _each(
        {k: f"{100 * v:.0f} %" if np.isfinite(v) else "has no common range" for k, v in ahead.items()}
    )


def _rivals(group: Group) -> list[str]:
    """BranchyNet and SDN as the authors coded them; as published where there is no such version."""
    pairs = ((name, f"{name}_fair") for name in ("branchynet", "sdn"))
    return [next(m for m in pair if group.get(m)) for pair in pairs if any(map(group.get, pair))]


def _place(m: Material) -> Finding:
    if len(m.placement) < 2:
        return None
    finals = {tap: np.mean([100 * r.accuracies()[-1] for r in records]) for tap, records in m.placement.items()}
    steps = {
        f"{later} minus {earlier}": difference(m.placement[later], m.placement[earlier])
        for earlier, later in itertools.pairwise(m.placement)
    }
    evidence = "final exit by place of the early one: " + _each({tap: f"{v:.2f} %" for tap, v in finals.items()})
    return judge([*steps.values()]), evidence + "; points: " + _each(steps)


def _one_more_class(m: Material) -> Finding:
    if not m.extra_class:
        return None
    loss = [difference(m.results["ic"]["trecx_ev"], m.extra_class, k) for k in (0, 1)]
    return judge(loss), f"accuracy lost, points: early {shown(loss[0])}, final {shown(loss[1])}"


def _int8(m: Material) -> Finding:
    if "vww" not in m.results:
        return None
    small = quantise(build("vww", "trecx_ev")).reduction
    close = abs(100 * small - paper()["claims"]["C12"]["size_reduction"]["vww"]) < 5
    evidence = f"weights and scales alone {100 * small:.1f} % smaller; the paper's file also holds a graph"
    return "reproduced" if close else "partly", evidence


CLAIMS: dict[str, Callable[[Material], Finding]] = {
    "C1": _counts,
    "C2": _baselines,
    "C3": _final_exit,
    "C4": lambda m: _savings(m, "C4", 1),
    "C5": lambda m: _savings(m, "C5", 0),
    "C6": _early_view,
    "C7": _transfer,
    "C8": _confidences,
    "C9": _prior_work,
    "C10": _place,
    "C11": _one_more_class,
    "C12": _int8,
}


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


def _counted(found: Sequence[bool]) -> str:
    return "reproduced" if all(found) else "partly" if any(found) else "not reproduced"


def _each(values: Mapping[str, object]) -> str:
    texts = {k: shown(v) if isinstance(v, Interval) else str(v) for k, v in values.items()}
    return ", ".join(f"{task} {text}" for task, text in texts.items())
