"""From recorded predictions to benefit curves.

A network runs once over a data set; everything here works on the resulting `Trace`, for any threshold. Accuracies and
exit rates are fractions; costs keep the unit they come in (FLOPs, MACs, ms).
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from math import log, log1p
from typing import Literal

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike

from trecx.errors import TrecxError

SCORES = ("max_prob", "entropy", "margin")

RULES = (">", ">=")


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


def mixed(log_probs: np.ndarray, mix: float, first: int) -> np.ndarray:
    """Log probabilities (..., exits, C) where every answer after the first `first` exits keeps the share `mix` of the
    last of those: what a cascade says that mixes its answers.
    """
    if not mix:
        return log_probs
    kept, later = log_probs[..., first - 1 : first, :], log_probs[..., first:, :]
    later = np.logaddexp(kept + log(mix), later + log1p(-mix))
    return np.concatenate([log_probs[..., :first, :], later], axis=-2)


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

    @cached_property
    def highest(self) -> np.ndarray:
        """R_k (n, K-1): the highest score up to each early exit k."""
        return np.maximum.accumulate(self.scores, axis=1)

    def take(self, index: np.ndarray) -> "Trace":
        """The same network on the samples `index`, repeats allowed (for the bootstrap)."""
        taken = Trace(self.scores[index], self.correct[index], self.cost, self.rule)
        n = len(self.correct)
        taken.__dict__["_source"] = self, np.bincount(np.arange(n)[index], minlength=n)
        return taken

    # Curves are read from samples in the order of their scores. What `take` draws has the order of the trace that it is
    # drawn from, with a count for each sample, so that a bootstrap sorts once.
    @cached_property
    def _source(self) -> tuple["Trace", np.ndarray]:
        """A trace whose order serves, and how often each of its samples is in this one (n,)."""
        return self, np.ones(len(self.correct), dtype=int)

    @cached_property
    def _order(self) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
        """Of each early exit k: samples sorted by R_k; R_k; right at k less at k + 1."""
        made = []
        for k, best in enumerate(self.highest.T):
            order = np.argsort(best)
            swap = self.correct[order, k].astype(int) - self.correct[order, k + 1]
            made.append((order.astype(np.int32), best[order], swap.astype(np.int8)))
        return made

    @cached_property
    def _levels(self) -> tuple[np.ndarray, np.ndarray]:
        """Every threshold that can change the routing, rising from 0 to 1, and which of them is R_k (n, K-1)."""
        levels, place = np.unique(np.append(self.highest.ravel(), [0.0, 1.0]), return_inverse=True)
        return levels, place[:-2].reshape(self.highest.shape).astype(np.int32)

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
    source, counts = trace._source
    # A score equal to the threshold stays under `>` and leaves under `>=`.
    side: Literal["left", "right"] = "right" if trace.rule == ">" else "left"
    left = np.zeros((len(thresholds), exits + 1))  # samples that have left at exit k or before, k = 0 ... K
    left[:, exits] = n
    right = np.full(len(thresholds), np.count_nonzero(trace.correct[:, -1]))
    for k, (order, best, swap) in enumerate(source._order):
        stay, times = np.searchsorted(best, thresholds, side=side), counts[order]
        left[:, k + 1] = n - np.append(0, np.cumsum(times))[stay]
        # Who has left by exit k answers there rather than at k + 1; summed over k only the exit taken remains.
        right += np.append(np.cumsum((times * swap)[::-1])[::-1], 0)[stay]
    shares = np.diff(left, axis=1) / n
    return Curve(thresholds, right / n, shares @ trace.cost, shares)


def benefit_curve(trace: Trace) -> Curve:
    """The whole benefit curve: every routing that some threshold in [0, 1] can give, from 1.0 down to 0.0.

    Routing changes only where a threshold passes a running maximum of the scores, so these values (usable as they
    are with the trace's rule) and the two ends are all. Threshold 1 under `>` sends every sample to the final exit.
    The curve has total accuracies (eq. 2) as fractions, mean costs (eq. 3) in the unit of the trace, and exit rates.
    """
    source, counts = trace._source
    levels, place = source._levels
    there = np.zeros(len(levels), dtype=bool)
    there[[0, -1]] = True  # thresholds 0 and 1
    there[place[counts > 0]] = True
    return at_thresholds(trace, levels[there][::-1])


def mean_line(
    lines: Sequence[tuple[np.ndarray, np.ndarray]], at: np.ndarray | None = None, n: int = 200
) -> tuple[np.ndarray, np.ndarray]:
    """The mean of several lines, such as the benefit curves of seeds, each interpolated linearly.

    Args:
        lines: (x, y) of each, x rising.
        at: where it is wanted (m,); by default `n` points over the range that all lines cover.
        n: number of points where `at` is not given.

    Returns:
        Those x (m,) and the mean y (m,), NaN where a line does not reach.
    """
    if at is None:
        at = np.linspace(max(x[0] for x, _ in lines), min(x[-1] for x, _ in lines), n)
    return at, np.mean([np.interp(at, x, y, left=np.nan, right=np.nan) for x, y in lines], axis=0)


def varied(order: np.ndarray, labels: np.ndarray, n: int) -> list[int]:
    """The first `n` of `order`, taking each class once before any class twice."""
    counts: dict[int, int] = {}
    ranked = []
    for rank, index in enumerate(order):
        label = int(labels[index])
        ranked.append((counts.get(label, 0), rank, int(index)))
        counts[label] = counts.get(label, 0) + 1
    return [index for _, _, index in sorted(ranked)[:n]]
