"""Other rules of leaving than one threshold on the largest softmax value, tried on recorded answers.

A rule is learned on validation: how likely it is that going on would not mend an early answer. Half of the samples
learn the score of the other half, so that the threshold is chosen on samples that a score has not seen; on test the two
scores are averaged. No network is trained.
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

from trecx.analysis.beyond import ROWS, Benchmark, Found, benchmarks, saving
from trecx.analysis.choice import Candidate
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
    half = np.random.default_rng(0).permutation(len(right)) % _HALVES
    made = {split: np.zeros((len(answers), answers.shape[1] - 1)) for split, answers in said.items()}
    for k in range(right.shape[1] - 1):
        enough = right[:, k] | ~right[:, -1]
        val, test = (features(said[split][:, k]) for split in ("val", "test"))
        for number in range(_HALVES):
            likely = logistic(val[half != number], enough[half != number])
            made["val"][half == number, k] = likely(val[half == number])
            made["test"][:, k] += likely(test) / _HALVES
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

    Columns: task, way, network, rule (ONE or one of GATES), saved (percent of the baseline's cost, one point below it),
    low, high (95 %), given up (points on test), reached (seeds that keep the accuracy on validation); a row a rule.
    `here`: as in `savings`.
    """
    columns, rows = ("saved", "low", "high", "given up", "reached"), []
    for task, benchmark in (here or benchmarks(found, unit)).items():
        for way in (way for way in ROWS if way != "static"):
            best = benchmark.best(way, 1)
            if best is None:
                continue
            one, score = best
            ruled = {name: Gated(one.label, one.family, one.records, features) for name, features in GATES.items()}
            for rule, candidate in {ONE: one, **ruled}.items():
                line = saving(benchmark, candidate, 1, score).row(memory=False)
                row: dict[str, Any] = {"task": task, "way": ROWS[way], "network": one.label, "rule": rule}
                rows.append(row | {name: line[name] for name in columns})
    return pd.DataFrame(rows, columns=["task", "way", "network", "rule", *columns])
