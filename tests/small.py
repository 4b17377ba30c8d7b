"""Small copies of the stand-in data sets, records that no training made, and made-up audio."""

import json
import wave
import zlib
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
import torch
from torch import nn

from trecx import cli, data
from trecx.data import store
from trecx.data.mfcc import RATE
from trecx.deploy import intact
from trecx.deploy.records import DeviceRecord
from trecx.experiments.intact import FORMAT
from trecx.experiments.records import Record, pack, write
from trecx.experiments.results import Results
from trecx.experiments.runs import Run, cost_of, identity
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


def write_record(run: Run, root: Path, n: int = 48, accuracy: float | Sequence[float] = 0.7) -> Record:
    """A record of `run` as if it had been trained, on `n` made-up samples; `accuracy` of all exits, or of each."""
    draw = np.random.default_rng(run.seed + zlib.crc32(run.name.encode()))
    cost = cost_of(run)
    known = len(TASKS[run.task].classes)
    classes = known + run.extra_classes
    predictions = {}
    for split in ("val", "test"):
        labels = np.arange(n) % known
        logits = draw.normal(size=(n, len(cost.macs), classes))
        logits[draw.random((n, len(cost.macs))) < np.asarray(accuracy)] += (
            9 * np.eye(classes)[0]
        )  # class 0 is the right one until the next line
        rolled = [np.roll(row, label, axis=1) for row, label in zip(logits, labels, strict=True)]
        predictions[f"{split}_log_probs"] = pack(torch.tensor(np.stack(rolled)).float().log_softmax(2))
        predictions[f"{split}_labels"] = labels.astype(np.uint8)
    data = {
        "name": run.data,
        "title": "Made-up data",
        "stand_in": False,
        "checksum": "abc",
        "sizes": {"train": n, "val": n, "test": n},
    }
    recipe = "scratch" if run.start else run.recipe
    alone = replace(run, teacher="", start="", frozen=False, recipe=recipe)  # a made-up network needs no trained one
    manifest = identity(alone, "abc") | {"run": asdict(run), "recipe": asdict(run.resolved_recipe)}
    manifest |= {"cost": asdict(cost), "data": data, "seconds": 600.0}
    manifest |= {"hardware": {"model": "a processor"}, "arithmetic": run.resolved_recipe.precision}
    folder = root / run.data / run.name
    folder.mkdir(parents=True)
    write(folder, manifest, pd.DataFrame({"epoch": [1]}), predictions)
    return Record(folder)


def write_results(root: Path, task: str, n: int = 240) -> Results:
    """Three seeds each of a baseline, half its width, SDN and T-RecX, on `n` made-up samples."""

    def seeds(method: str, accuracy: float, width: float = 1.0) -> list[Record]:
        return [write_record(Run(task, method, seed=s, width=width), root, n, accuracy) for s in range(3)]

    methods = {name: seeds(name, accuracy) for name, accuracy in (("baseline", 0.9), ("sdn", 0.8), ("trecx_ev", 0.7))}
    return Results("quick", task, methods=methods, static={"width 0.5": seeds("baseline", 0.85, 0.5)})


# Benefit curves of made-up device records: of a network without exits, and of one that saves.
ALONE = {"thresholds": [None], "val": [0.88], "test": [0.87], "shares": [[1.0]]}
CURVE = {
    "thresholds": [1.0, 0.8, 0.0],
    "val": [0.885, 0.871, 0.7],
    "test": [0.88, 0.86, 0.69],
    "shares": [[0.0, 1.0], [0.5, 0.5], [1.0, 0.0]],
}


def change_json(path: Path, field: str, *value: Any) -> None:
    """Another value of a field of a JSON file, or none; numbers in the field's path are places in a list."""
    found = part = json.loads(path.read_text())
    *way, last = (int(key) if key.isdigit() else key for key in field.split("."))
    for key in way:
        part = part[key]
    if value:
        part[last] = value[0]
    else:
        del part[last]
    path.write_text(json.dumps(found))


WORDS = ("down", "yes", "stop")


def write_wav(path: Path, samples: np.ndarray, rate: int = RATE) -> None:
    """16-bit mono."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with wave.open(str(path), "wb") as file:
        file.setnchannels(1)
        file.setsampwidth(2)
        file.setframerate(rate)
        file.writeframes(np.rint(32767 * np.clip(samples, -1, 1)).astype("<i2").tobytes())


def write_audio(folder: Path) -> Path:
    """Tones for words, in folders as the official test archive has them, with background noise."""
    draw = np.random.default_rng(0)
    time = np.arange(RATE) / RATE
    for k, word in enumerate((*WORDS, "_unknown_")):
        for number in range(4):
            tone = 0.3 * np.sin(2 * np.pi * (300 + 400 * k + 20 * number) * time) * (np.abs(time - 0.5) < 0.2)
            write_wav(folder / word / f"{number}.wav", tone[: RATE - 100 * number])
    for number in range(4):
        write_wav(folder / "_silence_" / f"{number}.wav", 0.001 * draw.normal(size=RATE))
    for name in ("hum", "hiss"):
        write_wav(folder / "_background_noise_" / f"{name}.wav", 0.02 * draw.normal(size=3 * RATE))
    return folder


def samples_per_layer(network: Any, x: torch.Tensor, threshold: float) -> Counter[str]:
    """How many samples each convolution and dense layer saw during `predict`."""
    seen: Counter[str] = Counter()
    hooks = [
        module.register_forward_hook(lambda m, args, out, name=name: seen.update({name: len(args[0])}))
        for name, module in network.named_modules()
        if isinstance(module, nn.Conv2d | nn.Linear)
    ]
    network.predict(x, threshold)
    for hook in hooks:
        hook.remove()
    return seen


def write_device_record(
    root: Path, runs: Sequence[Run], instructions: Sequence[int], curve: Mapping[str, Any], **given: Any
) -> DeviceRecord:
    """A made-up device record in `root`: FLOPs are a tenth, MACs a twentieth of the instructions without decisions.

    `curve` has thresholds, val, test and shares; val_shares are the same as shares unless given. `given` replaces
    fields.
    """
    total = np.cumsum(instructions)
    exits = len(total)
    stage = {"least": 0, "most": 10**9, "decision": 10, "stack": 100}
    check = {"samples": 100, "difference": 0.0, "tolerance": 1e-3}
    manifest = {
        "format": FORMAT,
        "runs": [asdict(run) for run in runs],
        "rule": ">",
        "cost": {"flops": (total / 10).tolist(), "macs": (total / 20).tolist()},
        "bytes": {"float": 1000, "int8": 300},
        "accuracy": {s: {"float": [0.9] * exits, "int8": [0.88] * exits} for s in ("val", "test")},
        "machine": {"name": "mps2-an386", "processor": "Cortex-M4F"},
        "stages": [stage | {"instructions": n} for n in instructions],
        "operations": [dict.fromkeys(("conv", "pointwise", "depthwise", "outputs", "other"), 9)] * exits,
        "flash": {"weights": 300, "code": 50, "data": 0, "total": 350},
        "ram": {"variables": 40, "stack": 100, "total": 140, "planned": 60},
        "checks": {"host": check, "emulated": check},
        "firmware_sha256": "abc",
        "versions": {},
        "curve": {"val_shares": curve["shares"], **curve},
        "float_thresholds": [],
        "latency": None,
    }
    root.mkdir(parents=True, exist_ok=True)
    cut = {key: given[key] for key in ("exits", "end") if key in given}
    path = root / f"{intact.name(runs, given.get('mix', 0), **cut)}.json"
    path.write_text(json.dumps(manifest | given))
    return DeviceRecord(path)


def curve(record: Record, capsys: pytest.CaptureFixture[str], *words: str) -> list[dict[str, Any]]:
    """What `python -m trecx curve` prints of a record; further words may name a second one."""
    assert cli.main(["curve", str(record.folder), *words, "--json"]) == 0
    return json.loads(capsys.readouterr().out)
