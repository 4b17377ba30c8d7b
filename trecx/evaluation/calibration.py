"""Whether a confidence means what it says: reliability, calibration error and temperature scaling (Guo et al. 2017).

The logits of an exit are divided by a temperature T, fitted on validation samples. T > 1 lowers confidences. The
predicted class stays, and so does the order of the samples at one exit: with one early exit the benefit curve is the
same, and only its thresholds are others.
"""

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from trecx.errors import TrecxError

LOWEST, HIGHEST = 0.05, 20.0  # temperatures looked at


def scaled(log_probs: ArrayLike, temperature: ArrayLike) -> NDArray[np.float64]:
    """Log probabilities (..., C) under a temperature, or under one an exit: log_probs (n, K, C), temperature (K,)."""
    return log_softmax(np.asarray(log_probs, dtype=float) / np.asarray(temperature, dtype=float)[..., None], axis=-1)


def negative_log_likelihood(log_probs: ArrayLike, labels: ArrayLike) -> float:
    """Mean over samples of minus the log probability (n, C) of the right class (n,)."""
    return -float(np.take_along_axis(np.asarray(log_probs, dtype=float), np.asarray(labels)[:, None], axis=1).mean())


def fit_temperature(log_probs: ArrayLike, labels: ArrayLike) -> float:
    """The temperature with the least negative log-likelihood of labels (n,) under log probabilities (n, C).

    Looked for between LOWEST and HIGHEST on the axis ln T, where the likelihood has a single hill. Raises TrecxError
    where the arrays do not fit together.
    """
    log_probs, labels = np.asarray(log_probs, dtype=float), np.asarray(labels).astype(int)
    if log_probs.ndim != 2 or labels.shape != log_probs.shape[:1] or not len(labels):
        raise TrecxError(
            "a temperature needs log probabilities (samples, classes) and labels (samples,), "
            f"not {log_probs.shape} and {labels.shape}"
        )

    def loss(log_temperature: float) -> float:
        return negative_log_likelihood(scaled(log_probs, np.exp(log_temperature)), labels)

    best = minimize_scalar(loss, bounds=(np.log(LOWEST), np.log(HIGHEST)), method="bounded", options={"xatol": 1e-5})
    return float(np.exp(best.x))


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
