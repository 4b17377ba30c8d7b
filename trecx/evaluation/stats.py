"""Intervals and tests for numbers that vary with the seed and with the test sample. Everything random is seeded.

A target that was not reached is NaN; every function here passes that on or refuses it, none leaves it out.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy import stats

from trecx.errors import TrecxError
from trecx.evaluation.points import OperatingPoint
from trecx.evaluation.trace import Trace

EXACT_UP_TO = 12  # differences; 2**12 sign patterns are still listed in full


class Interval(NamedTuple):
    """A value with the two ends of its interval, in the value's unit."""

    estimate: float
    low: float
    high: float

    def in_points(self) -> "Interval":
        """The same of fractions, as percentage points."""
        return Interval(*(100 * value for value in self))


def mean_interval(values: ArrayLike, level: float = 0.95) -> Interval:
    """Mean of per-seed values with Student's t interval; all NaN if any is NaN.

    No interval (NaN) from fewer than three values: with two there is one degree of freedom, and the interval is
    mostly far too wide, sometimes no wider than a point.
    """
    values = _line(values, "values")
    mean, n = float(values.mean()), len(values)
    if n < 3:
        return Interval(mean, np.nan, np.nan)
    half = stats.t.ppf((1 + _level(level)) / 2, n - 1) * values.std(ddof=1) / np.sqrt(n)
    return Interval(mean, float(mean - half), float(mean + half))


class Jackknife(NamedTuple):
    """How far an estimate varies with the trainings of its reference: its variance, and how many trainings show it."""

    variance: float
    trainings: int


def leaving_one_out(values: ArrayLike) -> NDArray[np.float64]:
    """Means of all values but one, each left out in turn: (n,); empty for a single value."""
    line = _line(values, "values")
    # Not from their sum, whose rounding can lift a mean of ones above one.
    return np.array([np.delete(line, k).mean() for k in range(len(line))]) if len(line) > 1 else np.empty(0)


def jackknife(estimates: ArrayLike) -> Jackknife:
    """Variance of an estimate from those that leave out one training each (Tukey 1958); NaN from fewer than two.

    For a mean of n values it is their variance over n.
    """
    line = np.asarray(estimates, dtype=float)
    n = len(line)
    return Jackknife(float((n - 1) * line.var()) if n > 1 else np.nan, n)


def mean_of_means(
    groups: Sequence[ArrayLike],
    level: float = 0.95,
    known: Sequence[float] = (),
    references: Sequence[Jackknife] = (),
) -> Interval:
    """Mean of the means of independent groups (tasks) of per-seed values, all groups weighing the same.

    The interval is Welch's: standard errors add in squares, degrees of freedom by Satterthwaite. `known` are variances
    of the groups' means that seeds do not show, such as those of the test set; they count as exact. `references` are
    those that come from the trainings of what a group is measured against. They add up as if the two were independent,
    which makes the interval too wide, not too narrow, where a group is built of its own reference. No interval (NaN)
    where a group has fewer than three values or no group varies; all NaN if any value is NaN.
    """
    lines = [_line(group, "values") for group in groups]
    mean = float(np.mean([line.mean() for line in lines]))
    if min(map(len, lines)) < 3:
        return Interval(mean, np.nan, np.nan)
    errors = np.array([line.var(ddof=1) / len(line) for line in lines])  # squared standard errors
    if not errors.sum() > 0:
        return Interval(mean, np.nan, np.nan)
    if not all(np.isfinite(reference.variance) for reference in references):
        return Interval(mean, np.nan, np.nan)
    total = errors.sum() + sum(known) + sum(reference.variance for reference in references)
    estimated = [(e, len(line)) for e, line in zip(errors, lines, strict=True)] + [*references]
    freedom = total**2 / sum(variance**2 / (n - 1) for variance, n in estimated)
    half = float(stats.t.ppf((1 + _level(level)) / 2, freedom) * np.sqrt(total) / len(lines))
    return Interval(mean, mean - half, mean + half)


def percentile_interval(replicates: ArrayLike, estimate: float, level: float = 0.95) -> Interval:
    """Percentile bootstrap interval around `estimate`, for a quantity of which more is better.

    A NaN replicate (target not reached) counts as the worst outcome; an end that falls among these is NaN.
    """
    replicates, tail = _line(replicates, "replicates"), (1 - _level(level)) / 2
    # Infinite stand-ins: interpolating towards one gives an infinite or undefined end, never a made-up number.
    with np.errstate(invalid="ignore"):
        ends = np.quantile(np.where(np.isnan(replicates), -np.inf, replicates), [tail, 1 - tail])
    low, high = np.where(np.isfinite(ends), ends, np.nan)
    return Interval(float(estimate), float(low), float(high))


@dataclass(frozen=True, eq=False)
class PointBootstrap:
    """Bootstrap of one operating point over the samples of its data sets.

    point: on the original samples. fixed, rechosen: one row per resample with columns accuracy and reduction,
    at the original threshold, and with the threshold chosen anew on each resample (NaN where not reached).
    Rows of two bootstraps with the same number of resamples may be averaged one by one (mean over tasks).
    """

    point: OperatingPoint
    fixed: pd.DataFrame
    rechosen: pd.DataFrame

    def summary(self, level: float = 0.95) -> pd.DataFrame:
        """Rows: threshold (fixed, re-chosen) by quantity. Columns: estimate, low, high, reached (resamples' share)."""
        rows = []
        for threshold, table in (("fixed", self.fixed), ("re-chosen", self.rechosen)):
            for quantity in table.columns:
                interval = percentile_interval(table[quantity], getattr(self.point, quantity), level)
                reached = float(table[quantity].notna().mean())
                rows.append({"threshold": threshold, "quantity": quantity, **interval._asdict(), "reached": reached})
        return pd.DataFrame(rows)


def bootstrap_points(
    test: Trace,
    choose: Callable[[Trace | None, Trace], OperatingPoint],
    val: Trace | None = None,
    resamples: int = 1000,
    seed: int = 0,
) -> PointBootstrap:
    """Resample test (and, independently, validation) samples and look at an operating point again.

    `choose(val, test)` picks the point: `lambda val, test: chosen_point(val, test, target, baseline_cost=cost)`, or,
    with a reference that is resampled too, `lambda _, test: paper_point(test, test.final_accuracy - 0.01, cost)`.
    All exits of a sample stay together. Resampling covers the finite data sets only, not the training seed.
    """
    rng = _rng(resamples, seed)
    point = choose(val, test)
    if point.reached:
        correct, cost = test.outcome(point.threshold)
    fixed, rechosen = [], []
    for _ in range(resamples):
        draw = rng.integers(len(test.correct), size=len(test.correct))
        val_draw = None if val is None else val.take(rng.integers(len(val.correct), size=len(val.correct)))
        again = choose(val_draw, test.take(draw))
        rechosen.append((again.accuracy, again.reduction))
        if point.reached:
            fixed.append((correct[draw].mean(), 1 - cost[draw].mean() / point.baseline_cost))
        else:
            fixed.append((np.nan, np.nan))
    columns = ["accuracy", "reduction"]
    return PointBootstrap(point, pd.DataFrame(fixed, columns=columns), pd.DataFrame(rechosen, columns=columns))


def paired_difference(a: np.ndarray, b: np.ndarray, level: float = 0.95) -> Interval:
    """Mean of a - b over seeds and samples, with an interval for other seeds and other samples together.

    a, b: (seeds, n), per-sample hits or costs of two methods, row by row the same seed and column by column the same
    sample. All seeds share one test set, so seeds and samples are crossed random effects of a two-way table. Its three
    mean squares give an unbiased variance of the grand mean, MS_seed + MS_sample - MS_rest over the number of cells
    (not below that of seeds or samples alone), and Satterthwaite's degrees of freedom give Student's quantile
    (Satterthwaite 1946). A bootstrap over two or three seeds would be too narrow. With one seed the interval is over
    samples alone. Raises TrecxError where the shapes differ or a value is NaN.
    """
    a, b = np.atleast_2d(np.asarray(a, dtype=float)), np.atleast_2d(np.asarray(b, dtype=float))
    if a.shape != b.shape or a.ndim != 2 or a.shape[0] < 1 or a.shape[1] < 2:
        raise TrecxError(f"paired methods need two arrays of one shape (seeds, samples), not {a.shape} and {b.shape}")
    difference = a - b
    _complete(difference.ravel(), "differences")
    seeds, n = difference.shape
    mean, by_seed, by_sample = difference.mean(), difference.mean(1, keepdims=True), difference.mean(0, keepdims=True)
    terms, freedom = [by_sample.var(ddof=1) / n], [n - 1]  # a mean square over the number of cells each
    if seeds > 1:
        rest = ((difference - by_seed - by_sample + mean) ** 2).sum() / ((seeds - 1) * (n - 1))
        terms += [by_seed.var(ddof=1) / seeds, -rest / (seeds * n)]
        freedom += [seeds - 1, (seeds - 1) * (n - 1)]
    variance = max(sum(terms), *terms)
    if not variance > 0:
        return Interval(float(mean), float(mean), float(mean))
    effective = variance**2 / sum(term**2 / k for term, k in zip(terms, freedom, strict=True))
    half = stats.t.ppf((1 + _level(level)) / 2, max(effective, min(freedom))) * np.sqrt(variance)
    return Interval(float(mean), float(mean - half), float(mean + half))


def bootstrap_statistics(
    a: np.ndarray,
    b: np.ndarray,
    statistics: Callable[[np.ndarray], np.ndarray],
    resamples: int = 500,
    seed: int = 0,
    level: float = 0.95,
) -> list[Interval]:
    """Differences of statistics of two methods, with the percentile intervals of a paired two-way bootstrap.

    a, b: (seeds, n), paired as in `paired_difference`; seeds and samples are drawn independently of each other and
    crossed. With two or three seeds the intervals are too narrow. `statistics` takes such an array and gives one or
    more numbers, (k,).
    """
    if a.shape != b.shape or a.ndim != 2 or a.size == 0:
        raise TrecxError(f"paired methods need two arrays of one shape (seeds, samples), not {a.shape} and {b.shape}")
    rng, (seeds, n) = _rng(resamples, seed), a.shape
    found = []
    for _ in range(resamples):
        drawn = np.ix_(rng.integers(seeds, size=seeds), rng.integers(n, size=n))
        found.append(statistics(a[drawn]) - statistics(b[drawn]))
    estimates = np.atleast_1d(statistics(a) - statistics(b))
    return [percentile_interval(line, x, level) for line, x in zip(np.array(found).T, estimates, strict=True)]


def sign_flip_test(differences: ArrayLike, resamples: int = 9999, seed: int = 0) -> float:
    """Two-sided p value of the paired sign-flip permutation test that the mean difference is zero.

    Exact up to EXACT_UP_TO differences, else Monte Carlo with `resamples` random sign patterns. The smallest possible
    p is 2 / 2**n, so n = 5 seeds cannot fall below 0.0625. Raises TrecxError on a NaN (target not reached).
    """
    differences = _complete(differences, "differences")
    if len(differences) == 1:
        return 1.0  # one difference and its mirror image; scipy asks for two
    exact = len(differences) <= EXACT_UP_TO
    result = stats.permutation_test(
        (differences,),
        np.mean,
        permutation_type="samples",
        n_resamples=np.inf if exact else resamples,
        rng=_rng(resamples, seed),
    )
    return float(result.pvalue)


def probability_of_improvement(
    a: ArrayLike, b: ArrayLike, resamples: int = 2000, seed: int = 0, level: float = 0.95
) -> Interval:
    """P(A > B) over pairs with the same seed, a tie counting one half, with a percentile bootstrap interval.

    Bouthillier et al. (2021) call an improvement meaningful above 0.75 if the interval also stays above 0.5.
    Raises TrecxError on a NaN (target not reached).
    """
    a, b = _complete(a, "a"), _complete(b, "b")
    if len(a) != len(b):
        raise TrecxError(f"P(A > B) compares pairs with the same seed, not {len(a)} runs with {len(b)}")
    wins = (a > b) + 0.5 * (a == b)
    draws = _rng(resamples, seed).integers(len(wins), size=(resamples, len(wins)))
    return percentile_interval(wins[draws].mean(axis=1), float(wins.mean()), level)


def holm(pvalues: ArrayLike) -> np.ndarray:
    """Holm's adjusted p values (family-wise error rate), in the order given."""
    pvalues = _complete(pvalues, "p values")
    if not np.all((pvalues >= 0) & (pvalues <= 1)):
        raise TrecxError("p values must lie between 0 and 1")
    order = np.argsort(pvalues)
    factors = np.arange(len(pvalues), 0, -1)
    adjusted = np.empty(len(pvalues))
    adjusted[order] = np.minimum(1, np.maximum.accumulate(factors * pvalues[order]))
    return adjusted


def _line(values: ArrayLike, name: str) -> np.ndarray:
    values = np.asarray(values, dtype=float)
    if values.ndim != 1 or len(values) == 0:
        raise TrecxError(f"{name} must be a list of at least one number")
    return values


def _complete(values: ArrayLike, name: str) -> np.ndarray:
    values = _line(values, name)
    if np.isnan(values).any():
        raise TrecxError(f"{name} hold a NaN (a target that was not reached), and such a run cannot be left out")
    return values


def _level(level: float) -> float:
    if not 0 < level < 1:
        raise TrecxError(f"a confidence level must lie between 0 and 1, not {level}")
    return level


def _rng(resamples: int, seed: int) -> np.random.Generator:
    if resamples < 1:
        raise TrecxError(f"at least one resample is needed, not {resamples}")
    return np.random.default_rng(seed)
