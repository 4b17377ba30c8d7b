"""From recorded predictions to the paper's evaluation: benefit curves, operating points, oracle, calibration.

A network runs once over a data set; everything here works on the resulting `Trace`, for any threshold.
Accuracies, exit rates and reductions are fractions; costs keep the unit they come in (FLOPs, MACs, ms).
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from trecx.errors import TrecxError

SCORES = ("max_prob", "entropy", "margin")
RULES = (">", ">=")

# The authors' thresholds: the paper says 0 to 1 in steps of 0.01, the code takes these 101 points, 0.0099 apart
# (and 100 points for its keyword-spotting baselines).
PAPER_GRID = np.linspace(0.01, 1.0, 101)

# The nearest grid point always exists, even to a target that the network cannot reach. A curve whose best point
# lies lower than this below the target (0.05 points, half the last digit the paper prints) counts as not reaching it.
NEAREST_TOLERANCE = 0.0005

_ROUNDING = 1e-9  # accuracies are counts over n; differences below this are floating-point noise


def confidence(log_probs: np.ndarray, score: str = "max_prob") -> np.ndarray:
    """Confidence in [0, 1] of log probabilities (..., C), higher = more confident; shape (...).

    `max_prob` is the paper's (eq. 1). `entropy` is 1 - H / ln C: BranchyNet leaves where H is small. `margin` is
    the gap between the two largest probabilities.
    """
    if score not in SCORES:
        raise TrecxError(f"unknown score {score!r}: choose one of {', '.join(SCORES)}")
    log_probs = np.asarray(log_probs, dtype=float)
    probs = np.exp(log_probs)
    if probs.ndim < 1 or probs.shape[-1] < 2 or not np.allclose(probs.sum(axis=-1), 1, atol=1e-3):
        raise TrecxError("log_probs must hold the log of probabilities that add up to 1 over two or more classes")
    if score == "max_prob":
        value = probs.max(axis=-1)
    elif score == "entropy":
        # p ln p tends to 0 with p, where numpy would say 0 * -inf = nan.
        entropy = -np.sum(probs * np.where(probs > 0, log_probs, 0), axis=-1)
        value = 1 - entropy / np.log(probs.shape[-1])
    else:
        top = np.partition(probs, -2, axis=-1)
        value = top[..., -1] - top[..., -2]
    return np.clip(value, 0, 1)


@dataclass(frozen=True, eq=False)
class Trace:
    """What an early-exit network with K exits did on n samples: all that routing needs to know.

    scores: float (n, K-1), confidence in [0, 1] of each early exit. correct: bool (n, K), whether each exit is right.
    cost: float (K,), cumulative cost of leaving at each exit, every earlier head included (eq. 3). rule: a sample
    leaves at the first early exit whose score is `>` (authors' T-RecX) or `>=` (paper's eq. 1, authors' baselines) the
    one threshold, else at the final exit. Raises TrecxError where the arrays do not fit together.
    """

    scores: np.ndarray
    correct: np.ndarray
    cost: np.ndarray
    rule: str = ">"

    def __post_init__(self) -> None:
        scores, cost = np.asarray(self.scores, dtype=float), np.asarray(self.cost, dtype=float)
        correct = np.asarray(self.correct)
        if self.rule not in RULES:
            raise TrecxError(f"unknown exit rule {self.rule!r}: choose one of {', '.join(RULES)}")
        if correct.ndim != 2 or 0 in correct.shape or correct.dtype != bool:
            raise TrecxError(
                f"correct must be a boolean array (samples, exits), not {correct.dtype} of shape {correct.shape}"
            )
        n, exits = correct.shape
        if scores.shape != (n, exits - 1) or cost.shape != (exits,):
            raise TrecxError(
                f"{n} samples and {exits} exits need scores of shape {(n, exits - 1)} and cost of shape {(exits,)}, "
                f"not {scores.shape} and {cost.shape}"
            )
        if not np.all((scores >= 0) & (scores <= 1)):  # also catches NaN
            raise TrecxError("scores must lie in [0, 1], so that one threshold in [0, 1] serves every exit")
        if not (cost[0] >= 0 and np.all(np.diff(cost) >= 0)):
            raise TrecxError(f"cost must be cumulative, so it cannot fall from one exit to the next: {cost.tolist()}")
        for name, value in (("scores", scores), ("correct", correct), ("cost", cost)):
            object.__setattr__(self, name, value)

    @classmethod
    def from_log_probs(
        cls,
        log_probs: np.ndarray,
        labels: np.ndarray,
        cost: ArrayLike,
        rule: str = ">",
        score: str = "max_prob",
    ) -> "Trace":
        """Trace from each exit's log probabilities (n, K, C), final exit last, and integer labels (n,)."""
        log_probs, labels = np.asarray(log_probs), np.asarray(labels)
        if log_probs.ndim != 3 or labels.shape != log_probs.shape[:1]:
            raise TrecxError(
                "log_probs must have shape (samples, exits, classes) and labels (samples,), "
                f"not {log_probs.shape} and {labels.shape}"
            )
        correct = log_probs.argmax(axis=2) == labels[:, None]
        return cls(confidence(log_probs, score)[:, :-1], correct, np.asarray(cost), rule)

    @property
    def standalone(self) -> np.ndarray:
        """Accuracy (K,) of each exit when every sample goes through it."""
        return self.correct.mean(axis=0)

    @property
    def final_accuracy(self) -> float:
        return float(self.correct[:, -1].mean())

    def take(self, index: np.ndarray) -> "Trace":
        """The same network on the samples `index`, repeats allowed (for the bootstrap)."""
        return Trace(self.scores[index], self.correct[index], self.cost, self.rule)

    def leave(self, threshold: float) -> np.ndarray:
        """Exit (n,), counted from 0, at which each sample leaves for this threshold (eq. 1)."""
        _check_thresholds(threshold)
        sure = self.scores > threshold if self.rule == ">" else self.scores >= threshold
        # The final exit takes all that reach it; argmax finds the first exit that is sure.
        return np.argmax(np.column_stack([sure, np.ones(len(sure), dtype=bool)]), axis=1)

    def outcome(self, threshold: float) -> tuple[np.ndarray, np.ndarray]:
        """Per sample at this threshold: whether the answer given is right (n,), and what it cost (n,)."""
        exits = self.leave(threshold)
        return self.correct[np.arange(len(exits)), exits], self.cost[exits]


def _check_thresholds(thresholds: ArrayLike) -> np.ndarray:
    thresholds = np.asarray(thresholds, dtype=float)
    if not np.all((thresholds >= 0) & (thresholds <= 1)):
        raise TrecxError("a confidence threshold must lie between 0 and 1")
    return thresholds


@dataclass(frozen=True, eq=False)
class Curve:
    """Routing at m thresholds: thresholds (m,), total accuracy (m,) (eq. 2), mean cost (m,), exit rates (m, K)."""

    thresholds: np.ndarray
    accuracy: np.ndarray
    cost: np.ndarray
    shares: np.ndarray

    def frame(self) -> pd.DataFrame:
        """One row per threshold; exit rates in columns exit_1 ... exit_K."""
        shares = {f"exit_{k + 1}": self.shares[:, k] for k in range(self.shares.shape[1])}
        return pd.DataFrame({"threshold": self.thresholds, "accuracy": self.accuracy, "cost": self.cost, **shares})


def at_thresholds(trace: Trace, thresholds: ArrayLike) -> Curve:
    """Accuracy (eq. 2), mean cost (eq. 3) and exit rates at the given thresholds in [0, 1], in their order.

    With R_k the highest score up to exit k, a sample has left at exit k or before exactly if R_k passes the threshold.
    So each R_k is sorted once, and all thresholds are read from running sums: O((n + m) K log n), no loop over m.
    """
    thresholds = np.atleast_1d(_check_thresholds(thresholds))
    n, exits = trace.correct.shape
    best = np.maximum.accumulate(trace.scores, axis=1)
    # A score equal to the threshold stays under `>` and leaves under `>=`.
    side: Literal["left", "right"] = "right" if trace.rule == ">" else "left"
    left = np.zeros((len(thresholds), exits + 1))  # samples that have left at exit k or before, k = 0 ... K
    left[:, exits] = n
    right = np.full(len(thresholds), np.count_nonzero(trace.correct[:, -1]))
    for k in range(exits - 1):
        order = np.argsort(best[:, k])
        stay = np.searchsorted(best[order, k], thresholds, side=side)
        left[:, k + 1] = n - stay
        # Who has left by exit k answers there rather than at k + 1; summed over k only the exit taken remains.
        swap = trace.correct[order, k].astype(int) - trace.correct[order, k + 1]
        right += np.append(np.cumsum(swap[::-1])[::-1], 0)[stay]
    shares = np.diff(left, axis=1) / n
    return Curve(thresholds, right / n, shares @ trace.cost, shares)


def benefit_curve(trace: Trace) -> Curve:
    """The whole benefit curve: every routing that some threshold in [0, 1] can give, from 1.0 down to 0.0.

    Routing changes only where a threshold passes a running maximum of the scores, so these values (usable as they
    are with the trace's rule) and the two ends are all. Threshold 1 under `>` sends every sample to the final exit.
    """
    best = np.maximum.accumulate(trace.scores, axis=1)
    return at_thresholds(trace, np.unique(np.append(best.ravel(), [0.0, 1.0]))[::-1])


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
    curve = at_thresholds(trace, [threshold])
    return OperatingPoint(
        protocol,
        float(target),
        float(threshold),
        float(curve.accuracy[0]),
        float(curve.cost[0]),
        curve.shares[0],
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
    curve = benefit_curve(val)
    enough = np.flatnonzero(curve.accuracy >= target - _ROUNDING)
    if not len(enough):
        return _missed(test, baseline_cost, "validation", target_on_test)
    # Cost falls with the threshold, so the last one is the cheapest.
    return point_at(test, curve.thresholds[enough[-1]], baseline_cost, "validation", target_on_test)


def point_at_cost(val: Trace, test: Trace, cost: float, baseline_cost: float = np.nan) -> OperatingPoint:
    """The highest threshold whose mean cost on validation is at most `cost`, applied to test.

    The mean cost on test may then lie a little above. Not reached if even the cheapest exit costs more.
    """
    curve = benefit_curve(val)
    enough = np.flatnonzero(curve.cost <= cost)
    if not len(enough):
        return _missed(test, baseline_cost, "validation", np.nan)
    # Cost falls along the curve, so the first one is the dearest that is allowed.
    return point_at(test, curve.thresholds[enough[0]], baseline_cost, "validation", np.nan)


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


def reliability_bins(conf: np.ndarray, correct: np.ndarray, bins: int = 15) -> pd.DataFrame:
    """Reliability diagram of confidences (n,) in [0, 1] (maximum probabilities) and hits (n,).

    One row per bin (low, high]: low, high, count, and the mean confidence and accuracy in it (NaN where empty).
    """
    conf, correct = np.asarray(conf, dtype=float), np.asarray(correct, dtype=float)
    if bins < 1:
        raise TrecxError(f"a reliability diagram needs at least one bin, not {bins}")
    if conf.ndim != 1 or conf.shape != correct.shape or not np.all((conf >= 0) & (conf <= 1)):
        raise TrecxError("confidences and hits must be two lists of the same length, the confidences in [0, 1]")
    edges = np.linspace(0, 1, bins + 1)
    index = np.searchsorted(edges[1:-1], conf, side="left")
    count = np.bincount(index, minlength=bins)
    with np.errstate(invalid="ignore"):  # 0 / 0 in an empty bin
        mean_conf = np.bincount(index, conf, bins) / count
        accuracy = np.bincount(index, correct, bins) / count
    return pd.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "count": count, "confidence": mean_conf, "accuracy": accuracy}
    )


def expected_calibration_error(conf: np.ndarray, correct: np.ndarray, bins: int = 15) -> float:
    """Mean gap between confidence and accuracy over equal-width bins, weighted by their counts (Guo et al. 2017)."""
    table = reliability_bins(conf, correct, bins)
    gap = (table["confidence"] - table["accuracy"]).abs()
    return float((gap * table["count"]).sum() / table["count"].sum())  # the sum skips the NaN of empty bins


def varied(order: np.ndarray, labels: np.ndarray, n: int) -> list[int]:
    """The first `n` of `order`, taking each class once before any class twice."""
    counts: dict[int, int] = {}
    ranked = []
    for rank, index in enumerate(order):
        label = int(labels[index])
        ranked.append((counts.get(label, 0), rank, int(index)))
        counts[label] = counts.get(label, 0) + 1
    return [index for _, _, index in sorted(ranked)[:n]]
