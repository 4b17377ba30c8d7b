"""Thresholds with a guarantee: the accuracy lost stays below a limit with a chosen probability.

Learn then test (Angelopoulos et al. 2021) with fixed-sequence testing: thresholds are tried from the highest, at which
the whole network answers, downwards, and the last one before the first that fails is taken. Whether a threshold
passes is decided by a test that is valid for any number of samples: betting on bounded values (Waudby-Smith and Ramdas
2024), as in Jazbec et al. 2024, 'Fast yet Safe'. The loss of a sample is paired with what the reference answered there.
"""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from trecx.errors import TrecxError
from trecx.evaluation.trace import Trace

# Of the largest stake that could lose everything: the bet stays solvent, as its authors advise.
_STAKE = 0.75


def excess_pvalue(losses: NDArray[np.floating], limit: float, level: float = 0.1) -> float:
    """p value, valid at any sample size, of the hypothesis that the mean loss is `limit` or more.

    Args:
        losses: (n,) independent values in [-1, 1], in an order that says nothing about them.
        limit: in the same unit, in (-1, 1).
        level: at which the test is to be sharpest; valid at every other.

    Raises:
        TrecxError: losses or limit out of range, or no sample.
    """
    losses = np.asarray(losses, dtype=float)
    if losses.ndim != 1 or not len(losses) or not np.all(np.abs(losses) <= 1):
        raise TrecxError("losses must be a list of at least one number between -1 and 1")
    if not -1 < limit < 1:
        raise TrecxError(f"limit {limit} is impossible: choose a mean loss between -1 and 1")
    x, mean, n = (losses + 1) / 2, (limit + 1) / 2, len(losses)
    # Every stake depends on earlier samples only, so that under the hypothesis the capital cannot be expected to grow.
    count = np.arange(1, n + 1)
    centre = (0.5 + np.cumsum(x)) / (count + 1)
    spread = (0.25 + np.cumsum((x - centre) ** 2)) / (count + 1)
    stake = np.sqrt(2 * np.log(1 / level) / (n * np.append(0.25, spread[:-1])))
    stake = np.minimum(stake, _STAKE / (1 - mean))
    capital = np.cumsum(np.log1p(-stake * (x - mean)))
    return float(np.exp(-max(0.0, capital.max())))  # Ville's inequality


def certified_threshold(
    traces: Sequence[Trace],
    reference: NDArray[np.floating],
    limit: float,
    confidence: float,
    thresholds: NDArray[np.floating],
) -> float | None:
    """The lowest threshold that surely enough loses at most `limit` against the reference, None if none does.

    With probability `confidence` or more over the samples, the networks' mean accuracy at this threshold, on the
    population, is at most `limit` below that of the reference. Networks and thresholds must come from other samples.

    Args:
        traces: of the same n samples, one a network (seed); their mean accuracy is what counts.
        reference: (n,) how often the reference is right on each sample: hits, or their mean over its own seeds.
        limit: accuracy that may be lost, a fraction.
        confidence: in (0, 1).
        thresholds: to try, in [0, 1]; they are tried from the highest on.
    """
    if not 0 < confidence < 1:
        raise TrecxError(f"guarantee {confidence} is impossible: choose a probability between 0 and 1, such as 0.9")
    passed = None
    for threshold in np.sort(np.asarray(thresholds, dtype=float))[::-1]:
        right = np.mean([trace.outcome(threshold)[0] for trace in traces], axis=0)
        if excess_pvalue(reference - right, limit, 1 - confidence) > 1 - confidence:
            break
        passed = float(threshold)
    return passed
