"""Runs and records: what is reused, what is refused, what survives an interruption."""

import json
import multiprocessing
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from trecx import paths, runs
from trecx.data import Dataset
from trecx.errors import TrecxError
from trecx.pool import fit
from trecx.records import (
    Record,
    all_records,
    load_tensors,
    load_weights,
    open_record,
    pack,
    save_weights,
    whole_folder,
)
from trecx.runs import Run, evaluate, execute, find, run_of, runs_of
from trecx.zoo import build


@pytest.fixture
def small_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dataset:
    """Keyword-like data in place of every data set, and an empty records folder."""
    draw = np.random.default_rng(0)

    def part(n: int) -> tuple[Any, Any]:
        y = np.arange(n, dtype=np.uint8) % 12
        return (draw.normal(size=(n, 49, 10, 1)) + y[:, None, None, None] * 0.5).astype(np.float32), y

    parts = {
        f"{k}_{s}": v for s, n in (("train", 96), ("val", 24), ("test", 36)) for k, v in zip("xy", part(n), strict=True)
    }
    data = Dataset(
        name="quick_words", title="toy", description="toy", stand_in=True, classes=(), checksum="abc" * 10, **parts
    )
    monkeypatch.setattr(runs.datasets, "load", lambda name, split_seed=0: data)
    monkeypatch.setattr(paths, "RECORDS", tmp_path / "records")
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(runs, "default_device", lambda: torch.device("cpu"))
    return data


def test_record_holds_what_the_book_needs(small_data: Dataset) -> None:
    run = Run("kws", "trecx_ev", epochs=2)
    record = execute(run)
    manifest = record.manifest
    assert manifest["cost"]["flops"] == [3_127_080, 5_647_920]
    assert manifest["cost"]["params"] == 28_248
    assert manifest["data"]["sizes"] == {"train": 96, "val": 24, "test": 36}
    assert manifest["recipe"]["optimizer"] == "sgd"
    assert {"python", "torch", "numpy"} <= set(manifest["versions"])
    assert manifest["hardware"]["device"] == "cpu"
    assert list(record.history.epoch) == [1, 2]
    assert record.predictions["test_log_probs"].shape == (36, 2, 12)
    assert record.trace("val").scores.shape == (24, 1)
    assert run_of(record) == run
    assert record.weights.is_file()
    assert not list(paths.RECORDS.rglob("*.partial"))
    assert sum(f.stat().st_size for f in record.folder.iterdir()) < 2e6


def test_finished_run_is_found_and_not_trained_again(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("kws", "baseline", epochs=1)
    assert find(run) is None
    execute(run)
    monkeypatch.setattr(runs, "train", None)  # training now would fail
    assert [r.name for r in fit([run, run], say=lambda line: None)] == [run.name] * 2
    assert [r.name for r in all_records("quick_words")] == [run.name]
    assert find(Run("kws", "baseline", epochs=1, seed=1)) is None
    monkeypatch.setattr(runs, "engine_fingerprint", lambda: "other code")
    assert find(run) is None
    with pytest.raises(TrecxError, match="1 runs have no record"):
        fit([run], train_missing=False)


def test_published_record_counts_whatever_code_made_it(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("kws", "baseline", epochs=1)
    folder = execute(run).folder
    paths.PUBLISHED.mkdir()
    folder.parent.rename(paths.PUBLISHED / run.data)
    monkeypatch.setattr(runs, "engine_fingerprint", lambda: "other code")
    found = find(run)
    assert found is not None
    assert found.folder.is_relative_to(paths.PUBLISHED)


def test_interrupted_run_is_taken_up_again(small_data: Dataset) -> None:
    whole = execute(Run("kws", "trecx_ev", epochs=3, seed=5))
    expected, _ = load_tensors(whole.weights)
    for file in whole.folder.iterdir():
        file.unlink()
    whole.folder.rmdir()
    trained: list[int] = []

    def interrupt(epochs: int, row: dict[str, Any]) -> None:
        if epochs == 2:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        execute(Run("kws", "trecx_ev", epochs=3, seed=5), interrupt)
    assert find(Run("kws", "trecx_ev", epochs=3, seed=5)) is None
    again = execute(Run("kws", "trecx_ev", epochs=3, seed=5), lambda epochs, row: trained.append(epochs))
    assert trained == [3]
    tensors, _ = load_tensors(again.weights)
    assert all(torch.equal(tensors[k], expected[k]) for k in expected)


def test_state_of_another_run_is_not_used(small_data: Dataset) -> None:
    def interrupt(epochs: int, row: dict[str, Any]) -> None:
        raise KeyboardInterrupt

    run = Run("kws", "baseline", epochs=2)
    with pytest.raises(KeyboardInterrupt):
        execute(run, interrupt)
    note = next(paths.RECORDS.rglob("identity.json"))
    note.write_text(json.dumps(json.loads(note.read_text()) | {"engine": "older code"}))
    trained: list[int] = []
    execute(run, lambda epochs, row: trained.append(epochs))
    assert trained == [1, 2]


def test_evaluate_repeats_the_record_and_stops_early(small_data: Dataset) -> None:
    record = execute(Run("kws", "trecx_ev", epochs=2))
    answer = evaluate(record, 0.2)
    assert answer["accuracies"] == answer["recorded"]
    assert sum(answer["exit_shares"]) == pytest.approx(1)
    trace = record.trace()
    assert answer["accuracy"] == pytest.approx(100 * trace.outcome(0.2)[0].mean(), abs=3)
    assert 3_127_080 <= answer["mean_flops"] <= 5_647_920


def test_weights_of_another_network_or_damaged_files_are_refused(tmp_path: Path, small_data: Dataset) -> None:
    path = tmp_path / "weights.safetensors"
    save_weights(build("kws", "baseline"), path)
    load_weights(build("kws", "baseline"), path)
    with pytest.raises(TrecxError, match="weights of another network"):
        load_weights(build("kws", "trecx_ev"), path)
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.raises(TrecxError, match="no intact safetensors file"):
        load_weights(build("kws", "baseline"), path)
    with pytest.raises(TrecxError, match="no weights at"):
        load_weights(build("kws", "baseline"), tmp_path / "nothing")
    record = execute(Run("kws", "baseline", epochs=1))
    predictions = record.folder / "predictions.npz"
    predictions.write_bytes(predictions.read_bytes()[:200])
    with pytest.raises(TrecxError, match="is damaged"):
        Record(record.folder).accuracies()
    predictions.unlink()
    with pytest.raises(TrecxError, match="no complete run record"):
        open_record(record.folder)
    with pytest.raises(TrecxError, match="no record 'nothing'"):
        open_record("nothing")


def test_failed_write_leaves_the_old_folder(tmp_path: Path) -> None:
    target = tmp_path / "record"
    with whole_folder(target) as folder:
        (folder / "a").write_text("old")

    def fail() -> None:
        with whole_folder(target) as folder:
            (folder / "a").write_text("new")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        fail()
    assert (target / "a").read_text() == "old"
    assert [f.name for f in tmp_path.iterdir()] == ["record"]


def test_float16_keeps_every_predicted_class() -> None:
    log_probs = torch.randn(5000, 2, 10, generator=torch.Generator().manual_seed(0)).log_softmax(2)
    log_probs[0, 0, :2] = log_probs[0, 0].max() + torch.tensor([1e-6, 0.0])  # a tie once rounded
    log_probs[1, 0] = torch.tensor([0.0] + [-1e5] * 9)  # beyond float16
    packed = pack(log_probs)
    assert np.array_equal(packed.argmax(2), log_probs.numpy().argmax(2))
    assert np.isfinite(packed).all()
    assert np.abs(np.exp(packed.astype(float)) - log_probs.exp().numpy()).max() < 5e-4


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ({"task": "asr", "method": "baseline"}, "ic, kws, vww"),
        ({"task": "kws", "method": "resnet"}, "trecx_ev"),
        ({"task": "kws", "method": "baseline", "data": "cifar10"}, "quick_words or speech_commands"),
        ({"task": "kws", "method": "baseline", "recipe": "slow"}, "paper, fast, quick"),
        ({"task": "kws", "method": "baseline", "epochs": 0}, "from 1"),
        ({"task": "kws", "method": "trecx_ev", "w_early": -0.5}, "positive"),
        ({"task": "kws", "method": "baseline", "seed": -1}, "from 0"),
        ({"task": "kws", "method": "baseline", "width": 0.0}, "positive"),
        ({"task": "kws", "method": "trecx_ev", "taps": ("block9",)}, "stem, block1"),
    ],
)
def test_impossible_runs_are_refused_when_they_are_made(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(TrecxError, match=says):
        Run(**arguments)


def test_profiles_choose_data_and_recipe() -> None:
    (quick,), (full,) = runs_of("quick", "ic", "baseline", [3]), runs_of("full", "ic", "baseline", [3])
    assert (quick.data, quick.recipe, quick.seed) == ("quick_photos", "quick", 3)
    assert (full.data, full.recipe) == ("cifar10", "fast")
    with pytest.raises(TrecxError, match="quick, full"):
        runs_of("tiny", "ic", "baseline", [0])


def test_names_are_unique() -> None:
    variants = [
        Run("kws", "trecx_ev"),
        Run("kws", "trecx_ev", seed=1),
        Run("kws", "trecx_ev", epochs=3),
        Run("kws", "trecx_ev", w_early=0.5),
        Run("kws", "trecx_ev", taps=("block1",)),
        Run("kws", "trecx_ev", width=0.5),
        Run("kws", "trecx_ev", extra_classes=1),
        Run("kws", "trecx_ev", recipe="paper"),
    ]
    assert len({run.name for run in variants}) == len(variants)


@pytest.mark.slow
def test_several_runs_train_side_by_side(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Two worker processes on the real stand-in data; the workers read the folder from the environment."""
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path))
    monkeypatch.setattr(paths, "RECORDS", tmp_path)
    lines: list[str] = []
    wanted = [Run("kws", method, epochs=1, width=0.25) for method in ("baseline", "trecx_no_ev")]
    records = fit(wanted, workers=2, say=lines.append)
    assert [record.name for record in records] == [run.name for run in wanted]
    assert lines[0] == "training 2 runs, 2 epochs, 2 at a time"
    assert len([line for line in lines if "left" in line]) >= 2
    assert not multiprocessing.active_children()
