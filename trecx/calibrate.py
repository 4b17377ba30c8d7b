"""Temperature scaling: one number an exit that makes its confidence mean what it says (Guo et al. 2017).

The logits of an exit are divided by a temperature T, fitted on validation samples. T > 1 lowers confidences. The
predicted class stays, and so does the order of the samples at one exit: with one early exit the benefit curve is the
same, and only its thresholds are others.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
from numpy.typing import ArrayLike, NDArray
from scipy.optimize import minimize_scalar
from scipy.special import log_softmax

from trecx.errors import TrecxError
from trecx.evaluate import confidence, expected_calibration_error
from trecx.records import Record

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


def temperatures(record: Record) -> NDArray[np.float64]:
    """The temperature (K,) of each exit of a record, fitted on its validation samples."""
    log_probs, labels = record.predictions["val_log_probs"], record.predictions["val_labels"]
    return np.array([fit_temperature(log_probs[:, k], labels) for k in range(log_probs.shape[1])])


def calibration(records: Sequence[Record], split: str = "test") -> pd.DataFrame:
    """How far each exit's confidence is from its accuracy, before and after scaling: means over the seeds.

    Columns: exit, accuracy and mean confidence in percent, temperature, ECE and its value after scaling (percent), NLL
    and its value after scaling (nats).
    """
    rows = []
    for record in records:
        raw, labels = record.predictions[f"{split}_log_probs"], record.predictions[f"{split}_labels"]
        fitted = temperatures(record)
        after, exits = scaled(raw, fitted), raw.shape[1]
        right = raw.argmax(2) == labels[:, None]
        for k in range(exits):
            before_conf, after_conf = confidence(raw[:, k]), confidence(after[:, k])
            rows.append(
                {
                    "exit": "final" if k == exits - 1 else str(k + 1) if exits > 2 else "early",
                    "accuracy": 100 * right[:, k].mean(),
                    "confidence": 100 * before_conf.mean(),
                    "temperature": fitted[k],
                    "ECE": 100 * expected_calibration_error(before_conf, right[:, k]),
                    "ECE, scaled": 100 * expected_calibration_error(after_conf, right[:, k]),
                    "NLL": negative_log_likelihood(raw[:, k], labels),
                    "NLL, scaled": negative_log_likelihood(after[:, k], labels),
                }
            )
    return pd.DataFrame(rows).groupby("exit", sort=False).mean().reset_index()
