"""The paper's claims C1 to C12, each with a verdict and the numbers behind it.

A claim about accuracy can only be judged on the paper's own data: on stand-in data its verdict is 'not
testable here', and the evidence says what was seen there. Differences are paired (same seeds, same test
samples) and come with a 95 % interval over both. `RULES` says what each claim is asked for. No verdict
is corrected for the number of claims.
"""

import itertools
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cache

import numpy as np
import pandas as pd

from trecx.analysis.compare import curve_gain, difference, dominance, judge, judge_all, pairs
from trecx.analysis.device import saved_bytes
from trecx.analysis.findings import Evidence, Finding
from trecx.analysis.saving import saving
from trecx.analysis.tables import Group, method_points, pooled
from trecx.analysis.wording import evidence_text, points_in_words, share_in_words
from trecx.deploy import records as device_records
from trecx.evaluation.points import at
from trecx.evaluation.stats import Interval, bootstrap_statistics
from trecx.experiments.records import Record, mean_accuracy
from trecx.models.build import build
from trecx.models.int8 import quantise
from trecx.models.methods import label_of
from trecx.paper import paper
from trecx.tasks import TASKS

NOT_HERE = "not testable here"
VERDICTS = ("reproduced", "partly", "not settled", "contradicted", NOT_HERE)

# The limits that verdicts are given by; `RULES` puts them into words.
COUNTS_APART = 0.5  # percent between our counts and the printed ones (C1)
ACCURACY_BELOW = 1  # points below the paper's accuracy (C2)
GIVEN_UP = {"C4": 1, "C5": 0}  # points of accuracy that the saving may cost
AHEAD = 99  # percent of the common costs at which a benefit curve must be at least as high (C6, C9)
PARTLY_AHEAD = 50  # the same, for 'partly' (C9)
BYTES_APART = 5  # points between our share of saved bytes and the paper's (C12)

# What 'reproduced' asks for. The other verdicts: see `trecx.analysis.compare.judge` for numbers with an interval and
# `judge_all` for a claim about several; counts are 'contradicted' where they differ.
RULES = {
    "C1": f"every printed count within {COUNTS_APART:g} %",
    "C2": f"the accuracy's interval above {points_in_words(ACCURACY_BELOW)} below the paper's (contradicted: under it)",
    "C3": "the final exit's gain over the baseline: above zero, and not below the paper's",
    "C4": "the saving: above zero, and not below the paper's; a seed that misses the accuracy saves nothing (not "
    "settled where all miss it and the final exit may be accurate enough); the model's size is in Table 1",
    "C5": "as C4",
    "C6": "the final exit's gain: above zero, and not below the paper's; and at least as accurate at "
    f"{share_in_words(AHEAD)} of the common costs",
    "C7": "the mean gain over the benefit curve from copying over not copying: above zero, and not below the paper's; "
    "the final exit's gain from copying over joining the maps (under the same loss weight), and from joining them "
    "over not copying: above zero",
    "C8": "higher mean and narrower quartiles: both above zero",
    "C9": "more accurate than every rival as the authors coded it (as published where they coded none) at "
    f"{share_in_words(AHEAD)} of the common costs, with fewer parameters (partly: at {share_in_words(PARTLY_AHEAD)} of "
    "them than one rival; contradicted: in no seed that much); no interval is asked for",
    "C10": "each step towards the input costs the final exit something: above zero",
    "C11": "accuracy lost at both exits: above zero, and not below the paper's",
    "C12": f"the saved share of the bytes within {points_in_words(BYTES_APART)} of the paper's; accuracy is not asked "
    "for",
}
# What the claims are about, for running text.
TOPICS = {
    "C1": "parameters and FLOPs",
    "C2": "accuracy of the unmodified networks",
    "C3": "a better final exit",
    "C4": "the saving one point below",
    "C5": "a saving at equal accuracy",
    "C6": "a gain by early-view assistance",
    "C7": "copied weights rather than joined maps",
    "C8": "a surer early exit by convolutions",
    "C9": "a lead over BranchyNet and SDN",
    "C10": "a loss from an exit nearer to the input",
    "C11": "a loss from one more class",
    "C12": "the size in 8 bits",
}
ON_COUNTS = ("C1", "C12")  # need no data
CURVE_GAIN = "transfer minus no transfer, mean over the benefit curve"
CONCAT_ALIKE = f"trecx_concat, w = {TASKS['kws'].w:g}"  # the authors trained it with 1, which confounds Figure 6


@dataclass(frozen=True)
class Material:
    """What the claims are judged on: any part may be missing, and with it the claims about it.

    results: task -> method -> records, one a seed. placement: tap -> records of DS-CNN with its exit there (C10).
    extra_class: records of ResNet-8 T-RecX with one more class (C11). carried_over: judge C9 on MobileNet too, which
    the paper leaves out. reasons: claim -> task -> why these runs cannot settle it there, whatever they show.
    """

    results: Mapping[str, Group]
    placement: Mapping[str, Sequence[Record]] = field(default_factory=dict)
    extra_class: Sequence[Record] = ()
    carried_over: bool = False
    reasons: Mapping[str, Mapping[str, str]] = field(default_factory=dict)

    def having(self, *methods: str) -> dict[str, Group]:
        """The tasks that have records of all these methods."""
        return {task: group for task, group in self.results.items() if all(group.get(m) for m in methods)}


def find_claims(material: Material) -> list[Finding]:
    """A finding for each claim that can be judged, C1 first."""
    records = [r for group in material.results.values() for rs in group.values() for r in rs]
    stand_in = any(record.stand_in for record in records)
    found = []
    for claim, find in CLAIMS.items():
        why = material.reasons.get(claim, {})
        left = {task: group for task, group in material.results.items() if task not in why}
        if (finding := find(replace(material, results=left) if left else material)) is None:
            continue
        if (stand_in and claim not in ON_COUNTS) or not left:
            given = [replace(item, verdict=item.verdict and NOT_HERE) for item in finding.evidence]
            finding = replace(finding, verdict=NOT_HERE, evidence=tuple(given))
        if aside := tuple(f"{task} left out: {reason}" for task, reason in why.items() if task in material.results):
            finding = replace(finding, notes=aside if left else (", ".join(why.values()),))
        found.append(finding)
    return found


def claims_table(material: Material) -> pd.DataFrame:
    """One row a claim that can be judged: what the paper says, the verdict, the evidence."""
    return as_table(find_claims(material))


def as_table(findings: Iterable[Finding]) -> pd.DataFrame:
    """The same of findings."""
    rows = []
    for finding in findings:
        said = paper()["claims"][finding.claim]
        row = {"claim": finding.claim, "paper": said["text"].strip(), "source": said["source"]}
        rows.append(row | {"verdict": finding.verdict, "evidence": evidence_text(finding)})
    return pd.DataFrame(rows)


def _counts(m: Material) -> Finding | None:
    if not m.results:
        return None
    costs = printed_counts([task for task in TASKS if task in m.results])
    evidence = tuple(
        Evidence(row.quantity, f"{row.task}, {row.table}, {row.method}", row.ours, row.unit, paper=row.printed)
        for row in costs.itertuples()
    )
    close = all(100 * abs(item.estimate / item.paper - 1) < COUNTS_APART for item in evidence)
    return Finding("C1", "reproduced" if close else "contradicted", evidence)


def _baselines(m: Material) -> Finding | None:
    if not (groups := m.having("baseline")):
        return None
    printed = paper()["claims"]["C2"]["accuracy"]
    evidence = []
    for task, group in groups.items():
        found = pooled(group["baseline"], -1)
        floor = printed[task] - ACCURACY_BELOW
        verdict = judge(Interval(*(value - floor for value in found)))
        evidence.append(replace(Evidence.of("baseline", task, found, "%", printed[task]), verdict=verdict))
    return Finding("C2", judge_all(item.verdict for item in evidence), tuple(evidence))


def _final_exit(m: Material) -> Finding | None:
    if not (groups := m.having("trecx_ev", "baseline")):
        return None
    rows = {task: paper()["table_1"][task] for task in groups}
    printed = {t: row["trecx"]["final_accuracy"] - row["baseline"]["accuracy"] for t, row in rows.items()}
    return _judged("C3", _gains("final exit minus baseline", groups, "baseline", printed))


def _savings(m: Material, claim: str) -> Finding | None:
    if not (groups := m.having("trecx_ev", "baseline")):
        return None
    drop, wanted = GIVEN_UP[claim], paper()["claims"][claim]["reduction"]
    below = f"{points_in_words(drop)} below" if drop else "at"
    measure = f"FLOPs saved {below} the baseline's accuracy"
    evidence, tested = [], []
    for task, group in groups.items():
        found = saving(group, drop)
        item = Evidence.of(measure, task, found.interval, "%", wanted[task])
        verdict = judge(found.interval, wanted[task])
        if not found.reached and difference(group["trecx_ev"], group["baseline"]).high < -drop:
            verdict = "contradicted"  # the final exit surely is not accurate enough
        evidence.append(replace(item, by_seed=found.by_seed, verdict=verdict))
        by_paper = float(np.mean(reductions(group, task, drop, "paper")))
        tested.append(Evidence(f"{measure}, paper protocol", task, by_paper, "%", paper=wanted[task]))
    return Finding(claim, judge_all(item.verdict for item in evidence), (*evidence, *tested))


def _early_view(m: Material) -> Finding | None:
    if not (groups := m.having("trecx_ev", "trecx_no_ev")):
        return None
    printed = paper()["claims"]["C6"]["final_accuracy_gain"]
    gains = _gains("with minus without EV-assistance, final exit", groups, "trecx_no_ev", printed)
    measure = "share of the common FLOPs range in which it is at least as accurate"
    ahead = [
        Evidence(measure, task, 100 * dominance(group["trecx_ev"], group["trecx_no_ev"]), "%")
        for task, group in groups.items()
    ]
    finding = _judged("C6", gains, ahead)
    if finding.verdict == "reproduced" and any(item.estimate < AHEAD for item in ahead):
        return replace(finding, verdict="partly")
    return finding


def _transfer(m: Material) -> Finding | None:
    if "kws" not in m.having("trecx_ev", "trecx_no_transfer", "trecx_concat"):
        return None
    kws = m.results["kws"]

    def gain(measure: str, first: str, second: str) -> Evidence:
        return Evidence.of(measure, "kws", difference(kws[first], kws[second]))

    printed = paper()["claims"]["C7"]["mean_accuracy_gain"]["kws"]  # a mean over the benefit curve
    curve = curve_gain(kws["trecx_ev"], kws["trecx_no_transfer"])
    over_curve = _with_verdict(Evidence.of(CURVE_GAIN, "kws", curve, paper=printed))
    copied = gain("transfer minus no transfer", "trecx_ev", "trecx_no_transfer")
    over = [gain("transfer minus concat", "trecx_ev", "trecx_concat")]
    if kws.get(CONCAT_ALIKE):
        over.append(gain("transfer minus concat under the same loss weight", "trecx_ev", CONCAT_ALIKE))
    over[-1] = _with_verdict(over[-1])
    between = CONCAT_ALIKE if kws.get(CONCAT_ALIKE) else "trecx_concat"
    joined = _with_verdict(gain("concat minus no transfer", between, "trecx_no_transfer"))
    verdict = judge_all(item.verdict for item in (over_curve, over[-1], joined))
    return Finding("C7", verdict, (over_curve, copied, *over, joined))


def _confidences(m: Material) -> Finding | None:
    if "ic" not in m.having("trecx_ev", "baseline_ee"):
        return None
    low, high = paper()["claims"]["C8"]["confidence_range"]

    def mean_and_narrowness(scores: np.ndarray) -> np.ndarray:
        kept = scores[(scores >= low) & (scores < high)]
        quartiles = np.quantile(kept, [0.25, 0.75]) if len(kept) else np.full(2, np.nan)
        return np.array([kept.mean() if len(kept) else np.nan, quartiles[0] - quartiles[1]])

    matched = pairs(m.results["ic"]["trecx_ev"], m.results["ic"]["baseline_ee"])
    ours, theirs = (np.stack([r.trace().scores[:, 0] for r in side]) for side in zip(*matched, strict=True))
    higher, narrower = bootstrap_statistics(ours, theirs, mean_and_narrowness)
    (mean, width), (their_mean, their_width) = mean_and_narrowness(ours), mean_and_narrowness(theirs)
    evidence = [
        replace(Evidence.of("mean confidence", "ic", higher, ""), sides=(mean, their_mean)),
        replace(Evidence.of("interquartile range", "ic", narrower, ""), sides=(-width, -their_width)),
    ]
    return _judged("C8", evidence)


def _prior_work(m: Material) -> Finding | None:
    curves, sizes = [], []
    for task, group in m.having("trecx_ev").items():
        if not m.carried_over and task not in ("ic", "kws"):  # the paper has no MobileNet here
            continue
        for rival in ("branchynet", "branchynet_fair", "sdn", "sdn_fair"):
            if not group.get(rival):
                continue
            curve, size = _against(f"{task} {label_of(rival)}", group["trecx_ev"], group[rival])
            # The verdict is on the rivals as the authors coded them, or as published where there is no such version.
            if not (rival.endswith("_fair") and group.get(rival.removesuffix("_fair"))):
                curve = replace(curve, paper=100.0, verdict=_ahead(curve, size))
            curves.append(curve)
            sizes.append(size)
    if not curves:
        return None
    given = [curve.verdict for curve in curves if curve.verdict]
    return Finding("C9", judge_all(given) if given else "not settled", (*curves, *sizes))


def _ahead(curve: Evidence, size: Evidence) -> str:
    """The verdict on one rival; empty where the two curves have no cost in common."""
    if np.isnan(curve.estimate):
        return ""
    if curve.estimate > AHEAD and size.estimate > 0:
        return "reproduced"
    if curve.estimate > PARTLY_AHEAD:
        return "partly"
    return "contradicted" if max(curve.by_seed) <= PARTLY_AHEAD else "not settled"


def _against(label: str, ours: Sequence[Record], theirs: Sequence[Record]) -> tuple[Evidence, Evidence]:
    """Where T-RecX's benefit curve is the higher one, and how many parameters it has less than the rival."""
    ahead = 100 * dominance(ours, theirs)
    by_seed = tuple(100 * dominance([a], [b]) for a, b in pairs(ours, theirs))
    share = Evidence(
        "share of the common FLOPs range in which T-RecX is at least as accurate", label, ahead, "%", by_seed=by_seed
    )
    if np.isnan(ahead):  # no cost in common: the ends of the two curves that face each other
        first, second = (records[0].cost() for records in (ours, theirs))
        ends = (first[-1], second[0]) if second[0] > first[-1] else (first[0], second[-1])
        share = replace(share, sides=(ends[0] / 1e6, ends[1] / 1e6))
    small, large = (records[0].params for records in (ours, theirs))
    return share, Evidence("fewer parameters", label, 100 * (1 - small / large), "%", sides=(small, large))


def _place(m: Material) -> Finding | None:
    if len(m.placement) < 2:
        return None
    finals = [
        Evidence(
            "final exit by place of the early one",
            tap,
            100 * mean_accuracy(records),
            "%",
        )
        for tap, records in m.placement.items()
    ]
    steps = [
        _with_verdict(Evidence.of("later minus earlier place", f"{later} minus {earlier}", difference(records, before)))
        for (earlier, before), (later, records) in itertools.pairwise(m.placement.items())
    ]
    return Finding("C10", judge_all(step.verdict for step in steps), (*finals, *steps))


def _one_more_class(m: Material) -> Finding | None:
    if not m.extra_class:
        return None
    printed, ours = paper()["claims"]["C11"]["accuracy_loss"]["ic"], m.results["ic"]["trecx_ev"]
    exits = {"early": 0, "final": -1}
    return _judged(
        "C11",
        [
            Evidence.of("accuracy lost", place, difference(ours, m.extra_class, k), paper=printed[place])
            for place, k in exits.items()
        ],
    )


def _int8(m: Material) -> Finding | None:
    if "vww" not in m.results:
        return None
    printed = paper()["claims"]["C12"]["size_reduction"]["vww"]
    small = 100 * quantise(build("vww", "trecx_ev")).reduction
    measured = {"weights and scales alone": small}
    exported = [
        r for r in device_records.published() if [(run.task, run.method) for run in r.runs] == [("vww", "trecx_ev")]
    ]
    if exported:  # all have the same layers, so the same bytes
        measured["as exported to ONNX"] = saved_bytes(exported[0])
    evidence = tuple(
        Evidence(
            measure,
            "vww",
            size,
            "%",
            paper=printed,
            verdict="reproduced" if abs(size - printed) < BYTES_APART else "contradicted",
        )
        for measure, size in measured.items()
    )
    verdicts = {item.verdict for item in evidence}
    return Finding("C12", verdicts.pop() if len(verdicts) == 1 else "partly", evidence)


CLAIMS: dict[str, Callable[[Material], Finding | None]] = {
    "C1": _counts,
    "C2": _baselines,
    "C3": _final_exit,
    "C4": lambda m: _savings(m, "C4"),
    "C5": lambda m: _savings(m, "C5"),
    "C6": _early_view,
    "C7": _transfer,
    "C8": _confidences,
    "C9": _prior_work,
    "C10": _place,
    "C11": _one_more_class,
    "C12": _int8,
}


def printed_counts(tasks: Iterable[str] = tuple(TASKS)) -> pd.DataFrame:
    """Every parameter count and FLOPs figure that the paper prints, beside ours (thousands and millions)."""
    from trecx.models.cost import measure

    rows = []
    measured = cache(lambda task, method: measure(build(task, method), TASKS[task].input_shape))

    def add(table: str, task: str, method: str, quantity: str, printed: float) -> None:
        cost = measured(task, method)
        ours = cost.params / 1e3 if quantity == "parameters" else cost.flops[-1] / 1e6
        unit = "thousand" if quantity == "parameters" else "MFLOPs"
        rows.append({"table": table, "task": task, "method": method, "quantity": quantity, "unit": unit, "ours": ours})
        rows[-1]["printed"] = printed

    for task in tasks:
        row = paper()["table_1"][task]
        add("Table 1", task, "baseline", "FLOPs", row["baseline"]["mflops"])
        add("Table 1", task, "baseline", "parameters", row["baseline"]["params_k"])
        add("Table 1", task, "trecx_ev", "parameters", row["trecx"]["params_k"])
        for name, printed in paper()["table_2"].get(task, {}).items():
            add("Table 2", task, "trecx_ev" if name == "trecx" else name, "parameters", printed["params_k"])
    return pd.DataFrame(rows)


def reductions(group: Group, task: str, drop: float, protocol: str = "validation") -> np.ndarray:
    """FLOPs that T-RecX saves `drop` points below our own baseline, percent, by seed (n,); NaN if missed."""
    frame = method_points({"trecx_ev": group["trecx_ev"]}, task, group["baseline"], with_paper=False, drops=(drop,))
    return 100 * at(frame, protocol=protocol, drop=drop)["reduction"].to_numpy(dtype=float)


def _gains(measure: str, groups: Mapping[str, Group], other: str, printed: Mapping[str, float]) -> list[Evidence]:
    """T-RecX minus another method at the final exit, a task each."""
    return [
        Evidence.of(measure, task, difference(group["trecx_ev"], group[other]), paper=printed[task])
        for task, group in groups.items()
    ]


def _with_verdict(gain: Evidence) -> Evidence:
    """A difference that is claimed to be positive, with the verdict on it alone."""
    return replace(gain, verdict=judge(gain.interval, gain.paper))


def _judged(claim: str, gains: Sequence[Evidence], beside: Sequence[Evidence] = ()) -> Finding:
    """A finding on differences that are claimed to be positive; what stands `beside` them is not judged."""
    judged = [_with_verdict(gain) for gain in gains]
    return Finding(claim, judge_all(item.verdict for item in judged), (*judged, *beside))
