"""Made-up records of runs, for tests of what is computed from published ones."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from trecx.records import Record, write
from trecx.runs import Run
from trecx.zoo import get_method


def write_record(
    run: Run, folder: Path, accuracies: Sequence[float] = (0.75, 0.85), samples: int = 200, minutes: float = 3
) -> Record:
    """A record of `run` under `folder`, whose exits are right on about these shares of the samples.

    Accuracies count from the last exit, whose cost is 15 MFLOPs less what a smaller width or resolution saves; labels
    are those of two classes in turn, and the same for every record.
    """
    exits = len(run.taps or get_method(run.method).taps[run.task]) + 1
    draw = np.random.default_rng([run.seed, *run.method.encode()])
    predictions = {}
    for split in ("val", "test"):
        labels = np.arange(samples) % 2
        shares = [*[accuracies[0]] * (exits - 1), accuracies[-1]]
        right = draw.random((samples, exits)) < np.array(shares)
        sure = np.where(right, draw.uniform(0.6, 0.99, right.shape), draw.uniform(0.5, 0.8, right.shape))
        answer = np.where(right, labels[:, None], 1 - labels[:, None])
        probabilities = np.where(np.arange(2) == answer[..., None], sure[..., None], 1 - sure[..., None])
        predictions |= {f"{split}_log_probs": np.log(probabilities).astype(np.float16)}
        predictions |= {f"{split}_labels": labels.astype(np.uint8)}
    whole = 15e6 * run.width**2 * ((run.resolution or 96) / 96) ** 2
    cost = [int(whole * (k + 1) / exits) for k in range(exits)]
    manifest = {
        "run": asdict(run),
        "recipe": asdict(run.resolved_recipe),
        "cost": {"params": 220_000, "trainable_params": 210_000, "macs": [c // 2 for c in cost], "flops": cost},
        "data": {
            "name": run.data,
            "title": "made up",
            "stand_in": False,
            "checksum": "abc" * 20,
            "sizes": {"train": 5000, "val": samples, "test": samples},
        },
        "seconds": 60 * minutes,
        "hardware": {"device": "cpu", "model": "made up"},
    }
    target = folder / run.data / run.name
    target.mkdir(parents=True)
    write(target, manifest, pd.DataFrame({"epoch": [1]}), predictions)
    return Record(target)
