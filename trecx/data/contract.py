"""What a prepared data set must hold, whoever made the file. Checked whenever one is opened.

| array | type | shape | values |
|---|---|---|---|
| `x_*` pictures | uint8 | (N, height, width, 3) | 0 to 255, not all of them 0 and 1 |
| `x_*` features | float32 | (N, frames, coefficients, 1) | finite, within ±1000 (MFCC of `mfcc` lie within ±130) |
| `y_*` | any whole numbers | (N,) | 0 to classes - 1, the position in the list of classes |

`*` is train, test and, if the file has one, val; each has at least one sample, and as many labels as samples. Without
a val part every class that occurs in train needs two samples, of which one is held out. Nothing is converted: a file
of another form was made for another network, and a guess would be a silent mistake.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

SPLITS = ("train", "val", "test")
_LARGEST = 1000.0


def breach(arrays: Mapping[str, NDArray], sample: tuple[int, int, int], classes: int) -> str:
    """Return the first point in which `arrays` break the contract, as the end of a sentence; empty if in none.

    Args:
        arrays: x_train, y_train, x_test, y_test and maybe x_val, y_val.
        sample: (height, width, 3) of pictures, (frames, coefficients, 1) of features.
        classes: how many there are.
    """
    for split in SPLITS:
        x, y = arrays.get(f"x_{split}"), arrays.get(f"y_{split}")
        if x is None and y is None:
            continue
        if x is None or y is None:
            return f"x_{split} and y_{split} belong together, and one is missing"
        if wrong := _samples(x, sample):
            return f"x_{split} {wrong}"
        if wrong := _labels(y, classes):
            return f"y_{split} {wrong}"
        if len(x) != len(y) or not len(y):
            return f"x_{split} has {len(x)} samples and y_{split} {len(y)} labels: give as many of both, at least one"
    if "x_val" not in arrays:
        held = np.bincount(arrays["y_train"].astype(np.int64))
        if (held == 1).any():
            return (
                f"y_train has a single sample of class {int(np.argmax(held == 1))}: give two or more, since one of "
                "each class is held out where the file has no x_val and y_val"
            )
    return ""


def _samples(x: NDArray, sample: tuple[int, int, int]) -> str:
    pictures = sample[-1] == 3
    wanted = np.dtype(np.uint8 if pictures else np.float32)
    shape = ", ".join(map(str, sample))
    if x.dtype != wanted:
        return f"is {x.dtype}: give {'pictures as uint8 from 0 to 255' if pictures else 'features as float32'}"
    if x.shape[1:] != sample or x.ndim != 4:
        return f"has the shape {x.shape}: give (N, {shape})"
    if pictures and x.size and x.max() <= 1:
        return "has no value above 1: give pictures as uint8 from 0 to 255"
    if not pictures and not np.isfinite(x).all():
        return "has values that are not finite: give features without NaN and infinity"
    if not pictures and x.size and np.abs(x).max() > _LARGEST:
        return f"has values beyond ±{_LARGEST:g}: give MFCC as trecx.data.mfcc computes them"
    return ""


def _labels(y: NDArray, classes: int) -> str:
    wanted = f"give whole numbers from 0 to {classes - 1}, one a sample"
    if y.dtype.kind not in "iu" or not y.dtype.isnative:
        return f"is {y.dtype}: {wanted}"
    if y.ndim != 1:
        return f"has the shape {y.shape}: {wanted}"
    if len(y) and (y.min() < 0 or y.max() >= classes):
        return f"has labels from {y.min()} to {y.max()}: {wanted}"
    return ""
