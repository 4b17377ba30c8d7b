"""Other rules of leaving than one threshold on the largest softmax value, tried on recorded answers.

A rule is learned on validation: how likely it is that going on would not mend an early answer. Half of the samples
learn the score of the other half, so that the threshold is chosen on samples that a score has not seen. Each half also
scores half of the test samples: a mean of the two scores would be less extreme than those that the threshold is chosen
on. No network is trained.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.optimize import minimize
from scipy.special import expit, log_expit

from trecx.analysis.beyond import ROWS, Benchmark, Found, benchmarks, by_seed
from trecx.analysis.choice import Candidate
from trecx.evaluation.points import OperatingPoint
from trecx.evaluation.stats import paired_difference
from trecx.evaluation.trace import Trace
from trecx.experiments.records import Record

Floats = NDArray[np.float64]
Features = Callable[[Floats], Floats]  # an exit's log probabilities (n, classes) -> (n, features)

_LEAST = -20.0  # log probabilities and logits are cut here: what is smaller tells nothing more
_HALVES = 2


def per_class(log_probs: Floats) -> Floats:
    """Of the class that is answered, whether it is this one, and its logit: a threshold for each class."""
    best = log_probs.max(1)
    logit = best - np.log(np.maximum(-np.expm1(np.minimum(best, 0)), np.exp(_LEAST)))
    answered = _answered(log_probs)
    return np.concatenate([answered, answered * np.maximum(logit, _LEAST)[:, None]], axis=1)


def whole_answer(log_probs: Floats) -> Floats:
    """All log probabilities, the largest first, and the class that is answered: a gate on the whole answer."""
    ranked = -np.sort(-log_probs, axis=1)
    return np.concatenate([np.maximum(ranked, _LEAST), _answered(log_probs)], axis=1)


def _answered(log_probs: Floats) -> Floats:
    return np.eye(log_probs.shape[1])[log_probs.argmax(1)]


ONE = "one threshold"
GATES: dict[str, Features] = {"a threshold a class": per_class, "a learned gate": whole_answer}


def logistic(x: Floats, y: NDArray[np.bool_]) -> Callable[[Floats], Floats]:
    """Logistic regression of y (n,) on x (n, features): what gives the probability of True for rows of features.

    Features are scaled to unit variance; the sum of the losses has half the sum of squares of the weights beside it.
    """
    mean, spread = x.mean(0), np.where(x.std(0) > 0, x.std(0), 1)
    rows, signs = (x - mean) / spread, np.where(y, 1.0, -1.0)

    def loss(w: Floats) -> tuple[float, Floats]:
        margins = signs * (w[0] + rows @ w[1:])
        slopes = -signs * expit(-margins)
        value = -log_expit(margins).sum() + 0.5 * w[1:] @ w[1:]
        return value, np.append(slopes.sum(), rows.T @ slopes + w[1:])

    w = minimize(loss, np.zeros(x.shape[1] + 1), jac=True, method="L-BFGS-B").x
    return lambda new: expit(w[0] + (new - mean) / spread @ w[1:])


def scores(record: Record, features: Features) -> dict[str, Floats]:
    """`val` and `test` -> the score (n, early exits) of every early answer of a record."""
    said = {split: np.asarray(record.predictions[f"{split}_log_probs"], dtype=float) for split in ("val", "test")}
    right = said["val"].argmax(2) == record.predictions["val_labels"][:, None]
    draw = np.random.default_rng(0)
    half = {split: draw.permutation(len(answers)) % _HALVES for split, answers in said.items()}
    made = {split: np.zeros((len(answers), answers.shape[1] - 1)) for split, answers in said.items()}
    for k in range(right.shape[1] - 1):
        enough = right[:, k] | ~right[:, -1]
        x = {split: features(answers[:, k]) for split, answers in said.items()}
        for number in range(_HALVES):
            learns = half["val"] != number
            likely = logistic(x["val"][learns], enough[learns])
            for split, rows in half.items():
                made[split][rows == number, k] = likely(x[split][rows == number])
    return made


@dataclass(frozen=True, eq=False)
class Gated(Candidate):
    """A candidate whose samples leave by a learned score."""

    features: Features

    @cached_property
    def _scores(self) -> list[dict[str, Floats]]:
        return [scores(record, self.features) for record in self.records]

    def traces(self, split: str, unit: str = "flops") -> list[Trace]:
        """As of any candidate; what the score itself costs is left out."""
        plain = super().traces(split, unit)
        both = zip(plain, self._scores, strict=True)
        return [Trace(learned[split], trace.correct, trace.cost, trace.rule) for trace, learned in both]


def gates(found: Found, unit: str = "flops", here: Mapping[str, Benchmark] | None = None) -> pd.DataFrame:
    """What the networks of `trecx.analysis.beyond.savings` save if another rule says who leaves.

    Columns: task, way, network, rule (ONE or one of GATES), saved (percent of the baseline's cost, one point below it,
    mean over seeds), more (than with one threshold, percentage points, paired by seed and sample), more, low, more,
    high (95 %, the rules and thresholds as they were learned), given up (points on test), reached (seeds that keep the
    accuracy on validation); a row a rule. `here`: as in `savings`.
    """
    columns = ("task", "way", "network", "rule", "saved", "more", "more, low", "more, high", "given up", "reached")
    rows: list[dict[str, Any]] = []
    for task, benchmark in (here or benchmarks(found, unit)).items():
        for way in (way for way in ROWS if way != "static"):
            best = benchmark.best(way, 1)
            if best is None:
                continue
            one = best[0]
            ruled = {name: Gated(one.label, one.family, one.records, features) for name, features in GATES.items()}
            plain = None
            for rule, candidate in {ONE: one, **ruled}.items():
                test = candidate.traces("test", unit)
                points, saved, lost = by_seed(benchmark, candidate.traces("val", unit), test, 1)
                paid = np.stack([_paid(point, trace) for point, trace in zip(points, test, strict=True)])
                plain = paid if plain is None else plain
                more = paired_difference(100 * plain / benchmark.base, 100 * paid / benchmark.base)
                row: dict[str, Any] = {"task": task, "way": ROWS[way], "network": one.label, "rule": rule}
                row |= {"saved": float(saved.mean()), "given up": float(lost.mean())}
                if rule != ONE:
                    row |= {"more": more.estimate, "more, low": more.low, "more, high": more.high}
                rows.append(row | {"reached": f"{sum(point.reached for point in points)} of {len(points)}"})
    return pd.DataFrame(rows, columns=columns)


def _paid(point: OperatingPoint, trace: Trace) -> Floats:
    """What each sample costs (n,) at a point; where none was found, the unmodified network."""
    return trace.outcome(point.threshold)[1] if point.reached else np.full(len(trace.correct), point.baseline_cost)
