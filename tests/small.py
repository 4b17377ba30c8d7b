"""Small copies of the stand-in data sets, for tests that train for real."""

from collections.abc import Iterable
from pathlib import Path

import numpy as np

from trecx import data
from trecx.data import store
from trecx.tasks import TASKS


def write_small_data(folder: Path, sizes: dict[str, int], tasks: Iterable[str] = TASKS) -> None:
    """Write each task's stand-in set into `folder` with only `sizes[split]` samples, all classes in turn."""
    for task in tasks:
        name = TASKS[task].quick_data
        full, source = data.load(name), data.DATASETS[name]
        arrays = {
            f"{kind}_{split}": getattr(full, f"{kind}_{split}")[_spread(getattr(full, f"y_{split}"), n)]
            for split, n in sizes.items()
            for kind in "xy"
        }
        store.write(folder / source.path.name, arrays, source.recipe)


def _spread(labels: np.ndarray, n: int) -> np.ndarray:
    """Rows of `n` samples with all classes in turn."""
    order = np.concatenate([np.flatnonzero(labels == label)[: n // 2] for label in np.unique(labels)])
    return np.sort(np.random.default_rng(0).permutation(order)[:n])
