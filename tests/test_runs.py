"""Runs and records: what is reused, what is refused, what survives an interruption."""

import hashlib
import json
import multiprocessing
import shutil
from dataclasses import asdict, fields, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from tests.small import write_record
from trecx import data as datasets
from trecx import paths
from trecx.data import Dataset
from trecx.errors import TrecxError
from trecx.experiments import reference, runs
from trecx.experiments.fingerprint import engine_fingerprint, method_settings
from trecx.experiments.pool import fit
from trecx.experiments.records import Record, all_records, open_record, pack, whole_folder
from trecx.experiments.runs import (
    Run,
    cost_of,
    evaluate,
    execute,
    find,
    identity,
    inputs,
    labels,
    publish,
    run_of,
    settings,
)
from trecx.experiments.sweep import load, own
from trecx.models.build import build
from trecx.models.methods import METHODS
from trecx.tasks import TASKS, VWW
from trecx.training import start
from trecx.training.loop import log_probs
from trecx.training.recipes import Recipe
from trecx.training.weights import load_tensors, load_weights, save_weights


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
    monkeypatch.setattr(runs.datasets, "checksum", lambda name: data.checksum)
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
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


NEW_FIELDS = {
    "run": ("start", "frozen", "resolution", "narrow", "ends", "teacher", "staged"),
    "recipe": ("ema", "head_rate", "teacher"),
}


def without_new_fields(record: Record) -> None:
    """Make a manifest as older code wrote it."""
    manifest = json.loads((record.folder / "manifest.json").read_text())
    for part, names in NEW_FIELDS.items():
        for name in names:
            del manifest[part][name]
    (record.folder / "manifest.json").write_text(json.dumps(manifest))


def test_records_from_before_a_field_existed_are_found_and_opened(small_data: Dataset) -> None:
    run = Run("kws", "baseline", epochs=1)
    record = execute(run)
    without_new_fields(record)
    assert find(run) is not None
    paths.PUBLISHED.mkdir()
    record.folder.parent.rename(paths.PUBLISHED / run.data)
    found = find(run)
    assert found is not None
    assert found.folder.is_relative_to(paths.PUBLISHED)
    assert run_of(found) == run
    manifest = json.loads((found.folder / "manifest.json").read_text())
    for part, name, other in (("run", "frozen", True), ("recipe", "ema", 0.9), ("recipe", "epochs", 2)):
        changed = manifest | {part: manifest[part] | {name: other}}
        (found.folder / "manifest.json").write_text(json.dumps(changed))
        assert find(run) is None, name


@pytest.mark.parametrize(("strength", "same"), [(0.0, True), (0.2, False)])
def test_a_field_that_is_gone_counts_only_where_it_changed_something(
    strength: float, same: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    run = Run("kws", "baseline", epochs=1)
    file = write_record(run, paths.PUBLISHED).folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["recipe"]["mixup"] = strength
    file.write_text(json.dumps(manifest))
    assert (find(run) is not None) == same


def test_every_published_record_has_todays_fields() -> None:
    records = [r for task in TASKS.values() for r in all_records(task.full_data, published_only=True)]
    assert len(records) > 100
    for record in records:
        made = settings(record)
        assert set(made["run"]) == {f.name for f in fields(Run)}, record.name
        assert set(made["recipe"]) == {f.name for f in fields(Recipe)}, record.name


def test_seeds_of_one_setting_are_siblings_whatever_fields_their_manifests_have(small_data: Dataset) -> None:
    older, newer = (execute(Run("kws", "baseline", epochs=1, seed=seed)) for seed in (0, 1))
    without_new_fields(older)
    published = [publish(record) for record in (older, newer)]
    assert sum(record.weights.is_file() for record in published) == 1


@pytest.mark.slow
def test_published_records_of_today_still_load() -> None:
    folders = [path.parent for path in paths.PUBLISHED.glob("*/*/manifest.json")]
    for record in (Record(folder) for folder in folders if folder.parent.name != reference.GROUP):
        run = run_of(record)
        assert run.name == record.name
        assert record.manifest["cost"]["flops"] == list(cost_of(run).flops)


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


def test_a_name_that_two_data_sets_share_is_refused_with_both(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    quick, full = Run("kws", "baseline", recipe="fast"), Run("kws", "baseline", "speech_commands", "fast")
    first = write_record(quick, paths.RECORDS)
    write_record(quick, paths.PUBLISHED)
    assert open_record(quick.name).folder == first.folder  # the fresh one, of one data set
    other = write_record(full, paths.PUBLISHED)
    with pytest.raises(TrecxError, match="quick_words and speech_commands: give its folder"):
        open_record(full.name)
    assert open_record(other.folder).folder == other.folder


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
        ({"task": "vww", "method": "baseline", "start": "imagenet"}, "unknown start 'imagenet': choose one of mlperf"),
        ({"task": "kws", "method": "baseline", "start": "mlperf_tiny"}, "is of task vww, not kws"),
        ({"task": "vww", "method": "baseline", "start": "mlperf_tiny", "width": 0.5}, "takes width 1 and no extra"),
        ({"task": "vww", "method": "baseline", "start": "mlperf_tiny", "extra_classes": 1}, "width 1 and no extra"),
        ({"task": "vww", "method": "trecx_ev", "frozen": True}, "needs trained weights: give start as well"),
        ({"task": "vww", "method": "baseline", "resolution": 95}, "choose vww at one of 32, 48, 64, 80, or 0"),
        ({"task": "vww", "method": "baseline", "resolution": -64}, "resolution -64 is impossible for vww"),
        ({"task": "ic", "method": "baseline", "resolution": 16}, "resolution 16 is impossible for ic"),
        ({"task": "kws", "method": "baseline", "recipe": "finetune"}, "task kws has no recipe 'finetune'"),
        ({"task": "kws", "method": "baseline", "seed": True}, "seed True is impossible: choose a whole number from 0"),
        ({"task": "kws", "method": "baseline", "seed": 1.0}, "seed 1.0 is impossible"),
        ({"task": "kws", "method": "baseline", "seed": 2**32}, "seed 4294967296 is impossible.*to 4294967295"),
        ({"task": "kws", "method": "baseline", "seed": None}, "seed None is impossible"),
        ({"task": "kws", "method": "baseline", "epochs": 2.0}, "epochs 2.0 is impossible.*from 1 to 10000"),
        ({"task": "kws", "method": "baseline", "epochs": 10_001}, "epochs 10001 is impossible"),
        ({"task": "kws", "method": "baseline", "extra_classes": 1001}, "extra_classes 1001 is impossible.*0 to 1000"),
        ({"task": "kws", "method": "baseline", "width": float("nan")}, "width nan is impossible"),
        ({"task": "ic", "method": "trecx_ev", "width": 0.01}, "width 0.01 is impossible.*from 0.015625 to 4"),
        ({"task": "ic", "method": "trecx_ev", "width": 1 / 64}, "width 0.015625 is impossible .*larger width"),
        ({"task": "kws", "method": "trecx_ev", "width": 1 / 64}, "width 0.015625 is impossible .*larger width"),
        ({"task": "kws", "method": "trecx_ev", "w_early": float("inf")}, "w_early inf is impossible.*1e-06 to 100"),
        ({"task": "kws", "method": "trecx_ev", "w_early": "0.3"}, "w_early '0.3' is impossible"),
        ({"task": "kws", "method": "baseline", "w_early": 0.3}, "w_early 0.3 .*'baseline'.*no early exit"),
        ({"task": "kws", "method": "sdn_fair", "w_early": 0.3}, "w_early 0.3 .*'sdn_fair'.*ramp"),
        ({"task": "kws", "method": "trecx_ev", "taps": "block1"}, "taps 'block1' is impossible: give a tuple"),
        ({"task": "kws", "method": "trecx_ev", "taps": 5}, "taps 5 is impossible"),
        ({"task": "kws", "method": "trecx_ev", "taps": (1,)}, r"taps \(1,\) is impossible"),
        ({"task": "kws", "method": "trecx_ev", "taps": ()}, r"taps \(\) leaves method 'trecx_ev' without an exit"),
        ({"task": "kws", "method": "trecx_ev", "taps": ("block1", "block2")}, "give one tap, not 2"),
        ({"task": "kws", "method": "sdn", "taps": ("block1", "block1")}, "names a stage twice"),
        ({"task": "vww", "method": "baseline", "resolution": 64.0}, "resolution 64.0 is impossible: choose a whole"),
        ({"task": "vww", "method": "baseline", "start": None}, "start None is impossible: give a name"),
        ({"task": ["kws"], "method": "baseline"}, r"task \['kws'\] is impossible: give a name"),
        ({"task": "vww", "method": "trecx_ev", "start": "mlperf_tiny", "frozen": 1}, "frozen 1 is impossible: choose"),
    ],
)
def test_impossible_runs_are_refused_when_they_are_made(arguments: dict[str, Any], says: str) -> None:
    with pytest.raises(TrecxError, match=says):
        Run(**arguments)


@pytest.mark.parametrize(
    ("said", "settled"),
    [
        (Run("kws", "trecx_ev", epochs=5), Run("kws", "trecx_ev")),
        (
            Run("kws", "trecx_ev", "speech_commands", "fast", epochs=14),
            Run("kws", "trecx_ev", "speech_commands", "fast"),
        ),
        (Run("kws", "trecx_ev", w_early=0.3), Run("kws", "trecx_ev")),  # the paper's w
        (Run("kws", "trecx_concat", w_early=1), Run("kws", "trecx_concat")),
        (Run("ic", "sdn", w_early=0.01), Run("ic", "sdn")),
        (Run("kws", "branchynet", w_early=1.0, taps=("block1",)), Run("kws", "branchynet", taps=("block1",))),
        (Run("kws", "trecx_ev", taps=("block2",)), Run("kws", "trecx_ev")),
        (Run("kws", "trecx_stride_first", taps=("block1",)), Run("kws", "trecx_stride_first")),
        (Run("kws", "baseline", taps=()), Run("kws", "baseline")),
        (Run("vww", "sdn", taps=("layer10", "layer4")), Run("vww", "sdn", taps=("layer4", "layer10"))),
        (Run("vww", "sdn", taps=("layer10", "layer4", "layer8")), Run("vww", "sdn")),
        (Run("vww", "trecx_ev", resolution=96), Run("vww", "trecx_ev")),
        (Run("ic", "trecx_ev", resolution=32), Run("ic", "trecx_ev")),
        (Run("kws", "trecx_ev", seed=np.int64(1), width=np.float64(1)), Run("kws", "trecx_ev", seed=1)),
    ],
)
def test_the_same_run_said_in_another_way_is_the_same_run(said: Run, settled: Run) -> None:
    assert said == settled
    assert said.name == settled.name
    assert json.dumps(asdict(said)) == json.dumps(asdict(settled))


def test_what_the_method_does_not_have_of_its_own_is_kept() -> None:
    assert Run("ic", "trecx_ev", w_early=0.3).w_early == 0.3  # keyword spotting's own, not this task's
    assert Run("kws", "branchynet", w_early=1.0).w_early == 1.0  # its own are 1 and 0.3
    assert Run("kws", "trecx_stride_first", taps=("block2",)).taps == ("block2",)
    assert Run("kws", "sdn", taps=["block2", "block1"]).taps == ("block1", "block2")  # type: ignore[arg-type]
    assert Run("kws", "trecx_ev", epochs=14).epochs == 14  # of the recipe fast, not quick


def test_names_keep_every_digit() -> None:
    names = [Run("kws", "trecx_ev", w_early=w).name for w in (0.2, 0.20000001, 1.0, 1e-6)]
    options = ["w0.2", "w0.20000001", "w1", "w1e-06"]
    assert names == [f"kws-trecx_ev-{option}-quick5-seed0" for option in options]
    widths = [Run("kws", "baseline", width=w).name for w in (0.8125, 0.81250001, 2)]
    assert widths == [f"kws-baseline-{option}-quick5-seed0" for option in ("width0.8125", "width0.81250001", "width2")]


PUBLISHED_SWEEPS = sorted({path.stem for path in paths.SWEEPS.glob("*.yaml")} - {"quick"})


@pytest.mark.parametrize("name", PUBLISHED_SWEEPS)
def test_every_published_run_is_found_under_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path))
    for run in load(own(name)):
        record = find(run)
        assert record is not None, run.name
        assert record.folder == paths.PUBLISHED / run.data / run.name
        assert run_of(record) == run


def test_every_published_record_is_of_a_sweep_and_has_the_name_it_was_published_under() -> None:
    listed = {(run.data, run.name) for name in PUBLISHED_SWEEPS for run in load(own(name))}
    records = [record for task in TASKS.values() for record in all_records(task.full_data, published_only=True)]
    assert {(record.folder.parent.name, record.name) for record in records} == listed
    assert listed >= {
        ("cifar10", "ic-baseline-width0.875-fast30-seed0"),
        ("cifar10", "ic-trecx_ev-extra1-fast30-seed2"),
        ("cifar10", "ic-trecx_ev-tap-stack2-fast30-seed0"),
        ("speech_commands", "kws-baseline-width0.8125-fast14-seed2"),
        ("speech_commands", "kws-trecx_concat-w0.3-fast14-seed4"),
        ("vww96", "vww-baseline-res80-from-mlperf_tiny-finetune20-seed2"),
        ("vww96", "vww-trecx_ev-from-mlperf_tiny-frozen-finetune20-seed4"),
        ("vww96", "vww-trecx_ev-w0.6-scratch30-seed0"),
    }


def test_a_record_that_says_its_run_in_another_way_is_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    run = Run("kws", "sdn")
    file = write_record(run, paths.PUBLISHED).folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["run"] |= {"epochs": 5, "taps": ["block3", "block1", "block2"], "w_early": 0.01}
    file.write_text(json.dumps(manifest))
    record = find(run)
    assert record is not None
    assert run_of(record) == run
    manifest["run"]["w_early"] = 0.02
    file.write_text(json.dumps(manifest))
    assert find(run) is None


def test_the_record_of_another_run_is_never_replaced(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("kws", "baseline", epochs=1)
    file = write_record(run, paths.RECORDS).folder / "manifest.json"
    manifest = json.loads(file.read_text())
    manifest["run"]["width"] = 1.0000001
    file.write_text(json.dumps(manifest))
    before = file.read_bytes()
    monkeypatch.setattr(runs, "train", None)  # training now would fail
    with pytest.raises(TrecxError, match=r"holds the record of another run: move it away"):
        execute(run)
    assert file.read_bytes() == before
    assert not list(paths.RECORDS.rglob("*.partial"))


@pytest.fixture
def package(tmp_path: Path) -> Path:
    """A copy of the package's code, to be changed."""
    source = Path(runs.__file__).parents[1]
    return Path(shutil.copytree(source, tmp_path / "trecx", ignore=shutil.ignore_patterns("__pycache__")))


@pytest.mark.parametrize(
    ("file", "old", "new", "same"),
    [
        ("training/recipes.py", '"""Learning rate when', '"""The learning rate when', True),
        ("models/cost.py", '"""What a network costs:', '"""The price of a network:', True),
        ("tasks.py", "# drops the last of 25 frames", "# leaves out the last of 25 frames", True),
        ("models/int8.py", "import ", "import json\nimport ", True),
        ("tasks.py", 'title="image classification"', 'title="pictures"', True),
        ("models/methods.py", '"Baseline (MLPerf)"', '"MLPerf"', True),
        ("training/recipes.py", "epochs=500", "epochs=400", True),
        ("analysis/tables.py", "import ", "import json\nimport ", True),
        ("training/recipes.py", "recipe.decay**epoch", "recipe.decay**(epoch + 1)", False),
        ("models/cost.py", '"aten::adaptive_avg_pool2d"', '"aten::avg_pool2d"', False),
        ("models/backbones.py", "Dropout(0.2)", "Dropout(0.3)", False),
        ("training/weights.py", "import ", "import json\nimport ", False),
        ("tasks.py", "w=0.5", "w=0.6", False),
    ],
)
def test_the_fingerprint_follows_what_decides_a_training(
    package: Path, file: str, old: str, new: str, same: bool
) -> None:
    text = (package / file).read_text()
    assert old in text
    (package / file).write_text(text.replace(old, new, 1))
    assert (engine_fingerprint(package) == engine_fingerprint()) == same


def test_a_runs_identity_has_its_own_method_and_no_others(monkeypatch: pytest.MonkeyPatch) -> None:
    """A method is compared by what it does: its label and its taps on other tasks may change."""
    before = {name: method_settings(name, "kws") for name, method in METHODS.items() if "kws" in method.tasks}
    assert len({str(sorted(made.items())) for made in before.values()}) == len(before)
    own = METHODS["trecx_ev"]
    renamed = replace(own, label="The paper's method", taps={**own.taps, "ic": ("stack2",)})
    monkeypatch.setitem(METHODS, "trecx_ev", renamed)
    assert method_settings("trecx_ev", "kws") == before["trecx_ev"]
    for changed in (replace(own, transfer=False), replace(own, taps={**own.taps, "kws": ("block1",)})):
        monkeypatch.setitem(METHODS, "trecx_ev", changed)
        assert method_settings("trecx_ev", "kws") != before["trecx_ev"]
        assert identity(Run("kws", "trecx_ev"), "")["method"] == method_settings("trecx_ev", "kws")


def test_a_record_made_in_other_arithmetic_is_another(small_data: Dataset, monkeypatch: pytest.MonkeyPatch) -> None:
    run = Run("kws", "baseline", epochs=1)
    monkeypatch.setattr(runs, "arithmetic", lambda device, asked: "float32")
    record = execute(run)
    assert record.manifest["arithmetic"] == "float32"
    assert find(run) is not None
    monkeypatch.setattr(runs, "arithmetic", lambda device, asked: asked)
    assert run.resolved_recipe.precision == "bfloat16"
    assert find(run) is None
    paths.PUBLISHED.mkdir()
    record.folder.parent.rename(paths.PUBLISHED / run.data)
    assert find(run) is not None  # a published result counts whatever made it


def test_networks_are_built_once_for_all_runs_that_share_them(monkeypatch: pytest.MonkeyPatch) -> None:
    """A long list of seeds is read in no time, and neither reading it nor counting its cost draws a random number."""
    built: list[str] = []

    def counting(task: str, method: str, **options: Any) -> Any:
        built.append(method)
        return build(task, method, **options)

    monkeypatch.setattr(runs, "build", counting)
    torch.manual_seed(3)
    state = torch.get_rng_state()
    listed = [Run("kws", "trecx_no_ev", seed=seed, width=0.2890625, epochs=1 + seed % 3) for seed in range(300)]
    costs = {cost_of(run) for run in listed}
    assert len(built) <= 2  # the check, and the count of its cost
    assert len(costs) == 1
    assert torch.equal(torch.get_rng_state(), state)


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
        Run("vww", "trecx_ev"),
        Run("vww", "trecx_ev", resolution=64),
        Run("vww", "trecx_ev", start="mlperf_tiny"),
        Run("vww", "trecx_ev", start="mlperf_tiny", frozen=True),
        Run("vww", "trecx_ev", start="mlperf_tiny", resolution=64),
        Run("vww", "trecx_ev", start="mlperf_tiny", frozen=True, resolution=64),
        Run("vww", "trecx_ev", start="mlperf_tiny", recipe="finetune"),
    ]
    assert len({run.name for run in variants}) == len(variants)


@pytest.mark.slow
def test_several_runs_train_side_by_side(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """Two worker processes on stand-in data that are made first; the workers read the folders from the environment.

    Nothing may go to standard error: the book would show it under the cell, and refuses to.
    """
    for name in ("RECORDS", "DATA"):
        monkeypatch.setenv(f"TRECX_{name}", str(tmp_path / name))
    lines: list[str] = []
    wanted = [Run("kws", method, epochs=1, width=0.25) for method in ("baseline", "trecx_no_ev")]
    records = fit(wanted, workers=2, say=lines.append)
    assert [record.name for record in records] == [run.name for run in wanted]
    assert [line.split(" (")[0] for line in lines if "Making" in line] == ["Making the data set quick_words"]
    assert lines[1] == "training 2 runs, 2 epochs, 2 at a time"
    assert capfd.readouterr().err == ""
    assert len([line for line in lines if "left" in line]) >= 2
    assert not multiprocessing.active_children()


# ---- trained weights to start from, and smaller inputs


@pytest.fixture
def small_pictures(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Dataset:
    """A few pictures in place of every data set, and empty folders of records."""
    draw = np.random.default_rng(0)
    sizes = {"train": 24, "val": 8, "test": 8}
    parts: dict[str, Any] = {f"x_{s}": draw.integers(0, 256, (n, 96, 96, 3), dtype=np.uint8) for s, n in sizes.items()}
    parts |= {f"y_{s}": (np.arange(n) % 4 == 0).astype(np.uint8) for s, n in sizes.items()}
    data = Dataset(
        name="quick_faces", title="toy", description="toy", stand_in=True, classes=(), checksum="abc" * 10, **parts
    )
    monkeypatch.setattr(runs.datasets, "load", lambda name, split_seed=0: data)
    monkeypatch.setattr(runs.datasets, "checksum", lambda name: data.checksum)
    monkeypatch.setenv("TRECX_RECORDS", str(tmp_path / "records"))
    monkeypatch.setattr(paths, "PUBLISHED", tmp_path / "published")
    monkeypatch.setattr(runs, "default_device", lambda: torch.device("cpu"))
    return data


def write_start(seed: int = 7) -> Any:
    """Weights in the place where the reader of the reference model puts them, and their network."""
    torch.manual_seed(seed)
    network = build("vww", "baseline").eval()
    path = start.weights_of("mlperf_tiny")
    path.parent.mkdir(parents=True, exist_ok=True)
    save_weights(network, path)
    return network


def test_start_lies_where_the_reader_of_released_weights_puts_it() -> None:
    model = next(m for m in reference.MODELS if (m.task, m.method) == ("vww", "baseline"))
    assert start.weights_of("mlperf_tiny") == paths.RECORDS / reference.GROUP / model.name / "weights.safetensors"


@pytest.mark.parametrize("method", ["baseline", "trecx_ev", "trecx_no_ev", "trecx_concat", "branchynet", "sdn_fair"])
def test_network_with_start_weights_answers_as_the_trained_one(small_pictures: Dataset, method: str) -> None:
    trained = write_start()
    run = Run("vww", method, start="mlperf_tiny")
    network = run.network().eval()
    fresh = {k: v.clone() for k, v in network.state_dict().items()}
    start.apply(network, run.start)
    x = torch.rand(4, *VWW.input_shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        assert torch.allclose(network(x)[-1], trained(x)[-1], atol=1e-6)
    exits = [k for k in fresh if k.startswith(("exits.", "final.view"))]
    assert all(torch.equal(fresh[k], network.state_dict()[k]) for k in exits)  # what is new stays as it was drawn
    if method == "trecx_ev":
        assert network.final.classifier.weight[:, 256:].abs().max() == 0


@pytest.mark.slow
def test_every_look_of_two_resolutions_starts_as_the_trained_network(small_pictures: Dataset) -> None:
    trained, network = write_start(), Run("vww", "two_resolutions", start="mlperf_tiny").network().eval()
    start.apply(network, "mlperf_tiny")
    small = build("vww", "baseline", resolution=64).eval()
    small.load_state_dict(trained.state_dict())
    x = torch.rand(4, *VWW.input_shape, generator=torch.Generator().manual_seed(0))
    fewer = torch.nn.functional.interpolate(x, (64, 64), mode="bilinear", antialias=True)
    with torch.no_grad():
        assert torch.equal(network(x)[1], trained(x)[0])
        assert torch.equal(network(x)[0], small(fewer)[0])
    record = execute(Run("vww", "two_resolutions", recipe="finetune", start="mlperf_tiny", epochs=1))
    assert evaluate(record)["accuracies"] == evaluate(record)["recorded"]


def test_missing_or_unfit_start_weights_are_one_sentence(small_pictures: Dataset) -> None:
    run = Run("vww", "baseline", start="mlperf_tiny", epochs=1)
    assert find(run) is None
    with pytest.raises(TrecxError, match=r"no start weights at .*: run `python -m trecx reference PATH` on a clone"):
        execute(run)
    assert not list(paths.RECORDS.rglob("*.partial"))
    write_start()
    with pytest.raises(TrecxError, match="does not fit this network: backbone"):
        start.apply(build("vww", "baseline", width=0.5), "mlperf_tiny")


def test_start_weights_are_part_of_a_runs_identity(small_pictures: Dataset) -> None:
    write_start()
    run = Run("vww", "trecx_ev", recipe="finetune", start="mlperf_tiny", epochs=1)
    record = execute(run)
    digest = hashlib.sha256(start.weights_of("mlperf_tiny").read_bytes()).hexdigest()
    assert record.manifest["start"] == digest
    assert "start" not in identity(Run("vww", "trecx_ev"), "")
    assert find(run) is not None
    write_start(seed=8)
    assert find(run) is None  # other weights: another result
    shutil.rmtree(start.weights_of("mlperf_tiny").parent)
    assert find(run) is not None  # nothing contradicts the record
    assert evaluate(record)["accuracies"] == evaluate(record)["recorded"]


def test_frozen_run_keeps_the_trained_backbone(small_pictures: Dataset) -> None:
    trained = write_start().state_dict()
    record = execute(Run("vww", "trecx_no_ev", recipe="finetune", start="mlperf_tiny", frozen=True, epochs=1))
    tensors, _ = load_tensors(record.weights)
    assert all(torch.equal(tensors[k], v) for k, v in trained.items() if k.startswith("backbone."))
    assert not torch.equal(tensors["final.classifier.bias"], trained["final.classifier.bias"])
    assert record.manifest["run"]["frozen"] is True


def test_smaller_inputs_are_trained_evaluated_and_counted(small_pictures: Dataset) -> None:
    run = Run("vww", "trecx_ev", resolution=64, epochs=1)
    small, full = cost_of(run), cost_of(Run("vww", "trecx_ev"))
    assert 0.4 < small.macs[0] / full.macs[0] < 0.5  # (64 / 96) squared is 0.44
    assert inputs(small_pictures, "test", run).shape == (8, 3, 64, 64)
    record = execute(run)
    assert tuple(record.manifest["cost"]["flops"]) == small.flops
    assert evaluate(record)["accuracies"] == evaluate(record)["recorded"]


def test_reference_weights_score_what_is_known_before_any_training(
    own_records: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """85.3 % of the official test images at the final exit, with and without an early-view head."""
    monkeypatch.setenv("TRECX_RECORDS", str(own_records))
    if not start.weights_of("mlperf_tiny").is_file() or not datasets.DATASETS["vww96"].path.is_file():
        pytest.skip("needs vww96 and the reference weights: run `python -m trecx reference PATH`")
    data = datasets.load("vww96")
    for method in ("baseline", "trecx_ev"):
        run = Run("vww", method, "vww96", "finetune", start="mlperf_tiny")
        network = run.network()
        start.apply(network, run.start)
        answers = log_probs(network, inputs(data, "test", run), "vww")[:, -1].argmax(1)
        assert (answers == labels(data, "test")).float().mean().item() == pytest.approx(0.853)
