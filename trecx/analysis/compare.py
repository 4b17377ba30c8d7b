"""Methods against each other, from their records: paired differences, dominance, and smaller networks without exits."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import pandas as pd

from trecx.analysis.tables import Group, method_points
from trecx.errors import TrecxError
from trecx.evaluation.points import at, point_at_cost
from trecx.evaluation.stats import (
    Interval,
    holm,
    mean_interval,
    paired_difference,
    probability_of_improvement,
    sign_flip_test,
)
from trecx.evaluation.trace import benefit_curve, mean_line
from trecx.experiments.records import Record, chosen_thresholds, mean_accuracy
from trecx.models.methods import label_of
from trecx.paper import paper

TOO_FEW = {1: "one seed", 2: "two seeds"}  # to judge by


def pairs(a: Sequence[Record], b: Sequence[Record]) -> list[tuple[Record, Record]]:
    """Records of the two methods with the same seed, which share split and data order.

    Raises:
        TrecxError: no seed in common.
    """
    theirs = {record.seed: record for record in b}
    found = [(record, theirs[record.seed]) for record in a if record.seed in theirs]
    if not (a and b):
        raise TrecxError("a method without any record cannot be compared")
    if not found:
        raise TrecxError(f"{a[0].name} and {b[0].name} have no seed in common, so they cannot be compared in pairs")
    return found


def difference(
    a: Sequence[Record], b: Sequence[Record], exit_index: int = -1, against: int | None = None, split: str = "test"
) -> Interval:
    """Accuracy of `a` minus that of `b` at one exit, in points, with its 95 % interval over seeds and samples.

    `against` is the exit of `b`, the same as that of `a` unless told; `split` is `test` or `val`.
    """
    exits = (exit_index, exit_index if against is None else against)
    ours, theirs = (
        np.stack([record.trace(split).correct[:, k] for record in side])
        for k, side in zip(exits, zip(*pairs(a, b), strict=True), strict=True)
    )
    return paired_difference(ours, theirs).in_points()


def judge(intervals: Sequence[Interval]) -> str:
    """A verdict on differences that are claimed to be positive.

    'reproduced' if all surely are, 'partly' if some are; else 'not reproduced' if one is surely negative, and 'not
    settled' if every interval contains zero: too few seeds or samples to tell.
    """
    sure = [interval.low > 0 for interval in intervals]
    if any(sure):
        return "reproduced" if all(sure) else "partly"
    return "not reproduced" if any(interval.high < 0 for interval in intervals) else "not settled"


def shown(interval: Interval) -> str:
    """A difference as text."""
    return f"{interval.estimate:+.2f} [{interval.low:+.2f}, {interval.high:+.2f}]"


def differences(groups: Group, versus: Iterable[tuple[str, str]]) -> pd.DataFrame:
    """Paired accuracy differences in points, a row for each pair of methods and each exit that both have.

    Columns: method, minus, exit, difference, low, high (95 %, over seeds and test samples), seeds, better
    (share of the seeds in which the first is better), p (sign-flip over seeds: at least 2 / 2**seeds), p, Holm
    (corrected for the number of rows), verdict ('one seed' or 'two seeds' where there are too few to judge by).
    """
    rows = []
    for first, second in versus:
        if not (groups.get(first) and groups.get(second)):
            continue
        names = {"method": label_of(first), "minus": label_of(second)}
        rows += [names | row for row in _each_exit(groups[first], groups[second])]
    return _corrected(rows)


def place_differences(places: Mapping[str, Mapping[str, Sequence[Record]]]) -> pd.DataFrame:
    """The later place of the exit minus the earlier one, for every two places (claim C10).

    Args:
        places: method -> tap -> records, the taps in their order from the input on.

    Returns:
        The columns of `differences`, with method, place and minus in front.
    """
    rows = []
    for method, taps in places.items():
        for earlier, later in itertools.combinations(taps, 2):
            names = {"method": label_of(method), "exit after": later, "minus": earlier}
            rows += [names | row for row in _each_exit(taps[later], taps[earlier])]
    return _corrected(rows)


def place_savings(
    places: Mapping[str, Mapping[str, Sequence[Record]]], task: str, baseline: Sequence[Record], unit: str = "flops"
) -> pd.DataFrame:
    """What the earlier of two places of the exit saves more than the later one, one point below our own baseline.

    Percentage points of the unmodified network's cost, thresholds from validation, paired by seed: mean and Student's
    95 % interval. NaN where a seed did not reach the accuracy at one of the two. `places` as `place_differences`.
    """
    rows = []
    for method, taps in places.items():
        saved = {tap: _saved_by_seed(method, records, task, baseline, unit) for tap, records in taps.items()}
        for earlier, later in itertools.combinations(taps, 2):
            more = (saved[earlier] - saved[later]).reindex(saved[earlier].index.intersection(saved[later].index))
            if more.empty:
                continue
            gain = mean_interval(more)
            rows.append(
                {"method": label_of(method), "exit after": earlier, "minus": later, "saved more": gain.estimate}
            )
            rows[-1] |= {"low": gain.low, "high": gain.high, "seeds": len(more)}
            rows[-1]["reached"] = f"{int(more.notna().sum())} of {len(more)}"
            rows[-1]["verdict"] = _told(gain) if np.isfinite(gain.low) else "no interval"
    return pd.DataFrame(rows)


def _saved_by_seed(method: str, records: Sequence[Record], task: str, baseline: Sequence[Record], unit: str) -> Any:
    """Percent saved one point below our own baseline, threshold from validation, by seed."""
    frame = method_points({method: records}, task, baseline, with_paper=False, drops=(1,), unit=unit)
    return 100 * at(frame).set_index("seed")["reduction"].astype(float)


def _corrected(rows: list[dict[str, Any]]) -> pd.DataFrame:
    """The rows as a table, with Holm's correction of p beside p."""
    frame = pd.DataFrame(rows)
    if rows:
        frame.insert(frame.columns.get_loc("p") + 1, "p, Holm", holm(frame["p"]))
    return frame


def _each_exit(a: Sequence[Record], b: Sequence[Record]) -> list[dict[str, Any]]:
    """The columns of `differences` from `exit` on, a row for each exit that both have."""
    rows = []
    matched = pairs(a, b)
    # The first exit is compared only between networks with one early exit each: others leave elsewhere.
    one_early_exit = all(len(record.cost()) == 2 for record in matched[0])
    for name, k in {"early": 0, "final": -1}.items() if one_early_exit else [("final", -1)]:
        gain = difference(a, b, k)
        ours, theirs = ([100 * r.accuracies()[k] for r in side] for side in zip(*matched, strict=True))
        rows.append(
            {
                "exit": name,
                "difference": gain.estimate,
                "low": gain.low,
                "high": gain.high,
                "seeds": len(matched),
                "better": probability_of_improvement(ours, theirs).estimate,
                "p": sign_flip_test(np.subtract(ours, theirs)),
                "verdict": TOO_FEW.get(len(matched)) or _told(gain),
            }
        )
    return rows


def _told(gain: Interval) -> str:
    return "better" if gain.low > 0 else "worse" if gain.high < 0 else "not told apart"


def settled(groups: Group, task: str) -> pd.DataFrame:
    """How finely differences of the paper's size can be measured on these runs, whatever they turned out to be.

    A true difference as large as an interval's half-width is told from none about every second time.

    For claim C4 the difference is what the saving costs: T-RecX at its thresholds (from validation, one point below our
    own baseline) minus the baseline; left out while a seed has no such threshold.

    Columns: claim, difference, paper (its size in points), half-width (of our 95 % interval over seeds and samples, in
    points), seeds, below the paper's ('yes' if the half-width is smaller than the difference).
    """
    printed, gain = paper()["table_1"][task], paper()["claims"]["C6"]["final_accuracy_gain"][task]
    above = printed["trecx"]["final_accuracy"] - printed["baseline"]["accuracy"]
    rows = []
    for claim, first, second, size in (("C3", "trecx_ev", "baseline", above), ("C6", "trecx_ev", "trecx_no_ev", gain)):
        if not (groups.get(first) and groups.get(second)):
            continue
        matched = pairs(groups[first], groups[second])
        name = f"{label_of(first)} minus {label_of(second)}"
        rows.append(_fineness(claim, f"{name}, final exit", size, difference(groups[first], groups[second]), matched))
        if claim == "C3":
            thresholds = chosen_thresholds([ours for ours, _ in matched], groups["baseline"])
            if not np.isnan(thresholds).any():
                used = np.stack([r.trace().outcome(t)[0] for (r, _), t in zip(matched, thresholds, strict=True)])
                theirs = np.stack([r.trace().correct[:, -1] for _, r in matched])
                lost = paired_difference(used, theirs).in_points()
                rows.append(_fineness("C4", f"{name}, with its early exit at -1 point", -1.0, lost, matched))
    return pd.DataFrame(rows)


def _fineness(claim: str, name: str, size: float, found: Interval, matched: Sequence[Any]) -> dict[str, Any]:
    half = (found.high - found.low) / 2
    row = {"claim": claim, "difference": name, "paper": size, "half-width": half, "seeds": len(matched)}
    return row | {"below the paper's": "yes" if half < abs(size) else "no"}


def mean_curve(records: Sequence[Record], cost: np.ndarray, unit: str = "flops") -> np.ndarray:
    """Mean over seeds of the benefit curves' accuracy (fractions) at the given mean costs; NaN outside a curve."""
    curves = [benefit_curve(record.trace(unit=unit)) for record in records]
    # Cost falls along a curve, interpolation wants it rising.
    return mean_line([(curve.cost[::-1], curve.accuracy[::-1]) for curve in curves], cost)[1]


def against_static(
    records: Sequence[Record], static: Mapping[str, Sequence[Record]], unit: str = "flops"
) -> pd.DataFrame:
    """Early exits against smaller networks without exits, each at the smaller network's cost, paired by seed.

    The threshold is the highest at which the early-exit network costs no more than the smaller one on validation.
    Columns: network, its cost (millions), its accuracy, cost and accuracy of the early-exit network on test (NaN if it
    cannot be that cheap), gain in points with its 95 % interval (over seeds and samples; of one seed over samples
    alone), seeds. The dearest network first.
    """
    rows = []
    costs = {label: small[0].cost(unit)[-1] for label, small in static.items()}
    for label, cost in sorted(costs.items(), key=lambda item: -item[1]):
        small = static[label]
        matched = pairs(records, small)
        found = [point_at_cost(r.trace("val", unit=unit), r.trace("test", unit=unit), cost) for r, _ in matched]
        row = {"network": label, "cost": cost / 1e6}
        row["without exit"] = 100 * mean_accuracy([record for _, record in matched])
        gain = Interval(np.nan, np.nan, np.nan)
        if all(point.reached for point in found):
            hits = np.stack([r.trace().outcome(p.threshold)[0] for (r, _), p in zip(matched, found, strict=True)])
            theirs = np.stack([r.trace().correct[:, -1] for _, r in matched])
            gain = paired_difference(hits, theirs).in_points()
        row["cost with exit"] = float(np.mean([point.cost for point in found])) / 1e6
        row["with early exit"] = 100 * float(np.mean([point.accuracy for point in found]))
        rows.append(row | {"gain": gain.estimate, "low": gain.low, "high": gain.high, "seeds": len(matched)})
    return pd.DataFrame(rows)


class StaticSaving(NamedTuple):
    """What a smaller network without exits saves, see `static_saving`.

    saved: percent of the baseline's cost. given_up: accuracy below the baseline's on test, points. seeds: of the two
    trained networks that it lies between, the dearer one first (one number where the smallest itself is taken).
    lower_bound: even the smallest network is accurate enough, so a still smaller one might be.
    """

    saved: float
    given_up: float
    seeds: tuple[int, ...]
    lower_bound: bool


def static_saving(
    baseline: Sequence[Record],
    static: Mapping[str, Sequence[Record]],
    drop: float = 1,
    split: str = "val",
    unit: str = "flops",
) -> StaticSaving:
    """What is saved by a smaller network without exits that is `drop` points less accurate than the baseline.

    The size is chosen on `split` (`val` or `test`): means over seeds, straight lines between the trained networks,
    from the baseline down to the first that is not accurate enough. Cost and test accuracy are read off at that place.
    The networks without exits may have other numbers of seeds than the baseline, so this is not paired. NaN and no
    seeds without such networks.
    """
    if not (baseline and static):
        return StaticSaving(np.nan, np.nan, (), False)

    sizes = [baseline, *sorted(static.values(), key=lambda records: records[0].cost(unit)[-1], reverse=True)]
    accuracies = [100 * mean_accuracy(records, split=split) for records in sizes]
    weights = interpolation(accuracies, accuracies[0] - drop)
    cost = float(weights @ [records[0].cost(unit)[-1] for records in sizes])
    tested = float(weights @ [100 * mean_accuracy(records) for records in sizes])
    return StaticSaving(
        100 * (1 - cost / float(baseline[0].cost(unit)[-1])),
        100 * mean_accuracy(baseline) - tested,
        tuple(len(records) for records, weight in zip(sizes, weights, strict=True) if weight),
        bool(weights[-1] == 1),
    )


def interpolation(accuracies: Sequence[float] | np.ndarray, wanted: float) -> np.ndarray:
    """Weights (k,) of networks, dearest first, on the straight line between them at which `wanted` is kept.

    The line is followed from the dearest network, which is taken to be accurate enough, down to the first that is not.
    All weight is on the cheapest where every network is.
    """
    accuracies = np.asarray(accuracies, dtype=float)
    below = np.flatnonzero(accuracies[1:] < wanted)
    weights = np.zeros(len(accuracies))
    if not len(below):
        weights[-1] = 1
        return weights
    larger = below[0]  # the one before the first that is not accurate enough
    share = (accuracies[larger] - wanted) / (accuracies[larger] - accuracies[larger + 1])
    weights[[larger, larger + 1]] = 1 - share, share
    return weights


def dominance(a: Sequence[Record], b: Sequence[Record], grid: int = 200) -> float:
    """Share of the cost range that both benefit curves cover in which `a` is at least as accurate as `b`.

    Mean curves over the seeds that both have.
    """
    a, b = zip(*pairs(a, b), strict=True)
    ends = [(record.cost()[0], record.cost()[-1]) for record in (*a, *b)]
    low, high = max(end[0] for end in ends), min(end[1] for end in ends)
    if low >= high:
        return float("nan")
    cost = np.linspace(low, high, grid)
    return float(np.mean(mean_curve(a, cost) >= mean_curve(b, cost)))
