"""Speed, as ratios measured in one run on one machine: writes benchmarks/results.json, which the book shows.

    make benchmark                                       without the comparison with Keras
    make benchmark KERAS=/path/to/python-with-tensorflow

Each time is the median of several repeats, after a warm-up, with nothing else running. Training counts
augmentation, the optimiser's step and everything else that `trecx.training.loop` does for a batch; Keras gets
batches that are ready-made.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import pairwise
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np
import torch

from trecx import paths
from trecx.evaluation.points import PAPER_GRID
from trecx.evaluation.trace import Trace, at_thresholds, benefit_curve
from trecx.experiments.machine import hardware, versions
from trecx.models.build import build
from trecx.models.cost import measure
from trecx.models.methods import METHODS
from trecx.training.batches import Examples
from trecx.training.loop import Training, train
from trecx.training.recipes import get_recipe

HERE = Path(__file__).parent
IMAGES = 2560  # an epoch of the training benchmark


def seconds(action: Callable[[], Any], repeats: int = 5) -> float:
    """Median time of `action`, after one call to warm up."""
    action()
    times = []
    for _ in range(repeats):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return median(times)


def training_rate(threads: int) -> float:
    """Images a second of ResNet-8 T-RecX under the fast recipe, augmentation included; best of three epochs' median."""
    torch.set_num_threads(threads)
    draw = np.random.default_rng(0)
    x = torch.from_numpy(draw.integers(0, 256, (IMAGES, 32, 32, 3), dtype=np.uint8)).permute(0, 3, 1, 2)
    y = torch.from_numpy(draw.integers(0, 10, IMAGES))
    marks = [time.perf_counter()]
    recipe = get_recipe("fast", "ic", 6)
    network = build("ic", "trecx_ev")
    train(
        network,
        Training(METHODS["trecx_ev"], recipe, "ic", seed=0, shares=(0.5,)),
        Examples(x, y, x[:2], y[:2]),
        report=lambda epochs, row: marks.append(time.perf_counter()),
        device=torch.device("cpu"),
    )
    return IMAGES / median(b - a for a, b in pairwise(marks[1:]))


def keras_rate(python: str) -> float:
    """Images a second of the same network in Keras, measured by another Python that has TensorFlow."""
    done = subprocess.run([python, HERE / "keras_resnet8.py"], capture_output=True, text=True, check=False)
    if done.returncode:
        sys.exit(f"the Keras benchmark failed:\n{done.stderr[-2000:]}")
    return float(json.loads(done.stdout.splitlines()[-1])["images_per_second"])


def side_by_side() -> float:
    """Images a second of one single-threaded process a core, all at work at once."""
    code = "import run; print(run.training_rate(1))"
    workers = [
        subprocess.Popen([sys.executable, "-c", code], cwd=HERE, stdout=subprocess.PIPE, text=True)
        for _ in range(os.cpu_count() or 1)
    ]
    return sum(float(worker.communicate()[0].splitlines()[-1]) for worker in workers)


def main() -> None:
    """Measure everything and write the results."""
    options = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    options.add_argument("--keras", metavar="PYTHON", default="", help="a Python that has TensorFlow")
    keras = options.parse_args().keras
    cores = os.cpu_count() or 1
    rows: list[dict[str, Any]] = []

    def add(what: str, unit: str, ours: float, against: str, theirs: float, better: str) -> None:
        ratio = ours / theirs if better == "more" else theirs / ours
        rows.append({"what": what, "unit": unit, "ours": ours, "against": against, "theirs": theirs, "ratio": ratio})
        print(f"{what}: {ours:.4g} {unit}, {against}: {theirs:.4g}; ratio {ratio:.2f}", flush=True)

    ours = training_rate(cores)
    if keras:
        theirs = keras_rate(keras)
        add("training ResNet-8 T-RecX, one process, all cores", "images/s", ours, "the same in Keras", theirs, "more")
    pair = side_by_side()
    if keras:
        add("training ResNet-8 T-RecX, one process a core", "images/s", pair, "the same in Keras", theirs, "more")
    add("one single-threaded training a core", "images/s", pair, "one training on all cores", ours, "more")
    torch.set_num_threads(cores)

    network = build("ic", "trecx_ev").eval()
    x = torch.randn(500, 3, 32, 32).contiguous(memory_format=torch.channels_last)
    network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with torch.no_grad():
        confidence = network(x)[0].softmax(1).amax(1)
        half = confidence.median().item()
        full = seconds(lambda: network.predict(x, 1.0))
        early = seconds(lambda: network.predict(x, half))
    cost = measure(network, (3, 32, 32))
    rate = (confidence > half).float().mean().item()
    expected = cost.flops[1] / (rate * cost.flops[0] + (1 - rate) * cost.flops[1])
    add("predict, half of 500 images exit", "s", early, "none exits", full, "less")
    rows.append(
        {"what": "the same in FLOPs", "unit": "", "ours": 1 / expected, "against": "", "theirs": 1.0, "ratio": expected}
    )

    draw = np.random.default_rng(0)
    trace = Trace(draw.random((10_000, 1)), draw.random((10_000, 2)) < 0.8, np.array([1.0, 2.0]))

    def loop() -> None:
        for threshold in PAPER_GRID:
            trace.outcome(threshold)

    curve, grid = seconds(lambda: benefit_curve(trace)), seconds(loop)
    add("benefit curve, 10 000 samples, all thresholds", "s", curve, "a loop over the paper's 101", grid, "less")
    exact = seconds(lambda: at_thresholds(trace, PAPER_GRID))
    add("benefit curve at the paper's 101 thresholds", "s", exact, "a loop over them", grid, "less")
    report = seconds(lambda: measure(build("ic", "trecx_ev"), (3, 32, 32)), 3)
    epoch = IMAGES / ours
    add(
        "cost report of a network, all exits and conventions",
        "s",
        report,
        f"training on {IMAGES} images",
        epoch,
        "less",
    )

    results = {
        "date": datetime.now(UTC).date().isoformat(),
        "versions": versions(),
        "hardware": hardware(torch.device("cpu")),
        "rows": rows,
    }
    temporary = paths.BENCHMARKS.with_suffix(".tmp")
    temporary.write_text(json.dumps(results, indent=1) + "\n")
    temporary.replace(paths.BENCHMARKS)
    print(f"written to {paths.BENCHMARKS.relative_to(paths.ROOT)}")


if __name__ == "__main__":
    main()
