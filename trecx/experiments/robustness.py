"""Keyword spotting as a device hears it: test clips moved in time, in noise, and sound without any word.

Does the early exit stay trustworthy there, or does it leave with confidence on noise? Clips go through the exact
audio front-end into a trained network, at the threshold that was chosen on clean validation data. All draws have one
seed of their own, so every network hears the same audio and two of them can be compared clip by clip.

A record of this is a folder `robustness/NAME OF THE RUN` beside the run records of the data set:

    manifest.json     the run and checksums of its predictions and weights, clips, noise, threshold, versions
    conditions.csv    one row a condition and group of clips, fractions and FLOPs, see `measure`
    outputs.npz       confidence and answer of every exit, exit taken and label, for every condition and clip;
                      the features of a few clips that leave early and late
"""

import hashlib
import wave
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from numpy.typing import NDArray

from trecx import paths
from trecx.data.download import file_sha256
from trecx.data.full.speech_commands import LISTS, NOISE, class_of
from trecx.data.mfcc import RATE, mfcc
from trecx.errors import TrecxError
from trecx.evaluation.calibration import expected_calibration_error, scaled
from trecx.evaluation.stats import paired_difference
from trecx.evaluation.trace import Trace, confidence, varied
from trecx.experiments import intact
from trecx.experiments.machine import hardware, versions
from trecx.experiments.records import (
    Record,
    chosen_thresholds,
    copy_files,
    temperatures,
    whole_folder,
    write_manifest,
)
from trecx.experiments.runs import network_of
from trecx.models.methods import get_method
from trecx.tasks import KWS
from trecx.training.batches import to_input
from trecx.training.loop import log_probs

GROUP = "robustness"
FILES = ("manifest.json", "conditions.csv", "outputs.npz")
ATTRIBUTION = "Google Speech Commands v2 (P. Warden, 2018), CC BY 4.0"
SILENCE, UNKNOWN = (KWS.classes.index(name) for name in ("silence", "unknown"))
DROP = 1  # points below the network's own final exit on validation: where the threshold is chosen
TALKERS = 6  # words that a babble is made of
EXAMPLES = 6  # clips that leave early, and as many that go on

Say = Callable[[str], None]


@dataclass(frozen=True)
class Condition:
    """What happens to the clips. kind: clean, shift, noise, background or babble; level: ms, dB, or nothing (NaN)."""

    kind: str
    level: float = np.nan

    @property
    def name(self) -> str:
        """As a table shows it."""
        if self.kind == "shift":
            return f"{abs(self.level):g} ms {'later' if self.level > 0 else 'earlier'}"
        if self.kind == "noise":
            return f"noise, {self.level:g} dB"
        return {"clean": "clean", "background": "background only", "babble": "babble only"}[self.kind]


CONDITIONS = (
    Condition("clean"),
    *(Condition("shift", ms) for ms in (-200, -100, -50, 50, 100, 200)),
    *(Condition("noise", db) for db in (20, 10, 0)),
    Condition("background"),
    Condition("babble"),
)


# --- Audio -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Clips:
    """Test clips of one second: waves (n, 16000) float32 in [-1, 1], labels (n,), names, and background recordings."""

    waves: NDArray[np.float32]
    labels: NDArray[np.int64]
    names: tuple[str, ...]
    noise: Mapping[str, NDArray[np.float32]]

    @cached_property
    def sha256(self) -> str:
        """Checksum of names and samples, background included."""
        digest = hashlib.sha256("\n".join(self.names).encode())
        for samples in (self.waves, *self.noise.values()):
            digest.update(samples.tobytes())
        return digest.hexdigest()


def read_clips(folder: Path, noise: Path | None = None, per_class: int = 60, seed: int = 0) -> Clips:
    """Read test clips and background noise, FLAC or WAV, 16 kHz mono.

    Args:
        folder: one folder a word, as in the official test archive (`_silence_` and `_unknown_` among them); or the
            unpacked main archive, of which the clips in testing_list.txt are taken (it has no silent ones).
        noise: folder of the background recordings, by default `_background_noise_` in `folder`.
        per_class: at most so many clips a class, drawn with `seed`; 0: all.
        seed: of that draw.

    Raises:
        TrecxError: no such folder, no clips or no noise in it, or a file that is no such recording.
    """
    if not folder.is_dir():
        raise TrecxError(f"{folder} is no folder: give one with the test clips of Speech Commands, one folder a word")
    noise = noise or folder / NOISE
    background = _recordings(noise) if noise.is_dir() else []
    if not background:
        raise TrecxError(f"no background noise in {noise}: give the folder {NOISE} of the main archive")
    listed = folder / LISTS[1]
    if listed.is_file():
        files = [folder / name for name in listed.read_text().split()]
    else:
        words = [f for f in sorted(folder.iterdir()) if f.is_dir() and f.name != NOISE]
        files = [file for word in words for file in _recordings(word)]
    if not any(class_of(file.parent.name) != SILENCE for file in files):
        raise TrecxError(f"no spoken words in {folder}: it needs one folder a word, with FLAC or WAV files")
    draw = np.random.default_rng(seed)
    labels = np.array([class_of(file.parent.name) for file in files])
    kept: list[int] = []
    for label in np.unique(labels):
        rows = np.flatnonzero(labels == label)
        kept += sorted(draw.permutation(rows)[: per_class or None].tolist())
    waves = np.stack([_one_second(read_sound(files[k])) for k in kept])
    names = tuple(f"{files[k].parent.name}/{files[k].name}" for k in kept)
    return Clips(waves, labels[kept], names, {file.name: read_sound(file) for file in background})


def read_sound(path: Path) -> NDArray[np.float32]:
    """Samples in [-1, 1] of a 16-bit, 16 kHz mono recording; TrecxError if it is no such file."""
    problem: object
    try:
        if path.suffix == ".wav":
            with wave.open(str(path)) as file:
                problem = (file.getframerate(), file.getnchannels(), file.getsampwidth())
                if problem == (RATE, 1, 2):
                    samples = np.frombuffer(file.readframes(file.getnframes()), dtype="<i2")
                    return samples.astype(np.float32) / np.float32(32768)
        else:
            import soundfile

            sound, rate = soundfile.read(path, dtype="float32")
            problem = (rate, sound.shape)
            if rate == RATE and sound.ndim == 1:
                return sound
    except ImportError as error:
        raise TrecxError("FLAC files need the package soundfile: run `pip install '.[data]'`") from error
    except (OSError, EOFError, ValueError, RuntimeError, wave.Error) as error:  # soundfile's errors are RuntimeErrors
        problem = " ".join(str(error).split())
    raise TrecxError(f"{path} is no 16-bit recording at 16 kHz with one channel ({problem})")


def _recordings(folder: Path) -> list[Path]:
    return sorted(file for file in folder.iterdir() if file.suffix in (".wav", ".flac"))


def _one_second(samples: NDArray[np.float32]) -> NDArray[np.float32]:
    return np.pad(samples[:RATE], (0, max(0, RATE - len(samples))))


def under(clips: Clips, condition: Condition, seed: int = 0) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """The waves (n, 16000) and labels (n,) of a condition. Sound without a word comes as many times as there are clips.

    Background alone is what the benchmark calls silence, and trains on; babble of other words is unknown to it.
    """
    draw = np.random.default_rng([seed, 1])  # the same pieces of noise at every level
    if condition.kind == "clean":
        return clips.waves, clips.labels
    if condition.kind == "shift":
        return shifted(clips.waves, condition.level), clips.labels
    if condition.kind == "babble":
        return babble(clips, len(clips.labels), draw), np.full(len(clips.labels), UNKNOWN)
    pieces = segments(list(clips.noise.values()), len(clips.labels), draw)
    if condition.kind == "background":
        return pieces, np.full(len(clips.labels), SILENCE)
    return mixed(clips.waves, pieces, condition.level, clips.labels == SILENCE), clips.labels


def shifted(waves: NDArray[np.float32], ms: float) -> NDArray[np.float32]:
    """Clips `ms` milliseconds later (negative: earlier); the gap is filled with a mirror image of the clip's edge.

    Zeros there would be a sound of their own, which no microphone gives: ln(1e-6) in every mel band.
    """
    gap = round(abs(ms) * RATE / 1000)
    if not gap:
        return waves
    if ms < 0:
        return np.pad(waves[:, gap:], ((0, 0), (0, gap)), mode="reflect")
    return np.pad(waves[:, :-gap], ((0, 0), (gap, 0)), mode="reflect")


def segments(noise: Sequence[NDArray[np.float32]], n: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """`n` random seconds (n, 16000) of the recordings, each recording as likely as the others."""
    if min(len(recording) for recording in noise) < RATE:
        raise TrecxError("a background recording is too short: every one must last a second or more")
    found = np.empty((n, RATE), dtype=np.float32)
    for k in range(n):
        recording = noise[int(draw.integers(len(noise)))]
        start = draw.integers(len(recording) - RATE + 1)
        found[k] = recording[start : start + RATE]
    return found


def mixed(
    waves: NDArray[np.float32], noise: NDArray[np.float32], db: float, silent: NDArray[np.bool_]
) -> NDArray[np.float32]:
    """Clips plus noise at a signal-to-noise ratio in dB: mean power of the clip over mean power of the noise.

    A silent clip has no signal. Its noise is as loud as that of a middling word: the room does not know that nobody
    speaks.
    """
    power, of_noise = (np.mean(x.astype(np.float64) ** 2, axis=1) for x in (waves, noise))
    power = np.where(silent, np.median(power[~silent]), power)
    factor = np.sqrt(power / np.maximum(of_noise, 1e-20) / 10 ** (db / 10))
    return waves + (factor[:, None] * noise).astype(np.float32)


def babble(clips: Clips, n: int, draw: np.random.Generator) -> NDArray[np.float32]:
    """`n` seconds (n, 16000) of several unknown words at once, equally loud, each turned round to a random start."""
    words = clips.waves[clips.labels == UNKNOWN]
    if not len(words):
        raise TrecxError("babble needs clips of unknown words, and the folder has none")
    words = words / np.maximum(np.sqrt(np.mean(words**2, axis=1, keepdims=True)), 1e-6)
    found = np.zeros((n, RATE), dtype=np.float32)
    for k in range(n):
        for word in draw.choice(len(words), TALKERS):
            found[k] += np.roll(words[word], draw.integers(RATE))
    return found


# --- Measuring ---------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class RobustnessRecord:
    """What one network did under every condition."""

    folder: Path

    @cached_property
    def manifest(self) -> dict[str, Any]:
        """Everything but the numbers; of files that are not damaged, or TrecxError."""
        manifest = intact.read_json(self.folder / FILES[0])
        intact.check_files(self.folder, manifest, FILES[1:])
        return manifest

    @cached_property
    def table(self) -> pd.DataFrame:
        """One row a condition and group of clips, see `measure`."""
        return pd.read_csv(self.folder / "conditions.csv")

    @cached_property
    def outputs(self) -> dict[str, NDArray[Any]]:
        """Arrays: labels, taken (conditions, n); predicted, confidence, scaled (conditions, n, exits); example_*."""
        return intact.read_arrays(self.folder / "outputs.npz")

    def trace(self, condition: str) -> Trace:
        """Scores (float16, so rounded), hits and FLOPs under one condition, for routing at other thresholds."""
        if condition not in self.manifest["conditions"]:
            raise TrecxError(f"unknown condition {condition!r}: choose one of {', '.join(self.manifest['conditions'])}")
        k = self.manifest["conditions"].index(condition)
        right = self.outputs["predicted"][k] == self.outputs["labels"][k][:, None]
        rule = get_method(self.manifest["run"]["method"]).rule
        return Trace(self.outputs["confidence"][k, :, :-1], right, np.asarray(self.manifest["cost"], dtype=float), rule)

    def hits(self, exit_index: int | None = None) -> NDArray[np.bool_]:
        """Whether the answer is right (conditions, n), at one exit or at the exit taken."""
        predicted, labels = self.outputs["predicted"], self.outputs["labels"]
        if exit_index is None:
            answers = np.take_along_axis(predicted, self.outputs["taken"][..., None].astype(int), axis=2)[..., 0]
        else:
            answers = predicted[..., exit_index]
        return answers == labels


def evaluate_robustness(
    records: Sequence[Record],
    clips: Clips,
    *,
    publish: bool = False,
    seed: int = 0,
    conditions: Sequence[Condition] = CONDITIONS,
    say: Say = lambda line: None,
) -> list[RobustnessRecord]:
    """Run trained networks over the clips under every condition and write a record of each.

    Args:
        records: runs on keyword spotting, with weights.
        clips: what they hear.
        publish: also copy the records into the book's folder.
        seed: of noise and babble.
        conditions: what happens to the clips, the unchanged ones first.
        say: receives one line a network.

    Raises:
        TrecxError: a run on another task, or one without weights.
    """
    networks = []
    for record in records:  # what is wrong is told before anything runs
        if (task := record.manifest["run"]["task"]) != KWS.name:
            raise TrecxError(f"{record.name} is a run on {task}: robustness is measured on keyword spotting (kws) only")
        networks.append(network_of(record))
    sounds = [under(clips, condition, seed) for condition in conditions]
    inputs = [(mfcc(waves), labels) for waves, labels in sounds]
    found = []
    for record, network in zip(records, networks, strict=True):
        outputs = [log_probs(network, to_input(x), KWS.name).numpy() for x, _ in inputs]
        table, arrays, chosen = measure(record, conditions, outputs, [labels for _, labels in inputs])
        if network.num_exits > 1:
            arrays |= _examples(inputs[0][0], clips, arrays["confidence"][0, :, 0].astype(float))
        manifest = {
            "run": record.manifest["run"],
            "record": {
                "name": record.name,
                "predictions": file_sha256(record.folder / "predictions.npz"),
                "weights": file_sha256(record.weights),
            },
            **chosen,
            "cost": record.manifest["cost"]["flops"],
            "seed": seed,
            "clips": {
                "source": ATTRIBUTION,
                "count": len(clips.labels),
                "by_class": dict(zip(KWS.classes, np.bincount(clips.labels, minlength=12).tolist(), strict=True)),
                "noise": [*clips.noise],
                "sha256": clips.sha256,
            },
            "conditions": [condition.name for condition in conditions],
            "finished": datetime.now(UTC).isoformat(timespec="seconds"),
            "versions": versions(),
            "hardware": hardware(torch.device("cpu")),
        }
        target = Path(record.manifest["run"]["data"]) / GROUP / record.name
        with whole_folder(paths.RECORDS / target) as folder:
            table.to_csv(folder / "conditions.csv", index=False, float_format="%.6g")
            np.savez_compressed(folder / "outputs.npz", **arrays)  # type: ignore[arg-type]
            write_manifest(folder, manifest)
        if publish:
            with whole_folder(paths.PUBLISHED / target) as folder:
                copy_files(paths.RECORDS / target, folder, FILES)
        found.append(RobustnessRecord((paths.PUBLISHED if publish else paths.RECORDS) / target))
        say(f"{record.name}: {len(conditions)} conditions, {len(clips.labels)} clips")
    return found


def measure(
    record: Record, conditions: Sequence[Condition], outputs: Sequence[NDArray[Any]], labels: Sequence[NDArray[Any]]
) -> tuple[pd.DataFrame, dict[str, NDArray[Any]], dict[str, Any]]:
    """Numbers, arrays and choices from each condition's log probabilities (n, K, 12) and labels (n,).

    The table has a row a condition and group of clips ('all'; 'words' and 'silence' where both are there):
    accuracy_k, confidence_k, ece_k, ece_scaled_k of exit k from 1; exit_rate, the share that leaves early; accuracy
    and cost (mean FLOPs) at the threshold; early_accuracy, right answers among those that left early, and
    final_on_early, what the final exit would have got right of the same; wrong_early, the share of all clips that left
    early with a wrong answer, and avoidable, those of them that the final exit has right; keyword and keyword_final,
    the share answered with one of the ten command words, at the threshold and by the final exit. NaN: nothing left.
    """
    method = get_method(record.manifest["run"]["method"])
    fitted = temperatures(record)
    exits = len(fitted)
    (threshold,) = chosen_thresholds([record], drop=DROP) if exits > 1 else (1.0,)
    if np.isnan(threshold):
        raise TrecxError(f"no threshold keeps the accuracy of {record.name} on validation")
    cost = np.asarray(record.manifest["cost"]["flops"], dtype=float)
    rows: list[dict[str, Any]] = []
    kept: dict[str, list[NDArray[Any]]] = {
        name: [] for name in ("labels", "taken", "predicted", "confidence", "scaled")
    }
    for condition, raw, right in zip(conditions, outputs, labels, strict=True):
        trace = Trace.from_log_probs(raw, right, cost, method.rule)
        taken, predicted = trace.leave(threshold), raw.argmax(2)
        before, after = confidence(raw), confidence(scaled(raw, fitted))
        for name, value in (("labels", right), ("taken", taken), ("predicted", predicted)):
            kept[name].append(value.astype(np.uint8))
        kept["confidence"].append(before.astype(np.float16))
        kept["scaled"].append(after.astype(np.float16))
        groups = {"all": np.full(len(right), True)}
        if condition.kind in ("clean", "shift", "noise") and (right == SILENCE).any():
            groups |= {"words": right != SILENCE, "silence": right == SILENCE}
        for group, member in groups.items():
            rows.append(
                {"condition": condition.name, "kind": condition.kind, "level": condition.level, "clips": group}
                | _row(trace.correct[member], taken[member], predicted[member], before[member], after[member], cost)
            )
    arrays = {name: np.stack(values) for name, values in kept.items()}
    chosen = {"threshold": threshold, "drop": DROP, "temperatures": fitted.tolist()}
    return pd.DataFrame(rows), arrays, chosen


def _row(
    correct: NDArray[np.bool_],
    taken: NDArray[np.intp],
    predicted: NDArray[np.intp],
    before: NDArray[np.float64],
    after: NDArray[np.float64],
    cost: NDArray[np.float64],
) -> dict[str, Any]:
    exits, each = len(cost), np.arange(len(taken))
    right, answer = correct[each, taken], predicted[each, taken]
    early = taken < exits - 1
    row: dict[str, Any] = {"n": len(taken)}
    for k in range(exits):
        row |= {f"accuracy_{k + 1}": correct[:, k].mean(), f"confidence_{k + 1}": before[:, k].mean()}
        row[f"ece_{k + 1}"] = expected_calibration_error(before[:, k], correct[:, k])
        row[f"ece_scaled_{k + 1}"] = expected_calibration_error(after[:, k], correct[:, k])
    return row | {
        "exit_rate": early.mean(),
        "accuracy": right.mean(),
        "cost": cost[taken].mean(),
        "early_accuracy": right[early].mean() if early.any() else np.nan,
        "final_on_early": correct[early, -1].mean() if early.any() else np.nan,
        "wrong_early": (early & ~right).mean(),
        "avoidable": (early & ~right & correct[:, -1]).mean(),
        "keyword": (answer < SILENCE).mean(),
        "keyword_final": (predicted[:, -1] < SILENCE).mean(),
    }


def _examples(x: NDArray[np.float32], clips: Clips, scores: NDArray[np.float64]) -> dict[str, NDArray[Any]]:
    """Clips on which the first exit is surest, then least sure; one a class before any class twice."""
    rows = [k for order in (np.argsort(-scores), np.argsort(scores)) for k in varied(order, clips.labels, EXAMPLES)]
    return {
        "example_x": x[rows].astype(np.float16),
        "example_labels": clips.labels[rows].astype(np.uint8),
        "example_scores": scores[rows].astype(np.float16),
        "example_names": np.array([clips.names[k] for k in rows]),
    }


# --- Reading -----------------------------------------------------------------------------------------------------


def published_robustness(records: Sequence[Record]) -> list[RobustnessRecord]:
    """The published robustness records of run records; one made from other weights of that name does not count."""
    found = []
    for record in records:
        folder = record.folder.parent / GROUP / record.name
        if all((folder / name).is_file() for name in FILES):
            candidate = RobustnessRecord(folder)
            if candidate.manifest["record"]["predictions"] == file_sha256(record.folder / "predictions.npz"):
                found.append(candidate)
    return found


def summary(records: Sequence[RobustnessRecord], clips: str = "all") -> pd.DataFrame:
    """Mean over seeds of every column of `measure`, a row a condition, in their order."""
    tables = pd.concat([record.table[record.table["clips"] == clips] for record in records])
    numbers = [c for c in tables if c not in ("condition", "kind", "level", "clips")]
    keys = tables[["condition", "kind", "level"]].drop_duplicates().set_index("condition")
    return keys.join(tables.groupby("condition", sort=False)[numbers].mean()).reset_index()


def gates(
    records: Sequence[RobustnessRecord], conditions: Sequence[str], thresholds: Sequence[float | None]
) -> pd.DataFrame:
    """Would another threshold help? A row a threshold and condition, percent, mean over seeds.

    `thresholds`: the same for every seed; None stands for each network's own, from validation.

    Columns: threshold, condition, leaves early, right among these (NaN where no clip of any seed leaves), accuracy,
    cost (mean MFLOPs), and final exit (all clips through it).
    """
    rows = []
    for threshold in thresholds:
        for condition in conditions:
            seeds = []
            for record in records:
                trace = record.trace(condition)
                used = record.manifest["threshold"] if threshold is None else threshold
                right, cost = trace.outcome(used)
                early = trace.leave(used) < len(trace.cost) - 1
                share = right[early].mean() if early.any() else np.nan
                row = [100 * early.mean(), 100 * share, 100 * right.mean()]
                seeds.append([*row, cost.mean() / 1e6, 100 * trace.final_accuracy])
            names = ["leaves early", "right among these", "accuracy", "cost", "final exit"]
            mean = pd.DataFrame(seeds, columns=names).mean().to_dict()
            rows.append({"threshold": "its own" if threshold is None else f"{threshold:g}", "condition": condition})
            rows[-1] |= mean
    return pd.DataFrame(rows)


def silenced(records: Sequence[RobustnessRecord], condition: str) -> tuple[float, float]:
    """How much of what goes wrong under a condition is a word taken for silence; percent, mean over seeds.

    Returns:
        The share of 'silence' among the wrong answers of clips that left early, and among all answers to clips that
        hold a word (at the threshold). NaN where there is no such clip.
    """
    shares = []
    for record in records:
        k = record.manifest["conditions"].index(condition)
        labels, taken, predicted = (record.outputs[name][k] for name in ("labels", "taken", "predicted"))
        answers = predicted[np.arange(len(taken)), taken.astype(int)]
        wrong = (taken < predicted.shape[1] - 1) & (answers != labels)
        words = labels != SILENCE
        shares.append([(answers[part] == SILENCE).mean() if part.any() else np.nan for part in (wrong, words)])
    first, second = 100 * np.mean(shares, axis=0)
    return float(first), float(second)


def gain(ours: Sequence[RobustnessRecord], theirs: Sequence[RobustnessRecord]) -> pd.DataFrame:
    """Accuracy at the threshold minus that of other networks, in points, a row a condition; paired by seed and clip.

    Columns: condition, ours and theirs (percent), difference, low, high (95 %, over seeds and clips), seeds.

    Raises:
        TrecxError: no seed in common, or other clips.
    """
    by_seed = {record.manifest["run"]["seed"]: record for record in theirs}
    matched = [(r, by_seed[r.manifest["run"]["seed"]]) for r in ours if r.manifest["run"]["seed"] in by_seed]
    if not matched:
        raise TrecxError("the two have no seed in common, so they cannot be compared in pairs")
    heard = {(r.manifest["clips"]["sha256"], r.manifest["seed"], *r.manifest["conditions"]) for p in matched for r in p}
    if len(heard) > 1:
        raise TrecxError("the two were measured on other clips or noise: run the command for both at once")
    first, second = (np.stack([record.hits() for record in side]) for side in zip(*matched, strict=True))
    rows = []
    for k, condition in enumerate(matched[0][0].manifest["conditions"]):
        a, b = first[:, k], second[:, k]
        interval = paired_difference(a, b).in_points()
        row = {"condition": condition, "ours": 100 * a.mean(), "theirs": 100 * b.mean()}
        rows.append(row | {"difference": interval.estimate, "low": interval.low, "high": interval.high})
        rows[-1]["seeds"] = len(matched)
    return pd.DataFrame(rows)
