"""Operating points of a benefit curve: the paper's, those chosen on validation, and what an oracle could reach."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pandas as pd

from trecx.errors import TrecxError
from trecx.evaluation.trace import Trace, at_thresholds, benefit_curve

# The authors' thresholds: the paper says 0 to 1 in steps of 0.01, the code takes these 101 points, 0.0099 apart
# (and 100 points for its keyword-spotting baselines).
PAPER_GRID = np.linspace(0.01, 1.0, 101)

# The nearest grid point always exists, even to a target that the network cannot reach. A curve whose best point
# lies lower than this below the target (0.05 points, half the last digit the paper prints) counts as not reaching it.
NEAREST_TOLERANCE = 0.0005

_ROUNDING = 1e-9  # accuracies are counts over n; differences below this are floating-point noise


@dataclass(frozen=True, eq=False)
class OperatingPoint:
    """One threshold and what it gives; all NaN where `reached` is False, so that no mean can pass over a miss.

    `target` is the accuracy asked for on the samples reported; `shares` are the exit rates (K,).
    """

    protocol: str
    target: float
    threshold: float
    accuracy: float
    cost: float
    shares: np.ndarray
    baseline_cost: float
    reached: bool

    @property
    def reduction(self) -> float:
        """Share of the unmodified network's cost that is saved (negative where the early exit costs more)."""
        return 1 - self.cost / self.baseline_cost


def point_at(
    trace: Trace, threshold: float, baseline_cost: float = np.nan, protocol: str = "given", target: float = np.nan
) -> OperatingPoint:
    """Operating point of a threshold that was fixed beforehand."""
    exits = trace.leave(threshold)
    right = np.count_nonzero(trace.correct[np.arange(len(exits)), exits])
    shares = np.bincount(exits, minlength=len(trace.cost)) / len(exits)
    return OperatingPoint(
        protocol,
        float(target),
        float(threshold),
        right / len(exits),
        float(shares @ trace.cost),
        shares,
        float(baseline_cost),
        True,
    )


def _missed(trace: Trace, baseline_cost: float, protocol: str, target: float) -> OperatingPoint:
    nan, shares = float("nan"), np.full(len(trace.cost), np.nan)
    return OperatingPoint(protocol, float(target), nan, nan, nan, shares, float(baseline_cost), False)


def _check_target(target: float) -> None:
    if not target <= 1:  # also catches NaN
        raise TrecxError(f"a target accuracy is a fraction, at most 1, not {target}")


def paper_point(
    trace: Trace, target: float, baseline_cost: float = np.nan, grid: np.ndarray = PAPER_GRID
) -> OperatingPoint:
    """'Paper protocol': the grid threshold whose accuracy on these very samples is nearest to `target` (a fraction).

    That point may lie below the target, and it is chosen on the test set, as in Table 1. Equally near points: the
    cheapest. Not reached if the best accuracy on the grid is more than NEAREST_TOLERANCE below the target.
    """
    _check_target(target)
    curve = at_thresholds(trace, grid)
    if curve.accuracy.max() < target - NEAREST_TOLERANCE - _ROUNDING:
        return _missed(trace, baseline_cost, "paper", target)
    distance = np.round(np.abs(curve.accuracy - target) / _ROUNDING)
    nearest = np.lexsort((curve.cost, distance))[0]
    return point_at(trace, curve.thresholds[nearest], baseline_cost, "paper", target)


def chosen_point(
    val: Trace, test: Trace, target: float, target_on_test: float | None = None, baseline_cost: float = np.nan
) -> OperatingPoint:
    """'Validation protocol': the cheapest threshold whose validation accuracy is at least `target`, applied to test.

    `target_on_test` is the same request in terms of the test set, where the reference (say, the own final exit) has
    another accuracy there; it is only reported, the test set decides nothing. Not reached if no threshold attains
    `target` on validation; the test accuracy may then still fall on either side of its target.
    """
    _check_target(target)
    if val.rule != test.rule or not np.array_equal(val.cost, test.cost):
        raise TrecxError("the validation and the test trace must come from the same network and exit rule")
    target_on_test = target if target_on_test is None else target_on_test
    (threshold,) = cheapest_thresholds(val, [target])
    if np.isnan(threshold):
        return _missed(test, baseline_cost, "validation", target_on_test)
    return point_at(test, threshold, baseline_cost, "validation", target_on_test)


def point_at_cost(val: Trace, test: Trace, cost: float, baseline_cost: float = np.nan) -> OperatingPoint:
    """The highest threshold whose mean cost on validation is at most `cost`, applied to test.

    The mean cost on test may then lie a little above. Not reached if even the cheapest exit costs more.
    """
    (threshold,) = dearest_thresholds(val, [cost])
    if np.isnan(threshold):
        return _missed(test, baseline_cost, "validation", np.nan)
    return point_at(test, threshold, baseline_cost, "validation", np.nan)


def cheapest_thresholds(trace: Trace, targets: Sequence[float]) -> np.ndarray:
    """The cheapest threshold that keeps each accuracy (a fraction) on these samples, (m,); NaN where none does."""
    curve = benefit_curve(trace)
    # Cost falls along the curve, so the last one that is accurate enough is the cheapest.
    enough = [np.flatnonzero(curve.accuracy >= target - _ROUNDING) for target in targets]
    return np.array([curve.thresholds[kept[-1]] if len(kept) else np.nan for kept in enough])


def dearest_thresholds(trace: Trace, costs: Sequence[float]) -> np.ndarray:
    """The highest threshold whose mean cost on these samples is at most each cost, (m,); NaN where none is."""
    curve = benefit_curve(trace)
    enough = [np.flatnonzero(curve.cost <= cost) for cost in costs]
    return np.array([curve.thresholds[kept[0]] if len(kept) else np.nan for kept in enough])


def crossfit_point(trace: Trace, choose: Callable[[Trace, Trace], OperatingPoint], seed: int = 0) -> OperatingPoint:
    """'Other half': each half of the samples at the threshold that was chosen on the other half, both pooled.

    For networks that have no sample left to choose on. `choose(chosen_on, applied_to)` is mostly `chosen_point`; `seed`
    draws the halves. The point's threshold and target are means over the halves; it is reached only if both are.
    """
    order = np.random.default_rng(seed).permutation(len(trace.correct))
    a, b = (trace.take(half) for half in np.array_split(order, 2))
    first, second = choose(b, a), choose(a, b)

    def pooled(name: str) -> Any:
        weight = len(a.correct) / len(order)
        return weight * getattr(first, name) + (1 - weight) * getattr(second, name)

    return OperatingPoint(
        "other half",
        pooled("target"),
        pooled("threshold"),
        pooled("accuracy"),
        pooled("cost"),
        pooled("shares"),
        first.baseline_cost,
        first.reached and second.reached,
    )


def operating_points(
    test: Trace,
    baseline_cost: float,
    references: Mapping[str, float | tuple[float, float]],
    val: Trace | None = None,
    drops: Sequence[float] = (1, 2, 3),
) -> pd.DataFrame:
    """Operating points `drops` percentage points below each reference accuracy, under both protocols.

    references: name -> accuracy, the same on both sets (the paper's constant), or (on validation, on test) (our own
    baseline's mean). 'own final exit' is always added. Without `val` only the paper protocol is computed.
    Returns a tidy table: reference, drop, protocol, target, threshold, accuracy, cost, reduction, exit_rate (share that
    leaves before the final exit), reached.
    """
    own = (val.final_accuracy if val is not None else np.nan, test.final_accuracy)
    rows = []
    for reference, accuracy in {**references, "own final exit": own}.items():
        on_val, on_test = accuracy if isinstance(accuracy, tuple) else (accuracy, accuracy)
        for drop in drops:
            target = on_test - drop / 100
            points = [paper_point(test, target, baseline_cost)]
            if val is not None:
                points.append(chosen_point(val, test, on_val - drop / 100, target, baseline_cost))
            rows += [point_row(reference, drop, point) for point in points]
    return pd.DataFrame(rows)


def at(
    points: pd.DataFrame, *, reference: str = "own baseline", protocol: str = "validation", drop: float | None = 1
) -> pd.DataFrame:
    """The rows of a table of operating points `drop` percentage points (None: every one) below one reference."""
    kept = (points["reference"] == reference) & (points["protocol"] == protocol)
    return points[kept if drop is None else kept & (points["drop"] == drop)]


def point_row(reference: str, drop: float, point: OperatingPoint) -> dict[str, Any]:
    """A row of `operating_points`."""
    return {
        "reference": reference,
        "drop": drop,
        "protocol": point.protocol,
        "target": point.target,
        "threshold": point.threshold,
        "accuracy": point.accuracy,
        "cost": point.cost,
        "reduction": point.reduction,
        "exit_rate": 1 - point.shares[-1],
        "reached": point.reached,
    }


@dataclass(frozen=True, eq=False)
class Oracle:
    """What a perfect gate would reach: the earliest right exit, or the first exit where none is right.

    accuracy: an upper bound for every gate over the same exits; cost: the least cost at which it is attained. The four
    shares add up to 1; 'early' means that at least one early exit is right. limit_cost, limit_accuracy (K,): corners of
    the best possible benefit curve, straight in between; corner k is the oracle with the first k + 1 exits only.
    """

    accuracy: float
    cost: float
    both: float
    only_early: float
    only_final: float
    none: float
    limit_cost: np.ndarray
    limit_accuracy: np.ndarray

    @property
    def overthinking(self) -> float:
        """Share that was right early and is wrong at the end (destructive overthinking, Kaya et al. 2019)."""
        return self.only_early


def oracle(trace: Trace) -> Oracle:
    """Oracle gate of a trace, see `Oracle`."""
    correct, exits = trace.correct, len(trace.cost)
    early, final = correct[:, :-1].any(axis=1), correct[:, -1]
    first = np.where(correct.any(axis=1), correct.argmax(axis=1), exits)  # exits: none is right
    # One more right answer costs the least where the next exit gives it, so opening the exits in order is optimal.
    usable = [np.where(first <= k, first, 0) for k in range(exits)]
    limit_cost = np.array([trace.cost[leave].mean() for leave in usable])
    limit_accuracy = np.array([(first <= k).mean() for k in range(exits)])
    return Oracle(
        accuracy=float(limit_accuracy[-1]),
        cost=float(limit_cost[-1]),
        both=float((early & final).mean()),
        only_early=float((early & ~final).mean()),
        only_final=float((~early & final).mean()),
        none=float((~early & ~final).mean()),
        limit_cost=limit_cost,
        limit_accuracy=limit_accuracy,
    )
